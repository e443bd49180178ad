//! Which commands came before a reset, and whether those of them that run are done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::unit::LogicalUnit;

/// Counts the resets of a unit, and the commands inside [`Execution::run`](super::Execution::run) by the parity
/// of the generation they belong to.
///
/// All accesses are sequentially consistent, so there is one order of them. A command announces itself and then
/// looks at the generation; a reset changes the generation and then looks who is announced. Whichever comes
/// first in that order, either the command sees that it is too late, or the reset sees the command.
#[derive(Debug, Default)]
pub(super) struct Generations {
    current: AtomicU64,
    running: [AtomicUsize; 2],
}

/// A command inside `run`; dropping it says that it has left.
pub(super) struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Generations {
    /// The generation of a command that arrives now.
    pub(super) fn current(&self) -> u64 {
        self.current.load(Ordering::SeqCst)
    }

    /// Lets a command begin, unless a reset came after it.
    pub(super) fn enter(&self, generation: u64) -> Option<Running<'_>> {
        let running = &self.running[slot(generation)];
        running.fetch_add(1, Ordering::SeqCst);
        let running = Running(running);
        (self.current() == generation).then_some(running)
    }

    /// Begins another generation. Only one thread at a time may do so: the caller holds the unit's lock.
    pub(super) fn advance(&self) -> [AtomicBool; 2] {
        let old = self.current();
        // Nearly always nothing runs that is older still; then what begins from now on need not be waited for.
        let reused = slot(old + 1);
        let older_are_done = self.is_idle(reused);
        self.current.store(old + 1, Ordering::SeqCst);
        let seen_idle = [AtomicBool::new(false), AtomicBool::new(false)];
        seen_idle[reused].store(older_are_done, Ordering::SeqCst);
        seen_idle
    }

    fn is_idle(&self, slot: usize) -> bool {
        self.running[slot].load(Ordering::SeqCst) == 0
    }
}

fn slot(generation: u64) -> usize {
    usize::from(generation % 2 == 1)
}

/// The commands that ran when a logical unit was reset.
#[derive(Debug)]
pub struct Drain {
    unit: Arc<LogicalUnit>,
    /// Counters that have been zero since the reset, or were without ever counting younger commands.
    seen_idle: [AtomicBool; 2],
}

impl Drain {
    pub(super) fn new(unit: Arc<LogicalUnit>, seen_idle: [AtomicBool; 2]) -> Self {
        Self { unit, seen_idle }
    }

    /// Whether no command older than the reset, of whichever nexus, is at the medium any more. Those that have
    /// not begun will not. Once true it stays true.
    ///
    /// Resets in quick succession, while a command from before the first is still running, may have it wait for
    /// younger commands too.
    pub fn is_drained(&self) -> bool {
        self.seen_idle.iter().enumerate().all(|(slot, seen)| {
            let idle = seen.load(Ordering::SeqCst) || self.unit.generations().is_idle(slot);
            if idle {
                seen.store(true, Ordering::SeqCst);
            }
            idle
        })
    }
}
