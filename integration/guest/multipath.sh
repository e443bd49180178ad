# One disk by two portals, $HOST and $HOST2 (this end is $SECOND there). The host takes the second portal away while fio
# writes and verifies, and gives it back.
network "$ADDRESS"
ip addr add "$SECOND" dev vec0
load dm_multipath dm_service_time
mkdir -p /run/udev
/lib/systemd/systemd-udevd --daemon
# A path that does not answer is given up after a second, and handed back at once.
configure_iscsid node.session.timeo.replacement_timeout 1
configure_iscsid 'node.conn[0].timeo.noop_out_interval' 1
configure_iscsid 'node.conn[0].timeo.noop_out_timeout' 1
start_iscsid
cat >/etc/multipath.conf <<EOF
defaults {
    find_multipaths no
    path_grouping_policy multibus
    polling_interval 1
    max_polling_interval 1
    no_path_retry fail
    fast_io_fail_tmo 1
}
EOF
multipathd -d -s >"$FARLUN_RUN/multipathd.log" 2>&1 &

active_paths() { multipathd show paths format '%d %t %T' | grep -c 'active *ready' || true; }

for portal in "$HOST:3260" "$HOST2:3260"; do
    iscsiadm -m discovery -t sendtargets -p "$portal"
done
iscsiadm -m node --login
until_true 20 '[ "$(active_paths)" = 2 ]'
multipathd show maps format '%n %w %N'
multipathd show paths format '%d %t %T %c'
disk=/dev/mapper/$(multipathd show maps raw format '%n' | head -1)
until_true 5 "[ -b $disk ]"
[ "$(multipathd show maps raw format '%n' | wc -l)" = 1 ] || die "two paths are not one disk"

mkfs.ext4 -q "$disk"
mkdir -p /tmp/disk
mount "$disk" /tmp/disk
say "fio, with both paths"
fio --name=verify --directory=/tmp/disk --size=48M --rw=randwrite --bs=64k --direct=1 --ioengine=libaio --iodepth=8 \
    --verify=crc32c --verify_fatal=1 --verify_backlog=64 --time_based --runtime="$SECONDS_OF_FIO" --output=/run/fio.log &
fio=$!
sleep 2
tell writing
await portal-gone
until_true 20 '[ "$(active_paths)" = 1 ]'
say "one path left"
multipathd show paths format '%d %t %T'
sleep 2
tell one-path
await portal-back
until_true 60 '[ "$(active_paths)" = 2 ]'
say "the path is back"
status=0
wait $fio || status=$?
cat /run/fio.log
[ $status = 0 ] || die "fio ended with $status"
grep -q 'err= 0' /run/fio.log || die "fio found errors"
# The path that is back carries data: without the other, the file system is still there.
umount /tmp/disk
e2fsck -fn "$disk"
tell other
await other-gone
until_true 20 '[ "$(active_paths)" = 1 ]'
mount "$disk" /tmp/disk
sha256sum /tmp/disk/verify.0.0
umount /tmp/disk
