//! WRITE ATOMIC (16) (SBC-4 4.29, 5.44): all of it or nothing, whatever happens, and never half of it for others.

use super::block;
use super::execute::{Action, Job, Outcome};
use super::request::{Plan, Planned, Request, Span, be16, be64};
use super::sense::Sense;
use super::unit::LogicalUnit;
use crate::lun::{Durability, Medium};

/// Operation code of WRITE ATOMIC (16).
pub(super) const WRITE_ATOMIC: u8 = 0x9C;

/// Whether the medium makes it true.
pub(super) fn is_offered(unit: &LogicalUnit) -> bool {
    unit.properties().atomic.is_some()
}

/// WRITE ATOMIC (16).
pub(super) fn plan(request: &Request<'_>) -> Planned {
    let cdb = request.cdb;
    let Some(atomic) = request.unit.properties().atomic else {
        return Err(Sense::INVALID_OPCODE);
    };
    block::check_protect(cdb)?;
    request.check_writable()?;
    // ATOMIC BOUNDARY: MAXIMUM ATOMIC BOUNDARY SIZE is 0, so there are none.
    if be16(cdb, 10) != 0 {
        return Err(Sense::cdb_field(10, 7));
    }
    let span = request.span(be64(cdb, 2), u64::from(be16(cdb, 12)))?;
    if span.length_bytes > u64::from(atomic.max_bytes) {
        return Err(Sense::cdb_field(12, 7));
    }
    let unit_bytes = u64::from(atomic.unit_bytes);
    if !span.offset_bytes.is_multiple_of(unit_bytes) {
        return Err(Sense::cdb_field(2, 7));
    }
    if !span.length_bytes.is_multiple_of(unit_bytes) {
        return Err(Sense::cdb_field(12, 7));
    }
    Ok(Plan::Run(Action::WriteAtomic {
        span,
        durability: block::durability(cdb),
    }))
}

pub(super) fn write(job: &Job<'_>, span: Span, durability: Durability) -> Outcome {
    if job.data.len() as u64 != span.length_bytes {
        return Err(Sense::WRONG_DATA_LENGTH.into());
    }
    job.exclusively(span, || {
        job.write_blocks_by(Medium::write_atomic, span, job.data, durability)?;
        Ok(Vec::new())
    })
}
