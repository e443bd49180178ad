//! MAINTENANCE IN: what the unit says it can do.

mod scsi_support;

use scsi_support::*;
use target_core::scsi::{LogicalUnit, Mode, TargetPort};

fn disk() -> target_core::scsi::Nexus {
    nexus(memory(2048))
}

#[test]
fn report_supported_operation_codes() {
    let disk = disk();
    let rsoc = |options: u8, opcode: u8, action: u16| {
        let [high, low] = action.to_be_bytes();
        [0xA3, 0x0C, options, opcode, high, low, 0, 0, 0xFF, 0xFF, 0, 0]
    };
    let all = good(&disk, &rsoc(0, 0, 0), &[]);
    let length = u32::from_be_bytes(all[..4].try_into().unwrap()) as usize;
    assert_eq!(length, all.len() - 4);
    let mut seen = Vec::new();
    for descriptor in all[4..].chunks_exact(8) {
        let (opcode, action) = (descriptor[0], u16::from_be_bytes([descriptor[2], descriptor[3]]));
        let (servactv, cdb_bytes) = (descriptor[5] & 1 == 1, usize::from(descriptor[7]));
        assert!(servactv || action == 0);
        let one = good(&disk, &rsoc(if servactv { 2 } else { 1 }, opcode, action), &[]);
        assert_eq!(
            (one[1], usize::from(one[3]), one.len()),
            (3, cdb_bytes, 4 + cdb_bytes),
            "{opcode:02x}"
        );
        assert_eq!(one[4], opcode);
        assert_eq!(one[3 + cdb_bytes], 0x04, "{opcode:02x}: NACA is looked at");
        if servactv {
            assert_eq!(u16::from(one[5] & 0x1F), action);
        }
        assert_eq!(good(&disk, &rsoc(3, opcode, action), &[]), one);
        assert_eq!(
            refused(&disk, &rsoc(if servactv { 1 } else { 2 }, opcode, action), &[]),
            INVALID_FIELD
        );
        let timed = good(&disk, &rsoc(0x80 | if servactv { 2 } else { 1 }, opcode, action), &[]);
        assert_eq!((timed[1], timed.len()), (0x83, one.len() + 12));
        // Every command in the list is there, every bit it does not use is refused.
        let mut cdb = one[4..].to_vec();
        let usage = cdb.clone();
        for (at, used) in usage.iter().enumerate().skip(1) {
            cdb[1..].fill(0);
            cdb[1] = if servactv { action as u8 } else { 0 };
            let Some(bit) = (0..8).find(|bit| used >> bit & 1 == 0 && !(servactv && at == 1 && *bit < 5)) else {
                continue;
            };
            cdb[at] |= 1 << bit;
            let response = run(&disk, &cdb, &[]);
            assert_eq!(sense(&response), INVALID_FIELD, "{cdb:02x?}");
            assert_eq!(response.sense[15..18], [0xC8 | bit, 0, at as u8], "{cdb:02x?}");
        }
        seen.push((opcode, action));
    }
    assert!(seen.is_sorted());
    assert!(seen.len() > 49);
    for unknown in [0x01, 0x3F, 0xFF] {
        assert_eq!(good(&disk, &rsoc(1, unknown, 0), &[]), [0, 1, 0, 0]);
    }
    assert_eq!(good(&disk, &rsoc(2, 0x9E, 0x11), &[]), [0, 1, 0, 0]);
    assert_eq!(refused(&disk, &rsoc(4, 0, 0), &[]), INVALID_FIELD);
}

fn in_12(action: u8, byte_2: u8, allocation_bytes: u32) -> [u8; 12] {
    let mut cdb = [0xA3, action, byte_2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    cdb[6..10].copy_from_slice(&allocation_bytes.to_be_bytes());
    cdb
}

#[test]
fn target_port_groups() {
    let device = device([(0, LogicalUnit::shared(memory(64), identity()))]);
    device.set_target_ports(vec![3, 0x102]);
    let nexus = device
        .attach_to(TargetPort::new("iqn.a", 3), INITIATOR, PORT, &|_| Some(Mode::ReadWrite))
        .expect("admitted");
    // Active/optimized and nothing else, group 1, two ports.
    let group = [0x00, 0x01, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 1, 2];
    let plain = [&[0, 0, 0, 16][..], &group].concat();
    assert_eq!(good(&nexus, &in_12(0x0A, 0, 255), &[]), plain);
    assert_eq!(good(&nexus, &in_12(0x0A, 0, 6), &[]), plain[..6]);
    // The extended header (SPC-5 6.37): format type 1, no transition time.
    let extended = [&[0, 0, 0, 20, 0x10, 0, 0, 0][..], &group].concat();
    assert_eq!(good(&nexus, &in_12(0x2A, 0, 255), &[]), extended);
    assert_eq!(refused(&nexus, &in_12(0x4A, 0, 255), &[]), INVALID_FIELD);
    // SET TARGET PORT GROUPS: the access states are not the initiators' to set.
    assert_eq!(refused(&nexus, &cdb_12(0xA4, 0x0A, 0, 0), &[]), INVALID_OPCODE);
}

#[test]
fn task_management_functions() {
    // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, QUERY TASK, target reset; QUERY TASK SET.
    assert_eq!(good(&disk(), &in_12(0x0D, 0, 255), &[]), [0xDE, 0x02, 0, 0]);
    let mut with_timeouts = [0; 16];
    with_timeouts[..2].copy_from_slice(&[0xDE, 0x02]);
    with_timeouts[3] = 0x0C;
    assert_eq!(good(&disk(), &in_12(0x0D, 0x80, 255), &[]), with_timeouts);
    assert_eq!(good(&disk(), &in_12(0x0D, 0, 2), &[]), [0xDE, 0x02]);
    assert_eq!(refused(&disk(), &in_12(0x0D, 0x01, 255), &[]), INVALID_FIELD);
}

#[test]
fn actions_there_are_not() {
    for action in [0x00, 0x05, 0x0B, 0x0E, 0x0F, 0x1F] {
        let response = run(&disk(), &in_12(action, 0, 255), &[]);
        assert_eq!(sense(&response), INVALID_FIELD, "{action:02x}");
        assert_eq!(response.sense[15..18], [0xCC, 0, 1], "{action:02x}");
    }
}
