//! Unit attention conditions (SAM-6 5.14): what an I_T nexus has to hear before its next command.

use std::sync::atomic::{AtomicU32, Ordering};

use super::sense::{Key, Sense};

/// The conditions we establish. Earlier variants are reported first: the order down to `NexusLost` is the one SAM-6
/// 5.14.1 asks for, the rest is of one rank there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Attention {
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED: nothing of before is there any more.
    PowerOn,
    /// SCSI BUS RESET OCCURRED: a target reset.
    BusReset,
    /// BUS DEVICE RESET FUNCTION OCCURRED: a logical unit reset.
    UnitReset,
    /// I_T NEXUS LOSS OCCURRED.
    NexusLost,
    /// NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED.
    MediumChanged,
    /// CAPACITY DATA HAS CHANGED.
    CapacityChanged,
    /// MODE PARAMETERS CHANGED: also when the write protection of the header changes.
    ModeParametersChanged,
    /// LOG PARAMETERS CHANGED.
    LogParametersChanged,
    /// RESERVATIONS PREEMPTED.
    ReservationsPreempted,
    /// RESERVATIONS RELEASED.
    ReservationsReleased,
    /// REGISTRATIONS PREEMPTED.
    RegistrationsPreempted,
    /// ASYMMETRIC ACCESS STATE CHANGED.
    AccessStateChanged,
    /// INQUIRY DATA HAS CHANGED.
    InquiryChanged,
    /// REPORTED LUNS DATA HAS CHANGED.
    ReportedLunsChanged,
    /// THIN PROVISIONING SOFT THRESHOLD REACHED.
    ThinThreshold,
}

impl Attention {
    /// In the order of reporting.
    const ALL: [Self; 15] = [
        Self::PowerOn,
        Self::BusReset,
        Self::UnitReset,
        Self::NexusLost,
        Self::MediumChanged,
        Self::CapacityChanged,
        Self::ModeParametersChanged,
        Self::LogParametersChanged,
        Self::ReservationsPreempted,
        Self::ReservationsReleased,
        Self::RegistrationsPreempted,
        Self::AccessStateChanged,
        Self::InquiryChanged,
        Self::ReportedLunsChanged,
        Self::ThinThreshold,
    ];

    /// Additional sense code and qualifier (SPC-5 annex F).
    pub(crate) const fn sense(self) -> Sense {
        Sense::new(
            Key::UnitAttention,
            match self {
                Self::PowerOn => (0x29, 0x00),
                Self::BusReset => (0x29, 0x02),
                Self::UnitReset => (0x29, 0x03),
                Self::NexusLost => (0x29, 0x07),
                Self::MediumChanged => (0x28, 0x00),
                Self::CapacityChanged => (0x2A, 0x09),
                Self::ModeParametersChanged => (0x2A, 0x01),
                Self::LogParametersChanged => (0x2A, 0x02),
                Self::ReservationsPreempted => (0x2A, 0x03),
                Self::ReservationsReleased => (0x2A, 0x04),
                Self::RegistrationsPreempted => (0x2A, 0x05),
                Self::AccessStateChanged => (0x2A, 0x06),
                Self::InquiryChanged => (0x3F, 0x03),
                Self::ReportedLunsChanged => (0x3F, 0x0E),
                Self::ThinThreshold => (0x38, 0x07),
            },
        )
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// The conditions pending for one nexus at one LUN, each at most once. Looking costs one relaxed load while there
/// are none.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    conditions: AtomicU32,
}

impl Pending {
    /// The condition has to be reported from now on.
    pub(crate) fn establish(&self, attention: Attention) {
        self.conditions.fetch_or(attention.bit(), Ordering::Release);
    }

    /// The condition need not be reported any more: the initiator has seen for itself (SPC-5 6.34, REPORT LUNS).
    pub(crate) fn clear(&self, attention: Attention) {
        self.conditions.fetch_and(!attention.bit(), Ordering::AcqRel);
    }

    /// Takes the condition to report next.
    pub(crate) fn take(&self) -> Option<Attention> {
        let mut pending = self.conditions.load(Ordering::Relaxed);
        while pending != 0 {
            let first = pending & pending.wrapping_neg();
            // Who clears the bit reports it: two commands of one nexus may come here at the same time.
            pending = self.conditions.fetch_and(!first, Ordering::AcqRel);
            if pending & first != 0 {
                return Attention::ALL.get(first.trailing_zeros() as usize).copied();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_reported_once_and_in_order() {
        let pending = Pending::default();
        for attention in Attention::ALL.iter().rev() {
            pending.establish(*attention);
            pending.establish(*attention);
        }
        let reported: Vec<_> = std::iter::from_fn(|| pending.take()).collect();
        assert_eq!(reported, Attention::ALL);
        assert!(reported.is_sorted());
        assert_eq!(pending.take(), None);
    }

    #[test]
    fn what_was_seen_is_not_reported() {
        let pending = Pending::default();
        pending.establish(Attention::ReportedLunsChanged);
        pending.establish(Attention::UnitReset);
        pending.clear(Attention::ReportedLunsChanged);
        assert_eq!(pending.take(), Some(Attention::UnitReset));
        assert_eq!(pending.take(), None);
    }
}
