//! A command on its way to the medium and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::budget::Memory;
use crate::lun::Wait;
use crate::scsi::{Execution, Response, WouldBlock};

/// Names a task for as long as its connection lives. Never reused, so a late completion cannot be taken for
/// another task's, whatever the initiator does with its task tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub u64);

/// A command with all of its data: ready to be run, by the shell, inline or on a worker.
#[derive(Debug)]
pub struct Job {
    /// Whose command it is.
    pub id: TaskId,
    /// What to do.
    pub execution: Execution,
    /// Data from the initiator, empty when the command takes none.
    pub data_out: Vec<u8>,
    /// Raised when the task has been aborted, or its session is over.
    pub cancel: Arc<AtomicBool>,
    /// Memory that stays reserved while the job exists, even when its session does not any more.
    pub memory: Memory,
    /// Shows that the session is still at work.
    pub fence: Fence,
}

/// As long as one of these exists, commands of its session may still change the medium. A session that
/// takes the place of another waits for that: otherwise an old write, stuck in a worker's queue, could land
/// on top of a newer one.
#[derive(Debug, Clone, Default)]
pub struct Fence(pub(super) Arc<()>);

/// A command that has been run.
#[derive(Debug)]
pub struct Finished {
    /// Whose command it was.
    pub id: TaskId,
    /// How it ended.
    pub response: Response,
    /// The buffer of the data from the initiator, given back for reuse.
    pub data_out: Vec<u8>,
    /// The memory the job held.
    pub memory: Memory,
}

impl Job {
    /// Runs the command, which may block if `wait` allows it.
    ///
    /// # Errors
    /// The job itself, unchanged, when it would have blocked and must not.
    #[allow(
        clippy::result_large_err,
        reason = "would-block is common for writes; a box would cost an allocation each"
    )]
    pub fn run(self, wait: Wait) -> Result<Finished, Self> {
        // Aborted while it waited for a worker: it has done nothing, and is not to begin.
        if self.cancel.load(Ordering::Relaxed) {
            return Ok(self.finish(Response::task_aborted()));
        }
        match self.execution.run(&self.data_out, wait, &self.cancel) {
            Ok(response) => Ok(self.finish(response)),
            Err(WouldBlock) if wait == Wait::Never => Err(self),
            // A medium that would block although it may is broken; the command fails, the thread goes on.
            Err(WouldBlock) => {
                let response = self.execution.internal_failure();
                Ok(self.finish(response))
            }
        }
    }

    fn finish(self, response: Response) -> Finished {
        let Self {
            id, data_out, memory, ..
        } = self;
        Finished {
            id,
            response,
            data_out,
            memory,
        }
    }
}
