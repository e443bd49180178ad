# Logins by CHAP, both ways, with digests. $TARGET proves itself if asked; $PLAIN does not. The secrets are $SECRET and
# $PROOF.
network "$ADDRESS"
configure_iscsid node.session.initial_login_retry_max 1
start_iscsid
iscsiadm -m discovery -t sendtargets -p "$HOST:3260" >/run/found
cat /run/found

set_node() { # TARGET KEY VALUE
    iscsiadm -m node -T "$1" -p "$HOST:3260" -o update -n "$2" -v "$3"
}
good_node() { # TARGET: everything as it should be, both ways
    set_node "$1" node.session.auth.authmethod CHAP
    set_node "$1" node.session.auth.chap_algs SHA3-256
    set_node "$1" node.session.auth.username guest
    set_node "$1" node.session.auth.password "$SECRET"
    set_node "$1" node.session.auth.username_in server
    set_node "$1" node.session.auth.password_in "$PROOF"
    set_node "$1" 'node.conn[0].iscsi.HeaderDigest' CRC32C
    set_node "$1" 'node.conn[0].iscsi.DataDigest' CRC32C
}
refused() { # TARGET WHY
    status=0
    iscsiadm -m node -T "$1" -p "$HOST:3260" --login >/run/out 2>&1 || status=$?
    say "$2: $(grep -m1 'initiator reported error' /run/out)"
    [ $status != 0 ] || die "$2: the login was let in"
    iscsiadm -m session 2>&1 | grep -q 'No active sessions' || die "$2: there is a session"
}

good_node "$TARGET"
set_node "$TARGET" node.session.auth.password "${SECRET}x"
refused "$TARGET" "wrong secret"
good_node "$TARGET"
set_node "$TARGET" node.session.auth.username stranger
refused "$TARGET" "wrong user"
good_node "$TARGET"
set_node "$TARGET" node.session.auth.username_in stranger
refused "$TARGET" "wrong name of the target"
good_node "$TARGET"
set_node "$TARGET" node.session.auth.password_in "${PROOF}x"
refused "$TARGET" "wrong secret of the target"
good_node "$TARGET"
set_node "$TARGET" node.session.auth.chap_algs MD5
refused "$TARGET" "a digest below the target's minimum"
good_node "$TARGET"
# open-iscsi offers CHAP for as long as there is a name.
set_node "$TARGET" node.session.auth.authmethod None
for key in username password username_in password_in; do
    set_node "$TARGET" node.session.auth.$key ''
done
refused "$TARGET" "no CHAP at all"
good_node "$PLAIN"
refused "$PLAIN" "a target that does not prove itself"
# The other side of the same coin: who does not ask is let in.
set_node "$PLAIN" node.session.auth.username_in ''
set_node "$PLAIN" node.session.auth.password_in ''
iscsiadm -m node -T "$PLAIN" -p "$HOST:3260" --login
iscsiadm -m node -T "$PLAIN" -p "$HOST:3260" --logout

good_node "$TARGET"
login_to_node "$HOST:3260"
iscsiadm -m session -P 2 >/run/session
grep -E 'HeaderDigest|DataDigest|username|password' /run/session
grep -q 'HeaderDigest: CRC32C' /run/session || die "no header digests"
grep -q 'DataDigest: CRC32C' /run/session || die "no data digests"
file_system_story "$disk"
logout "$HOST:3260"
