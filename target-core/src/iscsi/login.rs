//! The login phase (RFC 7143 §6.3, §11.12, §11.13) as a state machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use iscsi_pdu::pdu::{LoginRequest, LoginResponse, LoginStatus, Stage};
use iscsi_pdu::text::{
    CollectorLimits, Duplicates, Key, NONE, Pair, Phase, TextCollector, TextError, TextLimits, TextWriter, choose,
    parse, parse_list,
};
use iscsi_pdu::{BHS_BYTES, Isid, Serial};

use super::full_feature::{Established, FullFeature, Kind};
use super::mailbox::Sender;
use super::negotiate::{Negotiation, NegotiationError};
use super::node::{Guest, Limits, Node, SessionKey, Target};
use super::output::Output;
use super::params::SessionType;
use super::policy::Who;
use super::portals::Origin;
use crate::scsi::TargetPort;

/// Login requests in one login, at most.
const REQUESTS_MAX: u32 = 64;
/// Text of one logical request, over all PDUs joined by the C bit, in bytes.
const TEXT_MAX_BYTES: usize = 16 * 1024;
/// PDUs that one logical request may be spread over.
const TEXT_SEGMENTS_MAX: usize = 16;
/// Keys in one logical request.
const KEYS_MAX: usize = 64;
/// A value in it, in bytes.
const VALUE_MAX_BYTES: usize = 1024;
/// How often a login that takes the place of a session looks whether that one is gone, in milliseconds.
const MAKE_WAY_POLL_MS: u64 = 5;
/// Longest iSCSI name, in bytes (RFC 7143 §4.2.7.1).
const NAME_MAX_BYTES: usize = 223;
/// Our answers are kept below the default MaxRecvDataSegmentLength, in bytes (RFC 7143 §13.12).
const ANSWER_MAX_BYTES: usize = 8192;
/// MaxRecvDataSegmentLength when none has been declared, in bytes.
const DEFAULT_DATA_SEGMENT_BYTES: u32 = 8192;

/// Why a login was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Text that cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A key that cannot be negotiated.
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    /// Versions from `min` up; we speak 0 only.
    #[error("the initiator speaks no version below {min}")]
    Version {
        /// Version-min of the request.
        min: u8,
    },
    /// The stages or bits of a request do not fit what was said before.
    #[error("{0}")]
    Sequence(&'static str),
    /// A name that has to be there is not.
    #[error("{0} is missing")]
    Missing(Key),
    /// A name that is no iSCSI name.
    #[error("{0} is not an iSCSI name")]
    BadName(Key),
    /// SessionType is neither Normal nor Discovery.
    #[error("unknown session type")]
    SessionType,
    /// No target has this name.
    #[error("no target is called {0}")]
    NoSuchTarget(String),
    /// None of the authentication methods offered is one of ours.
    #[error("no common authentication method in {0}")]
    NoAuthMethod(String),
    /// A TSIH that is no session's.
    #[error("no session has this TSIH")]
    NoSuchSession,
    /// A second connection for a session: one is all a session has.
    #[error("a session has one connection")]
    TooManyConnections,
    /// Another initiator holds the LUNs.
    #[error("LUN {lun} is in use by {holder}")]
    Held {
        /// The LUN.
        lun: u16,
        /// Name of the initiator that is logged in.
        holder: String,
    },
    /// A bound on sessions is reached.
    #[error("too many sessions")]
    TooManySessions,
    /// Not even one command's memory is left.
    #[error("no memory left for another session")]
    OutOfMemory,
}

impl LoginError {
    /// RFC 7143 §11.13.5.
    fn status(&self) -> LoginStatus {
        match self {
            Self::Text(_) | Self::Negotiation(_) | Self::Sequence(_) | Self::BadName(_) => LoginStatus::InitiatorError,
            Self::Version { .. } => LoginStatus::UnsupportedVersion,
            Self::Missing(_) => LoginStatus::MissingParameter,
            Self::SessionType => LoginStatus::SessionTypeNotSupported,
            Self::NoSuchTarget(_) => LoginStatus::NotFound,
            Self::NoAuthMethod(_) => LoginStatus::AuthenticationFailure,
            Self::NoSuchSession => LoginStatus::SessionDoesNotExist,
            Self::TooManyConnections => LoginStatus::TooManyConnections,
            Self::Held { .. } => LoginStatus::AuthorizationFailure,
            Self::TooManySessions | Self::OutOfMemory => LoginStatus::OutOfResources,
        }
    }
}

