//! What is going on at a unit's medium: who is at which blocks, whether it is in, being sanitized, or nearly full.

use std::sync::atomic::{AtomicU8, Ordering};

use super::copy::Results;
use super::ranges::Ranges;
use super::removal::Removal;
use super::sanitize::Sanitize;
use super::sense::Sense;
use super::thin::Thresholds;

/// What a unit offers beyond its medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MediumOptions {
    /// RMB: the medium can be ejected and loaded again.
    pub removable: bool,
    /// Offer EXTENDED COPY from and to this unit.
    pub copy_offload: bool,
    /// Tell initiators once so much of the storage underneath is used, in percent of all of it.
    pub threshold_percent: Option<u8>,
    /// Do not offer UNMAP, only WRITE SAME that unmaps (LBPU=0, LBPWS=1).
    pub no_unmap_command: bool,
    /// Do not promise that unmapped blocks read as zeroes (LBPRZ=0), even where they do.
    pub unmapped_reads_anything: bool,
}

/// The medium has been ejected.
pub(super) const EJECTED: u8 = 0x01;
/// A sanitize operation runs.
pub(super) const SANITIZING: u8 = 0x02;
/// The last sanitize operation failed.
pub(super) const SANITIZE_FAILED: u8 = 0x04;

/// INQUIRY, REQUEST SENSE, MODE SENSE, LOG SENSE, PERSISTENT RESERVE IN, REPORT LUNS and MAINTENANCE IN: what is
/// answered in every state (SBC-4 4.11.2).
const ALWAYS: [u8; 8] = [0x12, 0x03, 0x1A, 0x5A, 0x4D, 0x5E, 0xA0, 0xA3];
/// What does not need a medium: PREVENT ALLOW, START STOP UNIT, MODE SELECT, LOG SELECT, and reservations.
const WITHOUT_MEDIUM: [u8; 10] = [0x1E, 0x1B, 0x15, 0x55, 0x4C, 0x5F, 0x16, 0x17, 0x56, 0x57];
/// SANITIZE.
pub(super) const SANITIZE: u8 = 0x48;

/// The state of a unit's medium.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    options: MediumOptions,
    trouble: AtomicU8,
    ranges: Ranges,
    sanitize: Sanitize,
    removal: Removal,
    thresholds: Thresholds,
    copies: Results,
}

impl Upkeep {
    pub(super) fn new(options: MediumOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    pub(super) fn options(&self) -> MediumOptions {
        self.options
    }

    pub(super) fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    pub(super) fn sanitize(&self) -> &Sanitize {
        &self.sanitize
    }

    pub(super) fn removal(&self) -> &Removal {
        &self.removal
    }

    pub(super) fn copies(&self) -> &Results {
        &self.copies
    }

    pub(super) fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// Whether any of these holds.
    pub(super) fn is(&self, trouble: u8) -> bool {
        self.trouble.load(Ordering::SeqCst) & trouble != 0
    }

    /// Sets what is in `to`, if none of `unless` holds.
    pub(super) fn enter(&self, to: u8, unless: u8) -> bool {
        self.trouble
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
                (now & unless == 0).then_some(now | to)
            })
            .is_ok()
    }

    /// Ends `from` and begins `to` in one.
    pub(super) fn exchange(&self, from: u8, to: u8) {
        // Never an error: there always is a new value.
        let _ = self
            .trouble
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now & !from | to));
    }

    /// Why a command cannot be carried out now, if it cannot. Costs one load while all is well.
    pub(super) fn refusal(&self, opcode: u8) -> Option<Sense> {
        let trouble = self.trouble.load(Ordering::SeqCst);
        if trouble == 0 || ALWAYS.contains(&opcode) {
            return None;
        }
        if trouble & SANITIZING != 0 {
            return Some(self.sanitize.in_progress());
        }
        if trouble & SANITIZE_FAILED != 0 {
            return (opcode != SANITIZE && !WITHOUT_MEDIUM.contains(&opcode)).then_some(Sense::SANITIZE_FAILED);
        }
        (!WITHOUT_MEDIUM.contains(&opcode)).then_some(Sense::NO_MEDIUM)
    }

    /// What REQUEST SENSE tells when no unit attention is pending.
    pub(super) fn present_sense(&self) -> Option<Sense> {
        // As TEST UNIT READY would be refused.
        self.refusal(0x00)
    }

    /// Ends what runs in the background, and waits for it.
    pub(super) fn stop(&self) {
        self.sanitize.stop();
    }
}
