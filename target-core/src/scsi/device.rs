//! A device is the LUNs of one target; a nexus is one initiator's way to them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use super::attention::{Attention, Pending};
use super::execute::Execution;
use super::generation::{Drain, Generations, Pending as Leaving};
use super::ports::TargetPort;
use super::request::Request;
use super::reservations::Reservations;
use super::sense::Sense;
use super::table::{self, Access};
use super::unit::LogicalUnit;
use super::{Prepared, Response, Status, absent};
use crate::lun::{MediumError, Wait};

/// Largest LUN that flat space addressing can name (SAM-6 4.7.7.3).
const MAX_LUN: u16 = 0x3FFF;

/// What an initiator may do at a LUN that it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// What is at a LUN.
#[derive(Debug, Clone)]
pub enum Slot {
    /// A unit in service.
    Online(Arc<LogicalUnit>),
    /// Nothing for now: the LUN is there and not ready.
    Offline,
}

/// What is where.
pub(super) type Slots = BTreeMap<u16, Slot>;

/// What one nexus may do at each LUN: `None` for those it does not see.
pub type View<'a> = &'a dyn Fn(u16) -> Option<Mode>;

/// Who wants to know when the LUNs of a device change.
pub trait Observer: Send + Sync {
    /// There are other LUNs now.
    fn luns_changed(&self);
}

/// The LUNs of one target.
pub struct Device {
    id: u64,
    slots: RwLock<Arc<Slots>>,
    /// Portal group tags of all its ports.
    target_ports: RwLock<Arc<Vec<u16>>>,
    observers: Mutex<Vec<Weak<dyn Observer>>>,
    /// Persistent reservations of units that are offline, with the serial number they belong to.
    kept: Mutex<BTreeMap<u16, (String, Reservations)>>,
}

/// No LUN of the device would have this initiator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("LUN {lun} is in use by {holder} and not shared")]
pub struct Refused {
    /// The first LUN that refused.
    pub lun: u16,
    /// Name of the initiator that holds it.
    pub holder: String,
}

/// Why the LUNs cannot be changed like that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is something at this LUN already.
    #[error("there is a LUN {0} already")]
    Taken(u16),
    /// There is nothing at this LUN.
    #[error("there is no LUN {0}")]
    Missing(u16),
    /// LUNs go up to 16383.
    #[error("LUN {0} cannot be addressed: LUNs go up to 16383")]
    TooLarge(u16),
    /// It is in service.
    #[error("LUN {0} is online")]
    Online(u16),
    /// It is out of service already.
    #[error("LUN {0} is offline")]
    Offline(u16),
    /// A nexus reaches it, or commands of one that is gone still run.
    #[error("LUN {lun} is in use by {holder}")]
    InUse {
        /// The LUN.
        lun: u16,
        /// Name of the initiator.
        holder: String,
    },
}

