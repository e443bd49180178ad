//! The tables of commands: what each does on every kind of LUN, while others hold it, and what is refused how; and
//! that REPORT SUPPORTED OPERATION CODES says the same.

use std::collections::BTreeMap;

use target_core::iscsi::Mode;
use target_core::scsi::{LogicalUnit, LogicalUnitOptions, MediumOptions, Nexus, Response, Status};

use crate::page::{self, Row, Sense, show};
use crate::samples::{self, Sample, Sent, sample};
use crate::scsi_support::gate::Gate;
use crate::scsi_support::{LUN0, device, good, identity, run, sense};
use crate::units::{self, Kind, Offered};

pub const OFFERED: &str = "Commands";
pub const REFUSED: &str = "Commands that are refused";

const OFFERED_COLUMNS: [&str; 12] = [
    "Op",
    "SA",
    "Command",
    "Offered",
    "Read-only",
    "Reader",
    "WE",
    "EA",
    "RESERVE",
    "Ejected",
    "Sanitize",
    "UA",
];
const REFUSED_COLUMNS: [&str; 5] = ["Op", "SA", "Command", "Sense", "Why"];

const INVALID_OPCODE: Sense = (0x05, 0x20, 0x00);
const INVALID_FIELD: Sense = (0x05, 0x24, 0x00);
/// Sense key specific bytes: SKSV, C/D, BPV, and bit 4 of byte 1 (SPC-5 4.4.2.4.2).
const SERVICE_ACTION_POINTER: [u8; 3] = [0xCC, 0, 1];
/// VARIABLE LENGTH CDB (SPC-5 4.2.3): the service action is in bytes 8 and 9.
const VARIABLE_LENGTH: u8 = 0x7F;

/// What a row says happens when another initiator is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Yes,
    Conflict,
}

pub struct Command {
    pub row: Row,
    pub opcode: u8,
    service_action: Option<u8>,
    offered: Offered,
    /// What a read-only LUN refuses it with.
    read_only: Option<Sense>,
    /// What an initiator is refused with that may only read.
    reader: Option<Sense>,
    /// While another initiator has a write exclusive or an exclusive access reservation, or RESERVE (6).
    held: [Held; 3],
    /// What it ends with while the medium is out, and while SANITIZE is at work.
    ejected: Option<Sense>,
    sanitizing: Option<Sense>,
    /// Whether a pending unit attention is reported in its place.
    reports_attention: bool,
}

/// The rows of the offered commands.
pub fn commands() -> Vec<Command> {
    let table = page::table(OFFERED, &OFFERED_COLUMNS);
    let commands: Vec<Command> = table.rows.into_iter().map(command).collect();
    let order: Vec<_> = commands.iter().map(|c| (c.opcode, c.service_action)).collect();
    assert!(
        order.is_sorted_by(|a, b| a < b),
        "{OFFERED}: in order, each once: {order:02X?}"
    );
    commands
}

fn command(row: Row) -> Command {
    let held = |at| match row.cell(at) {
        "yes" => Held::Yes,
        "conflict" => Held::Conflict,
        _ => row.fail("neither yes nor conflict"),
    };
    let refusal = |at| (row.cell(at) != "yes").then(|| row.sense(at));
    Command {
        opcode: row.hex(0),
        service_action: row.hex_or_empty(1),
        offered: Offered::read(row.cell(3)).unwrap_or_else(|| row.fail("not where it is offered")),
        read_only: refusal(4),
        reader: refusal(5),
        ejected: refusal(9),
        sanitizing: refusal(10),
        held: [held(6), held(7), held(8)],
        reports_attention: match row.cell(11) {
            "reported" => true,
            "waits" => false,
            _ => row.fail("neither reported nor waits"),
        },
        row,
    }
}

impl Command {
    /// A kind of LUN that offers it and may be written.
    fn kind(&self) -> Kind {
        let fits = |kind: &Kind| self.offered.on(*kind) && kind.may_be_written();
        let kind = Kind::ALL.into_iter().find(fits);
        kind.unwrap_or_else(|| self.row.fail("no LUN offers it"))
    }

