//! The login phase: who gets in, who does not and why, and what is agreed.

mod support;

use iscsi_pdu::{Isid, LoginRequest, LoginStatus, Response, Serial, Stage};
use support::{Direction, INITIATOR, TARGET, Wire, login_request, node, node_with, text, write10};
use target_core::iscsi::{Ended, Limits, LoginError};
use target_core::lun::Wait;
use target_core::scsi::Status;

fn names() -> Vec<(&'static str, &'static str)> {
    vec![
        ("InitiatorName", INITIATOR),
        ("TargetName", TARGET),
        ("SessionType", "Normal"),
    ]
}

/// Logs in with one request and returns the status.
fn status_of(request: &LoginRequest, keys: &[(&str, &str)]) -> LoginStatus {
    let mut wire = Wire::new(&node(Limits::default()));
    wire.login(request, &text(keys)).0.status
}

#[test]
fn every_key_is_negotiated_as_the_rfc_says() {
    // (offered, our answer); None: a declaration, which is not answered.
    let table = [
        ("HeaderDigest", "CRC32C,None", Some("CRC32C")),
        ("DataDigest", "None,CRC32C", Some("None")),
        ("HeaderDigest", "X-other,None", Some("None")),
        ("HeaderDigest", "X-other", Some("Reject")),
        ("MaxConnections", "8", Some("1")),
        ("InitialR2T", "Yes", Some("Yes")),
        ("InitialR2T", "No", Some("No")),
        ("ImmediateData", "Yes", Some("Yes")),
        ("ImmediateData", "No", Some("No")),
        ("ImmediateData", "Maybe", Some("Reject")),
        ("MaxRecvDataSegmentLength", "65536", None),
        ("MaxBurstLength", "16777215", Some("16776192")),
        ("MaxBurstLength", "65536", Some("65536")),
        ("MaxBurstLength", "511", Some("Reject")),
        ("FirstBurstLength", "262144", Some("262144")),
        ("FirstBurstLength", "1048576", Some("262144")),
        ("DefaultTime2Wait", "2", Some("2")),
        ("DefaultTime2Retain", "20", Some("0")),
        ("MaxOutstandingR2T", "1", Some("1")),
        ("MaxOutstandingR2T", "65535", Some("4")),
        ("DataPDUInOrder", "No", Some("Yes")),
        ("DataSequenceInOrder", "No", Some("Yes")),
        ("ErrorRecoveryLevel", "2", Some("0")),
        ("ErrorRecoveryLevel", "3", Some("Reject")),
        ("TaskReporting", "FastAbort,RFC3720", Some("RFC3720")),
        ("iSCSIProtocolLevel", "3", Some("2")),
        ("IFMarker", "Yes", Some("No")),
        ("OFMarker", "No", Some("No")),
        ("OFMarkInt", "2048~8192", Some("Reject")),
        ("X-com.example.key", "1", Some("NotUnderstood")),
        ("NoSuchKey", "1", Some("NotUnderstood")),
        ("InitiatorAlias", "laptop", None),
    ];
    for (key, offered, expected) in table {
        let mut wire = Wire::new(&node(Limits::default()));
        let mut keys = names();
        keys.push((key, offered));
        let (response, answers) = wire.login(&login_request(), &text(&keys));
        assert!(
            response.status.is_success() && response.transit,
            "{key}={offered}: {response:?}"
        );
        let answer = answers
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str());
        // Our own declaration of the segment length is no answer to the initiator's.
        let expected = if key == "MaxRecvDataSegmentLength" {
            Some("1048576")
        } else {
            expected
        };
        assert_eq!(answer, expected, "{key}={offered}");
    }
}

