//! INQUIRY: standard data and vital product data (SPC-5 6.6, 7.7; SBC-4 6.6).

use super::Identity;
use super::provision::{MAX_UNMAP_DESCRIPTORS, MAX_WRITE_SAME_BYTES};
use super::request::{MAX_TRANSFER_BYTES, Planned, Request, answer, be16};
use super::sense::Sense;
use super::unit::LogicalUnit;

/// VERSION: SPC-4, the newest that initiators of today know.
const VERSION: u8 = 0x06;
/// OPTIMAL TRANSFER LENGTH in bytes: longer ones gain nothing and delay what waits behind them.
const OPTIMAL_TRANSFER_BYTES: u64 = 1 << 20;
/// Length of the standard data in bytes, up to the version descriptors and what is reserved after them.
const STANDARD_BYTES: usize = 96;
/// Version descriptors (SPC-5 table 148): SAM-5, SPC-4, SBC-3, iSCSI, none claiming a revision.
const VERSION_DESCRIPTORS: [u16; 4] = [0x00A0, 0x0460, 0x04C0, 0x0960];

/// INQUIRY.
pub(super) fn inquiry(request: &Request<'_>) -> Planned {
    let cdb = request.cdb;
    let allocation_bytes = u32::from(be16(cdb, 3));
    if cdb[1] & 0x01 == 0 {
        if cdb[2] != 0 {
            return Err(Sense::cdb_field(2, 7));
        }
        return answer(standard(request.unit.identity()), allocation_bytes);
    }
    let body = match cdb[2] {
        0x00 => vec![0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2],
        0x80 => ascii(&request.unit.identity().serial, 36),
        0x83 => designators(request.unit.identity()),
        0xB0 => block_limits(request.unit),
        0xB1 => block_characteristics(),
        0xB2 => provisioning(request.unit),
        _ => return Err(Sense::cdb_field(2, 7)),
    };
    let mut page = vec![0x00, cdb[2]];
    page.extend_from_slice(&(body.len() as u16).to_be_bytes());
    page.extend_from_slice(&body);
    answer(page, allocation_bytes)
}

/// Standard data of a logical unit that does not exist.
pub(super) fn no_device(qualifier_and_type: u8) -> Vec<u8> {
    let mut data = vec![b' '; 36];
    data[..8].copy_from_slice(&[qualifier_and_type, 0x00, VERSION, 0x12, 36 - 5, 0, 0, 0]);
    data
}

fn standard(identity: &Identity) -> Vec<u8> {
    let mut data = vec![0; STANDARD_BYTES];
    data[2] = VERSION;
    // HISUP, response data format 2.
    data[3] = 0x12;
    data[4] = (STANDARD_BYTES - 5) as u8;
    // CMDQUE.
    data[7] = 0x02;
    data[8..16].copy_from_slice(&padded::<8>(&identity.vendor));
    data[16..32].copy_from_slice(&padded::<16>(&identity.product));
    data[32..36].copy_from_slice(&padded::<4>(&identity.revision));
    for (slot, descriptor) in data[58..].chunks_exact_mut(2).zip(VERSION_DESCRIPTORS) {
        slot.copy_from_slice(&descriptor.to_be_bytes());
    }
    data
}

/// Block limits (SBC-4 6.6.4).
fn block_limits(unit: &LogicalUnit) -> Vec<u8> {
    let properties = unit.properties();
    let blocks = |bytes: u64| {
        u32::try_from(bytes / u64::from(properties.block_bytes))
            .unwrap_or(u32::MAX)
            .to_be_bytes()
    };
    let mut body = vec![0; 60];
    body[2..4].copy_from_slice(&((properties.physical_block_bytes / properties.block_bytes) as u16).to_be_bytes());
    // MAXIMUM COMPARE AND WRITE LENGTH: all that the CDB can say.
    body[1] = 0xFF;
    body[4..8].copy_from_slice(&blocks(MAX_TRANSFER_BYTES));
    body[8..12].copy_from_slice(&blocks(OPTIMAL_TRANSFER_BYTES));
    if let Some(provisioning) = properties.provisioning {
        // MAXIMUM UNMAP LBA COUNT: no limit but that of the field.
        body[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        body[20..24].copy_from_slice(&MAX_UNMAP_DESCRIPTORS.to_be_bytes());
        body[24..28].copy_from_slice(&blocks(u64::from(provisioning.granularity_bytes)));
        // UGAVALID; units are aligned to LBA 0.
        body[28] = 0x80;
    }
    body[32..40].copy_from_slice(&(MAX_WRITE_SAME_BYTES / u64::from(properties.block_bytes)).to_be_bytes());
    body
}

/// Block device characteristics (SBC-4 6.6.2): a medium that does not rotate.
fn block_characteristics() -> Vec<u8> {
    let mut body = vec![0; 60];
    body[1] = 0x01;
    body
}

/// Logical block provisioning (SBC-4 6.6.6).
fn provisioning(unit: &LogicalUnit) -> Vec<u8> {
    match unit.properties().provisioning {
        // LBPU, LBPWS, LBPWS10, LBPRZ; thin provisioned.
        Some(thin) => vec![0, 0xE0 | if thin.reads_zeroes { 0x04 } else { 0 }, 0x02, 0],
        None => vec![0; 4],
    }
}

/// Device identification (SPC-5 7.7.6): an NAA locally assigned designator and a T10 vendor ID designator,
/// both of the logical unit.
fn designators(identity: &Identity) -> Vec<u8> {
    let mut body = vec![0x01, 0x03, 0x00, 8];
    body.extend_from_slice(&naa_locally_assigned(&identity.serial));
    let mut t10 = padded::<8>(&identity.vendor).to_vec();
    t10.extend_from_slice(&padded::<16>(&identity.product));
    t10.extend_from_slice(&ascii(&identity.serial, 36));
    body.extend_from_slice(&[0x02, 0x01, 0x00, t10.len() as u8]);
    body.extend_from_slice(&t10);
    body
}

/// NAA 3h (SPC-5 7.7.6.6.3): 60 bits that nobody hands out, here a hash of the serial number (FNV-1a, then
/// mixed). It names disks on the initiators, so it must never change.
fn naa_locally_assigned(serial: &str) -> [u8; 8] {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for &byte in serial.as_bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^= hash >> 31;
    (hash >> 4 | 0x3 << 60).to_be_bytes()
}

/// Printable ASCII, cut to `max` bytes; the rest becomes `?`.
fn ascii(text: &str, max: usize) -> Vec<u8> {
    text.bytes()
        .map(|b| if (0x20..0x7F).contains(&b) { b } else { b'?' })
        .take(max)
        .collect()
}

/// Left-aligned ASCII padded with spaces (SPC-5 4.3.1).
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (slot, byte) in field.iter_mut().zip(ascii(text, N)) {
        *slot = byte;
    }
    field
}