    /// A CDB that ends well.
    pub fn sample(&self, kind: Kind) -> Sample {
        sample(self.opcode, self.service_action, kind.block_bytes())
            .unwrap_or_else(|| self.row.fail("there is no sample of this command"))
    }
}

/// Commands that are named as refused, with their sense; `None` stands for every service action.
fn refused() -> BTreeMap<(u8, Option<u8>), (Row, Sense)> {
    let mut refused = BTreeMap::new();
    let mut last = None;
    for row in page::table(REFUSED, &REFUSED_COLUMNS).rows {
        let key = (row.hex(0), row.hex_or_empty(1));
        if last >= Some(key) {
            row.fail("out of order, or here twice");
        }
        last = Some(key);
        let sense = row.sense(3);
        refused.insert(key, (row, sense));
    }
    refused
}

/// Does what has to come before a sample, where the LUN offers that.
fn prepare(nexus: &Nexus, command: &Command, kind: Kind) -> Sample {
    let sample = command.sample(kind);
    if command.offered.on(kind) {
        for (cdb, data) in &sample.before {
            let response = run(nexus, cdb, data);
            // Where nothing may be written, a copy is refused, and its result is there all the same.
            assert!(
                response.status == Status::Good || !kind.may_be_written(),
                "{response:02X?}"
            );
        }
    }
    sample
}

/// Holds a response to what is expected: a sense code, or GOOD.
pub fn ended(row: &Row, kind: Kind, response: &Response, expected: Option<Sense>) {
    match expected {
        Some(expected) => {
            if response.status != Status::CheckCondition || sense(response) != expected {
                row.fail(&format!("{kind:?}: not {}, but {response:02X?}", show(expected)));
            }
        }
        None if response.status == Status::Good => {}
        None => row.fail(&format!("{kind:?}: not GOOD, but {response:02X?}")),
    }
}

#[test]
fn offered_commands_end_as_the_page_says() {
    for command in commands() {
        for kind in Kind::ALL {
            let read_only = command.read_only.filter(|_| !kind.may_be_written());
            let expected = absent(&command, kind).or(read_only);
            let nexus = kind.nexus();
            let sample = prepare(&nexus, &command, kind);
            let response = run(&nexus, &sample.cdb, &sample.data);
            ended(&command.row, kind, &response, expected);
        }
    }
}

#[test]
fn who_may_only_read_is_answered_as_the_page_says() {
    for command in commands() {
        let kind = command.kind();
        let mut nexus = kind.nexus();
        nexus.refresh(&|_| Some(Mode::ReadOnly));
        units::settle(&nexus);
        let sample = command.sample(kind);
        // What these do to the medium is refused, and needed by nothing that is not.
        for (cdb, data) in &sample.before {
            run(&nexus, cdb, data);
        }
        let response = run(&nexus, &sample.cdb, &sample.data);
        ended(&command.row, kind, &response, command.reader);
    }
}

#[test]
fn reservations_of_others_stop_what_the_page_says() {
    /// WRITE EXCLUSIVE and EXCLUSIVE ACCESS (SPC-5 table 77).
    const TYPES: [u8; 2] = [0x01, 0x03];
    for command in commands() {
        for (at, &held) in command.held.iter().enumerate() {
            let device = command.kind().device();
            let (nexus, holder) = (units::attach(&device), units::attach_other(&device));
            let sample = command.sample(command.kind());
            let of_reservations = |(cdb, _): &&Sent| cdb[0] == 0x5F;
            for (cdb, data) in sample.before.iter().filter(|sent| !of_reservations(sent)) {
                good(&nexus, cdb, data);
            }
            if let Some(&kind) = TYPES.get(at) {
                for (cdb, data) in [samples::register(), samples::reserve(kind)] {
                    good(&holder, &cdb, &data);
                }
                // Some of these are refused for the same reason.
                for (cdb, data) in sample.before.iter().filter(of_reservations) {
                    run(&nexus, cdb, data);
                }
            } else {
                // Registrations and RESERVE (6) exclude each other, so what the sample needs is left out.
                good(&holder, &[0x16, 0, 0, 0, 0, 0], &[]);
            }
            let status = run(&nexus, &sample.cdb, &sample.data).status;
            let conflict = status == Status::ReservationConflict;
            if conflict != (held == Held::Conflict) || !conflict && status != Status::Good {
                command
                    .row
                    .fail(&format!("column {}: {status:?}", OFFERED_COLUMNS[6 + at]));
            }
        }
    }
}

