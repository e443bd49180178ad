//! Who holds a reservation, and what that lets others do (SPC-5 5.13, SPC-2 5.5.1). No bytes, no locks.

use super::attention::Attention;
use super::ports::NexusName;
use super::table::Access;

/// I_T nexuses that may be registered with one unit.
pub(super) const MAX_REGISTRANTS: usize = 256;

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
    pub(super) fn is_all_registrants(self) -> bool {
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

/// A registered I_T nexus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registrant {
    pub(super) nexus: NexusName,
    pub(super) key: u64,
}

/// What PERSISTENT RESERVE OUT asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    /// `existing` is the key that must be registered now (zero: none); `None` does not care. `also` are registered
    /// with the same key: other initiator ports (SPEC_I_PT), or the same one at other target ports (ALL_TG_PT).
    Register {
        existing: Option<u64>,
        new_key: u64,
        also: Vec<NexusName>,
        keep: bool,
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
    /// REGISTER AND MOVE.
    Move {
        key: u64,
        new_key: u64,
        to: NexusName,
        unregister: bool,
        keep: bool,
    },
}

/// Why it is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// RESERVATION CONFLICT.
    Conflict,
    /// The reservation to be released is of another type.
    WrongType,
    /// Registering others is for who is not registered yet.
    AlreadyRegistered,
    /// PREEMPT of key zero where that means nobody, or REGISTER AND MOVE that gives no key.
    NoKey,
    /// REGISTER AND MOVE to the nexus it came by.
    ToItself,
    /// No room for another registration.
    TooMany,
}

/// The reservations of one logical unit.
#[derive(Debug, Clone, Default)]
pub(super) struct Reservations {
    generation: u32,
    registrants: Vec<Registrant>,
    /// The type, and the nexus that holds it: none if all registrants do.
    held: Option<(Kind, Option<NexusName>)>,
    /// APTPL of the last registration: what is here survives a restart.
    kept: bool,
    /// Nexus that holds the unit by RESERVE (6).
    unit_holder: Option<u64>,
    /// What nexuses have to hear of, until it is collected.
    news: Vec<(NexusName, Attention)>,
    /// Nexuses that the last PREEMPT has thrown out.
    thrown_out: Vec<NexusName>,
}

impl Reservations {
    /// What was there before a restart.
    pub(super) fn restored(registrants: Vec<Registrant>, held: Option<(Kind, Option<NexusName>)>) -> Self {
        Self {
            registrants,
            held,
            kept: true,
            ..Self::default()
        }
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn registrants(&self) -> &[Registrant] {
        &self.registrants
    }

    /// The reservation as it is held, and by whom.
    pub(super) fn held(&self) -> Option<&(Kind, Option<NexusName>)> {
        self.held.as_ref()
    }

    /// Whether this is to survive a restart (PTPL_A).
    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }

    /// Whether any command might be refused.
    pub(super) fn is_any(&self) -> bool {
        self.held.is_some() || self.unit_holder.is_some()
    }

    /// Whether RESERVE (6) is in force: persistent reservations are out of reach then (SPC-2 5.5.1).
    pub(super) fn is_unit_held(&self) -> bool {
        self.unit_holder.is_some()
    }

    /// Type and key of the persistent reservation; all registrants have key zero (SPC-5 6.14.3.2).
    pub(super) fn holder(&self) -> Option<(Kind, u64)> {
        let (kind, nexus) = self.held.as_ref()?;
        Some((*kind, nexus.as_ref().and_then(|nexus| self.key_of(nexus)).unwrap_or(0)))
    }

    /// The reservation that a nexus holds, alone or with all registrants.
    pub(super) fn held_by(&self, nexus: &NexusName) -> Option<Kind> {
        let (kind, holder) = self.held.as_ref()?;
        let holds = match holder {
            Some(holder) => holder == nexus,
            None => self.key_of(nexus).is_some(),
        };
        holds.then_some(*kind)
    }

    /// Whether a command may be carried out now.
    pub(super) fn allow(&self, nexus_id: u64, nexus: &NexusName, access: Access) -> bool {
        if self.unit_holder.is_some_and(|holder| holder != nexus_id) {
            return matches!(access, Access::Always | Access::Release);
        }
        let Some((kind, _)) = self.held else { return true };
        match access {
            Access::Always | Access::Harmless | Access::Release | Access::Reserve => true,
            _ if self.held_by(nexus).is_some() => true,
            _ if kind.admits_registrants() && self.key_of(nexus).is_some() => true,
            Access::Read => kind.admits_readers(),
            Access::Write => false,
        }
    }

