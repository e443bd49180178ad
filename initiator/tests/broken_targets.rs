//! Targets that break the rules: each must be noticed and named.

mod peer;

use std::time::Duration;

use initiator::{CommandError, Error, LoginOptions, Notice, PeerError, Session, Transfer};
use iscsi_pdu::*;
use peer::{PIPE_BYTES, Peer, keys, options, pattern, session, session_with, write};
use tokio::io::{AsyncWriteExt, DuplexStream};

const LUN: Lun = Lun([0, 3, 0, 0, 0, 0, 0, 0]);

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
        peer.stream.write_all(&bytes).await.expect("writable");
    };
    let (outcome, ()) = tokio::join!(session.scsi(LUN, [0x88; 16], Transfer::In(100)), target);
    assert!(
        matches!(outcome, Err(Error::Peer(PeerError::DataDigest { .. }))),
        "{outcome:?}"
    );
}
