//! Which commands of a path still may begin, and whether those that have begun are done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

/// In a generation: nothing begins any more, whenever it came.
const RETIRED: u64 = 1 << 63;

/// Counts what happened to a path that the commands on it have to know, and the commands inside
/// [`Execution::run`](super::Execution::run) by the parity of the generation in which they began.
///
/// All accesses are sequentially consistent, so there is one order of them. A command announces itself and then
/// looks whether it may begin, and at what is true of its unit; whoever changes that makes the change and then
/// looks who is announced. Whichever comes first in that order, either the command sees the change, or who made
/// it sees the command.
#[derive(Debug, Default)]
pub(super) struct Generations {
    current: AtomicU64,
    /// Commands that came before this generation do not begin.
    valid_from: AtomicU64,
    running: [AtomicUsize; 2],
}

/// A command inside `run`; dropping it says that it has left.
pub(super) struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Generations {
    /// The generation of a command that arrives now; `None` when no command is taken any more.
    pub(super) fn current(&self) -> Option<u64> {
        let generation = self.current.load(SeqCst);
        (generation & RETIRED == 0).then_some(generation)
    }

    /// Whether no command is taken any more. It is so as soon as the first command is refused for that.
    pub(super) fn is_retired(&self) -> bool {
        self.valid_from.load(SeqCst) == u64::MAX
    }

    /// Whether a command of this generation has been aborted, be it running or not.
    pub(super) fn is_aborted(&self, generation: u64) -> bool {
        generation < self.valid_from.load(SeqCst)
    }

    /// Lets a command begin, unless it has been aborted.
    pub(super) fn enter(&self, generation: u64) -> Option<Running<'_>> {
        loop {
            let now = self.current.load(SeqCst);
            let running = &self.running[slot(now)];
            running.fetch_add(1, SeqCst);
            let running = Running(running);
            // Counted where nobody looks for it any more: once again.
            if self.current.load(SeqCst) == now {
                return (!self.is_aborted(generation)).then_some(running);
            }
        }
    }

    /// Aborts every command that is there: none of them begins any more, and those that have begun can be waited
    /// for. Only one thread at a time may call this or its like: the caller holds the unit's lock.
    pub(super) fn abort(self: &Arc<Self>) -> Pending {
        let next = self.current.load(SeqCst) + 1;
        if self.current().is_some() {
            self.valid_from.store(next, SeqCst);
        }
        self.advance(next)
    }

    /// The same, for good: what comes later does not begin either.
    pub(super) fn retire(self: &Arc<Self>) -> Pending {
        self.valid_from.store(u64::MAX, SeqCst);
        self.advance((self.current.load(SeqCst) + 1) | RETIRED)
    }

    /// Aborts nothing; but who has begun before can be waited for, without waiting for those who begin later.
    pub(super) fn pass(self: &Arc<Self>) -> Pending {
        self.advance(self.current.load(SeqCst) + 1)
    }

    fn advance(self: &Arc<Self>, next: u64) -> Pending {
        // Nearly always nothing runs that is older still; then what begins from now on need not be waited for.
        let reused = slot(next);
        let older_are_done = self.is_idle(reused);
        self.current.store(next, SeqCst);
        let seen_idle = [AtomicBool::new(false), AtomicBool::new(false)];
        seen_idle[reused].store(older_are_done, SeqCst);
        Pending {
            generations: Arc::clone(self),
            seen_idle,
        }
    }

    fn is_idle(&self, slot: usize) -> bool {
        self.running[slot].load(SeqCst) == 0
    }
}

fn slot(generation: u64) -> usize {
    usize::from(generation % 2 == 1)
}

/// The commands of one path that ran when something was changed.
#[derive(Debug)]
pub(super) struct Pending {
    generations: Arc<Generations>,
    /// Counters that have been zero since then, or were without ever counting younger commands.
    seen_idle: [AtomicBool; 2],
}

