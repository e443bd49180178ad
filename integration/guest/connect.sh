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
say "tunnel down"
kill -INT $connect
status=0
wait $connect || status=$?
[ $status = 0 ] || { cat /run/connect.log; die "farlun connect ended with $status"; }
traces >/run/after
diff /run/before /run/after || die "the tunnel left something behind"
