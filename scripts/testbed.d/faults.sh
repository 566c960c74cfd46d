# shellcheck shell=bash
# Three works of the controller, and in each of them three things that happen to a host: whatever it
# is, the work ends and says so, the others serve meanwhile, and once all is well the work is gone on
# with to its end. Part of scripts/testbed.

# How long a work may take that a fault befell, in tenths of a second. The longest wait of a
# controller is that for a node that does not come back, a minute.
readonly WORK_PATIENCE=1500

# faults: one in each work, another one each time; FAULTS=all takes the nine of them, which is half
# an hour on a busy machine. The rows are in BEFELL.
faults() {
    local works=(deploy upgrade rotation) faults=("cut off" full restarted) first=$RANDOM work fault
    BEFELL=$(row work fault exit ended write resumed "last said of $OWN_DISK")
    for work in 0 1 2; do
        for fault in 0 1 2; do
            [ "${FAULTS:-}" = all ] || [ $(((first + work) % 3)) = $fault ] || continue
            say "a host is ${faults[fault]} while the controller is at work: ${works[work]}"
            fault_in "${works[work]}" "${faults[fault]}"
        done
    done
}

row() { printf '%-9s %-10s %5s %7s %7s %8s  %s\n' "$@"; }

# words_of WORK: what the controller is told, into WORDS, and where in its journal the fault is to
# come, into MOMENT: when it has come to its second node, and the host with the fault is not the
# next.
words_of() {
    case $1 in
    deploy)
        # Other settings, which each node is restarted for.
        if grep -q '127.0.0.1' "$PLACE/operator/inventory.yaml"; then
            inventory >"$PLACE/operator/inventory.yaml"
        else
            inventory | sed 's/paxos_listen: \([0-9.]*\)/paxos_listen: [\1, 127.0.0.1]/' \
                >"$PLACE/operator/inventory.yaml"
        fi
        WORDS="deploy --yes" MOMENT=': restart'
        ;;
    upgrade)
        local other=$PLACE/operator/second
        if [ "$RUNS_SECOND" = yes ]; then other=$PAXOS_CTL RUNS_SECOND=; else RUNS_SECOND=yes; fi
        WORDS="upgrade --binary $other --yes" MOMENT=': restart'
        ;;
    rotation) WORDS="keys rotate --authority peer" MOMENT=': forget the other' ;;
    esac
}

# work_begins WORDS…: in the background; its pid is in WORK. It is our own child, so that it can be
# killed by this.
work_begins() {
    BEFORE=$(last_run)
    # shellcheck disable=SC2086
    setsid ip netns exec "$NAMES-operator" env HOME="$PLACE/operator" \
        XDG_RUNTIME_DIR="$PLACE/run" "$PAXOS_CTL" "$@" \
        -i "$PLACE/operator/inventory.yaml" --keys-dir "$KEYS" \
        >"$PLACE/operator/work.log" 2>&1 &
    WORK=$!
}

# work_comes_to TEXT COUNT: waits until its journal has so many lines with this text. Fails if it
# ends before.
work_comes_to() {
    local tries=0 run
    while true; do
        run=$(last_run)
        if [ "$run" != "$BEFORE" ] && [ "$(grep -c -- "$1" "$run")" -ge "$2" ]; then return 0; fi
        kill -0 "$WORK" 2>/dev/null || return 1
        tries=$((tries + 1))
        [ $tries -lt $WORK_PATIENCE ] || fail "it does not come to \"$1\": $(cat "$run")"
        sleep 0.05
    done
}

work_ends() {
    local tries=0
    ENDED=0
    while kill -0 "$WORK" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt $WORK_PATIENCE ] || fail "it does not end: $(cat "$PLACE/operator/work.log")"
        sleep 0.1
    done
    wait "$WORK" || ENDED=$?
}

# befall FAULT: the host with the disk of its own.
befall() {
    case $1 in
    "cut off") ip -n "$NAMES-$OWN_DISK" link set eth0 down ;;
    full) fill_disk ;;
    restarted)
        kill -KILL "$(cat "$PLACE/machines/$OWN_DISK/pid")"
        boot "$OWN_DISK"
        ;;
    esac
}

# relieve FAULT
relieve() {
    case $1 in
    "cut off") ip -n "$NAMES-$OWN_DISK" link set eth0 up ;;
    full) empty_disk ;;
    restarted) ;;
    esac
    awake "$OWN_DISK" operator
}

# once_free COMMAND…: as `quietly 0`, and again while a host is taken to be worked on: one that was
# cut off cannot know that its controller has ended.
once_free() {
    local tries=0 status=75
    while [ $status = 75 ] && [ $tries -lt 40 ]; do
        status=0
        "$@" >"$PLACE/operator/said" 2>&1 || status=$?
        tries=$((tries + 1))
        [ $status != 75 ] || sleep 1
    done
    [ $status = 0 ] || {
        cat "$PLACE/operator/said" >&2
        fail "exit $status instead of 0: $*"
    }
}

# fault_in WORK FAULT: one of the nine.
fault_in() {
    local start ended written resumed=- says
    # One that was started again knows at once, by its boot, that nobody is at work there.
    local free=once_free
    [ "$2" != restarted ] || free='quietly 0'
    words_of "$1"
    # shellcheck disable=SC2086
    work_begins $WORDS
    work_comes_to "$MOMENT" 2 || fail "it was over before: $(cat "$PLACE/operator/work.log")"
    start=$(now)
    befall "$2"
    work_ends
    ended=$(since "$start")
    says=$(grep "$OWN_DISK" "$PLACE/operator/work.log" | grep -v '^hint' | tail -n 1 | cut -c1-90)
    if [ "$ENDED" != 0 ]; then
        sed -n '/^paxos-ctl:/,$p' "$PLACE/operator/work.log" | grep -q "$OWN_DISK" || {
            cat "$PLACE/operator/work.log" >&2
            fail "it ended with $ENDED, and does not name $OWN_DISK"
        }
    else
        says='came to its end'
    fi
    start=$(now)
    quietly 0 node h1 paxos put after "$1-${2// /-}"
    written=$(since "$start")
    relieve "$2"
    start=$(now)
    case "$ENDED $1" in
    "0 "*) $free ctl deploy --yes ;;
    *" rotation")
        $free ctl keys resume && resumed=$(since "$start")
        # Where nothing starts a node with its host, a rotation does not do it either.
        [ "$2" != restarted ] || quietly 0 ctl deploy --yes
        ;;
    *) $free ctl resume --yes && resumed=$(since "$start") ;;
    esac
    quietly 0 ctl plan
    local told
    told=$(row "$1" "$2" "$ENDED" "$ended" "$written" "$resumed" "$says")
    printf '%s\n' "$told" >&2
    BEFELL+=$'\n'$told
}
