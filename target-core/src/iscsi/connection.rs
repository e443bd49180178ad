//! One connection, from its first byte to its last: bytes in, bytes and commands out.
//!
//! [`Connection`] has no socket and no clock. The shell (`server/`) does this, in a loop:
//! - bytes that came go to [`receive`](Connection::receive); when a long data segment is expected,
//!   [`landing`](Connection::landing) names the buffer to receive it into without another copy;
//! - [`next_job`](Connection::next_job) names commands to run; their ends come back by
//!   [`finished`](Connection::finished) or, from workers, as a [`Notice`];
//! - [`transmit`](Connection::transmit) holds what is to be sent;
//! - [`next_timeout`](Connection::next_timeout) says when to call [`timeout`](Connection::timeout).

use std::sync::Arc;
use std::time::Instant;

use iscsi_pdu::{DecodeError, Decoder, DecoderLimits, Framing, HeaderError, Opcode, RawHeader, Request, Trailer};

use super::full_feature::{FullFeature, Placement, Received};
use super::job::{Finished, Job};
use super::login::{Login, LoginError, Progress};
use super::mailbox::{CloseReason, Mailbox, Notice};
use super::node::Node;
use super::output::Output;
use super::portals::Origin;
use super::transmit::Transmit;

/// Largest data segment of a login request, in bytes: the default MaxRecvDataSegmentLength, which holds until
/// another is declared (RFC 7143 §13.12).
const LOGIN_DATA_SEGMENT_MAX_BYTES: u32 = 8192;
/// Longest additional headers, in bytes: an extended CDB of 260 bytes and a bidirectional length.
const AHS_MAX_BYTES: usize = 264;
/// Queued output above which nothing more is read, in bytes: an initiator that asks without taking the
/// answers gets no further.
const OUTPUT_LIMIT_BYTES: usize = 8 * 1024 * 1024;

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Logged out, or a discovery that is done.
    #[error("logged out")]
    Logout,
    /// Told to end from outside.
    #[error("closed: {0:?}")]
    Closed(CloseReason),
    /// The login was refused; the answer says why.
    #[error("login refused: {0}")]
    LoginRefused(#[from] LoginError),
    /// The login took too long.
    #[error("no login within the time limit")]
    LoginTimeout,
    /// Nothing has come for too long, not even an answer to a NOP-In.
    #[error("the initiator is silent")]
    Silent,
    /// The peer broke the framing: nothing after it can be made sense of.
    #[error("peer misbehaved: {0}")]
    Framing(#[from] DecodeError),
    /// A login request with a field that cannot be.
    #[error("peer misbehaved: {0}")]
    MalformedLogin(HeaderError),
    /// Something other than a login request before the login was over.
    #[error("peer misbehaved: expected a login request")]
    NotALogin,
}

#[derive(Debug)]
enum Phase {
    Login(Box<Login>),
    FullFeature(Box<FullFeature>),
}

/// What is being received.
#[derive(Debug)]
enum Receiving {
    Header,
    Data {
        header: RawHeader,
        request: Result<Request, HeaderError>,
        sink: Option<Vec<u8>>,
    },
}

/// The state of one connection.
#[derive(Debug)]
pub struct Connection {
    decoder: Decoder,
    receiving: Receiving,
    phase: Phase,
    output: Output,
    /// Whether the last write left something unsent.
    backlogged: bool,
    /// Whether nothing has come yet.
    is_new: bool,
    ended: Option<Ended>,
}

impl Connection {
    /// A connection that has just been accepted. `mailbox` is its own; `origin` is where it comes from.
    pub fn new(node: Arc<Node>, mailbox: &Arc<Mailbox>, origin: Origin, now: Instant) -> Self {
        let limits = DecoderLimits {
            max_ahs_bytes: AHS_MAX_BYTES,
            max_data_segment_bytes: LOGIN_DATA_SEGMENT_MAX_BYTES,
        };
        Self {
            decoder: Decoder::new(limits),
            receiving: Receiving::Header,
            phase: Phase::Login(Box::new(Login::new(node, Arc::downgrade(mailbox), origin, now))),
            output: Output {
                transmit: Transmit::default(),
                framing: Framing::default(),
            },
            backlogged: false,
            is_new: true,
            ended: None,
        }
    }

    /// Whether more bytes are to be read. A connection whose peer does not take its answers is not read.
    pub fn wants_input(&self) -> bool {
        !self.is_over() && self.output.transmit.queued_bytes() < OUTPUT_LIMIT_BYTES
    }

    /// Takes bytes from the front of `input`, all of them unless the connection ends or has too much to say.
    pub fn receive(&mut self, now: Instant, input: &mut &[u8]) {
        if self.is_over() {
            return;
        }
        if !input.is_empty()
            && std::mem::take(&mut self.is_new)
            && input.first().is_some_and(|byte| !begins_a_login(*byte))
        {
            // A port scanner or another protocol: no need to wait for a whole header.
            return self.end(Ended::NotALogin);
        }
        if let Phase::FullFeature(session) = &mut self.phase
            && !input.is_empty()
        {
            session.heard(now, input.len(), &mut self.output);
        }
        while self.wants_input() {
            match self.step(now, input) {
                Ok(true) => {}
                Ok(false) => return,
                Err(ended) => {
                    if let (Ended::Framing(DecodeError::HeaderDigest { .. }), Phase::FullFeature(session)) =
                        (&ended, &self.phase)
                    {
                        session.count_header_digest_error();
                    }
                    self.end(ended);
                }
            }
        }
    }

    /// One step of receiving. Returns whether there may be another without more input.
    fn step(&mut self, now: Instant, input: &mut &[u8]) -> Result<bool, Ended> {
        match &mut self.receiving {
            Receiving::Header => match self.decoder.header(input)? {
                Some(header) => {
                    self.begin(header)?;
                    Ok(true)
                }
                None => Ok(false),
            },
            Receiving::Data { sink, .. } => {
                let remaining = self.decoder.data_remaining() as usize;
                if remaining > 0 {
                    let (chunk, rest) = input.split_at(remaining.min(input.len()));
                    *input = rest;
                    self.decoder.data(chunk);
                    if let Some(sink) = sink {
                        sink.extend_from_slice(chunk);
                    }
                    if chunk.len() < remaining {
                        return Ok(false);
                    }
                }
                match self.decoder.trailer(input)? {
                    Some(trailer) => {
                        self.finish(now, trailer == Trailer::Intact)?;
                        Ok(true)
                    }
                    None => Ok(false),
                }
            }
        }
    }

    fn begin(&mut self, header: RawHeader) -> Result<(), Ended> {
        let request = Request::parse(&header);
        let placement = match (&mut self.phase, &request) {
            (Phase::Login(_), Ok(Request::Login(_))) => Placement::Into(Vec::new()),
            (Phase::Login(login), Err(error)) if error.opcode() == Opcode::LoginRequest.code() => {
                login.refuse_malformed(&header.bhs, &mut self.output);
                return Err(Ended::MalformedLogin(*error));
            }
            (Phase::Login(login), _) => {
                login.refuse_other_pdu(&header.bhs, &mut self.output);
                return Err(Ended::NotALogin);
            }
            (Phase::FullFeature(session), Ok(request)) => session.place(request, header.data_bytes, &mut self.output),
            (Phase::FullFeature(_), Err(_)) => Placement::Nowhere,
        };
        let sink = match placement {
            Placement::Into(buffer) => Some(buffer),
            Placement::Nowhere => None,
        };
        self.receiving = Receiving::Data { header, request, sink };
        Ok(())
    }

    fn finish(&mut self, now: Instant, intact: bool) -> Result<(), Ended> {
        let Receiving::Data { header, request, sink } = std::mem::replace(&mut self.receiving, Receiving::Header)
        else {
            unreachable!("only a PDU whose header is here can end");
        };
        match (&mut self.phase, request) {
            (Phase::Login(login), Ok(Request::Login(request))) => {
                let progress = login.receive(now, &request, &sink.unwrap_or_default(), &mut self.output)?;
                self.progress(progress);
            }
            (Phase::Login(_), _) => return Err(Ended::NotALogin),
            (Phase::FullFeature(session), Ok(request)) => {
                let data_bytes = header.data_bytes;
                let received = Received {
                    request,
                    bhs: header.bhs,
                    data: sink,
                    data_bytes,
                    intact,
                };
                session.receive(now, received, &mut self.output);
            }
            (Phase::FullFeature(session), Err(error)) => {
                session.reject(error.reject_reason(), &header.bhs, &mut self.output);
            }
        }
        Ok(())
    }

    fn progress(&mut self, progress: Progress) {
        if let Progress::Done(session) = progress {
            self.enter_full_feature(*session);
        }
    }

    /// Digests and sizes as negotiated hold from the next PDU on (RFC 7143 §6.2.3).
    fn enter_full_feature(&mut self, session: FullFeature) {
        let params = session.params();
        self.decoder.set_digests(params.header_digest, params.data_digest);
        self.decoder
            .set_max_data_segment_bytes(session.max_recv_data_segment_bytes());
        self.output.framing = Framing {
            header_digest: params.header_digest,
            data_digest: params.data_digest,
        };
        self.phase = Phase::FullFeature(Box::new(session));
    }

    /// The buffer that the data segment being received goes to, and how many bytes of it are missing. Only
    /// to be used when [`receive`](Self::receive) has taken all input; what is appended to the buffer is
    /// then told by [`landed`](Self::landed).
    pub fn landing(&mut self) -> Option<Landing<'_>> {
        let remaining_bytes = self.decoder.data_remaining() as usize;
        match &mut self.receiving {
            Receiving::Data { sink: Some(buffer), .. } if remaining_bytes > 0 && self.ended.is_none() => {
                Some(Landing {
                    buffer,
                    remaining_bytes,
                })
            }
            _ => None,
        }
    }

    /// `bytes` were appended to the [`landing`](Self::landing) buffer.
    pub fn landed(&mut self, now: Instant, bytes: usize) {
        if self.is_over() {
            return;
        }
        if let Phase::FullFeature(session) = &mut self.phase {
            session.heard(now, bytes, &mut self.output);
        }
        if let Receiving::Data { sink: Some(buffer), .. } = &self.receiving {
            self.decoder.data(&buffer[buffer.len() - bytes..]);
        }
        // A segment that is complete and needs no trailer ends its PDU now.
        self.receive(now, &mut &[][..]);
    }

    /// The next command to run.
    pub fn next_job(&mut self) -> Option<Job> {
        match &mut self.phase {
            Phase::FullFeature(session) if self.ended.is_none() => session.next_job(&mut self.output),
            _ => None,
        }
    }

    /// Whether there is data to send that is not in [`transmit`](Self::transmit) yet, and a line that takes it: the shell
    /// does better to send before it runs more commands.
    pub fn sends_first(&self) -> bool {
        matches!(&self.phase, Phase::FullFeature(session) if session.sends_first())
    }

    /// A command was run on the spot.
    pub fn finished(&mut self, now: Instant, finished: Finished) {
        self.notice(now, Notice::Finished(finished));
    }

    /// Something came from outside the socket.
    pub fn notice(&mut self, now: Instant, notice: Notice) {
        if self.ended.is_some() {
            // Who wants it gone does not wait for a peer that takes its last answers slowly or never.
            if matches!(notice, Notice::Close(_)) {
                self.output.transmit = Transmit::default();
            }
            return;
        }
        match (&mut self.phase, notice) {
            // It was chosen to make room when it had no session yet.
            (Phase::FullFeature(session), Notice::Close(CloseReason::Crowded)) if session.is_normal() => {}
            (_, Notice::Close(reason)) | (Phase::Login(_), Notice::AskLogout { reason, .. }) => {
                self.end(Ended::Closed(reason));
            }
            (Phase::FullFeature(session), notice) => session.notice(now, notice, &mut self.output),
            (Phase::Login(_), _) => {}
        }
    }

    /// What is to be sent. The shell gathers from it, and says by [`sent`](Self::sent) how much went out.
    pub fn transmit(&self) -> &Transmit {
        &self.output.transmit
    }

    /// `bytes` from the front of [`transmit`](Self::transmit) are out.
    pub fn sent(&mut self, now: Instant, bytes: usize) {
        self.output.transmit.advance(bytes);
        let waits = !self.output.transmit.is_empty();
        let had_waited = std::mem::replace(&mut self.backlogged, waits);
        if let Phase::FullFeature(session) = &mut self.phase {
            session.sent(now, bytes, had_waited, waits, &mut self.output);
        }
    }

    /// When [`timeout`](Self::timeout) is due.
    pub fn next_timeout(&self) -> Instant {
        match &self.phase {
            Phase::Login(login) => login.next_timeout(),
            Phase::FullFeature(session) => session.next_timeout(),
        }
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Instant) {
        if self.is_over() {
            // It had its time to take the last answers. Nothing may follow a PDU that is cut off.
            self.output.transmit = Transmit::default();
            self.end(Ended::Logout);
            return;
        }
        match &mut self.phase {
            Phase::Login(login) => match login.timeout(now, &mut self.output) {
                Some(Ok(progress)) => self.progress(progress),
                Some(Err(error)) => self.end(error.into()),
                None => self.end(Ended::LoginTimeout),
            },
            Phase::FullFeature(session) => {
                if let Some(reason) = session.overstayed(now) {
                    return self.end(Ended::Closed(reason));
                }
                if session.timeout(now, &mut self.output) {
                    self.end(Ended::Silent);
                }
            }
        }
    }

    /// Takes down how long commands took that were answered since the last call: until now. `clock` is only
    /// looked at when there are any.
    pub fn settle(&mut self, clock: impl FnOnce() -> Instant) {
        if let Phase::FullFeature(session) = &mut self.phase
            && session.is_unsettled()
        {
            session.settle(clock());
        }
    }

    /// Why the connection is to be closed, once [`transmit`](Self::transmit) is empty.
    pub fn ended(&self) -> Option<Ended> {
        if self.ended.is_some() {
            return self.ended.clone();
        }
        match &self.phase {
            Phase::FullFeature(session) if session.is_leaving() => Some(Ended::Logout),
            _ => None,
        }
    }

    /// Nothing is read or run any more. The last answers are still to go out, unless nobody is there to take
    /// them: a shell that waits for that would wait for ever.
    fn end(&mut self, ended: Ended) {
        if self.ended.is_some() {
            return;
        }
        let dropped = Ended::Closed(CloseReason::Administrator);
        let overstayed = Ended::Closed(CloseReason::TargetRemoved);
        let reinstated = Ended::Closed(CloseReason::Reinstated);
        let crowded = Ended::Closed(CloseReason::Crowded);
        if [
            Ended::Silent,
            Ended::LoginTimeout,
            reinstated,
            dropped,
            overstayed,
            crowded,
        ]
        .contains(&ended)
        {
            self.output.transmit = Transmit::default();
        }
        self.ended = Some(ended);
    }

    /// As [`ended`](Self::ended), without the reason.
    fn is_over(&self) -> bool {
        self.ended.is_some() || matches!(&self.phase, Phase::FullFeature(session) if session.is_leaving())
    }

    /// Whether it has a session with a target; logins and discovery do not count.
    pub fn has_session(&self) -> bool {
        matches!(&self.phase, Phase::FullFeature(session) if session.is_normal())
    }

    /// A refusal that is kept back, because a secret was wrong, and until when.
    pub fn kept_back(&self) -> Option<(&LoginError, Instant)> {
        match &self.phase {
            Phase::Login(login) => login.kept_back(),
            Phase::FullFeature(_) => None,
        }
    }

    /// Who is logged in to what, for logs; `None` before the login is over.
    pub fn describe(&self) -> Option<String> {
        match &self.phase {
            Phase::FullFeature(session) => Some(session.describe()),
            Phase::Login(_) => None,
        }
    }
}

/// Whether the first byte of a connection is that of a Login Request (RFC 7143 §11.12: opcode 0x03, I bit).
fn begins_a_login(byte: u8) -> bool {
    byte & 0x3f == Opcode::LoginRequest.code()
}

/// Where a data segment is to be received.
#[derive(Debug)]
pub struct Landing<'a> {
    /// Append to this, without growing it past what is missing.
    pub buffer: &'a mut Vec<u8>,
    /// Bytes of the segment still missing.
    pub remaining_bytes: usize,
}
