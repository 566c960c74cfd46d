# shellcheck shell=bash
# What a node is to a real systemd, from its first start to its end: a service that tells when it
# listens, comes back after a crash and with its host, stays down when it was told to or a person is
# wanted, and can do little else. Part of scripts/testbed.

readonly UNIT=paxos@testbed.service

# What `systemd-analyze security` may make of it as it was loaded, in tenths: a little more than it
# makes of the text of any (tests/unit.rs).
readonly EXPOSURE_MAX=15

# For how many looks, a tenth of a second apart and more, a node that is to stay down is looked at;
# one that does not stay down is back after a second.
readonly LOOKS_DOWN=25

units() {
    local start first upgraded files
    say "check, and the plan for hosts where nothing is"
    expect 0 ctl check | tee "$PLACE/operator/check.txt"
    files=$(sed -n 's/^h1 .* \([0-9]*\) may be open *$/\1/p' "$PLACE/operator/check.txt")
    expect 2 ctl plan
    say "deploy"
    start=$(now)
    expect 0 ctl deploy --yes
    first=$(since "$start")
    expect 0 ctl plan
    for name in $HOSTS; do comes_to "$name" "${SERVES[@]}" NRestarts=0; done
    say "what systemd keeps from a node"
    for name in $HOSTS; do sandboxed "$name"; done
    [ "$(open_files h1)" = "$files" ] || fail "h1 may open other than the $files files of check"
    expect 0 node h1 paxos put greeting hello
    say "a node that crashes comes back, and so does one that is killed by the controller"
    crashes
    say "one that was stopped, one with bad settings and one with damaged data stay down"
    stay_down
    say "another version of the program"
    second_version
    start=$(now)
    expect 0 ctl upgrade --binary "$PLACE/operator/second" --yes
    upgraded=$(since "$start")
    runs_version "$SECOND"
    for name in $HOSTS; do comes_to "$name" "${SERVES[@]}" NRestarts=0; done
    if [ -z "$SLICE" ]; then more_units; fi
    say "a key that is revoked, and no node is restarted for it"
    hangs_up
    say "hosts that are shut down and that lose their power come back with their nodes"
    hosts_come_back
    if [ -z "$SLICE" ]; then
        say "two of the three hosts are lost, and their nodes come back with them"
        lost_for_a_while
    fi
    say "destroy"
    expect 0 ctl destroy --confirm testbed
    for name in $HOSTS; do nothing_left "$name"; done
    say "all held"
    at h1 systemctl --version | head -n 1
    printf 'first deploy of 3 hosts: %s s\nupgrade of 3 hosts: %s s\n' "$first" "$upgraded"
    printf 'from a crash until it listens: %s s\n' "$CRASHED"
    [ -n "$SLICE" ] || printf 'going on without two hosts of three: %s s\n' "$RECOVERED"
    printf 'from the start of three systemds to a healthy cluster: %s s\n' "$CAME_BACK"
}

# How a node is that serves.
readonly SERVES=(ActiveState=active SubState=running UnitFileState=enabled)

# at HOST WORDS…: in a shell there. The first login serves the next ones too, for there are many.
at() {
    patient "$PLACE/operator/ssh_config" -o ControlMaster=auto -o ControlPersist=yes \
        -o "ControlPath=$PLACE/operator/way-to-%n" "$@"
}

# log_out HOST: a login does not notice that its host is gone.
log_out() { at -O exit "$1" 2>/dev/null; }

# shown HOST: what its systemd says of the node, a line each.
shown() {
    at "$1" sudo systemctl show "$UNIT" -p ActiveState -p SubState -p UnitFileState \
        -p NRestarts -p MainPID -p Result -p ExecMainStatus -p StatusText -p InvocationID
}

# lines_in TEXT LINE…: all of these are among it.
lines_in() {
    local line
    for line in "${@:2}"; do grep -qxF -- "$line" <<<"$1" || return 1; done
}

# comes_to HOST LINE…: waits until its systemd says all of this.
comes_to() {
    local host=$1 tries=0
    until SHOWN=$(shown "$host") && lines_in "$SHOWN" "${@:2}"; do
        tries=$((tries + 1))
        [ $tries -lt $PATIENCE ] || fail "the unit on $host is not ${*:2}, but $SHOWN"
        sleep 0.1
    done
}

# of PROPERTY: as it was shown last.
of() { sed -n "s/^$1=//p" <<<"$SHOWN"; }

# on HOST SCRIPT WORDS…: a script that root runs there.
on() { at "$1" "sudo bash -euc $(printf '%q ' "$2" script "${@:3}")"; }

