//! Persistent reservations that outlive the daemon (APTPL, SPC-5 5.13.5): what is kept, where, and when.

mod file;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use serde::{Deserialize, Serialize};

pub use file::FileStore;

use super::ports::{NexusName, TargetPort};
use super::reservations::{Kind, MAX_REGISTRANTS, Registrant, Reservations};
use super::unit::LogicalUnit;

/// What is kept of a unit's persistent reservations.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// Everybody who is registered.
    pub registrants: Vec<SavedRegistrant>,
    /// The reservation, if there is one.
    pub reservation: Option<SavedReservation>,
}

/// A registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedRegistrant {
    /// Name of the initiator port: `iqn.…,i,0x` and the ISID in hex.
    pub initiator_port: String,
    /// Name of the target.
    pub target: String,
    /// Portal group tag, which is the relative target port identifier.
    pub portal_group: u16,
    /// The reservation key.
    pub key: u64,
}

/// A reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedReservation {
    /// Its type, as SPC-5 table 58 numbers them.
    pub kind: u8,
    /// Which of the registrants holds it, counted from 0; `None` if all of them do.
    pub holder: Option<usize>,
}

/// Keeps the reservations of one logical unit.
pub trait ReservationStore: Send + Sync + std::fmt::Debug {
    /// What was kept last; `None` if nothing ever was.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written.
    fn load(&self) -> io::Result<Option<Saved>>;

    /// Keeps this in place of what was kept before. When it returns, it is on stable storage.
    ///
    /// # Errors
    /// It could not be kept.
    fn save(&self, saved: &Saved) -> io::Result<()>;
}

/// A unit's store, and the lock for who changes its persistent reservations: saving takes time, in which commands
/// still have to look at them.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    store: OnceLock<Arc<dyn ReservationStore>>,
    lock: Mutex<()>,
}

/// The right to change persistent reservations.
pub(super) struct Changing<'a> {
    keeper: &'a Keeper,
    _alone: MutexGuard<'a, ()>,
}

impl Keeper {
    /// Whether anything can be kept (PTPL_C).
    pub(super) fn has_store(&self) -> bool {
        self.store.get().is_some()
    }

    /// Waits for whoever has it now.
    pub(super) fn lock(&self) -> Changing<'_> {
        Changing {
            keeper: self,
            _alone: self.lock.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// `None` while another has it.
    pub(super) fn try_lock(&self) -> Option<Changing<'_>> {
        let alone = match self.lock.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Changing {
            keeper: self,
            _alone: alone,
        })
    }
}

impl Changing<'_> {
    /// Whether a change makes a difference to what is kept.
    pub(super) fn has_to_save(&self, before: &Reservations, after: &Reservations) -> bool {
        self.keeper.has_store() && saved(before) != saved(after)
    }

    /// Keeps the reservations as they will be. If that fails, what is kept is put back to what it was as well as
    /// that goes.
    pub(super) fn save(&self, before: &Reservations, after: &Reservations) -> io::Result<()> {
        let Some(store) = self.keeper.store.get() else {
            return Ok(());
        };
        store.save(&saved(after)).inspect_err(|_| {
            let _the_first_failure_counts = store.save(&saved(before));
        })
    }
}

impl LogicalUnit {
    /// Has this unit's persistent reservations kept in `store` from now on, and takes over what is there. To be
    /// called once, before anybody is attached.
    ///
    /// # Errors
    /// What is kept cannot be read or makes no sense. It is left as it is: to serve the unit without it could give
    /// two initiators what only one may have.
    pub fn keep_reservations(&self, store: Arc<dyn ReservationStore>) -> io::Result<()> {
        let restored = store.load()?.as_ref().map(restored).transpose()?;
        if self.keeper.store.set(store).is_err() {
            return Err(io::Error::other("the unit has a store for its reservations already"));
        }
        match restored {
            Some(reservations) if !reservations.registrants().is_empty() => {
                tracing::info!(
                    serial = self.identity().serial,
                    registrations = reservations.registrants().len(),
                    "persistent reservations are as they were"
                );
                self.adopt_reservations(reservations);
            }
            _ => {}
        }
        Ok(())
    }
}

/// What there is to be kept: nothing unless the last registration asked for it (APTPL).
fn saved(reservations: &Reservations) -> Saved {
    if !reservations.is_kept() {
        return Saved::default();
    }
    let registrants = reservations.registrants();
    let save = |registrant: &Registrant| SavedRegistrant {
        initiator_port: registrant.nexus.initiator_port.to_string(),
        target: registrant.nexus.target_port.target().to_owned(),
        portal_group: registrant.nexus.target_port.relative(),
        key: registrant.key,
    };
    let place = |nexus: &NexusName| registrants.iter().position(|registrant| registrant.nexus == *nexus);
    Saved {
        registrants: registrants.iter().map(save).collect(),
        reservation: reservations.held().map(|(kind, holder)| SavedReservation {
            kind: *kind as u8,
            holder: holder.as_ref().and_then(place),
        }),
    }
}

/// The reservations as they were kept, if that can be.
fn restored(saved: &Saved) -> io::Result<Reservations> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("saved reservations: {what}"));
    if saved.registrants.len() > MAX_REGISTRANTS {
        return Err(wrong("too many registrations"));
    }
    let mut registrants: Vec<Registrant> = Vec::new();
    for registrant in &saved.registrants {
        if registrant.key == 0 || registrant.portal_group == 0 || registrant.initiator_port.is_empty() {
            return Err(wrong("a registration without key, port or portal group"));
        }
        let target_port = TargetPort::new(&registrant.target, registrant.portal_group);
        let nexus = NexusName::new(&registrant.initiator_port, target_port);
        if registrants.iter().any(|other| other.nexus == nexus) {
            return Err(wrong("a nexus is registered twice"));
        }
        registrants.push(Registrant {
            nexus,
            key: registrant.key,
        });
    }
    let held = match &saved.reservation {
        None => None,
        Some(reservation) => {
            let kind = Kind::from_bits(reservation.kind).ok_or_else(|| wrong("no such type"))?;
            let holder = match reservation.holder {
                Some(place) => Some(
                    registrants
                        .get(place)
                        .ok_or_else(|| wrong("the holder is not registered"))?,
                ),
                None => None,
            };
            if registrants.is_empty() || holder.is_some() == kind.is_all_registrants() {
                return Err(wrong("the holder does not fit the type"));
            }
            Some((kind, holder.map(|holder| holder.nexus.clone())))
        }
    };
    Ok(Reservations::restored(registrants, held))
}
