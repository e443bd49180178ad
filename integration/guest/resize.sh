# A mounted file system grows with its disk. The host resizes between the signs.
network "$ADDRESS"
start_iscsid
login "$HOST:3260"
size() { blockdev --getsize64 "$disk"; }
mkfs.ext4 -q "$disk"
mkdir -p /tmp/disk
mount "$disk" /tmp/disk
head -c ${MIB}M /dev/urandom | tee /tmp/disk/data | sha256sum >/run/written
before=$(size)
tell mounted
await grown
# The target says that its capacity has changed with the next command; iscsiadm makes the kernel look.
iscsiadm -m session -R
until_true 10 "[ \"\$(size)\" -gt $before ]"
say "$(size) bytes, $before before"
[ "$(size)" = "$GROWN_BYTES" ] || die "the disk has $(size) bytes"
resize2fs "$disk"
bytes=$(($(stat -f -c '%b * %S' /tmp/disk)))
[ "$bytes" -gt "$before" ] || die "the file system has not grown: $bytes"
# What is new can be used.
head -c $((before / 2)) /dev/urandom | tee /tmp/disk/more | sha256sum >>/run/written
sync
tell grew
await kept
iscsiadm -m session -R
[ "$(size)" = "$GROWN_BYTES" ] || die "the disk has $(size) bytes after a refused shrink"
echo 3 >/proc/sys/vm/drop_caches
{ sha256sum </tmp/disk/data; sha256sum </tmp/disk/more; } >/run/read
cmp /run/written /run/read || die "what was read back differs"
umount /tmp/disk
e2fsck -fn "$disk"
tell checked
await shrunk
iscsiadm -m session -R
until_true 10 "[ \"\$(size)\" = $before ]"
logout "$HOST:3260"
