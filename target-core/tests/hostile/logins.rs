//! Before a login is over: strangers, and initiators that cannot log in.

use super::Seen::{Closed, Login, Waits};
use super::bytes::{C, DISCOVERY, F, LAST, NAMES, NO_TAG, Pdu, TARGET, command, data_out, login, logout, management};
use super::bytes::{nop, snack, text};
use super::{Row, Seen, Start, row};

/// Stays in the operational stage.
const STAY: u8 = 0x04;

fn stranger(name: &'static str, bytes: impl Into<Vec<u8>>, expected: Vec<Seen>) -> Row {
    row(name, Start::Stranger, bytes.into(), expected)
}

/// A single request that is refused.
fn refused(name: &'static str, request: &Pdu, status: u16) -> Row {
    stranger(name, request.bytes(), vec![Login(status), Closed])
}

/// One that offers these keys behind good names.
fn keys(name: &'static str, more: impl AsRef<[u8]>, status: u16) -> Row {
    refused(name, &login(LAST, [NAMES.as_bytes(), more.as_ref()].concat()), status)
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = scanners();
    rows.extend(other_pdus());
    rows.extend(headers());
    rows.extend(stages());
    rows.extend(framing());
    rows.extend(texts());
    rows.extend(names());
    rows.extend(values());
    rows
}

/// Who takes the port for something else is not answered at all.
fn scanners() -> Vec<Row> {
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0xab; 506]].concat();
    let rdp = [
        &[3, 0, 0, 0x2b, 0x26, 0xe0][..],
        b"\0\0\0\0\0Cookie: mstshash=nmap\r\n\x01\0\x08\0\x03\0\0\0",
    ]
    .concat();
    vec![
        stranger("nothing at all", [], vec![Waits]),
        stranger("one byte", [0x43], vec![Waits]),
        stranger("TLS hello", tls, vec![Closed]),
        stranger("short HTTP request", *b"GET / HTTP/1.0\r\n\r\n", vec![Closed]),
        stranger(
            "HTTP request",
            *b"GET /index.html HTTP/1.1\r\nHost: target.example\r\nUser-Agent: zgrab/0.x\r\nAccept: */*\r\n\r\n",
            vec![Closed],
        ),
        stranger("short SSH banner", *b"SSH-2.0-OpenSSH_9.7\r\n", vec![Closed]),
        stranger(
            "SSH banner",
            *b"SSH-2.0-OpenSSH_9.7p1 Ubuntu-7ubuntu4.3 and more that follows\r\n",
            vec![Closed],
        ),
        stranger("remote desktop", rdp, vec![Waits]),
        stranger(
            "SMB negotiation",
            [&[0, 0, 0, 0x2f, 0xff][..], b"SMBr", &[0; 40]].concat(),
            vec![Closed],
        ),
        stranger("zeroes", [0; 4096], vec![Closed]),
        stranger("ones", [0xff; 4096], vec![Closed]),
        stranger("a line feed a byte", [b'\n'; 200], vec![Closed]),
    ]
}

/// RFC 7143 §6.3: only login requests in a login.
fn other_pdus() -> Vec<Row> {
    let begun = |next: Vec<u8>| [login(STAY, NAMES).bytes(), next].concat();
    let mut rows = vec![
        stranger("NOP-Out first", nop(1, NO_TAG).bytes(), vec![Closed]),
        stranger(
            "SCSI command first",
            command(0xc1, 1, 1, 36, &[0x12]).bytes(),
            vec![Closed],
        ),
        stranger("task management first", management(2, 1, NO_TAG).bytes(), vec![Closed]),
        stranger(
            "text first",
            text(F, 1, NO_TAG, "SendTargets=All\0").bytes(),
            vec![Closed],
        ),
        stranger(
            "Data-Out first",
            data_out(F, 1, NO_TAG, 0, 0, 512).bytes(),
            vec![Closed],
        ),
        stranger("logout first", logout(0, 1).bytes(), vec![Closed]),
        stranger("SNACK first", snack(1, 1).bytes(), vec![Closed]),
        stranger("a target's login response", Pdu::new(0x23, LAST).bytes(), vec![Closed]),
    ];
    for (name, pdu) in [
        ("NOP-Out during the login", nop(1, NO_TAG)),
        ("SCSI command during the login", command(0xc1, 1, 1, 36, &[0x12])),
        ("text during the login", text(F, 1, NO_TAG, "SendTargets=All\0")),
        ("Data-Out during the login", data_out(F, 1, NO_TAG, 0, 0, 0)),
        ("logout during the login", logout(0, 1)),
        ("unknown opcode during the login", Pdu::new(0x3e, F)),
    ] {
        rows.push(stranger(
            name,
            begun(pdu.bytes()),
            vec![Login(0), Login(0x020b), Closed],
        ));
    }
    rows
}