#[test]
fn an_ejected_medium_stops_what_the_page_says() {
    let eject = [0x1B, 0, 0, 0, 0x02, 0];
    for command in commands() {
        let nexus = Kind::Removable.nexus();
        let sample = prepare(&nexus, &command, Kind::Removable);
        good(&nexus, &eject, &[]);
        let response = run(&nexus, &sample.cdb, &sample.data);
        let expected = command.ejected.or(absent(&command, Kind::Removable));
        ended(&command.row, Kind::Removable, &response, expected);
    }
}

#[test]
fn a_sanitize_operation_stops_what_the_page_says() {
    let options = LogicalUnitOptions {
        medium: MediumOptions {
            copy_offload: true,
            ..MediumOptions::default()
        },
        ..LogicalUnitOptions::default()
    };
    for command in commands() {
        let gate = Gate::new(units::BLOCKS);
        let nexus = units::attach(&device([(
            0,
            LogicalUnit::with_options(gate.clone(), identity(), options),
        )]));
        let sample = prepare(&nexus, &command, Kind::CopyOffload);
        gate.shut();
        good(&nexus, &samples::OVERWRITE.0, &samples::OVERWRITE.1);
        gate.wait_for(1);
        let response = run(&nexus, &sample.cdb, &sample.data);
        gate.open();
        let expected = command.sanitizing.or(absent(&command, Kind::CopyOffload));
        ended(&command.row, Kind::CopyOffload, &response, expected);
    }
}

/// What a command that the LUN does not offer ends with.
fn absent(command: &Command, kind: Kind) -> Option<Sense> {
    command.offered.otherwise.filter(|_| !command.offered.on(kind))
}

#[test]
fn unit_attentions_are_reported_or_wait_as_the_page_says() {
    for command in commands() {
        let device = command.kind().device();
        let (nexus, other) = (units::attach(&device), units::attach_other(&device));
        let sample = prepare(&nexus, &command, command.kind());
        other.reset_lun(LUN0).expect("admitted");
        let response = run(&nexus, &sample.cdb, &sample.data);
        let reported = response.status == Status::CheckCondition && sense(&response) == (0x06, 0x29, 0x03);
        if reported != command.reports_attention || !reported && response.status != Status::Good {
            command
                .row
                .fail(&format!("with a unit attention pending: {response:02X?}"));
        }
    }
}

/// Every operation code with every service action, and nothing else in the CDB.
#[test]
fn what_is_not_on_the_page_is_refused_as_it_says() {
    let (offered, refused) = (commands(), refused());
    for kind in Kind::ALL {
        let nexus = kind.nexus();
        for (opcode, action) in (0..=0xFF).flat_map(|opcode| (0..=0x1F).map(move |action| (opcode, action))) {
            let of_opcode = || offered.iter().filter(|command| command.opcode == opcode);
            let known = of_opcode().any(|command| command.service_action.is_none_or(|own| own == action));
            let named = refused
                .get(&(opcode, Some(action)))
                .or_else(|| refused.get(&(opcode, None)));
            if known {
                assert!(named.is_none(), "{opcode:02X}/{action:02X} is in both tables");
                continue;
            }
            let expected = match named {
                Some((_, sense)) => *sense,
                None if of_opcode().next().is_some() => INVALID_FIELD,
                None => INVALID_OPCODE,
            };
            let mut cdb = [0; 32];
            (cdb[0], cdb[1]) = (opcode, action);
            if opcode == VARIABLE_LENGTH {
                (cdb[7], cdb[9]) = (0x18, action);
            }
            let response = run(&nexus, &cdb, &[]);
            if expected == INVALID_FIELD {
                let pointer = response.sense.get(15..).unwrap_or_default();
                assert_eq!(pointer, SERVICE_ACTION_POINTER, "{kind:?}, {opcode:02X}/{action:02X}");
            }
            match named {
                Some((row, _)) => ended(row, kind, &response, Some(expected)),
                None => assert_eq!(sense(&response), expected, "{kind:?}, {opcode:02X}/{action:02X}"),
            }
        }
    }
}

