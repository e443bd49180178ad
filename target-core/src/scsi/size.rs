//! The size of a unit, and changing it while it is used.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::attention::Attention;
use super::unit::LogicalUnit;
use super::upkeep::SANITIZING;
use crate::lun::MediumError;

/// How long a unit that becomes smaller waits for commands that may be beyond the new end, in milliseconds.
const SHRINK_WAIT_MS: u64 = 2_000;

/// Why a unit has not changed its size.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// Commands may be at blocks that are to go, and do not come to an end.
    #[error("commands are still at work beyond the new end")]
    Busy,
    /// The medium would not.
    #[error(transparent)]
    Medium(#[from] MediumError),
}

/// What is going on with the size.
#[derive(Debug)]
pub(super) struct Sizing {
    /// Held while the size changes.
    resizing: Mutex<()>,
    /// While the medium becomes smaller, its size to be.
    limit_bytes: AtomicU64,
}

impl Default for Sizing {
    fn default() -> Self {
        Self {
            resizing: Mutex::default(),
            limit_bytes: AtomicU64::new(u64::MAX),
        }
    }
}

impl LogicalUnit {
    /// Number of logical blocks now.
    pub fn blocks(&self) -> u64 {
        self.size_bytes() / u64::from(self.properties().block_bytes)
    }

    /// Size in bytes now.
    pub fn size_bytes(&self) -> u64 {
        self.medium()
            .size_bytes()
            .min(self.sizing.limit_bytes.load(Ordering::SeqCst))
    }

    /// Resizes the medium and tells every initiator (CAPACITY DATA HAS CHANGED). Blocks the thread: commands that
    /// may be at blocks beyond the new end are waited for.
    ///
    /// # Errors
    /// What the medium says, or that those commands did not come to an end. Then the size is as it was, unless all
    /// that failed was to make it stable.
    pub fn resize(&self, new_size_bytes: u64) -> Result<(), ResizeError> {
        let _one_at_a_time = self.sizing.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        let old_size_bytes = self.medium().size_bytes();
        // Commands look at the size when they come and when they begin. Those that have begun are waited for.
        self.sizing.limit_bytes.store(new_size_bytes, Ordering::SeqCst);
        let shrunk = if new_size_bytes >= old_size_bytes || self.is_left_beyond_the_end() {
            self.medium().resize(new_size_bytes).map_err(ResizeError::from)
        } else {
            Err(ResizeError::Busy)
        };
        self.sizing.limit_bytes.store(u64::MAX, Ordering::SeqCst);
        // Also if it is another in spite of an error: what comes last is to make it stable.
        if self.medium().size_bytes() != old_size_bytes {
            self.tell_all(Attention::CapacityChanged);
        }
        shrunk
    }

    /// Whether nobody is at blocks beyond a new end any more, after some time.
    fn is_left_beyond_the_end(&self) -> bool {
        // What runs in the background began as a command.
        self.pass().wait(Duration::from_millis(SHRINK_WAIT_MS)) && !self.upkeep().is(SANITIZING)
    }
}
