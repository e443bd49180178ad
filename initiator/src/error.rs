//! What can go wrong, by whose doing.

use std::io;

use iscsi_pdu::text::{TextError, ValueError};
use iscsi_pdu::{DecodeError, Digest, HeaderError, LoginStatus, LogoutOutcome, RejectReason};
use thiserror::Error;

use crate::Sense;

/// Why an operation did not succeed.
#[derive(Debug, Error)]
pub enum Error {
    /// The target broke the protocol. The session is over.
    #[error("the target broke the protocol: {0}")]
    Peer(#[from] PeerError),
    /// The target does not let us in.
    #[error("login refused: {status}{}", .redirect.as_ref().map(|to| format!("; it is at {to} now")).unwrap_or_default())]
    LoginRefused {
        /// Why.
        status: LoginStatus,
        /// TargetAddress of a redirection.
        redirect: Option<String>,
    },
    /// The target did not show that it knows the secret that it must know: it is another one.
    #[error("the target could not prove who it is: another name or secret than expected")]
    TargetNotProven,
    /// Login worked, but not with what we need.
    #[error("negotiation failed: {key} = {value:?} is not an answer to our offer")]
    Negotiation {
        /// Which key.
        key: String,
        /// The target's answer.
        value: String,
    },
    /// A command ended without doing what it should. The session goes on.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The target would not end the session properly.
    #[error("logout refused: {0:?}")]
    LogoutRefused(LogoutOutcome),
    /// The connection failed.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// No answer in time.
    #[error("no answer within {timeout_ms} ms: {waiting_for}")]
    Timeout {
        /// What for.
        waiting_for: &'static str,
        /// How long.
        timeout_ms: u64,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Misuse(&'static str),
}

/// How a target broke the protocol.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PeerError {
    /// It closed the connection in the middle of something.
    #[error("connection closed")]
    Closed,
    /// The stream could not be cut into PDUs.
    #[error(transparent)]
    Framing(#[from] DecodeError),
    /// A header says what it must not.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A text is not a list of keys.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A key has a value it cannot have.
    #[error("{key} = {value:?}: {error}")]
    Value {
        /// Which key.
        key: String,
        /// As sent.
        value: String,
        /// What is wrong with it.
        error: ValueError,
    },
    /// A data segment was damaged; at error recovery level 0 the session ends.
    #[error("data digest is {received}, computed {computed}")]
    DataDigest {
        /// What the target sent.
        received: Digest,
        /// What the bytes give.
        computed: Digest,
    },
    /// A PDU that has no place here.
    #[error("unexpected {what}")]
    Unexpected {
        /// Which.
        what: &'static str,
    },
    /// A number or length that does not follow from what came before.
    #[error("{what} is {found:#x}, expected {expected:#x}")]
    Mismatch {
        /// Which.
        what: &'static str,
        /// What it was.
        found: u64,
        /// What it must be (or at most be).
        expected: u64,
    },
    /// Data that a command returned cannot be read.
    #[error("malformed {what}")]
    Malformed {
        /// Which.
        what: &'static str,
    },
}

/// How a command ended when it did not end well.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandError {
    /// A status other than GOOD.
    #[error("{command}: {}", status_words(*status, sense.as_ref()))]
    Status {
        /// The command's name in the standard.
        command: &'static str,
        /// SAM-5 status code.
        status: u8,
        /// With CHECK CONDITION.
        sense: Option<Sense>,
    },
    /// Less data than the command must return.
    #[error("{command}: {bytes} bytes of data are too few")]
    ShortData {
        /// The command's name in the standard.
        command: &'static str,
        /// How many came.
        bytes: usize,
    },
    /// The target rejected the PDU.
    #[error("rejected: {0:?}")]
    Rejected(RejectReason),
    /// The target failed to carry it out: iSCSI response code (RFC 7143 §11.4.3).
    #[error("target failure, response {0:#04x}")]
    TargetFailure(u8),
    /// A task management function of ours ended it.
    #[error("aborted")]
    Aborted,
}

/// SAM-5 5.3.1.
fn status_words(status: u8, sense: Option<&Sense>) -> String {
    let name = match status {
        0x00 => "GOOD",
        0x02 => "CHECK CONDITION",
        0x04 => "CONDITION MET",
        0x08 => "BUSY",
        0x18 => "RESERVATION CONFLICT",
        0x28 => "TASK SET FULL",
        0x30 => "ACA ACTIVE",
        0x40 => "TASK ABORTED",
        _ => "unknown status",
    };
    match sense {
        Some(sense) => format!("{name} ({status:#04x}), {sense}"),
        None => format!("{name} ({status:#04x})"),
    }
}
