//! Commands, data and task management against a scripted target.

mod peer;

use std::time::Duration;

use bytes::Bytes;
use initiator::{Command, CommandError, Error, LoginOptions, Notice, PeerError, Sense, Session, Transfer};
use iscsi_pdu::*;
use peer::{KEYS, PIPE_BYTES, Peer, options, pattern, session, session_with};
use tokio::io::DuplexStream;

const LUN: Lun = Lun([0, 3, 0, 0, 0, 0, 0, 0]);

fn write(data: &[u8]) -> Transfer {
    Transfer::Out(Bytes::copy_from_slice(data))
}

/// Keys with some replaced.
fn keys(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let kept = KEYS
        .iter()
        .filter(|(key, _)| changes.iter().all(|(changed, _)| changed != key));
    kept.chain(changes).copied().collect()
}

/// What a target breaks while the initiator carries out one command.
async fn broken(
    transfer: Transfer,
    script: impl AsyncFnOnce(&mut Peer, &ScsiCommand),
) -> (Error, Session<DuplexStream>) {
    let (mut session, mut peer) = session().await;
    let target = async {
        let (command, _) = peer.command().await;
        script(&mut peer, &command).await;
        peer
    };
    let (outcome, _peer) = tokio::join!(session.scsi(LUN, [0; 16], transfer), target);
    (outcome.expect_err("the target broke it"), session)
}

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

#[tokio::test]
async fn a_rejected_command() {
    let (error, mut session) = broken(Transfer::None, async |peer, command| {
        let reject = Reject {
            reason: RejectReason::InvalidPduField,
            stat_sn: peer.next_stat_sn(),
            exp_cmd_sn: peer.exp_cmd_sn,
            max_cmd_sn: peer.max_cmd_sn,
            data_sn: 0,
        };
        let mut header = Vec::new();
        command.emit(0, &mut header);
        peer.send(&reject, &header).await;
        // Of something that is not ours: only a notice.
        header[16] ^= 0xff;
        let reject = Reject {
            stat_sn: peer.next_stat_sn(),
            reason: RejectReason::ProtocolError,
            ..reject
        };
        peer.send(&reject, &header).await;
    })
    .await;
    assert!(
        matches!(
            error,
            Error::Command(CommandError::Rejected(RejectReason::InvalidPduField))
        ),
        "{error}"
    );
    // The peer is gone by now, but what it said last is read first.
    let ended = session.idle(Duration::from_millis(20)).await;
    assert!(matches!(ended, Err(Error::Peer(PeerError::Closed))), "{ended:?}");
    assert_eq!(session.notices(), [Notice::Rejected(RejectReason::ProtocolError)]);
}

#[tokio::test]
async fn a_target_failure_is_not_a_status() {
    let (error, _) = broken(Transfer::None, async |peer, command| {
        let response = ScsiResponse {
            response: ServiceResponse::TargetFailure,
            ..peer.scsi_response(command.itt, 0)
        };
        peer.send(&response, &[]).await;
    })
    .await;
    assert!(
        matches!(error, Error::Command(CommandError::TargetFailure(1))),
        "{error}"
    );
}