    /// RESERVE (6): refused while another nexus holds the unit or ports are registered (SPC-2 5.5.1).
    pub(super) fn reserve_unit(&mut self, nexus_id: u64) -> bool {
        let free = self.registrants.is_empty() && self.unit_holder.is_none_or(|holder| holder == nexus_id);
        if free {
            self.unit_holder = Some(nexus_id);
        }
        free
    }

    /// RELEASE (6), or the end of the nexus.
    pub(super) fn release_unit(&mut self, nexus_id: u64) {
        if self.unit_holder == Some(nexus_id) {
            self.unit_holder = None;
        }
    }

    /// A reset of the unit ends what RESERVE (6) began; persistent reservations stay.
    pub(super) fn reset(&mut self) {
        self.unit_holder = None;
    }

    /// Takes over what a PERSISTENT RESERVE OUT has made of a copy.
    pub(super) fn install(&mut self, changed: Self) {
        let unit_holder = self.unit_holder;
        *self = changed;
        self.unit_holder = unit_holder;
    }

    /// The unit attentions that have become due.
    pub(super) fn take_news(&mut self) -> Vec<(NexusName, Attention)> {
        std::mem::take(&mut self.news)
    }

    /// The nexuses that the last PREEMPT has thrown out.
    pub(super) fn take_thrown_out(&mut self) -> Vec<NexusName> {
        std::mem::take(&mut self.thrown_out)
    }

    /// PERSISTENT RESERVE OUT by a nexus. If it is denied, nothing has changed.
    pub(super) fn apply(&mut self, nexus: &NexusName, operation: Operation) -> Result<(), Denied> {
        match operation {
            Operation::Register {
                existing,
                new_key,
                also,
                keep,
            } => self.register(nexus, existing, new_key, also, keep),
            Operation::Reserve { key, kind } => {
                self.check_key(nexus, key)?;
                self.reserve(nexus, kind)
            }
            Operation::Release { key, kind } => {
                self.check_key(nexus, key)?;
                self.release(nexus, kind)
            }
            Operation::Clear { key } => {
                self.check_key(nexus, key)?;
                self.tell_others(nexus, Attention::ReservationsPreempted);
                self.registrants.clear();
                self.held = None;
                self.bump();
                Ok(())
            }
            Operation::Preempt { key, victim, kind } => {
                self.check_key(nexus, key)?;
                self.preempt(nexus, victim, kind)
            }
            Operation::Move {
                key,
                new_key,
                to,
                unregister,
                keep,
            } => {
                self.check_key(nexus, key)?;
                self.move_to(nexus, new_key, to, unregister, keep)
            }
        }
    }

    fn register(
        &mut self,
        nexus: &NexusName,
        existing: Option<u64>,
        new_key: u64,
        also: Vec<NexusName>,
        keep: bool,
    ) -> Result<(), Denied> {
        let mut wanted: Vec<NexusName> = vec![nexus.clone()];
        for other in also {
            // Of other initiator ports only those are registered that are not (SPC-5 table 62).
            let is_own = other.initiator_port == nexus.initiator_port;
            if !wanted.contains(&other) && (is_own || self.key_of(&other).is_none()) {
                wanted.push(other);
            }
        }
        let fits = |nexus: &NexusName| {
            let registered = self.key_of(nexus).unwrap_or(0);
            existing.is_none_or(|existing| existing == registered)
        };
        let own = wanted
            .iter()
            .filter(|other| other.initiator_port == nexus.initiator_port);
        if !own.into_iter().all(fits) {
            return Err(Denied::Conflict);
        }
        let others = wanted.iter().any(|other| other.initiator_port != nexus.initiator_port);
        if others && self.key_of(nexus).is_some() {
            return Err(Denied::AlreadyRegistered);
        }
        let new = wanted.iter().filter(|nexus| self.key_of(nexus).is_none()).count();
        if new_key == 0 && new == wanted.len() {
            // Nobody is registered, and nobody wants to be.
            return Ok(());
        }
        if new_key != 0 && self.registrants.len() + new > MAX_REGISTRANTS {
            return Err(Denied::TooMany);
        }
        for nexus in wanted {
            match (self.index_of(&nexus), new_key) {
                (None, 0) => {}
                (None, key) => self.registrants.push(Registrant { nexus, key }),
                (Some(index), 0) => self.unregister(index),
                (Some(index), key) => self.registrants[index].key = key,
            }
        }
        self.kept = keep;
        self.bump();
        Ok(())
    }

    fn unregister(&mut self, index: usize) {
        let leaving = self.registrants.remove(index);
        let ends = match &self.held {
            Some((_, Some(holder))) => *holder == leaving.nexus,
            Some((_, None)) => self.registrants.is_empty(),
            None => false,
        };
        if ends {
            self.end_reservation(&leaving.nexus);
        }
    }

