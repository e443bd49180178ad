//! In a session: SCSI commands that cannot be, and data that does not belong to them.

use super::Seen::{Check, R2t, Reject, Status, Waits};
use super::bytes::{
    F, FIRST, NO_DATA, NO_TAG, Pdu, READ, WRITE, WRITE_MORE, cdb10, cdb12, cdb16, command, data_out, management, nop,
};
use super::pdus::{INVALID_FIELD, PROTOCOL, session};
use super::{BLOCKS, Row, Seen, Start, Step, row};

const BUSY_TAG: Seen = Reject(0x07);
const TOO_MANY: Seen = Reject(0x06);

/// Sense (SPC-5 4.5.6, RFC 7143 §11.4.7.2).
const BAD_OPCODE: Seen = Check(0x05, 0x20, 0x00);
const OUT_OF_RANGE: Seen = Check(0x05, 0x21, 0x00);
const BAD_CDB: Seen = Check(0x05, 0x24, 0x00);
const NO_LUN: Seen = Check(0x05, 0x25, 0x00);
const UNEXPECTED_DATA: Seen = Check(0x0b, 0x0c, 0x0c);
const WRONG_AMOUNT: Seen = Check(0x0b, 0x0c, 0x0d);

/// InitialR2T=No: Data-Out may come unasked.
const UNASKED: Start = Start::Session("InitialR2T=No\0FirstBurstLength=4096\0");

pub(super) fn rows() -> Vec<Row> {
    let mut rows = cdbs();
    rows.extend(headers());
    rows.extend(order());
    rows.extend(nobodys_data());
    rows.extend(immediate_data());
    rows.extend(unasked_data());
    rows.extend(asked_data());
    rows
}

/// CDBs that ask for what is not there (SBC-4 5).
fn cdbs() -> Vec<Row> {
    let read =
        |name, cdb: Vec<u8>, expected| session(name, command(READ, 1, FIRST, NO_TAG, &cdb).bytes(), vec![expected]);
    let write = |name, cdb: Vec<u8>, expected| {
        let pdu = command(WRITE, 1, FIRST, 512, &cdb).data([0x5a; 512]);
        session(name, pdu.bytes(), vec![expected])
    };
    vec![
        read("READ (12) of 0xffffffff blocks", cdb12(0xa8, 0, NO_TAG), OUT_OF_RANGE),
        read("READ (16) of 0xffffffff blocks", cdb16(0x88, 0, NO_TAG), OUT_OF_RANGE),
        read(
            "READ (16) at the end of numbers",
            cdb16(0x88, u64::MAX, 1),
            OUT_OF_RANGE,
        ),
        read(
            "READ (16) across the end of numbers",
            cdb16(0x88, u64::MAX, NO_TAG),
            OUT_OF_RANGE,
        ),
        read("READ (10) at LBA 0xffffffff", cdb10(0x28, NO_TAG, 0xffff), OUT_OF_RANGE),
        read("READ (10) across the end", cdb10(0x28, BLOCKS - 1, 2), OUT_OF_RANGE),
        read(
            "READ (6) of 256 blocks across the end",
            vec![0x08, 0x00, 0xff, 0xff, 0, 0],
            OUT_OF_RANGE,
        ),
        write("WRITE (10) beyond the end", cdb10(0x2a, BLOCKS, 1), OUT_OF_RANGE),
        write("WRITE (12) of 0xffffffff blocks", cdb12(0xaa, 0, NO_TAG), OUT_OF_RANGE),
        write(
            "WRITE (16) at the end of numbers",
            cdb16(0x8a, u64::MAX, 1),
            OUT_OF_RANGE,
        ),
        write(
            "WRITE AND VERIFY (16) beyond the end",
            cdb16(0x8e, u64::from(BLOCKS), 1),
            OUT_OF_RANGE,
        ),
        write("COMPARE AND WRITE of 255 blocks", cdb16(0x89, 0, 255), BAD_CDB),
        write(
            "WRITE SAME (16) beyond the end",
            cdb16(0x93, u64::from(BLOCKS), 1),
            OUT_OF_RANGE,
        ),
        read("VERIFY (16) of 0xffffffff blocks", cdb16(0x8f, 0, NO_TAG), OUT_OF_RANGE),
        read("an operation code of vendors", vec![0xc0; 16], BAD_OPCODE),
        read("an operation code of nobody", vec![0xff; 16], BAD_OPCODE),
        read(
            "INQUIRY of a page that is not there",
            vec![0x12, 1, 0xee, 0, 255, 0],
            BAD_CDB,
        ),
        read(
            "MODE SENSE of a page that is not there",
            vec![0x1a, 0, 0x3d, 0, 255, 0],
            BAD_CDB,
        ),
        read("FORMAT UNIT", vec![0x04, 0, 0, 0, 0, 0], BAD_OPCODE),
    ]
}

