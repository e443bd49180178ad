//! Threads for commands that would block.
//!
//! Every LUN has a crew of its own, so that one slow medium does not keep the others waiting. A crew starts
//! with nobody and works with more than one only when it is really stuck: commands that merely *might* block,
//! like buffered writes to a file, are done fastest by a single thread that never sleeps in between.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::iscsi::job::{Finished, Job};
use crate::iscsi::mailbox::{Mailbox, Notice};
use crate::lun::Wait;
use crate::scsi::LogicalUnit;

#[cfg(test)]
mod tests;

/// Threads of one LUN at most.
const CREW_MAX: usize = 32;
/// Threads of one LUN that are at commands which may take minutes, at most: the others are for the rest.
const LONG_MAX: usize = 24;
/// A queue that has not moved for this long, in microseconds, has its members stuck in the medium.
const STUCK_AFTER_US: u64 = 10_000;
/// A member without work leaves after this long, in milliseconds.
const LEAVE_AFTER_MS: u64 = 10_000;
/// Completions are handed over together, at most so many at a time.
const BATCH_MAX: usize = 16;
/// Completions wait for others for no longer than this, in microseconds.
const BATCH_WAIT_US: u128 = 500;

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

impl Order {
    /// What others may have to wait for. Not so reservations: a medium that hangs under one initiator's commands is no
    /// reason to keep another from preempting it.
    fn is_long(&self) -> bool {
        self.job.execution.may_be_long() && !self.job.execution.is_control()
    }
}

/// The threads of one LUN. While one of them works, another watches: it takes over when the queue stops
/// moving, and sees to it that there is a next to watch.
#[derive(Debug, Default)]
pub(super) struct Crew {
    state: Mutex<State>,
    /// What its members have done and not told yet.
    done: Mutex<Done>,
    /// For those who have nothing to do, and for the one that watches.
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Order>,
    /// Members that are at long commands; and those commands that wait for one of these to be done.
    long_running: usize,
    held: VecDeque<Order>,
    members: usize,
    /// Members that wait, the watching one among them.
    idle: usize,
    /// Whether one of the idle looks at the queue again and again.
    watched: bool,
    /// Whether a job was taken that is sure to block, so that another member is to work at once.
    help_wanted: bool,
    /// When the queue last moved.
    last_taken: Option<Instant>,
}

impl State {
    /// The job to do next. What is held was there first.
    fn pop(&mut self) -> Option<Order> {
        let has_room = self.long_running < LONG_MAX;
        if has_room && let Some(order) = self.held.pop_front() {
            self.long_running += 1;
            return Some(order);
        }
        while let Some(order) = self.queue.pop_front() {
            if !order.is_long() {
                return Some(order);
            }
            if has_room {
                self.long_running += 1;
                return Some(order);
            }
            self.held.push_back(order);
        }
        None
    }

    fn is_stuck(&self) -> bool {
        self.last_taken
            .is_none_or(|taken| taken.elapsed() >= Duration::from_micros(STUCK_AFTER_US))
    }

    /// Nobody is at a job.
    fn is_at_rest(&self) -> bool {
        self.idle == self.members
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("queue", &self.queue.len())
            .field("members", &self.members)
            .field("idle", &self.idle)
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
        if state.idle == 0 {
            self.hire(state);
        } else if state.is_at_rest() || state.is_stuck() || !state.watched {
            drop(state);
            self.work.notify_one();
        }
        // Otherwise somebody is at work and somebody watches: the queue will be seen to.
    }

    /// Adds a member. A thread that cannot be started is no loss as long as there is another; when there is
    /// none, the jobs are done here and now.
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
                self.work_off();
            }
        }
    }

    /// Does jobs until there are none.
    fn work_off(self: &Arc<Self>) {
        let mut was_long = false;
        while let Some(order) = self.take_next(was_long) {
            was_long = order.is_long();
            self.carry_out(order);
        }
        self.done().post();
    }

    fn carry_out(&self, order: Order) {
        let Order { job, mailbox } = order;
        // What is done already does not wait for it.
        if will_block(&job) {
            self.done().post();
        }
        // Never an error: a worker may block.
        if let Ok(finished) = job.run(Wait::Allowed) {
            self.done().add(mailbox, finished);
        }
    }

    fn member(self: Arc<Self>) {
        while self.wait() {
            self.work_off();
        }
    }

    /// The next job, for a member that has been at a long one before, or has not.
    fn take_next(self: &Arc<Self>, was_long: bool) -> Option<Order> {
        let mut state = self.lock();
        state.long_running -= usize::from(was_long);
        let order = state.pop()?;
        state.last_taken = Some(Instant::now());
        // Something that will block, with others behind it: somebody else sees to those at once.
        state.help_wanted = will_block(&order.job) && !state.queue.is_empty();
        if state.idle == 0 {
            self.hire(state);
        } else if state.help_wanted || !state.watched {
            drop(state);
            self.work.notify_one();
        }
        Some(order)
    }

    /// Waits for a reason to work. Returns whether there is one; a member that is not needed leaves.
    fn wait(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        let leave_at = Instant::now() + Duration::from_millis(LEAVE_AFTER_MS);
        loop {
            state.idle += 1;
            let at_rest = state.is_at_rest();
            if !state.queue.is_empty() && (at_rest || state.help_wanted || state.is_stuck()) {
                state.help_wanted = false;
                state.idle -= 1;
                return true;
            }
            let watch = !at_rest && !state.watched;
            if watch && state.is_stuck() {
                // Nobody knew that it would block. What was done before is not to wait for it.
                self.done().post();
            }
            let left = leave_at.saturating_duration_since(Instant::now());
            if left.is_zero() && !watch {
                state.idle -= 1;
                state.members -= 1;
                return false;
            }
            let time = if watch {
                Duration::from_micros(STUCK_AFTER_US)
            } else {
                left
            };
            state.watched |= watch;
            state = self
                .work
                .wait_timeout(state, time)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if watch {
                state.watched = false;
            }
            state.idle -= 1;
        }
    }

    /// To be locked after the state, if both are.
    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends of jobs of one connection, collected for one wake-up.
#[derive(Debug, Default)]
struct Done {
    mailbox: Weak<Mailbox>,
    finished: Vec<Finished>,
    first: Option<Instant>,
}

impl Done {
    /// Adds an end, and posts the collected ones when it is time.
    fn add(&mut self, mailbox: Weak<Mailbox>, finished: Finished) {
        if !self.mailbox.ptr_eq(&mailbox) {
            self.post();
            self.mailbox = mailbox;
        }
        self.finished.push(finished);
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

/// Whether a job is sure to take its time. A read is here because its data is not in memory; a write may well
/// be over in a microsecond.
fn will_block(job: &Job) -> bool {
    job.execution.may_be_long() || job.execution.data_in_bytes() > 0
}
