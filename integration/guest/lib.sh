# What the scripts of this folder share. Read by dash in the guest.
set -e

say() { echo "[$(cut -d' ' -f1 /proc/uptime)] $*"; }
die() { say "failed: $*"; exit 1; }

load() { modprobe -d "$FARLUN_UML" -a "$@"; }

network() { # ADDRESS/LENGTH on the tap
    # The network driver hands up a 64 KiB buffer for each packet, and they count against the socket.
    echo 67108864 >/proc/sys/net/core/rmem_max
    echo 33554432 >/proc/sys/net/core/wmem_max
    echo '4096 1048576 67108864' >/proc/sys/net/ipv4/tcp_rmem
    echo '65536 131072 262144' >/proc/sys/net/ipv4/tcp_mem
    ip link set lo up
    ip addr add "$1" dev vec0
    ip link set vec0 up
}

# The run folder is the host's as well: what one end puts there the other one sees.
tell() { : >"$FARLUN_RUN/$1"; }
await() { # FILE, from the host
    for _ in $(seq 3000); do
        [ ! -e "$FARLUN_RUN/$1" ] || return 0
        sleep 0.02
    done
    die "the host did not say $1"
}

until_true() { # SECONDS COMMAND...
    for _ in $(seq $(($1 * 10))); do
        ! eval "${2}" || return 0
        sleep 0.1
    done
    die "not within $1 s: $2"
}

configure_iscsid() { # KEY VALUE, before nodes are discovered
    grep -vF "$1 =" /etc/iscsi/iscsid.conf >/run/iscsid.conf || true
    echo "$1 = $2" >>/run/iscsid.conf
    cat /run/iscsid.conf >/etc/iscsi/iscsid.conf
}

start_iscsid() { # the kernel's initiator, with no nodes known
    load iscsi_tcp sd_mod
    rm -rf /etc/iscsi/nodes /etc/iscsi/send_targets /var/lib/iscsi
    mkdir -p /etc/iscsi /run/lock/iscsi
    echo "InitiatorName=$INITIATOR" >/etc/iscsi/initiatorname.iscsi
    configure_iscsid 'node.conn[0].tcp.window_size' 33554432
    iscsid -f -d 1 >"$FARLUN_RUN/iscsid.log" 2>&1 &
}

login() { # PORTAL: sets $disk to the device that appears
    say "discovery at $1"
    iscsiadm -m discovery -t sendtargets -p "$1" | tee /run/found
    grep -q " $TARGET\$" /run/found || die "$TARGET was not discovered"
    login_to_node "$1"
}

login_to_node() { # PORTAL of a node that was discovered: sets $disk to the device that appears
    say "login"
    iscsiadm -m node -T "$TARGET" -p "$1" --login
    disk=
    for _ in $(seq 300); do
        disk=$(ls /sys/block | grep '^sd' || true)
        [ -z "$disk" ] || [ ! -b "/dev/$disk" ] || break
        sleep 0.02
    done
    [ -n "$disk" ] || die "no disk appeared"
    disk=/dev/$disk
    say "$disk of $(blockdev --getsize64 $disk) bytes"
}

logout() { # PORTAL
    say "logout"
    iscsiadm -m node -T "$TARGET" -p "$1" --logout
    [ -z "$(ls /sys/block | grep '^sd' || true)" ] || die "the disk is still there"
    iscsiadm -m session 2>&1 | grep -q 'No active sessions' || die "the session is still there"
}

file_system_story() { # DISK: a file system, $MIB MiB of data, read back from the disk and not from memory, checked
    say "mkfs.ext4"
    mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$1"
    mkdir -p /tmp/disk
    mount "$1" /tmp/disk
    say "write"
    head -c ${MIB}M /dev/urandom | tee /tmp/disk/data | sha256sum >/run/written
    sync
    echo 3 >/proc/sys/vm/drop_caches
    say "read back"
    sha256sum </tmp/disk/data >/run/read
    cmp /run/written /run/read || die "what was read back differs"
    umount /tmp/disk
    say "check"
    e2fsck -fn "$1"
    blockdev --flushbufs "$1"
    mount -o ro "$1" /tmp/disk
    sha256sum </tmp/disk/data >/run/read
    umount /tmp/disk
    cmp /run/written /run/read || die "what was read after mounting again differs"
    cat /run/read
}

story() { # PORTAL: from discovery to logout
    login "$1"
    file_system_story "$disk"
    logout "$1"
}

wait_for() { # FILE TEXT PID: until FILE has a line with TEXT, as long as the process runs
    for _ in $(seq 1000); do
        ! grep -q "$2" "$1" || return 0
        kill -0 "$3" 2>/dev/null || { cat "$1"; die "ended before saying $2"; }
        sleep 0.02
    done
    cat "$1"
    die "did not say $2"
}