/// How far a login has come after a request.
#[derive(Debug)]
pub(super) enum Progress {
    /// More requests are to follow.
    More,
    /// The session is in its full-feature phase.
    Done(Box<FullFeature>),
}

/// One login.
#[derive(Debug)]
pub(super) struct Login {
    node: Arc<Node>,
    /// Those that were in force when the connection began.
    limits: Arc<Limits>,
    mailbox: Sender,
    origin: Origin,
    deadline: Instant,
    leading: Option<Leading>,
    /// Whether the names have been checked: once, when the first logical request is complete.
    names_checked: bool,
    requests: u32,
    /// A login that is agreed, and waits for an old session to be gone.
    waiting: Option<Waiting>,
    stat_sn: Serial,
    collector: TextCollector,
    negotiation: Negotiation,
    initiator: Option<String>,
    target_name: Option<String>,
    session_type: SessionType,
    /// Our own declarations, each made once.
    said_segment_length: bool,
    said_portal_group: bool,
}

/// What the first request fixes for the whole login.
#[derive(Debug, Clone, Copy)]
struct Leading {
    stage: Stage,
    isid: Isid,
    tsih: u16,
    itt: u32,
    cid: u16,
}

impl Login {
    pub(super) fn new(node: Arc<Node>, mailbox: Sender, origin: Origin, now: Instant) -> Self {
        let limits = node.limits();
        let collector = CollectorLimits {
            max_bytes: TEXT_MAX_BYTES,
            max_segments: TEXT_SEGMENTS_MAX,
        };
        Self {
            deadline: now + Duration::from_millis(limits.login_timeout_ms),
            node,
            limits,
            mailbox,
            origin,
            leading: None,
            names_checked: false,
            requests: 0,
            waiting: None,
            stat_sn: Serial(1),
            collector: TextCollector::new(collector),
            negotiation: Negotiation::new(),
            initiator: None,
            target_name: None,
            session_type: SessionType::Normal,
            said_segment_length: false,
            said_portal_group: false,
        }
    }

    /// When [`timeout`](Self::timeout) is due.
    pub(super) fn next_timeout(&self) -> Instant {
        self.waiting
            .as_ref()
            .map_or(self.deadline, |waiting| waiting.look_at.min(self.deadline))
    }

    /// Time has passed. `None` when the login has taken too long.
    pub(super) fn timeout(&mut self, now: Instant, out: &mut Output) -> Option<Result<Progress, LoginError>> {
        if now >= self.deadline {
            return None;
        }
        let Some(waiting) = self.waiting.take_if(|waiting| waiting.look_at <= now) else {
            return Some(Ok(Progress::More));
        };
        let result = self.finish(now, &waiting.request, waiting.answers, out);
        if let Err(error) = &result {
            self.respond(&waiting.request, Answer::refusal(error.status()), out);
        }
        Some(result)
    }

