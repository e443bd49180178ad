//! The command window (RFC 7143 §4.2.2.1): which CmdSN may come, and the memory behind each.

use std::cell::Cell;
use std::time::{Duration, Instant};

use iscsi_pdu::Serial;

use super::budget::{Reservation, Share};

/// What a CmdSN means at the moment it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The next one in order.
    Next,
    /// In the window, but others come before it.
    Early,
    /// Outside the window or seen already: to be ignored without an answer.
    Ignore,
}

/// Slots a new session starts with; a window that is used up quickly is widened.
const INITIAL_SLOTS: u32 = 32;
/// The first slots may take one part in so many of the memory that is free.
const INITIAL_PART: usize = 64;
/// And those after them one part in so many.
const GROWTH_PART: usize = 4;
/// A window that was not used for so long, in milliseconds, gives back the memory behind most of its slots.
const IDLE_MS: u64 = 5_000;

/// ExpCmdSN, MaxCmdSN, and a reservation of `slot_bytes` for each command between them.
///
/// MaxCmdSN never goes back. That is why a window starts small, grows with use, and never takes more than a part
/// of what is free. When it has been idle for a while it gives back the memory behind all slots but the first few:
/// the slots stay, and get their memory when they are used. Should there be none then, a command that brings no
/// data is as good as any, and one that does is told to come again (TASK SET FULL).
#[derive(Debug)]
pub(super) struct Window {
    exp_cmd_sn: Serial,
    open_slots: u32,
    /// How wide to open: grows up to `depth`.
    goal_slots: u32,
    depth: u32,
    slot_bytes: usize,
    reserved: Option<Reservation>,
    /// What the initiator was told last.
    told_max_cmd_sn: Cell<Serial>,
    /// Slots without memory behind them, the last ones of the window.
    bare_slots: u32,
    /// When it was last used; `None` once it has given back its memory.
    used_at: Option<Instant>,
}

impl Window {
    /// A closed window before `exp_cmd_sn`. `depth` is the most commands that may be open or at work at any
    /// time, `slot_bytes` the most data each may bring along unasked.
    pub(super) fn new(exp_cmd_sn: Serial, depth: u32, slot_bytes: usize) -> Self {
        Self {
            exp_cmd_sn,
            open_slots: 0,
            goal_slots: INITIAL_SLOTS.min(depth),
            depth,
            slot_bytes,
            reserved: None,
            told_max_cmd_sn: Cell::new(exp_cmd_sn + u32::MAX),
            bare_slots: 0,
            used_at: None,
        }
    }

