//! A device is the LUNs of one target, which may change while they are served.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use super::reservations::Reservations;
use super::unit::LogicalUnit;
use super::withdrawal::Removal;

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

    /// Tells it from others.
    pub(super) fn id(&self) -> u64 {
        self.id
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
                Ok(Removal::of_unused(None))
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
                let removal = Removal::of_unused(was_last.then(|| Arc::clone(unit)));
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
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}
