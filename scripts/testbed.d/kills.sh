# shellcheck shell=bash
# Controllers that are killed after a step that their journal names, and others that go on from
# another directory: whatever the step, the end is the same. Part of scripts/testbed.

# Of how many steps one is taken, from another first one each time; KILL_POINTS=all takes each.
readonly KILL_EVERY=8
# A first deployment has more steps, and each time one is made.
readonly KILL_EVERY_OF_DEPLOY=16

# No run here has more steps.
readonly STEPS_MAX=60

# killed_at STEP WORDS…: gives the controller these words, and kills it when its journal has so many
# steps. Fails if the run came to its end before.
killed_at() {
    local step=$1
    shift
    work_begins "$@"
    work_comes_to '"event":"step"' "$step" || { wait "$WORK" || true; return 1; }
    kill -KILL "$WORK"
    wait "$WORK" 2>/dev/null || true
    # The kill may have come after the last of its work.
    ! grep -q '"event":"end"' "$(last_run)"
}

# elsewhere: the keys are a copy in another directory from here on.
elsewhere() {
    COPIES=$((COPIES + 1))
    cp -a "$KEYS" "$PLACE/operator/keys-$COPIES"
    rm -rf "$KEYS"
    KEYS=$PLACE/operator/keys-$COPIES
}

# resumed_elsewhere WHAT: another controller goes on, and all is as it would have been.
resumed_elsewhere() {
    elsewhere
    quietly 0 ctl resume --yes
    # There is nothing to do but to write down where the keys lie now.
    quietly 0 ctl deploy --yes
    grep -q 'nothing to do' "$PLACE/operator/said" || {
        cat "$PLACE/operator/said" >&2
        fail "killed $1 and resumed, and something was left to do"
    }
    healthy
}

# healthy: all nodes are, once those that came last have heard of each other.
healthy() {
    local tries=0
    until ctl status >"$PLACE/operator/said" 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 10 ] || { cat "$PLACE/operator/said" >&2; fail "not all of it is healthy"; }
        sleep 0.5
    done
}

# kills WORK: at each step that is taken, until the work is over before it. Counts them in KILLED.
kills() {
    local every=$KILL_EVERY step killed=0
    [ "$1" != deploy ] || every=$KILL_EVERY_OF_DEPLOY
    [ "${KILL_POINTS:-}" != all ] || every=1
    for ((step = 1 + RANDOM % every; step < STEPS_MAX; step += every)); do
        words_of "$1"
        # shellcheck disable=SC2086
        killed_at "$step" $WORDS || break
        killed=$((killed + 1))
        resumed_elsewhere "at step $step of $1"
        "same_end_of_$1" "$step"
    done
    # The last was not killed, and is done.
    [ "$1" != deploy ] || quietly 0 ctl destroy --confirm testbed
    [ $killed -gt 0 ] || fail "$1 was over before its step $step"
    KILLED+="$1 at $killed of its steps, "
}

# A cluster that serves; then there is none, for the next.
same_end_of_deploy() {
    quietly 0 node h1 paxos put k "$1"
    [ "$(node h7 paxos get k)" = "$1" ] || fail "h7 does not have what h1 was given"
    quietly 0 ctl destroy --confirm testbed
    KEYS=$PLACE/operator/keys
}

same_end_of_upgrade() {
    if [ "$RUNS_SECOND" = yes ]; then runs_version "$SECOND"; else runs_version "$FIRST"; fi
}

same_end_of_rotation() {
    [ "$(grep -c '^authority peer ' "$KEYS/bundle")" = 1 ] ||
        fail "killed at step $1 of a rotation: two authorities are left"
    [ ! -e "$KEYS/peer-authority.new" ] || fail "killed at step $1 of a rotation: a key is left"
}
