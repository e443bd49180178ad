//! What is left to do with a unit that is taken out of service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::generation::Drain;
use super::path::Place;
use super::unit::LogicalUnit;
use crate::lun::{MediumError, Wait};

/// A unit that is not served any more. Nothing of it begins; what has begun is waited for, then it is flushed,
/// and its medium is closed when the last command that knows it is gone.
#[derive(Debug)]
#[must_use = "the medium is flushed only if somebody sees to it"]
pub struct Removal {
    drain: Drain,
    /// `None` when there is nothing to close: it was offline, or is in service elsewhere.
    unit: Option<Arc<LogicalUnit>>,
    closed: Option<Arc<AtomicBool>>,
}

impl Removal {
    pub(super) fn of_unit(unit: Arc<LogicalUnit>, place: Place) -> Self {
        let (was_last, drain) = unit.take_out_of_service(place);
        Self {
            drain,
            closed: was_last.then(|| unit.closed()),
            unit: was_last.then_some(unit),
        }
    }

    /// Of a unit that nobody has a way to, or none.
    pub(super) fn of_unused(unit: Option<Arc<LogicalUnit>>) -> Self {
        Self {
            drain: Drain::default(),
            closed: unit.as_ref().map(|unit| unit.closed()),
            unit,
        }
    }

    /// Whether no command is at the medium any more.
    pub fn is_drained(&self) -> bool {
        self.drain.is_drained()
    }

    /// Flushes the medium, once [`is_drained`](Self::is_drained), and lets go of it. Blocks the thread.
    ///
    /// # Errors
    /// What the medium says: writes may be lost.
    pub fn flush(&mut self) -> Result<(), MediumError> {
        let Some(unit) = self.unit.take() else {
            return Ok(());
        };
        unit.stop_background_work();
        unit.medium().flush(Wait::Allowed)
    }

    /// Whether the medium is closed, and its lock with it. Not before [`flush`](Self::flush), for this holds it
    /// open as well.
    pub fn is_closed(&self) -> bool {
        self.closed.as_ref().is_none_or(|closed| closed.load(Ordering::Acquire))
    }
}
