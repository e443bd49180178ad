//! The full-feature phase (RFC 7143 §4.2.2, §11): everything between a login and the end of its connection.
//!
//! [`FullFeature`] takes requests whose data segments have been received, and puts answers into an
//! [`Output`]. Its parts: [`command`] (a SCSI command's way to the task set), [`data_out`] (collecting its
//! data), [`limits`] (how fast commands begin), [`answer`] (its Data-In and status), [`management`] (aborts and
//! resets), [`luns`] (which LUNs there are), [`text`], [`alive`] (who is still there), [`farewell`] (how it ends),
//! [`counts`] (what it counts), and this file for the rest.

mod alive;
mod answer;
mod command;
mod counts;
mod data_out;
mod farewell;
mod limits;
mod luns;
mod management;
mod reach;
mod text;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use iscsi_pdu::pdu::{Reject, RejectReason};
use iscsi_pdu::{BHS_BYTES, RESERVED_TAG, Request, Serial};

use self::counts::Counts;
use self::farewell::Farewell;
use self::limits::Gates;
use self::management::PendingManagement;
use self::text::TextExchange;
use super::budget::Share;
use super::job::{Fence, Finished, Job, TaskId};
use super::mailbox::{Notice, Sender};
use super::node::{Limits, Node, Registration};
use super::output::Output;
use super::params::Params;
use super::policy::Who;
use super::portals::Origin;
use super::task::{Task, TaskSet};
use super::window::{Arrival, Window};
use crate::scsi::Nexus;

/// Most data a NOP-Out, Text or other non-SCSI request may carry, in bytes.
const CONTROL_DATA_MAX_BYTES: u32 = 64 * 1024;
/// Task tags of aborted commands that are remembered, so that data still on its way for them is passed over:
/// a full window twice over.
const ABORTED_TAGS_MAX: usize = 8192;
/// Queued output above which no further command is started, in bytes.
const OUTPUT_HIGH_WATER_BYTES: usize = 4 * 1024 * 1024;

/// Additional sense codes for data that could not be taken (RFC 7143 §11.4.7.2).
const UNEXPECTED_UNSOLICITED_DATA: (u8, u8) = (0x0c, 0x0c);
const INCORRECT_AMOUNT_OF_DATA: (u8, u8) = (0x0c, 0x0d);
const PROTOCOL_SERVICE_CRC_ERROR: (u8, u8) = (0x47, 0x05);

/// Where the data segment of a request is to be received.
#[derive(Debug)]
pub(super) enum Placement {
    /// Into this buffer, behind what is in it.
    Into(Vec<u8>),
    /// Nowhere: it is counted and passed over.
    Nowhere,
}

/// A request whose data segment is here.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) request: Request,
    /// The header as it came, for a Reject.
    pub(super) bhs: [u8; BHS_BYTES],
    /// The buffer that [`Placement::Into`] named, `None` for [`Placement::Nowhere`].
    pub(super) data: Option<Vec<u8>>,
    /// How many bytes the data segment had.
    pub(super) data_bytes: u32,
    /// Whether the data digest, if there is one, was right.
    pub(super) intact: bool,
}

/// What a session is for.
#[derive(Debug)]
pub(super) enum Kind {
    /// Finding targets.
    Discovery { who: Arc<Who> },
    /// SCSI commands to one target.
    Normal { registration: Registration, nexus: Nexus },
}

/// One session in its full-feature phase.
#[derive(Debug)]
pub(super) struct FullFeature {
    node: Arc<Node>,
    mailbox: Sender,
    /// Those that were in force when the connection began.
    limits: Arc<Limits>,
    /// For TargetAddress: where the initiator found us.
    origin: Origin,
    params: Params,
    kind: Kind,
    cid: u16,
    window: Window,
    window_share: Share,
    transfer_share: Share,
    stat_sn: Serial,
    tasks: TaskSet,
    /// Commands whose data is being sent, in order.
    sending: VecDeque<TaskId>,
    /// Whether the line takes less than we have.
    is_line_slow: bool,
    gates: Gates,
    counts: Counts,
    /// The last time anybody told us.
    clock: Instant,
    fence: Fence,
    /// Writes that wait for memory before they can ask for their data, in order.
    waiting_for_memory: VecDeque<TaskId>,
    pending_management: Vec<PendingManagement>,
    aborted_tags: VecDeque<u32>,
    next_ttt: u32,
    text: TextExchange,
    /// Set once the connection is to end when everything is out.
    leaving: bool,
    /// Set once the initiator has been asked to log out.
    farewell: Option<Farewell>,
    last_heard: Instant,
    /// When the first byte came that nothing has been sent after.
    heard_unanswered_since: Option<Instant>,
    /// Target transfer tag of a NOP-In that has not been answered.
    ping: Option<u32>,
    max_recv_data_segment_bytes: u32,
}

