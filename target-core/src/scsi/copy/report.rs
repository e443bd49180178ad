//! What is told about copies: RECEIVE COPY RESULTS (SPC-4 6.24) and VPD page 8F (SPC-4 7.8.17).

use super::parse::{BLOCK_TO_BLOCK, IDENTIFICATION};
use super::{EXTENDED_COPY, MAX_DESCRIPTORS_BYTES, MAX_SEGMENTS, MAX_TARGETS, RECEIVE_COPY_RESULTS, is_offered};
use crate::scsi::request::{Planned, Request, answer, be32};
use crate::scsi::sense::Sense;
use crate::scsi::unit::LogicalUnit;

/// COPY STATUS.
pub(in crate::scsi) const COPY_STATUS: u8 = 0x00;
/// OPERATING PARAMETERS.
pub(in crate::scsi) const OPERATING_PARAMETERS: u8 = 0x03;
/// Copies at a time: as many as there are commands.
const MAX_CONCURRENT_COPIES: u8 = 0xFF;

/// COPY STATUS: of the copy of this nexus with this list identifier. It is over: the command answers when it is.
pub(in crate::scsi) fn copy_status(request: &Request<'_>) -> Planned {
    if !is_offered(request.unit) {
        return Err(Sense::INVALID_OPCODE);
    }
    let results = request.unit.upkeep().copies();
    let ended = results
        .find(request.path.nexus_id(), request.cdb[2])
        .ok_or(Sense::cdb_field(2, 7))?;
    let mut data = vec![0; 12];
    data[3] = 8;
    // COPY MANAGER STATUS: completed, without or with errors.
    data[4] = if ended.failed { 0x02 } else { 0x01 };
    data[5..7].copy_from_slice(&ended.segments.to_be_bytes());
    // TRANSFER COUNT in bytes, or in KiB where they do not fit.
    let (units, count) = match u32::try_from(ended.bytes) {
        Ok(bytes) => (0, bytes),
        Err(_) => (1, u32::try_from(ended.bytes >> 10).unwrap_or(u32::MAX)),
    };
    data[7] = units;
    data[8..12].copy_from_slice(&count.to_be_bytes());
    answer(data, be32(request.cdb, 10))
}

/// OPERATING PARAMETERS.
pub(in crate::scsi) fn operating_parameters(request: &Request<'_>) -> Planned {
    if !is_offered(request.unit) {
        return Err(Sense::INVALID_OPCODE);
    }
    let mut data = vec![0; 46];
    data[3] = 42;
    data[8..10].copy_from_slice(&(MAX_TARGETS as u16).to_be_bytes());
    data[10..12].copy_from_slice(&(MAX_SEGMENTS as u16).to_be_bytes());
    data[12..16].copy_from_slice(&(MAX_DESCRIPTORS_BYTES as u32).to_be_bytes());
    data[16..20].copy_from_slice(&max_segment_bytes(request.unit).to_be_bytes());
    // No inline data, none held, no streams.
    data[34..36].copy_from_slice(&u16::from(MAX_CONCURRENT_COPIES).to_be_bytes());
    data[36] = MAX_CONCURRENT_COPIES;
    data[37] = granularity(request.unit);
    data[43] = 2;
    data[44..46].copy_from_slice(&[BLOCK_TO_BLOCK, IDENTIFICATION]);
    answer(data, be32(request.cdb, 10))
}

/// What the field of a segment descriptor can say.
fn max_segment_bytes(unit: &LogicalUnit) -> u32 {
    u32::from(u16::MAX).saturating_mul(unit.properties().block_bytes)
}

/// A block, as a power of two.
fn granularity(unit: &LogicalUnit) -> u8 {
    unit.properties().block_bytes.ilog2() as u8
}

/// The body of VPD page 8F, after its length.
pub(in crate::scsi) fn third_party_copy(unit: &LogicalUnit) -> Vec<u8> {
    let mut body = Vec::new();
    let commands = [
        8,
        EXTENDED_COPY,
        1,
        0x00,
        RECEIVE_COPY_RESULTS,
        2,
        COPY_STATUS,
        OPERATING_PARAMETERS,
    ];
    // The length counts what the list has: two commands with three service actions.
    descriptor(&mut body, 0x0001, &[&[7], &commands[1..]].concat());
    // Parameter data.
    let mut parameters = vec![0; 28];
    parameters[4..6].copy_from_slice(&(MAX_TARGETS as u16).to_be_bytes());
    parameters[6..8].copy_from_slice(&(MAX_SEGMENTS as u16).to_be_bytes());
    parameters[8..12].copy_from_slice(&(MAX_DESCRIPTORS_BYTES as u32).to_be_bytes());
    descriptor(&mut body, 0x0004, &parameters);
    // Supported descriptors.
    descriptor(&mut body, 0x0008, &[2, BLOCK_TO_BLOCK, IDENTIFICATION]);
    // Supported CSCD descriptor identifiers: none but those of the list.
    descriptor(&mut body, 0x000C, &[0, 0]);
    // General copy operations.
    let mut general = vec![0; 32];
    general[..4].copy_from_slice(&u32::from(MAX_CONCURRENT_COPIES).to_be_bytes());
    general[4..8].copy_from_slice(&u32::from(MAX_CONCURRENT_COPIES).to_be_bytes());
    general[8..12].copy_from_slice(&max_segment_bytes(unit).to_be_bytes());
    general[12] = granularity(unit);
    descriptor(&mut body, 0x8001, &general);
    body
}

/// A third-party copy descriptor, padded to four bytes.
fn descriptor(body: &mut Vec<u8>, kind: u16, content: &[u8]) {
    let padded_bytes = content.len().next_multiple_of(4);
    body.extend_from_slice(&kind.to_be_bytes());
    body.extend_from_slice(&(padded_bytes as u16).to_be_bytes());
    body.extend_from_slice(content);
    body.resize(body.len() + padded_bytes - content.len(), 0);
}
