# shellcheck shell=bash
# Clients that write and read for as long as the cluster lives, and the check of what they were
# told (tests/testbed). Part of scripts/testbed.

# clients VERB-TEST: runs a test that is no test of its own.
clients() {
    operator env -u RUST_BACKTRACE PAXOS_TEST_RECORD="$PLACE/operator/record" \
        PAXOS_TEST_SSH_CONFIG="$PLACE/operator/writer/ssh_config" \
        PAXOS_TEST_ENOUGH="$PLACE/operator/enough" \
        "$PAXOS_CLIENTS" --exact "$1" --ignored --nocapture
}

# clients_begin: with keys of their own, for those of the controller are moved about.
clients_begin() {
    cp -a "$KEYS" "$PLACE/operator/writer"
    sed -i "s|$KEYS/|$PLACE/operator/writer/|g" "$PLACE/operator/writer/ssh_config"
    clients clients_note_what_they_are_told >"$PLACE/operator/clients.log" 2>&1 &
    CLIENTS=$!
}

# clients_get FILE…: somebody hands them new copies of these of the controller's files.
clients_get() {
    local file
    for file in "$@"; do
        cp "$KEYS/$file" "$PLACE/operator/writer/$file.new"
        mv "$PLACE/operator/writer/$file.new" "$PLACE/operator/writer/$file"
    done
}

# clients_end: says what they were told, all of which must be true.
clients_end() {
    touch "$PLACE/operator/enough"
    wait "$CLIENTS" || { cat "$PLACE/operator/clients.log" >&2; fail "the clients failed"; }
    # For whoever looks into it.
    mkdir -p target/testbed
    cp "$PLACE/operator/record" target/testbed/record.jsonl
    local judged=$PLACE/operator/judged
    clients what_clients_noted_is_true >"$judged" 2>&1 || {
        cat "$judged" >&2
        fail "what clients were told is not true; it is kept in target/testbed/record.jsonl"
    }
    TOLD=$(sed -n 's/^clients: //p' "$judged")
    # A run of no test at all would have succeeded as well.
    [ -n "$TOLD" ] || fail "nothing was judged"
}