/// Fields of the login request (RFC 7143 §11.12).
fn headers() -> Vec<Row> {
    let good = || login(LAST, NAMES);
    let two = |second: Pdu, name| {
        let bytes = [login(STAY, NAMES).bytes(), second.bytes()].concat();
        stranger(name, bytes, vec![Login(0), Login(0x0200), Closed])
    };
    let empty = || login(LAST, "");
    vec![
        refused("version from 1 up", &good().u8(2, 9).u8(3, 1), 0x0205),
        refused("version from 255 up", &good().u8(2, 0xff).u8(3, 0xff), 0x0205),
        refused("TSIH of no session", &good().u16(14, 0x7777), 0x020a),
        refused(
            "TSIH of no session in a discovery",
            &login(LAST, DISCOVERY).u16(14, 1),
            0x020a,
        ),
        stranger(
            "TSIH of no session behind a C bit",
            [
                login(C | STAY, "InitiatorName=").u16(14, 0x7777).bytes(),
                login(
                    LAST,
                    "iqn.2026-11.net.farlun:hostile\0TargetName=iqn.2026-11.net.farlun:test\0",
                )
                .u16(14, 0x7777)
                .bytes(),
            ]
            .concat(),
            vec![Login(0), Login(0x020a), Closed],
        ),
        refused(
            "login with header segments",
            &good().ahs(&[0, 5, 2, 0, 0, 0, 0, 0]),
            0x0200,
        ),
        two(empty().put(8, &[0x80, 1, 2, 3, 4, 5]), "ISID changes"),
        two(empty().u32(16, 8), "task tag changes"),
        two(empty().u16(20, 2), "CID changes"),
        two(empty().u16(14, 5), "TSIH changes"),
    ]
}

/// T, C, CSG and NSG (RFC 7143 §6.3, §11.12.3).
fn stages() -> Vec<Row> {
    let flags = |name, flags| refused(name, &login(flags, NAMES), 0x0200);
    let second = |name, first: u8, second: u8| {
        let bytes = [login(first, NAMES).bytes(), login(second, "").bytes()].concat();
        stranger(name, bytes, vec![Login(0), Login(0x0200), Closed])
    };
    vec![
        flags("CSG is the full-feature phase", 0x0c),
        flags("CSG is the full-feature phase, with T", 0x8f),
        flags("CSG=2", 0x08),
        flags("CSG=2 with T", 0x8b),
        flags("NSG=2 after the security stage", 0x82),
        flags("NSG=2 after the operational stage", 0x86),
        flags("NSG is CSG: security", 0x80),
        flags("NSG is CSG: operational", 0x85),
        flags("NSG goes back", 0x84),
        flags("T and C", 0xc7),
        second("back to the security stage", STAY, 0x00),
        second("jumps to the operational stage without T", 0x00, LAST),
        second("security again after it is over", 0x81, 0x83),
        stranger(
            "never gets on, without names",
            login(STAY, "").bytes().repeat(65),
            vec![Login(0x0207), Closed],
        ),
        stranger(
            "never gets on, with names",
            [login(STAY, NAMES).bytes(), login(STAY, "").bytes().repeat(64)].concat(),
            [vec![Login(0); 64], vec![Login(0x0200), Closed]].concat(),
        ),
    ]
}

