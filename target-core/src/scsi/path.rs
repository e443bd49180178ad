//! One nexus' way to one LUN: who comes by it, what they may do, and which of their commands may begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Response;
use super::attention::{Attention, Pending};
use super::device::Mode;
use super::generation::{Generations, Pending as Leaving};
use super::log::Counters;
use super::nexus::Nexus;
use super::ports::NexusName;
use super::sense::Sense;
use super::unit::LogicalUnit;

/// One nexus' way to one LUN.
#[derive(Debug)]
pub(super) struct Path {
    lun: u16,
    unit: Arc<LogicalUnit>,
    nexus_id: u64,
    initiator: Box<str>,
    name: NexusName,
    device_id: u64,
    admitted: AtomicBool,
    read_only: AtomicBool,
    pending: Pending,
    generations: Arc<Generations>,
    counters: Counters,
}

/// Where a unit is in service: the device, and the LUN.
pub(super) type Place = (u64, u16);

impl Path {
    pub(super) fn register(lun: u16, unit: Arc<LogicalUnit>, nexus: &Nexus, mode: Mode) -> Arc<Self> {
        let path = Arc::new(Self {
            lun,
            unit,
            nexus_id: nexus.id(),
            initiator: nexus.initiator().into(),
            name: NexusName::new(nexus.port(), nexus.target_port().clone()),
            admitted: AtomicBool::new(false),
            read_only: AtomicBool::new(mode == Mode::ReadOnly),
            device_id: nexus.device().id(),
            generations: Arc::default(),
            pending: Pending::default(),
            counters: Counters::default(),
        });
        path.unit.register(&path);
        path
    }

    pub(super) fn lun(&self) -> u16 {
        self.lun
    }

    pub(super) fn unit_shared(&self) -> &Arc<LogicalUnit> {
        &self.unit
    }

    pub(super) fn unit(&self) -> &LogicalUnit {
        &self.unit
    }

    pub(super) fn nexus_id(&self) -> u64 {
        self.nexus_id
    }

    pub(super) fn initiator(&self) -> &str {
        &self.initiator
    }

    pub(super) fn port(&self) -> &str {
        &self.name.initiator_port
    }

    /// The nexus by the names of its ports.
    pub(super) fn name(&self) -> &NexusName {
        &self.name
    }

    /// CHECK CONDITION, its sense data in the format that the unit is set to.
    pub(super) fn check(&self, sense: Sense) -> Response {
        Response::check_as(sense, self.unit.modes().sense_format())
    }

    /// What its commands have done.
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Whether this nexus may not write: because nobody may, or because it in particular may not.
    pub(super) fn is_write_protected(&self) -> bool {
        self.read_only.load(Ordering::SeqCst) || self.unit.is_read_only()
    }

    /// Refuses what changes the medium where nothing may be changed.
    pub(super) fn check_writable(&self) -> Result<(), Sense> {
        if self.is_write_protected() {
            Err(Sense::WRITE_PROTECTED)
        } else if self.unit.modes().is_write_protected() {
            Err(Sense::SOFTWARE_WRITE_PROTECTED)
        } else {
            Ok(())
        }
    }

    /// Refuses what would keep others from their work if this nexus in particular may only read.
    pub(super) fn check_may_change(&self) -> Result<(), Sense> {
        if self.read_only.load(Ordering::SeqCst) {
            Err(Sense::WRITE_PROTECTED)
        } else {
            Ok(())
        }
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        let read_only = mode == Mode::ReadOnly;
        if self.read_only.swap(read_only, Ordering::SeqCst) != read_only {
            self.pending.establish(Attention::ModeParametersChanged);
        }
    }

    pub(super) fn place(&self) -> Place {
        (self.device_id, self.lun)
    }

    /// Which of its commands may begin.
    pub(super) fn generations(&self) -> &Arc<Generations> {
        &self.generations
    }

    /// Nothing begins here any more. The caller holds the unit's lock.
    pub(super) fn retire(&self) -> Leaving {
        self.generations.retire()
    }

    pub(super) fn is_in_service(&self) -> bool {
        !self.generations.is_retired()
    }

    /// How a command ends that was aborted before it began.
    pub(super) fn answer_of_aborted(&self) -> Response {
        if self.is_in_service() {
            Response::task_aborted()
        } else {
            self.check(Sense::NO_SUCH_LUN)
        }
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Acquire)
    }

    /// Whether commands may be carried out; admits a path that was not, now that the holder may have left.
    pub(super) fn admit(self: &Arc<Self>) -> bool {
        self.is_admitted() || self.unit.admit(self)
    }

    pub(super) fn set_admitted(&self) {
        self.admitted.store(true, Ordering::Release);
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.unit.log().keep(&self.counters);
    }
}
