# Login through `ssh -w` of stock OpenSSH, set up by hand as people always have. $IDENTITY and $KNOWN_HOSTS for ssh.
network "$ADDRESS"
load tun
start_iscsid

say "ssh -w"
mkdir -p /run/tunnel
ssh -w 0:0 -o Tunnel=point-to-point -o ExitOnForwardFailure=yes -o BatchMode=yes -o UserKnownHostsFile="$KNOWN_HOSTS" \
    -i "$IDENTITY" "root@$HOST" 'echo up; exec sleep 1000' >/run/tunnel/log 2>&1 &
ssh=$!
wait_for /run/tunnel/log '^up' $ssh
ip addr add 172.18.0.2 peer 172.18.0.1 dev tun0
ip link set tun0 mtu 16380 up # as much as OpenSSH takes: each packet costs the same, large or small
ping -c 3 -i 0.2 -q 172.18.0.1
story 172.18.0.1:3260
kill $ssh
