//! In a session: PDUs that are no SCSI commands, or not well made.

use super::Seen::{Closed, Logout, Management, Nop, Reject, Text, Waits};
use super::bytes::{C, F, LAST, NAMES, NO_TAG, Pdu, cdb10, command, login, logout, management, nop, snack, text};
use super::{Row, Seen, Start, Step, row};

/// Reject reasons (RFC 7143 §11.17.1).
pub(super) const DATA_DIGEST: Seen = Reject(0x02);
const SNACK: Seen = Reject(0x03);
pub(super) const PROTOCOL: Seen = Reject(0x04);
pub(super) const NOT_SUPPORTED: Seen = Reject(0x05);
pub(super) const INVALID_FIELD: Seen = Reject(0x09);

pub(super) fn session(name: &'static str, bytes: impl Into<Vec<u8>>, expected: Vec<Seen>) -> Row {
    row(name, Start::Session(""), bytes.into(), expected)
}

fn pdu(name: &'static str, pdu: &Pdu, expected: Seen) -> Row {
    session(name, pdu.bytes(), vec![expected])
}

fn discovery(name: &'static str, pdu: &Pdu, expected: Vec<Seen>) -> Row {
    row(name, Start::Discovery, pdu.bytes(), expected)
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = opcodes();
    rows.extend(framing());
    rows.extend(digests());
    rows.extend(nops());
    rows.extend(texts());
    rows.extend(managements());
    rows.extend(ends());
    rows
}

/// RFC 7143 §11.2.1.2.
fn opcodes() -> Vec<Row> {
    let unassigned: Vec<u8> = (0x07..=0x0f).chain(0x11..=0x1b).collect();
    let of_targets: Vec<u8> = vec![0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3f];
    let more: Vec<u8> = (0x27..=0x30).chain(0x33..=0x3b).collect();
    let vendor = vec![0x1c, 0x1d, 0x1e, 0x3c, 0x3d, 0x3e];
    let all = |name, opcodes: Vec<u8>, flags: u8| {
        let bytes = opcodes
            .iter()
            .flat_map(|code| Pdu::new(code | flags, F).u32(16, 1).bytes())
            .collect::<Vec<_>>();
        session(name, bytes, vec![NOT_SUPPORTED; opcodes.len()])
    };
    vec![
        all("every unassigned opcode of initiators", unassigned.clone(), 0),
        all("the same, immediate", unassigned, 0x40),
        all("every opcode of targets", of_targets, 0),
        all("every other opcode from 0x27", more, 0x40),
        all("every opcode of vendors", vendor, 0),
        pdu(
            "an unknown opcode with 8 KiB of data",
            &Pdu::new(0x0f, F).data([0x5a; 8192]),
            NOT_SUPPORTED,
        ),
        pdu(
            "an unknown opcode with header segments",
            &Pdu::new(0x0f, F).ahs(&[0xff; 64]),
            NOT_SUPPORTED,
        ),
        pdu(
            "byte 0 with its reserved bit, of no opcode",
            &Pdu::new(0xbf, 0xff),
            NOT_SUPPORTED,
        ),
        pdu("zeroed SNACK", &Pdu::new(0x10, 0), SNACK),
        pdu("SNACK for data", &snack(0, 1), SNACK),
        pdu("SNACK for status", &snack(1, NO_TAG), SNACK),
        pdu(
            "SNACK of a run of 0xffffffff",
            &snack(1, NO_TAG).u32(40, NO_TAG).u32(44, NO_TAG),
            SNACK,
        ),
        pdu("data acknowledgement for no task", &snack(2, NO_TAG), SNACK),
        pdu("SNACK of an unknown type", &snack(15, 1), INVALID_FIELD),
        pdu("login after login", &login(LAST, NAMES), PROTOCOL),
        pdu("login after login, to another stage", &login(0x81, NAMES), PROTOCOL),
        pdu("login after login, badly made", &login(0xff, NAMES), INVALID_FIELD),
    ]
}

