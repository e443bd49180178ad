//! How a session ends in order: by a logout (RFC 7143 §11.14, §11.15), which the target may ask for before it closes
//! the connection (§11.9.1).

use std::time::{Duration, Instant};

use iscsi_pdu::Lun;
use iscsi_pdu::pdu::{AsyncEvent, AsyncMessage, LogoutOutcome, LogoutReason, LogoutRequest, LogoutResponse};

use super::{FullFeature, Kind};
use crate::iscsi::mailbox::CloseReason;
use crate::iscsi::output::Output;

/// The initiator has been asked to log out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Farewell {
    deadline: Instant,
    reason: CloseReason,
}

impl Farewell {
    /// When the connection is closed if the initiator has not done so.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl FullFeature {
    /// RFC 7143 §11.14, §11.15. The connection closes once the answer is out.
    pub(super) fn logout(&mut self, request: &LogoutRequest, out: &mut Output) {
        let result = match request.reason {
            // A session has one connection.
            LogoutReason::CloseConnection if request.cid != self.cid => LogoutOutcome::CidNotFound,
            LogoutReason::CloseSession | LogoutReason::CloseConnection => LogoutOutcome::Closed,
            LogoutReason::RemoveConnectionForRecovery => LogoutOutcome::RecoveryNotSupported,
        };
        self.leaving = result == LogoutOutcome::Closed;
        let stat_sn = self.next_stat_sn();
        let reply = LogoutResponse {
            response: result,
            itt: request.itt,
            stat_sn,
            exp_cmd_sn: self.window.exp_cmd_sn(),
            max_cmd_sn: self.window.max_cmd_sn(),
            time_to_wait_s: 0,
            time_to_retain_s: 0,
        };
        out.pdu(&reply, &[]);
        if self.leaving {
            self.abort_all();
        }
    }

    /// Asks for a logout, once. Commands go on until then: what is under way may well come to its end.
    pub(super) fn ask_logout(&mut self, now: Instant, within_ms: u64, reason: CloseReason, out: &mut Output) {
        let deadline = now + Duration::from_millis(within_ms);
        if let Some(farewell) = &mut self.farewell {
            if deadline < farewell.deadline {
                *farewell = Farewell { deadline, reason };
            }
            return;
        }
        self.farewell = Some(Farewell { deadline, reason });
        if matches!(self.kind, Kind::Discovery { .. }) {
            // Nothing that would be lost.
            self.leaving = true;
        }
        if self.leaving {
            return;
        }
        tracing::info!(session = self.describe(), ?reason, within_ms, "asking for a logout");
        let message = AsyncMessage {
            lun: Lun::default(),
            stat_sn: self.next_stat_sn(),
            exp_cmd_sn: self.window.exp_cmd_sn(),
            max_cmd_sn: self.window.max_cmd_sn(),
            event: AsyncEvent::LogoutRequested,
            vendor_code: 0,
            parameter1: 0,
            parameter2: 0,
            // Seconds, and never none.
            parameter3: u16::try_from(within_ms.div_ceil(1000).max(1)).unwrap_or(u16::MAX),
        };
        out.pdu(&message, &[]);
    }

    /// Why the connection is to be closed although the initiator has not logged out; `None` while it has time.
    pub(in crate::iscsi) fn overstayed(&self, now: Instant) -> Option<CloseReason> {
        let farewell = self.farewell.filter(|farewell| farewell.deadline <= now)?;
        Some(farewell.reason)
    }
}
