//! UNMAP, WRITE SAME and GET LBA STATUS: giving space back and asking where there is some (SBC-4 4.7).

use super::block;
use super::execute::{Action, Failure, Job, Outcome};
use super::limits::{self, MAX_UNMAP_DESCRIPTORS};
use super::request::{Plan, Planned, Request, Span, be16, be32, be64};
use super::sense::Sense;
use crate::lun::{Durability, Wait};

/// Most that GET LBA STATUS answers, in bytes: header and descriptors.
pub(super) const MAX_LBA_STATUS_BYTES: usize = LBA_STATUS_HEADER_BYTES + 256 * DESCRIPTOR_BYTES;

/// Operation code of WRITE SAME (10).
const WRITE_SAME_10: u8 = 0x41;
const UNMAP_HEADER_BYTES: usize = 8;
const LBA_STATUS_HEADER_BYTES: usize = 8;
/// Length of a block descriptor, of UNMAP and of GET LBA STATUS alike.
const DESCRIPTOR_BYTES: usize = 16;
/// A range is deallocated or zeroed in pieces that end at multiples of this, in bytes: others who want to write are
/// let in between two of them.
const RANGE_STEP_BYTES: u64 = 4 << 30;
/// A repeated pattern is written in pieces of this many bytes, a multiple of every block size.
const PATTERN_STEP_BYTES: u64 = 1 << 20;

/// What WRITE SAME writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    /// NDOB: there is no data-out buffer.
    Zeroes,
    /// One block.
    FromInitiator,
}

/// UNMAP (SBC-4 5.31).
pub(super) fn plan_unmap(request: &Request<'_>) -> Planned {
    if !limits::offers_unmap(request.unit) {
        return Err(Sense::INVALID_OPCODE);
    }
    // ANCHOR: anchored blocks are not reported as supported.
    if request.cdb[1] & 0x01 != 0 {
        return Err(Sense::cdb_field(1, 0));
    }
    request.check_writable()?;
    match be16(request.cdb, 7) {
        0 => Ok(Plan::Answer(Vec::new())),
        list_bytes if usize::from(list_bytes) < UNMAP_HEADER_BYTES => Err(Sense::PARAMETER_LIST_LENGTH),
        list_bytes => Ok(Plan::Run(Action::Unmap { list_bytes })),
    }
}

/// WRITE SAME (10), (16) (SBC-4 5.43).
pub(super) fn plan_write_same(request: &Request<'_>) -> Planned {
    let cdb = request.cdb;
    block::check_protect(cdb)?;
    request.check_writable()?;
    let may_unmap = cdb[1] & 0x08 != 0;
    if cdb[1] & 0x10 != 0 {
        return Err(Sense::cdb_field(1, 4));
    }
    let unmaps = match cdb[0] {
        WRITE_SAME_10 => limits::unmaps_by_write_same_10(request.unit),
        _ => request.unit.properties().provisioning.is_some(),
    };
    if may_unmap && !unmaps {
        return Err(Sense::cdb_field(1, 3));
    }
    let pattern = if cdb[0] == 0x93 && cdb[1] & 0x01 != 0 {
        Pattern::Zeroes
    } else {
        Pattern::FromInitiator
    };
    let range = block::range(cdb);
    let mut span = request.span(range.lba, range.blocks)?;
    // No number means up to the end: we report WSNZ=0.
    if range.blocks == 0 {
        span = request.span(range.lba, request.unit.blocks().saturating_sub(range.lba))?;
    }
    let max_blocks = limits::max_write_same_blocks(request.unit);
    if span.length_bytes / u64::from(request.unit.properties().block_bytes) > max_blocks {
        return Err(Sense::cdb_field(range.length_field, 7));
    }
    Ok(Plan::Run(Action::WriteSame {
        span,
        pattern,
        may_unmap,
    }))
}

/// GET LBA STATUS (16) (SBC-4 5.7).
pub(super) fn plan_lba_status(request: &Request<'_>) -> Planned {
    let lba = be64(request.cdb, 2);
    request.span(lba, 0)?;
    let span = request.span(lba, request.unit.blocks().saturating_sub(lba))?;
    Ok(Plan::Run(Action::LbaStatus {
        span,
        allocation_bytes: be32(request.cdb, 10),
    }))
}

pub(super) fn unmap(job: &Job<'_>) -> Outcome {
    let spans = unmap_list(job)?;
    let mut pieces = spans.into_iter().flat_map(pieces).peekable();
    let first = pieces.next();
    if job.wait == Wait::Never && pieces.peek().is_some() {
        return Err(Failure::WouldBlock);
    }
    for piece in first.into_iter().chain(pieces) {
        job.check_cancelled()?;
        let _beside = job.beside_others(piece)?;
        job.medium
            .unmap(piece.offset_bytes, piece.length_bytes, job.wait, job.cancel)
            .map_err(|e| job.failure(e, Sense::WRITE_ERROR, "unmap"))?;
    }
    // What reads as zeroes now is to do so after the power was gone, as if it had been written.
    if job.path.unit().modes().is_cache_off() {
        job.flush()?;
    }
    Ok(Vec::new())
}

/// Cuts a span where its offset is a multiple of the step, so that no unit of allocation is cut in two.
fn pieces(span: Span) -> impl Iterator<Item = Span> {
    let end_bytes = span.offset_bytes + span.length_bytes;
    let mut at_bytes = span.offset_bytes;
    std::iter::from_fn(move || {
        let next_bytes = (at_bytes / RANGE_STEP_BYTES + 1) * RANGE_STEP_BYTES;
        let piece = Span {
            offset_bytes: at_bytes,
            length_bytes: next_bytes
                .min(end_bytes)
                .checked_sub(at_bytes)
                .filter(|&length| length > 0)?,
        };
        at_bytes += piece.length_bytes;
        Some(piece)
    })
}

