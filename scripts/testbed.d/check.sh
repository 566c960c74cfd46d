# shellcheck shell=bash
# Seven hosts with a fault each, and whether `paxos-ctl check` finds every one of them, and no
# other. Part of scripts/testbed.

# By how many seconds the clock of h1 is wrong: more than certificates are dated back.
readonly CLOCK_OFF=-400

# Which check is to fail on which host, as `check -o json` has it.
readonly FOUND="h1 clock
h2 port
h3 program
h4 directory
h5 reach
h6 space
h6 sync
h7 link"

checks() {
    local planted=$PLACE/operator/planted.yaml
    plant
    INVENTORY=$planted expect 78 ctl check -o json >"$PLACE/operator/check.json"
    local found
    found=$(sed 's/},{/\n/g' "$PLACE/operator/check.json" | sort -u | sed -n \
        's/.*"check":"\([a-z]*\)".*"node":"\([^"]*\)".*"verdict":"fail".*/\2 \1/p' | sort -u)
    [ "$found" = "$FOUND" ] || {
        INVENTORY=$planted ctl check >&2 || true
        diff <(printf '%s\n' "$FOUND") <(printf '%s\n' "$found") >&2 || true
        fail "check does not find what is wrong, and nothing else"
    }
    heal
    expect 0 ctl check
}

# plant: one host each.
plant() {
    local at=$PLACE/machines
    # The time of all programs on h1, for no namespace has a wall clock of its own.
    skewed_clock "$CLOCK_OFF" "$at/h1/root/usr/local/lib/clock.so"
    printf '/usr/local/lib/clock.so\n' >"$at/h1/root/etc/ld.so.preload"
    # Somebody else listens where the node of h2 is to.
    over_sshd h2 sudo /usr/sbin/sshd -p 7022 -o "PidFile=/run/stranger.pid"
    # The program for h3 is for another machine (EM_AARCH64).
    cp "$PAXOS_CTL" "$PLACE/operator/foreign"
    printf '\267\000' | dd of="$PLACE/operator/foreign" bs=1 seek=18 conv=notrunc status=none
    # The disk of h4 is read-only.
    mkdir -p "$at/h4/root/data"
    nsenter --target "$(cat "$at/h4/pid")" --mount \
        mount -t tmpfs -o ro paxos-testbed "$at/h4/root/data"
    sed -e "s|^    h4: {|&paxos_data_dir: /data/paxos, |" \
        -e "s|^    h3: {|&paxos_binary: $PLACE/operator/foreign, |" \
        "$PLACE/operator/inventory.yaml" >"$PLACE/operator/planted.yaml"
    # h5 was installed anew, and has another key.
    mkdir "$at/h5/keys"
    mv "$at"/h5/root/etc/ssh/ssh_host_* "$at/h5/keys"
    ssh-keygen -q -t ed25519 -N '' -f "$at/h5/root/etc/ssh/ssh_host_ed25519_key"
    kill -KILL "$(cat "$at/h5/pid")"
    boot h5
    fill_disk
    # What listens on the node's port of h7 is not heard.
    ip -n "$NAMES-h7" rule add ipproto tcp sport 7022 blackhole
    local tries=0
    # It answers, and is not known.
    until grep -q 'Host key verification failed' \
        <(operator ssh -F "$PLACE/operator/ssh_config" h5 true 2>&1); do
        tries=$((tries + 1))
        [ $tries -lt $PATIENCE ] || fail "h5 does not come back with another key"
        sleep 0.1
    done
}

heal() {
    local at=$PLACE/machines
    rm "$at/h1/root/etc/ld.so.preload" "$at/h1/root/usr/local/lib/clock.so"
    over_sshd h2 'sudo sh -c "kill \$(cat /run/stranger.pid)"'
    nsenter --target "$(cat "$at/h4/pid")" --mount umount "$at/h4/root/data"
    rmdir "$at/h4/root/data"
    kill -KILL "$(cat "$at/h5/pid")"
    mv "$at"/h5/keys/* "$at/h5/root/etc/ssh/"
    boot h5
    empty_disk
    ip -n "$NAMES-h7" rule delete ipproto tcp sport 7022 blackhole
    awake h5 operator
}

# fill_disk: not a byte is left on the host that has a disk of its own.
fill_disk() {
    dd if=/dev/zero of="$PLACE/machines/$OWN_DISK/root/data/filler" bs=1M 2>/dev/null || true
}

empty_disk() { rm "$PLACE/machines/$OWN_DISK/root/data/filler"; }

# skewed_clock SECONDS FILE: what a program has to load so that its wall clock is off.
skewed_clock() {
    cc -shared -fPIC -O2 -DOFF="$1" -o "$2" -xc - <<-'END'
		#define _GNU_SOURCE
		#include <sys/syscall.h>
		#include <sys/time.h>
		#include <time.h>
		#include <unistd.h>
		int clock_gettime(clockid_t clock, struct timespec *at) {
		    int failed = syscall(SYS_clock_gettime, clock, at);
		    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		        at->tv_sec += OFF;
		    return failed;
		}
		int gettimeofday(struct timeval *restrict at, void *restrict zone) {
		    struct timespec now;
		    (void)zone;
		    clock_gettime(CLOCK_REALTIME, &now);
		    at->tv_sec = now.tv_sec;
		    at->tv_usec = now.tv_nsec / 1000;
		    return 0;
		}
		time_t time(time_t *at) {
		    struct timespec now;
		    clock_gettime(CLOCK_REALTIME, &now);
		    if (at)
		        *at = now.tv_sec;
		    return now.tv_sec;
		}
	END
}