#[test]
fn the_first_answer_names_the_portal_group_and_the_last_a_new_session() {
    let mut wire = Wire::new(&node(Limits::default()));
    let request = LoginRequest {
        csg: Stage::Security,
        nsg: Stage::Operational,
        ..login_request()
    };
    let mut keys = names();
    keys.push(("AuthMethod", "CHAP,None"));
    let (first, answers) = wire.login(&request, &text(&keys));
    assert_eq!(
        (first.csg, first.nsg, first.transit, first.tsih),
        (Stage::Security, Stage::Operational, true, 0)
    );
    let expected = [
        ("AuthMethod", "None"),
        ("TargetPortalGroupTag", "1"),
        ("TargetAlias", "a test"),
    ];
    assert_eq!(answers, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let (last, answers) = wire.login(&login_request(), &text(&[("MaxBurstLength", "65536")]));
    assert!(last.transit && last.tsih != 0 && last.stat_sn == first.stat_sn + 1);
    assert_eq!(
        last.exp_cmd_sn,
        Serial(100),
        "a login is immediate: its CmdSN is the first command's"
    );
    assert_eq!(last.max_cmd_sn, Serial(100 + 31), "the window is open");
    assert!(
        !answers.iter().any(|(key, _)| key == "TargetPortalGroupTag"),
        "said once"
    );
    wire.assert_alive();
}

#[test]
fn refusals_say_why() {
    let operational = login_request();
    let security = LoginRequest {
        csg: Stage::Security,
        nsg: Stage::Operational,
        ..login_request()
    };
    let with = |extra: &[(&'static str, &'static str)]| [names(), extra.to_vec()].concat();
    let discovery = vec![("InitiatorName", INITIATOR), ("SessionType", "Discovery")];
    type Row = (
        &'static str,
        LoginRequest,
        Vec<(&'static str, &'static str)>,
        LoginStatus,
    );
    let table: Vec<Row> = vec![
        (
            "no initiator name",
            operational.clone(),
            vec![("TargetName", TARGET)],
            LoginStatus::MissingParameter,
        ),
        (
            "no target name",
            operational.clone(),
            vec![("InitiatorName", INITIATOR)],
            LoginStatus::MissingParameter,
        ),
        (
            "unknown target",
            operational.clone(),
            vec![
                ("InitiatorName", INITIATOR),
                ("TargetName", "iqn.2026-11.net.farlun:other"),
            ],
            LoginStatus::NotFound,
        ),
        (
            "empty name",
            operational.clone(),
            vec![("InitiatorName", ""), ("TargetName", TARGET)],
            LoginStatus::InitiatorError,
        ),
        (
            "odd session type",
            operational.clone(),
            with(&[])
                .into_iter()
                .map(|(k, v)| if k == "SessionType" { (k, "Strange") } else { (k, v) })
                .collect(),
            LoginStatus::SessionTypeNotSupported,
        ),
        (
            "version 1 only",
            LoginRequest {
                version_min: 1,
                version_max: 1,
                ..login_request()
            },
            names(),
            LoginStatus::UnsupportedVersion,
        ),
        (
            "no such session",
            LoginRequest {
                tsih: 99,
                ..login_request()
            },
            names(),
            LoginStatus::SessionDoesNotExist,
        ),
        (
            "discovery with a TSIH",
            LoginRequest {
                tsih: 99,
                ..login_request()
            },
            discovery,
            LoginStatus::SessionDoesNotExist,
        ),
        (
            "CHAP only",
            security.clone(),
            with(&[("AuthMethod", "CHAP")]),
            LoginStatus::AuthenticationFailure,
        ),
        (
            "operational key in the security stage",
            security.clone(),
            with(&[("MaxBurstLength", "65536")]),
            LoginStatus::InitiatorError,
        ),
        (
            "a target's key",
            operational.clone(),
            with(&[("TargetAddress", "192.0.2.1")]),
            LoginStatus::InitiatorError,
        ),
        (
            "SendTargets in a login",
            operational.clone(),
            with(&[("SendTargets", "All")]),
            LoginStatus::InitiatorError,
        ),
        (
            "key twice",
            operational.clone(),
            with(&[("MaxBurstLength", "65536"), ("MaxBurstLength", "65536")]),
            LoginStatus::InitiatorError,
        ),
        (
            "bad declaration",
            operational.clone(),
            with(&[("MaxRecvDataSegmentLength", "0")]),
            LoginStatus::InitiatorError,
        ),
        (
            "declaration that is no number",
            operational.clone(),
            with(&[("MaxRecvDataSegmentLength", "-1")]),
            LoginStatus::InitiatorError,
        ),
        (
            "T and C",
            LoginRequest {
                continue_: true,
                ..login_request()
            },
            names(),
            LoginStatus::InitiatorError,
        ),
        (
            "back to the same stage",
            LoginRequest {
                nsg: Stage::Operational,
                ..login_request()
            },
            names(),
            LoginStatus::InitiatorError,
        ),
        (
            "back to security",
            LoginRequest {
                nsg: Stage::Security,
                ..login_request()
            },
            names(),
            LoginStatus::InitiatorError,
        ),
        (
            "login in full feature",
            LoginRequest {
                csg: Stage::FullFeature,
                ..login_request()
            },
            names(),
            LoginStatus::InitiatorError,
        ),
    ];
    for (what, request, keys, expected) in table {
        assert_eq!(status_of(&request, &keys), expected, "{what}");
    }
}

#[test]
fn a_login_may_come_in_pieces() {
    let mut wire = Wire::new(&node(Limits::default()));
    let whole = text(&[names(), vec![("MaxBurstLength", "65536")]].concat());
    let (first, second) = whole.split_at(whole.len() / 2);
    let piece = LoginRequest {
        transit: false,
        continue_: true,
        ..login_request()
    };
    let (response, answers) = wire.login(&piece, first);
    assert!(response.status.is_success() && !response.transit && answers.is_empty());
    let (response, answers) = wire.login(&login_request(), second);
    assert!(response.transit && answers.contains(&("MaxBurstLength".to_owned(), "65536".to_owned())));
    wire.assert_alive();
}

#[test]
fn what_was_said_once_holds_for_the_whole_login() {
    let stay = LoginRequest {
        transit: false,
        ..login_request()
    };
    let changes = [
        LoginRequest {
            isid: Isid([0x80, 0, 0, 0, 0, 2]),
            ..login_request()
        },
        LoginRequest {
            cid: 2,
            ..login_request()
        },
        LoginRequest {
            itt: 8,
            ..login_request()
        },
        LoginRequest {
            csg: Stage::Security,
            ..login_request()
        },
    ];
    for change in changes {
        let mut wire = Wire::new(&node(Limits::default()));
        assert!(wire.login(&stay, &text(&names())).0.status.is_success());
        assert_eq!(
            wire.login(&change, &[]).0.status,
            LoginStatus::InitiatorError,
            "{change:?}"
        );
        assert!(matches!(
            wire.connection.ended(),
            Some(Ended::LoginRefused(LoginError::Sequence(_)))
        ));
    }
    let mut wire = Wire::new(&node(Limits::default()));
    let keys = [names(), vec![("MaxBurstLength", "65536")]].concat();
    assert!(wire.login(&stay, &text(&keys)).0.status.is_success());
    let again = wire.login(&login_request(), &text(&[("MaxBurstLength", "65536")])).0;
    assert_eq!(again.status, LoginStatus::InitiatorError, "negotiated twice");
}

#[test]
fn eight_kilobytes_of_unknown_keys_are_not_answered_with_more() {
    let mut wire = Wire::new(&node(Limits::default()));
    let many: Vec<u8> = (0..2048)
        .flat_map(|n| format!("k{n}=1\0").into_bytes())
        .take(8000)
        .collect();
    let mut data = text(&names());
    data.extend_from_slice(&many[..8000 - data.len() - 10]);
    data.push(0);
    assert_eq!(
        wire.login(&login_request(), &data).0.status,
        LoginStatus::InitiatorError
    );
    assert!(wire.bytes_out <= 48, "{} bytes for a stranger", wire.bytes_out);
}

#[test]
fn an_endless_login_ends() {
    let limits = Limits::default();
    let timeout_ms = limits.login_timeout_ms;
    let mut wire = Wire::new(&node(limits));
    wire.sleep_ms(timeout_ms - 1);
    assert_eq!(wire.connection.ended(), None);
    wire.sleep_ms(2);
    assert_eq!(wire.connection.ended(), Some(Ended::LoginTimeout));

    let mut wire = Wire::new(&node(Limits::default()));
    let stay = LoginRequest {
        transit: false,
        ..login_request()
    };
    let refused = (0..100).find(|round| {
        let data = if *round == 0 { text(&names()) } else { Vec::new() };
        !wire.login(&stay, &data).0.status.is_success()
    });
    assert_eq!(refused, Some(64), "requests without progress are counted");

    let mut wire = Wire::new(&node(Limits::default()));
    let piece = LoginRequest {
        transit: false,
        continue_: true,
        ..login_request()
    };
    let refused = (0..100).find(|_| !wire.login(&piece, &[]).0.status.is_success());
    assert_eq!(refused, Some(16), "empty pieces with the C bit are counted");
}

#[test]
fn a_lun_admits_one_initiator_name_at_a_time() {
    let node = node_with(Limits::default(), false);
    let first = Wire::logged_in(&node, &[]);
    let mut other = Wire::new(&node);
    let keys = [
        ("InitiatorName", "iqn.2026-11.net.farlun:other"),
        ("TargetName", TARGET),
    ];
    let (response, _) = other.login(&login_request(), &text(&keys));
    assert_eq!(response.status, LoginStatus::AuthorizationFailure);
    let expected = LoginError::Held {
        lun: 0,
        holder: INITIATOR.to_owned(),
    };
    assert_eq!(other.connection.ended(), Some(Ended::LoginRefused(expected)));
    // The same name comes in again by another path.
    let second = Wire::logged_in_as(&node, INITIATOR, Isid([0x80, 0, 0, 0, 0, 2]), &[]);
    drop((first, second));
    let mut other = Wire::new(&node);
    assert!(
        other.login(&login_request(), &text(&keys)).0.status.is_success(),
        "free again"
    );
}

/// Asks for a session in the place of another, which is not granted at once.
fn log_in_again(node: &std::sync::Arc<target_core::iscsi::Node>) -> Wire {
    let mut new = Wire::new(node);
    new.send(&login_request(), &text(&names()));
    new.sleep_ms(100);
    assert!(new.answers.is_empty(), "not while the old session is there");
    new
}

fn assert_logged_in(wire: &mut Wire) {
    let (response, _) = wire.next();
    assert!(matches!(response, Response::Login(login) if login.status.is_success() && login.transit));
    wire.assert_alive();
}

#[test]
fn logging_in_again_with_the_same_isid_ends_the_old_session() {
    let node = node_with(Limits::default(), false);
    let mut old = Wire::logged_in(&node, &[]);
    let mut new = log_in_again(&node);
    old.pump();
    assert!(
        matches!(old.connection.ended(), Some(Ended::Closed(_))),
        "{:?}",
        old.connection.ended()
    );
    drop(old);
    new.sleep_ms(10);
    assert_logged_in(&mut new);
    assert_eq!(node.target(TARGET).expect("the target").session_count(), 1);
}

#[test]
fn a_new_session_waits_for_the_writes_of_the_one_before() {
    let node = node_with(Limits::default(), false);
    let mut old = Wire::logged_in(&node, &[]);
    old.hold = true;
    for lba in [0, 1] {
        let command = old.command(&write10(lba, 1), Direction::Write, 512);
        old.send(&command, &[7; 512]);
    }
    let mut jobs = std::mem::take(&mut old.held);
    let running = jobs.remove(0);
    // The line breaks. One write is in the medium's hands, the other waits for a worker.
    drop(old);
    let mut new = log_in_again(&node);
    let waited = jobs.remove(0).run(Wait::Allowed).expect("may block");
    assert_eq!(waited.response.status, Status::TaskAborted, "it is not begun any more");
    drop(waited);
    new.sleep_ms(100);
    assert!(new.answers.is_empty(), "the other may still land");
    drop(running);
    new.sleep_ms(10);
    assert_logged_in(&mut new);

    // A medium that hangs for ever keeps the initiator out, rather than its data in danger.
    new.hold = true;
    let command = new.command(&write10(0, 1), Direction::Write, 512);
    new.send(&command, &[8; 512]);
    let _stuck = std::mem::take(&mut new.held);
    drop(new);
    let mut third = log_in_again(&node);
    third.sleep_ms(Limits::default().login_timeout_ms);
    assert_eq!(third.connection.ended(), Some(Ended::LoginTimeout));
}

#[test]
fn sessions_are_bounded() {
    let limits = Limits {
        sessions_per_initiator: 2,
        sessions_per_target: 3,
        ..Limits::default()
    };
    let node = node(limits);
    let isid = |n| Isid([0x80, 0, 0, 0, 0, n]);
    let _one = Wire::logged_in_as(&node, INITIATOR, isid(1), &[]);
    let _two = Wire::logged_in_as(&node, INITIATOR, isid(2), &[]);
    let refused = |name: &str, n| {
        let mut wire = Wire::new(&node);
        let keys = [("InitiatorName", name), ("TargetName", TARGET)];
        wire.login(
            &LoginRequest {
                isid: isid(n),
                ..login_request()
            },
            &text(&keys),
        )
        .0
        .status
    };
    assert_eq!(
        refused(INITIATOR, 3),
        LoginStatus::OutOfResources,
        "the third of one initiator"
    );
    let _three = Wire::logged_in_as(&node, "iqn.2026-11.net.farlun:b", isid(1), &[]);
    assert_eq!(
        refused("iqn.2026-11.net.farlun:c", 1),
        LoginStatus::OutOfResources,
        "the fourth of all"
    );
}

#[test]
fn anything_but_a_login_ends_the_connection() {
    let mut wire = Wire::new(&node(Limits::default()));
    wire.send_bytes(&b"GET / HTTP/1.1\r\nHost: example\r\nUser-Agent: scanner\r\n\r\n".repeat(10));
    assert!(wire.connection.ended().is_some());
    assert!(wire.answers.is_empty(), "a stranger learns nothing");

    let mut wire = Wire::new(&node(Limits::default()));
    let stay = LoginRequest {
        transit: false,
        ..login_request()
    };
    wire.login(&stay, &text(&names()));
    let nop = iscsi_pdu::NopOut {
        immediate: true,
        lun: iscsi_pdu::Lun::default(),
        itt: 9,
        ttt: iscsi_pdu::RESERVED_TAG,
        cmd_sn: Serial(100),
        exp_stat_sn: Serial(0),
    };
    wire.send(&nop, &[]);
    let (response, _) = wire.next();
    assert!(matches!(response, Response::Login(login) if login.status == LoginStatus::InvalidDuringLogin));
    assert_eq!(wire.connection.ended(), Some(Ended::NotALogin));
}
