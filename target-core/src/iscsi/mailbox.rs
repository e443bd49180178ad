//! What reaches a connection from outside its own socket: completions, resets, reinstatement, free memory.
//!
//! A mailbox is owned by one connection and posted to by workers and by other sessions. It is a short
//! mutex-protected queue with a waker, so that the state machines need no channel of a particular runtime.

use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Waker};

use super::job::Finished;

/// One message for a connection.
#[derive(Debug)]
pub enum Notice {
    /// A worker has carried out a command.
    Finished(Finished),
    /// Memory that this connection waited for may be there now.
    MemoryFreed,
    /// Another connection has aborted all commands at this LUN: by a reset, or CLEAR TASK SET.
    CommandsAborted(u16),
    /// The target has other LUNs now, or another idea of who may see them.
    LunsChanged,
    /// How fast commands may begin has changed.
    LimitsChanged,
    /// The initiator is asked to log out (RFC 7143 §11.9.1, event 1); if it has not done so after this time, the
    /// connection ends for this reason.
    AskLogout {
        /// Time to obey, in milliseconds.
        within_ms: u64,
        /// What the log says when the time is over.
        reason: CloseReason,
    },
    /// The connection is to end at once, for the reason given in the log.
    Close(CloseReason),
}

/// Why a connection is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The initiator logged in again with the same ISID (RFC 7143 §6.3.5).
    Reinstated,
    /// TARGET COLD RESET (RFC 7143 §11.5.1).
    ColdReset,
    /// The daemon is stopping.
    Stopping,
    /// An administrator dropped the session.
    Administrator,
    /// The target has been removed.
    TargetRemoved,
    /// Others need the place of a connection that is not logged in.
    Crowded,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Mailbox {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    notices: Vec<Notice>,
    waker: Option<Waker>,
}

/// A poster's end: posting to a connection that is gone does nothing.
pub type Sender = Weak<Mailbox>;

impl Mailbox {
    /// An empty mailbox.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Adds one notice and wakes the owner.
    pub fn post(&self, notice: Notice) {
        self.post_all(std::iter::once(notice));
    }

    /// Adds several notices and wakes the owner once.
    pub fn post_all(&self, notices: impl IntoIterator<Item = Notice>) {
        let waker = {
            let mut inner = self.lock();
            inner.notices.extend(notices);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves what has been posted into `into`.
    pub fn take(&self, into: &mut Vec<Notice>) {
        into.append(&mut self.lock().notices);
    }

    /// Like [`take`](Self::take), and `cx` is woken by the next post, whether there was something or not.
    pub fn poll_take(&self, cx: &Context<'_>, into: &mut Vec<Notice>) {
        let mut inner = self.lock();
        into.append(&mut inner.notices);
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A poisoned mailbox still holds whole notices: nothing in here can panic half-way.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn every_post_after_a_look_wakes() {
        let mailbox = Mailbox::new();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let mut notices = Vec::new();
        for round in 1..=3 {
            // The look that finds the notice asks to be told of the next as well.
            mailbox.poll_take(&cx, &mut notices);
            mailbox.post(Notice::MemoryFreed);
            assert_eq!((count.0.load(SeqCst), notices.len()), (round, round - 1));
        }
    }
}
