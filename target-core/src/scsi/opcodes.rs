//! REPORT SUPPORTED OPERATION CODES (SPC-5 6.35), straight from the table of commands.

use super::request::{Planned, Request, answer, be16, be32};
use super::sense::Sense;
use super::table::{self, Command};
use super::unit::LogicalUnit;

/// Length of a command timeouts descriptor in bytes; ours name no times (SPC-5 6.35.4).
const TIMEOUTS: [u8; 12] = [0x00, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// REPORT SUPPORTED OPERATION CODES.
pub(super) fn report(request: &Request<'_>) -> Planned {
    let cdb = request.cdb;
    let timeouts = cdb[2] & 0x80 != 0;
    let (opcode, service_action) = (cdb[3], be16(cdb, 4));
    let data = match cdb[2] & 0x07 {
        0b000 => all(request.unit, timeouts),
        option @ 0b001..=0b011 => {
            let found = choose(option, opcode, service_action)?;
            let supported = found.filter(|command| table::is_offered(command, request.unit));
            one(supported, timeouts)
        }
        _ => return Err(Sense::cdb_field(2, 2)),
    };
    answer(data, be32(cdb, 6))
}

/// The command asked about. Options 1 and 2 are refused where the operation code has, or has no, service
/// actions; 3 takes both.
fn choose(option: u8, opcode: u8, service_action: u16) -> Result<Option<&'static Command>, Sense> {
    let mut candidates = table::all()
        .iter()
        .filter(|command| command.opcode == opcode)
        .peekable();
    let Some(first) = candidates.peek() else {
        return Ok(None);
    };
    match (first.service_action.is_some(), option) {
        (true, 0b001) | (false, 0b010) => Err(Sense::cdb_field(2, 2)),
        (false, _) => Ok(candidates.next()),
        (true, _) => Ok(candidates.find(|command| command.service_action.map(u16::from) == Some(service_action))),
    }
}

fn all(unit: &LogicalUnit, timeouts: bool) -> Vec<u8> {
    let mut data = vec![0; 4];
    for command in table::all().iter().filter(|command| table::is_offered(command, unit)) {
        // SERVACTV and CTDP.
        let flags = u8::from(command.service_action.is_some()) | if timeouts { 0x02 } else { 0 };
        data.extend_from_slice(&[command.opcode, 0, 0, command.service_action.unwrap_or(0), 0, flags]);
        data.extend_from_slice(&(command.usage.len() as u16).to_be_bytes());
        if timeouts {
            data.extend_from_slice(&TIMEOUTS);
        }
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

fn one(command: Option<&Command>, timeouts: bool) -> Vec<u8> {
    // SUPPORT: 1 not supported, 3 supported as the standard says.
    let Some(command) = command else {
        return vec![0, 0x01, 0, 0];
    };
    let mut data = vec![0, 0x03 | if timeouts { 0x80 } else { 0 }];
    data.extend_from_slice(&(command.usage.len() as u16).to_be_bytes());
    data.extend_from_slice(command.usage);
    if let (Some(action), Some(byte)) = (command.service_action, data.get_mut(5)) {
        // The field of the service action holds its value.
        *byte = *byte & !0x1F | action;
    }
    if timeouts {
        data.extend_from_slice(&TIMEOUTS);
    }
    data
}
