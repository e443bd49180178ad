//! The keys of RFC 7143 §12 and §13, and what is known of each. The facts are in `table.rs`.

use std::fmt;

use crate::text::table::TABLE;

/// What values a key takes and how an offer is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Declared: UTF-8 text such as a name or an alias.
    Text,
    /// Negotiated: `Yes` when both say so.
    And {
        /// Value without negotiation.
        default: bool,
    },
    /// Negotiated: `Yes` when either says so.
    Or {
        /// Value without negotiation.
        default: bool,
    },
    /// A number.
    Number {
        /// Least value.
        min: u32,
        /// Greatest value.
        max: u32,
        /// Value without negotiation; `None` when there is none.
        default: Option<u32>,
        /// How two numbers become one.
        rule: NumberRule,
    },
    /// Negotiated: the first of the sender's list that the receiver takes.
    List {
        /// The values the RFC defines; others may be private extensions.
        values: &'static [&'static str],
        /// Value without negotiation; `None` when there is none.
        default: Option<&'static str>,
    },
    /// Declared: one of these values.
    OneOf {
        /// The values the RFC defines.
        values: &'static [&'static str],
        /// Value without declaration.
        default: &'static str,
    },
    /// Declared: a binary constant.
    Binary {
        /// Longest value, decoded.
        max_bytes: usize,
    },
    /// Obsoleted by RFC 7143 §13.25: answered with `Reject`, never with `NotUnderstood`.
    Obsolete,
}

/// How an offered number and ours become the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberRule {
    /// The lesser holds.
    Minimum,
    /// The greater holds.
    Maximum,
    /// Each side declares its own.
    Declared,
}

/// Who may send a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Senders {
    /// Only the initiator.
    Initiator,
    /// Only the target.
    Target,
    /// Both.
    Both,
}

/// When a key may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In SecurityNegotiation.
    Security,
    /// In LoginOperationalNegotiation.
    Operational,
    /// Anywhere in login (any-stage declarations).
    Login,
    /// In LoginOperationalNegotiation and in full feature phase.
    OperationalOrFullFeature,
    /// Anywhere in login and in full feature phase.
    Any,
    /// In full feature phase.
    FullFeature,
}

/// What a value holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One connection.
    Connection,
    /// The session.
    Session,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// The key.
    pub key: Key,
    /// Its name on the wire.
    pub name: &'static str,
    /// Values and rule.
    pub kind: Kind,
    /// Who may send it.
    pub senders: Senders,
    /// When.
    pub phase: Phase,
    /// Only in the login of a session's leading connection ("LO").
    pub leading_only: bool,
    /// What it holds for.
    pub scope: Scope,
    /// Whether it means something in a discovery session; if not, the answer there is `Irrelevant`.
    pub discovery: bool,
}

/// A key this crate knows.
#[allow(
    missing_docs,
    reason = "the names are the RFC's; the table gives section and meaning"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    AuthMethod,
    ChapAlgorithm,
    ChapIdentifier,
    ChapChallenge,
    ChapName,
    ChapResponse,
    HeaderDigest,
    DataDigest,
    MaxConnections,
    SendTargets,
    TargetName,
    InitiatorName,
    TargetAlias,
    InitiatorAlias,
    TargetAddress,
    TargetPortalGroupTag,
    InitialR2T,
    ImmediateData,
    MaxRecvDataSegmentLength,
    MaxBurstLength,
    FirstBurstLength,
    DefaultTime2Wait,
    DefaultTime2Retain,
    MaxOutstandingR2T,
    DataPDUInOrder,
    DataSequenceInOrder,
    ErrorRecoveryLevel,
    SessionType,
    TaskReporting,
    ISCSIProtocolLevel,
    NodeArchitecture,
    IFMarker,
    OFMarker,
    IFMarkInt,
    OFMarkInt,
}

impl Key {
    /// Every key, in the table's order.
    pub fn all() -> impl Iterator<Item = Key> {
        TABLE.iter().map(|spec| spec.key)
    }

    /// The key of this name; names are case-sensitive (RFC 7143 §6.1).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Key> {
        TABLE.iter().find(|spec| spec.name == name).map(|spec| spec.key)
    }

    /// What is known of it.
    #[must_use]
    pub fn spec(self) -> &'static KeySpec {
        // The table is in the order of the enumeration; a test holds it to that.
        &TABLE[self as usize]
    }

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.spec().name
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
