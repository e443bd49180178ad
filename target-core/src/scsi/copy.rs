//! EXTENDED COPY (LID1) and RECEIVE COPY RESULTS (SPC-4 6.4, 6.24): copying blocks from unit to unit without sending
//! them, only between units that this very nexus reaches and may read and write. Off unless a unit's options say so.

mod parse;
pub(super) mod report;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::execute::{Action, Failure, Job, Outcome};
use super::path::Path;
use super::request::{Plan, Planned, Request, Span, be32};
use super::sense::Sense;
use super::table::Access;
use super::unit::LogicalUnit;
use crate::lun::{Durability, Wait};
use parse::{List, Segment};

/// Operation code of EXTENDED COPY.
pub(super) const EXTENDED_COPY: u8 = 0x83;
/// Operation code of RECEIVE COPY RESULTS.
pub(super) const RECEIVE_COPY_RESULTS: u8 = 0x84;

/// CSCD descriptors in one command.
pub(super) const MAX_TARGETS: usize = 16;
/// Segment descriptors in one command.
pub(super) const MAX_SEGMENTS: usize = 16;
/// Longest list of descriptors, in bytes.
pub(super) const MAX_DESCRIPTORS_BYTES: usize = MAX_TARGETS * parse::TARGET_BYTES + MAX_SEGMENTS * parse::SEGMENT_BYTES;
/// Copied at once, in bytes: a multiple of every block size.
const STEP_BYTES: u64 = 1 << 20;
/// Results kept for RECEIVE COPY RESULTS.
const MAX_RESULTS: usize = 32;

/// A unit that may be copied from or to, and from before which reset on it may not any more.
#[derive(Debug)]
pub(super) struct Place {
    path: Arc<Path>,
    generation: u64,
}

/// How a copy ended.
#[derive(Debug, Clone, Copy)]
struct Ended {
    nexus_id: u64,
    list_id: u8,
    failed: bool,
    segments: u16,
    bytes: u64,
}

/// What RECEIVE COPY RESULTS asks about, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Results(Mutex<VecDeque<Ended>>);

impl Results {
    fn keep(&self, ended: Ended) {
        let mut results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        results.retain(|other| (other.nexus_id, other.list_id) != (ended.nexus_id, ended.list_id));
        if results.len() >= MAX_RESULTS {
            results.pop_front();
        }
        results.push_back(ended);
    }

    fn find(&self, nexus_id: u64, list_id: u8) -> Option<Ended> {
        let results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        results
            .iter()
            .find(|ended| (ended.nexus_id, ended.list_id) == (nexus_id, list_id))
            .copied()
    }
}

/// Whether a unit offers it.
pub(super) fn is_offered(unit: &LogicalUnit) -> bool {
    unit.upkeep().options().copy_offload
}

