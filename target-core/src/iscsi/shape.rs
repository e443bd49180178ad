//! Limits on commands and bytes per second that make commands wait, in order, and never refuse any.
//!
//! A [`Shaper`] belongs to a logical unit, and then all its sessions share it, or to one session. Whoever
//! wants to begin a command asks at a [`Gate`], and is let through or told when to ask again, so nothing here
//! blocks or has a clock. Sessions that want more than there is get equal parts of it, counted by what their
//! commands cost and not by their number (start-time fair queueing, with some slack so that nobody has to be
//! woken for each single command).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::mailbox::{Notice, Sender};

/// How much may be made up for after a pause, or after timers that were late, in milliseconds at the full
/// rate.
const BURST_MS: u64 = 20;
/// How far a session may be ahead of another that waits, in milliseconds at the full rate.
const SLACK_MS: u64 = 2;
/// When a session that is ahead asks again, in milliseconds.
const ASK_AGAIN_MS: u64 = 1;
/// A session that could begin and does not ask for so long, in milliseconds, has other reasons to wait, and
/// the others do not wait for it.
const ABSENT_MS: u64 = 20;
/// The most that a single command can cost, in milliseconds. So low a limit makes no sense; this is here so
/// that times cannot overflow.
const COST_MAX_MS: u64 = 3_600_000;

/// How much is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// Commands per second; 0 is no limit.
    pub iops: u64,
    /// Bytes per second, both ways together; 0 is no limit.
    pub bytes_per_s: u64,
}

impl Rate {
    /// Whether there is any limit.
    pub fn is_limited(&self) -> bool {
        self.iops > 0 || self.bytes_per_s > 0
    }

    /// The time that a command of so many bytes is worth.
    fn cost(&self, bytes: u64) -> Duration {
        let part_ns = |amount: u64, per_s: u64| match per_s {
            0 => 0,
            _ => u128::from(amount) * 1_000_000_000 / u128::from(per_s),
        };
        let ns = part_ns(1, self.iops).max(part_ns(bytes, self.bytes_per_s));
        let max_ns = u128::from(COST_MAX_MS) * 1_000_000;
        Duration::from_nanos(u64::try_from(ns.min(max_ns)).unwrap_or(u64::MAX))
    }
}

/// Lets commands begin at no more than a [`Rate`].
#[derive(Debug, Default)]
pub struct Shaper {
    /// Whether there is anything to look at: nearly never, so commands look here first.
    limited: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rate: Rate,
    /// When everything that has begun is paid for, at the full rate.
    paid_at: Option<Instant>,
    /// What the session that went last had had before, in time at the full rate.
    level: Duration,
    sharers: BTreeMap<u64, Sharer>,
    last_id: u64,
}

/// A session that uses the shaper.
#[derive(Debug)]
struct Sharer {
    /// What it has had, in time at the full rate.
    had: Duration,
    /// Until when the others wait for it if it is behind; `None` when it does not want to begin anything.
    waits_until: Option<Instant>,
    mailbox: Sender,
}

impl Shaper {
    /// A shaper for this rate.
    pub fn new(rate: Rate) -> Arc<Self> {
        let shaper = Self::default();
        shaper.set(rate);
        Arc::new(shaper)
    }

    /// The rate now.
    pub fn rate(&self) -> Rate {
        self.lock().rate
    }

    /// Sets another rate, which holds from now on, for commands that wait already as well.
    pub fn set(&self, rate: Rate) {
        let told: Vec<Sender> = {
            let mut state = self.lock();
            state.rate = rate;
            state.paid_at = None;
            state.level = Duration::ZERO;
            self.limited.store(rate.is_limited(), Relaxed);
            for sharer in state.sharers.values_mut() {
                sharer.had = Duration::ZERO;
                sharer.waits_until = None;
            }
            state.sharers.values().map(|sharer| sharer.mailbox.clone()).collect()
        };
        for mailbox in told.iter().filter_map(Sender::upgrade) {
            mailbox.post(Notice::LimitsChanged);
        }
    }

    /// Whether commands have to ask at all.
    pub fn is_limited(&self) -> bool {
        self.limited.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets a command begin, or says when to ask again.
    fn ask(&mut self, id: u64, now: Instant, bytes: u64) -> Result<(), Instant> {
        let burst = Duration::from_millis(BURST_MS);
        let cost = self.rate.cost(bytes);
        let waited_for = |sharer: &Sharer| sharer.waits_until.is_some_and(|until| now < until);
        let others = self.sharers.iter().filter(|(other, _)| **other != id);
        let least = others
            .filter(|(_, other)| waited_for(other))
            .map(|(_, other)| other.had)
            .min();
        let Some(sharer) = self.sharers.get_mut(&id) else {
            return Ok(());
        };
        if !waited_for(sharer) {
            // It wanted nothing for a while: that is not made up for.
            sharer.had = sharer.had.max(self.level);
        }
        let paid_at = self.paid_at.unwrap_or(now).max(now);
        let free_at = paid_at.checked_sub(burst).unwrap_or(now);
        let is_ahead = least.is_some_and(|least| sharer.had > least + Duration::from_millis(SLACK_MS));
        if free_at > now || is_ahead {
            let again_at = if is_ahead {
                free_at.max(now + Duration::from_millis(ASK_AGAIN_MS))
            } else {
                free_at
            };
            sharer.waits_until = Some(again_at + Duration::from_millis(ABSENT_MS));
            return Err(again_at);
        }
        self.paid_at = Some(paid_at + cost);
        self.level = sharer.had;
        sharer.had += cost;
        sharer.waits_until = None;
        Ok(())
    }
}

/// One session's way through a [`Shaper`].
#[derive(Debug)]
pub(super) struct Gate {
    shaper: Arc<Shaper>,
    id: u64,
    shut_until: Option<Instant>,
}

impl Gate {
    /// A way through `shaper` for the session with this mailbox, which is told of another rate.
    pub(super) fn new(shaper: &Arc<Shaper>, mailbox: Sender) -> Self {
        let mut state = shaper.lock();
        state.last_id += 1;
        let id = state.last_id;
        let sharer = Sharer {
            had: state.level,
            waits_until: None,
            mailbox,
        };
        state.sharers.insert(id, sharer);
        drop(state);
        Self {
            shaper: Arc::clone(shaper),
            id,
            shut_until: None,
        }
    }

    /// Whether a command of so many bytes may begin now; if so, it is charged for.
    pub(super) fn pass(&mut self, now: Instant, bytes: u64) -> bool {
        if !self.shaper.is_limited() {
            return true;
        }
        if self.shut_until.is_none_or(|until| until <= now) {
            self.shut_until = self.shaper.lock().ask(self.id, now, bytes).err();
        }
        self.shut_until.is_none()
    }

    /// Whether it is a way through this very shaper.
    pub(super) fn is_of(&self, shaper: &Arc<Shaper>) -> bool {
        Arc::ptr_eq(&self.shaper, shaper)
    }

    /// When to ask again; `None` when the gate is open.
    pub(super) fn shut_until(&self) -> Option<Instant> {
        self.shut_until
    }

    /// The rate has changed: the time to ask again is now.
    pub(super) fn reopen(&mut self) {
        self.shut_until = None;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shaper.lock().sharers.remove(&self.id);
    }
}