/// What a login hands over.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) params: Params,
    pub(super) kind: Kind,
    /// What the initiator calls the connection.
    pub(super) cid: u16,
    pub(super) exp_cmd_sn: Serial,
    pub(super) stat_sn: Serial,
    /// What we declared, or the default.
    pub(super) max_recv_data_segment_bytes: u32,
}

impl FullFeature {
    /// A session that has just been agreed; `None` when there is not the memory for a single command.
    pub(super) fn new(
        node: Arc<Node>,
        limits: Arc<Limits>,
        mailbox: Sender,
        origin: Origin,
        login: Established,
        now: Instant,
    ) -> Option<Self> {
        // What a discovery session sends is bounded by itself.
        let slot_bytes = match &login.kind {
            Kind::Normal { .. } => login.params.unsolicited_bytes() as usize,
            Kind::Discovery { .. } => 0,
        };
        let (fence, stats, gates) = match &login.kind {
            Kind::Normal { registration, .. } => (
                registration.fence().clone(),
                Arc::clone(registration.stats()),
                Gates::new(Some(registration.shaper()), mailbox.clone()),
            ),
            Kind::Discovery { .. } => (Fence::default(), Arc::default(), Gates::new(None, mailbox.clone())),
        };
        let share = match &login.kind {
            Kind::Normal { .. } => Share::new,
            Kind::Discovery { .. } => Share::of_nothing,
        };
        let (window_share, transfer_share) = (share(&node.budget.window), share(&node.budget.transfer));
        let mut window = Window::new(login.exp_cmd_sn, limits.command_window, slot_bytes);
        window.open(&window_share, 0);
        if window.is_shut() {
            return None;
        }
        Some(Self {
            mailbox,
            limits,
            origin,
            params: login.params,
            kind: login.kind,
            cid: login.cid,
            window,
            window_share,
            transfer_share,
            stat_sn: login.stat_sn,
            tasks: TaskSet::default(),
            sending: VecDeque::new(),
            is_line_slow: false,
            gates,
            counts: Counts::new(stats),
            clock: now,
            fence,
            waiting_for_memory: VecDeque::new(),
            pending_management: Vec::new(),
            aborted_tags: VecDeque::new(),
            next_ttt: 1,
            text: TextExchange::default(),
            leaving: false,
            farewell: None,
            last_heard: now,
            heard_unanswered_since: None,
            ping: None,
            max_recv_data_segment_bytes: login.max_recv_data_segment_bytes,
            node,
        })
    }

