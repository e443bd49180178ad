//! Carrying a planned command out on the medium.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::atomic;
use super::compare::{self, Check};
use super::control::Control;
use super::copy;
use super::path::Path;
use super::provision::{self, Pattern};
use super::ranges::{Denied, Parking, Shared};
use super::removal;
use super::request::{Plan, Span};
use super::sanitize;
use super::sense::Sense;
use super::{LogicalUnit, Prepared, Response, Status, WouldBlock};
use crate::lun::{Durability, Medium, MediumError, Wait};

/// What there is to do.
#[derive(Debug)]
pub(super) enum Action {
    Read {
        span: Span,
        stable: bool,
    },
    Write {
        span: Span,
        durability: Durability,
    },
    Flush,
    Verify {
        span: Span,
        check: Check,
    },
    WriteAndVerify {
        span: Span,
        compare: bool,
    },
    CompareAndWrite {
        span: Span,
        durability: Durability,
    },
    OrWrite {
        span: Span,
        durability: Durability,
    },
    WriteAtomic {
        span: Span,
        durability: Durability,
    },
    Unmap {
        list_bytes: u16,
    },
    WriteSame {
        span: Span,
        pattern: Pattern,
        may_unmap: bool,
    },
    LbaStatus {
        span: Span,
        allocation_bytes: u32,
    },
    Sanitize {
        method: sanitize::Method,
        immediate: bool,
        may_exit: bool,
    },
    /// Copying from unit to unit.
    Copy {
        list_bytes: u32,
        places: Vec<copy::Place>,
    },
    /// Taking the medium out.
    Eject {
        flush: bool,
    },
    Control(Control),
}

impl Action {
    /// The blocks it is about.
    fn span(&self) -> Option<Span> {
        match self {
            Self::Read { span, .. }
            | Self::Write { span, .. }
            | Self::Verify { span, .. }
            | Self::WriteAndVerify { span, .. }
            | Self::CompareAndWrite { span, .. }
            | Self::OrWrite { span, .. }
            | Self::WriteAtomic { span, .. }
            | Self::WriteSame { span, .. }
            | Self::LbaStatus { span, .. } => Some(*span),
            Self::Flush
            | Self::Unmap { .. }
            | Self::Sanitize { .. }
            | Self::Eject { .. }
            | Self::Copy { .. }
            | Self::Control(_) => None,
        }
    }

    /// Whether it changes blocks.
    fn changes_blocks(&self) -> bool {
        match self {
            Self::Write { .. }
            | Self::WriteAndVerify { .. }
            | Self::CompareAndWrite { .. }
            | Self::OrWrite { .. }
            | Self::WriteAtomic { .. }
            | Self::Sanitize { .. }
            | Self::Unmap { .. }
            | Self::WriteSame { .. } => true,
            Self::Read { .. }
            | Self::Flush
            | Self::Verify { .. }
            | Self::LbaStatus { .. }
            | Self::Eject { .. }
            | Self::Copy { .. }
            | Self::Control(_) => false,
        }
    }

    fn needs_medium(&self) -> bool {
        !matches!(self, Self::Sanitize { .. } | Self::Eject { .. } | Self::Control(_))
    }

    /// What may have changed since the command was planned: whether the medium is in, the size of the unit, and
    /// whether it may be written.
    fn check_again(&self, path: &Path) -> Result<(), Sense> {
        if self.needs_medium()
            && let Some(sense) = path.unit().upkeep().present_sense()
        {
            return Err(sense);
        }
        if let Some(span) = self.span() {
            let size_bytes = path.unit().size_bytes();
            if span.offset_bytes + span.length_bytes > size_bytes {
                let block_bytes = u64::from(path.unit().properties().block_bytes);
                let first_missing = span.offset_bytes.max(size_bytes) / block_bytes;
                return Err(Sense::LBA_OUT_OF_RANGE.with_information(first_missing));
            }
        }
        if self.changes_blocks() {
            path.check_writable()
        } else {
            Ok(())
        }
    }
}

