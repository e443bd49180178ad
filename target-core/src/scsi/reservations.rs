//! Who holds a reservation, and what that lets others do (SPC-5 5.13, SPC-2 5.5.1). No bytes, no locks.

use super::attention::Attention;
use super::table::Access;

/// Initiator ports that may be registered with one unit.
const MAX_REGISTRANTS: usize = 64;

/// Persistent reservation types (SPC-5 table 58).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    WriteExclusive = 0x1,
    ExclusiveAccess = 0x3,
    WriteExclusiveRegistrantsOnly = 0x5,
    ExclusiveAccessRegistrantsOnly = 0x6,
    WriteExclusiveAllRegistrants = 0x7,
    ExclusiveAccessAllRegistrants = 0x8,
}

impl Kind {
    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x1 => Self::WriteExclusive,
            0x3 => Self::ExclusiveAccess,
            0x5 => Self::WriteExclusiveRegistrantsOnly,
            0x6 => Self::ExclusiveAccessRegistrantsOnly,
            0x7 => Self::WriteExclusiveAllRegistrants,
            0x8 => Self::ExclusiveAccessAllRegistrants,
            _ => return None,
        })
    }

    /// Every registrant holds it.
    fn is_all_registrants(self) -> bool {
        matches!(
            self,
            Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants
        )
    }

    /// Registrants may do all that the holder may.
    fn admits_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    /// Everyone may read.
    fn admits_readers(self) -> bool {
        matches!(
            self,
            Self::WriteExclusive | Self::WriteExclusiveRegistrantsOnly | Self::WriteExclusiveAllRegistrants
        )
    }
}

/// A registered initiator port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registrant {
    pub(super) port: Box<str>,
    pub(super) key: u64,
}

/// What PERSISTENT RESERVE OUT asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// `existing` is the key that must be registered now (zero: none); `None` does not care.
    Register {
        existing: Option<u64>,
        new_key: u64,
    },
    Reserve {
        key: u64,
        kind: Kind,
    },
    Release {
        key: u64,
        kind: Kind,
    },
    Clear {
        key: u64,
    },
    Preempt {
        key: u64,
        victim: u64,
        kind: Kind,
    },
}

/// Why it is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// RESERVATION CONFLICT.
    Conflict,
    /// The reservation to be released is of another type.
    WrongType,
    /// PREEMPT of key zero where that means nobody.
    NoVictim,
    /// No room for another registration.
    TooMany,
}

/// The reservations of one logical unit.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    generation: u32,
    registrants: Vec<Registrant>,
    /// The type, and the port that holds it: none if all registrants do.
    held: Option<(Kind, Option<Box<str>>)>,
    /// Nexus that holds the unit by RESERVE (6).
    unit_holder: Option<u64>,
    /// What ports have to hear of, until it is collected.
    news: Vec<(Box<str>, Attention)>,
}

impl Reservations {
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn registrants(&self) -> &[Registrant] {
        &self.registrants
    }

    /// Whether any command might be refused.
    pub(super) fn is_any(&self) -> bool {
        self.held.is_some() || self.unit_holder.is_some()
    }

    /// Type and key of the persistent reservation; all registrants have key zero (SPC-5 6.14.3.2).
    pub(super) fn holder(&self) -> Option<(Kind, u64)> {
        let (kind, port) = self.held.as_ref()?;
        Some((*kind, port.as_deref().and_then(|port| self.key_of(port)).unwrap_or(0)))
    }

    /// The reservation that a port holds, alone or with all registrants.
    pub(super) fn held_by(&self, port: &str) -> Option<Kind> {
        let (kind, holder) = self.held.as_ref()?;
        let holds = match holder {
            Some(holder) => **holder == *port,
            None => self.key_of(port).is_some(),
        };
        holds.then_some(*kind)
    }

    /// Whether a command may be carried out now.
    pub(super) fn allow(&self, nexus: u64, port: &str, access: Access) -> bool {
        if self.unit_holder.is_some_and(|holder| holder != nexus) {
            return matches!(access, Access::Always | Access::Release);
        }
        let Some((kind, _)) = self.held else { return true };
        match access {
            Access::Always | Access::Harmless | Access::Release | Access::Reserve => true,
            _ if self.held_by(port).is_some() => true,
            _ if kind.admits_registrants() && self.key_of(port).is_some() => true,
            Access::Read => kind.admits_readers(),
            Access::Write => false,
        }
    }

    /// RESERVE (6): refused while another nexus holds the unit or ports are registered (SPC-5 5.13.3).
    pub(super) fn reserve_unit(&mut self, nexus: u64) -> bool {
        let free = self.registrants.is_empty() && self.unit_holder.is_none_or(|holder| holder == nexus);
        if free {
            self.unit_holder = Some(nexus);
        }
        free
    }

    /// RELEASE (6), or the end of the nexus.
    pub(super) fn release_unit(&mut self, nexus: u64) {
        if self.unit_holder == Some(nexus) {
            self.unit_holder = None;
        }
    }

    /// A reset of the unit ends what RESERVE (6) began; persistent reservations stay.
    pub(super) fn reset(&mut self) {
        self.unit_holder = None;
    }

