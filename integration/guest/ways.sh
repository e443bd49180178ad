# The same disk by other ways: IPv6, and connections that are forwarded to a listener of another port. $IDENTITY and
# $KNOWN_HOSTS for ssh, $CONNECT is the command of farlun's own forwarding.
network "$ADDRESS"
load ipv6
ip -6 addr add "$ADDRESS6" dev vec0 nodad
start_iscsid
say "IPv6"
iscsiadm -m discovery -t sendtargets -p "[$HOST6]:3260" | tee /run/found
grep -qF "[$HOST6]:3260,1 $TARGET" /run/found || die "not discovered at its address"
login_to_node "[$HOST6]:3260"
file_system_story "$disk"
logout "[$HOST6]:3260"

# What is discovered through a tunnel's end has to be the tunnel's end, or the login goes astray.
forwarded() { # PORTAL
    iscsiadm -m node -o delete
    login "$1"
    [ "$(wc -l </run/found)" = 1 ] && grep -qF "$1,-1 $TARGET" /run/found || die "an address was named"
    dd if="$disk" of=/dev/null bs=64k count=16 iflag=direct
    logout "$1"
}

say "ssh -L"
ssh -N -L 127.0.0.1:3261:127.0.0.1:3260 -o ExitOnForwardFailure=yes -o BatchMode=yes \
    -o UserKnownHostsFile="$KNOWN_HOSTS" -i "$IDENTITY" "root@$HOST" >/run/ssh.log 2>&1 &
ssh=$!
until_true 10 'ss -Hltn sport = 3261 | grep -q .'
forwarded 127.0.0.1:3261
kill $ssh

say "farlun connect --via forward"
$CONNECT --listen 127.0.0.1:3262 >/run/connect.log 2>&1 &
connect=$!
until_true 10 'ss -Hltn sport = 3262 | grep -q .'
cat /run/connect.log
forwarded 127.0.0.1:3262
kill -INT $connect
status=0
wait $connect || status=$?
[ $status = 0 ] || { cat /run/connect.log; die "farlun connect ended with $status"; }
