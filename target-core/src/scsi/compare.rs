//! Commands that look at what is on the medium: VERIFY, WRITE AND VERIFY, COMPARE AND WRITE, ORWRITE, PRE-FETCH.

use super::block::{self, Range};
use super::execute::{Action, Failure, Job, Outcome};
use super::request::{Plan, Planned, Request, Span, be64};
use super::sense::Sense;
use crate::lun::{Durability, Wait};

/// COMPARE AND WRITE names another number of blocks than the initiator sends, 256 for instance, which is 0 in
/// its one byte: INVALID FIELD IN CDB.
pub(super) const WRONG_BLOCK_COUNT: Sense = Sense::cdb_field(13, 7);

/// Blocks to be looked at are read in pieces of this many bytes, a multiple of every block size: no budget
/// counts them.
const STEP_BYTES: u64 = 1 << 20;

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
    if check == Check::EqualToOneBlock && job.data.len() as u64 != job.block_bytes {
        return Err(Sense::WRONG_DATA_LENGTH.into());
    }
    // A verification of cached blocks writes them to the medium first (SBC-4 5.32).
    refuse_long(job, span)?;
    job.flush()?;
    read_and_check(job, span, check)
}

pub(super) fn write_and_verify(job: &Job<'_>, span: Span, compare: bool) -> Outcome {
    let whole_bytes = job.data.len() as u64 / job.block_bytes * job.block_bytes;
    refuse_long(job, span)?;
    job.write_beside_others(span, job.data, Durability::Stable)?;
    let written = Span {
        length_bytes: span.length_bytes.min(whole_bytes),
        ..span
    };
    read_and_check(job, written, if compare { Check::Equal } else { Check::Readable })
}

fn read_and_check(job: &Job<'_>, span: Span, check: Check) -> Outcome {
    for (at, step) in steps(span) {
        job.check_cancelled()?;
        let stored = job.read(step, false)?;
        let mismatch = match check {
            Check::Readable => None,
            Check::Equal => first_difference(&stored, &job.data[at..]),
            Check::EqualToOneBlock => stored
                .chunks(job.data.len())
                .zip((0..).step_by(job.data.len()))
                .find_map(|(block, before)| Some(before + first_difference(block, job.data)?)),
        };
        miscompare(mismatch.map(|offset| at + offset))?;
    }
    Ok(Vec::new())
}

/// Compares the first half of the data with the medium and, if equal, writes the second half. No other command
/// changes the medium between the two (SBC-4 5.3).
pub(super) fn compare_and_write(job: &Job<'_>, span: Span, durability: Durability) -> Outcome {
    if job.data.len() as u64 != 2 * span.length_bytes {
        return Err(WRONG_BLOCK_COUNT.into());
    }
    job.exclusively(span, || {
        let (expected, new) = job.data.split_at(span.length_bytes as usize);
        let stored = job.read_blocks(span)?;
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
    job.exclusively(span, || {
        for (at, step) in steps(span) {
            job.check_cancelled()?;
            let mut merged = job.read_blocks(step)?;
            for (byte, new) in merged.iter_mut().zip(&job.data[at..]) {
                *byte |= new;
            }
            job.write_blocks(step, &merged, durability)?;
        }
        Ok(Vec::new())
    })
}

/// What takes more than a step is for a worker.
fn refuse_long(job: &Job<'_>, span: Span) -> Result<(), Failure> {
    if job.wait == Wait::Never && span.length_bytes > STEP_BYTES {
        return Err(Failure::WouldBlock);
    }
    Ok(())
}

/// A span in pieces short enough to be kept in memory, each with its distance from the start in bytes.
fn steps(span: Span) -> impl Iterator<Item = (usize, Span)> {
    (0..span.length_bytes).step_by(STEP_BYTES as usize).map(move |at| {
        let step = Span {
            offset_bytes: span.offset_bytes + at,
            length_bytes: (span.length_bytes - at).min(STEP_BYTES),
        };
        (at as usize, step)
    })
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