    /// Takes one login request and answers it; a refusal is answered too.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        request: &LoginRequest,
        data: &[u8],
        out: &mut Output,
    ) -> Result<Progress, LoginError> {
        let result = self.advance(now, request, data, out);
        if let Err(error) = &result {
            self.respond(request, Answer::refusal(error.status()), out);
        }
        result
    }

    /// Anything but a login request is a mistake here (RFC 7143 §6.3, status 020Bh).
    pub(super) fn refuse_other_pdu(&mut self, bhs: &[u8; BHS_BYTES], out: &mut Output) {
        // A stranger that has not said anything sensible yet is not answered at all.
        if let Some(leading) = self.leading {
            self.refuse_header(bhs, leading.isid, LoginStatus::InvalidDuringLogin, out);
        }
    }

    /// A login request with a field that cannot be.
    pub(super) fn refuse_malformed(&mut self, bhs: &[u8; BHS_BYTES], out: &mut Output) {
        let isid = Isid([bhs[8], bhs[9], bhs[10], bhs[11], bhs[12], bhs[13]]);
        self.refuse_header(bhs, isid, LoginStatus::InitiatorError, out);
    }

    fn refuse_header(&mut self, bhs: &[u8; BHS_BYTES], isid: Isid, status: LoginStatus, out: &mut Output) {
        let stage = self.leading.map_or(Stage::Security, |leading| leading.stage);
        let request = LoginRequest {
            transit: false,
            continue_: false,
            csg: stage,
            nsg: stage,
            version_max: 0,
            version_min: 0,
            isid,
            tsih: 0,
            itt: u32::from_be_bytes([bhs[16], bhs[17], bhs[18], bhs[19]]),
            cid: 0,
            cmd_sn: Serial(u32::from_be_bytes([bhs[24], bhs[25], bhs[26], bhs[27]])),
            exp_stat_sn: self.stat_sn,
        };
        self.respond(&request, Answer::refusal(status), out);
    }

    fn advance(
        &mut self,
        now: Instant,
        request: &LoginRequest,
        data: &[u8],
        out: &mut Output,
    ) -> Result<Progress, LoginError> {
        if self.waiting.is_some() {
            return Err(LoginError::Sequence("a request before the answer to the last one"));
        }
        self.check_sequence(request)?;
        let Some(text) = self.collector.feed(data, request.continue_)? else {
            self.respond(request, Answer::stay(Vec::new()), out);
            return Ok(Progress::More);
        };
        let limits = TextLimits {
            max_keys: KEYS_MAX,
            max_value_bytes: VALUE_MAX_BYTES,
        };
        let pairs = parse(&text, &limits, Duplicates::Refused)?;
        self.take_names(&pairs)?;
        if !self.names_checked {
            self.check_names(request)?;
            self.names_checked = true;
        }
        let mut answers = TextWriter::new(ANSWER_MAX_BYTES);
        for pair in pairs {
            self.answer_key(request.csg, pair, &mut answers)?;
        }
        self.declare(request.csg, &mut answers)?;
        if !request.transit {
            self.respond(request, Answer::stay(answers.into_bytes()), out);
            return Ok(Progress::More);
        }
        if request.nsg != Stage::FullFeature {
            self.leading = self.leading.map(|leading| Leading {
                stage: request.nsg,
                ..leading
            });
            self.respond(request, Answer::transit(answers.into_bytes()), out);
            return Ok(Progress::More);
        }
        self.finish(now, request, answers.into_bytes(), out)
    }

    /// RFC 7143 §6.3.1, §11.12: what a request may say after those before it.
    fn check_sequence(&mut self, request: &LoginRequest) -> Result<(), LoginError> {
        self.requests += 1;
        if self.requests > REQUESTS_MAX {
            return Err(LoginError::Sequence("the login takes too many requests"));
        }
        if request.version_min > 0 {
            return Err(LoginError::Version {
                min: request.version_min,
            });
        }
        if request.csg == Stage::FullFeature {
            return Err(LoginError::Sequence(
                "a login request cannot be in the full-feature phase",
            ));
        }
        if request.transit && request.continue_ {
            return Err(LoginError::Sequence("T and C exclude each other"));
        }
        if request.transit && !request.csg.may_go_to(request.nsg) {
            return Err(LoginError::Sequence("the next stage does not follow the current one"));
        }
        let Some(leading) = self.leading else {
            self.leading = Some(Leading {
                stage: request.csg,
                isid: request.isid,
                tsih: request.tsih,
                itt: request.itt,
                cid: request.cid,
            });
            return Ok(());
        };
        if request.csg != leading.stage {
            return Err(LoginError::Sequence("not the stage the login is in"));
        }
        let same = (request.isid, request.tsih, request.itt, request.cid)
            == (leading.isid, leading.tsih, leading.itt, leading.cid);
        if !same {
            return Err(LoginError::Sequence(
                "ISID, TSIH, CID or task tag changed during the login",
            ));
        }
        Ok(())
    }

    /// Takes the declarations that say who wants what (RFC 7143 §6.3.1: they come in the first request).
    fn take_names(&mut self, pairs: &[Pair<'_>]) -> Result<(), LoginError> {
        for pair in pairs {
            match Key::from_name(pair.key) {
                Some(key @ Key::InitiatorName) => self.initiator = Some(iscsi_name(key, pair.value)?),
                Some(key @ Key::TargetName) => self.target_name = Some(iscsi_name(key, pair.value)?),
                Some(Key::SessionType) => {
                    self.session_type = match pair.value {
                        "Normal" => SessionType::Normal,
                        "Discovery" => SessionType::Discovery,
                        _ => return Err(LoginError::SessionType),
                    };
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_names(&self, request: &LoginRequest) -> Result<(), LoginError> {
        let initiator = self.initiator.clone().ok_or(LoginError::Missing(Key::InitiatorName))?;
        if self.session_type == SessionType::Discovery {
            return if request.tsih == 0 {
                Ok(())
            } else {
                Err(LoginError::NoSuchSession)
            };
        }
        let target = self.target()?;
        if request.tsih != 0 {
            let key = self.key(initiator, request.isid);
            let its_own = target.has_tsih(request.tsih) && target.has_session(&key);
            return Err(if its_own {
                LoginError::TooManyConnections
            } else {
                LoginError::NoSuchSession
            });
        }
        Ok(())
    }

    fn target(&self) -> Result<Arc<Target>, LoginError> {
        let name = self.target_name.as_ref().ok_or(LoginError::Missing(Key::TargetName))?;
        self.node
            .target(name)
            .ok_or_else(|| LoginError::NoSuchTarget(name.clone()))
    }

    fn answer_key(&mut self, stage: Stage, pair: Pair<'_>, answers: &mut TextWriter) -> Result<(), LoginError> {
        let key = Key::from_name(pair.key);
        match key {
            Some(key @ (Key::InitiatorName | Key::TargetName | Key::SessionType | Key::InitiatorAlias)) => {
                Ok(self.negotiation.note(key)?)
            }
            Some(key @ Key::AuthMethod) if stage == Stage::Security => {
                self.negotiation.note(key)?;
                let offered = parse_list(pair.value, KEYS_MAX).unwrap_or_default();
                let method =
                    choose(&offered, &[NONE]).ok_or_else(|| LoginError::NoAuthMethod(pair.value.to_owned()))?;
                Ok(answers.push(key.name(), method)?)
            }
            // What belongs to the operational stage may only be said there (RFC 7143 §6.3.2).
            Some(key) if stage == Stage::Security && key.spec().phase != Phase::Login => {
                Err(NegotiationError::Misplaced(key).into())
            }
            _ => Ok(self
                .negotiation
                .answer(pair, self.session_type, &self.limits, answers)?),
        }
    }

    /// What we have to say ourselves: the portal group in the first answer (RFC 7143 §13.9), the segment
    /// length in the first of the operational stage.
    fn declare(&mut self, stage: Stage, answers: &mut TextWriter) -> Result<(), LoginError> {
        if !self.said_portal_group && self.session_type == SessionType::Normal {
            self.said_portal_group = true;
            answers.push(Key::TargetPortalGroupTag.name(), self.origin.portal.tag)?;
            if let Some(alias) = self.target()?.alias().as_ref() {
                answers.push(Key::TargetAlias.name(), alias)?;
            }
        }
        if !self.said_segment_length && stage == Stage::Operational {
            self.said_segment_length = true;
            answers.push(
                Key::MaxRecvDataSegmentLength.name(),
                self.limits.max_recv_data_segment_bytes,
            )?;
        }
        Ok(())
    }

    /// Everything is agreed: the session comes into being.
    fn finish(
        &mut self,
        now: Instant,
        request: &LoginRequest,
        answers: Vec<u8>,
        out: &mut Output,
    ) -> Result<Progress, LoginError> {
        if !self.make_way(request.isid)? {
            let look_at = now + Duration::from_millis(MAKE_WAY_POLL_MS);
            self.waiting = Some(Waiting {
                request: request.clone(),
                answers,
                look_at,
            });
            return Ok(Progress::More);
        }
        let tsih = self.node.new_tsih();
        let kind = match self.session_type {
            SessionType::Discovery => Kind::Discovery,
            SessionType::Normal => self.attach(request.isid, tsih)?,
        };
        let established = Established {
            params: self.negotiation.params.clone(),
            kind,
            exp_cmd_sn: request.cmd_sn,
            stat_sn: self.stat_sn + 1,
            max_recv_data_segment_bytes: if self.said_segment_length {
                self.limits.max_recv_data_segment_bytes
            } else {
                DEFAULT_DATA_SEGMENT_BYTES
            },
        };
        let session = FullFeature::new(
            Arc::clone(&self.node),
            Arc::clone(&self.limits),
            self.mailbox.clone(),
            self.origin.clone(),
            established,
            now,
        )
        .ok_or(LoginError::OutOfMemory)?;
        let answer = Answer {
            tsih: Some(tsih),
            window: Some(session.window()),
            ..Answer::transit(answers)
        };
        self.respond(request, answer, out);
        tracing::info!(session = session.describe(), "logged in");
        Ok(Progress::Done(Box::new(session)))
    }

    /// Whether no session with the same name and ISID is left.
    fn make_way(&self, isid: Isid) -> Result<bool, LoginError> {
        if self.session_type == SessionType::Discovery {
            return Ok(true);
        }
        let initiator = self.initiator.clone().ok_or(LoginError::Missing(Key::InitiatorName))?;
        Ok(self.target()?.make_way(&self.key(initiator, isid)))
    }

    fn key(&self, initiator: String, isid: Isid) -> SessionKey {
        SessionKey {
            initiator,
            isid,
            portal_group: self.origin.portal.tag,
        }
    }

    fn attach(&self, isid: Isid, tsih: u16) -> Result<Kind, LoginError> {
        let target = self.target()?;
        let initiator = self.initiator.clone().ok_or(LoginError::Missing(Key::InitiatorName))?;
        // The name of the initiator port (RFC 7143 §4.4.3, SPC-5 TransportID).
        let port = format!("{initiator},i,0x{isid}");
        let who = Arc::new(Who {
            initiator: initiator.clone(),
            chap_user: None,
            way: self.origin.portal.way.clone(),
        });
        let policy = target.policy();
        let target_port = TargetPort::new(&target.name(), self.origin.portal.tag);
        let mut nexus = target
            .device
            .attach_to(target_port, &initiator, &port, &|lun| policy.lun_mode(&who, lun))
            .map_err(|refused| LoginError::Held {
                lun: refused.lun,
                holder: refused.holder,
            })?;
        let guest = Guest {
            who: Arc::clone(&who),
            peer: self.origin.peer.clone(),
            params: self.negotiation.params.clone(),
            stats: Arc::default(),
        };
        let registration = target
            .enter(&self.limits, self.key(initiator, isid), tsih, self.mailbox.clone(), guest)
            .map_err(|_| LoginError::TooManySessions)?;
        // What changed before this session was on the list, it was not told of.
        let policy = target.policy();
        nexus.refresh(&|lun| policy.lun_mode(&who, lun));
        Ok(Kind::Normal { registration, nexus })
    }

    fn respond(&mut self, request: &LoginRequest, answer: Answer, out: &mut Output) {
        let (exp_cmd_sn, max_cmd_sn) = answer.window.unwrap_or((request.cmd_sn, request.cmd_sn));
        let response = LoginResponse {
            transit: answer.transit,
            continue_: false,
            csg: request.csg,
            nsg: if answer.transit { request.nsg } else { request.csg },
            version_max: 0,
            version_active: 0,
            isid: request.isid,
            tsih: answer.tsih.unwrap_or(request.tsih),
            itt: request.itt,
            stat_sn: self.stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            status: answer.status,
        };
        self.stat_sn += 1;
        out.pdu(&response, &answer.text);
    }
}

/// See [`Login::waiting`].
#[derive(Debug)]
struct Waiting {
    request: LoginRequest,
    answers: Vec<u8>,
    look_at: Instant,
}

/// What a login response says.
#[derive(Debug)]
struct Answer {
    status: LoginStatus,
    transit: bool,
    text: Vec<u8>,
    tsih: Option<u16>,
    window: Option<(Serial, Serial)>,
}

impl Answer {
    fn stay(text: Vec<u8>) -> Self {
        Self {
            status: LoginStatus::Success,
            transit: false,
            text,
            tsih: None,
            window: None,
        }
    }

    fn transit(text: Vec<u8>) -> Self {
        Self {
            transit: true,
            ..Self::stay(text)
        }
    }

    fn refusal(status: LoginStatus) -> Self {
        Self {
            status,
            ..Self::stay(Vec::new())
        }
    }
}

/// RFC 7143 §4.2.7.1, as far as a peer's name has to be right for us: its length and no odd characters.
fn iscsi_name(key: Key, value: &str) -> Result<String, LoginError> {
    let fits = |c: char| !c.is_whitespace() && !c.is_control();
    if value.is_empty() || value.len() > NAME_MAX_BYTES || !value.chars().all(fits) {
        return Err(LoginError::BadName(key));
    }
    Ok(value.to_owned())
}
