//! INQUIRY: standard data (SPC-5 6.6.2). The vital product data is in [`vpd`](super::vpd).

use super::copy;
use super::request::{Planned, Request, answer, be16};
use super::sense::Sense;
use super::vpd;

/// VERSION: SPC-4, the newest that initiators of today know.
const VERSION: u8 = 0x06;
/// Length of the standard data in bytes, up to the version descriptors and what is reserved after them.
const STANDARD_BYTES: usize = 96;
/// Version descriptors (SPC-5 table 148): SAM-5, SPC-4, SBC-3, iSCSI, none claiming a revision.
const VERSION_DESCRIPTORS: [u16; 4] = [0x00A0, 0x0460, 0x04C0, 0x0960];

/// HISUP, and response data format 2.
const FORMAT: u8 = 0x12;
/// TPGS 01b: asymmetric access is reported, and the target's own business (implicit).
const TPGS_IMPLICIT: u8 = 0x10;
/// MULTIP: there are several ports.
const MULTIP: u8 = 0x10;
/// CMDQUE.
const CMDQUE: u8 = 0x02;

/// INQUIRY.
pub(super) fn inquiry(request: &Request<'_>) -> Planned {
    let cdb = request.cdb;
    let data = match (cdb[1] & 0x01 != 0, cdb[2]) {
        (true, code) => vpd::page(request, code)?,
        (false, 0) => standard(request),
        (false, _) => return Err(Sense::cdb_field(2, 7)),
    };
    answer(data, u32::from(be16(cdb, 3)))
}

/// Standard data of a logical unit that does not exist.
pub(super) fn no_device(qualifier_and_type: u8) -> Vec<u8> {
    let mut data = vec![b' '; 36];
    data[..8].copy_from_slice(&[qualifier_and_type, 0x00, VERSION, FORMAT, 36 - 5, 0, 0, 0]);
    data
}

fn standard(request: &Request<'_>) -> Vec<u8> {
    let identity = request.unit.identity();
    let mut data = vec![0; STANDARD_BYTES];
    // RMB.
    data[1] = u8::from(request.unit.upkeep().options().removable) << 7;
    data[2] = VERSION;
    data[3] = FORMAT;
    data[4] = (STANDARD_BYTES - 5) as u8;
    // 3PC.
    data[5] = TPGS_IMPLICIT | u8::from(copy::is_offered(request.unit)) << 3;
    if request.nexus.target_ports().len() > 1 {
        data[6] = MULTIP;
    }
    data[7] = CMDQUE;
    data[8..16].copy_from_slice(&padded::<8>(&identity.vendor));
    data[16..32].copy_from_slice(&padded::<16>(&identity.product));
    data[32..36].copy_from_slice(&padded::<4>(&identity.revision));
    for (slot, descriptor) in data[58..].chunks_exact_mut(2).zip(VERSION_DESCRIPTORS) {
        slot.copy_from_slice(&descriptor.to_be_bytes());
    }
    data
}

/// Printable ASCII, cut to `max` bytes; the rest becomes `?`.
pub(super) fn ascii(text: &str, max: usize) -> Vec<u8> {
    text.bytes()
        .map(|b| if (0x20..0x7F).contains(&b) { b } else { b'?' })
        .take(max)
        .collect()
}

/// Left-aligned ASCII padded with spaces (SPC-5 4.3.1).
pub(super) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (slot, byte) in field.iter_mut().zip(ascii(text, N)) {
        *slot = byte;
    }
    field
}
