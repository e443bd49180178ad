//! The table of what LUNs answer that are not there, or not in service.

use target_core::scsi::Nexus;

use crate::commands::{commands, ended};
use crate::page;
use crate::scsi_support::{INITIATOR, PORT, run_at};
use crate::units::Kind;

pub const HEADING: &str = "LUNs that are not there";

/// A nexus of a device whose LUN 1 is out of service, and which has no LUN 2.
fn nexus() -> Nexus {
    let device = Kind::Thin.device();
    device.insert_offline(1).expect("there is none");
    device.attach(INITIATOR, PORT).expect("nobody else is there")
}

#[test]
fn every_command_is_answered_as_the_page_says() {
    let rows = page::table(HEADING, &["Op", "Command", "No such LUN", "Out of service"]).rows;
    let any_other = rows.last().filter(|row| row.hex_or_empty(0).is_none());
    let any_other = any_other.expect("the last row is for all others");
    let commands = commands();
    for row in &rows[..rows.len() - 1] {
        if !commands.iter().any(|command| command.opcode == row.hex(0)) {
            row.fail("there is no such command");
        }
    }
    for command in commands {
        let of_command = rows.iter().find(|row| row.hex_or_empty(0) == Some(command.opcode));
        let row = of_command.unwrap_or(any_other);
        for (at, lun) in [(2, 2), (3, 1)] {
            let sample = command.sample(Kind::Thin);
            let response = run_at(&nexus(), [0, lun, 0, 0, 0, 0, 0, 0], &sample.cdb, &sample.data);
            let expected = (row.cell(at) != "yes").then(|| row.sense(at));
            ended(&command.row, Kind::Thin, &response, expected);
        }
    }
}
