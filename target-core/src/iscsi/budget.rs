//! Memory is reserved before it is promised.
//!
//! Two pools, so that no wait can be circular. The *window* pool covers what an initiator may send without
//! asking (immediate and unsolicited data of every command in the open window). The *transfer* pool covers
//! what the target asks for (R2T) or fetches (Data-In); a command takes all it will ever need from it at
//! once, and gives it back without needing more.
//!
//! Reservations are accounts, not allocations: an open window costs nothing until data arrives.
//!
//! Who has to wait for memory of the transfer pool gets a place in a line. Others go ahead only with what the
//! first in line would leave over anyway, so many small requests do not keep a large one waiting for ever.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::mailbox::{Notice, Sender};

/// The memory of one target process, shared by all of its sessions.
#[derive(Debug)]
pub struct Budget {
    /// For what initiators may send unasked.
    pub window: Arc<Pool>,
    /// For what the target has asked for or read.
    pub transfer: Arc<Pool>,
}

impl Budget {
    /// A budget with the given sizes.
    pub fn new(window_bytes: usize, transfer_bytes: usize) -> Self {
        Self {
            window: Pool::new(window_bytes),
            transfer: Pool::new(transfer_bytes),
        }
    }
}

/// One account with a limit.
#[derive(Debug)]
pub struct Pool {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    sharers: AtomicUsize,
    anyone_waiting: AtomicBool,
    waiting: Mutex<Vec<Sender>>,
    anyone_in_line: AtomicBool,
    line: Mutex<VecDeque<Place>>,
}

/// A request that could not be granted.
#[derive(Debug)]
struct Place {
    /// Whose it is.
    share_used_bytes: Arc<AtomicUsize>,
    bytes: usize,
}

impl Pool {
    fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            sharers: AtomicUsize::new(0),
            anyone_waiting: AtomicBool::new(false),
            waiting: Mutex::default(),
            anyone_in_line: AtomicBool::new(false),
            line: Mutex::default(),
        })
    }

    /// Bytes reserved at this moment.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(SeqCst)
    }

    /// The most that can ever be reserved, in bytes.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    fn try_add(&self, bytes: usize) -> bool {
        self.used_bytes
            .fetch_update(SeqCst, SeqCst, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit_bytes)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        let before = self.used_bytes.fetch_sub(bytes, SeqCst);
        debug_assert!(before >= bytes, "more given back than was reserved");
        if self.anyone_waiting.load(SeqCst) {
            self.wake_waiting();
        }
    }

    fn line(&self) -> MutexGuard<'_, VecDeque<Place>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_waiting(&self) {
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.anyone_waiting.store(false, SeqCst);
            std::mem::take(&mut *waiting)
        };
        for mailbox in waiting.iter().filter_map(Sender::upgrade) {
            mailbox.post(Notice::MemoryFreed);
        }
    }
}

/// One part in so many of a pool is for sessions that do not have their equal share yet.
const SPARE_PART: usize = 4;

/// One session's part of a pool.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    used_bytes: Arc<AtomicUsize>,
    /// Whether it makes the equal share of the others smaller.
    counts: bool,
}

impl Share {
    /// Joins the sessions that share `pool`.
    pub fn new(pool: &Arc<Pool>) -> Self {
        pool.sharers.fetch_add(1, SeqCst);
        Self {
            pool: Arc::clone(pool),
            used_bytes: Arc::default(),
            counts: true,
        }
    }

    /// A share of somebody who will not want anything (a discovery session), and does not make that of the others
    /// smaller: strangers can have many.
    pub fn of_nothing(pool: &Arc<Pool>) -> Self {
        Self {
            pool: Arc::clone(pool),
            used_bytes: Arc::default(),
            counts: false,
        }
    }

