//! The login phase (RFC 7143 §6.3, §11.12, §11.13) as a state machine.
//!
//! Here: requests in their order, and what becomes of their keys. `names` is who wants what, `security` whether they
//! may, `establish` the session that comes of it, `answer` the responses, `error` the refusals. Operational keys are
//! answered by `negotiate`.

mod answer;
mod error;
mod establish;
mod names;
mod security;

use std::sync::Arc;
use std::time::{Duration, Instant};

use iscsi_pdu::pdu::{LoginRequest, Stage};
use iscsi_pdu::text::{CollectorLimits, Duplicates, Key, Pair, Phase, TextCollector, TextLimits, TextWriter, parse};
use iscsi_pdu::{Isid, Serial};

use self::answer::Answer;
pub use self::error::LoginError;
use self::establish::Waiting;
use self::names::Names;
use self::security::Security;
use super::chap::ChapKeys;
use super::full_feature::FullFeature;
use super::mailbox::Sender;
use super::negotiate::{Negotiation, NegotiationError};
use super::node::{Limits, Node, Target};
use super::output::Output;
use super::params::RECV_DATA_SEGMENT_MAX_BYTES;
use super::policy::Who;
use super::portals::Origin;

/// Login requests in one login, at most.
const REQUESTS_MAX: u32 = 64;
/// Text of one logical request, over all PDUs joined by the C bit, in bytes.
const TEXT_MAX_BYTES: usize = 16 * 1024;
/// PDUs that one logical request may be spread over.
const TEXT_SEGMENTS_MAX: usize = 16;
/// Keys in one logical request.
const KEYS_MAX: usize = 64;
/// A value in it, in bytes: room for the longest challenge, 1024 bytes in hexadecimal (RFC 7143 §12.1.3).
const VALUE_MAX_BYTES: usize = 2 + 2 * 1024;
/// Our answers are kept below the default MaxRecvDataSegmentLength, in bytes (RFC 7143 §13.12).
const ANSWER_MAX_BYTES: usize = 8192;
/// MaxRecvDataSegmentLength when none has been declared, in bytes.
const DEFAULT_DATA_SEGMENT_BYTES: u32 = 8192;
/// How long somebody waits to hear that his secret is wrong, in milliseconds. The place of the connection is taken
/// meanwhile (`server::places`), even if it is gone before, so that guessing is slow however it is spread over
/// connections.
const WRONG_SECRET_DELAY_MS: u64 = 500;

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
    requests: u32,
    stat_sn: Serial,
    collector: TextCollector,
    /// Said in the first logical request.
    names: Option<Names>,
    /// The one that is named there, whatever it is called by now.
    target: Option<Arc<Target>>,
    security: Security,
    /// Set when they may come in.
    who: Option<Arc<Who>>,
    negotiation: Negotiation,
    /// Our own declarations, each made once.
    said_segment_length: bool,
    said_portal_group: bool,
    said_alias: bool,
    /// A login that is agreed, and waits for an old session to be gone.
    waiting: Option<Waiting>,
    /// A refusal that is kept back.
    refusal: Option<Refusal>,
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