/// REPORT SUPPORTED OPERATION CODES (SPC-5 6.35) with the given REPORTING OPTIONS.
fn report(nexus: &Nexus, option: u8, opcode: u8, action: u8) -> Response {
    run(
        nexus,
        &[0xA3, 0x0C, option, opcode, 0, action, 0, 0, 0x40, 0, 0, 0],
        &[],
    )
}

#[test]
fn all_commands_reported_are_those_on_the_page() {
    for kind in Kind::ALL {
        let expected: Vec<(u8, Option<u8>)> = commands()
            .iter()
            .filter(|command| command.offered.on(kind))
            .map(|command| (command.opcode, command.service_action))
            .collect();
        let data = report(&kind.nexus(), 0, 0, 0).data_in;
        let length = u32::from_be_bytes([data[0], data[1], data[2], data[3]]) as usize;
        assert_eq!(length, data.len() - 4, "{kind:?}");
        let reported: Vec<(u8, Option<u8>)> = data[4..]
            .chunks(8)
            .map(|descriptor| (descriptor[0], (descriptor[5] & 0x01 != 0).then_some(descriptor[3])))
            .collect();
        assert_eq!(reported, expected, "{kind:?}");
    }
}

#[test]
fn each_command_is_reported_as_on_the_page() {
    /// SUPPORT: not supported, and supported in conformance with the standard.
    const NO: u8 = 0x01;
    const YES: u8 = 0x03;
    let commands = commands();
    for kind in Kind::ALL {
        let nexus = kind.nexus();
        for (opcode, action) in (0..=0xFF).flat_map(|opcode| (0..=0x1F).map(move |action| (opcode, action))) {
            let own = |c: &&Command| c.opcode == opcode && c.service_action.is_none_or(|own| own == action);
            let command = commands.iter().find(own).filter(|command| command.offered.on(kind));
            let data = report(&nexus, 3, opcode, action).data_in;
            let expected = if command.is_some() { YES } else { NO };
            assert_eq!(data[1] & 0x07, expected, "{kind:?}, {opcode:02X}/{action:02X}");
            if let Some(command) = command {
                let usage = &data[4..4 + usize::from(u16::from_be_bytes([data[2], data[3]]))];
                let sample = command.sample(kind);
                assert_eq!(
                    usage.len(),
                    sample.cdb.len(),
                    "{opcode:02X}/{action:02X}: length of the CDB"
                );
                assert_eq!(usage[0], opcode);
                let allowed = sample
                    .cdb
                    .iter()
                    .zip(usage)
                    .skip(1)
                    .all(|(byte, used)| byte & !used == 0);
                assert!(
                    allowed,
                    "{opcode:02X}/{action:02X}: {usage:02X?} hides bits of {:02X?}",
                    sample.cdb
                );
            }
        }
    }
}

#[test]
fn every_sample_has_a_row() {
    let commands = commands();
    for opcode in 0..=0xFF {
        for action in std::iter::once(None).chain((0..=0x1F).map(Some)) {
            let row = commands
                .iter()
                .any(|c| (c.opcode, c.service_action) == (opcode, action));
            assert!(
                row || sample(opcode, action, 512).is_none(),
                "{opcode:02X} {action:02X?}"
            );
        }
    }
}