    /// When [`timeout`](Self::timeout) is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        Some(self.used_at? + Duration::from_millis(IDLE_MS))
    }

    /// Gives memory back if nobody has used the window for a while, but for that of `held` commands that have
    /// come ahead of their turn.
    pub(super) fn timeout(&mut self, now: Instant, held: usize) {
        if self.next_timeout().is_some_and(|due| due <= now) {
            self.used_at = None;
            let held = u32::try_from(held).unwrap_or(u32::MAX);
            let backed = self.backed_slots().min(INITIAL_SLOTS.max(held));
            self.bare_slots = self.open_slots - backed;
            if let Some(reserved) = &mut self.reserved {
                reserved.shrink(self.slot_bytes * backed as usize);
            }
        }
    }

    /// How many commands may bring data.
    fn backed_slots(&self) -> u32 {
        self.open_slots - self.bare_slots
    }

    /// Whether so many commands may bring data, if need be with memory that is got for them now.
    pub(super) fn is_backed(&mut self, share: &Share, commands: usize) -> bool {
        let commands = u32::try_from(commands).unwrap_or(u32::MAX);
        self.back(share, commands);
        self.backed_slots() >= commands
    }

    fn back(&mut self, share: &Share, slots: u32) {
        let slots = slots.min(self.open_slots);
        while self.backed_slots() < slots {
            let Some(memory) = share.try_reserve_part(self.slot_bytes, 1) else {
                return;
            };
            self.keep(memory);
            self.bare_slots -= 1;
        }
    }

    /// The next CmdSN in order.
    pub(super) fn exp_cmd_sn(&self) -> Serial {
        self.exp_cmd_sn
    }

    /// The last CmdSN the initiator may use, to be told to it; ExpCmdSN - 1 when the window is closed.
    pub(super) fn max_cmd_sn(&self) -> Serial {
        let max_cmd_sn = self.exp_cmd_sn + self.open_slots.wrapping_sub(1);
        self.told_max_cmd_sn.set(max_cmd_sn);
        max_cmd_sn
    }

    /// How many commands the initiator may send as far as it was told.
    fn known_slots(&self) -> u32 {
        let told = self.told_max_cmd_sn.get();
        if told.lt(self.exp_cmd_sn) {
            0
        } else {
            told.0.wrapping_sub(self.exp_cmd_sn.0) + 1
        }
    }

    /// Whether the initiator has used up all that it was told of, although there is more: with every command hanging, no
    /// answer would tell it.
    pub(super) fn is_open_unheard(&self) -> bool {
        !self.is_shut() && self.known_slots() == 0
    }

    /// Opens the window as far as `depth` less the `active` commands and the memory allow. Returns whether
    /// it is wider than before; a window that could not be opened at all for want of memory says so by
    /// [`is_shut`](Self::is_shut).
    pub(super) fn open(&mut self, share: &Share, active: u32) -> bool {
        let before = self.open_slots;
        if self.bare_slots > 0 && self.used_at.is_some() {
            self.back(share, INITIAL_SLOTS);
        }
        let wanted = self.depth.saturating_sub(active).min(self.goal_slots);
        let part = if self.goal_slots <= INITIAL_SLOTS {
            INITIAL_PART
        } else {
            GROWTH_PART
        };
        if wanted > self.open_slots {
            // All at once when there is plenty, one by one when there is not.
            let missing = wanted - self.open_slots;
            let all = share.try_reserve_part(self.slot_bytes * missing as usize, part);
            if !self.add_slots(missing, all) {
                while self.open_slots < wanted && self.add_slots(1, share.try_reserve_part(self.slot_bytes, part)) {}
            }
            // One slot is what a session needs to get on at all: it may be the last there is.
            if self.open_slots == 0 {
                self.add_slots(1, share.try_reserve_part(self.slot_bytes, 1));
            }
        }
        self.open_slots > before
    }

    fn add_slots(&mut self, slots: u32, memory: Option<Reservation>) -> bool {
        let Some(memory) = memory else { return false };
        self.keep(memory);
        self.open_slots += slots;
        true
    }

    fn keep(&mut self, memory: Reservation) {
        match &mut self.reserved {
            Some(reserved) => reserved.absorb(memory),
            None => self.reserved = Some(memory),
        }
    }

    /// Whether no command at all may come.
    pub(super) fn is_shut(&self) -> bool {
        self.open_slots == 0
    }

    /// What the CmdSN of a non-immediate command means now.
    pub(super) fn classify(&self, cmd_sn: Serial) -> Arrival {
        let ahead = cmd_sn.0.wrapping_sub(self.exp_cmd_sn.0);
        if ahead >= self.open_slots {
            Arrival::Ignore
        } else if ahead == 0 {
            Arrival::Next
        } else {
            Arrival::Early
        }
    }

    /// The command with ExpCmdSN has come: moves on, and hands memory to it if it wants any and there is some.
    ///
    /// # Panics
    /// When the window is shut: a caller's error, [`classify`](Self::classify) says so.
    pub(super) fn advance(&mut self, now: Instant, wants_memory: bool) -> Option<Reservation> {
        assert!(self.open_slots > 0, "a command outside the window was let in");
        let backed = self.backed_slots();
        self.used_at = Some(now);
        self.exp_cmd_sn += 1;
        self.open_slots -= 1;
        // The window itself is filled up with every command: what counts is what the initiator knows of.
        if self.known_slots() < self.goal_slots / 2 {
            self.goal_slots = (self.goal_slots * 2).min(self.depth);
        }
        if backed == 0 || (!wants_memory && self.bare_slots > 0) {
            self.bare_slots -= 1;
            return None;
        }
        self.reserved.as_mut().map(|reserved| reserved.split(self.slot_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::budget::Budget;

    /// Uses a window at full width, so that it grows to its depth, and leaves it idle.
    fn busy_then_idle(share: &Share, now: Instant) -> Window {
        let mut window = Window::new(Serial(1), 256, 100);
        for _ in 0..10 {
            window.open(share, 0);
            while !window.is_shut() {
                window.advance(now, true);
            }
        }
        window.open(share, 0);
        window
    }

    #[test]
    fn an_idle_window_gives_its_memory_back_and_keeps_its_width() {
        let budget = Budget::new(100_000, 0);
        let share = Share::new(&budget.window);
        let now = Instant::now();
        let mut window = busy_then_idle(&share, now);
        assert_eq!((window.open_slots, share.used_bytes()), (256, 25_600));
        let max_cmd_sn = window.max_cmd_sn();
        window.timeout(now + Duration::from_millis(IDLE_MS - 1), 0);
        assert_eq!(share.used_bytes(), 25_600);
        window.timeout(now + Duration::from_millis(IDLE_MS), 0);
        assert_eq!(share.used_bytes(), 100 * INITIAL_SLOTS as usize);
        assert_eq!((window.max_cmd_sn(), window.next_timeout()), (max_cmd_sn, None));
        // Used again, every slot gets its memory in turn.
        for _ in 0..256 {
            assert!(window.is_backed(&share, 1));
            assert!(window.advance(now, true).is_some());
        }
        assert_eq!(window.bare_slots, 0);
    }

    #[test]
    fn without_memory_only_commands_that_bring_none_are_let_in() {
        let budget = Budget::new(100_000, 0);
        let (share, other) = (Share::new(&budget.window), Share::new(&budget.window));
        let now = Instant::now();
        let mut window = busy_then_idle(&share, now);
        window.timeout(now + Duration::from_millis(IDLE_MS), 3);
        let _all = other
            .try_reserve_part(100_000 - share.used_bytes(), 1)
            .expect("the rest");
        let kept: Vec<_> = (0..INITIAL_SLOTS).map(|_| window.advance(now, true)).collect();
        assert!(kept.iter().all(Option::is_some), "what it kept");
        assert!(!window.is_backed(&share, 1));
        assert!(window.advance(now, false).is_none());
        drop(kept);
        assert!(window.is_backed(&share, 1), "there is some again");
    }
}
