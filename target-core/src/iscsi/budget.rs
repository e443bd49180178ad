//! Memory is reserved before it is promised.
//!
//! Two pools, so that no wait can be circular. The *window* pool covers what an initiator may send without
//! asking (immediate and unsolicited data of every command in the open window). The *transfer* pool covers
//! what the target asks for (R2T) or fetches (Data-In); a command takes all it will ever need from it at
//! once, and gives it back without needing more.
//!
//! Reservations are accounts, not allocations: an open window costs nothing until data arrives.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

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
}

impl Pool {
    fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            sharers: AtomicUsize::new(0),
            anyone_waiting: AtomicBool::new(false),
            waiting: Mutex::default(),
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

    fn wake_waiting(&self) {
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.anyone_waiting.store(false, SeqCst);
            std::mem::take(&mut *waiting)
        };
        for mailbox in waiting.iter().filter_map(Sender::upgrade) {
            mailbox.post(Notice::MemoryFreed);
        }
    }
}

/// One session's part of a pool.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    used_bytes: Arc<AtomicUsize>,
}

impl Share {
    /// Joins the sessions that share `pool`.
    pub fn new(pool: &Arc<Pool>) -> Self {
        pool.sharers.fetch_add(1, SeqCst);
        Self {
            pool: Arc::clone(pool),
            used_bytes: Arc::default(),
        }
    }

    /// Reserves `bytes`, or nothing. A session that holds nothing is only refused when the pool is full; one
    /// that holds something gets no more than an equal share. More than the whole pool counts as the whole
    /// pool: a command that large runs alone.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let bytes = bytes.min(self.pool.limit_bytes);
        let mine = self.used_bytes.load(SeqCst);
        let fair = self.pool.limit_bytes / self.pool.sharers.load(SeqCst).max(1);
        if mine > 0 && mine.saturating_add(bytes) > fair {
            return None;
        }
        self.take(bytes)
    }

    /// Reserves `bytes` if that is at most one part in `divisor` of what is free: whoever comes later always
    /// finds something left.
    pub fn try_reserve_part(&self, bytes: usize, divisor: usize) -> Option<Reservation> {
        let free = self.pool.limit_bytes.saturating_sub(self.pool.used_bytes());
        if bytes > free / divisor {
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
        let mut waiting = self
            .pool
            .waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
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
        self.pool.sharers.fetch_sub(1, SeqCst);
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
