//! Commands that look at what is on the medium: VERIFY, WRITE AND VERIFY, COMPARE AND WRITE, ORWRITE, PRE-FETCH.

use std::sync::PoisonError;

use super::block::{self, Range};
use super::execute::{Action, Failure, Job, Outcome};
use super::request::{Plan, Planned, Request, Span, be64};
use super::sense::Sense;
use crate::lun::{Durability, Wait};

/// COMPARE AND WRITE names another number of blocks than the initiator sends, 256 for instance, which is 0 in
/// its one byte: INVALID FIELD IN CDB.
pub(super) const WRONG_BLOCK_COUNT: Sense = Sense::cdb_field(13, 7);

/// What VERIFY checks (SBC-4 table 123, BYTCHK).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// 00b: the blocks can be read.
    Readable,
    /// 01b: they equal the data sent, block for block.
    Equal,
    /// 11b: each of them equals the one block sent.
    EqualToOneBlock,
}

fn check(cdb: &[u8]) -> Result<Check, Sense> {
    match cdb[1] >> 1 & 0x03 {
        0b00 => Ok(Check::Readable),
        0b01 => Ok(Check::Equal),
        0b11 => Ok(Check::EqualToOneBlock),
        _ => Err(Sense::cdb_field(1, 2)),
    }
}

/// VERIFY (10), (12), (16).
pub(super) fn plan_verify(request: &Request<'_>) -> Planned {
    block::check_protect(request.cdb)?;
    let check = check(request.cdb)?;
    Ok(Plan::Run(Action::Verify {
        span: span(request, block::range(request.cdb))?,
        check,
    }))
}

/// WRITE AND VERIFY (10), (12), (16).
pub(super) fn plan_write_and_verify(request: &Request<'_>) -> Planned {
    block::check_protect(request.cdb)?;
    request.check_writable()?;
    let compare = match check(request.cdb)? {
        Check::Readable => false,
        Check::Equal => true,
        Check::EqualToOneBlock => return Err(Sense::cdb_field(1, 2)),
    };
    Ok(Plan::Run(Action::WriteAndVerify {
        span: span(request, block::range(request.cdb))?,
        compare,
    }))
}

/// COMPARE AND WRITE (SBC-4 5.3). Its block count is a single byte, so no command is too long.
pub(super) fn plan_compare_and_write(request: &Request<'_>) -> Planned {
    block::check_protect(request.cdb)?;
    request.check_writable()?;
    let range = Range {
        lba: be64(request.cdb, 2),
        blocks: u64::from(request.cdb[13]),
        length_field: 13,
    };
    let durability = block::durability(request.cdb);
    Ok(Plan::Run(Action::CompareAndWrite {
        span: span(request, range)?,
        durability,
    }))
}

/// ORWRITE (16).
pub(super) fn plan_or_write(request: &Request<'_>) -> Planned {
    block::check_protect(request.cdb)?;
    request.check_writable()?;
    let durability = block::durability(request.cdb);
    Ok(Plan::Run(Action::OrWrite {
        span: span(request, block::range(request.cdb))?,
        durability,
    }))
}

/// PRE-FETCH (10), (16): a hint we do not act upon. GOOD says that not all blocks are in the cache
/// (SBC-4 5.10), which is true.
pub(super) fn prefetch(request: &Request<'_>) -> Planned {
    let range = block::range(request.cdb);
    request.span(range.lba, range.blocks)?;
    Ok(Plan::Answer(Vec::new()))
}

fn span(request: &Request<'_>, range: Range) -> Result<Span, Sense> {
    request.transfer(range.lba, range.blocks, range.length_field)
}

pub(super) fn verify(job: &Job<'_>, span: Span, check: Check) -> Outcome {
    // Comparing with less than was asked for compares what there is.
    let span = match check {
        Check::Equal => Span {
            length_bytes: span.length_bytes.min(job.data.len() as u64),
            ..span
        },
        _ => span,
    };
    // A verification of cached blocks writes them to the medium first (SBC-4 5.32).
    let stored = job.read(span, true)?;
    let mismatch = match check {
        Check::Readable => None,
        Check::Equal => first_difference(&stored, job.data),
        Check::EqualToOneBlock => {
            if job.data.len() as u64 != job.block_bytes {
                return Err(Sense::WRONG_DATA_LENGTH.into());
            }
            stored.chunks_exact(job.data.len()).position(|block| block != job.data)
        }
    };
    miscompare(mismatch)
}

pub(super) fn write_and_verify(job: &Job<'_>, span: Span, compare: bool) -> Outcome {
    let whole_bytes = job.data.len() as u64 / job.block_bytes * job.block_bytes;
    job.write_blocks(span, job.data, Durability::Stable)?;
    let stored = job.read(
        Span {
            length_bytes: whole_bytes,
            ..span
        },
        false,
    )?;
    miscompare(if compare {
        first_difference(&stored, job.data)
    } else {
        None
    })
}

/// Compares the first half of the data with the medium and, if equal, writes the second half. Other commands
/// of this kind wait; that plain writes do too is not promised.
pub(super) fn compare_and_write(job: &Job<'_>, span: Span, durability: Durability) -> Outcome {
    if job.data.len() as u64 != 2 * span.length_bytes {
        return Err(WRONG_BLOCK_COUNT.into());
    }
    exclusively(job, || {
        let (expected, new) = job.data.split_at(span.length_bytes as usize);
        let stored = job.read(span, false)?;
        miscompare(first_difference(&stored, expected))?;
        job.write_blocks(span, new, durability)?;
        Ok(Vec::new())
    })
}

pub(super) fn or_write(job: &Job<'_>, span: Span, durability: Durability) -> Outcome {
    let whole_bytes = job.data.len() as u64 / job.block_bytes * job.block_bytes;
    let span = Span {
        length_bytes: span.length_bytes.min(whole_bytes),
        ..span
    };
    exclusively(job, || {
        let mut merged = job.read(span, false)?;
        for (byte, new) in merged.iter_mut().zip(job.data) {
            *byte |= new;
        }
        job.write_blocks(span, &merged, durability)?;
        Ok(Vec::new())
    })
}

/// Runs a read-modify-write while no other one runs on this unit.
fn exclusively(job: &Job<'_>, work: impl FnOnce() -> Outcome) -> Outcome {
    let unit = job.path.unit();
    let _guard = match job.wait {
        Wait::Allowed => unit.exclusive.lock().unwrap_or_else(PoisonError::into_inner),
        // The other may be waiting for the medium, and this thread must not.
        Wait::Never => unit.exclusive.try_lock().map_err(|_| Failure::WouldBlock)?,
    };
    work()
}

fn first_difference(stored: &[u8], expected: &[u8]) -> Option<usize> {
    if stored == expected.get(..stored.len()).unwrap_or(expected) {
        return None;
    }
    stored.iter().zip(expected).position(|(a, b)| a != b)
}

/// MISCOMPARE with the offset of the first byte that differs (SBC-4 5.3).
fn miscompare(offset: Option<usize>) -> Outcome {
    match offset {
        Some(offset) => Err(Sense::MISCOMPARE.with_information(offset as u64).into()),
        None => Ok(Vec::new()),
    }
}
