//! What syncs of one open file owe each other: a failure that any of them meets belongs to all.
//!
//! The kernel tells an open file of lost pages once (errseq_t): of two calls that run at the same time one
//! fails and the other succeeds, although the data of either may be what was lost. So success counts only once
//! every call that ran meanwhile has come back without a failure, and a failure is never forgotten.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::MediumError;

/// Why a call that was to leave its data on stable storage did not.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nothing that was ever acknowledged is lost.
    Refused(MediumError),
    /// Data taken earlier may be lost.
    Lost(MediumError),
}

/// The calls on one open file that make data stable.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Once a sync has failed the kernel forgets which pages were lost, so no later sync may claim success.
    failed: bool,
    /// Calls that have not come back, by number in the order they began.
    in_flight: BTreeSet<u64>,
    next_call: u64,
    /// Syncs of the whole file: one runs at a time, and they are counted from 1.
    sync_runs: bool,
    syncs_begun: u64,
    last_good_sync: u64,
}

impl State {
    fn check(&self) -> Result<(), MediumError> {
        if self.failed {
            return Err(MediumError::Io(io::Error::other(
                "an earlier sync failed; reopen the LUN",
            )));
        }
        Ok(())
    }
}

impl Syncs {
    /// Makes a call that leaves on stable storage what it writes.
    pub(super) fn write(&self, call: impl FnOnce() -> Result<(), Fault>) -> Result<(), MediumError> {
        let mut state = self.lock();
        state.check()?;
        let number = state.next_call;
        state.next_call += 1;
        state.in_flight.insert(number);
        drop(state);

        let result = call();

        let mut state = self.lock();
        state.in_flight.remove(&number);
        self.changed.notify_all();
        match result {
            Ok(()) => {}
            Err(Fault::Refused(error)) => return Err(error),
            Err(Fault::Lost(error)) => {
                state.failed = true;
                return Err(error);
            }
        }
        // Calls that begin from now on have their own part to answer for.
        let younger = state.next_call;
        let state = self.wait_while(state, |state| {
            !state.failed && state.in_flight.first().is_some_and(|&oldest| oldest < younger)
        });
        state.check()
    }

    /// Makes a call that leaves on stable storage all that was ever written, or waits for one that another
    /// thread makes, if that begins after this. However many wait, two calls do for them.
    pub(super) fn sync(&self, call: impl FnOnce() -> Result<(), MediumError>) -> Result<(), MediumError> {
        let mut state = self.lock();
        let wanted = state.syncs_begun + 1;
        state = self.wait_while(state, |state| {
            !state.failed && state.last_good_sync < wanted && state.sync_runs
        });
        state.check()?;
        if state.last_good_sync >= wanted {
            return Ok(());
        }
        state.sync_runs = true;
        state.syncs_begun += 1;
        let number = state.syncs_begun;
        drop(state);

        let result = self.write(|| call().map_err(Fault::Lost));

        let mut state = self.lock();
        state.sync_runs = false;
        if result.is_ok() {
            state.last_good_sync = number;
        }
        self.changed.notify_all();
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, State>,
        condition: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.changed
            .wait_while(state, |state| condition(state))
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn broken() -> MediumError {
        MediumError::Io(io::Error::other("lost"))
    }

    /// One call has been told of the loss and has yet to say so, when another comes back with success.
    fn overlapped(
        first: impl FnOnce(&Syncs, &dyn Fn()) -> Result<(), MediumError> + Send,
        second: impl FnOnce(&Syncs) -> Result<(), MediumError> + Send,
    ) {
        let syncs = Syncs::default();
        let (told, is_told) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let syncs = &syncs;
            let first = scope.spawn(move || {
                first(syncs, &|| {
                    told.send(()).unwrap();
                    may_go_on.recv_timeout(Duration::from_secs(5)).unwrap();
                })
            });
            is_told.recv().unwrap();
            let second = scope.spawn(move || second(syncs));
            thread::sleep(Duration::from_millis(100));
            assert!(!second.is_finished(), "success although the other may have failed");
            go_on.send(()).unwrap();
            assert_eq!(first.join().unwrap().unwrap_err().to_string(), "lost");
            assert!(second.join().unwrap().unwrap_err().to_string().contains("reopen"));
        });
        syncs.sync(|| Ok(())).unwrap_err();
        syncs.write(|| Ok(())).unwrap_err();
    }

    #[test]
    fn a_failure_belongs_to_every_call_that_ran_meanwhile() {
        let sync = |syncs: &Syncs, meanwhile: &dyn Fn()| {
            syncs.sync(|| {
                meanwhile();
                Err(broken())
            })
        };
        let write = |syncs: &Syncs, meanwhile: &dyn Fn()| {
            syncs.write(|| {
                meanwhile();
                Err(Fault::Lost(broken()))
            })
        };
        overlapped(sync, |syncs| syncs.sync(|| Ok(())));
        overlapped(sync, |syncs| syncs.write(|| Ok(())));
        overlapped(write, |syncs| syncs.sync(|| Ok(())));
        overlapped(write, |syncs| syncs.write(|| Ok(())));
    }

    #[test]
    fn a_refusal_is_nobody_elses_and_does_not_stick() {
        let syncs = Syncs::default();
        let refused = syncs.write(|| Err(Fault::Refused(MediumError::NoSpace)));
        assert!(matches!(refused, Err(MediumError::NoSpace)));
        syncs.write(|| Ok(())).unwrap();
        syncs.sync(|| Ok(())).unwrap();
    }

    #[test]
    fn those_who_wait_share_one_sync_that_began_after_them() {
        let syncs = Syncs::default();
        let calls = AtomicUsize::new(0);
        let (begun, has_begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let (syncs, calls) = (&syncs, &calls);
            let first = scope.spawn(move || {
                syncs.sync(|| {
                    calls.fetch_add(1, Ordering::SeqCst);
                    begun.send(()).unwrap();
                    may_go_on.recv_timeout(Duration::from_secs(5)).unwrap();
                    Ok(())
                })
            });
            has_begun.recv().unwrap();
            let others: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(move || {
                        syncs.sync(|| {
                            calls.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        })
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(100));
            go_on.send(()).unwrap();
            first.join().unwrap().unwrap();
            for other in others {
                other.join().unwrap().unwrap();
            }
        });
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}
