//! The tables of PDUs: each case of each PDU an initiator sends gets the answer on the page, and what the target
//! sends in all of them is what the page says it sends.

use std::collections::BTreeSet;

use iscsi_pdu::{
    BHS_BYTES, DataOut, LogoutReason, LogoutRequest, Lun, NopOut, Opcode, RESERVED_TAG, RejectReason, Response,
    ScsiCommand, Serial, Snack, SnackType, TaskFunction, TaskManagementRequest, TextRequest,
};
use target_core::iscsi::Limits;

use crate::page::{self, Row, show};
use crate::source;
use crate::support::{Answer, Direction, INITIATOR, Wire, answers, login_request, node, read10, text, write10};
use crate::unasked;

pub const REQUESTS: &str = "PDUs from initiators";
pub const ANSWERS: &str = "PDUs from the target";
pub const REASONS: &str = "Reject reasons";

/// What an initiator does, and the wire it did it on, with the answers that came.
type Case = (u8, &'static str, fn() -> Wire);

#[rustfmt::skip]
const CASES: &[Case] = &[
    (0x00, "ping", || after(&[], |wire| wire.send(&nop(RESERVED_TAG), b"ping"))),
    (0x00, "ping with a target transfer tag", || after(&[], |wire| wire.send(&nop(1), b""))),
    (0x00, "answer to a NOP-In", nop_in_is_answered),
    (0x00, "more than 64 KiB of data", || after(&[], |wire| wire.send(&nop(RESERVED_TAG), &[0; 64 * 1024 + 4]))),
    (0x00, "more data than declared", || after(&[], |wire| wire.send(&nop(RESERVED_TAG), &[0; 1024 * 1024 + 4]))),
    (0x01, "without data", || after(&[], |wire| command(wire, &[0; 6], Direction::None, 0, b""))),
    (0x01, "read", || after(&[], |wire| command(wire, &read10(0, 1), Direction::Read, 512, b""))),
    (0x01, "write, all data with it", || after(&[], |wire| command(wire, &write10(0, 1), Direction::Write, 512, &[1; 512]))),
    (0x01, "write, no data with it", || after(&[], |wire| command(wire, &write10(0, 1), Direction::Write, 512, b""))),
    (0x01, "immediate data though ImmediateData=No", || {
        after(&[("ImmediateData", "No")], |wire| command(wire, &write10(0, 1), Direction::Write, 512, &[1; 512]))
    }),
    (0x01, "CDB of 32 bytes", || after(&[], |wire| command(wire, &long_cdb(), Direction::Read, 512, b""))),
    (0x01, "R and W together", || after(&[], |wire| {
        let both = ScsiCommand {
            read: true,
            bidirectional_read_length: Some(512),
            ..wire.command(&write10(0, 1), Direction::Write, 512)
        };
        wire.send(&both, &[1; 512]);
    })),
    (0x01, "reserved task attribute", || after(&[], |wire| {
        let ready = wire.command(&[0; 6], Direction::None, 0);
        let mut bytes = Vec::new();
        wire.framing.pdu(&ready, b"", &mut bytes);
        bytes[1] |= 0x07;
        wire.send_bytes(&bytes);
    })),
    (0x01, "CmdSN outside of the window", || after(&[], |wire| {
        wire.cmd_sn = Serial(wire.max_cmd_sn.0 + 1);
        command(wire, &[0; 6], Direction::None, 0, b"");
    })),
    (0x01, "task tag in use", || after(&[], |wire| {
        for itt in [1, 1] {
            wire.next_itt = itt;
            wire.hold = true;
            command(wire, &read10(0, 1), Direction::Read, 512, b"");
        }
    })),
    (0x01, "task tag FFFFFFFF", || after(&[], |wire| {
        let bad = ScsiCommand { itt: RESERVED_TAG, ..wire.command(&[0; 6], Direction::None, 0) };
        wire.send(&bad, b"");
    })),
    (0x01, "more immediate commands than are taken", || after(&[], too_many_immediate)),
    (0x01, "bad data digest", || after(&[("DataDigest", "CRC32C")], |wire| {
        let write = wire.command(&write10(0, 1), Direction::Write, 512);
        damaged(wire, |wire, bytes| wire.framing.pdu(&write, &[1; 512], bytes), usize::MAX);
    })),
    (0x01, "bad header digest", || after(&[("HeaderDigest", "CRC32C")], |wire| {
        let ready = wire.command(&[0; 6], Direction::None, 0);
        damaged(wire, |wire, bytes| wire.framing.pdu(&ready, b"", bytes), BHS_BYTES);
    })),
    (0x01, "in a discovery session", || discovery(|wire| command(wire, &[0; 6], Direction::None, 0, b""))),
    (0x02, "function", || after(&[], |wire| wire.send(&management(), b""))),
    (0x02, "in a discovery session", || discovery(|wire| wire.send(&management(), b""))),
    (0x03, "first of a connection", || {
        let mut wire = Wire::new(&node(Limits::default()));
        wire.send(&login_request(), &text(&DISCOVERY));
        wire
    }),
    (0x03, "in the full-feature phase", || after(&[], |wire| wire.send(&login_request(), b""))),
    (0x03, "a key twice", || first_login(&[("MaxBurstLength", "512"); 2])),
    (0x03, "17 unknown keys", || {
        let names: Vec<String> = (0..17).map(|number| format!("X-com.example.{number}")).collect();
        let keys: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        first_login(&keys)
    }),
    (0x03, "reserved stage", || {
        let mut wire = Wire::new(&node(Limits::default()));
        let mut bytes = Vec::new();
        wire.framing.pdu(&login_request(), b"", &mut bytes);
        bytes[1] = 0x8B; // CSG 2
        wire.send_bytes(&bytes);
        wire
    }),
    (0x04, "keys", || after(&[], |wire| wire.send(&text_request(true, false, RESERVED_TAG), &text(&[("SendTargets", "")])))),
    (0x04, "to be continued", || after(&[], |wire| wire.send(&text_request(false, true, RESERVED_TAG), b"SendTar"))),
    (0x04, "F and C together", || after(&[], |wire| wire.send(&text_request(true, true, RESERVED_TAG), b""))),
    (0x04, "a target transfer tag that is not ours", || after(&[], |wire| wire.send(&text_request(true, false, 77), b""))),
    (0x05, "all that an R2T asks for", || after_r2t(|wire, itt, ttt| wire.data_out(itt, ttt, 0, 0, true, &[1; 1024]))),
    (0x05, "less than an R2T asks for", || after_r2t(|wire, itt, ttt| wire.data_out(itt, ttt, 0, 0, true, &[1; 512]))),
    (0x05, "buffer offset out of order", || after_r2t(|wire, itt, ttt| wire.data_out(itt, ttt, 0, 512, true, &[1; 512]))),
    (0x05, "DataSN out of order", || after_r2t(|wire, itt, ttt| wire.data_out(itt, ttt, 5, 0, true, &[1; 1024]))),
    (0x05, "without a command", || after(&[], |wire| wire.data_out(9, RESERVED_TAG, 0, 0, true, &[1; 512]))),
    (0x05, "bad data digest", || after(&[("DataDigest", "CRC32C"), ("ImmediateData", "No")], |wire| {
        let write = wire.command(&write10(0, 1), Direction::Write, 512);
        wire.send(&write, b"");
        let ttt = answers::r2t(wire.next()).ttt;
        let data = data_out(write.itt, ttt);
        damaged(wire, |wire, bytes| wire.framing.pdu(&data, &[1; 512], bytes), usize::MAX);
    })),
    (0x06, "close the session", || after(&[], |wire| wire.send(&logout(LogoutReason::CloseSession), b""))),
    (0x06, "close the connection", || after(&[], |wire| wire.send(&logout(LogoutReason::CloseConnection), b""))),
    (0x06, "remove the connection for recovery", || {
        after(&[], |wire| wire.send(&logout(LogoutReason::RemoveConnectionForRecovery), b""))
    }),
    (0x06, "close a connection that is not there", || {
        after(&[], |wire| wire.send(&LogoutRequest { cid: 7, ..logout(LogoutReason::CloseConnection) }, b""))
    }),
    (0x10, "any", || after(&[], |wire| wire.send(&snack(), b""))),
];

/// Keys of the login of a discovery session.
const DISCOVERY: [(&str, &str); 2] = [("InitiatorName", INITIATOR), ("SessionType", "Discovery")];

fn after(keys: &[(&str, &str)], act: impl FnOnce(&mut Wire)) -> Wire {
    let mut wire = Wire::logged_in(&node(Limits::default()), keys);
    act(&mut wire);
    wire
}

fn discovery(act: impl FnOnce(&mut Wire)) -> Wire {
    let mut wire = Wire::new(&node(Limits::default()));
    wire.login(&login_request(), &text(&DISCOVERY));
    act(&mut wire);
    wire
}

/// A first login request with these keys as well.
fn first_login(keys: &[(&str, &str)]) -> Wire {
    let mut wire = Wire::new(&node(Limits::default()));
    wire.send(&login_request(), &text(&[&DISCOVERY[..], keys].concat()));
    wire
}

/// READ (32) (SBC-4 5.15).
fn long_cdb() -> [u8; 32] {
    let mut cdb = [0; 32];
    (cdb[0], cdb[7], cdb[9]) = (0x7F, 0x18, 0x09);
    cdb
}

fn after_r2t(act: impl FnOnce(&mut Wire, u32, u32)) -> Wire {
    after(&[], |wire| {
        let write = wire.command(&write10(0, 2), Direction::Write, 1024);
        wire.send(&write, b"");
        let ttt = answers::r2t(wire.next()).ttt;
        act(wire, write.itt, ttt);
    })
}

fn nop_in_is_answered() -> Wire {
    after(&[], |wire| {
        wire.sleep_ms(Limits::default().idle_ping_ms);
        let Some((Response::NopIn(ping), _)) = wire.answers.pop_front() else {
            panic!("silence asks for a NOP-In");
        };
        let answer = NopOut {
            itt: RESERVED_TAG,
            ..nop(ping.ttt)
        };
        wire.send(&answer, b"");
    })
}

fn too_many_immediate(wire: &mut Wire) {
    wire.hold = true;
    for _ in 0..=Limits::default().immediate_commands {
        let read = ScsiCommand {
            immediate: true,
            cmd_sn: Serial(100),
            ..wire.command(&read10(0, 1), Direction::Read, 512)
        };
        wire.send(&read, b"");
    }
}

/// Sends a PDU with one bit wrong, in the byte `at` or the last one.
fn damaged(wire: &mut Wire, emit: impl FnOnce(&Wire, &mut Vec<u8>), at: usize) {
    let mut bytes = Vec::new();
    emit(wire, &mut bytes);
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 0x01;
    wire.send_bytes(&bytes);
}

fn command(wire: &mut Wire, cdb: &[u8], direction: Direction, bytes: u32, data: &[u8]) {
    let command = wire.command(cdb, direction, bytes);
    wire.send(&command, data);
}

fn nop(ttt: u32) -> NopOut {
    NopOut {
        immediate: true,
        lun: Lun::default(),
        itt: 9,
        ttt,
        cmd_sn: Serial(100),
        exp_stat_sn: Serial(0),
    }
}

fn management() -> TaskManagementRequest {
    TaskManagementRequest {
        immediate: true,
        function: TaskFunction::AbortTaskSet,
        lun: Lun::default(),
        itt: 9,
        referenced_task_tag: RESERVED_TAG,
        cmd_sn: Serial(100),
        exp_stat_sn: Serial(0),
        ref_cmd_sn: Serial(0),
        exp_data_sn: 0,
    }
}

fn text_request(final_bit: bool, continue_: bool, ttt: u32) -> TextRequest {
    TextRequest {
        immediate: true,
        final_bit,
        continue_,
        lun: Lun::default(),
        itt: 9,
        ttt,
        cmd_sn: Serial(100),
        exp_stat_sn: Serial(0),
    }
}

fn data_out(itt: u32, ttt: u32) -> DataOut {
    DataOut {
        final_bit: true,
        lun: Lun::default(),
        itt,
        ttt,
        exp_stat_sn: Serial(0),
        data_sn: 0,
        buffer_offset: 0,
    }
}

fn logout(reason: LogoutReason) -> LogoutRequest {
    LogoutRequest {
        immediate: true,
        reason,
        itt: 9,
        cid: 1,
        cmd_sn: Serial(100),
        exp_stat_sn: Serial(0),
    }
}

fn snack() -> Snack {
    Snack {
        kind: SnackType::ALL[0],
        lun: Lun::default(),
        itt: 9,
        ttt: RESERVED_TAG,
        exp_stat_sn: Serial(0),
        beg_run: 0,
        run_length: 0,
    }
}

/// One answer in the words of the page.
fn describe((response, data): &Answer) -> String {
    match response {
        Response::NopIn(_) => "NOP-In".to_owned(),
        Response::ScsiResponse(pdu) if pdu.status == 0x02 => {
            let bytes = iscsi_pdu::sense_bytes(data).expect("sense data");
            let code = (bytes[2] & 0x0F, bytes[12], bytes[13]);
            format!("SCSI Response {}", show(code))
        }
        Response::ScsiResponse(pdu) if pdu.status == 0 => "SCSI Response".to_owned(),
        Response::ScsiResponse(pdu) => format!("SCSI Response, status {:02X}", pdu.status),
        Response::TaskManagement(pdu) => format!("Task Management Function Response {}", pdu.response.code()),
        Response::Login(pdu) => {
            let [class, detail] = pdu.status.code().to_be_bytes();
            format!("Login Response {class:02X}/{detail:02X}")
        }
        Response::Text(_) => "Text Response".to_owned(),
        Response::DataIn(pdu) if pdu.status.is_some() => "Data-In with status".to_owned(),
        Response::DataIn(_) => "Data-In".to_owned(),
        Response::Logout(pdu) => format!("Logout Response {}", pdu.response.code()),
        Response::R2t(_) => "R2T".to_owned(),
        Response::AsyncMessage(pdu) => format!("Asynchronous Message {}", pdu.event.code()),
        Response::Reject(pdu) => format!("Reject {:02X}", pdu.reason.code()),
    }
}

/// All that came over a wire, in the words of the page.
pub fn answered(wire: &Wire) -> String {
    let mut words: Vec<String> = wire.answers.iter().map(describe).collect();
    words.extend(wire.connection.ended().map(|_| "end of the connection".to_owned()));
    if words.is_empty() {
        return "nothing".to_owned();
    }
    words.join(", ")
}

fn requests() -> Vec<Row> {
    page::table(REQUESTS, &["Opcode", "PDU", "Case", "Answer"]).rows
}

#[test]
fn every_case_gets_the_answer_on_the_page() {
    let rows = requests();
    for row in &rows {
        let case = CASES.iter().find(|case| (case.0, case.1) == (row.hex(0), row.cell(2)));
        let Some((_, _, run)) = case else {
            row.fail("nobody knows how to do that")
        };
        let came = answered(&run());
        if came != row.cell(3) {
            row.fail(&format!("answered: {came}"));
        }
    }
    for (opcode, name, _) in CASES {
        let on_page = rows
            .iter()
            .filter(|row| (row.hex(0), row.cell(2)) == (*opcode, *name))
            .count();
        assert_eq!(on_page, 1, "rows of {opcode:02X}, {name}");
    }
    let opcodes: BTreeSet<u8> = rows.iter().map(|row| row.hex(0)).collect();
    let all: BTreeSet<u8> = Opcode::ALL
        .iter()
        .filter(|code| code.is_request())
        .map(|code| code.code())
        .collect();
    assert_eq!(opcodes, all, "every request of RFC 7143 §11.2.1.2");
}

#[test]
fn other_opcodes_are_rejected() {
    let known: BTreeSet<u8> = requests().iter().map(|row| row.hex(0)).collect();
    for opcode in (0..0x40).filter(|opcode| !known.contains(opcode)) {
        let wire = after(&[], |wire| {
            let mut bhs = [0; BHS_BYTES];
            (bhs[0], bhs[1]) = (0x40 | opcode, 0x80);
            wire.send_bytes(&bhs);
        });
        assert_eq!(answered(&wire), "Reject 05", "opcode {opcode:02X}");
    }
}

fn opcode(response: &Response) -> Opcode {
    match response {
        Response::NopIn(_) => Opcode::NopIn,
        Response::ScsiResponse(_) => Opcode::ScsiResponse,
        Response::TaskManagement(_) => Opcode::TaskManagementResponse,
        Response::Login(_) => Opcode::LoginResponse,
        Response::Text(_) => Opcode::TextResponse,
        Response::DataIn(_) => Opcode::DataIn,
        Response::Logout(_) => Opcode::LogoutResponse,
        Response::R2t(_) => Opcode::R2t,
        Response::AsyncMessage(_) => Opcode::AsyncMessage,
        Response::Reject(_) => Opcode::Reject,
    }
}

/// A cell that says yes or no.
pub fn yes_or_no(row: &Row, at: usize) -> bool {
    match row.cell(at) {
        "yes" => true,
        "no" => false,
        _ => row.fail("neither yes nor no"),
    }
}

#[test]
fn the_target_sends_what_the_page_says() {
    let wires = CASES
        .iter()
        .map(|case| case.2())
        .chain(unasked::CASES.iter().map(|case| case.1()));
    let sent: BTreeSet<u8> = wires
        .flat_map(|wire| wire.answers)
        .map(|(response, _)| opcode(&response).code())
        .collect();
    let rows = page::table(ANSWERS, &["Opcode", "PDU", "Sent", "When"]).rows;
    let all: BTreeSet<u8> = Opcode::ALL
        .iter()
        .filter(|code| !code.is_request())
        .map(|code| code.code())
        .collect();
    assert_eq!(rows.iter().map(|row| row.hex(0)).collect::<BTreeSet<u8>>(), all);
    for row in rows {
        if sent.contains(&row.hex(0)) != yes_or_no(&row, 2) {
            row.fail("that is not so");
        }
    }
}

#[test]
fn rejects_have_the_reasons_on_the_page() {
    let mut given = BTreeSet::new();
    for (_, _, run) in CASES {
        given.extend(run().answers.iter().filter_map(|(response, _)| match response {
            Response::Reject(reject) => Some(reject.reason.code()),
            _ => None,
        }));
    }
    // What the source uses must have been provoked, too.
    for name in source::names("RejectReason::", &[]) {
        let reason = RejectReason::ALL.iter().find(|reason| format!("{reason:?}") == name);
        let reason = reason.unwrap_or_else(|| panic!("no reason is called {name}"));
        assert!(given.contains(&reason.code()), "nobody knows how to provoke {name}");
    }
    let rows = page::table(REASONS, &["Reason", "Name", "Given", "When"]).rows;
    let all: BTreeSet<u8> = RejectReason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(rows.iter().map(|row| row.hex(0)).collect::<BTreeSet<u8>>(), all);
    for row in rows {
        if given.contains(&row.hex(0)) != yes_or_no(&row, 2) {
            row.fail("that is not so");
        }
    }
}