    /// The unit attentions that have become due.
    pub(super) fn take_news(&mut self) -> Vec<(Box<str>, Attention)> {
        std::mem::take(&mut self.news)
    }

    /// PERSISTENT RESERVE OUT by a port.
    pub(super) fn apply(&mut self, port: &str, operation: Operation) -> Result<(), Denied> {
        match operation {
            Operation::Register { existing, new_key } => self.register(port, existing, new_key),
            Operation::Reserve { key, kind } => {
                self.check_key(port, key)?;
                self.reserve(port, kind)
            }
            Operation::Release { key, kind } => {
                self.check_key(port, key)?;
                self.release(port, kind)
            }
            Operation::Clear { key } => {
                self.check_key(port, key)?;
                self.tell_others(port, Attention::ReservationsPreempted);
                self.registrants.clear();
                self.held = None;
                self.bump();
                Ok(())
            }
            Operation::Preempt { key, victim, kind } => {
                self.check_key(port, key)?;
                self.preempt(port, victim, kind)
            }
        }
    }

    fn register(&mut self, port: &str, existing: Option<u64>, new_key: u64) -> Result<(), Denied> {
        let index = self.registrants.iter().position(|registrant| *registrant.port == *port);
        let registered = index.map_or(0, |index| self.registrants[index].key);
        if existing.is_some_and(|existing| existing != registered) {
            return Err(Denied::Conflict);
        }
        match (index, new_key) {
            (None, 0) => return Ok(()),
            (None, key) if self.registrants.len() < MAX_REGISTRANTS => {
                self.registrants.push(Registrant { port: port.into(), key });
            }
            (None, _) => return Err(Denied::TooMany),
            (Some(index), 0) => self.unregister(index),
            (Some(index), key) => self.registrants[index].key = key,
        }
        self.bump();
        Ok(())
    }

    fn unregister(&mut self, index: usize) {
        let leaving = self.registrants.remove(index);
        let ends = match &self.held {
            Some((_, Some(holder))) => *holder == leaving.port,
            Some((_, None)) => self.registrants.is_empty(),
            None => false,
        };
        if ends {
            self.end_reservation(&leaving.port);
        }
    }

    fn reserve(&mut self, port: &str, kind: Kind) -> Result<(), Denied> {
        match (&self.held, self.held_by(port)) {
            (None, _) => {
                self.hold(port, kind);
                Ok(())
            }
            (Some(_), Some(held)) if held == kind => Ok(()),
            _ => Err(Denied::Conflict),
        }
    }

    fn release(&mut self, port: &str, kind: Kind) -> Result<(), Denied> {
        match self.held_by(port) {
            None => Ok(()),
            Some(held) if held != kind => Err(Denied::WrongType),
            Some(_) => {
                self.end_reservation(port);
                Ok(())
            }
        }
    }

    fn preempt(&mut self, port: &str, victim: u64, kind: Kind) -> Result<(), Denied> {
        let all_hold = matches!(self.held, Some((_, None)));
        if victim == 0 && !all_hold {
            return Err(Denied::NoVictim);
        }
        if victim != 0 && !self.registrants.iter().any(|registrant| registrant.key == victim) {
            return Err(Denied::Conflict);
        }
        let takes_over = match self.holder() {
            Some(_) if all_hold => victim == 0,
            Some((_, key)) => key == victim,
            None => false,
        };
        let mut news = Vec::new();
        self.registrants.retain(|registrant| {
            let stays = *registrant.port == *port || (victim != 0 && registrant.key != victim);
            if !stays {
                news.push((registrant.port.clone(), Attention::RegistrationsPreempted));
            }
            stays
        });
        if takes_over {
            if self.held.as_ref().is_some_and(|(held, _)| *held != kind) {
                let others = self.registrants.iter().filter(|registrant| *registrant.port != *port);
                news.extend(others.map(|registrant| (registrant.port.clone(), Attention::ReservationsReleased)));
            }
            self.hold(port, kind);
        }
        self.news.extend(news);
        self.bump();
        Ok(())
    }

    fn hold(&mut self, port: &str, kind: Kind) {
        self.held = Some((kind, (!kind.is_all_registrants()).then(|| port.into())));
    }

    /// Ends the persistent reservation; the registrants that lived under it hear of it (SPC-5 5.13.11.2).
    fn end_reservation(&mut self, by: &str) {
        if let Some((kind, _)) = self.held.take()
            && kind.admits_registrants()
        {
            self.tell_others(by, Attention::ReservationsReleased);
        }
    }

    fn tell_others(&mut self, port: &str, attention: Attention) {
        let others = self.registrants.iter().filter(|registrant| *registrant.port != *port);
        self.news
            .extend(others.map(|registrant| (registrant.port.clone(), attention)));
    }

    fn check_key(&self, port: &str, key: u64) -> Result<(), Denied> {
        if self.key_of(port) == Some(key) {
            Ok(())
        } else {
            Err(Denied::Conflict)
        }
    }

    fn key_of(&self, port: &str) -> Option<u64> {
        self.registrants
            .iter()
            .find(|registrant| *registrant.port == *port)
            .map(|registrant| registrant.key)
    }

    fn bump(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }
}
