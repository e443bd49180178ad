//! Why a login is refused, and what the initiator is told of it (RFC 7143 §11.13.5).

use iscsi_pdu::pdu::LoginStatus;
use iscsi_pdu::text::{Key, TextError};

use crate::iscsi::chap::ChapError;
use crate::iscsi::negotiate::NegotiationError;

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
    /// The target was taken out of service while the login was under way.
    #[error("{0} was removed in the meantime")]
    TargetRemoved(String),
    /// The target is not served at the portals of this group.
    #[error("{target} is not served in portal group {tag}")]
    NotInPortalGroup {
        /// Name of the target.
        target: String,
        /// Tag of the group the initiator came to.
        tag: u16,
    },
    /// None of the authentication methods offered is one of ours.
    #[error("no common authentication method in {0}")]
    NoAuthMethod(String),
    /// The initiator wants to get by without the authentication that is needed.
    #[error("{initiator} has not shown who it is, and has to")]
    NotAuthenticated {
        /// Name of the initiator.
        initiator: String,
    },
    /// The authentication did not go well.
    #[error("{initiator}: CHAP: {error}")]
    Chap {
        /// Name of the initiator.
        initiator: String,
        /// What was wrong.
        error: ChapError,
    },
    /// The target lets nobody in who does not come through a tunnel.
    #[error("{target} is for those who come through the tunnel")]
    TunnelOnly {
        /// Name of the target.
        target: String,
    },
    /// No rule of the target names this initiator.
    #[error("no rule admits {initiator}{}", .chap_user.as_ref().map(|user| format!(" (CHAP user {user:?})")).unwrap_or_default())]
    NotAdmitted {
        /// Name of the initiator.
        initiator: String,
        /// Name it has shown by CHAP to be its.
        chap_user: Option<String>,
    },
    /// Somebody else is logged in as this initiator: whoever takes its name may not end its session.
    #[error("{initiator} is logged in as somebody else")]
    SessionOfAnother {
        /// Name of the initiator.
        initiator: String,
    },
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
    /// What the initiator is told.
    pub(super) fn status(&self) -> LoginStatus {
        match self {
            Self::Text(_) | Self::Negotiation(_) | Self::Sequence(_) | Self::BadName(_) => LoginStatus::InitiatorError,
            Self::Version { .. } => LoginStatus::UnsupportedVersion,
            Self::Missing(_) => LoginStatus::MissingParameter,
            Self::SessionType => LoginStatus::SessionTypeNotSupported,
            Self::NoSuchTarget(_) | Self::NotInPortalGroup { .. } => LoginStatus::NotFound,
            Self::TargetRemoved(_) => LoginStatus::TargetRemoved,
            Self::NoAuthMethod(_) | Self::NotAuthenticated { .. } => LoginStatus::AuthenticationFailure,
            Self::Chap { error, .. } => match error {
                ChapError::Missing(_) => LoginStatus::MissingParameter,
                ChapError::NoRandomness(_) => LoginStatus::TargetError,
                error if error.is_failure() => LoginStatus::AuthenticationFailure,
                _ => LoginStatus::InitiatorError,
            },
            Self::NoSuchSession => LoginStatus::SessionDoesNotExist,
            Self::TooManyConnections => LoginStatus::TooManyConnections,
            Self::Held { .. } | Self::TunnelOnly { .. } | Self::NotAdmitted { .. } | Self::SessionOfAnother { .. } => {
                LoginStatus::AuthorizationFailure
            }
            Self::TooManySessions | Self::OutOfMemory => LoginStatus::OutOfResources,
        }
    }

    /// Whether somebody may be guessing: the answer is then kept back for a while.
    pub(super) fn is_guess(&self) -> bool {
        matches!(self, Self::Chap { error, .. } if error.is_failure())
    }
}