# sandboxed HOST: its process is not root's and can become nobody else; what is not the node's it
# cannot write, even as root, and others' files and processes it does not see.
sandboxed() {
    local data=/var/lib/paxos/testbed capabilities=0000000000000000
    [ "$1" != $OWN_DISK ] || data=/data/paxos
    [ "$1" != $LOW_PORT_HOST ] || capabilities=0000000000000400
    shown "$1" | grep -q '^StatusText=.* listens on ' || fail "$1 did not say that it listens"
    # shellcheck disable=SC2016
    on "$1" '
        fail() { echo "the node $*" >&2; exit 1; }
        pid=$(systemctl show -P MainPID "$1")
        is() { [ "$(sed -n "s/^$1:[[:space:]]*//p" "/proc/$pid/status" | cut -f1)" = "$2" ]; }
        at_its_place() { nsenter --target "$pid" --mount "$@" 2>/dev/null; }
        as_itself() { at_its_place setpriv --reuid paxos --regid paxos --clear-groups "$@"; }
        is Uid "$(id -u paxos)" || fail "does not run under its account"
        for kind in Inh Prm Eff Bnd Amb; do is "Cap$kind" "$3" || fail "has capabilities"; done
        is NoNewPrivs 1 || fail "can gain privileges"
        is Seccomp 2 || fail "has all system calls"
        for place in /tmp /home; do touch "$place/theirs"; done
        for path in /etc/paxos /opt/paxos /usr /var/lib/paxos /home /root /dev; do
            ! at_its_place touch "$path/left" || fail "writes in $path"
        done
        as_itself touch "$2/left" || fail "does not write in $2"
        rm "$2/left"
        for place in /tmp /home; do
            ! at_its_place ls "$place/theirs" || fail "sees what others have in $place"
            rm "$place/theirs"
        done
        [ "$(as_itself ls /proc | grep -c "^[0-9]")" -lt "$(ls /proc | grep -c "^[0-9]")" ] ||
            fail "sees what others run"
        systemd-analyze security --no-pager --threshold="$4" "$1" >/run/exposed ||
            { cat /run/exposed >&2; fail "is exposed"; }
        rm /run/exposed
    ' "$UNIT" "$data" "$capabilities" $EXPOSURE_MAX ||
        fail "$1 is not kept from what it does without"
}

# open_files HOST: how many its node may have.
open_files() {
    # shellcheck disable=SC2016
    on "$1" 'sed -n "s/^Max open files *\([0-9]*\) .*/\1/p" \
        "/proc/$(systemctl show -P MainPID "$1")/limits"' "$UNIT"
}

# crashes: h1, by systemd's hand and by the controller's.
crashes() {
    local start before
    comes_to h1 "${SERVES[@]}"
    before=$(of MainPID)
    start=$(now)
    on h1 'systemctl kill --signal=KILL --kill-whom=main "$1"' "$UNIT"
    comes_to h1 "${SERVES[@]}" NRestarts=1
    CRASHED=$(since "$start")
    [ "$(of MainPID)" != "$before" ] || fail "h1 has the process that was killed"
    expect 0 ctl kill h1
    comes_to h1 "${SERVES[@]}" NRestarts=2
    healthy
}

# stay_down: three nodes, for three reasons; and then all serve again.
stay_down() {
    local looks=() name log=$PLACE/machines/$OWN_DISK/root/data/paxos/log/00000000000000000001.log
    expect 0 ctl stop h1
    comes_to h1 ActiveState=inactive SubState=dead Result=success UnitFileState=enabled
    # Whoever starts it and waits is told: it is not ready before it listens.
    # shellcheck disable=SC2016
    on h2 'echo "nonsense: yes" >>/etc/paxos/testbed.yaml
        ! systemctl restart "$1" 2>/dev/null' "$UNIT" || fail "h2 is ready with bad settings"
    expect 0 ctl stop h3
    cp "$log" "$PLACE/operator/kept.log"
    printf damage | dd of="$log" bs=1 conv=notrunc status=none
    # shellcheck disable=SC2016
    on h3 '! systemctl start "$1" 2>/dev/null' "$UNIT" || fail "h3 is ready with damaged data"
    local failed=(ActiveState=failed Result=exit-code NRestarts=0 MainPID=0)
    comes_to h2 "${failed[@]}" ExecMainStatus=78
    comes_to h3 "${failed[@]}" ExecMainStatus=65
    for name in $HOSTS; do
        # shellcheck disable=SC2016
        on "$name" 'for ((look = 0; look < $2; look++)); do
                [ "$(systemctl show -P MainPID "$1")" = 0 ]
                sleep 0.1
            done' "$UNIT" $LOOKS_DOWN &
        looks+=($!)
    done
    for name in $HOSTS; do
        wait "${looks[0]}" || fail "$name does not stay down"
        looks=("${looks[@]:1}")
    done
    quietly 69 ctl status
    grep -q 'h1: it does not run' "$PLACE/operator/said" || fail "status does not say h1 is down"
    grep -q 'unknown field.*nonsense' <<<"$(ctl logs h2)" || fail "the log of h2 does not say why"
    grep -q 'is damaged at byte' <<<"$(ctl logs h3)" || fail "the log of h3 does not say why"
    quietly 65 ctl deploy --yes
    grep -q 'h3 ended right after its start: .* is damaged' "$PLACE/operator/said" ||
        fail "deploy does not say what is wrong with h3"
    # Over it, so that it stays its account's.
    cat "$PLACE/operator/kept.log" >"$log"
    expect 0 ctl deploy --yes
    for name in $HOSTS; do comes_to "$name" "${SERVES[@]}" NRestarts=0; done
    [ "$(node h3 paxos get greeting)" = hello ] || fail "h3 has lost the greeting"
}

# processes: which they are, of all nodes.
processes() {
    local name
    for name in $HOSTS; do shown "$name" | grep -E '^(MainPID|InvocationID|NRestarts)='; done
}

# hangs_up: nodes take up other keys, and go on as the processes that they are.
hangs_up() {
    local before
    before=$(processes)
    revokes
    [ "$(processes)" = "$before" ] || fail "of $before came $(processes)"
}

# hosts_come_back: one is shut down and says so to its node, the others lose their power; nobody
# but systemd starts the nodes.
hosts_come_back() {
    local name tries=0 start pid log=$PLACE/machines/h1/root/var/lib/paxos/testbed/paxos.log
    pid=$(cat "$PLACE/machines/h1/pid")
    on h1 'systemctl --no-block poweroff'
    while kill -0 "$pid" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt $WORK_PATIENCE ] || fail "h1 does not shut down"
        sleep 0.1
    done
    tail -n 1 "$log" | grep -q stopped || fail "the node of h1 was not told to stop"
    for name in h2 h3; do
        log_out "$name"
        kill -KILL "$(cat "$PLACE/machines/$name/pid")"
    done
    start=$(now)
    for name in $HOSTS; do boot "$name"; done
    for name in $HOSTS; do
        awake "$name" operator
        comes_to "$name" "${SERVES[@]}" NRestarts=0
    done
    healthy
    CAME_BACK=$(since "$start")
    for name in $HOSTS; do
        [ "$(node "$name" paxos get greeting)" = hello ] || fail "$name has lost the greeting"
    done
    expect 0 ctl plan
}

# lost_for_a_while: nodes that were given up run again as soon as their hosts do, until somebody
# sees to that as the controller said.
lost_for_a_while() {
    local name
    for name in h2 h3; do log_out "$name"; done
    loses_hosts h2 h3
    for name in h2 h3; do
        comes_to "$name" "${SERVES[@]}"
        # shellcheck disable=SC2016
        on "$name" 'systemctl disable --quiet --now "$1"' "$UNIT"
        comes_to "$name" ActiveState=inactive UnitFileState=disabled
    done
}

# nothing_left HOST: neither files nor a unit that systemd remembers. The account stays.
nothing_left() {
    # shellcheck disable=SC2016
    on "$1" '
        fail() { echo "$*" >&2; exit 1; }
        for path in /opt/paxos /etc/paxos /var/lib/paxos /data/paxos /usr/local/bin/paxos \
            /run/paxos-testbed /etc/systemd/system/paxos@* /etc/systemd/system/*/paxos@*; do
            [ ! -e "$path" ] && [ ! -L "$path" ] || fail "$path is left"
        done
        known=$(systemctl list-units --all --plain --no-legend "paxos@*";
            systemctl list-unit-files --no-legend "paxos@*" || true)
        [ -z "$known" ] || fail "systemd knows of $known"
        [ "$(systemctl is-system-running)" = running ] || systemctl --failed >&2
        id paxos >/dev/null || fail "the account is gone"
    ' || fail "something is left on $1"
}

# more_units: what the slice leaves out.
more_units() {
    local name before
    say "back to the version before, and a restart"
    expect 0 ctl rollback --yes
    runs_version "$FIRST"
    before=$(processes)
    expect 0 ctl restart
    for name in $HOSTS; do comes_to "$name" "${SERVES[@]}" NRestarts=0; done
    [ "$(processes | sort - <(printf '%s\n' "$before") | uniq -d | grep -cv NRestarts)" = 0 ] ||
        fail "a node was not restarted"
    say "what an operator adds with systemctl edit holds from the next restart on"
    # shellcheck disable=SC2016
    on h2 'mkdir -p "/etc/systemd/system/$1.d"
        printf "[Service]\nLimitNOFILE=5000\n" >"/etc/systemd/system/$1.d/override.conf"' "$UNIT"
    expect 0 ctl restart h2
    [ "$(open_files h2)" = 5000 ] || fail "h2 does not heed it"
    # shellcheck disable=SC2016
    on h2 'rm "/etc/systemd/system/$1.d/override.conf"' "$UNIT"
    expect 0 ctl restart h2
    say "a node whose port somebody else has tries again until it is free"
    expect 0 ctl stop h1
    on h1 '/usr/sbin/sshd -p 7022 -o PidFile=/run/stranger.pid'
    # shellcheck disable=SC2016
    on h1 'systemctl start --no-block "$1"' "$UNIT"
    comes_to h1 NRestarts=3
    # shellcheck disable=SC2016
    on h1 'kill "$(cat /run/stranger.pid)"'
    comes_to h1 "${SERVES[@]}"
    healthy
    say "what is between two starts is stopped, and what said nothing is looked for in the journal"
    starts_in_vain
    say "a node that crashes does not take up a version that lies there"
    keeps_its_version
    say "a second cluster on the same hosts comes and goes"
    second_cluster
    expect 0 ctl upgrade --binary "$PLACE/operator/second" --yes
}

# starts_in_vain: the node of h1, which cannot even open its log.
starts_in_vain() {
    local log=/var/lib/paxos/testbed/paxos.log
    # shellcheck disable=SC2016
    on h1 'rm "$1"; mkdir "$1"; systemctl kill --signal=KILL "$2"' $log "$UNIT"
    comes_to h1 ActiveState=activating SubState=auto-restart
    quietly 1 ctl restart h1
    on h1 "$(sed -n 's/.*: \(journalctl .*\)$/\1/p' "$PLACE/operator/said")" \
        >"$PLACE/operator/journal.txt"
    grep -q "cannot open $log" "$PLACE/operator/journal.txt" ||
        fail "the journal is not where the controller says"
    expect 0 ctl stop h1
    comes_to h1 ActiveState=inactive
    on h1 "rmdir $log"
    expect 0 ctl deploy --yes
}

# keeps_its_version: h2, where a controller was killed before it told the node of the next one.
keeps_its_version() {
    local before
    before=$(on h2 'readlink /opt/paxos/current')
    # shellcheck disable=SC2016
    on h2 'ln -sfn "$(find /opt/paxos -name "$1-*")" /opt/paxos/current
        systemctl kill --signal=KILL "$2"' "$SECOND" "$UNIT"
    comes_to h2 "${SERVES[@]}" NRestarts=1
    # shellcheck disable=SC2016
    [ "$(on h2 'readlink "/proc/$(systemctl show -P MainPID "$1")/exe"' "$UNIT")" = \
        "$before/paxos" ] || fail "h2 has taken up another version"
    expect 2 ctl plan
    on h2 "ln -sfn $before /opt/paxos/current"
    expect 0 ctl plan
}

second_cluster() {
    local before
    before=$(processes)
    inventory | sed -e 's/paxos_cluster: testbed/paxos_cluster: other/' \
        -e 's|/data/paxos|/data/other|' -e "s/, paxos_port: $LOW_PORT//" \
        -e 's/{paxos_id/{paxos_port: 7122, paxos_id/' >"$PLACE/operator/other.yaml"
    local INVENTORY=$PLACE/operator/other.yaml KEYS=$PLACE/operator/other-keys
    expect 0 ctl deploy --yes
    node h3 paxos put greeting bonjour
    expect 0 ctl destroy --confirm other
    # shellcheck disable=SC2016
    on h3 '[ -z "$(systemctl list-units --all --plain --no-legend "paxos@other*")" ]
        [ ! -e /data/other ] && [ -e /etc/systemd/system/paxos@.service ]' ||
        fail "the other cluster is not gone, or took too much with it"
    [ "$(processes)" = "$before" ] || fail "of $before came $(processes)"
}