/// A command that is ready to run once its data has arrived.
#[derive(Debug)]
pub struct Execution {
    path: Arc<Path>,
    /// How often the unit had been reset when the command arrived.
    generation: u64,
    action: Action,
    /// The claim of a write that stopped half-way.
    parking: Parking,
}

impl Drop for Execution {
    fn drop(&mut self) {
        drop(self.path.unit().upkeep().ranges().take_up(&self.parking));
    }
}

impl Execution {
    pub(super) fn of_plan(path: Arc<Path>, generation: u64, plan: Plan) -> Prepared {
        match plan {
            Plan::Answer(data) => Prepared::Done(Response::good(data)),
            Plan::Status(status) => Prepared::Done(Response::status(status)),
            Plan::Run(action) => Prepared::Run(Self {
                path,
                generation,
                action,
                parking: Parking::default(),
            }),
        }
    }

    /// The LUN it is for.
    pub fn lun(&self) -> u16 {
        self.path.lun()
    }

    /// The logical unit it is for.
    pub fn unit(&self) -> &Arc<LogicalUnit> {
        self.path.unit_shared()
    }

    /// Whether it is of a kind that may take seconds however fast the medium is with single blocks.
    pub fn may_be_long(&self) -> bool {
        !matches!(self.action, Action::Read { .. } | Action::Write { .. })
    }

    /// Whether it is about the unit, not its blocks: reservations, mode parameters and the like.
    pub fn is_control(&self) -> bool {
        matches!(self.action, Action::Control(_))
    }

    /// INTERNAL TARGET FAILURE: a fault of ours, not of the command.
    pub(crate) fn internal_failure(&self) -> Response {
        self.path.check(Sense::INTERNAL)
    }

    /// Whether a task management function or a PREEMPT AND ABORT has ended it, or its LUN is gone: if it has not
    /// begun, it will not.
    pub fn is_aborted(&self) -> bool {
        self.path.generations().is_aborted(self.generation)
    }

    /// Bytes the command wants from the initiator, at most [`MAX_TRANSFER_BYTES`](super::MAX_TRANSFER_BYTES).
    pub fn data_out_bytes(&self) -> u64 {
        match &self.action {
            Action::Write { span, .. }
            | Action::WriteAndVerify { span, .. }
            | Action::OrWrite { span, .. }
            | Action::WriteAtomic { span, .. } => span.length_bytes,
            Action::Sanitize { method, .. } => method.data_out_bytes(),
            Action::Copy { list_bytes, .. } => u64::from(*list_bytes),
            Action::CompareAndWrite { span, .. } => 2 * span.length_bytes,
            Action::Verify { span, check } => match check {
                Check::Readable => 0,
                Check::Equal => span.length_bytes,
                Check::EqualToOneBlock => self.block_bytes(),
            },
            Action::WriteSame { pattern, .. } => match pattern {
                Pattern::Zeroes => 0,
                Pattern::FromInitiator => self.block_bytes(),
            },
            Action::Unmap { list_bytes } => u64::from(*list_bytes),
            Action::Control(control) => control.data_out_bytes(),
            Action::Read { .. } | Action::Flush | Action::LbaStatus { .. } | Action::Eject { .. } => 0,
        }
    }

    /// Upper bound of what it answers in bytes.
    pub fn data_in_bytes(&self) -> u64 {
        match &self.action {
            Action::Read { span, .. } => span.length_bytes,
            Action::LbaStatus { allocation_bytes, .. } => {
                u64::from(*allocation_bytes).min(provision::MAX_LBA_STATUS_BYTES as u64)
            }
            Action::Control(control) => control.data_in_bytes(),
            _ => 0,
        }
    }

