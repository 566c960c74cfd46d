# shellcheck shell=bash
# A cluster's life from its first plan to its end. Part of scripts/testbed.

life() {
    local start first again rotated report=''
    say "init: an inventory to begin with"
    # shellcheck disable=SC2086
    expect 0 operator "$PAXOS_CTL" init --cluster testbed $HOSTS >"$PLACE/operator/first.yaml"
    [ "$(grep -c paxos_id: "$PLACE/operator/first.yaml")" = 7 ] || fail "init names other hosts"
    say "plan: nothing is there yet, and nothing is changed by looking"
    expect 2 ctl plan
    for name in $HOSTS; do
        [ ! -e "$PLACE/machines/$name/root/opt/paxos" ] || fail "plan left something on $name"
    done
    say "check: the hosts can do it, and reach one another"
    expect 0 ctl check
    if [ -z "$SLICE" ]; then
        say "check: each host has something wrong, and all of it is found"
        checks
        say "controllers that are killed in a first deployment"
        kills deploy
        # Another address to listen on was for that alone.
        inventory >"$PLACE/operator/inventory.yaml"
    fi
    say "deploy"
    start=$(now)
    expect 0 ctl deploy --yes
    first=$(since "$start")
    say "deploy again: nothing to do"
    start=$(now)
    expect 0 ctl deploy --yes
    again=$(since "$start")
    expect 0 ctl plan
    expect 0 ctl status
    ctl audit | grep -q ' deploy .* done' || fail "the journal does not know the deployment"
    say "clients write and read from here on"
    clients_begin
    say "a client, over the bastion"
    expect 0 node h1 paxos put greeting hello
    [ "$(node h7 paxos get greeting)" = hello ] || fail "h7 has another greeting"
    say "and on the host itself, over its own sshd"
    over_sshd h3 sudo paxos status >/dev/null ||
        fail "paxos status over the host's sshd"
    say "verify"
    expect 0 ctl verify
    say "a node that is killed comes back by itself"
    comes_back h2
    if [ -z "$SLICE" ]; then
        say "a host that goes down and comes back"
        goes_down h5
        say "restart, one by one, the leader last"
        expect 0 ctl restart
        [ "$(node h4 paxos get greeting)" = hello ] || fail "the greeting is gone"
    fi
    say "another version of the program, and back, and there again"
    upgrades
    if [ -z "$SLICE" ]; then
        say "each authority is replaced and the old one forgotten, a node's key, all certificates"
        start=$(now)
        rotates
        rotated=$(since "$start")
    fi
    say "a key that is revoked"
    revokes
    say "what clients were told is true"
    clients_end
    if [ -z "$SLICE" ]; then
        say "four of the seven hosts are lost, and the others go on without them"
        loses_hosts h4 h5 h6 h7
    fi
    say "destroy"
    expect 0 ctl destroy --confirm testbed
    for name in $HOSTS; do
        for left in opt/paxos etc/paxos var/lib/paxos usr/local/bin/paxos; do
            [ ! -e "$PLACE/machines/$name/root/$left" ] || fail "$left is left on $name"
        done
    done
    printf -v report 'first deploy of 7 hosts: %s s\nunchanged deploy of 7 hosts: %s s\n' \
        "$first" "$again"
    if [ -z "$SLICE" ]; then
        report+="three authorities, a node's key and all certificates replaced: $rotated s"$'\n'
        report+="going on without four hosts of seven: $RECOVERED s"$'\n'
        report+="controllers killed: ${KILLED%, }, and resumed elsewhere"$'\n'
        report+="a host that something befell in the middle of a work:"$'\n'"$BEFELL"$'\n'
    fi
    report+="clients from deploy to destroy: $TOLD"$'\n'
    report+="from revoking a key to the end of its batch, at the most: $REVOKED s"$'\n'
    say "all held"
    printf '%s' "$report"
}

# comes_back NODE: its process is killed, and its supervisor starts another.
comes_back() {
    local tries=0 before after
    before=$(node "$1" paxos status -o json | sed -n 's/.*"uptime_seconds":\([0-9.]*\).*/\1/p')
    over_sshd "$1" sudo pkill -KILL -f "'[s]upervised'"
    while true; do
        after=$(node "$1" paxos status -o json 2>/dev/null |
            sed -n 's/.*"uptime_seconds":\([0-9.]*\).*/\1/p' || true)
        if [ -n "$after" ] && awk "BEGIN { exit !($after < $before) }"; then return; fi
        tries=$((tries + 1))
        [ $tries -lt $PATIENCE ] || fail "$1 did not come back"
        sleep 0.1
    done
}

