//! Ejecting and loading the medium of a removable unit, and who forbids it.
//!
//! The file or device stays open, and locked, while the medium is out: nobody else gets hold of it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::attention::Attention;
use super::execute::{Failure, Job, Outcome};
use super::path::Path;
use super::sense::Sense;
use super::unit::LogicalUnit;
use super::upkeep::{EJECTED, SANITIZING};
use crate::lun::Wait;

/// Who prevents the medium from being removed.
#[derive(Debug, Default)]
pub(super) struct Removal {
    /// Nexus ids.
    prevented_by: Mutex<BTreeSet<u64>>,
}

impl Removal {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeSet<u64>) -> T) -> T {
        work(&mut self.prevented_by.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// PREVENT ALLOW MEDIUM REMOVAL by a nexus (SPC-5 6.16).
    pub(super) fn prevent(&self, nexus_id: u64, prevent: bool) {
        self.with(|nexuses| {
            if prevent {
                nexuses.insert(nexus_id);
            } else {
                nexuses.remove(&nexus_id);
            }
        });
    }

    /// After a reset nobody prevents anything.
    pub(super) fn reset(&self) {
        self.with(BTreeSet::clear);
    }
}

/// Once everybody else is out, so that nothing is written to a medium that is not in.
pub(super) fn eject(job: &Job<'_>, flush: bool) -> Outcome {
    if job.wait == Wait::Never {
        return Err(Failure::WouldBlock);
    }
    let unit = job.path.unit();
    let everything = unit
        .upkeep()
        .ranges()
        .exclude(&(0..u64::MAX), || job.check_cancelled().is_ok())?;
    if flush {
        job.flush()?;
    }
    unit.eject()?;
    drop(everything);
    Ok(Vec::new())
}

impl LogicalUnit {
    /// Whether the medium is in.
    pub fn is_loaded(&self) -> bool {
        !self.upkeep().is(EJECTED)
    }

    /// Takes the medium out, unless a nexus forbids it. Commands then end in MEDIUM NOT PRESENT.
    pub(super) fn eject(&self) -> Result<(), Sense> {
        let removal = self.upkeep().removal();
        removal.with(|nexuses| {
            if !nexuses.is_empty() {
                return Err(Sense::REMOVAL_PREVENTED);
            }
            if self.upkeep().enter(EJECTED, SANITIZING) {
                Ok(())
            } else {
                Err(self.upkeep().sanitize().in_progress())
            }
        })
    }

    /// Puts the medium back in, unless a nexus forbids that it moves. Every nexus but the one that did it hears of it.
    pub(super) fn load(&self, path: &Path) -> Result<(), Sense> {
        if self.is_loaded() {
            return Ok(());
        }
        if self.upkeep().removal().with(|nexuses| !nexuses.is_empty()) {
            return Err(Sense::REMOVAL_PREVENTED);
        }
        self.upkeep().exchange(EJECTED, 0);
        self.tell_others(path, Attention::MediumChanged);
        Ok(())
    }
}
