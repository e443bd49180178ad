//! The end of a login: the session comes into being, once an older one in its place is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use iscsi_pdu::Isid;
use iscsi_pdu::pdu::LoginRequest;

use super::answer::Answer;
use super::{DEFAULT_DATA_SEGMENT_BYTES, Login, LoginError, Progress};
use crate::iscsi::full_feature::{Established, FullFeature, Kind};
use crate::iscsi::node::{Guest, NoEntry, NotTheirs, SessionKey};
use crate::iscsi::output::Output;
use crate::iscsi::params::SessionType;
use crate::iscsi::policy::Who;
use crate::scsi::TargetPort;

/// How often a login that takes the place of a session looks whether that one is gone, in milliseconds.
const MAKE_WAY_POLL_MS: u64 = 5;

/// A login that is agreed, and waits for an old session to be gone.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: LoginRequest,
    pub(super) answers: Vec<u8>,
    pub(super) look_at: Instant,
}

impl Login {
    /// Everything is agreed: the session comes into being.
    pub(super) fn finish(
        &mut self,
        now: Instant,
        request: &LoginRequest,
        answers: Vec<u8>,
        out: &mut Output,
    ) -> Result<Progress, LoginError> {
        let who = Arc::clone(self.who.as_ref().ok_or(LoginError::Sequence("nobody was let in"))?);
        if !self.make_way(&who, request.isid)? {
            self.waiting = Some(Waiting {
                request: request.clone(),
                answers,
                look_at: now + Duration::from_millis(MAKE_WAY_POLL_MS),
            });
            return Ok(Progress::More);
        }
        let tsih = self.node.new_tsih();
        let kind = match self.names()?.session_type {
            SessionType::Discovery => Kind::Discovery { who },
            SessionType::Normal => self.attach(&who, request.isid, tsih)?,
        };
        let established = Established {
            params: self.negotiation.params(),
            kind,
            cid: request.cid,
            exp_cmd_sn: request.cmd_sn,
            stat_sn: self.stat_sn + 1,
            max_recv_data_segment_bytes: if self.said_segment_length {
                self.recv_data_segment_bytes()
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
    fn make_way(&self, who: &Who, isid: Isid) -> Result<bool, LoginError> {
        match self.names()?.session_type {
            SessionType::Discovery => Ok(true),
            SessionType::Normal => {
                let key = self.key(who.initiator.clone(), isid);
                // It may have begun since this one was let in.
                let way = self.target()?.make_way(&key, who);
                way.map_err(|NotTheirs| LoginError::SessionOfAnother {
                    initiator: who.initiator.clone(),
                })
            }
        }
    }

    pub(super) fn key(&self, initiator: String, isid: Isid) -> SessionKey {
        SessionKey {
            initiator,
            isid,
            portal_group: self.origin.portal.tag,
        }
    }

    fn attach(&self, who: &Arc<Who>, isid: Isid, tsih: u16) -> Result<Kind, LoginError> {
        let target = self.target()?;
        let initiator = &who.initiator;
        // The name of the initiator port (RFC 7143 §4.4.3, SPC-5 TransportID).
        let port = format!("{initiator},i,0x{isid}");
        let policy = target.policy();
        let target_port = TargetPort::new(&target.name(), self.origin.portal.tag);
        let mut nexus = target
            .device
            .attach_to(target_port, initiator, &port, &|lun| policy.lun_mode(who, lun))
            .map_err(|refused| LoginError::Held {
                lun: refused.lun,
                holder: refused.holder,
            })?;
        let guest = Guest {
            who: Arc::clone(who),
            peer: self.origin.peer.clone(),
            params: self.negotiation.params(),
            stats: Arc::default(),
        };
        let key = self.key(initiator.clone(), isid);
        let registration = target
            .enter(&self.limits, key, tsih, self.mailbox.clone(), guest)
            .map_err(|refused| match refused {
                NoEntry::TooManySessions => LoginError::TooManySessions,
                NoEntry::TargetRemoved => LoginError::TargetRemoved(target.name().to_string()),
            })?;
        // What changed before this session was on the list, it was not told of.
        self.check_admitted(who)?;
        if !target.has_authenticated(who) {
            return Err(LoginError::NotAuthenticated {
                initiator: who.initiator.clone(),
            });
        }
        let policy = target.policy();
        nexus.refresh(&|lun| policy.lun_mode(who, lun));
        Ok(Kind::Normal { registration, nexus })
    }
}
