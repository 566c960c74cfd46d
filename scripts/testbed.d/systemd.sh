# shellcheck shell=bash
# Hosts whose first process is a real systemd, of which sshd is a service as on any host: as in a
# container, with namespaces and a tree of control groups of its own, but made by hand, for no
# engine has to be there. Part of scripts/testbed.

# What becomes the first process of a host, given its root directory and its name. It can neither
# set the machine's clock nor load modules nor write what the kernel has of the whole machine.
# shellcheck disable=SC2016
readonly BECOME_SYSTEMD='
    set -e
    mount --make-rprivate /
    cd "$1"
    mount -t proc proc proc
    mount --bind proc/sys proc/sys
    mount -o remount,ro,bind proc/sys
    mount --bind ../boot_id proc/sys/kernel/random/boot_id
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup sys/fs/cgroup
    mount -t tmpfs -o mode=755 dev dev
    for device in null zero full random urandom tty; do
        touch "dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    mount -t tmpfs -o mode=1777 shm dev/shm
    mount -t tmpfs -o mode=755 run run
    mount -t tmpfs -o mode=1777 tmp tmp
    hostname "$2"
    mkdir -p old
    pivot_root . old
    umount --lazy /old
    exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio \
        /lib/systemd/systemd --system --unit=multi-user.target
'

# has_systemd ROOT: of what this machine starts and mounts when it boots, nothing is wanted; and an
# sshd is.
has_systemd() {
    local root=$1 units=$1/etc/systemd/system
    rm -rf "$units"/*.wants "$units"/*.requires "$units"/paxos@*
    : >"$root/etc/fstab"
    rm -f "$root/etc/crypttab" "$root/etc/machine-id"
    # Without one, systemd would take it for a host that was never configured.
    tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
    # There is no terminal.
    ln -sf /dev/null "$units/console-getty.service"
    cat >"$units/testbed-sshd.service" <<-'END'
		[Service]
		ExecStart=/usr/sbin/sshd -D -e
		RuntimeDirectory=sshd
		KillMode=process
		Restart=on-failure

		[Install]
		WantedBy=multi-user.target
	END
    chroot "$root" systemctl --quiet enable testbed-sshd.service
}

# boot_systemd NAME: whatever it started ends with it.
boot_systemd() {
    local name=$1 place=$PLACE/machines/$1 group=$PLACE/groups/$NAMES-$1
    if ! mountpoint -q "$PLACE/groups"; then
        mkdir -p "$PLACE/groups"
        mount -t cgroup2 "$NAMES" "$PLACE/groups"
    fi
    forget_groups "$name"
    mkdir "$group"
    # shellcheck disable=SC2016
    ip netns exec "$NAMES-$name" bash -c '
        echo $$ >"$1/cgroup.procs"
        exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child bash -c "${@:2}"
    ' bash "$group" "$BECOME_SYSTEMD" bash "$place/root" "$name" \
        </dev/null >"$place/console" 2>&1 &
    printf '%s\n' $! >"$place/pid"
    disown
}

# forget_groups NAME: the control groups of a host whose processes were killed just now.
forget_groups() {
    local group=$PLACE/groups/$NAMES-$1 tries=0
    while [ -e "$group" ]; do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
        tries=$((tries + 1))
        [ $tries -lt $PATIENCE ] || fail "processes of $1 are left"
        sleep 0.1
    done
}