    /// Reserves `bytes`, or nothing. A session that holds nothing is only refused when the pool is full, or
    /// somebody else is first in line for what is left; one that holds something gets no more than an equal
    /// share. More than the whole pool counts as the whole pool: a command that large runs alone.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let bytes = bytes.min(self.pool.limit_bytes);
        let mine = self.used_bytes.load(SeqCst);
        if mine > 0 && mine.saturating_add(bytes) > self.fair_bytes() {
            return None;
        }
        if self.pool.anyone_in_line.load(SeqCst) {
            return self.take_in_turn(bytes);
        }
        self.take(bytes)
    }

    /// The same; if it is refused the session has a place in line, and hears by [`Notice::MemoryFreed`] when it
    /// is time to ask again. It must do so, or [`leave_line`](Self::leave_line).
    pub fn reserve_or_wait(&self, bytes: usize, mailbox: &Sender) -> Option<Reservation> {
        let bytes = bytes.min(self.pool.limit_bytes);
        let mut memory = self.try_reserve(bytes);
        if memory.is_none() {
            self.wait(mailbox.clone());
            self.stand_in_line(bytes);
            memory = self.try_reserve(bytes);
        }
        memory
    }

    /// Whoever is first in line may take all there is, everybody else what is left beyond that.
    fn take_in_turn(&self, bytes: usize) -> Option<Reservation> {
        let mut line = self.pool.line();
        // Who is to give back something of its own first is not waited for.
        let fair_bytes = self.fair_bytes();
        let first = line.iter().find(|place| {
            let held = place.share_used_bytes.load(SeqCst);
            held == 0 || held.saturating_add(place.bytes) <= fair_bytes
        });
        let kept_bytes = match first {
            Some(first) if !Arc::ptr_eq(&first.share_used_bytes, &self.used_bytes) => first.bytes,
            _ => 0,
        };
        let free = self.pool.limit_bytes.saturating_sub(self.pool.used_bytes());
        if bytes.saturating_add(kept_bytes) > free {
            return None;
        }
        let memory = self.take(bytes);
        let left = memory.is_some() && self.take_from_line(&mut line);
        drop(line);
        if left {
            // Somebody else is first now, or there is more left than was kept.
            self.pool.wake_waiting();
        }
        memory
    }

    fn stand_in_line(&self, bytes: usize) {
        // Whoever waits for itself does not stand in line.
        let mine = self.used_bytes.load(SeqCst);
        if mine > 0 && mine.saturating_add(bytes) > self.fair_bytes() {
            return;
        }
        let mut line = self.pool.line();
        let own = |place: &&mut Place| Arc::ptr_eq(&place.share_used_bytes, &self.used_bytes);
        match line.iter_mut().find(own) {
            Some(place) => place.bytes = bytes,
            None => line.push_back(Place {
                share_used_bytes: Arc::clone(&self.used_bytes),
                bytes,
            }),
        }
        self.pool.anyone_in_line.store(true, SeqCst);
    }

    /// Gives up the place in line, for whoever is behind it.
    pub fn leave_line(&self) {
        if !self.pool.anyone_in_line.load(SeqCst) {
            return;
        }
        let left = self.take_from_line(&mut self.pool.line());
        if left {
            self.pool.wake_waiting();
        }
    }

    fn take_from_line(&self, line: &mut VecDeque<Place>) -> bool {
        let before = line.len();
        line.retain(|place| !Arc::ptr_eq(&place.share_used_bytes, &self.used_bytes));
        self.pool.anyone_in_line.store(!line.is_empty(), SeqCst);
        line.len() < before
    }

    /// What each session may hold when all want all they can get.
    fn fair_bytes(&self) -> usize {
        self.pool.limit_bytes / self.pool.sharers.load(SeqCst).max(1)
    }

    /// Reserves `bytes` if that is at most one part in `divisor` of what is free: whoever comes later always
    /// finds something left. A session that holds its equal share already gets more only while one part in
    /// [`SPARE_PART`] of the pool is free.
    pub fn try_reserve_part(&self, bytes: usize, divisor: usize) -> Option<Reservation> {
        let free = self.pool.limit_bytes.saturating_sub(self.pool.used_bytes());
        if bytes > free / divisor {
            return None;
        }
        let holds = self.used_bytes.load(SeqCst).saturating_add(bytes);
        let is_scarce = free - bytes < self.pool.limit_bytes / SPARE_PART;
        if divisor > 1 && is_scarce && holds > self.fair_bytes() {
            return None;
        }
        self.take(bytes)
    }

    fn take(&self, bytes: usize) -> Option<Reservation> {
        if !self.pool.try_add(bytes) {
            return None;
        }
        self.used_bytes.fetch_add(bytes, SeqCst);
        Some(Reservation {
            pool: Arc::clone(&self.pool),
            share_used_bytes: Arc::clone(&self.used_bytes),
            bytes,
        })
    }

    /// Asks for a [`Notice::MemoryFreed`] when something is given back to the pool. Memory given back between
    /// a refusal and this call goes unnoticed, so the caller tries once more after it.
    pub fn wait(&self, mailbox: Sender) {
        let mut waiting = self.pool.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|other| other.ptr_eq(&mailbox)) {
            waiting.push(mailbox);
        }
        self.pool.anyone_waiting.store(true, SeqCst);
    }

    /// Bytes this session holds.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(SeqCst)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.leave_line();
        if self.counts {
            self.pool.sharers.fetch_sub(1, SeqCst);
        }
    }
}

