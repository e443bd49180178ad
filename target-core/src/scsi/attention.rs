//! Unit attention conditions (SAM-6 5.14): what an I_T nexus has to hear before its next command.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::sense::{Key, Sense};

/// Conditions kept per nexus and LUN; the kinds below are fewer, so nothing is lost.
const MAX_PENDING: usize = 16;

/// The conditions we establish. Earlier variants are reported first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attention {
    /// SCSI BUS RESET OCCURRED: a target reset.
    BusReset,
    /// BUS DEVICE RESET FUNCTION OCCURRED: a logical unit reset.
    UnitReset,
    /// COMMANDS CLEARED BY ANOTHER INITIATOR.
    CommandsCleared,
    /// CAPACITY DATA HAS CHANGED.
    CapacityChanged,
    /// RESERVATIONS PREEMPTED.
    ReservationsPreempted,
    /// RESERVATIONS RELEASED.
    ReservationsReleased,
    /// REGISTRATIONS PREEMPTED.
    RegistrationsPreempted,
}

impl Attention {
    pub(crate) const fn sense(self) -> Sense {
        Sense::new(
            Key::UnitAttention,
            match self {
                Self::BusReset => (0x29, 0x02),
                Self::UnitReset => (0x29, 0x03),
                Self::CommandsCleared => (0x2F, 0x00),
                Self::CapacityChanged => (0x2A, 0x09),
                Self::ReservationsPreempted => (0x2A, 0x03),
                Self::ReservationsReleased => (0x2A, 0x04),
                Self::RegistrationsPreempted => (0x2A, 0x05),
            },
        )
    }
}

/// The conditions pending for one nexus at one LUN. Looking costs one relaxed load while there are none.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    any: AtomicBool,
    conditions: Mutex<Vec<Attention>>,
}

impl Pending {
    pub(crate) fn establish(&self, attention: Attention) {
        let mut conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        if !conditions.contains(&attention) && conditions.len() < MAX_PENDING {
            conditions.push(attention);
            conditions.sort_unstable();
        }
        self.any.store(true, Ordering::Release);
    }

    /// Takes the condition to report next.
    pub(crate) fn take(&self) -> Option<Attention> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let mut conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let first = (!conditions.is_empty()).then(|| conditions.remove(0));
        self.any.store(!conditions.is_empty(), Ordering::Release);
        first
    }
}
