//! Which commands are at which blocks: a command that must not be interrupted has its range to itself.
//!
//! Commands that change blocks claim the range they change and share it with each other. COMPARE AND WRITE, ORWRITE
//! and WRITE ATOMIC take theirs alone. Commands that only read look twice at a counter instead, and read again if
//! such a command came between.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lun::Wait;

/// Claims that are made without a lock.
const SLOTS: usize = 32;
/// Slots tried before a claim goes to the list.
const PROBES: usize = 4;
/// Claims count in units of this, as a power of two: 1 MiB.
const UNIT_SHIFT: u32 = 20;
/// Longest claim that fits a slot, in units.
const MAX_SLOT_UNITS: u64 = 0xFFFF;
/// A slot in use.
const TAKEN: u64 = 1 << 63;
/// A slot whose command is not running: it was interrupted half-way and waits for a worker.
const PARKED: u64 = 1 << 62;
/// Who waits looks this often whether the command is still wanted, in milliseconds.
const LOOK_EVERY_MS: u64 = 20;
/// Longest wait for a command that is waiting for a worker itself, in milliseconds: we may be what keeps the
/// workers busy.
const MAX_PARKED_WAIT_MS: u64 = 200;

/// On a cache line of its own, so that threads do not meet.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot(AtomicU64);

/// The claims at one unit.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    slots: [Slot; SLOTS],
    /// Exclusive claims, granted or wanted.
    exclusive: AtomicUsize,
    /// Counts exclusive claims that were granted.
    granted: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    /// Shared claims that found no slot, and whether they are parked.
    shared: Vec<(u64, Range<u64>, bool)>,
    /// Exclusive claims in the order they came: an older one goes first.
    exclusive: Vec<(u64, Range<u64>)>,
}

/// Why a claim was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// It would have to wait, and must not.
    WouldBlock,
    /// The command is not wanted any more.
    Cancelled,
    /// A command that stopped half-way is in the range and does not get on.
    Busy,
}

/// Where a claim is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Slot(usize),
    List(u64),
}

/// A range that others share. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    ranges: &'a Ranges,
    place: Place,
}

/// A range that nobody else is at. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Exclusive<'a> {
    ranges: &'a Ranges,
    id: u64,
}

/// A claim kept without a guard, to be taken up again by [`Ranges::take_up`].
#[derive(Debug, Default)]
pub(super) struct Parking(AtomicU64);

/// Marks a place in the list, in a [`Parking`].
const IN_LIST: u64 = 1 << 63;