    /// Whether the command can be run when the initiator means to send `offered_bytes`, which may differ from
    /// [`data_out_bytes`](Self::data_out_bytes). Reads and writes can; where part of the data is as good as
    /// none the refusal is returned, to be sent before any data is asked for.
    pub fn check_data_out(&self, offered_bytes: u64) -> Result<(), Response> {
        let sense = match self.action {
            Action::CompareAndWrite { .. } => compare::WRONG_BLOCK_COUNT,
            Action::WriteAtomic { .. }
            | Action::WriteSame {
                pattern: Pattern::FromInitiator,
                ..
            } => Sense::WRONG_DATA_LENGTH,
            _ => return Ok(()),
        };
        if offered_bytes == self.data_out_bytes() {
            Ok(())
        } else {
            Err(self.path.check(sense))
        }
    }

    /// Runs the command. `data_out` may be shorter than [`data_out_bytes`](Self::data_out_bytes) when the
    /// initiator sent less than the CDB asks for: a write then stores the whole blocks that came.
    ///
    /// Once `cancel` is raised, or the unit is reset, long commands stop early, with TASK ABORTED; after a reset
    /// none begins.
    pub fn run(&self, data_out: &[u8], wait: Wait, cancel: &AtomicBool) -> Result<Response, WouldBlock> {
        let Some(_running) = self.path.generations().enter(self.generation) else {
            return Ok(self.path.answer_of_aborted());
        };
        // What was checked when the command came may not be true any more.
        if let Err(sense) = self.action.check_again(&self.path) {
            return Ok(self.path.check(sense));
        }
        let block_bytes = self.block_bytes();
        let wanted_bytes = usize::try_from(self.data_out_bytes()).unwrap_or(usize::MAX);
        let data = &data_out[..data_out.len().min(wanted_bytes)];
        let job = Job {
            path: &self.path,
            generation: self.generation,
            parking: &self.parking,
            medium: self.path.unit().medium(),
            block_bytes,
            data,
            wait,
            cancel,
        };
        let outcome = match &self.action {
            Action::Read { span, stable } => job.read(*span, *stable),
            Action::Write { span, durability } => {
                job.write_beside_others(*span, data, *durability).map(|()| Vec::new())
            }
            Action::Flush => job.flush().map(|()| Vec::new()),
            Action::Verify { span, check } => compare::verify(&job, *span, *check),
            Action::WriteAndVerify { span, compare } => compare::write_and_verify(&job, *span, *compare),
            Action::CompareAndWrite { span, durability } => compare::compare_and_write(&job, *span, *durability),
            Action::OrWrite { span, durability } => compare::or_write(&job, *span, *durability),
            Action::WriteAtomic { span, durability } => atomic::write(&job, *span, *durability),
            Action::Sanitize {
                method,
                immediate,
                may_exit,
            } => sanitize::run(&job, *method, *immediate, *may_exit),
            Action::Copy { list_bytes, places } => copy::run(&job, *list_bytes, places),
            Action::Eject { flush } => removal::eject(&job, *flush),
            Action::Unmap { .. } => provision::unmap(&job),
            Action::WriteSame {
                span,
                pattern,
                may_unmap,
            } => provision::write_same(&job, *span, *pattern, *may_unmap),
            Action::LbaStatus { span, allocation_bytes } => provision::lba_status(&job, *span, *allocation_bytes),
            Action::Control(control) => control.run(&job),
        };
        match outcome {
            Ok(data_in) => {
                self.count(data.len(), data_in.len());
                Ok(Response::good(data_in))
            }
            Err(Failure::WouldBlock | Failure::PartlyWritten) => Err(WouldBlock),
            Err(Failure::Sense(sense)) => Ok(self.path.check(sense)),
            Err(Failure::Status(status)) => Ok(Response::status(status)),
        }
    }

    /// Counts what LOG SENSE tells.
    fn count(&self, written_bytes: usize, read_bytes: usize) {
        let counters = self.path.counters();
        match self.action {
            Action::Read { .. } => counters.note_read(read_bytes as u64),
            Action::Write { .. }
            | Action::WriteAndVerify { .. }
            | Action::OrWrite { .. }
            | Action::WriteAtomic { .. }
            | Action::WriteSame { .. } => counters.note_written(written_bytes as u64),
            Action::CompareAndWrite { .. } => counters.note_written(written_bytes as u64 / 2),
            _ => {}
        }
    }