/// The SCSI Command PDU itself (RFC 7143 §11.3).
fn headers() -> Vec<Row> {
    let read = |itt| command(READ, itt, FIRST, 512, &cdb10(0x28, 0, 1));
    let one = |name, pdu: Pdu, expected| session(name, pdu.bytes(), vec![expected]);
    vec![
        one("a LUN that is not there", read(1).put(8, &[0, 99]), NO_LUN),
        one("a LUN of ones", read(1).put(8, &[0xff; 8]), NO_LUN),
        one(
            "a LUN of three levels",
            read(1).put(8, &[0, 0, 0, 1, 0, 1, 0, 0]),
            NO_LUN,
        ),
        one("task tag 0xffffffff", read(NO_TAG), INVALID_FIELD),
        one(
            "a read without F",
            command(0x41, 1, FIRST, 512, &cdb10(0x28, 0, 1)),
            INVALID_FIELD,
        ),
        one(
            "a length without a direction",
            command(NO_DATA, 1, FIRST, 512, &cdb10(0x28, 0, 1)),
            INVALID_FIELD,
        ),
        one(
            "task attribute 7",
            command(0xc7, 1, FIRST, 512, &cdb10(0x28, 0, 1)),
            INVALID_FIELD,
        ),
        one(
            "task attribute 5",
            command(0xc5, 1, FIRST, 512, &cdb10(0x28, 0, 1)),
            INVALID_FIELD,
        ),
    ]
}

/// CmdSN, task tags and immediate commands (RFC 7143 §4.2.2.1).
fn order() -> Vec<Row> {
    let read = |itt, cmd_sn| command(READ, itt, cmd_sn, 512, &cdb10(0x28, 0, 1)).bytes();
    let write = |itt, cmd_sn| command(WRITE, itt, cmd_sn, 512, &cdb10(0x2a, 0, 1)).bytes();
    let urgent = |itt| command(WRITE, itt, FIRST, 512, &cdb10(0x2a, 0, 1)).u8(0, 0x41).bytes();
    vec![
        session("CmdSN far ahead of the window", read(1, FIRST + 100_000), vec![]),
        session(
            "CmdSN half the numbers away",
            read(1, FIRST.wrapping_add(1 << 31)),
            vec![],
        ),
        session("CmdSN behind the window", read(1, FIRST - 1), vec![]),
        session(
            "a flood of commands ahead of the window",
            read(1, 0x4000_0000).repeat(1000),
            vec![],
        ),
        session("a command whose turn never comes", read(1, FIRST + 1), vec![]),
        session(
            "a window full of commands whose turn never comes",
            (1..1000).flat_map(|n| write(n, FIRST + n)).collect::<Vec<_>>(),
            vec![],
        ),
        session(
            "a task tag in use",
            [write(1, FIRST), read(1, FIRST + 1)].concat(),
            vec![R2t, BUSY_TAG],
        ),
        session(
            "a task tag in use, ahead of its turn",
            [read(1, FIRST + 1), read(1, FIRST + 2)].concat(),
            vec![BUSY_TAG],
        ),
        session(
            "a command before the NOP-Out whose turn it is",
            [read(1, FIRST + 1), nop(2, NO_TAG).u8(0, 0).bytes()].concat(),
            vec![Seen::Nop, Seen::Data(512)],
        ),
        session(
            "the same CmdSN again",
            [write(1, FIRST), write(2, FIRST)].concat(),
            vec![R2t],
        ),
        session(
            "more immediate commands than there may be",
            (1..=40).flat_map(urgent).collect::<Vec<_>>(),
            [vec![R2t; 32], vec![TOO_MANY; 8]].concat(),
        ),
    ]
}