# second_version: the program as one that says it is newer, and knows one cluster version more; what
# it does is the same.
second_version() {
    local mark
    mark=$(grep -aobE 'version=[0-9.]+ cluster-versions=1-1;' "$PAXOS_CTL" | head -n 1)
    FIRST=${mark#*version=}
    FIRST=${FIRST%% *}
    SECOND=$(printf '%s' "$FIRST" | tr '0-8' '9')
    cp "$PAXOS_CTL" "$PLACE/operator/second"
    printf 'version=%s cluster-versions=1-2;' "$SECOND" |
        dd of="$PLACE/operator/second" bs=1 seek="${mark%%:*}" conv=notrunc status=none
}

# runs_version VERSION: every node says so.
runs_version() {
    for name in $HOSTS; do
        node "$name" paxos status -o json | grep -q "\"version\":\"$1\"" ||
            fail "$name does not run version $1"
    done
}

# upgrades: to a second version, back, and there again, with whatever can happen on the way.
upgrades() {
    second_version
    expect 0 ctl upgrade --binary "$PLACE/operator/second" --yes
    runs_version "$SECOND"
    expect 0 ctl plan
    [ -z "$SLICE" ] || return 0
    expect 0 ctl rollback --yes
    runs_version "$FIRST"
    for name in $HOSTS; do
        [ "$(find "$PLACE/machines/$name/root/opt/paxos" -name paxos -type f | wc -l)" = 2 ] ||
            fail "$name does not keep both versions"
    done
    RUNS_SECOND=
    faults
    say "controllers that are killed in an upgrade and in a rotation"
    kills upgrade
    kills rotation
    expect 0 ctl upgrade --binary "$PLACE/operator/second" --yes
    runs_version "$SECOND"
    expect 0 ctl upgrade --raise --yes
    expect 78 ctl rollback --yes
    [ "$(node h6 paxos get greeting)" = hello ] || fail "the greeting is gone"
}

last_run() {
    # There is none before the first.
    find "$KEYS/runs" -name '*.jsonl' 2>/dev/null | sort | tail -n 1 || true
}

# rotates: one authority after the other is replaced. Whoever has copies of keys is given the new
# files while both are believed.
rotates() {
    local role
    for role in host peer operator; do
        expect 0 ctl keys rotate --authority "$role" --until switched
        clients_get known_hosts people/operator-cert.pub
        expect 0 ctl keys resume
        expect 3 ctl keys rollback
    done
    expect 0 ctl keys rotate --node h3
    expect 0 ctl keys rotate --hosts
    expect 0 ctl keys rotate --peers
    expect 0 ctl keys rotate --operators
    clients_get people/operator-cert.pub
    expect 0 ctl plan
}

# revokes: somebody's running batch ends with their key.
revokes() {
    local batch tries=0 start
    expect 0 ctl keys issue alice --role write
    sed "s|people/operator|people/alice|g" "$KEYS/ssh_config" \
        >"$PLACE/operator/alice.config"
    mkfifo "$PLACE/operator/lines"
    operator ssh -F "$PLACE/operator/alice.config" h2 paxos batch <"$PLACE/operator/lines" \
        >"$PLACE/operator/answers" 2>/dev/null &
    batch=$!
    exec 9>"$PLACE/operator/lines"
    echo 'put /alice v' >&9
    until grep -q '"ok":true' "$PLACE/operator/answers"; do
        tries=$((tries + 1))
        [ $tries -lt $PATIENCE ] || fail "alice does not write"
        sleep 0.1
    done
    start=$(now)
    expect 0 ctl keys revoke alice
    wait "$batch" 2>/dev/null || true
    REVOKED=$(since "$start")
    exec 9>&-
    ! operator ssh -F "$PLACE/operator/alice.config" h3 paxos get /alice 2>/dev/null ||
        fail "alice is let in"
    expect 0 ctl plan
}

# goes_down HOST: all of its processes end; a plan names it and goes on without it, and a deploy
# brings its node back.
goes_down() {
    kill -KILL "$(cat "$PLACE/machines/$1/pid")"
    expect 1 ctl plan | tee "$PLACE/operator/plan.txt"
    grep -q "the host of $1 could not be looked at" "$PLACE/operator/plan.txt" ||
        fail "the plan does not name $1"
    expect 2 ctl status
    node h1 paxos put while-away yes || fail "six of seven do not write"
    boot "$1"
    awake "$1" operator
    expect 0 ctl deploy --yes
    [ "$(node "$1" paxos get while-away)" = yes ] || fail "$1 does not know what it missed"
}

# loses_hosts HOST…: so many hosts are gone that the others are no quorum. They go on from the one
# that holds most, and what comes back is left alone.
loses_hosts() {
    local lost from start name left=''
    lost=$(IFS=,; printf '%s' "$*")
    for name in $HOSTS; do [[ ",$lost," == *",$name,"* ]] || left+="$name "; done
    node h1 paxos put kept yes
    for name in "$@"; do kill -KILL "$(cat "$PLACE/machines/$name/pid")"; done
    expect 2 ctl recover --lost "$lost" >"$PLACE/operator/survivors.txt"
    cat "$PLACE/operator/survivors.txt" >&2
    from=$(sed -n 's/.*--from \([^ ]*\) .*/\1/p' "$PLACE/operator/survivors.txt")
    start=$(now)
    expect 0 ctl recover --from "$from" --lost "$lost" --confirm testbed
    RECOVERED=$(since "$start")
    for name in $left; do
        [ "$(node "$name" paxos get kept)" = yes ] || fail "$name has lost what was written"
        node "$name" paxos put kept yes || fail "$name does not write"
    done
    for name in "$@"; do
        boot "$name"
        awake "$name" operator
    done
    expect 78 ctl plan >"$PLACE/operator/plan.txt"
    for name in "$@"; do
        grep -q "$name was given up when the cluster was recovered" "$PLACE/operator/plan.txt" ||
            fail "the plan does not say that $name was given up"
    done
}