/// Lengths, and what is not a PDU at all.
fn framing() -> Vec<Row> {
    let read = || command(0xc1, 1, 1, 512, &cdb10(0x28, 0, 1));
    let extension = |ahs: &[u8]| read().ahs(ahs);
    vec![
        session(
            "data segment of 0xffffff",
            nop(1, NO_TAG).announce(0x00ff_ffff).bytes(),
            vec![Closed],
        ),
        session(
            "data segment of a byte too much",
            nop(1, NO_TAG).announce((1 << 20) + 1).bytes(),
            vec![Closed],
        ),
        session(
            "additional headers of 255 words",
            read().u8(4, 255).bytes(),
            vec![Closed],
        ),
        session("ones", [0xff; 512], vec![Closed]),
        session(
            "TLS hello",
            [&[0x16, 3, 1, 2, 0][..], &[0xab; 512]].concat(),
            vec![Closed],
        ),
        session("half a header", read().bytes()[..24].to_vec(), vec![Waits]),
        session(
            "a NOP-Out whose data stops",
            nop(1, NO_TAG).announce(1 << 20).bytes(),
            vec![Waits],
        ),
        session(
            "a header segment that is longer than all of them",
            extension(&[0xff, 0xff, 1, 0, 0, 0, 0, 0]).bytes(),
            vec![INVALID_FIELD],
        ),
        session(
            "a header segment of no bytes",
            extension(&[0, 0, 1, 0]).bytes(),
            vec![INVALID_FIELD],
        ),
        session(
            "an extended CDB of no bytes",
            extension(&[0, 1, 1, 0]).bytes(),
            vec![INVALID_FIELD],
        ),
        session(
            "an unknown header segment",
            extension(&[0, 5, 0x3f, 0, 0, 0, 0, 0]).bytes(),
            vec![INVALID_FIELD],
        ),
        session(
            "two extended CDBs",
            extension(&[0, 5, 1, 0, 1, 2, 3, 4, 0, 5, 1, 0, 1, 2, 3, 4]).bytes(),
            vec![INVALID_FIELD],
        ),
        session(
            "a bidirectional length for a read",
            extension(&[0, 5, 2, 0, 0, 0, 2, 0]).bytes(),
            vec![INVALID_FIELD],
        ),
        pdu(
            "NOP-Out with header segments",
            &nop(1, NO_TAG).ahs(&[0, 5, 2, 0, 0, 0, 0, 0]),
            INVALID_FIELD,
        ),
        pdu(
            "text with header segments",
            &text(F, 1, NO_TAG, "").ahs(&[0; 8]),
            INVALID_FIELD,
        ),
    ]
}

/// Digests that do not match (RFC 7143 §7.7, §7.8).
fn digests() -> Vec<Row> {
    const BOTH: Start = Start::Session("HeaderDigest=CRC32C\0DataDigest=CRC32C\0");
    let ping = || nop(1, NO_TAG).data(*b"hello");
    let write = || command(0xa1, 1, 1, 512, &cdb10(0x2a, 0, 1)).data([0x5a; 512]);
    let request = || text(F, 1, NO_TAG, "SendTargets=\0");
    vec![
        row(
            "bad header digest",
            BOTH,
            ping().with_digests(Some(1), Some(0)),
            vec![Closed],
        ),
        row("no digests where they were agreed", BOTH, ping().bytes(), vec![Closed]),
        row(
            "header digest of zero data",
            BOTH,
            nop(1, NO_TAG).with_digests(Some(NO_TAG), None),
            vec![Closed],
        ),
        row(
            "bad data digest of a NOP-Out",
            BOTH,
            ping().with_digests(Some(0), Some(1)),
            vec![DATA_DIGEST],
        ),
        row(
            "bad data digest of a text",
            BOTH,
            request().with_digests(Some(0), Some(1)),
            vec![DATA_DIGEST],
        ),
        row(
            "bad data digest of immediate data",
            BOTH,
            write().with_digests(Some(0), Some(1 << 31)),
            vec![DATA_DIGEST, Seen::Check(0x0b, 0x47, 0x05)],
        ),
    ]
}

