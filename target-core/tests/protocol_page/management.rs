//! The table of task management functions: each is asked for, at a LUN that is there and at one that is not.

use std::collections::BTreeSet;

use iscsi_pdu::{Isid, Lun, RESERVED_TAG, Response, Serial, TaskFunction, TaskManagementRequest};
use target_core::iscsi::Limits;

use crate::page;
use crate::scsi_support::good;
use crate::support::{Direction, Wire, node, node_with_luns, read10, write10};
use crate::units::Kind;

pub const HEADING: &str = "Task management functions";

const COLUMNS: [&str; 8] = [
    "Function",
    "Name",
    "Task waits",
    "Medium hangs",
    "No such task",
    "No such LUN",
    "LUN of another",
    "Remarks",
];

/// An initiator that may be there as well.
const OTHER: &str = "iqn.2026-11.net.farlun:other";

/// Brings a task about, and says its tag.
type Tag = fn(&mut Wire) -> u32;

/// A task that waits for its data.
fn waiting(wire: &mut Wire) -> u32 {
    let command = wire.command(&write10(0, 1), Direction::Write, 512);
    wire.send(&command, &[]);
    command.itt
}

/// A task that a worker is at, and will be for ever.
fn hanging(wire: &mut Wire) -> u32 {
    wire.hold = true;
    let command = wire.command(&read10(0, 1), Direction::Read, 512);
    wire.send(&command, &[]);
    wire.held.clear();
    command.itt
}

fn none(_: &mut Wire) -> u32 {
    RESERVED_TAG - 1
}

/// Asks for a function and returns the response code.
fn ask(wire: &mut Wire, function: u8, lun: u16, referenced_task_tag: u32) -> Option<u8> {
    let request = TaskManagementRequest {
        immediate: true,
        function: TaskFunction::from_code(function),
        lun: Lun::from_number(lun),
        itt: 0x7000,
        referenced_task_tag,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
        ref_cmd_sn: Serial(50),
        exp_data_sn: 0,
    };
    wire.answers.clear();
    wire.send(&request, &[]);
    // A function that waits for a command that is at work answers when it has waited long enough.
    wire.sleep_ms(1000);
    wire.answers.iter().find_map(|(response, _)| match response {
        Response::TaskManagement(answer) if answer.itt == 0x7000 => Some(answer.response.code()),
        _ => None,
    })
}

#[test]
fn every_function_answers_as_the_page_says() {
    let mut on_page = BTreeSet::new();
    for row in page::table(HEADING, &COLUMNS).rows {
        let function = row.hex(0);
        assert!(on_page.insert(function), "{function:02X} is there twice");
        let cases: [(usize, u16, Tag); 5] = [
            (2, 0, waiting),
            (3, 0, hanging),
            (4, 0, none),
            (5, 9, none),
            (6, 1, none),
        ];
        for (at, lun, task) in cases {
            let node = node_with_luns(Limits::default(), &[true, false]);
            // LUN 1 is that of who comes first.
            let first = (at == 6).then_some((OTHER, Isid([0x80, 0, 0, 0, 0, 2])));
            let _other = first.map(|(name, isid)| Wire::logged_in_as(&node, name, isid, &[]));
            let mut wire = Wire::logged_in(&node, &[("iSCSIProtocolLevel", "2")]);
            let tag = task(&mut wire);
            let response = ask(&mut wire, function, lun, tag);
            let expected = row.cell(at).parse::<u8>().ok();
            if expected.is_none() || response != expected {
                row.fail(&format!("{}: {response:?}", COLUMNS[at]));
            }
        }
    }
    let all: BTreeSet<u8> = TaskFunction::ALL.iter().map(|function| function.code()).collect();
    assert_eq!(on_page, all, "every function of RFC 7143 §11.5.1 and RFC 7144 §4.1");
}

/// Bit of each function in the answer to REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-5 6.41), its first byte
/// being the high one. TASK REASSIGN is iSCSI's own and has none.
const REPORTED: [(u8, u16); 11] = [
    (0x01, 0x8000),
    (0x02, 0x4000),
    (0x03, 0x2000),
    (0x04, 0x1000),
    (0x05, 0x0800),
    (0x06, 0x0200),
    (0x07, 0x0200),
    (0x09, 0x0400),
    (0x0A, 0x0002),
    (0x0B, 0x0001),
    (0x0C, 0x0004),
];

#[test]
fn scsi_reports_the_functions_on_the_page() {
    let data = good(&Kind::Thin.nexus(), &[0xA3, 0x0D, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], &[]);
    let reported = u16::from_be_bytes([data[0], data[1]]);
    let mut expected = 0;
    for row in page::table(HEADING, &COLUMNS).rows {
        let bit = REPORTED.iter().find(|(function, _)| *function == row.hex(0));
        if let (Some((_, bit)), true) = (bit, row.cell(4) != "5") {
            expected |= bit;
        }
    }
    assert_eq!(format!("{reported:016b}"), format!("{expected:016b}"));
}

/// Every code that is no function's.
#[test]
fn functions_that_are_not_on_the_page_are_not_supported() {
    /// Task management function not supported (RFC 7143 §11.6.1).
    const NOT_SUPPORTED: u8 = 5;
    let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
    for function in (0..=0x7F).filter(|code| !TaskFunction::ALL.iter().any(|known| known.code() == *code)) {
        assert_eq!(
            ask(&mut wire, function, 0, RESERVED_TAG),
            Some(NOT_SUPPORTED),
            "{function:02X}"
        );
    }
}
