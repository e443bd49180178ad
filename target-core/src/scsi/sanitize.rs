//! SANITIZE (SBC-4 4.11, 5.30): overwriting or deallocating everything, in the background, whatever becomes of the
//! session that asked for it.
//!
//! CRYPTO ERASE is not offered: there is no key that could be thrown away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::execute::{Action, Failure, Job, Outcome};
use super::ranges::Denied;
use super::request::{Plan, Planned, Request, be16};
use super::sense::Sense;
use super::unit::LogicalUnit;
use super::upkeep::{EJECTED, SANITIZE_FAILED, SANITIZING};
use crate::lun::{Durability, MediumError, Wait};

/// OVERWRITE.
pub(super) const OVERWRITE: u8 = 0x01;
/// BLOCK ERASE.
pub(super) const BLOCK_ERASE: u8 = 0x02;
/// EXIT FAILURE MODE.
pub(super) const EXIT_FAILURE_MODE: u8 = 0x1F;

/// Bytes before the initialization pattern of OVERWRITE.
const HEADER_BYTES: usize = 4;
/// Written at once, in bytes: a multiple of every block size.
const WRITE_STEP_BYTES: u64 = 1 << 20;
/// Deallocated at once, in bytes; between two steps it is seen whether to stop.
const ERASE_STEP_BYTES: u64 = 1 << 30;
/// Who waits for the end looks this often whether the command is still wanted, in milliseconds.
const LOOK_EVERY_MS: u64 = 20;

/// The sanitize operation of a unit.
#[derive(Debug, Default)]
pub(super) struct Sanitize {
    state: Mutex<State>,
    ended: Condvar,
    stop: AtomicBool,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    thread: Option<JoinHandle<()>>,
    /// Operations that have ended.
    ended: u64,
    failed: bool,
    /// AUSE of the last one: EXIT FAILURE MODE may end the failure.
    may_exit: bool,
}

/// What a SANITIZE does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// The pattern comes with the command.
    Overwrite {
        list_bytes: u16,
    },
    BlockErase,
}

impl Method {
    pub(super) fn data_out_bytes(self) -> u64 {
        match self {
            Self::Overwrite { list_bytes } => u64::from(list_bytes),
            Self::BlockErase => 0,
        }
    }
}

/// What there is to do with every block.
#[derive(Debug, Clone)]
enum Work {
    Overwrite { block: Vec<u8>, passes: u8, invert: bool },
    BlockErase,
}

/// Whether a unit can do it. What is overwritten must be where it was before, and what is erased must be given back.
pub(super) fn is_offered(unit: &LogicalUnit, service_action: u8) -> bool {
    let properties = unit.properties();
    !properties.read_only
        && match service_action {
            OVERWRITE => properties.overwrites_in_place,
            BLOCK_ERASE => properties.provisioning.is_some(),
            _ => properties.overwrites_in_place || properties.provisioning.is_some(),
        }
}

/// SANITIZE.
pub(super) fn plan(request: &Request<'_>) -> Planned {
    let cdb = request.cdb;
    let service_action = cdb[1] & 0x1F;
    if !is_offered(request.unit, service_action) {
        return Err(Sense::cdb_field(1, 4));
    }
    request.check_writable()?;
    // ZNR: there are no zones.
    if cdb[1] & 0x40 != 0 {
        return Err(Sense::cdb_field(1, 6));
    }
    let list_bytes = be16(cdb, 7);
    let block_bytes = request.unit.properties().block_bytes;
    let method = match service_action {
        OVERWRITE if u32::from(list_bytes) <= HEADER_BYTES as u32 => return Err(Sense::cdb_field(7, 7)),
        OVERWRITE if u32::from(list_bytes) > HEADER_BYTES as u32 + block_bytes => return Err(Sense::cdb_field(7, 7)),
        OVERWRITE => Method::Overwrite { list_bytes },
        _ if list_bytes != 0 => return Err(Sense::cdb_field(7, 7)),
        BLOCK_ERASE => Method::BlockErase,
        _ => return exit_failure_mode(request.unit),
    };
    Ok(Plan::Run(Action::Sanitize {
        method,
        immediate: cdb[1] & 0x80 != 0,
        may_exit: cdb[1] & 0x20 != 0,
    }))
}

/// EXIT FAILURE MODE: without AUSE in the command that failed only another SANITIZE leads out of it.
fn exit_failure_mode(unit: &LogicalUnit) -> Planned {
    let upkeep = unit.upkeep();
    if upkeep.is(SANITIZE_FAILED) {
        if !upkeep.sanitize().lock().may_exit {
            return Err(Sense::cdb_field(1, 4));
        }
        upkeep.exchange(SANITIZE_FAILED, 0);
    }
    Ok(Plan::Answer(Vec::new()))
}

