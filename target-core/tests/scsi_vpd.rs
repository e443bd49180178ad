//! INQUIRY: standard data, and vital product data with the ports of the nexus in it.

mod scsi_support;

use std::sync::Arc;

use scsi_support::cached::Cached;
use scsi_support::*;
use target_core::scsi::{Device, LogicalUnit, Mode, Nexus, TargetPort};

const TARGET: &str = "iqn.2026-11.example:disks";

/// A device with these portal groups, and a nexus that came in by one of them.
fn by_port(tags: &[u16], tag: u16) -> Nexus {
    let device = device([(0, LogicalUnit::shared(memory(2048), identity()))]);
    device.set_target_ports(tags.to_vec());
    attach_by(&device, tag)
}

fn attach_by(device: &Arc<Device>, tag: u16) -> Nexus {
    device
        .attach_to(TargetPort::new(TARGET, tag), INITIATOR, PORT, &|_| {
            Some(Mode::ReadWrite)
        })
        .expect("admitted")
}

fn page(nexus: &Nexus, code: u8) -> Vec<u8> {
    let data = good(nexus, &[0x12, 1, code, 4, 0, 0], &[]);
    assert_eq!(data[..2], [0, code]);
    assert_eq!(usize::from(u16::from_be_bytes([data[2], data[3]])), data.len() - 4);
    data[4..].to_vec()
}

#[test]
fn standard_inquiry() {
    let disk = by_port(&[1], 1);
    let data = good(&disk, &[0x12, 0, 0, 0, 255, 0], &[]);
    assert_eq!(data.len(), 96);
    // SPC-4, HISUP and format 2, implicit asymmetric access, CMDQUE.
    assert_eq!(data[..8], [0x00, 0x00, 0x06, 0x12, 91, 0x10, 0, 0x02]);
    assert_eq!(&data[8..36], b"FARLUN  DISK            0001");
    // SAM-5, SPC-4, SBC-3, iSCSI.
    assert_eq!(data[58..66], [0x00, 0xA0, 0x04, 0x60, 0x04, 0xC0, 0x09, 0x60]);
    // Cut to the allocation length, without complaint.
    assert_eq!(good(&disk, &[0x12, 0, 0, 0, 5, 0], &[]), data[..5]);
    assert_eq!(good(&disk, &[0x12, 0, 0, 0, 0, 0], &[]), NOTHING);
    assert_eq!(good(&disk, &[0x12, 0, 0, 1, 0, 0], &[]), data);
    // MULTIP where there are several ports.
    assert_eq!(good(&by_port(&[1, 2], 2), &[0x12, 0, 0, 0, 8, 0], &[])[6], 0x10);
}

#[test]
fn inquiry_refuses_what_it_does_not_know() {
    assert_eq!(
        refused(&by_port(&[1], 1), &[0x12, 0, 0x80, 0, 255, 0], &[]),
        INVALID_FIELD
    );
    assert_eq!(
        refused(&by_port(&[1], 1), &[0x12, 1, 0xC0, 0, 255, 0], &[]),
        INVALID_FIELD
    );
    assert_eq!(refused(&by_port(&[1], 1), &[0x12, 2, 0, 0, 255, 0], &[]), INVALID_FIELD);
}

#[test]
fn every_page_that_is_listed_is_there() {
    let disk = by_port(&[1], 1);
    let listed = page(&disk, 0x00);
    assert_eq!(listed, [0x00, 0x80, 0x83, 0x86, 0x87, 0x88, 0xB0, 0xB1, 0xB2]);
    for code in 0..=0xFF {
        let response = run(&disk, &[0x12, 1, code, 1, 0, 0], &[]);
        assert_eq!(
            response.status == target_core::scsi::Status::Good,
            listed.contains(&code),
            "{code:02x}"
        );
    }
    assert_eq!(page(&disk, 0x80), b"serial-0001");
    assert_eq!(page(&disk, 0xB1)[..2], [0, 1]);
    // Everything is one shared copy that affects no other LUN.
    assert_eq!(page(&disk, 0x87), [0x3F, 0xFF, 0, 0]);
}

#[test]
fn who_the_unit_is_and_by_which_port() {
    let mut expected = vec![0x01, 0x03, 0x00, 0x08];
    // The name under which initiators know the disk: it may never change.
    expected.extend_from_slice(&[0x35, 0x79, 0x57, 0xAE, 0x21, 0xE7, 0x05, 0xBF]);
    expected.extend_from_slice(b"\x02\x01\x00\x23FARLUN  DISK            serial-0001");
    // Of the port: relative identifier, group, SCSI name; of the target: its name. All with protocol 5, iSCSI.
    expected.extend_from_slice(&[0x51, 0x94, 0, 4, 0, 0, 0, 0x1A]);
    expected.extend_from_slice(&[0x51, 0x95, 0, 4, 0, 0, 0, 1]);
    expected.extend_from_slice(b"\x53\x98\x00\x24iqn.2026-11.example:disks,t,0x001a\0\0");
    expected.extend_from_slice(b"\x53\xA8\x00\x1Ciqn.2026-11.example:disks\0\0\0");
    assert_eq!(page(&by_port(&[1, 0x1A], 0x1A), 0x83), expected);
}

#[test]
fn a_name_of_greatest_length_fits() {
    let name = format!("iqn.2026-11.example:{}", "x".repeat(223 - 20));
    let device = device([(0, LogicalUnit::shared(memory(64), identity()))]);
    let nexus = device
        .attach_to(TargetPort::new(&name, 0xFFFF), INITIATOR, PORT, &|_| {
            Some(Mode::ReadWrite)
        })
        .expect("admitted");
    let identification = page(&nexus, 0x83);
    let mut at = 0;
    let mut names = Vec::new();
    while at < identification.len() {
        let length = usize::from(identification[at + 3]);
        if identification[at + 1] & 0x0F == 8 {
            names.push(identification[at + 4..at + 4 + length].to_vec());
        }
        at += 4 + length;
    }
    let padded = |text: String| {
        let mut bytes = text.into_bytes();
        bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
        bytes
    };
    assert_eq!(names, [padded(format!("{name},t,0xffff")), padded(name)]);
}

#[test]
fn scsi_ports() {
    let mut expected = Vec::new();
    for tag in [1_u8, 7] {
        // Number, no initiator port, one descriptor of the target port.
        expected.extend_from_slice(&[0, 0, 0, tag, 0, 0, 0, 0, 0, 0, 0, 0x28, 0x53, 0x98, 0, 0x24]);
        expected.extend_from_slice(format!("iqn.2026-11.example:disks,t,{tag:#06x}\0\0").as_bytes());
    }
    assert_eq!(page(&by_port(&[7, 1], 7), 0x88), expected);
    assert_eq!(
        page(&by_port(&[], 7), 0x88)[3],
        7,
        "the port it came by is there in any case"
    );
}

#[test]
fn extended_inquiry_data() {
    let through = page(&by_port(&[1], 1), 0x86);
    let mut expected = [0; 60];
    // HEADSUP, ORDSUP, SIMPSUP; the longest sense data.
    expected[1] = 0x07;
    expected[9] = 28;
    assert_eq!(through, expected);
    // V_SUP.
    expected[2] = 0x01;
    assert_eq!(page(&nexus(Cached::new(64)), 0x86), expected);
}

#[test]
fn provisioning() {
    assert_eq!(page(&by_port(&[1], 1), 0xB2)[1..], [0xC4, 0x02, 0]);
}
