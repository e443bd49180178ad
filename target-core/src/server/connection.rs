//! One connection's task: moves bytes between a stream and its [`Connection`], runs commands on the spot
//! where they cannot block, and hands the others to the workers.

use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

use super::places::Guest;
use super::workers::{Crew, Workers};
use crate::iscsi::job::Job;
use crate::iscsi::mailbox::{Mailbox, Notice};
use crate::iscsi::{Connection, Ended};
use crate::lun::Wait;
use crate::scsi::LogicalUnit;

/// Bytes read at once while headers and small data are expected.
const READ_BYTES: usize = 64 * 1024;
/// Bytes read at once after a large data segment: the header of the next, and little of its data, which is
/// better received straight into its buffer.
const READ_AFTER_BULK_BYTES: usize = 4 * 1024;
/// Data segments from this size on are received straight into their buffer, in bytes.
const BULK_MIN_BYTES: usize = 16 * 1024;
/// Slices in one vectored write.
const SLICES_MAX: usize = 128;
/// Output that is sent before further commands are run, in bytes.
const SEND_FIRST_BYTES: usize = 512 * 1024;
/// Rounds of the loop before other tasks of this thread get their turn.
const ROUNDS_MAX: usize = 32;

/// How a connection ended, and who it was.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) ended: io::Result<Ended>,
    pub(super) session: Option<String>,
}

/// How a connection is reached, and the place it has until it is logged in.
pub(super) struct Door {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) guest: Option<Guest>,
}

/// Drives a connection to its end.
pub(super) async fn run<S>(stream: S, connection: Connection, door: Door, workers: &Workers) -> Outcome
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut driver = Driver {
        stream,
        connection,
        mailbox: door.mailbox,
        guest: door.guest,
        workers,
        crews: HashMap::new(),
        handed_over: Vec::new(),
        notices: Vec::new(),
        input: Vec::with_capacity(READ_BYTES),
        consumed: 0,
        bulk: false,
        at_end: false,
        timer: Box::pin(tokio::time::sleep_until(Instant::now().into())),
    };
    let ended = poll_fn(|cx| driver.poll(cx)).await;
    let session = driver.connection.describe();
    let guest = driver.guest.take();
    let ended = match driver.connection.kept_back() {
        // A wrong secret is one, whether somebody waits to hear so or not.
        Some((refusal, until)) => {
            if let Some(guest) = guest {
                guest.owe(until);
            }
            Ok(Ended::LoginRefused(refusal.clone()))
        }
        None => ended,
    };
    // Says goodbye in order, but does not wait for a peer that does not listen.
    poll_fn(|cx| {
        let _ = Pin::new(&mut driver.stream).poll_shutdown(cx);
        Poll::Ready(())
    })
    .await;
    Outcome { ended, session }
}