/// Data-Out for nobody (RFC 7143 §11.7).
fn nobodys_data() -> Vec<Row> {
    let one = |name, pdu: Pdu, expected| session(name, pdu.bytes(), expected);
    vec![
        one(
            "Data-Out for no task",
            data_out(F, 0x1234, NO_TAG, 0, 0, 512),
            vec![PROTOCOL],
        ),
        one(
            "Data-Out for no task, with a tag",
            data_out(F, 0x1234, 1, 0, 0, 512),
            vec![PROTOCOL],
        ),
        one(
            "Data-Out of a megabyte for no task",
            data_out(F, 9, NO_TAG, 0, 0, 1 << 20),
            vec![PROTOCOL],
        ),
        one(
            "Data-Out for task tag 0xffffffff",
            data_out(F, NO_TAG, NO_TAG, 0, 0, 512),
            vec![PROTOCOL],
        ),
        one(
            "Data-Out of nothing for no task",
            data_out(0, 0x1234, NO_TAG, 0, NO_TAG, 0),
            vec![PROTOCOL],
        ),
        one(
            "Data-Out with header segments",
            data_out(F, 1, NO_TAG, 0, 0, 8).ahs(&[0; 8]),
            vec![INVALID_FIELD],
        ),
        session(
            "a flood of Data-Out for no task",
            data_out(F, 0x1234, NO_TAG, 0, 0, 0).bytes().repeat(1000),
            vec![PROTOCOL; 1000],
        ),
        session(
            "Data-Out for an aborted task",
            [
                command(WRITE, 1, FIRST, 8192, &cdb10(0x2a, 0, 16)).bytes(),
                management(1, 2, 1).bytes(),
                data_out(F, 1, 1, 0, 0, 8192).bytes(),
            ]
            .concat(),
            vec![R2t, Seen::Management(0)],
        ),
    ]
}

/// Data in the command PDU (RFC 7143 §11.3.4).
fn immediate_data() -> Vec<Row> {
    let write = |edtl, bytes: usize| command(WRITE, 1, FIRST, edtl, &cdb10(0x2a, 0, 1)).data(vec![0x5a; bytes]);
    let none = Start::Session("ImmediateData=No\0");
    let small = Start::Session("FirstBurstLength=512\0");
    let read = command(READ, 1, FIRST, 512, &cdb10(0x28, 0, 1)).data([0x5a; 512]);
    vec![
        session("immediate data for a read", read.bytes(), vec![UNEXPECTED_DATA]),
        session(
            "more immediate data than expected",
            write(512, 1024).bytes(),
            vec![UNEXPECTED_DATA],
        ),
        session(
            "more immediate data than the first burst",
            write(1 << 20, 1 << 20).bytes(),
            vec![UNEXPECTED_DATA],
        ),
        row(
            "immediate data where it was refused",
            none,
            write(512, 512).bytes(),
            vec![UNEXPECTED_DATA],
        ),
        row(
            "immediate data of a byte over the burst",
            small,
            write(1024, 513).bytes(),
            vec![UNEXPECTED_DATA],
        ),
        session(
            "immediate data for a write that is refused",
            command(WRITE, 1, FIRST, 512, &[0xff; 16]).data([0x5a; 512]).bytes(),
            vec![BAD_OPCODE],
        ),
        session(
            "a write with less data than it says",
            write(0, 0).bytes(),
            vec![Status(0)],
        ),
        session(
            "a write of 0xffffffff bytes by EDTL",
            write(NO_TAG, 512).bytes(),
            vec![Status(0)],
        ),
    ]
}

/// Data-Out that was not asked for (RFC 7143 §11.7).
fn unasked_data() -> Vec<Row> {
    let write = || command(WRITE_MORE, 1, FIRST, 4096, &cdb10(0x2a, 0, 8)).bytes();
    let send = |name, parts: &[Pdu], expected| {
        let data = parts.iter().flat_map(Pdu::bytes);
        row(name, UNASKED, write().into_iter().chain(data).collect(), expected)
    };
    let part = |flags, data_sn, offset, bytes| data_out(flags, 1, NO_TAG, data_sn, offset, bytes);
    let failed = || vec![PROTOCOL, WRONG_AMOUNT];
    vec![
        send("unasked data with a hole", &[part(F, 0, 512, 3584)], failed()),
        send(
            "unasked data that overlaps",
            &[part(0, 0, 0, 2048), part(F, 1, 1024, 3072)],
            failed(),
        ),
        send("unasked data with the wrong number", &[part(F, 7, 0, 4096)], failed()),
        send("unasked data over the burst", &[part(F, 0, 0, 8192)], failed()),
        send("unasked data cut short by F", &[part(F, 0, 0, 512)], failed()),
        send(
            "empty Data-Out without F",
            &[part(0, 0, 0, 0), part(F, 1, 0, 4096)],
            failed(),
        ),
        Row {
            name: "unasked data after F",
            start: UNASKED,
            steps: vec![
                Step::Send([write(), part(F, 0, 0, 4096).bytes()].concat()),
                Step::Wait,
                Step::Send(part(F, 1, 4096, 512).bytes()),
            ],
            expected: vec![Status(0), PROTOCOL],
        },
        send(
            "unasked data under a tag of nobody",
            &[data_out(0, 1, 0x1234, 0, 0, 512), part(F, 0, 0, 4096)],
            vec![PROTOCOL, UNEXPECTED_DATA],
        ),
        send("unasked data that never comes", &[], vec![]),
        send("unasked data that stops", &[part(0, 0, 0, 512)], vec![]),
        Row {
            name: "unasked data where it was refused",
            start: Start::Session(""),
            steps: vec![
                Step::Send(write()),
                Step::AnswerR2t(|ttt| {
                    let (unasked, asked) = (data_out(F, 1, NO_TAG, 0, 0, 4096), data_out(F, 1, ttt, 0, 0, 4096));
                    [unasked.bytes(), asked.bytes()].concat()
                }),
            ],
            expected: vec![R2t, PROTOCOL, UNEXPECTED_DATA],
        },
        row(
            "unasked data for a read",
            UNASKED,
            [
                command(READ, 1, FIRST + 1, 512, &cdb10(0x28, 0, 1)).bytes(),
                part(F, 0, 0, 512).bytes(),
            ]
            .concat(),
            vec![PROTOCOL, UNEXPECTED_DATA],
        ),
    ]
}

