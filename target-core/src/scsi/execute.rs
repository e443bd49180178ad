//! Carrying a planned command out on the medium.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::device::Path;
use super::request::{Plan, Span};
use super::sense::Sense;
use super::{Prepared, Response, Status, WouldBlock};
use crate::lun::{Durability, Medium, MediumError, Wait};

/// What there is to do.
#[derive(Debug)]
pub(super) enum Action {
    Read { span: Span, stable: bool },
    Write { span: Span, durability: Durability },
    Flush,
}

/// A command that is ready to run once its data has arrived.
#[derive(Debug)]
pub struct Execution {
    path: Arc<Path>,
    action: Action,
}

impl Execution {
    pub(super) fn new(path: Arc<Path>, plan: Plan) -> Prepared {
        match plan {
            Plan::Answer(data) => Prepared::Done(Response::good(data)),
            Plan::Run(action) => Prepared::Run(Self { path, action }),
        }
    }

    /// The LUN it is for.
    pub fn lun(&self) -> u16 {
        self.path.lun()
    }

    /// Bytes the command wants from the initiator, at most [`MAX_TRANSFER_BYTES`](super::MAX_TRANSFER_BYTES).
    pub fn data_out_bytes(&self) -> u64 {
        match &self.action {
            Action::Write { span, .. } => span.length_bytes,
            Action::Read { .. } | Action::Flush => 0,
        }
    }

    /// Upper bound of what it answers in bytes.
    pub fn data_in_bytes(&self) -> u64 {
        match &self.action {
            Action::Read { span, .. } => span.length_bytes,
            _ => 0,
        }
    }

    /// Runs the command. `data_out` may be shorter than [`data_out_bytes`](Self::data_out_bytes) when the
    /// initiator sent less than the CDB asks for: a write then stores the whole blocks that came.
    pub fn run(&self, data_out: &[u8], wait: Wait, cancel: &AtomicBool) -> Result<Response, WouldBlock> {
        let _ = cancel;
        let medium = self.path.unit().medium();
        let done = match &self.action {
            Action::Read { span, stable } => read(medium, *span, *stable, wait),
            Action::Write { span, durability } => write(medium, self.block_bytes(), *span, data_out, *durability, wait),
            Action::Flush => medium
                .flush(wait)
                .map_err(|e| Failure::medium(e, Sense::WRITE_ERROR))
                .map(|()| Vec::new()),
        };
        match done {
            Ok(data_in) => Ok(Response::good(data_in)),
            Err(Failure::WouldBlock) => Err(WouldBlock),
            Err(Failure::Cancelled) => Ok(Response::status(Status::TaskAborted)),
            Err(Failure::Sense(sense)) => Ok(Response::check(sense)),
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
    Cancelled,
    Sense(Sense),
}

impl Failure {
    /// `otherwise` is what a failing medium means for this action.
    pub(super) fn medium(error: MediumError, otherwise: Sense) -> Self {
        match error {
            MediumError::WouldBlock => Self::WouldBlock,
            MediumError::Cancelled => Self::Cancelled,
            MediumError::NoSpace => Self::Sense(Sense::NO_SPACE),
            MediumError::Unsupported(_) => Self::Sense(Sense::INTERNAL),
            MediumError::Io(_) => Self::Sense(otherwise),
        }
    }
}

type Outcome = Result<Vec<u8>, Failure>;

fn read(medium: &dyn Medium, span: Span, stable: bool, wait: Wait) -> Outcome {
    if stable {
        // FUA on a read: what is returned has to be on the medium, not only in its cache (SBC-4 5.13).
        medium.flush(wait).map_err(|e| Failure::medium(e, Sense::WRITE_ERROR))?;
    }
    let mut data = Vec::with_capacity(span.length_bytes as usize);
    medium
        .read(span.offset_bytes, span.length_bytes as usize, &mut data, wait)
        .map_err(|e| Failure::medium(e, Sense::READ_ERROR))?;
    Ok(data)
}

fn write(
    medium: &dyn Medium,
    block_bytes: u64,
    span: Span,
    data: &[u8],
    durability: Durability,
    wait: Wait,
) -> Outcome {
    let length_bytes = (data.len() as u64).min(span.length_bytes) / block_bytes * block_bytes;
    if length_bytes > 0 {
        medium
            .write(span.offset_bytes, &data[..length_bytes as usize], durability, wait)
            .map_err(|e| Failure::medium(e, Sense::WRITE_ERROR))?;
    }
    Ok(Vec::new())
}