/// RFC 7143 §11.18.
fn nops() -> Vec<Row> {
    let flood = |pdu: Pdu, count: usize| pdu.bytes().repeat(count);
    vec![
        pdu("NOP-Out with both tags", &nop(1, 0x1234), INVALID_FIELD),
        session(
            "a flood of them",
            flood(nop(1, 0x1234), 1000),
            vec![INVALID_FIELD; 1000],
        ),
        session(
            "a flood of answers to pings that never were",
            flood(nop(NO_TAG, 0xdead), 5000),
            vec![],
        ),
        session(
            "a flood of NOP-Out that asks for nothing",
            flood(nop(NO_TAG, NO_TAG), 5000),
            vec![],
        ),
        session(
            "a flood of NOP-Out with one tag",
            flood(nop(9, NO_TAG), 1000),
            vec![Nop; 1000],
        ),
        pdu(
            "NOP-Out with more data than is echoed",
            &nop(1, NO_TAG).data(vec![0; 65537]),
            INVALID_FIELD,
        ),
        session(
            "NOP-Out far ahead of the window",
            nop(1, NO_TAG).u8(0, 0).u32(24, 0x7fff_ffff).bytes(),
            vec![],
        ),
        session(
            "NOP-Out behind the window",
            nop(1, NO_TAG).u8(0, 0).u32(24, 0).bytes(),
            vec![],
        ),
    ]
}

/// RFC 7143 §11.10, appendix C.
fn texts() -> Vec<Row> {
    let ask = |name, keys: &str, expected| pdu(name, &text(F, 1, NO_TAG, keys), expected);
    let find = |name, keys: &str, expected| discovery(name, &text(F, 1, NO_TAG, keys), vec![expected]);
    let says = |words: &str| Text(words.to_owned());
    let continued = |name, flags, first: &'static str, then: fn(u32) -> Vec<u8>, expected| Row {
        name,
        start: Start::Discovery,
        steps: vec![
            Step::Send(text(flags, 1, NO_TAG, first).bytes()),
            Step::AnswerText(then),
        ],
        expected,
    };
    vec![
        ask("text without NUL", "SendTargets=", PROTOCOL),
        ask("text without an equals sign", "SendTargets\0", PROTOCOL),
        ask("text of NUL", "\0\0\0\0", PROTOCOL),
        ask("text with a key twice", "SendTargets=\0SendTargets=\0", PROTOCOL),
        ask(
            "text of 65 keys",
            &(0..65).map(|n| format!("X-{n}=\0")).collect::<String>(),
            PROTOCOL,
        ),
        ask(
            "text value of 1025 bytes",
            &format!("X-a={}\0", "v".repeat(1025)),
            PROTOCOL,
        ),
        ask("text of 16 KiB and a byte", &"X-a=v\0".repeat(2731), PROTOCOL),
        ask("text of 65 KiB", &"X-a=v\0".repeat(11_000), INVALID_FIELD),
        ask(
            "SendTargets=All in a normal session",
            "SendTargets=All\0",
            says("SendTargets=Reject"),
        ),
        ask(
            "SendTargets of another target",
            "SendTargets=iqn.2026-11.net.farlun:other\0",
            says(""),
        ),
        ask(
            "operational key in a text",
            "MaxBurstLength=512\0",
            says("MaxBurstLength=Reject"),
        ),
        ask(
            "a length of 0 in a text",
            "MaxRecvDataSegmentLength=0\0",
            says("MaxRecvDataSegmentLength=Reject"),
        ),
        ask("AuthMethod in a text", "AuthMethod=None\0", says("AuthMethod=Reject")),
        find(
            "SendTargets of nothing in a discovery",
            "SendTargets=\0",
            says("SendTargets=Reject"),
        ),
        find("SendTargets in lower case", "SendTargets=all\0", says("")),
        find(
            "SendTargets of nobody",
            "SendTargets=iqn.2026-11.net.farlun:nobody\0",
            says(""),
        ),
        find("sendtargets", "sendtargets=All\0", says("sendtargets=NotUnderstood")),
        pdu(
            "text with F and C",
            &text(F | C, 1, NO_TAG, "SendTargets=\0"),
            INVALID_FIELD,
        ),
        pdu("text goes on under a tag of nobody", &text(F, 1, 0x1234, ""), PROTOCOL),
        continued(
            "text goes on under a wrong tag",
            C,
            "SendTar",
            |ttt| text(F, 1, ttt ^ 0x5555, "gets=All\0").bytes(),
            vec![says(""), PROTOCOL],
        ),
        continued(
            "text with C for ever",
            C,
            "",
            |ttt| (0..16).flat_map(|n| text(C, 1, ttt + n, "").bytes()).collect(),
            [vec![says(""); 16], vec![PROTOCOL]].concat(),
        ),
        session(
            "texts begun and begun again",
            text(C, 1, NO_TAG, vec![b'x'; 8192]).bytes().repeat(100),
            vec![says(""); 100],
        ),
    ]
}

