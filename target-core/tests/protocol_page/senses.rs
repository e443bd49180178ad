//! The tables of status, sense and unit attention codes: each that is given is provoked, and all that the code can
//! give are on the page.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use target_core::iscsi::Mode;
use target_core::lun::{Durability, Extent, Medium, MediumError, MemoryMedium, Properties, Wait};
use target_core::scsi::{LogicalUnit, LogicalUnitOptions, Nexus, Response, Status};

use crate::page::{self, Row, Sense, show};
use crate::samples;
use crate::scsi_support::gate::Gate;
use crate::scsi_support::{
    self, LUN0, cdb_10, cdb_16, device, good, identity, memory, read_10, run, sense, unmap_cdb, unmap_list, write_10,
};
use crate::support::answers;
use crate::support::{self, Direction, Wire};
use crate::units::{self, BLOCKS, Kind};

pub const STATUSES: &str = "Status codes";
pub const SENSES: &str = "Sense codes";
pub const ATTENTIONS: &str = "Unit attentions";

const COLUMNS: [&str; 4] = ["Code", "Name", "Given", "When"];

/// The rows of a table of codes, each with whether it is given.
fn rows<T: Ord>(heading: &str, code: impl Fn(&Row) -> T) -> Vec<(Row, T, bool)> {
    let rows: Vec<(Row, T, bool)> = page::table(heading, &COLUMNS)
        .rows
        .into_iter()
        .map(|row| {
            let given = match row.cell(2) {
                "yes" => true,
                "no" => false,
                _ => row.fail("neither yes nor no"),
            };
            (row.clone(), code(&row), given)
        })
        .collect();
    rows
}

fn in_order<T: Ord>(heading: &str, rows: &[(Row, T, bool)]) {
    assert!(rows.is_sorted_by(|a, b| a.1 < b.1), "{heading}: in order, each once");
}

/// Every status byte that the code knows.
fn known_statuses() -> BTreeSet<u8> {
    // The match fails to compile when a variant is added.
    let of = |status: Status| match status {
        Status::Good
        | Status::CheckCondition
        | Status::ConditionMet
        | Status::Busy
        | Status::ReservationConflict
        | Status::TaskSetFull
        | Status::TaskAborted => status as u8,
    };
    [
        Status::Good,
        Status::CheckCondition,
        Status::ConditionMet,
        Status::Busy,
        Status::ReservationConflict,
        Status::TaskSetFull,
        Status::TaskAborted,
    ]
    .map(of)
    .into()
}

/// Provokes a status; `None` where nobody knows how.
fn provoke_status(status: u8) -> Option<Status> {
    let device = Kind::Thin.device();
    let (nexus, other) = (units::attach(&device), units::attach_other(&device));
    let response = match status {
        0x00 => run(&nexus, &[0; 6], &[]),
        0x02 => run(&nexus, &[0xFF; 6], &[]),
        0x18 => {
            good(&other, &[0x16, 0, 0, 0, 0, 0], &[]);
            run(&nexus, &read_10(0, 1), &[])
        }
        _ => return None,
    };
    Some(response.status)
}

#[test]
fn every_status_is_given_as_the_page_says() {
    let rows = rows(STATUSES, |row| row.hex(0));
    in_order(STATUSES, &rows);
    for (row, code, given) in &rows {
        match provoke_status(*code) {
            Some(status) if *given && status as u8 == *code => {}
            None if !given => {}
            other => row.fail(&format!("provoked: {other:?}")),
        }
    }
    let on_page: BTreeSet<u8> = rows.iter().map(|row| row.1).collect();
    assert!(
        on_page.is_superset(&known_statuses()),
        "not all of {:02X?} are on the page",
        known_statuses()
    );
}