    fn block_bytes(&self) -> u64 {
        u64::from(self.path.unit().properties().block_bytes)
    }
}

/// Why an action did not end well.
#[derive(Debug)]
pub(super) enum Failure {
    WouldBlock,
    /// The same, in the middle of a write.
    PartlyWritten,
    Sense(Sense),
    Status(Status),
}

impl From<Sense> for Failure {
    fn from(sense: Sense) -> Self {
        Self::Sense(sense)
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::WouldBlock => Self::WouldBlock,
            Denied::Cancelled => Self::Status(Status::TaskAborted),
            Denied::Busy => Self::Status(Status::Busy),
        }
    }
}

/// The data that answers a command.
pub(super) type Outcome = Result<Vec<u8>, Failure>;

/// One run of an action.
pub(super) struct Job<'a> {
    pub(super) path: &'a Arc<Path>,
    generation: u64,
    parking: &'a Parking,
    pub(super) medium: &'a dyn Medium,
    pub(super) block_bytes: u64,
    /// What the initiator sent, never more than was asked for.
    pub(super) data: &'a [u8],
    pub(super) wait: Wait,
    pub(super) cancel: &'a AtomicBool,
}

impl Job<'_> {
    /// Reads a span into a buffer of exactly its size, never half of what a command that writes atomically writes.
    /// If `stable`, what is returned is on the medium and not only in its cache (SBC-4 5.13, FUA).
    pub(super) fn read(&self, span: Span, stable: bool) -> Outcome {
        if stable {
            self.flush()?;
        }
        let ranges = self.path.unit().upkeep().ranges();
        if let Some(seen) = ranges.seen() {
            let data = self.read_blocks(span)?;
            if !ranges.is_stale(seen) {
                return Ok(data);
            }
        }
        let _beside = self.beside_others(span)?;
        self.read_blocks(span)
    }

    /// The same for those who have the span for themselves.
    pub(super) fn read_blocks(&self, span: Span) -> Outcome {
        let mut data = Vec::with_capacity(span.length_bytes as usize);
        if span.length_bytes > 0 {
            self.medium
                .read(span.offset_bytes, span.length_bytes as usize, &mut data, self.wait)
                .map_err(|e| self.failure(e, Sense::READ_ERROR.with_information(self.lba(span)), "read"))?;
        }
        Ok(data)
    }

    /// The same command at another unit.
    pub(super) fn at<'b>(&'b self, path: &'b Arc<Path>, generation: u64) -> Job<'b> {
        Job {
            path,
            generation,
            parking: self.parking,
            medium: path.unit().medium(),
            block_bytes: u64::from(path.unit().properties().block_bytes),
            data: &[],
            wait: self.wait,
            cancel: self.cancel,
        }
    }

    /// To be held while blocks are changed, so that no command that compares first is in the middle of them.
    pub(super) fn beside_others(&self, span: Span) -> Result<Shared<'_>, Failure> {
        let upkeep = self.path.unit().upkeep();
        let claim = match upkeep.ranges().take_up(self.parking) {
            Some(claim) => claim,
            None => upkeep
                .ranges()
                .share(&span.bytes(), self.wait, || self.check_cancelled().is_ok())
                .map_err(Failure::from)?,
        };
        self.check_medium()?;
        Ok(claim)
    }

    /// Runs a read-modify-write while no other command is at these blocks, always on a worker: a write that may
    /// not wait can stop half-way, and what it has written would not compare when the command is started over.
    pub(super) fn exclusively(&self, span: Span, work: impl FnOnce() -> Outcome) -> Outcome {
        if self.wait == Wait::Never {
            return Err(Failure::WouldBlock);
        }
        let ranges = self.path.unit().upkeep().ranges();
        let _alone = ranges
            .exclude(&span.bytes(), || self.check_cancelled().is_ok())
            .map_err(Failure::from)?;
        self.check_medium()?;
        work()
    }

    /// To be called with a claim: whoever begins to sanitize the medium waits for claims and then has it alone.
    fn check_medium(&self) -> Result<(), Failure> {
        match self.path.unit().upkeep().present_sense() {
            Some(sense) => Err(sense.into()),
            None => Ok(()),
        }
    }

    /// [`write_blocks`](Self::write_blocks) for all who do not have the span for themselves.
    pub(super) fn write_beside_others(&self, span: Span, data: &[u8], durability: Durability) -> Result<(), Failure> {
        let claim = self.beside_others(span)?;
        let result = self.write_blocks(span, data, durability);
        if let Err(Failure::PartlyWritten) = result {
            // Nobody is to compare with half of it.
            claim.park(self.parking);
        }
        result
    }

    /// Writes the whole blocks of `data` at the start of the span.
    pub(super) fn write_blocks(&self, span: Span, data: &[u8], durability: Durability) -> Result<(), Failure> {
        self.write_blocks_by(Medium::write, span, data, durability)
    }

    /// The same by one of the ways a medium has to write.
    pub(super) fn write_blocks_by<'m>(
        &'m self,
        write: impl FnOnce(&'m dyn Medium, u64, &[u8], Durability, Wait) -> Result<(), MediumError>,
        span: Span,
        data: &[u8],
        durability: Durability,
    ) -> Result<(), Failure> {
        let whole_bytes = (data.len() as u64).min(span.length_bytes) / self.block_bytes * self.block_bytes;
        if whole_bytes == 0 {
            return Ok(());
        }
        let unit = self.path.unit();
        let durability = unit.modes().durability(durability);
        write(
            self.medium,
            span.offset_bytes,
            &data[..whole_bytes as usize],
            durability,
            self.wait,
        )
        .map_err(|e| self.failure(e, Sense::WRITE_ERROR.with_information(self.lba(span)), "write"))?;
        unit.note_written(whole_bytes);
        // The cache may have been switched off meanwhile, and flushed before this write was in it.
        if durability == Durability::Cached && unit.modes().is_cache_off() {
            self.flush()?;
        }
        Ok(())
    }

    pub(super) fn flush(&self) -> Result<(), Failure> {
        self.medium.flush(self.wait).map_err(|error| match error {
            // For want of space data is lost that was taken: that is no write protection.
            MediumError::NoSpace => {
                tracing::error!(lun = self.path.lun(), "no space left for data that was written before");
                Failure::Sense(Sense::WRITE_ERROR)
            }
            error => self.failure(error, Sense::WRITE_ERROR, "flush"),
        })
    }

    /// TASK ABORTED once the command has been cancelled or the unit reset.
    pub(super) fn check_cancelled(&self) -> Result<(), Failure> {
        if self.cancel.load(Ordering::Relaxed) || self.path.generations().is_aborted(self.generation) {
            Err(Failure::Status(Status::TaskAborted))
        } else {
            Ok(())
        }
    }

    /// What a failing medium means for the command; `sense` says so where nothing more exact is known.
    pub(super) fn failure(&self, error: MediumError, sense: Sense, what: &'static str) -> Failure {
        match error {
            MediumError::WouldBlock => Failure::WouldBlock,
            MediumError::PartlyWritten => Failure::PartlyWritten,
            MediumError::Cancelled => Failure::Status(Status::TaskAborted),
            MediumError::NoSpace => {
                tracing::warn!(lun = self.path.lun(), what, "no space left for the LUN");
                self.path.unit().check_threshold();
                Failure::Sense(Sense::NO_SPACE)
            }
            MediumError::Unsupported(_) => {
                tracing::error!(lun = self.path.lun(), what, %error, "the medium promised what it cannot do");
                Failure::Sense(Sense::INTERNAL)
            }
            MediumError::Io(_) => {
                tracing::error!(lun = self.path.lun(), what, %error, "the medium failed");
                Failure::Sense(sense)
            }
        }
    }

    fn lba(&self, span: Span) -> u64 {
        span.offset_bytes / self.block_bytes
    }
}