impl Device {
    /// A device of these LUNs. LUNs above 16383 cannot be addressed and are left out.
    pub fn new(luns: BTreeMap<u16, Arc<LogicalUnit>>) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let mut slots = Slots::new();
        for (lun, unit) in luns {
            if lun <= MAX_LUN {
                unit.put_into_service((id, lun));
                slots.insert(lun, Slot::Online(unit));
            } else {
                tracing::warn!(lun, "a LUN above 16383 cannot be addressed; it is not exported");
            }
        }
        Arc::new(Self {
            id,
            slots: RwLock::new(Arc::new(slots)),
            target_ports: RwLock::default(),
            observers: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    /// What is at every LUN.
    pub fn slots(&self) -> Arc<BTreeMap<u16, Slot>> {
        Arc::clone(&self.slots.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The LUNs that are online and what is behind them.
    pub fn luns(&self) -> BTreeMap<u16, Arc<LogicalUnit>> {
        let online = |(lun, slot): (&u16, &Slot)| match slot {
            Slot::Online(unit) => Some((*lun, Arc::clone(unit))),
            Slot::Offline => None,
        };
        self.slots().iter().filter_map(online).collect()
    }

    /// The unit at a LUN, if there is one and it is online.
    pub fn unit(&self, lun: u16) -> Option<Arc<LogicalUnit>> {
        match self.slots().get(&lun) {
            Some(Slot::Online(unit)) => Some(Arc::clone(unit)),
            _ => None,
        }
    }

    /// Puts a unit where there is nothing yet.
    ///
    /// # Errors
    /// There is something at this LUN, or it cannot be addressed.
    pub fn insert(&self, lun: u16, unit: Arc<LogicalUnit>) -> Result<(), ChangeError> {
        if lun > MAX_LUN {
            return Err(ChangeError::TooLarge(lun));
        }
        self.change(|slots| match slots.contains_key(&lun) {
            true => Err(ChangeError::Taken(lun)),
            false => {
                unit.put_into_service((self.id, lun));
                slots.insert(lun, Slot::Online(unit));
                Ok(())
            }
        })
    }

    /// Puts a LUN that is out of service where there is nothing yet.
    ///
    /// # Errors
    /// There is something at this LUN, or it cannot be addressed.
    pub fn insert_offline(&self, lun: u16) -> Result<(), ChangeError> {
        if lun > MAX_LUN {
            return Err(ChangeError::TooLarge(lun));
        }
        self.change(|slots| match slots.contains_key(&lun) {
            true => Err(ChangeError::Taken(lun)),
            false => {
                slots.insert(lun, Slot::Offline);
                Ok(())
            }
        })
    }

    /// Takes a LUN away. Nothing of the unit begins any more; what runs is to be waited for before the medium
    /// is used for something else.
    ///
    /// # Errors
    /// There is nothing at this LUN.
    pub fn remove(&self, lun: u16) -> Result<Removal, ChangeError> {
        self.change(|slots| match slots.remove(&lun) {
            None => Err(ChangeError::Missing(lun)),
            Some(Slot::Online(unit)) => Ok(Removal::of_unit(unit, (self.id, lun))),
            Some(Slot::Offline) => {
                self.lock_kept().remove(&lun);
                Ok(Removal::of_nothing())
            }
        })
    }

    /// Puts another unit where one is: [`remove`](Self::remove) and [`insert`](Self::insert) with nothing in
    /// between.
    ///
    /// # Errors
    /// There is nothing at this LUN, it is offline, or this very unit is there.
    pub fn replace(&self, lun: u16, unit: Arc<LogicalUnit>) -> Result<Removal, ChangeError> {
        self.change(|slots| match slots.get_mut(&lun) {
            None => Err(ChangeError::Missing(lun)),
            Some(Slot::Offline) => Err(ChangeError::Offline(lun)),
            Some(Slot::Online(there)) if Arc::ptr_eq(there, &unit) => Err(ChangeError::Taken(lun)),
            Some(Slot::Online(there)) => {
                let old = std::mem::replace(there, Arc::clone(&unit));
                let removal = Removal::of_unit(old, (self.id, lun));
                unit.put_into_service((self.id, lun));
                Ok(removal)
            }
        })
    }

    /// Takes a LUN out of service: it stays in the list, and is not ready.
    ///
    /// # Errors
    /// There is no such LUN, it is offline already, or a nexus has it.
    pub fn set_offline(&self, lun: u16) -> Result<Removal, ChangeError> {
        self.change(|slots| match slots.get(&lun) {
            None => Err(ChangeError::Missing(lun)),
            Some(Slot::Offline) => Err(ChangeError::Offline(lun)),
            Some(Slot::Online(unit)) => {
                let was_last = unit
                    .take_out_of_unused_service((self.id, lun))
                    .map_err(|holder| ChangeError::InUse { lun, holder })?;
                let serial = unit.identity().serial.clone();
                let removal = Removal {
                    closed: was_last.then(|| unit.closed()),
                    unit: was_last.then(|| Arc::clone(unit)),
                    drain: Drain::default(),
                };
                if was_last {
                    self.lock_kept().insert(lun, (serial, unit.take_reservations()));
                }
                slots.insert(lun, Slot::Offline);
                Ok(removal)
            }
        })
    }

    /// Puts a LUN back into service. If it is the same by its serial number, persistent reservations are as they
    /// were.
    ///
    /// # Errors
    /// There is no such LUN, or it is not offline.
    pub fn set_online(&self, lun: u16, unit: Arc<LogicalUnit>) -> Result<(), ChangeError> {
        self.change(|slots| match slots.get(&lun) {
            None => Err(ChangeError::Missing(lun)),
            Some(Slot::Online(_)) => Err(ChangeError::Online(lun)),
            Some(Slot::Offline) => {
                if let Some((serial, reservations)) = self.lock_kept().remove(&lun)
                    && serial == unit.identity().serial
                {
                    unit.adopt_reservations(reservations);
                }
                unit.put_into_service((self.id, lun));
                slots.insert(lun, Slot::Online(unit));
                Ok(())
            }
        })
    }

    fn lock_kept(&self) -> MutexGuard<'_, BTreeMap<u16, (String, Reservations)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Slots) -> Result<T, ChangeError>) -> Result<T, ChangeError> {
        let result = {
            let mut current = self.slots.write().unwrap_or_else(PoisonError::into_inner);
            let mut slots = Slots::clone(&current);
            let result = change(&mut slots)?;
            *current = Arc::new(slots);
            result
        };
        self.tell_observers();
        Ok(result)
    }

    /// From now on `observer` hears of every change.
    pub fn observe(&self, observer: Weak<dyn Observer>) {
        let mut observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner);
        observers.retain(|observer| observer.strong_count() > 0);
        observers.push(observer);
    }

    fn tell_observers(&self) {
        let observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for observer in observers.iter().filter_map(Weak::upgrade) {
            observer.luns_changed();
        }
    }

    /// Relative identifiers of all target ports that lead to the device, in order.
    pub fn target_ports(&self) -> Arc<Vec<u16>> {
        Arc::clone(&self.target_ports.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets which target ports lead to the device.
    pub fn set_target_ports(&self, mut tags: Vec<u16>) {
        tags.sort_unstable();
        tags.dedup();
        *self.target_ports.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tags);
    }

    /// Registers an I_T nexus of the initiator called `initiator` that sees every LUN; `port` names its port, for
    /// iSCSI `iqn.…,i,0x` and the ISID in hex (RFC 7143 §4.4.3). See [`attach_to`](Self::attach_to).
    ///
    /// # Errors
    /// Another initiator holds every LUN.
    pub fn attach(self: &Arc<Self>, initiator: &str, port: &str) -> Result<Nexus, Refused> {
        self.attach_to(TargetPort::new("", 1), initiator, port, &|_| Some(Mode::ReadWrite))
    }

    /// Registers an I_T nexus between the initiator's `port` and one of our own, that sees what `view` says.
    /// Persistent reservations belong to the initiator's port: whoever comes back under the same one finds them
    /// again.
    ///
    /// A LUN held by another name is not admitted: most commands to it end in RESERVATION CONFLICT until the
    /// holder leaves. If that is every LUN there is, the nexus is refused.
    ///
    /// # Errors
    /// Another initiator holds every LUN.
    pub fn attach_to(
        self: &Arc<Self>,
        target_port: TargetPort,
        initiator: &str,
        port: &str,
        view: View<'_>,
    ) -> Result<Nexus, Refused> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let mut nexus = Nexus {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            initiator: initiator.into(),
            port: port.into(),
            target_port,
            paths: Vec::new(),
            offline: Vec::new(),
            device: Arc::clone(self),
        };
        nexus.look(view, |_| {});
        match nexus.paths.first() {
            Some(first) if nexus.paths.iter().all(|path| !path.is_admitted()) => Err(Refused {
                lun: first.lun,
                holder: first.unit.holder().unwrap_or_default(),
            }),
            _ => Ok(nexus),
        }
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

/// A unit that is not served any more. Nothing of it begins; what has begun is waited for, then it is flushed,
/// and its medium is closed when the last command that knows it is gone.
#[derive(Debug)]
pub struct Removal {
    drain: Drain,
    /// `None` when there is nothing to close: it was offline, or is in service elsewhere.
    unit: Option<Arc<LogicalUnit>>,
    closed: Option<Arc<AtomicBool>>,
}

impl Removal {
    fn of_unit(unit: Arc<LogicalUnit>, place: Place) -> Self {
        let (was_last, drain) = unit.take_out_of_service(place);
        Self {
            drain,
            closed: was_last.then(|| unit.closed()),
            unit: was_last.then_some(unit),
        }
    }

    fn of_nothing() -> Self {
        Self {
            drain: Drain::default(),
            unit: None,
            closed: None,
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
        match self.unit.take() {
            Some(unit) if !unit.is_read_only() => unit.medium().flush(Wait::Allowed),
            _ => Ok(()),
        }
    }

    /// Whether the medium is closed, and its lock with it. Not before [`flush`](Self::flush), for this holds it
    /// open as well.
    pub fn is_closed(&self) -> bool {
        self.closed.as_ref().is_none_or(|closed| closed.load(Ordering::Acquire))
    }
}

/// One nexus' way to one LUN.
#[derive(Debug)]
pub(super) struct Path {
    lun: u16,
    unit: Arc<LogicalUnit>,
    nexus_id: u64,
    initiator: Box<str>,
    port: Box<str>,
    device_id: u64,
    admitted: AtomicBool,
    read_only: AtomicBool,
    pending: Pending,
    generations: Arc<Generations>,
}

/// Where a unit is in service: the device, and the LUN.
pub(super) type Place = (u64, u16);

impl Path {
    fn register(lun: u16, unit: Arc<LogicalUnit>, nexus: &Nexus, mode: Mode) -> Arc<Self> {
        let path = Arc::new(Self {
            lun,
            unit,
            nexus_id: nexus.id,
            initiator: nexus.initiator.clone(),
            port: nexus.port.clone(),
            admitted: AtomicBool::new(false),
            read_only: AtomicBool::new(mode == Mode::ReadOnly),
            device_id: nexus.device.id,
            generations: Arc::default(),
            pending: Pending::default(),
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
        &self.port
    }

    /// CHECK CONDITION, its sense data in the format that the unit is set to.
    pub(super) fn check(&self, sense: Sense) -> Response {
        Response::check_as(sense, self.unit.modes().sense_format())
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

    fn set_mode(&self, mode: Mode) {
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

    fn is_in_service(&self) -> bool {
        self.generations.current().is_some()
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
    fn admit(self: &Arc<Self>) -> bool {
        self.is_admitted() || self.unit.admit(self)
    }

    pub(super) fn set_admitted(&self) {
        self.admitted.store(true, Ordering::Release);
    }
}

/// An I_T nexus: commands of one initiator port. Dropping it detaches it.
#[derive(Debug)]
pub struct Nexus {
    id: u64,
    device: Arc<Device>,
    initiator: Box<str>,
    port: Box<str>,
    target_port: TargetPort,
    /// In LUN order.
    paths: Vec<Arc<Path>>,
    /// LUNs it may see that are not in service, in order.
    offline: Vec<u16>,
}

impl Nexus {
    /// The device it is attached to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The initiator port it was attached with.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Our port that it was attached to.
    pub fn target_port(&self) -> &TargetPort {
        &self.target_port
    }

    /// Relative identifiers of all target ports, its own among them, in order.
    pub fn target_ports(&self) -> Vec<u16> {
        let mut ports = Vec::clone(&self.device.target_ports());
        let own = self.target_port.relative();
        if let Err(at) = ports.binary_search(&own) {
            ports.insert(at, own);
        }
        ports
    }

    /// The LUNs it sees, in order, those that are offline among them.
    pub fn luns(&self) -> Vec<u16> {
        let mut luns: Vec<u16> = self.paths.iter().map(|path| path.lun).collect();
        luns.extend(&self.offline);
        luns.sort_unstable();
        luns
    }

    /// Looks at the LUNs of the device, and at what `view` says of them, anew. Returns the LUNs whose commands
    /// will not come to a good end any more: what was there is gone, or out of sight.
    pub fn refresh(&mut self, view: View<'_>) -> Vec<u16> {
        let before = self.luns();
        let lost = self.look(view, |path| {
            // Whatever was there under this number, if only as a LUN that is not ready, it is another unit.
            if before.binary_search(&path.lun).is_ok() {
                path.pending.establish(Attention::MediumChanged);
                path.pending.establish(Attention::InquiryChanged);
            }
        });
        if !lost.is_empty() || self.luns() != before {
            for path in &self.paths {
                path.pending.establish(Attention::ReportedLunsChanged);
            }
        }
        lost
    }

    fn look(&mut self, view: View<'_>, greet: impl Fn(&Path)) -> Vec<u16> {
        let mut old: BTreeMap<u16, Arc<Path>> = std::mem::take(&mut self.paths)
            .into_iter()
            .map(|path| (path.lun, path))
            .collect();
        self.offline.clear();
        for (&lun, slot) in self.device.slots().iter() {
            let Some(mode) = view(lun) else { continue };
            let Slot::Online(unit) = slot else {
                self.offline.push(lun);
                continue;
            };
            let kept = match old.remove(&lun) {
                Some(path) if Arc::ptr_eq(&path.unit, unit) && path.is_in_service() => Some(path),
                Some(other) => {
                    old.insert(lun, other);
                    None
                }
                None => None,
            };
            let path = match kept {
                Some(path) => {
                    path.set_mode(mode);
                    path
                }
                None => {
                    let path = Path::register(lun, Arc::clone(unit), self, mode);
                    greet(&path);
                    path
                }
            };
            self.paths.push(path);
        }
        for path in old.values() {
            path.unit.take_away(path);
        }
        old.into_keys().collect()
    }

    /// The initiator has seen the list of LUNs: it need not be told that it has changed (SAM-6 5.14.2).
    pub(super) fn forget_changed_luns(&self) {
        for path in &self.paths {
            path.pending.clear(Attention::ReportedLunsChanged);
        }
    }

    /// How commands to a LUN end that is not there, or not ready.
    pub fn answer_without_unit(&self, lun: [u8; 8], cdb: &[u8]) -> Response {
        let offline = absent::decode_lun(lun).is_some_and(|lun| self.offline.binary_search(&lun).is_ok());
        absent::answer(self, if offline { Sense::OFFLINE } else { Sense::NO_SUCH_LUN }, cdb)
    }

    /// How commands end whose LUN is not there any more, or is another now.
    pub fn lun_gone(&self, lun: [u8; 8]) -> Response {
        // TEST UNIT READY: what answers it needs a unit.
        self.answer_without_unit(lun, &[0])
    }

    /// Whether there is such a LUN.
    pub fn lun_exists(&self, lun: [u8; 8]) -> bool {
        self.path(lun).is_some()
    }

    /// Whether commands of this nexus are carried out at the LUN: false if another name holds it, or if there is
    /// no such LUN.
    pub fn is_admitted(&self, lun: [u8; 8]) -> bool {
        self.path(lun).is_some_and(Path::admit)
    }

    /// Parses and checks a command and reports unit attentions. Commands that need no medium are done here.
    pub fn prepare(&self, lun: [u8; 8], cdb: &[u8]) -> Prepared {
        let Some(path) = self.path(lun) else {
            return Prepared::Done(self.answer_without_unit(lun, cdb));
        };
        // Before anything is checked: what a reset changes from here on ends the command.
        let Some(generation) = path.generations.current() else {
            return Prepared::Done(path.answer_of_aborted());
        };
        let command = match table::find(cdb) {
            Ok(command) => command,
            Err(sense) => {
                let sense = path.pending.take().map_or(sense, Attention::sense);
                return Prepared::Done(path.check(sense));
            }
        };
        if command.access != Access::Always {
            if let Some(attention) = path.pending.take() {
                return Prepared::Done(path.check(attention.sense()));
            }
            if !path.unit.allow(path, path.admit(), command.access) {
                return Prepared::Done(Response::status(Status::ReservationConflict));
            }
        }
        if let Some(sense) = path.unit.upkeep().refusal(command.opcode) {
            return Prepared::Done(path.check(sense));
        }
        let plan = command.check(cdb).and_then(|cdb| {
            (command.plan)(&Request {
                cdb,
                nexus: self,
                path,
                unit: &path.unit,
            })
        });
        match plan {
            Ok(plan) => Execution::of_plan(Arc::clone(path), generation, plan),
            Err(sense) => Prepared::Done(path.check(sense)),
        }
    }

    /// LOGICAL UNIT RESET: commands prepared before it, by whichever nexus, do not begin any more, those that
    /// run are what the answer has to wait for; RESERVE (6) ends, and every nexus of the LUN hears of the reset,
    /// this one too (SAM-6 6.3.3). To be called once per reset, by the nexus that asks for it.
    ///
    /// `None`, and nothing has happened, if this nexus is not [admitted](Self::is_admitted) to such a LUN.
    pub fn reset_lun(&self, lun: [u8; 8]) -> Option<Drain> {
        let path = self.path(lun).filter(|path| path.admit())?;
        Some(path.unit.reset(path, Attention::UnitReset))
    }

    /// Target reset: the same for every LUN this nexus is admitted to.
    pub fn reset_target(&self) -> Vec<Drain> {
        self.paths
            .iter()
            .filter(|path| path.is_admitted())
            .map(|path| path.unit.reset(path, Attention::BusReset))
            .collect()
    }

    /// CLEAR TASK SET: commands prepared before it, by whichever nexus, do not begin any more, those that run are
    /// what the answer has to wait for. Who hears of it is told by
    /// [`tasks_cleared_by_other`](Self::tasks_cleared_by_other).
    ///
    /// `None`, and nothing has happened, if this nexus is not [admitted](Self::is_admitted) to such a LUN.
    pub fn clear_task_set(&self, lun: [u8; 8]) -> Option<Drain> {
        let path = self.path(lun).filter(|path| path.admit())?;
        Some(path.unit.abort(|_| true))
    }

    /// Commands of this nexus at the LUN were cleared by another one (CLEAR TASK SET, SAM-6 5.14): this nexus,
    /// and no other, will hear of it. To be called on the nexus whose commands they were.
    pub fn tasks_cleared_by_other(&self, lun: [u8; 8]) {
        if let Some(path) = self.path(lun) {
            path.pending.establish(Attention::CommandsCleared);
        }
    }

    fn path(&self, lun: [u8; 8]) -> Option<&Arc<Path>> {
        let lun = absent::decode_lun(lun)?;
        let index = self.paths.binary_search_by_key(&lun, |path| path.lun).ok()?;
        self.paths.get(index)
    }
}

impl Drop for Nexus {
    fn drop(&mut self) {
        for path in &self.paths {
            path.unit.detach(path);
        }
    }
}