/// Provokes a sense code; `None` where nobody knows how.
fn provoke(code: Sense) -> Option<Sense> {
    let thin = || Kind::Thin.nexus();
    let response = match code {
        (0x00, 0x00, 0x00) => {
            let data = good(&thin(), &[0x03, 0, 0, 0, 18, 0], &[]);
            return Some((data[2] & 0x0F, data[12], data[13]));
        }
        (0x02, 0x04, 0x1B) => sanitizing(),
        (0x02, 0x04, 0x12) => {
            let device = Kind::Thin.device();
            let nexus = units::attach(&device);
            drop(nexus);
            drop(device.set_offline(0).expect("nobody has it"));
            let nexus = device
                .attach(scsi_support::INITIATOR, scsi_support::PORT)
                .expect("nobody else");
            run(&nexus, &[0; 6], &[])
        }
        (0x02, 0x3A, 0x00) => {
            let nexus = Kind::Removable.nexus();
            good(&nexus, &EJECT, &[]);
            run(&nexus, &read_10(0, 1), &[])
        }
        (0x03, 0x0C, 0x00) => run(&broken(Fault::Broken), &write_10(0, 1), &[0; 512]),
        (0x03, 0x11, 0x00) => run(&broken(Fault::Broken), &read_10(0, 1), &[]),
        (0x03, 0x31, 0x03) => {
            let nexus = broken(Fault::Broken);
            let mut and_wait = samples::OVERWRITE.0;
            and_wait[1] &= 0x7F;
            run(&nexus, &and_wait, &samples::OVERWRITE.1);
            run(&nexus, &[0; 6], &[])
        }
        (0x05, 0x0E, 0x03) => run(&thin(), &cdb_10(0x41, 0, 0, 1), &[0; 100]),
        (0x05, 0x1A, 0x00) => run(&thin(), &cdb_10(0x42, 0, 0, 4), &[0; 4]),
        (0x05, 0x20, 0x00) => run(&thin(), &[0xFF; 16], &[]),
        (0x05, 0x21, 0x00) => run(&thin(), &read_10(BLOCKS as u32, 1), &[]),
        (0x05, 0x24, 0x00) => run(&thin(), &cdb_10(0x28, 0x20, 0, 1), &[]),
        (0x05, 0x25, 0x00) => scsi_support::run_at(&thin(), [0, 9, 0, 0, 0, 0, 0, 0], &read_10(0, 1), &[]),
        (0x05, 0x26, 0x00) => {
            let too_many = unmap_list(&[(0, 1); 257]);
            run(&thin(), &unmap_cdb(&too_many), &too_many)
        }
        (0x05, 0x26, 0x04) => wrong_release(),
        (0x05, 0x39, 0x00) => run(&thin(), &[0x1A, 0, 0xC8, 0, 252, 0], &[]),
        (0x05, 0x53, 0x02) => {
            let nexus = Kind::Removable.nexus();
            good(&nexus, &[0x1E, 0, 0, 0, 0x01, 0], &[]);
            run(&nexus, &EJECT, &[])
        }
        (0x05, 0x55, 0x04) => too_many_registrations(),
        (0x07, 0x27, 0x00) => run(&Kind::ReadOnly.nexus(), &write_10(0, 1), &[0; 512]),
        (0x07, 0x27, 0x02) => {
            let nexus = thin();
            write_protect(&nexus);
            run(&nexus, &write_10(0, 1), &[0; 512])
        }
        (0x07, 0x27, 0x07) => run(&broken(Fault::Full), &write_10(0, 1), &[0; 512]),
        (0x0B, 0x0C, 0x0C) => return Some(unasked_data()),
        (0x0B, 0x0C, 0x0D) => return Some(wrong_amount_of_data()),
        (0x0B, 0x47, 0x05) => return Some(bad_data_digest()),
        (0x0E, 0x1D, 0x00) => run(&thin(), &cdb_16(0x8F, 0x02, 0, 1), &[0xFF; 512]),
        _ => return None,
    };
    Some(sense(&response))
}

#[test]
fn every_sense_code_is_given_as_the_page_says() {
    let rows = rows(SENSES, |row| row.sense(0));
    in_order(SENSES, &rows);
    for (row, code, given) in &rows {
        let came = provoke(*code);
        let expected = given.then_some(*code);
        if came != expected {
            row.fail(&format!("provoked: {}", came.map_or("nothing".to_owned(), show)));
        }
    }
}