/// EXTENDED COPY (LID1).
pub(super) fn plan(request: &Request<'_>) -> Planned {
    if !is_offered(request.unit) {
        return Err(Sense::INVALID_OPCODE);
    }
    let list_bytes = be32(request.cdb, 10);
    if list_bytes == 0 {
        return Ok(Plan::Answer(Vec::new()));
    }
    let fits = (parse::HEADER_BYTES..=parse::HEADER_BYTES + MAX_DESCRIPTORS_BYTES).contains(&(list_bytes as usize));
    if !fits {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    let places = request
        .nexus
        .paths()
        .iter()
        .filter(|path| is_offered(path.unit()))
        .filter_map(|path| {
            Some(Place {
                generation: path.generations().current()?,
                path: Arc::clone(path),
            })
        })
        .collect();
    Ok(Plan::Run(Action::Copy { list_bytes, places }))
}

pub(super) fn run(job: &Job<'_>, list_bytes: u32, places: &[Place]) -> Outcome {
    let data = job
        .data
        .get(..list_bytes as usize)
        .ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let list = parse::list(data)?;
    if job.wait == Wait::Never {
        return Err(Failure::WouldBlock);
    }
    let mut ended = Ended {
        nexus_id: job.path.nexus_id(),
        list_id: list.id,
        failed: false,
        segments: 0,
        bytes: 0,
    };
    let result = list.segments.iter().try_for_each(|segment| {
        copy(job, &list, segment, places, &mut ended.bytes)?;
        ended.segments += 1;
        Ok(())
    });
    ended.failed = result.is_err();
    if list.keeps_results {
        job.path.unit().upkeep().copies().keep(ended);
    }
    result.map(|()| Vec::new())
}

/// One segment: blocks of one unit to another, or to the same.
fn copy(
    job: &Job<'_>,
    list: &List,
    segment: &Segment,
    places: &[Place],
    copied_bytes: &mut u64,
) -> Result<(), Failure> {
    let source = find(list, segment.source, places)?;
    let target = find(list, segment.target, places)?;
    check_access(source, Access::Read)?;
    check_access(target, Access::Write)?;
    let counted = if segment.counts_in_target { target } else { source };
    let length_bytes = segment.blocks * block_bytes(counted);
    let from = span(source, segment.source_lba, length_bytes)?;
    let to = span(target, segment.target_lba, length_bytes)?;
    let steps = length_bytes.div_ceil(STEP_BYTES);
    // Within one unit a copy upwards begins at the end, so that what is still to be copied is not overwritten.
    let backwards =
        Arc::ptr_eq(source.path.unit_shared(), target.path.unit_shared()) && from.offset_bytes < to.offset_bytes;
    for step in 0..steps {
        job.check_cancelled()?;
        let step = if backwards { steps - 1 - step } else { step };
        let at_bytes = step * STEP_BYTES;
        let piece = |of: Span| Span {
            offset_bytes: of.offset_bytes + at_bytes,
            length_bytes: (length_bytes - at_bytes).min(STEP_BYTES),
        };
        let data = at(job, source, Access::Read, piece(from), |job, piece| {
            job.read(piece, false)
        })?;
        at(job, target, Access::Write, piece(to), |job, piece| {
            job.write_beside_others(piece, &data, Durability::Cached)
        })?;
        *copied_bytes += data.len() as u64;
    }
    Ok(())
}

/// Whoever may not see, read or write a unit otherwise may not do so by copying.
fn check_access(place: &Place, access: Access) -> Result<(), Sense> {
    let (path, unit) = (&place.path, place.path.unit());
    let is_writable = access != Access::Write || path.check_writable().is_ok();
    // Its medium may be out, or being sanitized.
    if unit.allow(path, path.admit(), access) && is_writable && unit.upkeep().present_sense().is_none() {
        Ok(())
    } else {
        Err(Sense::COPY_TARGET_NOT_REACHABLE)
    }
}

/// Does a piece of work at another unit, unless that was reset, taken away, cut short, reserved or write protected
/// since the copy began: to whoever changes the unit each piece is a command of its own. What goes wrong there has the
/// copy aborted.
fn at<T>(
    job: &Job<'_>,
    place: &Place,
    access: Access,
    piece: Span,
    work: impl FnOnce(&Job<'_>, Span) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let Some(_running) = place.path.generations().enter(place.generation) else {
        return Err(Sense::COPY_TARGET_NOT_REACHABLE.into());
    };
    check_access(place, access)?;
    if piece.bytes().end > place.path.unit().size_bytes() {
        return Err(Sense::COPY_ABORTED.into());
    }
    let there = job.at(&place.path, place.generation);
    work(&there, piece).map_err(|failure| match failure {
        Failure::Sense(_) => Sense::COPY_ABORTED.into(),
        other => other,
    })
}

fn find<'p>(list: &List, index: u16, places: &'p [Place]) -> Result<&'p Place, Sense> {
    let target = list
        .targets
        .get(usize::from(index))
        .ok_or(Sense::UNREACHABLE_COPY_TARGET)?;
    let wanted = target.as_ref().ok_or(Sense::COPY_TARGET_NOT_REACHABLE)?;
    let place = places
        .iter()
        .find(|place| wanted.names(place.path.unit().identity()))
        .ok_or(Sense::UNREACHABLE_COPY_TARGET)?;
    if u64::from(wanted.block_bytes) != block_bytes(place) {
        return Err(Sense::COPY_ABORTED);
    }
    Ok(place)
}

fn block_bytes(place: &Place) -> u64 {
    u64::from(place.path.unit().properties().block_bytes)
}

/// A run of whole blocks inside the unit.
fn span(place: &Place, lba: u64, length_bytes: u64) -> Result<Span, Sense> {
    let block_bytes = block_bytes(place);
    let blocks = length_bytes / block_bytes;
    let inside = lba
        .checked_add(blocks)
        .is_some_and(|end| end <= place.path.unit().blocks());
    if !length_bytes.is_multiple_of(block_bytes) || !inside {
        return Err(Sense::COPY_ABORTED);
    }
    Ok(Span {
        offset_bytes: lba * block_bytes,
        length_bytes,
    })
}