/// The block descriptors, all of them checked before the first is acted upon.
fn unmap_list(job: &Job<'_>) -> Result<Vec<Span>, Sense> {
    let descriptor_bytes = usize::from(be16(job.data, 2));
    let list = job
        .data
        .get(UNMAP_HEADER_BYTES..)
        .and_then(|rest| rest.get(..descriptor_bytes))
        .ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    if descriptor_bytes / DESCRIPTOR_BYTES > MAX_UNMAP_DESCRIPTORS as usize {
        return Err(Sense::parameter_field(2, 7));
    }
    let capacity = job.path.unit().blocks();
    let mut spans = Vec::with_capacity(list.len() / DESCRIPTOR_BYTES);
    // A descriptor that is cut short is ignored (SBC-4 5.31.2).
    for descriptor in list.chunks_exact(DESCRIPTOR_BYTES) {
        let (lba, blocks) = (be64(descriptor, 0), u64::from(be32(descriptor, 8)));
        if lba.checked_add(blocks).is_none_or(|end| end > capacity) {
            return Err(Sense::LBA_OUT_OF_RANGE.with_information(lba.max(capacity)));
        }
        if blocks > 0 {
            spans.push(Span {
                offset_bytes: lba * job.block_bytes,
                length_bytes: blocks * job.block_bytes,
            });
        }
    }
    Ok(spans)
}

pub(super) fn write_same(job: &Job<'_>, span: Span, pattern: Pattern, may_unmap: bool) -> Outcome {
    if pattern == Pattern::FromInitiator && job.data.len() as u64 != job.block_bytes {
        return Err(Sense::WRONG_DATA_LENGTH.into());
    }
    if job.data.iter().all(|&byte| byte == 0) {
        // No data at all (NDOB) is zeroes as well.
        return zero(job, span, may_unmap);
    }
    let piece = job
        .data
        .repeat((span.length_bytes.min(PATTERN_STEP_BYTES) / job.block_bytes) as usize);
    if job.wait == Wait::Never && span.length_bytes > piece.len() as u64 {
        return Err(Failure::WouldBlock);
    }
    let mut done_bytes = 0;
    while done_bytes < span.length_bytes {
        job.check_cancelled()?;
        let length_bytes = (span.length_bytes - done_bytes).min(piece.len() as u64);
        let step = Span {
            offset_bytes: span.offset_bytes + done_bytes,
            length_bytes,
        };
        job.write_beside_others(step, &piece[..length_bytes as usize], Durability::Cached)?;
        done_bytes += length_bytes;
    }
    Ok(Vec::new())
}

fn zero(job: &Job<'_>, span: Span, may_unmap: bool) -> Outcome {
    if job.wait == Wait::Never && pieces(span).nth(1).is_some() {
        return Err(Failure::WouldBlock);
    }
    let modes = job.path.unit().modes();
    for piece in pieces(span) {
        job.check_cancelled()?;
        let _beside = job.beside_others(piece)?;
        let durability = modes.durability(Durability::Cached);
        job.medium
            .write_zeroes(
                piece.offset_bytes,
                piece.length_bytes,
                may_unmap,
                durability,
                job.wait,
                job.cancel,
            )
            .map_err(|e| job.failure(e, Sense::WRITE_ERROR, "write zeroes"))?;
        // As with a write: see `write_blocks`.
        if durability == Durability::Cached && modes.is_cache_off() {
            job.flush()?;
        }
    }
    Ok(Vec::new())
}

pub(super) fn lba_status(job: &Job<'_>, span: Span, allocation_bytes: u32) -> Outcome {
    let room_bytes = (allocation_bytes as usize).min(MAX_LBA_STATUS_BYTES);
    let mut data = vec![0; LBA_STATUS_HEADER_BYTES];
    let end_bytes = span.offset_bytes + span.length_bytes;
    let mut at_bytes = span.offset_bytes;
    let mut runs: Vec<(Span, bool)> = Vec::new();
    // One run at least, so that the header tells of more than the initiator asked for.
    while at_bytes < end_bytes && (runs.is_empty() || data.len() + (runs.len() + 1) * DESCRIPTOR_BYTES <= room_bytes) {
        job.check_cancelled()?;
        let extent = job
            .medium
            .allocation(at_bytes, job.wait)
            .map_err(|e| job.failure(e, Sense::READ_ERROR, "look for holes"))?;
        // A descriptor counts blocks in 32 bits.
        let length_bytes = extent
            .length_bytes
            .clamp(job.block_bytes, u64::from(u32::MAX) * job.block_bytes)
            .min(end_bytes - at_bytes);
        runs.push((
            Span {
                offset_bytes: at_bytes,
                length_bytes,
            },
            extent.mapped,
        ));
        at_bytes += length_bytes;
    }
    for (run, mapped) in runs {
        data.extend_from_slice(&(run.offset_bytes / job.block_bytes).to_be_bytes());
        data.extend_from_slice(&((run.length_bytes / job.block_bytes) as u32).to_be_bytes());
        // PROVISIONING STATUS: 0 mapped, 1 deallocated.
        data.extend_from_slice(&[u8::from(!mapped), 0, 0, 0]);
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    data.truncate(allocation_bytes as usize);
    Ok(data)
}