/// What one command holds.
#[derive(Debug, Default)]
pub struct Memory {
    /// For what came unasked.
    pub(super) window: Option<Reservation>,
    /// For what was asked for, or is being read.
    pub(super) transfer: Option<Reservation>,
}

/// Bytes that are ours until dropped.
#[derive(Debug)]
pub struct Reservation {
    pool: Arc<Pool>,
    share_used_bytes: Arc<AtomicUsize>,
    bytes: usize,
}

impl Reservation {
    /// How many bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back all but `keep_bytes`.
    pub fn shrink(&mut self, keep_bytes: usize) {
        let surplus = self.bytes.saturating_sub(keep_bytes);
        self.release(surplus);
    }

    /// Takes `bytes` out into a reservation of its own.
    ///
    /// # Panics
    /// When there are not that many: a caller's error.
    pub fn split(&mut self, bytes: usize) -> Self {
        assert!(
            bytes <= self.bytes,
            "split of {bytes} from a reservation of {}",
            self.bytes
        );
        self.bytes -= bytes;
        Self {
            pool: Arc::clone(&self.pool),
            share_used_bytes: Arc::clone(&self.share_used_bytes),
            bytes,
        }
    }

    /// Adds another reservation of the same session and pool to this one.
    pub fn absorb(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.share_used_bytes, &other.share_used_bytes));
        self.bytes += std::mem::take(&mut other.bytes);
    }

    fn release(&mut self, bytes: usize) {
        if bytes > 0 {
            self.bytes -= bytes;
            self.share_used_bytes.fetch_sub(bytes, SeqCst);
            self.pool.give_back(bytes);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::mailbox::Mailbox;
    use super::*;

    #[test]
    fn a_pool_is_never_overdrawn_and_everything_comes_back() {
        let budget = Budget::new(1000, 0);
        let share = Share::new(&budget.window);
        let mut first = share.try_reserve(600).expect("fits");
        assert!(share.try_reserve(401).is_none());
        let second = share.try_reserve(400).expect("fits exactly");
        let part = first.split(100);
        assert_eq!(budget.window.used_bytes(), 1000);
        drop((first, second));
        assert_eq!(share.used_bytes(), 100);
        drop(part);
        assert_eq!(budget.window.used_bytes(), 0);
    }

    #[test]
    fn a_session_that_holds_memory_leaves_the_others_their_share() {
        let budget = Budget::new(1000, 0);
        let greedy = Share::new(&budget.window);
        let late = Share::new(&budget.window);
        let _half = greedy.try_reserve(500).expect("its share");
        assert!(greedy.try_reserve(1).is_none(), "more than an equal share");
        assert!(late.try_reserve(500).is_some());
    }

    #[test]
    fn who_wants_nothing_takes_nothing_from_the_share_of_others() {
        let budget = Budget::new(1000, 0);
        let share = Share::new(&budget.window);
        let strangers: Vec<_> = (0..100).map(|_| Share::of_nothing(&budget.window)).collect();
        let _all: Vec<_> = (0..10).map(|_| share.try_reserve(100).expect("its share")).collect();
        drop(strangers);
        assert_eq!(share.fair_bytes(), 1000);
    }

    #[test]
    fn parts_leave_something_for_whoever_comes_later() {
        let budget = Budget::new(1000, 0);
        let share = Share::new(&budget.window);
        assert!(share.try_reserve_part(251, 4).is_none());
        let _quarter = share.try_reserve_part(250, 4).expect("a quarter of all");
        assert!(share.try_reserve_part(188, 4).is_none());
        let _next = share.try_reserve_part(187, 4).expect("a quarter of the rest");
    }

    #[test]
    fn more_than_there_is_counts_as_all_there_is() {
        let budget = Budget::new(10, 0);
        let share = Share::new(&budget.window);
        let all = share.try_reserve(1000).expect("alone");
        assert_eq!(all.bytes(), 10);
        assert!(share.try_reserve(1).is_none());
    }

    #[test]
    fn small_requests_do_not_keep_a_large_one_waiting() {
        let budget = Budget::new(0, 1000);
        let (large, small) = (Share::new(&budget.transfer), Share::new(&budget.transfer));
        let mailbox = Mailbox::new();
        let sender = Arc::downgrade(&mailbox);
        let held: Vec<_> = (0..5).map(|_| small.try_reserve(100).expect("its share")).collect();
        assert!(large.reserve_or_wait(900, &sender).is_none());
        for held in held {
            drop(held);
            // It is what the large request waits for.
            assert!(
                small.try_reserve(101).is_none(),
                "more than the first in line leaves over"
            );
        }
        assert!(small.try_reserve(100).is_some(), "what the first in line leaves over");
        let all = large.try_reserve(900).expect("its turn");
        // The line is empty again.
        drop(all);
        assert!(small.try_reserve(500).is_some());
    }

    #[test]
    fn whoever_leaves_the_line_lets_the_others_go() {
        let budget = Budget::new(0, 1000);
        let (first, second) = (Share::new(&budget.transfer), Share::new(&budget.transfer));
        let mailboxes = [Mailbox::new(), Mailbox::new()];
        let half = second.try_reserve(400).expect("its share");
        assert!(first.reserve_or_wait(700, &Arc::downgrade(&mailboxes[0])).is_none());
        drop(half);
        assert!(second.reserve_or_wait(500, &Arc::downgrade(&mailboxes[1])).is_none());
        let mut notices = Vec::new();
        mailboxes[1].take(&mut notices);
        notices.clear();
        drop(first);
        mailboxes[1].take(&mut notices);
        assert!(matches!(notices[..], [Notice::MemoryFreed]), "{notices:?}");
        assert!(second.try_reserve(500).is_some());
    }

    #[test]
    fn what_is_scarce_goes_to_those_who_have_less() {
        let budget = Budget::new(1000, 0);
        let (greedy, late) = (Share::new(&budget.window), Share::new(&budget.window));
        let mut held = Vec::new();
        while let Some(more) = greedy.try_reserve_part(10, 4) {
            held.push(more);
        }
        assert_eq!(greedy.used_bytes(), 750, "all but the part that is spare");
        let _first = late.try_reserve_part(60, 4).expect("it has nothing yet");
        drop(held.split_off(50));
        // The greedy one is down to its share and may take what it gave back, but no more.
        assert!(greedy.try_reserve_part(10, 4).is_none() || greedy.used_bytes() <= 750);
        assert!(late.try_reserve_part(100, 4).is_some());
    }

    #[test]
    fn whoever_waits_is_told_once() {
        let budget = Budget::new(10, 0);
        let share = Share::new(&budget.window);
        let all = share.try_reserve(10).expect("fits");
        let mailbox = Mailbox::new();
        share.wait(Arc::downgrade(&mailbox));
        share.wait(Arc::downgrade(&mailbox));
        drop(all);
        let mut notices = Vec::new();
        mailbox.take(&mut notices);
        assert!(matches!(notices[..], [Notice::MemoryFreed]));
    }
}