pub(super) fn run(job: &Job<'_>, method: Method, immediate: bool, may_exit: bool) -> Outcome {
    let unit = job.path.unit_shared();
    let work = match method {
        Method::BlockErase => Work::BlockErase,
        Method::Overwrite { list_bytes } => overwrite(job.data, list_bytes, job.block_bytes)?,
    };
    if job.wait == Wait::Never {
        return Err(Failure::WouldBlock);
    }
    let ticket = start(unit, work, may_exit)?;
    if immediate {
        return Ok(Vec::new());
    }
    let sanitize = unit.upkeep().sanitize();
    let mut state = sanitize.lock();
    while state.ended < ticket {
        // An aborted command does not stop what it has begun (SBC-4 4.11.2).
        job.check_cancelled()?;
        state = sanitize
            .ended
            .wait_timeout(state, Duration::from_millis(LOOK_EVERY_MS))
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
    if state.failed {
        return Err(Sense::SANITIZE_FAILED.into());
    }
    Ok(Vec::new())
}

/// The parameter list of OVERWRITE (SBC-4 5.30.2.2).
fn overwrite(list: &[u8], list_bytes: u16, block_bytes: u64) -> Result<Work, Sense> {
    let list = list
        .get(..usize::from(list_bytes))
        .ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    // TEST: there is no defect management that could be left out.
    if list[0] & 0x60 != 0 {
        return Err(Sense::parameter_field(0, 6));
    }
    let passes = list[0] & 0x1F;
    if passes == 0 {
        return Err(Sense::parameter_field(0, 4));
    }
    let pattern_bytes = usize::from(be16(list, 2));
    if pattern_bytes == 0 || pattern_bytes as u64 > block_bytes {
        return Err(Sense::parameter_field(2, 7));
    }
    let pattern = list
        .get(HEADER_BYTES..HEADER_BYTES + pattern_bytes)
        .ok_or(Sense::parameter_field(2, 7))?;
    // Repeated to fill a block, and cut at its end.
    let block = pattern.iter().copied().cycle().take(block_bytes as usize).collect();
    Ok(Work::Overwrite {
        block,
        passes,
        invert: list[0] & 0x80 != 0,
    })
}

/// Begins an operation, and returns which one in the count of those that ended it will be.
fn start(unit: &Arc<LogicalUnit>, work: Work, may_exit: bool) -> Result<u64, Failure> {
    let upkeep = unit.upkeep();
    let sanitize = upkeep.sanitize();
    let mut state = sanitize.lock();
    if !upkeep.enter(SANITIZING, SANITIZING | EJECTED) {
        let sense = upkeep.present_sense().unwrap_or(Sense::INTERNAL);
        return Err(sense.into());
    }
    sanitize.stop.store(false, Ordering::SeqCst);
    sanitize.done_bytes.store(0, Ordering::Relaxed);
    sanitize.total_bytes.store(u64::MAX, Ordering::Relaxed);
    state.may_exit = may_exit;
    let ticket = state.ended + 1;
    let shared = Arc::clone(unit);
    let thread = std::thread::Builder::new()
        .name("farlun-sanitize".to_owned())
        .spawn(move || operate(&shared, &work));
    match thread {
        // The one before has ended: its handle is of no use any more.
        Ok(thread) => state.thread = Some(thread),
        Err(error) => {
            tracing::error!(%error, "cannot start a thread to sanitize a LUN");
            upkeep.exchange(SANITIZING, 0);
            return Err(Sense::INTERNAL.into());
        }
    }
    Ok(ticket)
}

/// The background operation.
fn operate(unit: &Arc<LogicalUnit>, work: &Work) {
    let upkeep = unit.upkeep();
    let sanitize = upkeep.sanitize();
    tracing::info!(serial = unit.identity().serial, "a LUN is being sanitized");
    // Commands that were under way when it began: once they are out, none begins any more.
    let result = match wait_for_others(unit) {
        true => carry_out(unit, work),
        false => Err(MediumError::Cancelled),
    };
    if let Err(error) = &result {
        tracing::error!(serial = unit.identity().serial, %error, "sanitizing a LUN failed");
    } else {
        tracing::info!(serial = unit.identity().serial, "a LUN has been sanitized");
    }
    let mut state = sanitize.lock();
    state.ended += 1;
    state.failed = result.is_err();
    // What an earlier one has left is dealt with, or left once more.
    let left = if state.failed { SANITIZE_FAILED } else { 0 };
    upkeep.exchange(SANITIZING | SANITIZE_FAILED, left);
    sanitize.ended.notify_all();
}

/// Returns whether they are out; not if it was told to stop before.
fn wait_for_others(unit: &LogicalUnit) -> bool {
    let upkeep = unit.upkeep();
    let wanted = || !upkeep.sanitize().stop.load(Ordering::SeqCst);
    loop {
        match upkeep.ranges().exclude(&(0..u64::MAX), wanted) {
            Ok(_) => return true,
            // A write that stopped half-way waits for a worker, and this thread is none.
            Err(Denied::Busy) => {}
            Err(Denied::Cancelled | Denied::WouldBlock) => return false,
        }
    }
}

fn carry_out(unit: &LogicalUnit, work: &Work) -> Result<(), MediumError> {
    match work {
        Work::BlockErase => each_step(unit, ERASE_STEP_BYTES, 0, 1, |offset_bytes, length_bytes| {
            unit.medium().write_zeroes(
                offset_bytes,
                length_bytes,
                true,
                Durability::Cached,
                Wait::Allowed,
                &unit.upkeep().sanitize().stop,
            )
        }),
        Work::Overwrite { block, passes, invert } => (0..*passes).try_for_each(|pass| {
            let flip = if *invert && pass % 2 == 1 { 0xFF } else { 0x00 };
            let piece: Vec<u8> = block
                .iter()
                .map(|byte| byte ^ flip)
                .cycle()
                .take(WRITE_STEP_BYTES as usize)
                .collect();
            each_step(unit, WRITE_STEP_BYTES, pass, *passes, |offset_bytes, length_bytes| {
                let data = &piece[..length_bytes as usize];
                unit.medium()
                    .write(offset_bytes, data, Durability::Cached, Wait::Allowed)?;
                pace(unit, length_bytes);
                Ok(())
            })
        }),
    }
}

/// Takes as long as the unit's limit asks for so many bytes: sanitizing is no way around it.
fn pace(unit: &LogicalUnit, bytes: u64) {
    let start = Instant::now();
    loop {
        let rate = unit.shaper().rate().bytes_per_s;
        let due_ms = bytes.saturating_mul(1000).checked_div(rate).unwrap_or(0);
        let left = Duration::from_millis(due_ms).saturating_sub(start.elapsed());
        if left.is_zero() || unit.upkeep().sanitize().stop.load(Ordering::SeqCst) {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(LOOK_EVERY_MS)));
    }
}

