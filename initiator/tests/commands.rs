//! The named commands against a scripted disk.

mod peer;

use initiator::{Error, Sense};
use iscsi_pdu::*;
use peer::{Peer, pattern, session};

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
