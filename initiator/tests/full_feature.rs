//! Commands, data and task management against a scripted target.

mod peer;

use std::time::Duration;

use bytes::Bytes;
use initiator::{Command, CommandError, Error, LoginOptions, Notice, PeerError, Transfer};
use iscsi_pdu::*;
use peer::{KEYS, PIPE_BYTES, keys, options, pattern, session, session_with, write};

const LUN: Lun = Lun([0, 3, 0, 0, 0, 0, 0, 0]);

/// 1024 immediate, 1024 unsolicited, then bursts of at most 4096 in segments of at most 1024.
#[tokio::test]
async fn a_long_write_goes_by_the_keys() {
    let options = LoginOptions {
        header_digest: true,
        data_digest: true,
        ..options()
    };
    let keys = keys(&[("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C")]);
    let (mut session, mut peer) = session_with(&options, &keys, 777, 64).await;
    let data = pattern(10_001);
    let target = async {
        let (command, mut medium) = peer.command().await;
        assert_eq!(
            (command.write, command.read, command.final_bit, command.lun),
            (true, false, false, LUN)
        );
        assert_eq!((command.expected_data_transfer_length, medium.len()), (10_001, 1024));
        let (unsolicited, segment) = peer.data_out().await;
        assert_eq!(
            (unsolicited.ttt, unsolicited.final_bit, unsolicited.data_sn),
            (RESERVED_TAG, true, 0)
        );
        assert_eq!(
            (unsolicited.buffer_offset, segment.len(), unsolicited.itt),
            (1024, 1024, command.itt)
        );
        medium.extend(segment);
        for (r2t_sn, length) in [(0, 4096), (1, 3000), (2, 857)] {
            let start = medium.len();
            let r2t = R2t {
                lun: LUN,
                ..peer.r2t(command.itt, r2t_sn, start as u32, length)
            };
            peer.send(&r2t, &[]).await;
            let mut data_sn = 0;
            while medium.len() < start + length as usize {
                let (header, segment) = peer.data_out().await;
                assert_eq!((header.ttt, header.lun, header.data_sn), (r2t.ttt, LUN, data_sn));
                assert_eq!(header.buffer_offset as usize, medium.len());
                medium.extend(&segment);
                assert_eq!(header.final_bit, medium.len() == start + length as usize);
                assert!(segment.len() == 1024 || header.final_bit);
                data_sn += 1;
            }
        }
        peer.good(command.itt).await;
        medium
    };
    let (outcome, medium) = tokio::join!(session.scsi(LUN, [0x8a; 16], write(&data)), target);
    let outcome = outcome.expect("written");
    assert_eq!(
        (outcome.status, outcome.sense, outcome.residual),
        (0, None, Residual::None)
    );
    assert_eq!(medium, data);
}

#[tokio::test]
async fn writes_that_wait_for_an_r2t() {
    for (immediate_data, first) in [("Yes", 1024), ("No", 0)] {
        let keys = keys(&[("InitialR2T", "Yes"), ("ImmediateData", immediate_data)]);
        let (mut session, mut peer) = session_with(&options(), &keys, PIPE_BYTES, 64).await;
        let data = pattern(2000);
        let target = async {
            let (command, mut medium) = peer.command().await;
            assert_eq!((command.final_bit, medium.len()), (true, first));
            let rest = 2000 - first as u32;
            let r2t = peer.r2t(command.itt, 0, first as u32, rest);
            peer.send(&r2t, &[]).await;
            while medium.len() < 2000 {
                medium.extend(peer.data_out().await.1);
            }
            peer.good(command.itt).await;
            medium
        };
        let (outcome, medium) = tokio::join!(session.scsi(LUN, [0x8a; 16], write(&data)), target);
        outcome.expect("written");
        assert_eq!(medium, data);
    }
}

#[tokio::test]
async fn a_short_write_is_one_pdu() {
    let (mut session, mut peer) = session().await;
    let target = async {
        let (command, data) = peer.command().await;
        assert_eq!((command.final_bit, data), (true, pattern(512)));
        peer.good(command.itt).await;
    };
    let data = pattern(512);
    let (outcome, ()) = tokio::join!(session.scsi(LUN, [0x8a; 16], write(&data)), target);
    outcome.expect("written");
}

