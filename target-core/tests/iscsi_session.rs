//! The life of a session: silence, slow lines, discovery, logout.

mod support;

use iscsi_pdu::{
    LogoutOutcome, LogoutReason, LogoutRequest, Lun, RESERVED_TAG, RejectReason, Response, Serial, TextRequest,
};
use support::answers::{r2t, reject_reason};
use support::{Direction, INITIATOR, TARGET, Wire, login_request, node, pairs, read10, text, write10};
use target_core::iscsi::{Ended, Limits, Node};

#[test]
fn silence_is_asked_about_and_then_ended() {
    let limits = Limits::default();
    let patience_ms = limits.idle_ping_ms;
    let mut wire = Wire::logged_in(&node(limits), &[]);
    wire.sleep_ms(patience_ms + 1);
    let (Response::NopIn(ping), _) = wire.next() else {
        panic!("expected a NOP-In")
    };
    assert!(
        ping.itt == RESERVED_TAG && ping.ttt != RESERVED_TAG,
        "one that asks for an answer"
    );
    let pong = iscsi_pdu::NopOut {
        immediate: true,
        lun: ping.lun,
        itt: RESERVED_TAG,
        ttt: ping.ttt,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
    };
    wire.send(&pong, &[]);
    assert!(wire.answers.is_empty());
    wire.sleep_ms(patience_ms - 1);
    assert!(wire.answers.is_empty() && wire.connection.ended().is_none());
    wire.sleep_ms(2 * patience_ms + 2);
    assert_eq!(wire.connection.ended(), Some(Ended::Silent));
}

#[test]
fn a_long_upload_is_told_that_the_line_works() {
    let limits = Limits::default();
    let every_ms = limits.upload_ping_ms;
    let mut wire = Wire::logged_in(&node(limits), &[("ImmediateData", "No")]);
    let command = wire.command(&write10(0, 200), Direction::Write, 102_400);
    wire.send(&command, &[]);
    let ttt = r2t(wire.next()).ttt;
    // 100 kB at 10 kB/s, in small pieces: ten seconds in which the target has nothing to answer.
    let mut bytes = Vec::new();
    let pdu = iscsi_pdu::DataOut {
        final_bit: true,
        lun: Lun::default(),
        itt: command.itt,
        ttt,
        exp_stat_sn: Serial(0),
        data_sn: 0,
        buffer_offset: 0,
    };
    wire.framing.pdu(&pdu, &[5; 102_400], &mut bytes);
    let mut nops = 0;
    for piece in bytes.chunks(1024) {
        wire.send_bytes(piece);
        wire.sleep_ms(100);
        for (response, _) in wire.answers.drain(..) {
            match response {
                Response::NopIn(nop) => {
                    assert_eq!((nop.itt, nop.ttt), (RESERVED_TAG, RESERVED_TAG), "it asks for nothing");
                    nops += 1;
                }
                Response::ScsiResponse(response) => assert_eq!(response.status, 0),
                other => panic!("{other:?}"),
            }
        }
    }
    let expected = 10_000 / every_ms;
    assert!(
        (expected - 1..=expected).contains(&nops),
        "{nops} NOP-Ins in ten seconds"
    );
}

#[test]
fn logout_ends_the_session_after_its_answer() {
    for (reason, cid, expected) in [
        (LogoutReason::CloseSession, 1, LogoutOutcome::Closed),
        (LogoutReason::CloseSession, 2, LogoutOutcome::Closed),
        (LogoutReason::CloseConnection, 1, LogoutOutcome::Closed),
        (LogoutReason::CloseConnection, 2, LogoutOutcome::CidNotFound),
        (
            LogoutReason::RemoveConnectionForRecovery,
            1,
            LogoutOutcome::RecoveryNotSupported,
        ),
    ] {
        let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
        let request = LogoutRequest {
            immediate: true,
            reason,
            itt: 77,
            cid,
            cmd_sn: wire.cmd_sn,
            exp_stat_sn: Serial(0),
        };
        wire.send(&request, &[]);
        let (Response::Logout(response), _) = wire.next() else {
            panic!("expected a logout response")
        };
        assert_eq!(response.response, expected);
        let ended = wire.connection.ended();
        assert_eq!(ended.is_some(), expected == LogoutOutcome::Closed, "{reason:?}");
    }
}

/// A discovery session on `node` that takes segments of `segment` bytes.
fn discovery(node: &std::sync::Arc<Node>, segment: &str) -> Wire {
    let mut wire = Wire::new(node);
    let keys = [
        ("InitiatorName", INITIATOR),
        ("SessionType", "Discovery"),
        ("MaxRecvDataSegmentLength", segment),
    ];
    assert!(wire.login(&login_request(), &text(&keys)).0.transit);
    wire
}

/// Asks for targets, and for the rest until the answer is whole.
fn send_targets(wire: &mut Wire, which: &str) -> (Vec<(String, String)>, usize) {
    let mut request = TextRequest {
        immediate: true,
        final_bit: true,
        continue_: false,
        lun: Lun::default(),
        itt: 5,
        ttt: RESERVED_TAG,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
    };
    let mut whole = Vec::new();
    wire.send(&request, &text(&[("SendTargets", which)]));
    for pdus in 1.. {
        let (Response::Text(response), data) = wire.next() else {
            panic!("expected a text response")
        };
        whole.extend(data);
        if response.final_bit {
            return (pairs(&whole), pdus);
        }
        assert!(response.continue_);
        request.ttt = response.ttt;
        wire.send(&request, &[]);
    }
    unreachable!()
}

