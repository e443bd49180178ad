# Login through farlun's tunnel: $CONNECT is the whole command. Afterwards the guest's network is as it was.
network "$ADDRESS"
load tun
start_iscsid

traces() { ip -o link; ip -o addr; ip route show table all; }

# What others have to look up for it is not the tunnel's.
ping -c 1 -q "$HOST" >/dev/null
traces >/run/before
say "farlun connect"
$CONNECT >/run/connect.log 2>&1 &
connect=$!
wait_for /run/connect.log '^discovery:' $connect
cat /run/connect.log
portal=$(sed -n 's/^discovery:.* -p //p' /run/connect.log)
ping -c 3 -i 0.2 -q "${portal%:*}"
story "$portal"

say "the commands that tie the initiator to the device, as they are printed"
iscsiadm -m node -o delete
sed -n 's/^  sudo //p' /run/connect.log >/run/bound
[ "$(wc -l </run/bound)" -ge 3 ] || die "they are not printed"
cat /run/bound
. /run/bound
login_to_node "$portal"
iscsiadm -m session -P 1 | grep -q 'Iface Netdev: farlun0' || die "the session is not tied to the device"
dd if="$disk" of=/dev/null bs=64k count=16 iflag=direct
logout "$portal"

say "tunnel down"
kill -INT $connect
status=0
wait $connect || status=$?
[ $status = 0 ] || { cat /run/connect.log; die "farlun connect ended with $status"; }
traces >/run/after
diff /run/before /run/after || die "the tunnel left something behind"