impl Ranges {
    /// Claims a range beside others. `wanted` says whether the command still is.
    pub(super) fn share(
        &self,
        range: &Range<u64>,
        wait: Wait,
        wanted: impl Fn() -> bool,
    ) -> Result<Shared<'_>, Denied> {
        if let Some(slot) = self.take_slot(range) {
            // The claim is announced: whoever wants to be alone now sees it. All of this is sequentially consistent.
            if self.exclusive.load(Ordering::SeqCst) == 0 || !self.lock().is_kept_from(range) {
                return Ok(Shared {
                    ranges: self,
                    place: Place::Slot(slot),
                });
            }
            self.release(Place::Slot(slot));
        }
        let mut state = self.lock();
        while state.is_kept_from(range) {
            if wait == Wait::Never {
                return Err(Denied::WouldBlock);
            }
            if !wanted() {
                return Err(Denied::Cancelled);
            }
            state = self.wait(state);
        }
        let id = state.next_id();
        state.shared.push((id, range.clone(), false));
        Ok(Shared {
            ranges: self,
            place: Place::List(id),
        })
    }

    /// Claims a range for one command alone, always on a worker: it may take a while until the others are out.
    pub(super) fn exclude(&self, range: &Range<u64>, wanted: impl Fn() -> bool) -> Result<Exclusive<'_>, Denied> {
        let mut state = self.lock();
        let id = state.next_id();
        state.exclusive.push((id, range.clone()));
        self.exclusive.fetch_add(1, Ordering::SeqCst);
        // From here on dropping it undoes all that.
        let claim = Exclusive { ranges: self, id };
        let began = Instant::now();
        loop {
            let older = state
                .exclusive
                .iter()
                .any(|(other, taken)| *other < id && overlap(taken, range));
            let (busy, parked) = self.who_shares(&state, range);
            if !older && !busy && !parked {
                break;
            }
            let refused = if !wanted() {
                Some(Denied::Cancelled)
            } else if parked && began.elapsed() >= Duration::from_millis(MAX_PARKED_WAIT_MS) {
                Some(Denied::Busy)
            } else {
                None
            };
            if let Some(denied) = refused {
                drop(state);
                drop(claim);
                return Err(denied);
            }
            state = self.wait(state);
        }
        drop(state);
        // Before anything is changed: who has read until now and looks at the counter afterwards sees it.
        self.granted.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Ok(claim)
    }

    /// What a reader looks at before and after. `None` while somebody has, or wants, a range alone.
    pub(super) fn seen(&self) -> Option<u64> {
        let granted = self.granted.load(Ordering::Acquire);
        (self.exclusive.load(Ordering::SeqCst) == 0).then_some(granted)
    }

    /// Whether what was read since [`seen`](Self::seen) may be half of an exclusive command's.
    pub(super) fn is_stale(&self, seen: u64) -> bool {
        fence(Ordering::Acquire);
        self.granted.load(Ordering::Relaxed) != seen
    }

    /// Takes up a claim that was parked, if one was.
    pub(super) fn take_up(&self, parking: &Parking) -> Option<Shared<'_>> {
        let place = parking.take()?;
        self.mark(place, false);
        Some(Shared { ranges: self, place })
    }

    fn take_slot(&self, range: &Range<u64>) -> Option<usize> {
        let code = encode(range)?;
        let first = thread_number();
        (0..PROBES).map(|probe| (first + probe) % SLOTS).find(|&slot| {
            self.slots[slot]
                .0
                .compare_exchange(0, code, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
        })
    }

    /// Whether shared claims overlap a range: of commands that run, and of parked ones.
    fn who_shares(&self, state: &State, range: &Range<u64>) -> (bool, bool) {
        let slots = self.slots.iter().filter_map(|slot| {
            let code = slot.0.load(Ordering::SeqCst);
            (code & TAKEN != 0 && overlap(&decode(code), range)).then_some(code & PARKED != 0)
        });
        let listed = state
            .shared
            .iter()
            .filter_map(|(_, taken, parked)| overlap(taken, range).then_some(*parked));
        slots
            .chain(listed)
            .fold((false, false), |(busy, waits), parked| (busy | !parked, waits | parked))
    }

    fn mark(&self, place: Place, parked: bool) {
        match place {
            Place::Slot(slot) if parked => drop(self.slots[slot].0.fetch_or(PARKED, Ordering::SeqCst)),
            Place::Slot(slot) => drop(self.slots[slot].0.fetch_and(!PARKED, Ordering::SeqCst)),
            Place::List(id) => {
                let mut state = self.lock();
                if let Some(claim) = state.shared.iter_mut().find(|claim| claim.0 == id) {
                    claim.2 = parked;
                }
            }
        }
    }

    fn release(&self, place: Place) {
        match place {
            Place::Slot(slot) => {
                self.slots[slot].0.swap(0, Ordering::SeqCst);
                if self.exclusive.load(Ordering::SeqCst) == 0 {
                    return;
                }
                // Whoever waits has looked already, or will see the free slot.
                drop(self.lock());
            }
            Place::List(id) => self.lock().shared.retain(|claim| claim.0 != id),
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, Duration::from_millis(LOOK_EVERY_MS))
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn is_kept_from(&self, range: &Range<u64>) -> bool {
        self.exclusive.iter().any(|(_, taken)| overlap(taken, range))
    }
}

impl Shared<'_> {
    /// Keeps the claim while the command waits for a worker.
    pub(super) fn park(self, parking: &Parking) {
        self.ranges.mark(self.place, true);
        parking.put(self.place);
        std::mem::forget(self);
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        self.ranges.release(self.place);
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        let mut state = self.ranges.lock();
        state.exclusive.retain(|(id, _)| *id != self.id);
        self.ranges.exclusive.fetch_sub(1, Ordering::SeqCst);
        drop(state);
        self.ranges.changed.notify_all();
    }
}

impl Parking {
    fn put(&self, place: Place) {
        let code = match place {
            Place::Slot(slot) => slot as u64 + 1,
            Place::List(id) => id | IN_LIST,
        };
        self.0.store(code, Ordering::Release);
    }

    fn take(&self) -> Option<Place> {
        if self.0.load(Ordering::Acquire) == 0 {
            return None;
        }
        match self.0.swap(0, Ordering::AcqRel) {
            0 => None,
            code if code & IN_LIST != 0 => Some(Place::List(code & !IN_LIST)),
            code => Some(Place::Slot(code as usize - 1)),
        }
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// A range in units, rounded outwards, if it fits a slot: start in bits 16 and up, length below.
fn encode(range: &Range<u64>) -> Option<u64> {
    let first = range.start >> UNIT_SHIFT;
    let units = range.end.div_ceil(1 << UNIT_SHIFT).saturating_sub(first);
    (units <= MAX_SLOT_UNITS).then_some(TAKEN | first << 16 | units)
}

fn decode(code: u64) -> Range<u64> {
    let first = (code & !(TAKEN | PARKED)) >> 16;
    first << UNIT_SHIFT..(first + (code & MAX_SLOT_UNITS)) << UNIT_SHIFT
}

/// Spreads threads over the slots.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

#[cfg(test)]
mod tests;