/// One pass over the medium, ended by a flush: the next must not overwrite it in the cache.
fn each_step(
    unit: &LogicalUnit,
    step_bytes: u64,
    pass: u8,
    passes: u8,
    step: impl Fn(u64, u64) -> Result<(), MediumError>,
) -> Result<(), MediumError> {
    let sanitize = unit.upkeep().sanitize();
    let mut at_bytes = 0;
    loop {
        let size_bytes = unit.size_bytes();
        if at_bytes >= size_bytes {
            return unit.medium().flush(Wait::Allowed);
        }
        if sanitize.stop.load(Ordering::SeqCst) {
            return Err(MediumError::Cancelled);
        }
        let length_bytes = step_bytes.min(size_bytes - at_bytes);
        step(at_bytes, length_bytes)?;
        at_bytes += length_bytes;
        let done_bytes = u64::from(pass).saturating_mul(size_bytes).saturating_add(at_bytes);
        sanitize
            .total_bytes
            .store(size_bytes.saturating_mul(u64::from(passes)), Ordering::Relaxed);
        sanitize.done_bytes.store(done_bytes, Ordering::Relaxed);
    }
}

impl Sanitize {
    /// SANITIZE IN PROGRESS, with how far it is.
    pub(super) fn in_progress(&self) -> Sense {
        let total = u128::from(self.total_bytes.load(Ordering::Relaxed).max(1));
        let done = u128::from(self.done_bytes.load(Ordering::Relaxed));
        // PROGRESS INDICATION: parts of 65536 (SPC-5 4.4.2.4.4).
        let progress = (done * 65536 / total).min(65535) as u16;
        Sense::SANITIZE_IN_PROGRESS.with_progress(progress)
    }

    /// Has the operation stop, and waits until it has. What it leaves behind counts as failed.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.lock().thread.take();
        if let Some(thread) = thread {
            // It cannot have panicked in a way that matters here: the unit is going away.
            let _ = thread.join();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