/// Each of these must be noticed, named, and end the session.
#[tokio::test]
async fn targets_that_break_the_rules_of_data() {
    async fn read(says: &str, script: impl AsyncFnOnce(&mut Peer, &ScsiCommand)) {
        check(says, broken(Transfer::In(100), script).await).await;
    }
    async fn write_8k(says: &str, script: impl AsyncFnOnce(&mut Peer, &ScsiCommand)) {
        check(says, broken(write(&pattern(8192)), script).await).await;
    }
    async fn check(says: &str, (error, mut session): (Error, Session<DuplexStream>)) {
        assert!(
            matches!(error, Error::Peer(_)) && error.to_string().contains(says),
            "{says}: {error}"
        );
        let again = session.test_unit_ready(LUN).await;
        assert!(
            matches!(again, Err(Error::Misuse("the session has ended"))),
            "{says}: {again:?}"
        );
    }
    async fn data_in(peer: &mut Peer, itt: u32, data_sn: u32, offset: u32, bytes: usize, last: bool) {
        let header = peer.data_in(itt, data_sn, offset, last);
        peer.send(&header, &pattern(bytes)).await;
    }
    read("length of Data-In is 0x65, expected 0x64", async |p, c| {
        data_in(p, c.itt, 0, 0, 101, true).await
    })
    .await;
    read("DataSN is 0x1, expected 0x0", async |p, c| {
        data_in(p, c.itt, 1, 0, 10, false).await
    })
    .await;
    read("Buffer Offset is 0x5, expected 0x0", async |p, c| {
        data_in(p, c.itt, 0, 5, 10, false).await
    })
    .await;
    read("Data-In for no command", async |p, c| {
        data_in(p, c.itt + 1, 0, 0, 10, false).await
    })
    .await;
    read("unexpected SCSI Response", async |p, c| p.good(c.itt + 1).await).await;
    read("data segment of 262145 bytes", async |p, c| {
        use tokio::io::AsyncWriteExt;
        let mut header = Vec::new();
        p.data_in(c.itt, 0, 0, false).emit(262_145, &mut header);
        p.stream.write_all(&header).await.expect("writable");
    })
    .await;
    read("StatSN is 0x3ec, expected 0x3ea", async |p, c| {
        p.stat_sn += 2;
        p.good(c.itt).await;
    })
    .await;
    read("R2T for a command that writes nothing", async |p, c| {
        let r2t = p.r2t(c.itt, 0, 0, 1);
        p.send(&r2t, &[]).await;
    })
    .await;
    for (says, sn, offset, length) in [
        ("R2TSN is 0x1", 1, 2048, 512),
        ("R2T Buffer Offset is 0x0, expected 0x800", 0, 0, 512),
        (
            "R2T Desired Data Transfer Length is 0x1001, expected 0x1000",
            0,
            2048,
            4097,
        ),
    ] {
        write_8k(says, async |p, c| {
            let r2t = p.r2t(c.itt, sn, offset, length);
            p.send(&r2t, &[]).await;
        })
        .await;
    }
    write_8k("R2T without a tag", async |p, c| {
        let r2t = R2t {
            ttt: RESERVED_TAG,
            ..p.r2t(c.itt, 0, 2048, 512)
        };
        p.send(&r2t, &[]).await;
    })
    .await;
    write_8k("Data-In for a command that reads nothing", async |p, c| {
        data_in(p, c.itt, 0, 0, 10, false).await
    })
    .await;
    // More in all than there is to write.
    write_8k(
        "R2T Desired Data Transfer Length is 0x801, expected 0x800",
        async |p, c| {
            for (sn, offset, length) in [(0, 2048, 4096), (1, 6144, 2049)] {
                let r2t = p.r2t(c.itt, sn, offset, length);
                p.send(&r2t, &[]).await;
            }
        },
    )
    .await;
    read("opcode 0x01", async |p, c| {
        let echo = c.clone();
        p.send(&echo, &[]).await;
    })
    .await;
    read("connection closed", async |p, _| {
        use tokio::io::AsyncWriteExt;
        p.stream.shutdown().await.expect("closed");
    })
    .await;
}

