//! The parameter list of EXTENDED COPY (LID1) (SPC-4 6.4.3).

use crate::scsi::Identity;
use crate::scsi::request::{be16, be32, be64};
use crate::scsi::sense::Sense;
use crate::scsi::vpd;

use super::{MAX_DESCRIPTORS_BYTES, MAX_SEGMENTS, MAX_TARGETS};

/// Before the descriptors, in bytes.
pub(super) const HEADER_BYTES: usize = 16;
/// A CSCD descriptor.
pub(super) const TARGET_BYTES: usize = 32;
/// A segment descriptor from block device to block device.
pub(super) const SEGMENT_BYTES: usize = 28;
/// Identification descriptor (SPC-4 6.4.5.2).
pub(super) const IDENTIFICATION: u8 = 0xE4;
/// Copy from block device to block device (SPC-4 6.4.6.2).
pub(super) const BLOCK_TO_BLOCK: u8 = 0x02;

/// What a copy is to do.
#[derive(Debug)]
pub(super) struct List {
    pub(super) id: u8,
    /// LIST ID USAGE: RECEIVE COPY RESULTS may ask.
    pub(super) keeps_results: bool,
    /// `None` where the descriptor is void (NUL).
    pub(super) targets: Vec<Option<Target>>,
    pub(super) segments: Vec<Segment>,
}

/// A unit by one of its designators.
#[derive(Debug)]
pub(super) struct Target {
    kind: u8,
    designator: Vec<u8>,
    pub(super) block_bytes: u32,
}

impl Target {
    /// Whether it is this unit.
    pub(super) fn names(&self, identity: &Identity) -> bool {
        vpd::is_named(identity, self.kind, &self.designator)
    }
}

/// Blocks to copy.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) source: u16,
    pub(super) target: u16,
    pub(super) blocks: u64,
    /// DC: `blocks` are the target's.
    pub(super) counts_in_target: bool,
    pub(super) source_lba: u64,
    pub(super) target_lba: u64,
}

/// Reads the list. `data` has at least the header.
pub(super) fn list(data: &[u8]) -> Result<List, Sense> {
    let targets_bytes = usize::from(be16(data, 2));
    let segments_bytes = be32(data, 8) as usize;
    // INLINE DATA: none is taken.
    if be32(data, 12) != 0 {
        return Err(Sense::INLINE_DATA_LIMIT);
    }
    if targets_bytes.saturating_add(segments_bytes) > MAX_DESCRIPTORS_BYTES {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    let descriptors = &data[HEADER_BYTES.min(data.len())..];
    let targets = descriptors.get(..targets_bytes).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let segments = descriptors[targets_bytes..]
        .get(..segments_bytes)
        .ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let keeps_results = match data[1] >> 3 & 0x03 {
        0b00 | 0b10 => true,
        0b11 => false,
        _ => return Err(Sense::parameter_field(1, 4)),
    };
    if targets_bytes / TARGET_BYTES > MAX_TARGETS {
        return Err(Sense::TOO_MANY_TARGETS);
    }
    if !targets_bytes.is_multiple_of(TARGET_BYTES) {
        return Err(Sense::parameter_field(2, 7));
    }
    let targets = targets
        .chunks_exact(TARGET_BYTES)
        .zip((HEADER_BYTES as u16..).step_by(TARGET_BYTES));
    Ok(List {
        id: data[0],
        keeps_results,
        targets: targets.map(|(bytes, at)| target(bytes, at)).collect::<Result<_, _>>()?,
        segments: list_of_segments(segments, HEADER_BYTES + targets_bytes)?,
    })
}

fn target(bytes: &[u8], at: u16) -> Result<Option<Target>, Sense> {
    if bytes[0] != IDENTIFICATION {
        return Err(Sense::UNKNOWN_TARGET_DESCRIPTOR);
    }
    // LU ID TYPE is obsolete since SPC-5, and ignored. NUL.
    if bytes[1] & 0x20 != 0 {
        return Ok(None);
    }
    // PERIPHERAL DEVICE TYPE: a direct access block device.
    if bytes[1] & 0x1F != 0 {
        return Err(Sense::parameter_field(at + 1, 4));
    }
    // ASSOCIATION: the logical unit's.
    if bytes[5] & 0x30 != 0 {
        return Err(Sense::parameter_field(at + 5, 5));
    }
    let designator = bytes[8..28]
        .get(..usize::from(bytes[7]))
        .ok_or(Sense::parameter_field(at + 7, 7))?;
    Ok(Some(Target {
        kind: bytes[5] & 0x0F,
        designator: designator.to_vec(),
        // DISK BLOCK LENGTH, three bytes.
        block_bytes: be32(bytes, 28) & 0x00FF_FFFF,
    }))
}

fn list_of_segments(mut bytes: &[u8], mut at: usize) -> Result<Vec<Segment>, Sense> {
    let mut segments = Vec::new();
    while !bytes.is_empty() {
        if bytes[0] != BLOCK_TO_BLOCK {
            return Err(Sense::UNKNOWN_SEGMENT_DESCRIPTOR);
        }
        if segments.len() == MAX_SEGMENTS {
            return Err(Sense::TOO_MANY_SEGMENTS);
        }
        // DESCRIPTOR LENGTH counts what comes after it.
        if usize::from(be16(bytes, 2)) != SEGMENT_BYTES - 4 || bytes.len() < SEGMENT_BYTES {
            return Err(Sense::parameter_field(at as u16 + 2, 7));
        }
        segments.push(Segment {
            source: be16(bytes, 4),
            target: be16(bytes, 6),
            blocks: u64::from(be16(bytes, 10)),
            counts_in_target: bytes[1] & 0x02 != 0,
            source_lba: be64(bytes, 12),
            target_lba: be64(bytes, 20),
        });
        bytes = &bytes[SEGMENT_BYTES..];
        at += SEGMENT_BYTES;
    }
    Ok(segments)
}