    /// Who is logged in to what.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            Kind::Discovery { who } => format!("{} -> discovery", who.initiator),
            Kind::Normal { registration, .. } => {
                let key = registration.key();
                format!("{},{} -> {}", key.initiator, key.isid, registration.target().name())
            }
        }
    }

    /// The largest data segment that the initiator may send, in bytes.
    pub(super) fn max_recv_data_segment_bytes(&self) -> u32 {
        self.max_recv_data_segment_bytes
    }

    pub(super) fn params(&self) -> &Params {
        &self.params
    }

    /// ExpCmdSN and MaxCmdSN as they are now, for the login response that ends the login.
    pub(super) fn window(&self) -> (Serial, Serial) {
        (self.window.exp_cmd_sn(), self.window.max_cmd_sn())
    }

    /// Whether it is a session with a target.
    pub(super) fn is_normal(&self) -> bool {
        matches!(self.kind, Kind::Normal { .. })
    }

    /// Whether the connection is to be closed once everything is sent.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Says where the data segment of `request` goes.
    pub(super) fn place(&mut self, request: &Request, data_bytes: u32, out: &mut Output) -> Placement {
        match request {
            Request::ScsiCommand(command) => self.place_immediate_data(command, data_bytes, out),
            Request::DataOut(data_out) => self.place_data_out(data_out, data_bytes),
            _ if data_bytes <= CONTROL_DATA_MAX_BYTES => Placement::Into(Vec::new()),
            _ => Placement::Nowhere,
        }
    }

    /// A whole request has come.
    pub(super) fn receive(&mut self, now: Instant, received: Received, out: &mut Output) {
        self.last_heard = now;
        self.clock = now;
        if self.leaving {
            return;
        }
        if !received.intact {
            self.counts.stats.data_digest_errors.add(1);
        }
        match &received.request {
            Request::ScsiCommand(command) => {
                let command = command.clone();
                self.scsi_command(&command, received, out);
            }
            Request::DataOut(data_out) => {
                let data_out = data_out.clone();
                self.data_out(&data_out, received, out);
            }
            _ => self.control(now, received, out),
        }
        self.open_window(out);
    }

    /// Requests that are not part of a SCSI command.
    fn control(&mut self, now: Instant, received: Received, out: &mut Output) {
        if !self.take_turn_of(&received.request) {
            return;
        }
        // The header was right, so its CmdSN is used up whatever becomes of the rest: without recovery within
        // the session nobody would send it again, and everything behind it would wait for ever.
        let data = match received.data {
            Some(data) if received.intact => data,
            Some(_) => return self.refuse_control(RejectReason::DataDigestError, &received.bhs, out),
            None => return self.refuse_control(RejectReason::InvalidPduField, &received.bhs, out),
        };
        match received.request {
            Request::NopOut(nop) => self.nop_out(&nop, &data, &received.bhs, out),
            Request::TaskManagement(request) => self.task_management(now, &request, &received.bhs, out),
            Request::Text(request) => self.text(&request, &data, &received.bhs, out),
            Request::Logout(request) => self.logout(&request, out),
            // A login in the full-feature phase, and SNACK, which needs an ErrorRecoveryLevel above 0.
            Request::Login(_) => self.reject(RejectReason::ProtocolError, &received.bhs, out),
            Request::Snack(_) => self.reject(RejectReason::SnackReject, &received.bhs, out),
            Request::ScsiCommand(_) | Request::DataOut(_) => unreachable!("dispatched before"),
        }
        // Commands that came early may have waited for just this request.
        self.release_held(out);
    }

    fn refuse_control(&mut self, reason: RejectReason, bhs: &[u8; BHS_BYTES], out: &mut Output) {
        self.reject(reason, bhs, out);
        self.release_held(out);
    }

    /// Moves the command window past a non-SCSI request. Such a request is carried out when it comes, even
    /// ahead of its turn: nothing in it depends on commands that are still on their way. Returns whether it
    /// is to be carried out at all.
    fn take_turn_of(&mut self, request: &Request) -> bool {
        let Some(cmd_sn) = request.cmd_sn().filter(|_| !request.immediate()) else {
            return true;
        };
        match self.window.classify(cmd_sn) {
            Arrival::Next => {
                self.window.advance(self.clock, false);
                true
            }
            Arrival::Early if !self.tasks.is_held(cmd_sn) => {
                self.tasks.hold(cmd_sn, None);
                true
            }
            Arrival::Early | Arrival::Ignore => false,
        }
    }

    /// RFC 7143 §11.17.
    pub(super) fn reject(&mut self, reason: RejectReason, bhs: &[u8; BHS_BYTES], out: &mut Output) {
        tracing::debug!(?reason, opcode = bhs[0] & 0x3f, "rejected a PDU");
        self.counts.stats.rejects.add(1);
        let stat_sn = self.next_stat_sn();
        let reply = Reject {
            reason,
            stat_sn,
            exp_cmd_sn: self.window.exp_cmd_sn(),
            max_cmd_sn: self.window.max_cmd_sn(),
            data_sn: 0,
        };
        out.pdu(&reply, bhs);
    }

    /// Something has come from outside the socket.
    pub(super) fn notice(&mut self, now: Instant, notice: Notice, out: &mut Output) {
        self.clock = now;
        match notice {
            Notice::Finished(finished) => self.finished(now, finished, out),
            Notice::MemoryFreed => self.ask_for_data_again(out),
            Notice::CommandsAborted(lun) => self.aborted_by_other(lun, out),
            Notice::LunsChanged => self.luns_changed(out),
            Notice::LimitsChanged => self.gates.reopen(),
            Notice::AskLogout { within_ms, reason } => self.ask_logout(now, within_ms, reason, out),
            Notice::Close(_) => self.leaving = true,
        }
        self.open_window(out);
    }

    /// The next command to run, if there is one and there is room for its answer.
    pub(super) fn next_job(&mut self, out: &mut Output) -> Option<Job> {
        // What is being read is as good as queued: on a slow line it would only stand there.
        let queued_bytes = out.transmit.queued_bytes() + self.tasks.answer_bytes();
        if queued_bytes >= OUTPUT_HIGH_WATER_BYTES {
            // It does not ask for memory while the line is slow: others are not to wait for that.
            if self.waiting_for_memory.is_empty() {
                self.transfer_share.leave_line();
            }
            return None;
        }
        self.start_next()
    }

    /// Whether data waits to be cut on a line that has taken all there was so far: it is better sent before more is
    /// read, from the same memory again.
    pub(super) fn sends_first(&self) -> bool {
        !self.sending.is_empty() && !self.is_line_slow
    }

    /// A command has been run.
    pub(super) fn finished(&mut self, now: Instant, finished: Finished, out: &mut Output) {
        let Finished {
            id,
            response,
            data_out,
            memory,
        } = finished;
        out.transmit.recycle(data_out);
        match self.tasks.remove(id) {
            Some(task) => self.answer(Task { memory, ..task }, response, out),
            None => self.late_completion(now, id, out),
        }
    }

    /// Widens the command window, and tells the initiator when it has used up what it knew of: it may have no other
    /// way to learn of it (RFC 7143 §4.2.2.1).
    fn open_window(&mut self, out: &mut Output) {
        self.widen_window();
        if self.window.is_open_unheard() && !self.leaving {
            self.announce_window(out);
        }
    }

    /// Widens the command window as far as commands and memory allow.
    fn widen_window(&mut self) {
        let active = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        self.counts.queue_depth(self.tasks.len());
        self.window.open(&self.window_share, active);
        if self.window.is_shut() && active == 0 {
            // Memory is with other sessions. Ask to be told, and look again: some may just have come back.
            self.window_share.wait(self.mailbox.clone());
            self.window.open(&self.window_share, active);
        }
    }

    /// Takes down how long the commands took that have been answered. To be called when a round of the shell
    /// is over, with a look at the clock that is newer than the commands.
    pub(super) fn settle(&mut self, now: Instant) {
        self.counts.settle(now);
    }

    /// Whether [`settle`](Self::settle) has anything to do.
    pub(super) fn is_unsettled(&self) -> bool {
        self.counts.is_unsettled()
    }

    /// A header came with a wrong digest.
    pub(super) fn count_header_digest_error(&self) {
        self.counts.stats.header_digest_errors.add(1);
    }

    fn next_stat_sn(&mut self) -> Serial {
        let stat_sn = self.stat_sn;
        self.stat_sn = stat_sn + 1;
        stat_sn
    }

    fn new_ttt(&mut self) -> u32 {
        let ttt = self.next_ttt;
        // 0xffffffff is reserved (RFC 7143 §11.7.4).
        self.next_ttt = if ttt == RESERVED_TAG - 1 { 1 } else { ttt + 1 };
        ttt
    }
}

impl Drop for FullFeature {
    /// Commands that workers have not begun yet are not to be begun any more.
    fn drop(&mut self) {
        self.abort_all();
        self.counts.settle(self.clock);
        self.counts.queue_depth(0);
    }
}