#[tokio::test]
async fn damaged_data_ends_the_session() {
    let options = LoginOptions {
        data_digest: true,
        ..options()
    };
    let (mut session, mut peer) = session_with(&options, &keys(&[("DataDigest", "CRC32C")]), PIPE_BYTES, 64).await;
    let target = async {
        let (command, _) = peer.command().await;
        let header = peer.data_in(command.itt, 0, 0, true);
        let mut bytes = Vec::new();
        peer.framing.pdu(&header, &pattern(100), &mut bytes);
        bytes[48 + 50] ^= 1;
        use tokio::io::AsyncWriteExt;
        peer.stream.write_all(&bytes).await.expect("writable");
    };
    let (outcome, ()) = tokio::join!(session.scsi(LUN, [0x88; 16], Transfer::In(100)), target);
    assert!(
        matches!(outcome, Err(Error::Peer(PeerError::DataDigest { .. }))),
        "{outcome:?}"
    );
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

/// A disk of 16 blocks that says unit attention once.
async fn disk(mut peer: Peer) -> Vec<u8> {
    let mut medium = vec![0; 16 * 512];
    let mut attention = true;
    while let Some((request, data)) = peer.try_recv().await {
        let Request::ScsiCommand(command) = request else {
            panic!("expected a command, got {request:?}")
        };
        if std::mem::take(&mut attention) {
            let mut sense = Vec::new();
            write_sense(&[0x72, Sense::UNIT_ATTENTION, 0x29, 0], &mut sense);
            let response = peer.scsi_response(command.itt, 2);
            peer.send(&response, &sense).await;
            continue;
        }
        let cdb = command.cdb.as_slice();
        let start = (u64::from_be_bytes(cdb[2..10].try_into().expect("8 bytes")) as usize).wrapping_mul(512);
        let length = u32::from_be_bytes(cdb[10..14].try_into().expect("4 bytes")) as usize;
        let mut reply = Vec::new();
        match cdb[0] {
            0x12 if cdb[1] == 0 => {
                assert_eq!(cdb[3..5], [0, 255]);
                reply.extend(b"\0\0\x06\x12\x1f\0\0\0farlun  VIRTUAL-DISK    0001");
            }
            0x12 => reply.extend([0, cdb[2], 0, 4, b'1', b'2', b'3', b'4']),
            0x9e => {
                assert_eq!((cdb[1], length), (0x10, 32));
                reply.extend(15_u64.to_be_bytes());
                reply.extend(512_u32.to_be_bytes());
                reply.extend([0, 3, 0xc0]);
                reply.resize(32, 0);
            }
            0xa0 => {
                assert_eq!(cdb[6..10], [0, 0, 0x20, 8]);
                reply.extend([0, 0, 0, 16, 0, 0, 0, 0]);
                reply.extend(Lun::from_number(0).0);
                reply.extend(Lun::from_number(300).0);
            }
            0x88 => reply.extend(&medium[start..start + length * 512]),
            0x8a => {
                assert_eq!((cdb[1], data.len()), (8, length * 512));
                medium[start..start + data.len()].copy_from_slice(&data);
            }
            0x91 => assert_eq!((start, length), (0, 0)),
            0x00 => {}
            other => panic!("unexpected command {other:#x}"),
        }
        if reply.is_empty() {
            peer.good(command.itt).await;
        } else {
            let header = peer.data_in(command.itt, 0, 0, true);
            peer.send(&header, &reply).await;
        }
    }
    medium
}

#[tokio::test]
async fn the_named_commands() {
    let (mut session, peer) = session().await;
    let lun = Lun::default();
    let commands = async move {
        let inquiry = session.inquiry(lun).await?;
        assert_eq!(
            (inquiry.qualifier, inquiry.device_type, inquiry.bytes.len()),
            (0, 0, 36)
        );
        let names = (
            inquiry.vendor.as_str(),
            inquiry.product.as_str(),
            inquiry.revision.as_str(),
        );
        assert_eq!(names, ("farlun", "VIRTUAL-DISK", "0001"));
        assert_eq!(&session.vpd(lun, 0x80).await?[4..], b"1234");
        let capacity = session.read_capacity16(lun).await?;
        assert_eq!(
            (capacity.blocks, capacity.block_bytes, capacity.physical_block_exponent),
            (16, 512, 3)
        );
        assert!(capacity.thin && capacity.unmapped_reads_zero && capacity.bytes() == 8192);
        assert_eq!(
            session.report_luns().await?,
            [Lun::from_number(0), Lun::from_number(300)]
        );
        session.write16(lun, 14, 512, pattern(1024), true).await?;
        session.synchronize_cache(lun).await?;
        assert_eq!(
            session.read16(lun, 13, 3, 512).await?,
            [vec![0; 512], pattern(1024)].concat()
        );
        assert_eq!(session.test_unit_ready(lun).await?.status, 0);
        let odd = session.write16(lun, 0, 512, pattern(100), false).await;
        assert!(matches!(odd, Err(Error::Misuse(_))), "{odd:?}");
        Ok::<_, Error>(())
    };
    let (commands, medium) = tokio::join!(commands, disk(peer));
    commands.expect("all good");
    assert_eq!(medium[14 * 512..], pattern(1024));
}
