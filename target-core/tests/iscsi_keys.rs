//! Every key of RFC 7143 §12 and §13, in every place where it can be said, and what comes of it.

mod support;

use iscsi_pdu::text::Key;
use iscsi_pdu::{Lun, RESERVED_TAG, Response, Serial, Stage, TextRequest};
use support::{INITIATOR, TARGET, Wire, login_request, node, pairs, text};
use target_core::iscsi::{Limits, SessionInfo};

/// What a key leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It is answered.
    Says(&'static str),
    /// It is taken and needs no answer.
    Taken,
    /// The login is refused (02/00).
    Refused,
}
use Outcome::{Refused, Says, Taken};

/// In the operational stage of a normal session and of a discovery, in the security stage, and in a text request of a
/// normal session.
type Row = (Key, &'static str, Outcome, Outcome, Outcome, Outcome);

const IRRELEVANT: Outcome = Says("Irrelevant");
const REJECT: Outcome = Says("Reject");

#[rustfmt::skip]
const TABLE: &[Row] = &[
    (Key::AuthMethod, "None", Refused, Refused, Says("None"), REJECT),
    (Key::ChapAlgorithm, "5", Refused, Refused, Refused, REJECT),
    (Key::ChapIdentifier, "1", Refused, Refused, Refused, REJECT),
    (Key::ChapChallenge, "0x00", Refused, Refused, Refused, REJECT),
    (Key::ChapName, "alice", Refused, Refused, Refused, REJECT),
    (Key::ChapResponse, "0x00", Refused, Refused, Refused, REJECT),
    (Key::HeaderDigest, "CRC32C,None", Says("CRC32C"), Says("CRC32C"), Refused, REJECT),
    (Key::DataDigest, "None,CRC32C", Says("None"), Says("None"), Refused, REJECT),
    (Key::MaxConnections, "8", Says("1"), IRRELEVANT, Refused, REJECT),
    (Key::SendTargets, "All", Refused, Refused, Refused, REJECT),
    (Key::TargetName, TARGET, Taken, Taken, Taken, REJECT),
    (Key::InitiatorName, INITIATOR, Taken, Taken, Taken, REJECT),
    (Key::TargetAlias, "a disk", Refused, Refused, Refused, REJECT),
    (Key::InitiatorAlias, "laptop", Taken, Taken, Taken, Taken),
    (Key::TargetAddress, "192.0.2.1:3260,1", Refused, Refused, Refused, REJECT),
    (Key::TargetPortalGroupTag, "1", Refused, Refused, Refused, REJECT),
    (Key::InitialR2T, "No", Says("No"), IRRELEVANT, Refused, REJECT),
    (Key::ImmediateData, "Yes", Says("Yes"), IRRELEVANT, Refused, REJECT),
    (Key::MaxRecvDataSegmentLength, "65536", Taken, Taken, Refused, Taken),
    (Key::MaxBurstLength, "65536", Says("65536"), IRRELEVANT, Refused, REJECT),
    (Key::FirstBurstLength, "65536", Says("65536"), IRRELEVANT, Refused, REJECT),
    (Key::DefaultTime2Wait, "2", Says("2"), Says("2"), Refused, REJECT),
    (Key::DefaultTime2Retain, "20", Says("0"), Says("0"), Refused, REJECT),
    (Key::MaxOutstandingR2T, "2", Says("2"), IRRELEVANT, Refused, REJECT),
    (Key::DataPDUInOrder, "No", Says("Yes"), IRRELEVANT, Refused, REJECT),
    (Key::DataSequenceInOrder, "No", Says("Yes"), IRRELEVANT, Refused, REJECT),
    (Key::ErrorRecoveryLevel, "2", Says("0"), Says("0"), Refused, REJECT),
    (Key::SessionType, "Normal", Taken, Taken, Taken, REJECT),
    (Key::TaskReporting, "FastAbort,ResponseFence,RFC3720", Says("RFC3720"), IRRELEVANT, Refused, REJECT),
    (Key::ISCSIProtocolLevel, "3", Says("2"), IRRELEVANT, Refused, REJECT),
    (Key::NodeArchitecture, "linux", Taken, Taken, Taken, REJECT),
    (Key::IFMarker, "Yes", Says("No"), Says("No"), Refused, REJECT),
    (Key::OFMarker, "Yes", Says("No"), Says("No"), Refused, REJECT),
    (Key::IFMarkInt, "2048~8192", REJECT, REJECT, Refused, REJECT),
    (Key::OFMarkInt, "2048~8192", REJECT, REJECT, Refused, REJECT),
];

/// Says a key in a login that is otherwise good.
fn in_login(key: &str, value: &str, session_type: &str, stage: Stage) -> Outcome {
    let mut keys = vec![("InitiatorName", INITIATOR), ("SessionType", session_type)];
    if session_type == "Normal" {
        keys.push(("TargetName", TARGET));
    }
    // Names and the type are part of every login: there they are said anyway.
    keys.retain(|(name, _)| *name != key);
    keys.push((key, if key == "SessionType" { session_type } else { value }));
    let mut request = login_request();
    if stage == Stage::Security {
        (request.csg, request.nsg) = (Stage::Security, Stage::Operational);
    }
    let (response, answers) = Wire::new(&node(Limits::default())).login(&request, &text(&keys));
    if !response.status.is_success() {
        assert_eq!(response.status.code(), 0x0200, "{key}={value}");
        assert!(answers.is_empty());
        return Refused;
    }
    assert!(response.transit, "{key}={value}");
    let ours = ["TargetPortalGroupTag", "TargetAlias", "MaxRecvDataSegmentLength"];
    let mut answers = answers.into_iter().filter(|(name, _)| !ours.contains(&name.as_str()));
    let answer = answers.next();
    assert_eq!(answers.next(), None, "{key}={value}: one answer");
    said(key, answer)
}

/// Says it in the full-feature phase.
fn in_text(key: &str, value: &str) -> Outcome {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
    let request = TextRequest {
        immediate: true,
        final_bit: true,
        continue_: false,
        lun: Lun::default(),
        itt: 5,
        ttt: RESERVED_TAG,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
    };
    wire.send(&request, &text(&[(key, value)]));
    let (Response::Text(response), data) = wire.next() else {
        panic!("no answer to {key}")
    };
    assert!(response.final_bit);
    let answers = pairs(&data);
    assert!(answers.len() <= 1, "{answers:?}");
    said(key, answers.into_iter().next())
}

fn said(key: &str, answer: Option<(String, String)>) -> Outcome {
    let Some((name, value)) = answer else { return Taken };
    assert_eq!(name, key);
    Says(value.leak())
}

#[test]
fn every_key_has_its_answer_in_every_place() {
    for key in Key::all() {
        let rows = TABLE.iter().filter(|row| row.0 == key).count();
        assert_eq!(rows, 1, "{key}");
    }
    for (key, value, normal, discovery, security, text) in TABLE {
        let name = key.name();
        assert_eq!(in_login(name, value, "Normal", Stage::Operational), *normal, "{key}");
        assert_eq!(
            in_login(name, value, "Discovery", Stage::Operational),
            *discovery,
            "{key} in a discovery"
        );
        assert_eq!(
            in_login(name, value, "Normal", Stage::Security),
            *security,
            "{key} in the security stage"
        );
        assert_eq!(in_text(name, value), *text, "{key} in a text request");
    }
}

#[test]
fn keys_that_nobody_knows_are_not_understood() {
    // X- and X# names are those of vendors (RFC 7143 §13.22); a NotUnderstood is not answered with another.
    for key in [
        "X-com.example.key",
        "X#example",
        "Y-hash",
        "Z-digest",
        "maxburstlength",
        "NoSuchKey",
    ] {
        for (value, expected) in [
            ("1", Says("NotUnderstood")),
            ("", Says("NotUnderstood")),
            ("NotUnderstood", Taken),
        ] {
            assert_eq!(
                in_login(key, value, "Normal", Stage::Operational),
                expected,
                "{key}={value}"
            );
            assert_eq!(
                in_login(key, value, "Discovery", Stage::Operational),
                expected,
                "{key}={value}"
            );
            assert_eq!(
                in_login(key, value, "Normal", Stage::Security),
                expected,
                "{key}={value}"
            );
            assert_eq!(in_text(key, value), expected, "{key}={value}");
        }
    }
}

/// Logs in with these keys; what was answered, and what then holds.
fn agreed(limits: Limits, keys: &[(&str, &str)]) -> (Vec<(String, String)>, SessionInfo) {
    let node = node(limits);
    let mut wire = Wire::new(&node);
    let mut all = vec![("InitiatorName", INITIATOR), ("TargetName", TARGET)];
    all.extend_from_slice(keys);
    let (response, answers) = wire.login(&login_request(), &text(&all));
    assert!(response.transit, "{keys:?}: {response:?}");
    let mut sessions = node.target(TARGET).expect("the target").sessions();
    (answers, sessions.pop().expect("a session"))
}

#[test]
fn numbers_stay_within_what_is_promised() {
    // More than the target ever agrees to, whatever it is told.
    let generous = || Limits {
        max_recv_data_segment_bytes: u32::MAX,
        first_burst_bytes: u32::MAX,
        max_burst_bytes: u32::MAX,
        max_outstanding_r2t: u16::MAX,
        ..Limits::default()
    };
    // (offered, answered)
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)]);
    let table: &[Row<'_>] = &[
        (
            &[
                ("MaxBurstLength", "16777215"),
                ("FirstBurstLength", "16777215"),
                ("MaxOutstandingR2T", "65535"),
            ],
            &[
                ("MaxBurstLength", "16777215"),
                ("FirstBurstLength", "1048576"),
                ("MaxOutstandingR2T", "16"),
            ],
        ),
        // §13.14: FirstBurstLength is at most MaxBurstLength, whichever comes first.
        (
            &[("MaxBurstLength", "4096"), ("FirstBurstLength", "65536")],
            &[("MaxBurstLength", "4096"), ("FirstBurstLength", "4096")],
        ),
        (
            &[("FirstBurstLength", "65536"), ("MaxBurstLength", "4096")],
            &[("MaxBurstLength", "4096"), ("FirstBurstLength", "4096")],
        ),
        // and the default of MaxBurstLength is 262144.
        (&[("FirstBurstLength", "1048576")], &[("FirstBurstLength", "262144")]),
        (
            &[("MaxBurstLength", "512"), ("FirstBurstLength", "512")],
            &[("MaxBurstLength", "512"), ("FirstBurstLength", "512")],
        ),
        (&[("MaxBurstLength", "0x10000")], &[("MaxBurstLength", "65536")]),
        (
            &[
                ("MaxBurstLength", "511"),
                ("FirstBurstLength", "16777216"),
                ("MaxOutstandingR2T", "0"),
            ],
            &[
                ("MaxBurstLength", "Reject"),
                ("FirstBurstLength", "Reject"),
                ("MaxOutstandingR2T", "Reject"),
            ],
        ),
        (
            &[("DefaultTime2Wait", "3600"), ("DefaultTime2Retain", "3600")],
            &[("DefaultTime2Wait", "3600"), ("DefaultTime2Retain", "0")],
        ),
        (
            &[("DefaultTime2Wait", "3601"), ("DefaultTime2Retain", "-1")],
            &[("DefaultTime2Wait", "Reject"), ("DefaultTime2Retain", "Reject")],
        ),
        (
            &[("HeaderDigest", "X-vendor,CRC32C"), ("DataDigest", "X-vendor")],
            &[("HeaderDigest", "CRC32C"), ("DataDigest", "Reject")],
        ),
    ];
    for (offered, expected) in table {
        let (answers, _) = agreed(generous(), offered);
        for (key, value) in *expected {
            let answer = answers.iter().find(|(name, _)| name == key);
            assert_eq!(
                answer.map(|(_, value)| value.as_str()),
                Some(*value),
                "{offered:?}: {key}"
            );
        }
        let ours = answers.iter().find(|(name, _)| name == "MaxRecvDataSegmentLength");
        assert_eq!(ours.map(|(_, value)| value.as_str()), Some("1048576"));
    }
    // What is answered is what holds, and what is not mentioned has its default, cut to fit.
    let params = agreed(generous(), &[("MaxBurstLength", "4096"), ("MaxOutstandingR2T", "99")])
        .1
        .params;
    assert_eq!(
        (
            params.max_burst_bytes,
            params.first_burst_bytes,
            params.max_outstanding_r2t
        ),
        (4096, 4096, 16)
    );
    let params = agreed(Limits::default(), &[]).1.params;
    assert_eq!(
        (
            params.max_burst_bytes,
            params.first_burst_bytes,
            params.max_outstanding_r2t
        ),
        (262_144, 65_536, 1)
    );
}
