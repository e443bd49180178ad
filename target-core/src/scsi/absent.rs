//! LUN addresses, the list of LUNs, and answers for LUNs that are not there.

use super::nexus::Nexus;
use super::request::{self, Plan, Planned, Request};
use super::sense::{Format, Sense};
use super::{Response, inquiry};

/// Peripheral qualifier 011b, device type 1Fh: no such logical unit (SPC-5 6.6.2).
const NO_DEVICE: u8 = 0x7F;

/// The LUN in a single-level address (SAM-6 4.7.7): peripheral or flat space addressing.
pub(super) fn decode_lun(lun: [u8; 8]) -> Option<u16> {
    let [first, second, rest @ ..] = lun;
    if rest != [0; 6] {
        return None;
    }
    match first >> 6 {
        // Peripheral device addressing; the low bits are a bus identifier and ours is 0.
        0b00 if first == 0 => Some(u16::from(second)),
        0b01 => Some(u16::from_be_bytes([first & 0x3F, second])),
        _ => None,
    }
}

/// The address we report for a LUN.
fn encode_lun(lun: u16) -> [u8; 8] {
    let [first, second] = if lun < 0x100 { lun } else { 0x4000 | lun }.to_be_bytes();
    [first, second, 0, 0, 0, 0, 0, 0]
}

/// REPORT LUNS (SPC-5 6.33).
pub(super) fn report_luns(request: &Request<'_>) -> Planned {
    let list = lun_list(request.nexus, request.cdb)?;
    request.nexus.forget_changed_luns();
    Ok(Plan::Answer(list))
}

fn lun_list(nexus: &Nexus, cdb: &[u8]) -> Result<Vec<u8>, Sense> {
    let allocation_bytes = request::be32(cdb, 6);
    if allocation_bytes < 16 {
        return Err(Sense::cdb_field(6, 7));
    }
    let luns: Vec<u16> = match cdb.get(2) {
        Some(0x00 | 0x02) => nexus.luns(),
        // Well known logical units only: there are none.
        Some(0x01) => Vec::new(),
        _ => return Err(Sense::cdb_field(2, 7)),
    };
    let mut data = Vec::with_capacity(8 + 8 * luns.len());
    data.extend_from_slice(&(8 * luns.len() as u32).to_be_bytes());
    data.extend_from_slice(&[0; 4]);
    for lun in luns {
        data.extend_from_slice(&encode_lun(lun));
    }
    data.truncate(allocation_bytes as usize);
    Ok(data)
}

/// What a LUN that is not there, or not ready, answers: `sense` to what needs a unit (SPC-5 6.6.1, 6.43; SAM-6 5.11).
pub(super) fn answer(nexus: &Nexus, sense: Sense, cdb: &[u8]) -> Response {
    let padded = request::padded(cdb);
    let answered = match cdb.first() {
        Some(0x12) if padded[1] & 0x01 == 0 && padded[2] == 0 => {
            let mut data = inquiry::no_device(NO_DEVICE);
            data.truncate(usize::from(request::be16(&padded, 3)));
            Ok(data)
        }
        Some(0x12) => Err(Sense::cdb_field(1, 0)),
        Some(0xA0) => lun_list(nexus, &padded).inspect(|_| nexus.forget_changed_luns()),
        Some(0x03) => {
            // DESC.
            let mut data = sense.bytes(match padded[1] & 0x01 {
                0 => Format::Fixed,
                _ => Format::Descriptor,
            });
            data.truncate(usize::from(padded[4]));
            Ok(data)
        }
        _ => Err(sense),
    };
    answered.map_or_else(Response::check, Response::good)
}