/// Lengths that are wrong (RFC 7143 §11.2.1.5, §11.2.1.6).
fn framing() -> Vec<Row> {
    let good = || login(LAST, NAMES);
    vec![
        stranger(
            "data segment of 0xffffff",
            good().announce(0x00ff_ffff).bytes(),
            vec![Closed],
        ),
        stranger(
            "data segment of 0x800000",
            good().announce(0x0080_0000).bytes(),
            vec![Closed],
        ),
        stranger("data segment of 8193", good().announce(8193).bytes(), vec![Closed]),
        stranger(
            "additional headers of 255 words",
            good().u8(4, 255).bytes(),
            vec![Closed],
        ),
        stranger("additional headers of 67 words", good().u8(4, 67).bytes(), vec![Closed]),
        stranger("half a header", good().bytes()[..24].to_vec(), vec![Waits]),
        stranger("a header without its data", good().bytes()[..48].to_vec(), vec![Waits]),
        stranger("data cut short", good().bytes()[..90].to_vec(), vec![Waits]),
        stranger("more announced than sent", good().announce(8192).bytes(), vec![Waits]),
        stranger(
            "padding is missing",
            login(LAST, [NAMES, "X-a=b\0"].concat()).bytes()[..48 + NAMES.len() + 6].to_vec(),
            vec![Waits],
        ),
        stranger(
            "less announced than sent",
            good().announce(44).bytes(),
            vec![Login(0x0200), Closed],
        ),
    ]
}

/// Text that cannot be read, or has no end (RFC 7143 §6.1, §6.2).
fn texts() -> Vec<Row> {
    let unknown = |count: usize| -> Vec<u8> {
        (0..count)
            .flat_map(|number| format!("X-com.example.{number}=v\0").into_bytes())
            .collect()
    };
    let more = |data: Vec<u8>| login(C | STAY, data).bytes();
    let waits = |count| [vec![Login(0); count], vec![Waits]].concat();
    let too_much = |count| [vec![Login(0); count], vec![Login(0x0200), Closed]].concat();
    let filler = || [NAMES.as_bytes(), b"X-a=", &vec![b'v'; 8192 - NAMES.len() - 4]].concat();
    vec![
        keys("8 KiB of unknown keys", unknown(8000 / 21), 0x0200),
        keys("17 unknown keys", unknown(17), 0x0200),
        keys("65 keys", unknown(63), 0x0200),
        stranger(
            "17 unknown keys over 17 requests",
            [
                login(STAY, NAMES).bytes(),
                (0..17)
                    .flat_map(|n| login(STAY, format!("X-{n}=v\0")).bytes())
                    .collect(),
            ]
            .concat(),
            too_much(17),
        ),
        stranger("C bit without end", more(NAMES.into()), waits(1)),
        stranger(
            "17 segments",
            [more(NAMES.into()), more(b"X-a=b\0".into()).repeat(16)].concat(),
            too_much(16),
        ),
        stranger("empty text with C", more(Vec::new()), waits(1)),
        stranger("empty text with C for ever", more(Vec::new()).repeat(17), too_much(16)),
        stranger("16 KiB and one byte of one text", more(filler()).repeat(3), too_much(2)),
        keys("without NUL at the end", "MaxBurstLength=65536", 0x0200),
        keys("without an equals sign", "MaxBurstLength\0", 0x0200),
        keys("NUL only", "\0", 0x0200),
        keys("a kilobyte of NUL", [0; 1024], 0x0200),
        keys("nothing before the equals sign", "=65536\0", 0x0200),
        keys("key name of 64 bytes", [&[b'K'; 64][..], b"=v\0"].concat(), 0x0200),
        keys("key name with a space", "Max BurstLength=65536\0", 0x0200),
        keys("key name of UTF-8", "Größe=65536\0", 0x0200),
        keys("value of broken UTF-8", b"InitiatorAlias=\xc3\x28\0", 0x0200),
        keys("value of overlong UTF-8", b"InitiatorAlias=\xc0\xaf\0", 0x0200),
        keys("value with a line feed", "InitiatorAlias=a\nb\0", 0x0200),
        keys("value with an escape", "InitiatorAlias=\x1b[2J\0", 0x0200),
        keys(
            "value of 8 KiB",
            format!("InitiatorAlias={}\0", "v".repeat(8000)),
            0x0200,
        ),
        keys("value of 2051 bytes", format!("X-a={}\0", "v".repeat(2051)), 0x0200),
        keys(
            "the same key twice",
            "MaxBurstLength=65536\0MaxBurstLength=65536\0",
            0x0200,
        ),
        keys("the same unknown key twice", "X-a=1\0X-a=1\0", 0x0200),
        stranger(
            "the same key in two requests",
            [
                login(STAY, [NAMES, "MaxBurstLength=65536\0"].concat()).bytes(),
                login(LAST, "MaxBurstLength=65536\0").bytes(),
            ]
            .concat(),
            vec![Login(0), Login(0x0200), Closed],
        ),
    ]
}