#[test]
fn targets_are_told_to_those_who_ask() {
    let node = node(Limits::default());
    let own = [("TargetName", TARGET), ("TargetAddress", "192.0.2.1:3260,1")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
    let reject = vec![("SendTargets".to_owned(), "Reject".to_owned())];
    let mut finder = discovery(&node, "8192");
    assert_eq!(send_targets(&mut finder, "All").0, own);
    assert_eq!(send_targets(&mut finder, TARGET).0, own);
    assert_eq!(send_targets(&mut finder, "iqn.2026-11.net.farlun:none").0, []);
    assert_eq!(
        send_targets(&mut finder, "").0,
        reject,
        "there is no target it is logged in to"
    );
    let command = finder.command(&[0; 6], Direction::None, 0);
    finder.send(&command, &[]);
    assert_eq!(reject_reason(finder.next()), RejectReason::CommandNotSupported);

    let mut user = Wire::logged_in(&node, &[]);
    assert_eq!(send_targets(&mut user, "").0, own);
    assert_eq!(send_targets(&mut user, TARGET).0, own);
    assert_eq!(send_targets(&mut user, "All").0, reject);
}

#[test]
fn a_long_list_of_targets_comes_in_pieces() {
    use std::collections::BTreeMap;
    use target_core::{iscsi::Target, scsi::Device};
    let name = |n: usize| format!("iqn.2026-11.net.farlun:target-{n:03}");
    let targets = (0..100).map(|n| Target::new(&name(n), None, Device::new(BTreeMap::new())));
    let mut wire = discovery(&Node::new(Limits::default(), targets), "512");
    let (answer, pdus) = send_targets(&mut wire, "All");
    let names: Vec<&str> = answer
        .iter()
        .filter(|(key, _)| key == "TargetName")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(names, (0..100).map(name).collect::<Vec<_>>());
    assert!(pdus > 10, "512 bytes at a time: {pdus} PDUs");
}

/// RFC 7143 §11.11.1: an answer with F set to a request without it would be a protocol error.
#[test]
fn a_negotiation_that_goes_on_has_its_end_with_the_initiator() {
    for segment in ["8192", "512"] {
        let node = node(Limits::default());
        let mut wire = discovery(&node, segment);
        let mut request = TextRequest {
            immediate: true,
            final_bit: false,
            continue_: false,
            lun: Lun::default(),
            itt: 5,
            ttt: RESERVED_TAG,
            cmd_sn: wire.cmd_sn,
            exp_stat_sn: Serial(0),
        };
        let unknown = "y".repeat(500);
        let steps = [
            (false, vec![("SendTargets", TARGET), ("X-first", &unknown)], 3),
            (false, vec![("X-second", "?")], 1),
            (true, vec![], 0),
        ];
        for (last, said, told) in steps {
            request.final_bit = last;
            wire.send(&request, &text(&said));
            let mut whole = Vec::new();
            loop {
                let (Response::Text(response), data) = wire.next() else {
                    panic!("expected a text response")
                };
                whole.extend(data);
                assert_eq!(response.final_bit, last && !response.continue_);
                assert_eq!(response.ttt == RESERVED_TAG, response.final_bit);
                request.ttt = response.ttt;
                if !response.continue_ {
                    break;
                }
                wire.send(&request, &[]);
            }
            assert_eq!(pairs(&whole).len(), told, "{whole:?}");
        }
        // It is over: the tag means nothing any more.
        wire.assert_alive();
    }
}

#[test]
fn a_peer_that_asks_without_listening_is_not_read_for_ever() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
    let nop = iscsi_pdu::NopOut {
        immediate: true,
        lun: Lun::default(),
        itt: 9,
        ttt: RESERVED_TAG,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
    };
    let mut bytes = Vec::new();
    wire.framing.pdu(&nop, &[0; 8192], &mut bytes);
    // The transmit queue is never emptied here: the initiator does not take what it asked for.
    for _ in 0..10_000 {
        if !wire.connection.wants_input() {
            break;
        }
        wire.connection.receive(wire.now, &mut bytes.as_slice());
    }
    assert!(!wire.connection.wants_input());
    assert!(wire.connection.transmit().queued_bytes() < 9 * 1024 * 1024);
}

#[test]
fn an_initiator_that_only_reads_on_a_slow_line_is_alive() {
    let limits = Limits::default();
    let patience_ms = limits.idle_ping_ms;
    let mut wire = Wire::logged_in(&node(limits), &[]);
    let command = wire.command(&read10(0, 2048), Direction::Read, 1 << 20);
    let mut bytes = Vec::new();
    wire.framing.pdu(&command, &[], &mut bytes);
    wire.connection.receive(wire.now, &mut bytes.as_slice());
    let job = wire.connection.next_job().expect("the read");
    wire.run(job);
    // 1 MiB at 4 KiB in 10 s: the line is busy for three quarters of an hour.
    while !wire.connection.transmit().is_empty() {
        let part = wire.connection.transmit().queued_bytes().min(4096);
        wire.connection.sent(wire.now, part);
        wire.now += std::time::Duration::from_millis(patience_ms / 3);
        if wire.connection.next_timeout() <= wire.now {
            wire.connection.timeout(wire.now);
        }
        assert_eq!(wire.connection.ended(), None);
    }
}

#[test]
fn discovery_sessions_hold_no_memory_for_data_they_cannot_send() {
    let node = node(Limits::default());
    let finders: Vec<Wire> = (0..600).map(|_| discovery(&node, "8192")).collect();
    assert_eq!(node.budget.window.used_bytes(), 0);
    Wire::logged_in(&node, &[]).assert_alive();
    drop(finders);
}
