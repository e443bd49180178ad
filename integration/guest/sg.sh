# What sg3-utils make of a disk: every page it lists is there, decoded whole, and says what the kernel says; persistent
# reservations from registering to preempting with an abort, by two initiators, and over a restart of the target.
network "$ADDRESS"
load sg
start_iscsid
login "$HOST:3260"
bytes=$(blockdev --getsize64 "$disk")
sg=/dev/$(ls "/sys/block/$(basename "$disk")/device/scsi_generic")

# What a list promises must be there, and be known and whole to those who decode it.
strict() { # COMMAND...
    "$@" >/run/out 2>&1 || { cat /run/out; die "$* ended with $?"; }
    cat /run/out
    ! grep -iE 'malformed|too short|truncated|page not supported|illegal|invalid|bad |failed|unexpected|only hex|no ascii|residual' /run/out ||
        die "$*: see above"
}
has() { # TEXT in what was printed last
    grep -qiE "$1" /run/out || die "not said: $1"
}

say "INQUIRY and its pages"
strict sg_inq $sg
has 'PDT=0'
pages=$(sg_vpd --raw --page=0 $sg | od -An -v -tx1 -j4)
for page in 00 80 83 86 87 88 b0 b1 b2; do
    case " $pages " in *" $page "*) ;; *) die "VPD page $page is not listed: $pages" ;; esac
done
for page in $pages; do
    strict sg_vpd --page=0x$page $sg
done
strict sg_vpd --page=di $sg
has "$TARGET,t,0x0001"
strict sg_vpd --page=lbpv $sg
has 'thin provisioned'
[ "$(cat "/sys/block/$(basename "$disk")/queue/discard_max_bytes")" -gt 0 ] || die "the kernel does not discard"

say "capacity and status"
strict sg_readcap --16 $sg
has "Device size: $bytes bytes"
strict sg_readcap $sg
has "Device size: $bytes bytes"
strict sg_get_lba_status --lba=0 $sg
strict sg_luns $sg
strict sg_turs $sg
strict sg_requests $sg
strict sg_sync $sg
strict sg_verify --lba=0 --count=8 $sg
strict sg_start --stop $sg
strict sg_start --start $sg

say "mode pages, by both commands and in every form"
for form in 0 1 2; do
    strict sg_modes --all --control=$form $sg
    grep '^>>' /run/out | cut -d, -f1 >/run/pages.$form
    strict sg_modes --six --all --control=$form $sg
    grep '^>>' /run/out | cut -d, -f1 | cmp - /run/pages.$form || die "MODE SENSE (6) and (10) list other pages"
    [ -s /run/pages.$form ] || die "no pages"
    cmp /run/pages.0 /run/pages.$form || die "form $form has other pages"
done
# Nothing is saved, and nobody is told otherwise.
sg_modes --page=8 --control=3 --raw $sg >/run/out 2>&1 && die "there are saved mode pages"
for page in Read-Write Caching Control Informational; do
    grep -q "$page" /run/pages.0 || die "no mode page $page"
done

say "log pages"
for page in $(sg_logs --raw --page=0 $sg | od -An -v -tx1 -j4); do
    strict sg_logs --page=0x$page $sg
done
strict sg_logs --all $sg

say "commands, task management, ports"
strict sg_opcodes $sg
for command in 'Read.16' 'Write.16' 'Compare and write' 'Unmap' 'Write same.16' 'Persistent reserve out, preempt and abort'; do
    has "$command"
done
strict sg_opcodes --tmf $sg
has 'ABORT TASK'
strict sg_rtpg --decode $sg
has 'active/optimized'

# A second initiator with a path of its own.
say "persistent reservations"
iscsiadm -m iface -I second -o new
iscsiadm -m iface -I second -o update -n iface.initiatorname -v "$INITIATOR-2"
iscsiadm -m discovery -t sendtargets -p "$HOST:3260" -I second
iscsiadm -m node -T "$TARGET" -p "$HOST:3260" -I second --login
until_true 10 '[ "$(ls /sys/block | grep -c "^sd")" = 2 ]'
one=/dev/sda two=/dev/sdb
until_true 5 "[ -b $two ]"
for dev in $one $two; do sg_turs $dev; done

persist() { sg_persist --no-inquiry "$@"; }
out() { DEV=$1; shift; persist --out "$@" $DEV; }
keys() { persist --in --read-keys $one; }
may_write() { dd if=/dev/zero of=$1 bs=4096 count=1 oflag=direct 2>/dev/null; }

persist --in --report-capabilities $one | tee /run/out
has 'Persist Through Power Loss Capable\(PTPL_C\): 1'
out $one --register --param-sark=0x1111
out $two --register --param-sark=0x2222
keys | tee /run/out
has 0x1111
has 0x2222
out $one --reserve --param-rk=0x1111 --prout-type=1
persist --in --read-reservation $two | tee /run/out
has 'Key=0x1111'
has 'Write Exclusive'
may_write $one || die "the holder cannot write"
! may_write $two || die "another than the holder writes"
dd if=$two of=/dev/null bs=4096 count=1 iflag=direct || die "write exclusive keeps others from reading"
! out $two --reserve --param-rk=0x2222 --prout-type=3 || die "reserved twice"
out $one --release --param-rk=0x1111 --prout-type=1
may_write $two || die "released, but not for others"
sg_turs $one || true

say "registrants only, and preempting"
out $one --reserve --param-rk=0x1111 --prout-type=5
may_write $two || die "a registrant cannot write"
out $two --preempt --param-rk=0x2222 --param-sark=0x1111 --prout-type=5
keys | tee /run/out
! grep -q 0x1111 /run/out || die "who was preempted is still registered"
persist --in --read-reservation $one | tee /run/out
has 'Key=0x2222'
sg_turs $one || true
! may_write $one || die "who was preempted writes"

say "preempting with an abort"
out $one --register --param-sark=0x3333
out $one --preempt-abort --param-rk=0x3333 --param-sark=0x2222 --prout-type=3
persist --in --read-reservation $one | tee /run/out
has 'Key=0x3333'
has 'Exclusive Access'
persist --in --read-full-status $one | tee /run/out
has "$INITIATOR"
sg_turs $two || true
! dd if=$two of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null || die "exclusive access lets others read"
out $one --clear --param-rk=0x3333
keys | tee /run/out
has 'no registered reservation keys'

say "over a restart"
out $one --register --param-sark=0x4444 --param-aptpl
out $one --reserve --param-rk=0x4444 --prout-type=1
keys
tell reserved
await restarted
# Whatever the kernel had under way is asked again by it, once it has logged in anew.
until_true 60 'dd if=/dev/sda of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null'
until_true 60 'sg_turs /dev/sdb >/dev/null 2>&1'
persist --in --read-reservation $two | tee /run/out
has 'Key=0x4444'
keys | tee /run/out
has '1 registered reservation key follows'
may_write $one || die "the holder lost its reservation"
! may_write $two || die "another than the holder writes after a restart"
out $one --clear --param-rk=0x4444
may_write $two || die "cleared, but not for others"
iscsiadm -m node -T "$TARGET" --logout