impl Pending {
    fn is_over(&self) -> bool {
        self.seen_idle.iter().enumerate().all(|(slot, seen)| {
            let idle = seen.load(SeqCst) || self.generations.is_idle(slot);
            if idle {
                seen.store(true, SeqCst);
            }
            idle
        })
    }
}

/// The commands that ran when a logical unit was reset, or otherwise changed under them.
#[derive(Debug, Default)]
pub struct Drain {
    paths: Vec<Pending>,
}

impl FromIterator<Pending> for Drain {
    fn from_iter<I: IntoIterator<Item = Pending>>(paths: I) -> Self {
        Self {
            paths: paths.into_iter().collect(),
        }
    }
}

impl Drain {
    /// Whether no command that ran then, of whichever nexus, is at the medium any more. Those that were aborted
    /// before they had begun will not begin. Once true it stays true.
    ///
    /// Several changes in quick succession, while a command from before the first is still running, may have it
    /// wait for younger commands too.
    pub fn is_drained(&self) -> bool {
        self.paths.iter().all(Pending::is_over)
    }

    /// Waits for [`is_drained`](Self::is_drained), but not for longer than `at_most`. Returns whether it is.
    /// Blocks the thread.
    pub fn wait(&self, at_most: std::time::Duration) -> bool {
        let end = std::time::Instant::now() + at_most;
        loop {
            if self.is_drained() {
                return true;
            }
            if std::time::Instant::now() >= end {
                return false;
            }
            std::thread::sleep(std::time::Duration::from_millis(POLL_MS));
        }
    }
}

/// How often [`Drain::wait`] looks, in milliseconds.
const POLL_MS: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_aborted_does_not_begin_and_what_came_later_does() {
        let path = Arc::new(Generations::default());
        let old = path.current().unwrap();
        let drain: Drain = [path.abort()].into_iter().collect();
        assert!(drain.is_drained() && !path.is_retired(), "nothing ran");
        assert!(path.is_aborted(old) && path.enter(old).is_none());
        let new = path.current().unwrap();
        assert!(!path.is_aborted(new) && path.enter(new).is_some());
    }

    #[test]
    fn who_runs_is_waited_for_and_who_begins_later_is_not() {
        for aborts in [true, false] {
            let path = Arc::new(Generations::default());
            let old = path.current().unwrap();
            let running = path.enter(old).unwrap();
            let drain: Drain = [if aborts { path.abort() } else { path.pass() }].into_iter().collect();
            let later = path.enter(path.current().unwrap()).unwrap();
            assert_eq!(path.enter(old).is_some(), !aborts);
            assert!(!drain.is_drained());
            assert!(!drain.wait(std::time::Duration::from_millis(3)));
            drop(running);
            assert!(drain.is_drained());
            drop(later);
        }
    }

    #[test]
    fn two_changes_while_one_command_runs_lose_nobody() {
        let path = Arc::new(Generations::default());
        let running = path.enter(path.current().unwrap()).unwrap();
        let first: Drain = [path.pass()].into_iter().collect();
        let middle = path.enter(path.current().unwrap()).unwrap();
        let second: Drain = [path.pass()].into_iter().collect();
        assert!(!first.is_drained() && !second.is_drained());
        drop(middle);
        assert!(!first.is_drained() && !second.is_drained());
        drop(running);
        assert!(first.is_drained() && second.is_drained());
    }

    #[test]
    fn who_is_refused_for_good_knows_why() {
        for _ in 0..2000 {
            let path = Arc::new(Generations::default());
            let old = path.current().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| path.retire());
                while path.enter(old).is_some() {}
                assert!(path.is_retired());
            });
        }
    }

    #[test]
    fn a_retired_path_takes_nothing() {
        let path = Arc::new(Generations::default());
        let old = path.current().unwrap();
        let _drain = path.retire();
        assert_eq!(path.current(), None);
        assert!(path.enter(old).is_none() && path.is_retired());
        // Neither a reset nor anything else brings it back.
        let _drain = (path.abort(), path.pass(), path.retire());
        assert_eq!(path.current(), None);
        assert!(path.enter(u64::MAX - 1).is_none());
    }
}
