//! What login requests and responses share: stages (RFC 7143 §11.12.3) and status (§11.13.5).

use std::fmt;

use crate::codes::wire_codes;

wire_codes! {
    /// Stage of the login phase (RFC 7143 §11.12.3). The value 2 is reserved.
    Stage: u8 {
        /// SecurityNegotiation.
        Security = 0,
        /// LoginOperationalNegotiation.
        Operational = 1,
        /// FullFeaturePhase: only as next stage.
        FullFeature = 3,
    }
}

impl Stage {
    /// Whether a login in `self` may ask to go to `next` (RFC 7143 §6.3).
    #[must_use]
    pub fn may_go_to(self, next: Stage) -> bool {
        self != Stage::FullFeature && self.code() < next.code()
    }
}

wire_codes! {
    /// Status-Class and Status-Detail of a Login Response as one number, class first (RFC 7143 §11.13.5).
    LoginStatus: u16 {
        /// Login is proceeding OK.
        Success = 0x0000,
        /// Target moved temporarily; TargetAddress says where to.
        TargetMovedTemporarily = 0x0101,
        /// Target moved permanently; TargetAddress says where to.
        TargetMovedPermanently = 0x0102,
        /// Miscellaneous initiator error.
        InitiatorError = 0x0200,
        /// The initiator could not be authenticated, or authentication is required.
        AuthenticationFailure = 0x0201,
        /// The initiator is not allowed access to the target.
        AuthorizationFailure = 0x0202,
        /// The target name does not exist at this address.
        NotFound = 0x0203,
        /// The target was removed, and no forwarding address is provided.
        TargetRemoved = 0x0204,
        /// The iSCSI version range is not supported.
        UnsupportedVersion = 0x0205,
        /// Too many connections on this SSID.
        TooManyConnections = 0x0206,
        /// Missing parameters, such as the initiator's or target's name.
        MissingParameter = 0x0207,
        /// The target does not support a session spanning to this connection.
        CannotIncludeInSession = 0x0208,
        /// The session type is not supported, or not from this initiator.
        SessionTypeNotSupported = 0x0209,
        /// A connection was to be added to a session that does not exist.
        SessionDoesNotExist = 0x020a,
        /// Invalid request type during login.
        InvalidDuringLogin = 0x020b,
        /// Target hardware or software error.
        TargetError = 0x0300,
        /// The iSCSI service or target is not operational at present.
        ServiceUnavailable = 0x0301,
        /// The target has not enough session, connection or other resources.
        OutOfResources = 0x0302,
    } else Other
}

impl LoginStatus {
    /// Status-Class: 0 success, 1 redirection, 2 initiator error, 3 target error.
    #[must_use]
    pub fn class(self) -> u8 {
        self.code().to_be_bytes()[0]
    }

    /// Status-Detail within the class.
    #[must_use]
    pub fn detail(self) -> u8 {
        self.code().to_be_bytes()[1]
    }

    /// Whether the login goes on.
    #[must_use]
    pub fn is_success(self) -> bool {
        self.class() == 0
    }
}

impl fmt::Display for LoginStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            LoginStatus::Success => "success",
            LoginStatus::TargetMovedTemporarily => "the target has moved for a while",
            LoginStatus::TargetMovedPermanently => "the target has moved for good",
            LoginStatus::InitiatorError => "the target found an error in our login",
            LoginStatus::AuthenticationFailure => "authentication failed or is required",
            LoginStatus::AuthorizationFailure => "this initiator may not use the target",
            LoginStatus::NotFound => "no such target here",
            LoginStatus::TargetRemoved => "the target was removed",
            LoginStatus::UnsupportedVersion => "no common iSCSI version",
            LoginStatus::TooManyConnections => "too many connections in the session",
            LoginStatus::MissingParameter => "a required key is missing",
            LoginStatus::CannotIncludeInSession => "the connection cannot join that session",
            LoginStatus::SessionTypeNotSupported => "the session type is not supported",
            LoginStatus::SessionDoesNotExist => "the session to join does not exist",
            LoginStatus::InvalidDuringLogin => "not allowed during login",
            LoginStatus::TargetError => "the target failed",
            LoginStatus::ServiceUnavailable => "the target is not in service now",
            LoginStatus::OutOfResources => "the target has no room for another session",
            LoginStatus::Other(_) => match self.class() {
                0 => "success",
                1 => "redirected",
                2 => "initiator error",
                3 => "target error",
                _ => "unknown status",
            },
        };
        write!(f, "{words} ({:02x}/{:02x})", self.class(), self.detail())
    }
}