/// Where the code has sense codes, as pairs of two hex numbers.
const SOURCES: [(&str, &str); 3] = [
    ("sense.rs", include_str!("../../src/scsi/sense.rs")),
    ("attention.rs", include_str!("../../src/scsi/attention.rs")),
    (
        "full_feature/mod.rs",
        include_str!("../../src/iscsi/full_feature/mod.rs"),
    ),
];

/// `(0x24, 0x00)` and the like.
fn pairs(source: &str) -> BTreeSet<(u8, u8)> {
    let number = |text: &str| u8::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok();
    source
        .split('(')
        .skip(1)
        .filter_map(|behind| {
            let (first, second) = behind.split_once(')')?.0.split_once(',')?;
            Some((number(first)?, number(second)?))
        })
        .collect()
}

#[test]
fn every_sense_code_in_the_source_is_on_the_page() {
    let mut on_page: BTreeSet<(u8, u8)> = rows(SENSES, |row| row.sense(0))
        .iter()
        .map(|row| (row.1.1, row.1.2))
        .collect();
    on_page.extend(
        rows(ATTENTIONS, |row| row.sense(0))
            .iter()
            .map(|row| (row.1.1, row.1.2)),
    );
    for (name, source) in SOURCES {
        let there = pairs(source);
        assert!(there.len() > 2, "{name}: the codes are written in another way now");
        for (code, qualifier) in there {
            assert!(
                on_page.contains(&(code, qualifier)),
                "{name}: {code:02X}/{qualifier:02X} is not on the page"
            );
        }
    }
}

/// Establishes a unit attention for the first nexus and returns what it hears; `None` where nobody knows how.
fn establish(code: Sense) -> Option<Sense> {
    let unit = Kind::Removable.unit();
    let device = device([(0, Arc::clone(&unit))]);
    let (mut nexus, other) = (units::attach(&device), units::attach_other(&device));
    match (code.1, code.2) {
        (0x28, 0x00) => {
            good(&other, &EJECT, &[]);
            good(&other, &LOAD, &[]);
        }
        (0x29, 0x02) => drop(other.reset_target()),
        (0x29, 0x03) => drop(other.reset_lun(LUN0)),
        (0x2A, 0x01) => write_protect(&other),
        (0x2A, 0x03) => {
            register_both(&nexus, &other);
            persistent_out(&other, CLEAR, &samples::reserve(REGISTRANTS_ONLY).1);
        }
        (0x2A, 0x04) => {
            register_both(&nexus, &other);
            for action in [RESERVE, RELEASE] {
                persistent_out(&other, action, &samples::reserve(REGISTRANTS_ONLY).1);
            }
        }
        (0x2A, 0x05) => {
            register_both(&nexus, &other);
            // Both have the same key, and only the other's own registration stays.
            let mut list = samples::reserve(REGISTRANTS_ONLY).1;
            list.copy_within(..8, 8);
            persistent_out(&other, PREEMPT, &list);
        }
        (0x2A, 0x09) => unit.resize(BLOCKS / 2 * 512).expect("it can"),
        (0x2F, 0x00) => nexus.tasks_cleared_by_other(LUN0),
        (0x38, 0x07) => unit.check_threshold(),
        (0x3F, 0x03) => {
            drop(device.replace(0, Kind::Thin.unit()).expect("it is there"));
            nexus.refresh(&|_| Some(Mode::ReadWrite));
            // It comes behind the news that the medium may be another one.
            assert_eq!(sense(&run(&nexus, &[0; 6], &[])), (0x06, 0x28, 0x00));
        }
        (0x3F, 0x0E) => {
            device.insert(1, Kind::Thin.unit()).expect("there is none");
            nexus.refresh(&|_| Some(Mode::ReadWrite));
        }
        _ => return None,
    }
    Some(sense(&run(&nexus, &[0; 6], &[])))
}

#[test]
fn every_unit_attention_is_established_as_the_page_says() {
    for (row, code, given) in rows(ATTENTIONS, |row| row.sense(0)) {
        let came = establish(code);
        if came != given.then_some(code) {
            row.fail(&format!("established: {}", came.map_or("nothing".to_owned(), show)));
        }
    }
}

