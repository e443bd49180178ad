//! The table of keys: RFC 7143 §12 (authentication) and §13 (operational), one row each, in the order of [`Key`].

use crate::text::Kind::{And, Binary, List, Number, Obsolete, OneOf, Or, Text};
use crate::text::NumberRule::{Declared, Maximum, Minimum};
use crate::text::{Key, KeySpec, Kind, Phase, Scope, Senders};

/// Longest CHAP challenge and response, decoded (RFC 7143 §12.1.3: "binary-value of up to 1024 bytes").
const MAX_CHAP_BINARY_BYTES: usize = 1024;

/// Greatest length that fits the 24 bits of DataSegmentLength (RFC 7143 §13.12 to §13.14).
const MAX_LENGTH: u32 = 0x00ff_ffff;

const fn row(key: Key, name: &'static str, kind: Kind, senders: Senders, phase: Phase) -> KeySpec {
    KeySpec {
        key,
        name,
        kind,
        senders,
        phase,
        leading_only: false,
        scope: Scope::Session,
        discovery: true,
    }
}

/// Negotiated once, by the leading connection, in the operational stage.
const fn leading(key: Key, name: &'static str, kind: Kind) -> KeySpec {
    KeySpec {
        leading_only: true,
        ..row(key, name, kind, Senders::Both, Phase::Operational)
    }
}

/// The same, and without meaning in a discovery session.
const fn leading_normal(key: Key, name: &'static str, kind: Kind) -> KeySpec {
    KeySpec {
        discovery: false,
        ..leading(key, name, kind)
    }
}

const fn connection(spec: KeySpec) -> KeySpec {
    KeySpec {
        scope: Scope::Connection,
        ..spec
    }
}

const fn number(min: u32, max: u32, default: u32, rule: crate::text::NumberRule) -> Kind {
    Number {
        min,
        max,
        default: Some(default),
        rule,
    }
}

const fn digest(key: Key, name: &'static str) -> KeySpec {
    let kind = List {
        values: &["CRC32C", "None"],
        default: Some("None"),
    };
    connection(row(key, name, kind, Senders::Both, Phase::Operational))
}

const fn security(key: Key, name: &'static str, kind: Kind) -> KeySpec {
    connection(row(key, name, kind, Senders::Both, Phase::Security))
}

const fn obsolete(key: Key, name: &'static str) -> KeySpec {
    connection(row(key, name, Obsolete, Senders::Both, Phase::Operational))
}

#[rustfmt::skip]
pub(super) const TABLE: &[KeySpec] = &[
    // §12: authentication. CHAP's own keys are §12.1.3.
    security(Key::AuthMethod, "AuthMethod", List { values: &["KRB5", "SRP", "CHAP", "None"], default: None }),
    security(Key::ChapAlgorithm, "CHAP_A", List { values: &["5", "6", "7", "8"], default: None }),
    security(Key::ChapIdentifier, "CHAP_I", Number { min: 0, max: 255, default: None, rule: Declared }),
    security(Key::ChapChallenge, "CHAP_C", Binary { max_bytes: MAX_CHAP_BINARY_BYTES }),
    security(Key::ChapName, "CHAP_N", Text),
    security(Key::ChapResponse, "CHAP_R", Binary { max_bytes: MAX_CHAP_BINARY_BYTES }),
    // §13.1
    digest(Key::HeaderDigest, "HeaderDigest"),
    digest(Key::DataDigest, "DataDigest"),
    // §13.2
    leading_normal(Key::MaxConnections, "MaxConnections", number(1, 65535, 1, Minimum)),
    // §13.3
    row(Key::SendTargets, "SendTargets", Text, Senders::Initiator, Phase::FullFeature),
    // §13.4: from the initiator in login, from the target in answers to SendTargets
    row(Key::TargetName, "TargetName", Text, Senders::Both, Phase::Any),
    // §13.5
    row(Key::InitiatorName, "InitiatorName", Text, Senders::Initiator, Phase::Login),
    // §13.6
    row(Key::TargetAlias, "TargetAlias", Text, Senders::Target, Phase::Any),
    // §13.7
    row(Key::InitiatorAlias, "InitiatorAlias", Text, Senders::Initiator, Phase::Any),
    // §13.8
    row(Key::TargetAddress, "TargetAddress", Text, Senders::Target, Phase::Any),
    // §13.9
    row(Key::TargetPortalGroupTag, "TargetPortalGroupTag",
        Number { min: 0, max: 65535, default: None, rule: Declared }, Senders::Target, Phase::Login),
    // §13.10, §13.11
    leading_normal(Key::InitialR2T, "InitialR2T", Or { default: true }),
    leading_normal(Key::ImmediateData, "ImmediateData", And { default: true }),
    // §13.12
    connection(row(Key::MaxRecvDataSegmentLength, "MaxRecvDataSegmentLength",
        number(512, MAX_LENGTH, 8192, Declared), Senders::Both, Phase::OperationalOrFullFeature)),
    // §13.13, §13.14
    leading_normal(Key::MaxBurstLength, "MaxBurstLength", number(512, MAX_LENGTH, 262_144, Minimum)),
    leading_normal(Key::FirstBurstLength, "FirstBurstLength", number(512, MAX_LENGTH, 65_536, Minimum)),
    // §13.15, §13.16
    leading(Key::DefaultTime2Wait, "DefaultTime2Wait", number(0, 3600, 2, Maximum)),
    leading(Key::DefaultTime2Retain, "DefaultTime2Retain", number(0, 3600, 20, Minimum)),
    // §13.17
    leading_normal(Key::MaxOutstandingR2T, "MaxOutstandingR2T", number(1, 65535, 1, Minimum)),
    // §13.18, §13.19
    leading_normal(Key::DataPDUInOrder, "DataPDUInOrder", Or { default: true }),
    leading_normal(Key::DataSequenceInOrder, "DataSequenceInOrder", Or { default: true }),
    // §13.20
    leading(Key::ErrorRecoveryLevel, "ErrorRecoveryLevel", number(0, 2, 0, Minimum)),
    // §13.21
    KeySpec { leading_only: true, ..row(Key::SessionType, "SessionType",
        OneOf { values: &["Normal", "Discovery"], default: "Normal" }, Senders::Initiator, Phase::Login) },
    // §13.23
    leading_normal(Key::TaskReporting, "TaskReporting",
        List { values: &["RFC3720", "ResponseFence", "FastAbort"], default: Some("RFC3720") }),
    // §13.24
    leading_normal(Key::ISCSIProtocolLevel, "iSCSIProtocolLevel", number(0, 31, 1, Minimum)),
    // §13.26
    KeySpec { leading_only: true, ..row(Key::NodeArchitecture, "X#NodeArchitecture", Text, Senders::Both, Phase::Login) },
    // §13.25
    obsolete(Key::IFMarker, "IFMarker"),
    obsolete(Key::OFMarker, "OFMarker"),
    obsolete(Key::IFMarkInt, "IFMarkInt"),
    obsolete(Key::OFMarkInt, "OFMarkInt"),
];