#[tokio::test]
async fn reads_with_collapsed_and_with_separate_status() {
    let (mut session, mut peer) = session().await;
    let data = pattern(3000);
    let target = async {
        let (command, _) = peer.command().await;
        assert_eq!((command.read, command.write, command.final_bit), (true, false, true));
        assert_eq!(command.expected_data_transfer_length, 3000);
        for (data_sn, chunk) in pattern(3000).chunks(1000).enumerate() {
            let header = peer.data_in(command.itt, data_sn as u32, data_sn as u32 * 1000, data_sn == 2);
            peer.send(&header, chunk).await;
        }
        // The second: fewer bytes than expected, and a response of its own.
        let (command, _) = peer.command().await;
        assert_eq!(command.exp_stat_sn, peer.stat_sn);
        let header = DataIn {
            final_bit: true,
            ..peer.data_in(command.itt, 0, 0, false)
        };
        peer.send(&header, &pattern(36)).await;
        let response = ScsiResponse {
            residual: Residual::Underflow(219),
            ..peer.scsi_response(command.itt, 0)
        };
        peer.send(&response, &[]).await;
        // The third: CHECK CONDITION with sense.
        let (command, _) = peer.command().await;
        let mut sense = Vec::new();
        write_sense(
            &[0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0],
            &mut sense,
        );
        let response = peer.scsi_response(command.itt, 2);
        peer.send(&response, &sense).await;
    };
    let reads = async {
        let first = session.scsi(LUN, [0x88; 16], Transfer::In(3000)).await.expect("read");
        let second = session.scsi(LUN, [0x12; 16], Transfer::In(255)).await.expect("read");
        let third = session
            .scsi(LUN, [0xff; 16], Transfer::In(255))
            .await
            .expect("answered");
        (first, second, third)
    };
    let ((first, second, third), ()) = tokio::join!(reads, target);
    assert_eq!((first.data, first.residual), (Bytes::from(data), Residual::None));
    assert_eq!((second.data.len(), second.residual), (36, Residual::Underflow(219)));
    assert_eq!(
        (third.status, third.sense.as_ref().map(|sense| sense.key)),
        (2, Some(5))
    );
    let error = third.good("INQUIRY").expect_err("CHECK CONDITION");
    assert_eq!(
        error.to_string(),
        "INQUIRY: CHECK CONDITION (0x02), ILLEGAL REQUEST 20/00"
    );
}

/// 32 commands taken on, 4 in the window at a time, answered in another order.
#[tokio::test]
async fn depth_within_the_window() {
    let (mut session, mut peer) = session_with(&options(), KEYS, PIPE_BYTES, 4).await;
    let tags: Vec<_> = (0..32)
        .map(|n| {
            session
                .submit(Command::new(LUN, [n; 16], Transfer::In(1)))
                .expect("taken on")
        })
        .collect();
    assert_eq!(session.in_flight(), 32);
    let target = async {
        for _ in 0..8 {
            let mut batch = Vec::new();
            for _ in 0..4 {
                batch.push(peer.command().await.0);
            }
            let more = tokio::time::timeout(Duration::from_millis(5), peer.recv()).await;
            assert!(more.is_err(), "beyond the window: {more:?}");
            for (n, command) in batch.iter().rev().enumerate() {
                // The window opens with the batch's last answer only.
                if n == 3 {
                    peer.max_cmd_sn += 4;
                }
                let header = peer.data_in(command.itt, 0, 0, true);
                peer.send(&header, &command.cdb.as_slice()[..1]).await;
            }
        }
    };
    let answers = async {
        let mut ended = Vec::new();
        for _ in 0..32 {
            let completion = session.next_completion().await.expect("a completion");
            let data = completion.result.expect("good").data;
            assert_eq!(completion.tag, tags[usize::from(data[0])]);
            ended.push(data[0]);
        }
        ended
    };
    let (ended, ()) = tokio::join!(answers, target);
    assert_eq!(ended[..8], [3, 2, 1, 0, 7, 6, 5, 4]);
    assert_eq!(session.in_flight(), 0);
}

/// A target that writes all it has before it reads, over a pipe much smaller than either side's data.
#[tokio::test]
async fn both_sides_writing_do_not_lock_up() {
    let keys = keys(&[("FirstBurstLength", "262144"), ("MaxBurstLength", "262144")]);
    let (mut session, mut peer) = session_with(&options(), &keys, 1000, 64).await;
    let data = pattern(200_000);
    let read = session
        .submit(Command::new(LUN, [0x88; 16], Transfer::In(200_000)))
        .expect("taken on");
    let write = session
        .submit(Command::new(LUN, [0x8a; 16], write(&data)))
        .expect("taken on");
    let target = async {
        let (command, _) = peer.command().await;
        for (data_sn, chunk) in pattern(200_000).chunks(8000).enumerate() {
            let header = peer.data_in(command.itt, data_sn as u32, data_sn as u32 * 8000, data_sn == 24);
            peer.send(&header, chunk).await;
        }
        let (command, mut medium) = peer.command().await;
        while medium.len() < 200_000 {
            medium.extend(peer.data_out().await.1);
        }
        peer.good(command.itt).await;
        medium
    };
    let answers = async {
        let first = session.next_completion().await.expect("a completion");
        let second = session.next_completion().await.expect("a completion");
        assert_eq!((first.tag, second.tag), (read, write));
        first.result.expect("good").data
    };
    let (read, written) = tokio::join!(answers, target);
    assert_eq!(read, data);
    assert_eq!(written, data);
}

