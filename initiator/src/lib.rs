//! A small iSCSI initiator on the same codec as the target: what the probe command and the tests use.
//!
//! One session over one connection, any `AsyncRead + AsyncWrite`; error recovery level 0, CHAP or no
//! authentication. Many
//! commands may be in flight ([`Session::submit`], [`Session::next_completion`]). It is strict: a target that numbers,
//! places or sizes something wrongly is reported ([`PeerError`]) rather than humoured, because tests are its first
//! users.
//!
//! `engine` is the protocol without I/O; `session` moves its bytes.
#![forbid(unsafe_code)]

mod caching;
mod chap;
mod commands;
mod connection;
mod discovery;
mod engine;
mod error;
mod login;
mod options;
mod outbox;
mod receiver;
mod sense;
mod session;
mod tasks;
mod url;

pub use caching::Caching;
pub use chap::{ChapOptions, Encoding, MutualChap};
pub use commands::{Capacity, Inquiry};
pub use connection::Connection;
pub use discovery::{DiscoveredTarget, SendTargets, TargetAddress};
pub use engine::Notice;
pub use error::{CommandError, Error, PeerError};
pub use iscsi_pdu::chap::{Digest, Secret, SecretError};
pub use iscsi_pdu::{Cdb, Isid, LoginStatus, Lun, RejectReason, Residual, TaskFunction, TaskOutcome};
pub use options::{LoginOptions, Negotiated};
pub use sense::Sense;
pub use session::{Completion, Session, connect};
pub use tasks::{Command, ScsiOutcome, TaskTag, Transfer};
pub use url::{DEFAULT_PORT, Url, UrlError};
