//! LOG SENSE and LOG SELECT: which pages there are, and that what they count is what was done.

mod scsi_support;

use std::sync::Arc;

use scsi_support::*;
use target_core::scsi::{Device, LogicalUnit, Nexus, Status};

const LOG_PARAMETERS_CHANGED: (u8, u8, u8) = (0x6, 0x2A, 0x02);

fn shared() -> Arc<Device> {
    device([(0, LogicalUnit::shared(memory(64), identity()))])
}

fn attach(device: &Arc<Device>, name: &str) -> Nexus {
    let name = format!("iqn.2026-11.example:{name}");
    device
        .attach(&name, &format!("{name},i,0x00023d000001"))
        .expect("admitted")
}

fn log_sense(page: u8, subpage: u8, pointer: u8, length: u8) -> [u8; 10] {
    [0x4D, 0, 0x40 | page, subpage, 0, 0, pointer, 0, length, 0]
}

/// The body of a page, its header checked.
fn page(nexus: &Nexus, code: u8) -> Vec<u8> {
    let data = good(nexus, &log_sense(code, 0, 0, 255), &[]);
    assert_eq!(data[0] & 0x3F, code);
    assert_eq!(data[1], 0);
    assert_eq!(usize::from(u16::from_be_bytes([data[2], data[3]])), data.len() - 4);
    data[4..].to_vec()
}