/// The order of the rows is the order of reporting: whatever can be made pending together comes out so.
#[test]
fn unit_attentions_come_in_the_order_of_the_page() {
    let unit = Kind::Removable.unit();
    let device = device([(0, Arc::clone(&unit))]);
    let (mut nexus, other) = (units::attach(&device), units::attach_other(&device));
    register_both(&nexus, &other);
    persistent_out(&other, CLEAR, &samples::reserve(REGISTRANTS_ONLY).1);
    write_protect(&other);
    good(&other, &EJECT, &[]);
    good(&other, &LOAD, &[]);
    unit.check_threshold();
    device.insert(1, Kind::Thin.unit()).expect("there is none");
    nexus.refresh(&|_| Some(Mode::ReadWrite));
    unit.resize(BLOCKS / 2 * 512).expect("it can");
    nexus.tasks_cleared_by_other(LUN0);
    drop(other.reset_lun(LUN0));
    drop(other.reset_target());
    let heard: Vec<Sense> = std::iter::from_fn(|| {
        let response = run(&nexus, &[0; 6], &[]);
        (response.status != Status::Good).then(|| sense(&response))
    })
    .collect();
    assert_eq!(heard.len(), 9, "{heard:02X?}");
    let on_page: Vec<Sense> = rows(ATTENTIONS, |row| row.sense(0))
        .into_iter()
        .map(|row| row.1)
        .collect();
    let expected: Vec<Sense> = on_page.into_iter().filter(|code| heard.contains(code)).collect();
    assert_eq!(heard, expected);
}

/// START STOP UNIT with LOEJ (SBC-4 5.31): the medium out, and in again.
const EJECT: [u8; 6] = [0x1B, 0, 0, 0, 0x02, 0];
const LOAD: [u8; 6] = [0x1B, 0, 0, 0, 0x03, 0];

/// A read while the writes of SANITIZE stand at a gate.
fn sanitizing() -> Response {
    let gate = Gate::new(BLOCKS);
    gate.shut();
    let unit = LogicalUnit::shared(gate.clone(), identity());
    let nexus = units::attach(&device([(0, unit)]));
    good(&nexus, &samples::OVERWRITE.0, &samples::OVERWRITE.1);
    gate.wait_for(1);
    let response = run(&nexus, &read_10(0, 1), &[]);
    gate.open();
    response
}

/// Sets SWP in the control mode page (SPC-5 7.5.9).
fn write_protect(nexus: &Nexus) {
    let list = [0, 0, 0, 0, 0x0A, 0x0A, 0, 0x10, 0x08, 0, 0, 0, 0, 0, 0, 0];
    good(nexus, &[0x15, 0x10, 0, 0, list.len() as u8, 0], &list);
}

/// WRITE EXCLUSIVE, REGISTRANTS ONLY (SPC-5 table 77).
const REGISTRANTS_ONLY: u8 = 0x05;

/// Service actions of PERSISTENT RESERVE OUT (SPC-5 table 80).
const RESERVE: u8 = 0x01;
const RELEASE: u8 = 0x02;
const CLEAR: u8 = 0x03;
const PREEMPT: u8 = 0x04;

fn persistent_out(nexus: &Nexus, action: u8, list: &[u8]) {
    good(nexus, &[0x5F, action, REGISTRANTS_ONLY, 0, 0, 0, 0, 0, 24, 0], list);
}

/// Both register the same key.
fn register_both(nexus: &Nexus, other: &Nexus) {
    let (cdb, list) = samples::register();
    for registrant in [nexus, other] {
        good(registrant, &cdb, &list);
    }
}

/// RELEASE of another type than is held.
fn wrong_release() -> Response {
    let nexus = Kind::Thin.nexus();
    for (cdb, data) in [samples::register(), samples::reserve(REGISTRANTS_ONLY)] {
        good(&nexus, &cdb, &data);
    }
    let (_, data) = samples::reserve(REGISTRANTS_ONLY);
    run(&nexus, &[0x5F, 0x02, 0x01, 0, 0, 0, 0, 0, 24, 0], &data)
}