/// See [`Login::refusal`].
#[derive(Debug)]
struct Refusal {
    request: LoginRequest,
    error: LoginError,
    due: Instant,
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
            requests: 0,
            stat_sn: Serial(1),
            collector: TextCollector::new(collector),
            names: None,
            target: None,
            security: Security::default(),
            who: None,
            negotiation: Negotiation::new(),
            said_segment_length: false,
            said_portal_group: false,
            said_alias: false,
            waiting: None,
            refusal: None,
        }
    }

    /// When [`timeout`](Self::timeout) is due.
    pub(super) fn next_timeout(&self) -> Instant {
        let look_at = self.waiting.as_ref().map(|waiting| waiting.look_at);
        let refusal = self.refusal.as_ref().map(|refusal| refusal.due);
        [look_at, refusal]
            .into_iter()
            .flatten()
            .fold(self.deadline, Instant::min)
    }

    /// A refusal that is kept back, and until when.
    pub(super) fn kept_back(&self) -> Option<(&LoginError, Instant)> {
        self.refusal.as_ref().map(|refusal| (&refusal.error, refusal.due))
    }

    /// Time has passed. `None` when the login has taken too long.
    pub(super) fn timeout(&mut self, now: Instant, out: &mut Output) -> Option<Result<Progress, LoginError>> {
        if let Some(refusal) = self.refusal.take_if(|refusal| refusal.due <= now) {
            self.respond(&refusal.request, Answer::refusal(refusal.error.status()), out);
            return Some(Err(refusal.error));
        }
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
        if self.refusal.is_some() {
            // The answer to the last request is the last one, and will come.
            return Ok(Progress::More);
        }
        match self.advance(now, request, data, out) {
            Err(error) if error.is_guess() => {
                let due = now + Duration::from_millis(WRONG_SECRET_DELAY_MS);
                self.refusal = Some(Refusal {
                    request: request.clone(),
                    error,
                    // An answer is owed even by a login that runs out of time.
                    due: due.min(self.deadline),
                });
                Ok(Progress::More)
            }
            Err(error) => {
                self.respond(request, Answer::refusal(error.status()), out);
                Err(error)
            }
            progress => progress,
        }
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
        let is_first = self.names.is_none();
        if is_first {
            self.take_names(Names::read(&pairs)?)?;
        }
        if request.csg == Stage::Operational {
            self.admit(request)?;
        }
        let mut answers = TextWriter::new(ANSWER_MAX_BYTES);
        self.answer_keys(request.csg, &pairs, is_first, &mut answers)?;
        let transit = request.transit && !self.security.is_under_way();
        if transit {
            self.admit(request)?;
        }
        self.declare(request.csg, &mut answers)?;
        let answers = answers.into_bytes();
        if !transit {
            self.respond(request, Answer::stay(answers), out);
            return Ok(Progress::More);
        }
        if request.nsg != Stage::FullFeature {
            self.leading = self.leading.map(|leading| Leading {
                stage: request.nsg,
                ..leading
            });
            self.respond(request, Answer::transit(answers), out);
            return Ok(Progress::More);
        }
        self.finish(now, request, answers, out)
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

    /// Finds the target, as far as anybody may know that it is there.
    fn take_names(&mut self, names: Names) -> Result<(), LoginError> {
        if let Some(name) = &names.target {
            let target = self
                .node
                .target(name)
                .ok_or_else(|| LoginError::NoSuchTarget(name.clone()))?;
            let tag = self.origin.portal.tag;
            if !target.is_in_portal_group(tag) {
                return Err(LoginError::NotInPortalGroup {
                    target: name.clone(),
                    tag,
                });
            }
            if target.policy().tunnel_only && !self.origin.portal.way.is_tunnel() {
                return Err(LoginError::TunnelOnly { target: name.clone() });
            }
            self.target = Some(target);
        }
        self.names = Some(names);
        Ok(())
    }

    /// The MaxRecvDataSegmentLength we declare.
    fn recv_data_segment_bytes(&self) -> u32 {
        self.limits.max_recv_data_segment_bytes.min(RECV_DATA_SEGMENT_MAX_BYTES)
    }

    fn names(&self) -> Result<&Names, LoginError> {
        self.names.as_ref().ok_or(LoginError::Missing(Key::InitiatorName))
    }

    /// The target of a normal session.
    fn target(&self) -> Result<&Arc<Target>, LoginError> {
        self.target.as_ref().ok_or(LoginError::Missing(Key::TargetName))
    }

    /// A TSIH asks for a further connection of a session, and there are none.
    fn check_tsih(&self, request: &LoginRequest) -> Result<(), LoginError> {
        if request.tsih == 0 {
            return Ok(());
        }
        let Some(target) = &self.target else {
            return Err(LoginError::NoSuchSession);
        };
        let key = self.key(self.names()?.initiator.clone(), request.isid);
        Err(if target.has_tsih(request.tsih) && target.has_session(&key) {
            LoginError::TooManyConnections
        } else {
            LoginError::NoSuchSession
        })
    }

    fn answer_keys(
        &mut self,
        stage: Stage,
        pairs: &[Pair<'_>],
        is_first: bool,
        answers: &mut TextWriter,
    ) -> Result<(), LoginError> {
        let mut chap = ChapKeys::default();
        let mut method_is_new = false;
        // FirstBurstLength follows from MaxBurstLength, in whatever order they come.
        let is_late = |pair: &&Pair<'_>| pair.key == Key::FirstBurstLength.name();
        let (early, late) = (pairs.iter().filter(|pair| !is_late(pair)), pairs.iter().filter(is_late));
        for pair in early.chain(late) {
            match Key::from_name(pair.key) {
                Some(key) if Names::owns(key) => {
                    self.negotiation.note(key)?;
                    if !is_first {
                        return Err(NegotiationError::Misplaced(key).into());
                    }
                }
                Some(key @ Key::InitiatorAlias) => self.negotiation.note(key)?,
                Some(key @ Key::AuthMethod) if stage == Stage::Security => {
                    self.negotiation.note(key)?;
                    method_is_new = true;
                    answers.push(key.name(), self.choose_method(pair.value)?)?;
                }
                Some(key) if stage == Stage::Security && key.spec().phase == Phase::Security => {
                    chap.add(key, pair.value);
                }
                // What belongs to the operational stage may only be said there (RFC 7143 §6.3.2).
                Some(key) if stage == Stage::Security && key.spec().phase != Phase::Login => {
                    return Err(NegotiationError::Misplaced(key).into());
                }
                _ => {
                    let session_type = self.names()?.session_type;
                    self.negotiation.answer(*pair, session_type, &self.limits, answers)?;
                }
            }
        }
        self.authenticate(&chap, method_is_new, answers)
    }

    /// What we have to say ourselves: the portal group in the first answer (RFC 7143 §13.9), the alias to those who
    /// may come in, the segment length in the first of the operational stage.
    fn declare(&mut self, stage: Stage, answers: &mut TextWriter) -> Result<(), LoginError> {
        if let Some(target) = &self.target {
            if !std::mem::replace(&mut self.said_portal_group, true) {
                answers.push(Key::TargetPortalGroupTag.name(), self.origin.portal.tag)?;
            }
            if self.who.is_some()
                && !std::mem::replace(&mut self.said_alias, true)
                && let Some(alias) = target.alias().as_ref()
            {
                answers.push(Key::TargetAlias.name(), alias)?;
            }
        }
        if !self.said_segment_length && stage == Stage::Operational {
            self.said_segment_length = true;
            answers.push(Key::MaxRecvDataSegmentLength.name(), self.recv_data_segment_bytes())?;
        }
        Ok(())
    }
}
