//! A command on its way to the medium and back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::scsi::{Execution, Response};

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
    /// Raised when the task has been aborted.
    pub cancel: Arc<AtomicBool>,
}

/// A command that has been run.
#[derive(Debug)]
pub struct Finished {
    /// Whose command it was.
    pub id: TaskId,
    /// How it ended.
    pub response: Response,
    /// The buffer of the data from the initiator, given back for reuse.
    pub data_out: Vec<u8>,
}