/// Data-Out that answers an R2T, or should (RFC 7143 §11.8).
fn asked_data() -> Vec<Row> {
    let answer = |name, then: fn(u32) -> Vec<u8>, expected: Vec<Seen>| Row {
        name,
        start: Start::Session(""),
        steps: vec![
            Step::Send(command(WRITE, 1, FIRST, 8192, &cdb10(0x2a, 0, 16)).bytes()),
            Step::AnswerR2t(then),
        ],
        expected: [vec![R2t], expected].concat(),
    };
    fn part(flags: u8, ttt: u32, data_sn: u32, offset: u32, bytes: usize) -> Vec<u8> {
        data_out(flags, 1, ttt, data_sn, offset, bytes).bytes()
    }
    let wrong = || vec![PROTOCOL, WRONG_AMOUNT];
    let large = command(WRITE, 1, FIRST, 32 << 20, &cdb10(0x2a, 0, 0xffff));
    vec![
        answer("a write whose data never comes", |_| Vec::new(), vec![]),
        answer("a write whose data stops", |ttt| part(0, ttt, 0, 0, 512), vec![]),
        answer("data cut short by F", |ttt| part(F, ttt, 0, 0, 512), wrong()),
        answer("data beyond the burst", |ttt| part(F, ttt, 0, 0, 8704), wrong()),
        answer(
            "data from beyond the end",
            |ttt| part(F, ttt, 0, 0xffff_fe00, 512),
            wrong(),
        ),
        answer("data with the wrong number", |ttt| part(F, ttt, 1, 0, 8192), wrong()),
        answer("data from behind", |ttt| part(F, ttt, 0, 512, 7680), wrong()),
        answer(
            "data that overlaps",
            |ttt| [part(0, ttt, 0, 0, 4096), part(F, ttt, 1, 2048, 6144)].concat(),
            wrong(),
        ),
        Row {
            name: "data after F",
            start: Start::Session(""),
            steps: vec![
                Step::Send(command(WRITE, 1, FIRST, 8192, &cdb10(0x2a, 0, 16)).bytes()),
                Step::AnswerR2t(|ttt| data_out(F, 1, ttt, 0, 0, 8192).bytes()),
                Step::Wait,
                Step::Send(part(F, 1, 1, 0, 8192)),
            ],
            expected: vec![R2t, Status(0), PROTOCOL],
        },
        answer(
            "data under a wrong tag, then the right one",
            |ttt| [part(F, ttt + 99, 0, 0, 8192), part(F, ttt, 0, 0, 8192)].concat(),
            vec![PROTOCOL, UNEXPECTED_DATA],
        ),
        answer(
            "data for another LUN and task",
            |ttt| data_out(F, 2, ttt, 0, 0, 8192).put(8, &[0, 99]).bytes(),
            vec![PROTOCOL],
        ),
        answer(
            "data whose PDU never ends",
            |ttt| data_out(F, 1, ttt, 0, 0, 8192).bytes()[..4000].to_vec(),
            vec![Waits],
        ),
        session("a write of 32 MiB whose data never comes", large.bytes(), vec![R2t]),
        session(
            "more of them than there is memory for",
            (1..30)
                .flat_map(|n| large.clone().u32(16, n).u32(24, n).bytes())
                .collect::<Vec<_>>(),
            vec![R2t; 16],
        ),
    ]
}
