# What making a file system on a large thin disk costs on the wire, and that fstrim gives its space back. The host counts
# between the signs.
network "$ADDRESS"
start_iscsid
login "$HOST:3260"
tell before-mkfs
await counted-before
say "mkfs.ext4"
mkfs.ext4 -q "$disk"
blockdev --flushbufs "$disk"
tell after-mkfs
await counted-mkfs

# Mounted, the kernel would go on writing what mkfs left out.
mkdir -p /tmp/disk
mount -o "noatime$MOUNT" "$disk" /tmp/disk
say "mounted for $IDLE_S s"
sleep "$IDLE_S"
# With this thread gone, nothing is left that the kernel would write by itself.
until_true 60 '! grep -q ext4lazyinit /proc/[0-9]*/comm'
tell after-idle
await counted-idle

say "write $MIB MiB, delete them, fstrim"
head -c ${MIB}M /dev/urandom >/tmp/disk/data
sync
tell written
await counted-written
rm /tmp/disk/data
sync
tell deleted
await counted-deleted
fstrim -v /tmp/disk
tell trimmed
await counted-trimmed
umount /tmp/disk
e2fsck -fn "$disk"
logout "$HOST:3260"