struct Driver<'a, S> {
    stream: S,
    connection: Connection,
    mailbox: Arc<Mailbox>,
    guest: Option<Guest>,
    workers: &'a Workers,
    /// With the unit each is for: another one may be at its LUN by now.
    crews: HashMap<u16, (Weak<LogicalUnit>, Arc<Crew>)>,
    handed_over: Vec<Job>,
    notices: Vec<Notice>,
    /// What has been read and not yet been taken, from `consumed` on.
    input: Vec<u8>,
    consumed: usize,
    /// Whether the last data segment was a large one.
    bulk: bool,
    at_end: bool,
    timer: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Ended>> {
        for _ in 0..ROUNDS_MAX {
            let now = Instant::now();
            self.take_notices(cx, now);
            let read = self.read(cx, now)?;
            let ran = self.run_jobs(now);
            let wrote = self.write(cx, now)?;
            if self.guest.is_some() && self.connection.has_session() {
                self.guest = None;
            }
            if let Some(ended) = self.over() {
                return Poll::Ready(ended);
            }
            if !(read || ran || wrote) {
                if self.wait_for_timer(cx, now) {
                    continue;
                }
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take_notices(&mut self, cx: &Context<'_>, now: Instant) {
        self.mailbox.poll_take(cx, &mut self.notices);
        for notice in self.notices.drain(..) {
            self.connection.notice(now, notice);
        }
    }

    /// Reads once, and lets the connection take what came. Returns whether anything moved.
    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<bool> {
        if !self.connection.wants_input() || self.at_end {
            return Ok(false);
        }
        if self.consumed < self.input.len() {
            return Ok(self.feed(now));
        }
        match self.poll_read(cx, now) {
            Poll::Ready(Ok(0)) => {
                self.at_end = true;
                Ok(true)
            }
            Poll::Ready(Ok(_)) => {
                // Nothing here when it went straight to where it belongs.
                if !self.input.is_empty() {
                    self.feed(now);
                    let landing = self.connection.landing();
                    self.bulk = landing.is_some_and(|landing| landing.remaining_bytes >= BULK_MIN_BYTES);
                }
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(false),
        }
    }

    fn feed(&mut self, now: Instant) -> bool {
        let mut rest = &self.input[self.consumed..];
        let before = rest.len();
        self.connection.receive(now, &mut rest);
        let taken = before - rest.len();
        self.consumed += taken;
        taken > 0
    }

    /// Reads into the buffer of the data segment that is being received if it is large, else into our own.
    fn poll_read(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        self.input.clear();
        self.consumed = 0;
        if let Some(landing) = self.connection.landing() {
            let room = landing.buffer.capacity() - landing.buffer.len();
            let bytes = landing.remaining_bytes.min(room);
            if bytes >= BULK_MIN_BYTES || (self.bulk && bytes == landing.remaining_bytes) {
                self.bulk = true;
                let count = ready!(poll_append(stream, cx, landing.buffer, bytes))?;
                if count > 0 {
                    self.connection.landed(now, count);
                }
                return Poll::Ready(Ok(count));
            }
        }
        let bytes = if self.bulk { READ_AFTER_BULK_BYTES } else { READ_BYTES };
        let count = ready!(poll_append(stream, cx, &mut self.input, bytes))?;
        Poll::Ready(Ok(count))
    }

    /// Runs what can be run without blocking; the rest goes to the workers, together.
    fn run_jobs(&mut self, now: Instant) -> bool {
        let mut ran = false;
        while self.connection.transmit().queued_bytes() < SEND_FIRST_BYTES && !self.connection.sends_first() {
            let Some(job) = self.connection.next_job() else { break };
            ran = true;
            match job.run(Wait::Never) {
                Ok(finished) => self.connection.finished(now, finished),
                Err(job) => self.handed_over.push(job),
            }
        }
        self.hand_over();
        self.connection.settle(Instant::now);
        ran
    }

    fn hand_over(&mut self) {
        while let Some(lun) = self.handed_over.first().map(|job| job.execution.lun()) {
            let unit = self.handed_over[0].execution.unit();
            let of_unit = |unit| (Arc::downgrade(unit), self.workers.crew(unit));
            let (owner, crew) = self.crews.entry(lun).or_insert_with(|| of_unit(unit));
            if !std::ptr::eq(owner.as_ptr(), Arc::as_ptr(unit)) {
                (*owner, *crew) = of_unit(unit);
            }
            let unit = owner.as_ptr();
            crew.submit(
                self.handed_over
                    .extract_if(.., |job| std::ptr::eq(Arc::as_ptr(job.execution.unit()), unit)),
                &self.mailbox,
            );
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<bool> {
        let mut wrote = false;
        while !self.connection.transmit().is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.connection.transmit().gather(&mut slices);
            match Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(sent)) => {
                    self.connection.sent(now, sent);
                    wrote = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        // Streams that collect what is written (a tunnel's channel) are told that this is all.
        if wrote && let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(cx) {
            return Err(error);
        }
        Ok(wrote)
    }

    /// Whether the connection has come to its end.
    fn over(&mut self) -> Option<io::Result<Ended>> {
        if self.connection.transmit().is_empty()
            && let Some(ended) = self.connection.ended()
        {
            return Some(Ok(ended));
        }
        // The peer is gone, and with it whoever would read our answers.
        self.at_end.then(|| Err(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Sees to it that the task is woken for the next timeout. Returns whether there is something to do now.
    fn wait_for_timer(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let due = self.connection.next_timeout();
        if due <= now {
            self.connection.timeout(now);
            return true;
        }
        // Timeouts move away with every byte that comes. A timer that is early costs one look when it is
        // due; setting it anew each time would cost more.
        let armed = self.timer.deadline().into_std();
        if armed > due || armed <= now {
            self.timer.as_mut().reset(due.into());
        }
        self.timer.as_mut().poll(cx).is_ready()
    }
}

/// Reads at most `max_bytes` behind what is in `buffer`.
fn poll_append<S: AsyncRead>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    buffer: &mut Vec<u8>,
    max_bytes: usize,
) -> Poll<io::Result<usize>> {
    buffer.reserve(max_bytes);
    poll_read_buf(stream, cx, &mut buffer.limit(max_bytes))
}