/// Registrations under ever new ports until there is no room.
fn too_many_registrations() -> Response {
    let device = Kind::Thin.device();
    let (cdb, data) = samples::register();
    for number in 0..100_000 {
        let nexus = device
            .attach(scsi_support::INITIATOR, &format!("port {number}"))
            .expect("shared");
        units::settle(&nexus);
        let response = run(&nexus, &cdb, &data);
        if response.status != Status::Good {
            return response;
        }
    }
    panic!("registrations without bound");
}

fn scsi_sense(wire: &mut Wire) -> Sense {
    let at = wire
        .answers
        .iter()
        .position(|(response, _)| matches!(response, iscsi_pdu::Response::ScsiResponse(_)))
        .expect("a SCSI response");
    answers::sense(wire.answers.remove(at).expect("it is there"))
}

fn unasked_data() -> Sense {
    let node = support::node(target_core::iscsi::Limits::default());
    let mut wire = Wire::logged_in(&node, &[("ImmediateData", "No")]);
    let command = wire.command(&write_10(0, 1), Direction::Write, 512);
    wire.send(&command, &[0; 512]);
    scsi_sense(&mut wire)
}

/// The last Data-Out of an R2T comes too early.
fn wrong_amount_of_data() -> Sense {
    let node = support::node(target_core::iscsi::Limits::default());
    let mut wire = Wire::logged_in(&node, &[]);
    let command = wire.command(&write_10(0, 2), Direction::Write, 1024);
    wire.send(&command, &[]);
    let r2t = answers::r2t(wire.next());
    wire.data_out(command.itt, r2t.ttt, 0, 0, true, &[0; 512]);
    scsi_sense(&mut wire)
}

fn bad_data_digest() -> Sense {
    let node = support::node(target_core::iscsi::Limits::default());
    let mut wire = Wire::logged_in(&node, &[("DataDigest", "CRC32C")]);
    let command = wire.command(&write_10(0, 1), Direction::Write, 512);
    let mut bytes = Vec::new();
    wire.framing.pdu(&command, &[0; 512], &mut bytes);
    let last = bytes.len() - 1;
    bytes[last] ^= 0xFF;
    wire.send_bytes(&bytes);
    scsi_sense(&mut wire)
}

/// What is wrong with a medium.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Broken,
    Full,
}

impl Fault {
    fn error(self) -> MediumError {
        match self {
            Self::Broken => std::io::Error::from_raw_os_error(5).into(),
            Self::Full => MediumError::NoSpace,
        }
    }
}

fn broken(fault: Fault) -> Nexus {
    let medium = Arc::new(Faulty {
        fault,
        inner: memory(BLOCKS),
    });
    let unit = LogicalUnit::with_options(medium, identity(), LogicalUnitOptions::default());
    units::attach(&device([(0, unit)]))
}

/// A medium that fails at everything.
#[derive(Debug)]
struct Faulty {
    fault: Fault,
    inner: Arc<MemoryMedium>,
}

impl Medium for Faulty {
    fn properties(&self) -> Properties {
        self.inner.properties()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read(&self, _: u64, _: usize, _: &mut Vec<u8>, _: Wait) -> Result<(), MediumError> {
        Err(self.fault.error())
    }

    fn write(&self, _: u64, _: &[u8], _: Durability, _: Wait) -> Result<(), MediumError> {
        Err(self.fault.error())
    }

    fn flush(&self, _: Wait) -> Result<(), MediumError> {
        Err(self.fault.error())
    }

    fn unmap(&self, _: u64, _: u64, _: Wait, _: &AtomicBool) -> Result<(), MediumError> {
        Err(self.fault.error())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: bool, _: Durability, _: Wait, _: &AtomicBool) -> Result<(), MediumError> {
        Err(self.fault.error())
    }

    fn allocation(&self, _: u64, _: Wait) -> Result<Extent, MediumError> {
        Err(self.fault.error())
    }

    fn resize(&self, _: u64) -> Result<(), MediumError> {
        Err(self.fault.error())
    }
}
