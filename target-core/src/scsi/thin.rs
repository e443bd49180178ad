//! How full the storage underneath is, and telling initiators before it is full (SBC-4 4.7.3.8).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::attention::Attention;
use super::unit::LogicalUnit;

/// The storage is looked at after so many bytes were written.
const LOOK_EVERY_BYTES: u64 = 16 << 20;
/// A threshold set is never smaller than this many blocks, as a power of two (SBC-4 6.6.6, THRESHOLD EXPONENT).
const MIN_EXPONENT: u8 = 8;

/// When a unit last looked.
#[derive(Debug, Default)]
pub(super) struct Thresholds {
    unseen_bytes: AtomicU64,
    /// Told already, and not below it since.
    reached: AtomicBool,
}

/// What LOG SENSE page 0Ch and the mode page 1Ch, 02h report, in threshold sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ThinReport {
    /// Blocks in a set, as a power of two.
    pub(super) exponent: u8,
    /// Sets that the unit uses.
    pub(super) used: u32,
    /// Sets that it may still use.
    pub(super) available: u32,
    /// The soft threshold on use, in percent of all storage, if there is one.
    pub(super) threshold_percent: Option<u8>,
}

impl LogicalUnit {
    /// Blocks in a threshold set, as a power of two: the smallest for which every count fits 32 bits, whatever the
    /// storage (SBC-4 6.6.6).
    pub(super) fn threshold_exponent(&self) -> u8 {
        let blocks = self.blocks().max(1);
        (64 - blocks.leading_zeros() as u8).saturating_sub(24).max(MIN_EXPONENT)
    }

    /// How full it is; `None` if the unit is not thin provisioned or its medium does not know.
    pub(super) fn thin_report(&self) -> Option<ThinReport> {
        let properties = self.properties();
        properties.provisioning?;
        let space = self.medium().space()?;
        let exponent = self.threshold_exponent();
        let set_bytes = u64::from(properties.block_bytes) << exponent;
        let sets = |bytes: u64| u32::try_from(bytes / set_bytes).unwrap_or(u32::MAX);
        Some(ThinReport {
            exponent,
            used: sets(space.used_bytes),
            available: sets(space.available_bytes),
            threshold_percent: self.upkeep().options().threshold_percent,
        })
    }

    /// Counts what was written, and looks at the storage now and then.
    pub(super) fn note_written(&self, bytes: u64) {
        if self.upkeep().options().threshold_percent.is_none() {
            return;
        }
        let unseen = &self.upkeep().thresholds().unseen_bytes;
        if unseen.fetch_add(bytes, Ordering::Relaxed) + bytes >= LOOK_EVERY_BYTES {
            unseen.store(0, Ordering::Relaxed);
            self.check_threshold();
        }
    }

    /// Looks whether the soft threshold is reached, and tells every nexus once.
    pub fn check_threshold(&self) {
        let (Some(percent), Some(space)) = (self.upkeep().options().threshold_percent, self.medium().space()) else {
            return;
        };
        // Used by whoever: what is left is what counts.
        let used_bytes = space.total_bytes.saturating_sub(space.available_bytes);
        let reached = u128::from(used_bytes) * 100 >= u128::from(space.total_bytes) * u128::from(percent);
        let was = self.upkeep().thresholds().reached.swap(reached, Ordering::AcqRel);
        if reached && !was {
            tracing::warn!(
                percent,
                available_bytes = space.available_bytes,
                "the storage under a thin LUN fills up"
            );
            self.tell_all(Attention::ThinThreshold);
        }
    }
}
