//! Threads for commands that would block.
//!
//! Every LUN has a crew of its own, so that one slow medium does not keep the others waiting. A crew starts
//! with nobody and grows only when its members are really stuck: commands that merely *might* block, like
//! buffered writes to a file, are done fastest by a single thread that never sleeps in between.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::iscsi::job::{Finished, Job};
use crate::iscsi::mailbox::{Mailbox, Notice};
use crate::lun::Wait;
use crate::scsi::LogicalUnit;

/// Threads of one LUN at most.
const CREW_MAX: usize = 32;
/// A member that has been at one command for longer than this, in microseconds, is taken to be stuck.
const STUCK_AFTER_US: u128 = 200;
/// A member without work leaves after this long, in milliseconds.
const LEAVE_AFTER_MS: u64 = 10_000;
/// Completions are handed over together, at most so many at a time.
const BATCH_MAX: usize = 16;
/// Completions wait for others for no longer than this, in microseconds.
const BATCH_WAIT_US: u128 = 100;

/// A unit with its crew.
type CrewOf = (Weak<LogicalUnit>, Arc<Crew>);

/// All crews.
#[derive(Debug, Default)]
pub(super) struct Workers {
    /// By the address of the unit, which is only a hint: the unit itself tells whether it is still that one.
    crews: Mutex<HashMap<usize, CrewOf>>,
}

impl Workers {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The crew of a LUN.
    pub(super) fn crew(&self, unit: &Arc<LogicalUnit>) -> Arc<Crew> {
        let mut crews = self.crews.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Arc::as_ptr(unit).addr();
        if let Some((owner, crew)) = crews.get(&key)
            && owner.strong_count() > 0
        {
            return Arc::clone(crew);
        }
        crews.retain(|_, (owner, _)| owner.strong_count() > 0);
        let crew = Arc::new(Crew::default());
        crews.insert(key, (Arc::downgrade(unit), Arc::clone(&crew)));
        crew
    }
}

/// A job with the mailbox its end is posted to.
struct Order {
    job: Job,
    mailbox: Weak<Mailbox>,
}

/// The threads of one LUN.
#[derive(Debug, Default)]
pub(super) struct Crew {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Order>,
    members: usize,
    idle: usize,
    /// When the queue last moved.
    last_taken: Option<Instant>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("queue", &self.queue.len())
            .field("members", &self.members)
            .finish()
    }
}

impl Crew {
    /// Queues jobs, and sees to it that somebody does them.
    pub(super) fn submit(self: &Arc<Self>, jobs: impl Iterator<Item = Job>, mailbox: &Arc<Mailbox>) {
        let mut state = self.lock();
        state.queue.extend(jobs.map(|job| Order {
            job,
            mailbox: Arc::downgrade(mailbox),
        }));
        let stuck = state
            .last_taken
            .is_none_or(|taken| taken.elapsed().as_micros() > STUCK_AFTER_US);
        if state.idle > 0 {
            drop(state);
            self.work.notify_one();
        } else if state.members == 0 || stuck {
            self.hire(state);
        }
    }

    /// Adds a member. A thread that cannot be started is no loss as long as there is another; when there is
    /// none, the job is done here and now.
    fn hire(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.members >= CREW_MAX {
            return;
        }
        state.members += 1;
        drop(state);
        let crew = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name("farlun-lun".to_owned())
            .spawn(move || crew.member());
        if let Err(error) = started {
            tracing::warn!(%error, "cannot start a worker thread");
            let mut state = self.lock();
            state.members -= 1;
            let alone = state.members == 0;
            drop(state);
            if alone {
                self.drain();
            }
        }
    }

    fn drain(self: &Arc<Self>) {
        let mut done = Done::default();
        while let Some(order) = self.take(false) {
            done.add(order);
        }
        done.post();
    }

    fn member(self: Arc<Self>) {
        let mut done = Done::default();
        loop {
            let order = match self.take(false) {
                Some(order) => order,
                None => {
                    done.post();
                    match self.take(true) {
                        Some(order) => order,
                        None => return,
                    }
                }
            };
            let started = Instant::now();
            done.add(order);
            // It did block. If others wait behind it, they need not wait for each other.
            if started.elapsed().as_micros() > STUCK_AFTER_US {
                self.call_help();
            }
        }
    }

    fn call_help(self: &Arc<Self>) {
        let state = self.lock();
        if state.queue.is_empty() {
            return;
        }
        if state.idle > 0 {
            drop(state);
            self.work.notify_one();
        } else {
            self.hire(state);
        }
    }

    /// The next order. With `wait`, waits for one, and leaves the crew when none comes.
    fn take(self: &Arc<Self>, wait: bool) -> Option<Order> {
        let mut state = self.lock();
        let deadline = Instant::now() + Duration::from_millis(LEAVE_AFTER_MS);
        loop {
            if let Some(order) = state.queue.pop_front() {
                state.last_taken = Some(Instant::now());
                // A flush may take seconds: whatever waits behind it gets another member at once.
                if order.job.execution.may_be_long() && !state.queue.is_empty() {
                    if state.idle > 0 {
                        self.work.notify_one();
                    } else {
                        self.hire(state);
                    }
                }
                return Some(order);
            }
            if !wait {
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.members -= 1;
                return None;
            }
            state.idle += 1;
            state = self
                .work
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends of jobs of one connection, collected for one wake-up.
#[derive(Default)]
struct Done {
    mailbox: Weak<Mailbox>,
    finished: Vec<Finished>,
    first: Option<Instant>,
}

impl Done {
    /// Does a job, and posts the collected ends when it is time.
    fn add(&mut self, order: Order) {
        if !self.mailbox.ptr_eq(&order.mailbox) {
            self.post();
            self.mailbox = order.mailbox;
        }
        // What is done already does not wait for something long.
        if order.job.execution.may_be_long() {
            self.post();
        }
        // Never an error: a worker may block.
        self.finished.extend(order.job.run(Wait::Allowed));
        let first = *self.first.get_or_insert_with(Instant::now);
        if self.finished.len() >= BATCH_MAX || first.elapsed().as_micros() > BATCH_WAIT_US {
            self.post();
        }
    }

    fn post(&mut self) {
        self.first = None;
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.post_all(self.finished.drain(..).map(Notice::Finished));
        }
        self.finished.clear();
    }
}