/// Who logs in to what (RFC 7143 §13.4, §13.5, §13.21).
fn names() -> Vec<Row> {
    let bad = |name, text: String, status| refused(name, &login(LAST, text), status);
    let from = |initiator: &str| format!("InitiatorName={initiator}\0TargetName={TARGET}\0");
    let to = |target: &str| format!("InitiatorName=iqn.2026-11.net.farlun:hostile\0TargetName={target}\0");
    vec![
        bad("no text", String::new(), 0x0207),
        bad("no InitiatorName", format!("TargetName={TARGET}\0"), 0x0207),
        bad(
            "no TargetName",
            "InitiatorName=iqn.2026-11.net.farlun:hostile\0".into(),
            0x0207,
        ),
        bad(
            "no InitiatorName in a discovery",
            "SessionType=Discovery\0".into(),
            0x0207,
        ),
        bad("InitiatorName is empty", from(""), 0x0200),
        bad(
            "InitiatorName of 300 bytes",
            from(&format!("iqn.{}", "x".repeat(296))),
            0x0200,
        ),
        bad("InitiatorName with a space", from("iqn.2026-11.net.farlun:a b"), 0x0200),
        bad("TargetName is empty", to(""), 0x0200),
        bad("TargetName of 300 bytes", to(&"x".repeat(300)), 0x0200),
        bad("TargetName of nobody", to("iqn.2026-11.net.farlun:nobody"), 0x0203),
        bad("TargetName is a path", to("../../../../etc/passwd"), 0x0203),
        bad("TargetName begins like ours", to(&TARGET[..TARGET.len() - 1]), 0x0203),
        bad("TargetName goes on after ours", to(&format!("{TARGET}x")), 0x0203),
        keys("SessionType is unknown", "SessionType=Abnormal\0", 0x0209),
        keys("SessionType in lower case", "SessionType=discovery\0", 0x0209),
    ]
}

/// Keys that cannot be had (RFC 7143 §12, §13).
fn values() -> Vec<Row> {
    let security = |name, more: &str, status| refused(name, &login(0x81, [NAMES, more].concat()), status);
    vec![
        security(
            "methods of authentication that nobody knows",
            "AuthMethod=KRB5,SPKM1\0",
            0x0201,
        ),
        security("AuthMethod is empty", "AuthMethod=\0", 0x0201),
        security("CHAP where there are no secrets", "AuthMethod=CHAP\0", 0x0201),
        security("CHAP's algorithms without CHAP", "AuthMethod=None\0CHAP_A=5\0", 0x0200),
        security(
            "AuthMethod of 100 methods",
            &format!("AuthMethod={}\0", ["None"; 100].join(",")),
            0x0201,
        ),
        security(
            "CHAP's answer without its question",
            "CHAP_N=root\0CHAP_R=0x00\0",
            0x0200,
        ),
        security(
            "operational key in the security stage",
            "MaxBurstLength=65536\0",
            0x0200,
        ),
        keys("AuthMethod in the operational stage", "AuthMethod=None\0", 0x0200),
        keys("a key that only targets send", "TargetPortalGroupTag=1\0", 0x0200),
        keys(
            "TargetAddress from an initiator",
            "TargetAddress=192.0.2.1:3260,1\0",
            0x0200,
        ),
        keys("SendTargets in a login", "SendTargets=All\0", 0x0200),
        keys("MaxRecvDataSegmentLength of 0", "MaxRecvDataSegmentLength=0\0", 0x0200),
        keys(
            "MaxRecvDataSegmentLength of 511",
            "MaxRecvDataSegmentLength=511\0",
            0x0200,
        ),
        keys(
            "MaxRecvDataSegmentLength of 2**24",
            "MaxRecvDataSegmentLength=16777216\0",
            0x0200,
        ),
        keys(
            "MaxRecvDataSegmentLength is negative",
            "MaxRecvDataSegmentLength=-1\0",
            0x0200,
        ),
        keys(
            "MaxRecvDataSegmentLength of 200 digits",
            format!("MaxRecvDataSegmentLength={}\0", "9".repeat(200)),
            0x0200,
        ),
        keys(
            "MaxRecvDataSegmentLength of nothing",
            "MaxRecvDataSegmentLength=\0",
            0x0200,
        ),
    ]
}