/// RFC 7143 §11.5, §11.6.1.
fn managements() -> Vec<Row> {
    let storm = |pdu: Pdu, count: usize, answer: Seen| (pdu.bytes().repeat(count), vec![answer; count]);
    let (aborts, no_tasks) = storm(management(1, 1, 0x1234).u32(32, 0), 1000, Management(1));
    let (resets, done) = storm(management(5, 1, NO_TAG), 100, Management(0));
    let (reassigns, refused) = storm(management(8, 1, 1), 100, Management(4));
    vec![
        pdu("function 0", &management(0, 1, NO_TAG), Management(5)),
        pdu("function 13", &management(13, 1, NO_TAG), Management(5)),
        pdu("function 127", &management(127, 1, NO_TAG), Management(5)),
        pdu("CLEAR ACA", &management(3, 1, NO_TAG), Management(5)),
        pdu("abort of no task", &management(1, 1, 0x1234).u32(32, 0), Management(1)),
        pdu(
            "abort of a task far ahead",
            &management(1, 1, 0x1234).u32(32, 0x7fff_0000),
            Management(1),
        ),
        pdu("abort at no LUN", &management(1, 1, 1).put(8, &[0, 99]), Management(2)),
        pdu(
            "task set of no LUN",
            &management(2, 1, NO_TAG).put(8, &[0xff; 8]),
            Management(2),
        ),
        pdu(
            "reset of no LUN",
            &management(5, 1, NO_TAG).put(8, &[0, 99]),
            Management(2),
        ),
        pdu("TASK REASSIGN", &management(8, 1, 1), Management(4)),
        session("a storm of aborts", aborts, no_tasks),
        session("a storm of reassignments", reassigns, refused),
        session("a storm of resets", resets, done),
        discovery("reset in a discovery", &management(6, 1, NO_TAG), vec![NOT_SUPPORTED]),
        discovery(
            "SCSI command in a discovery",
            &command(0xc1, 1, 1, 36, &[0x12, 0, 0, 0, 36]),
            vec![NOT_SUPPORTED],
        ),
        pdu(
            "task management with 65 KiB of data",
            &management(2, 1, NO_TAG).data(vec![0; 66_000]),
            INVALID_FIELD,
        ),
    ]
}

/// RFC 7143 §11.14.
fn ends() -> Vec<Row> {
    let after = [logout(0, 1).bytes(), nop(2, NO_TAG).bytes().repeat(100)].concat();
    vec![
        pdu("logout for a reason that is none", &logout(3, 1), INVALID_FIELD),
        pdu("logout for reason 127", &logout(127, 1), INVALID_FIELD),
        pdu("logout for recovery", &logout(2, 1), Logout(2)),
        session("a hundred PDUs after the logout", after, vec![Logout(0), Closed]),
        session(
            "cold reset",
            management(7, 1, NO_TAG).bytes(),
            vec![Management(0), Closed],
        ),
    ]
}