#[tokio::test]
async fn pings_both_ways() {
    let (mut session, mut peer) = session().await;
    let target = async {
        let (Request::NopOut(ping), data) = peer.recv().await else {
            panic!("expected a NOP-Out")
        };
        assert!(ping.immediate && ping.ttt == RESERVED_TAG && data == b"ping");
        // Ours first, then one that wants no answer, then the echo.
        let ours = NopIn {
            lun: LUN,
            ..peer.nop_in(RESERVED_TAG, 0x99)
        };
        peer.send(&ours, &[]).await;
        let silent = peer.nop_in(RESERVED_TAG, RESERVED_TAG);
        peer.send(&silent, &[]).await;
        let echo = peer.nop_in(ping.itt, RESERVED_TAG);
        peer.send(&echo, &data).await;
        let (Request::NopOut(answer), data) = peer.recv().await else {
            panic!("expected a NOP-Out")
        };
        assert_eq!(
            (answer.itt, answer.ttt, answer.lun, data.len()),
            (RESERVED_TAG, 0x99, LUN, 0)
        );
        peer
    };
    let pings = async {
        let time = session.nop("ping").await.expect("an echo");
        assert!(time < Duration::from_secs(5));
        // The answer to the target's ping leaves while we wait for anything.
        session.idle(Duration::from_millis(20)).await.expect("alive");
        session.notices()
    };
    let (notices, mut peer) = tokio::join!(pings, target);
    assert_eq!(notices, [Notice::PingAnswered, Notice::Ping]);
    assert_eq!(session.notices(), []);

    let target = async {
        let (Request::NopOut(ping), _) = peer.recv().await else {
            panic!("expected a NOP-Out")
        };
        let echo = peer.nop_in(ping.itt, RESERVED_TAG);
        peer.send(&echo, b"pong").await;
    };
    let (error, ()) = tokio::join!(session.nop("ping"), target);
    assert!(
        matches!(error, Err(Error::Peer(PeerError::Unexpected { what: "ping data" }))),
        "{error:?}"
    );
    assert!(matches!(
        session.nop("ping").await,
        Err(Error::Misuse("the session has ended"))
    ));
}

#[tokio::test]
async fn aborted_commands_end_as_such() {
    let (mut session, mut peer) = session().await;
    let mut submit = |lun| {
        session
            .submit(Command::new(lun, [0; 16], Transfer::None))
            .expect("taken on")
    };
    let (first, second, other, third) = (submit(LUN), submit(LUN), submit(Lun::default()), submit(LUN));
    let target = async {
        for _ in 0..4 {
            peer.command().await;
        }
        for (function, response) in [
            (TaskFunction::AbortTask, TaskOutcome::Complete),
            (TaskFunction::AbortTask, TaskOutcome::NoSuchTask),
            (TaskFunction::LogicalUnitReset, TaskOutcome::Complete),
        ] {
            let (Request::TaskManagement(request), _) = peer.recv().await else {
                panic!("expected a TMF")
            };
            assert_eq!((request.function, request.lun), (function, LUN));
            let expected = if function == TaskFunction::AbortTask {
                first.0
            } else {
                RESERVED_TAG
            };
            assert_eq!(request.referenced_task_tag, expected);
            if response == TaskOutcome::Complete && function == TaskFunction::AbortTask {
                assert_eq!(request.ref_cmd_sn, Serial(1));
            }
            let response = TaskManagementResponse {
                response,
                itt: request.itt,
                stat_sn: peer.next_stat_sn(),
                exp_cmd_sn: peer.exp_cmd_sn,
                max_cmd_sn: peer.max_cmd_sn,
            };
            peer.send(&response, &[]).await;
        }
        peer.good(other.0).await;
    };
    let aborts = async {
        let outcome = session.task_management(TaskFunction::AbortTask, LUN, Some(first)).await;
        assert_eq!(outcome.expect("answered"), TaskOutcome::Complete);
        let outcome = session.task_management(TaskFunction::AbortTask, LUN, Some(first)).await;
        assert_eq!(outcome.expect("answered"), TaskOutcome::NoSuchTask);
        let outcome = session.task_management(TaskFunction::LogicalUnitReset, LUN, None).await;
        assert_eq!(outcome.expect("answered"), TaskOutcome::Complete);
        let mut aborted = Vec::new();
        for _ in 0..3 {
            let completion = session.next_completion().await.expect("a completion");
            assert_eq!(completion.result, Err(CommandError::Aborted));
            aborted.push(completion.tag);
        }
        aborted.sort_by_key(|tag| tag.0);
        assert_eq!(aborted, [first, second, third]);
        let last = session.next_completion().await.expect("a completion");
        assert_eq!((last.tag, last.result.is_ok()), (other, true));
    };
    tokio::join!(aborts, target);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer() {
    let (mut session, mut peer) = session().await;
    session.set_timeout_ms(1234);
    let error = session.test_unit_ready(LUN).await.expect_err("silence");
    assert!(matches!(error, Error::Timeout { timeout_ms: 1234, .. }), "{error}");
    // That alone does not end the session; and nobody is told when the answer comes after all.
    assert_eq!(session.in_flight(), 1);
    let (late, _) = peer.command().await;
    peer.good(late.itt).await;
    let target = async {
        let (command, _) = peer.command().await;
        assert_ne!(command.itt, late.itt);
        peer.good(command.itt).await;
    };
    let (outcome, ()) = tokio::join!(session.test_unit_ready(LUN), target);
    assert_eq!(outcome.expect("answered").status, 0);
    assert_eq!(session.in_flight(), 0);
}