    fn reserve(&mut self, nexus: &NexusName, kind: Kind) -> Result<(), Denied> {
        match (&self.held, self.held_by(nexus)) {
            (None, _) => {
                self.hold(nexus, kind);
                Ok(())
            }
            (Some(_), Some(held)) if held == kind => Ok(()),
            _ => Err(Denied::Conflict),
        }
    }

    fn release(&mut self, nexus: &NexusName, kind: Kind) -> Result<(), Denied> {
        match self.held_by(nexus) {
            None => Ok(()),
            Some(held) if held != kind => Err(Denied::WrongType),
            Some(_) => {
                self.end_reservation(nexus);
                Ok(())
            }
        }
    }

    fn preempt(&mut self, nexus: &NexusName, victim: u64, kind: Kind) -> Result<(), Denied> {
        let all_hold = matches!(self.held, Some((_, None)));
        if victim == 0 && !all_hold {
            return Err(Denied::NoKey);
        }
        if victim != 0 && !self.registrants.iter().any(|registrant| registrant.key == victim) {
            return Err(Denied::Conflict);
        }
        let takes_over = match self.holder() {
            Some(_) if all_hold => victim == 0,
            Some((_, key)) => key == victim,
            None => false,
        };
        let mut thrown_out = Vec::new();
        self.registrants.retain(|registrant| {
            let stays = registrant.nexus == *nexus || (victim != 0 && registrant.key != victim);
            if !stays {
                thrown_out.push(registrant.nexus.clone());
            }
            stays
        });
        if takes_over {
            if self.held.as_ref().is_some_and(|(held, _)| *held != kind) {
                self.tell_others(nexus, Attention::ReservationsReleased);
            }
            self.hold(nexus, kind);
        }
        let told = thrown_out.iter().cloned();
        self.news
            .extend(told.map(|nexus| (nexus, Attention::RegistrationsPreempted)));
        self.thrown_out = thrown_out;
        self.bump();
        Ok(())
    }

    /// The reservation and a registration go to another nexus (SPC-5 5.13.8).
    fn move_to(
        &mut self,
        nexus: &NexusName,
        new_key: u64,
        to: NexusName,
        unregister: bool,
        keep: bool,
    ) -> Result<(), Denied> {
        // Only who holds it alone can give it away.
        let Some((kind, Some(holder))) = &self.held else {
            return Err(Denied::Conflict);
        };
        if holder != nexus {
            return Err(Denied::Conflict);
        }
        if new_key == 0 {
            return Err(Denied::NoKey);
        }
        if to == *nexus {
            return Err(Denied::ToItself);
        }
        let kind = *kind;
        match self.index_of(&to) {
            Some(index) => self.registrants[index].key = new_key,
            None if self.registrants.len() < MAX_REGISTRANTS => self.registrants.push(Registrant {
                nexus: to.clone(),
                key: new_key,
            }),
            None => return Err(Denied::TooMany),
        }
        self.hold(&to, kind);
        if unregister && let Some(index) = self.index_of(nexus) {
            self.registrants.remove(index);
        }
        self.kept = keep;
        self.bump();
        Ok(())
    }

    fn hold(&mut self, nexus: &NexusName, kind: Kind) {
        self.held = Some((kind, (!kind.is_all_registrants()).then(|| nexus.clone())));
    }

    /// Ends the persistent reservation; the registrants that lived under it hear of it (SPC-5 5.13.11.2).
    fn end_reservation(&mut self, by: &NexusName) {
        if let Some((kind, _)) = self.held.take()
            && kind.admits_registrants()
        {
            self.tell_others(by, Attention::ReservationsReleased);
        }
    }

    fn tell_others(&mut self, nexus: &NexusName, attention: Attention) {
        let others = self.registrants.iter().filter(|registrant| registrant.nexus != *nexus);
        self.news
            .extend(others.map(|registrant| (registrant.nexus.clone(), attention)));
    }

    fn check_key(&self, nexus: &NexusName, key: u64) -> Result<(), Denied> {
        if self.key_of(nexus) == Some(key) {
            Ok(())
        } else {
            Err(Denied::Conflict)
        }
    }

    fn index_of(&self, nexus: &NexusName) -> Option<usize> {
        self.registrants
            .iter()
            .position(|registrant| registrant.nexus == *nexus)
    }

    fn key_of(&self, nexus: &NexusName) -> Option<u64> {
        self.index_of(nexus).map(|index| self.registrants[index].key)
    }

    fn bump(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }
}