/// Commands read and written, blocks received and sent.
fn statistics(nexus: &Nexus) -> [u64; 4] {
    let body = page(nexus, 0x19);
    // Counters, idle time, length of an interval: as many parameters as SPC-5 7.3.10 has.
    assert_eq!((&body[..4], body.len()), (&[0, 1, 0x00, 64][..], 68 + 12 + 12));
    assert_eq!(body[36..68], [0; 32], "intervals are not measured");
    assert_eq!(body[68..80], [0, 2, 0x00, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(body[80..], [0, 3, 0x03, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    std::array::from_fn(|at| u64::from_be_bytes(body[4 + 8 * at..12 + 8 * at].try_into().unwrap()))
}

#[test]
fn the_pages_there_are() {
    let disk = nexus(memory(64));
    let listed = page(&disk, 0x00);
    let with_subpages = good(&disk, &log_sense(0x00, 0xFF, 0, 255), &[]);
    assert_eq!(with_subpages[..2], [0x40, 0xFF]);
    let mut pairs = vec![0x00, 0x00, 0x00, 0xFF];
    pairs.extend(listed.iter().skip(1).flat_map(|&code| [code, 0]));
    assert_eq!(with_subpages[4..], pairs);
    for code in 0..0x40 {
        let response = run(&disk, &log_sense(code, 0, 0, 255), &[]);
        assert_eq!(response.status == Status::Good, listed.contains(&code), "{code:02x}");
        if response.status != Status::Good {
            assert_eq!(sense(&response), INVALID_FIELD, "{code:02x}");
            assert_eq!(response.sense[15..18], [0xCD, 0, 2], "{code:02x}");
        }
    }
    for code in [0x0E, 0x19, 0x2F] {
        assert!(listed.contains(&code), "{code:02x}");
        // No subpages.
        let response = run(&disk, &log_sense(code, 0xFF, 0, 255), &[]);
        assert_eq!(sense(&response), INVALID_FIELD, "{code:02x}");
        assert_eq!(response.sense[15..18], [0xCF, 0, 3], "{code:02x}");
    }
    assert_eq!(
        page(&disk, 0x2F),
        [0, 0, 0x03, 4, 0, 0, 0xFF, 0],
        "no exception, no temperature"
    );
}

#[test]
fn bits_and_pointers() {
    let disk = nexus(memory(64));
    for (what, cdb, pointer) in [
        ("SP", [0x4D, 0x01, 0x59, 0, 0, 0, 0, 0, 255, 0], [0xC8, 0, 1]),
        ("thresholds", [0x4D, 0, 0x19, 0, 0, 0, 0, 0, 255, 0], [0xCF, 0, 2]),
        (
            "default thresholds",
            [0x4D, 0, 0x99, 0, 0, 0, 0, 0, 255, 0],
            [0xCF, 0, 2],
        ),
        ("beyond the last parameter", log_sense(0x19, 0, 4, 255), [0xCF, 0, 5]),
        ("a pointer into the list", log_sense(0x00, 0, 1, 255), [0xCF, 0, 5]),
        ("LOG SELECT, SP", [0x4C, 0x03, 0, 0, 0, 0, 0, 0, 0, 0], [0xC8, 0, 1]),
        ("LOG SELECT, a list", [0x4C, 0, 0, 0, 0, 0, 0, 0, 4, 0], [0xCF, 0, 7]),
        (
            "LOG SELECT, no such page",
            [0x4C, 0x02, 0x0D, 0, 0, 0, 0, 0, 0, 0],
            [0xCD, 0, 2],
        ),
    ] {
        let response = run(&disk, &cdb, &[0; 4]);
        assert_eq!(sense(&response), INVALID_FIELD, "{what}");
        assert_eq!(response.sense[15..18], pointer, "{what}");
    }
    assert_eq!(good(&disk, &log_sense(0x19, 0, 1, 255), &[]).len(), 4 + 92);
    assert_eq!(
        good(&disk, &log_sense(0x19, 0, 3, 255), &[])[..6],
        [0x99, 0, 0, 12, 0, 3],
        "from parameter 3 on"
    );
    assert_eq!(good(&disk, &log_sense(0x19, 0, 0, 6), &[]).len(), 6);
}

#[test]
fn reads_and_writes_of_everybody_are_counted() {
    let device = shared();
    let (one, two) = (attach(&device, "one"), attach(&device, "two"));
    good(&one, &write_10(0, 3), &[1; 1536]);
    good(&one, &read_10(0, 2), &[]);
    good(&two, &cdb_16(0x88, 0, 0, 4), &[]);
    good(&two, &[0x0A, 0, 0, 1, 1, 0], &[1; 512]);
    assert_eq!(statistics(&one), [2, 2, 4, 6]);
    // What fails, and what moves no blocks, is not counted.
    refused(&one, &read_10(64, 1), &[]);
    good(&one, &[0; 6], &[]);
    // A nexus that is gone has done what it has done.
    drop(two);
    assert_eq!(statistics(&one), [2, 2, 4, 6]);
    // COMPARE AND WRITE of one block receives one to be written.
    good(&one, &[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0], &[0; 1024]);
    assert_eq!(statistics(&one), [2, 3, 5, 6]);
}

#[test]
fn counters_can_be_set_to_zero() {
    let device = shared();
    let (one, two) = (attach(&device, "one"), attach(&device, "two"));
    let stops = |nexus: &Nexus| page(nexus, 0x0E);
    good(&one, &write_10(0, 3), &[1; 1536]);
    good(&one, &[0x1B, 0, 0, 0, 0, 0], &[]);
    assert_eq!(stops(&one), [0, 4, 0x03, 4, 0, 0, 0, 1]);
    let reset = |page: u8| [0x4C, 0x02, 0x40 | page, 0, 0, 0, 0, 0, 0, 0];
    // Without PCR nothing happens.
    good(&one, &[0x4C, 0, 0x59, 0, 0, 0, 0, 0, 0, 0], &[]);
    assert_eq!(statistics(&one), [0, 1, 3, 0]);
    good(&one, &reset(0x19), &[]);
    assert_eq!(refused(&two, &[0; 6], &[]), LOG_PARAMETERS_CHANGED);
    assert_eq!((statistics(&one), stops(&one)[7]), ([0; 4], 1));
    good(&one, &write_10(0, 1), &[1; 512]);
    assert_eq!(statistics(&one), [0, 1, 1, 0]);
    good(&one, &reset(0x00), &[]);
    assert_eq!((statistics(&one), stops(&one)[7]), ([0; 4], 0));
}

#[test]
fn everybody_may_look_and_not_everybody_reset() {
    let device = shared();
    let (one, two) = (attach(&device, "one"), attach(&device, "two"));
    let mut list = [0; 24];
    list[15] = 11;
    good(&one, &[0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list);
    list.copy_within(8..16, 0);
    good(&one, &[0x5F, 1, 3, 0, 0, 0, 0, 0, 24, 0], &list);
    statistics(&two);
    let response = run(&two, &[0x4C, 0x02, 0x40, 0, 0, 0, 0, 0, 0, 0], &[]);
    assert_eq!(response.status, Status::ReservationConflict);
}
