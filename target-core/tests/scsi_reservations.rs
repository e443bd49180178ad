//! Who may use a unit: admission by name, RESERVE and RELEASE, persistent reservations.

mod scsi_support;

use std::sync::Arc;

use scsi_support::*;
use target_core::scsi::{Device, LogicalUnit, Nexus, Status};

const RESERVE: [u8; 6] = [0x16, 0, 0, 0, 0, 0];
const RELEASE: [u8; 6] = [0x17, 0, 0, 0, 0, 0];

fn shared() -> Arc<Device> {
    device([(0, LogicalUnit::shared(memory(64), identity()))])
}

fn attach(device: &Arc<Device>, name: &str) -> Nexus {
    let name = format!("iqn.2026-11.example:{name}");
    device
        .attach(&name, &format!("{name},i,0x00023d000001"))
        .expect("admitted")
}

fn status(nexus: &Nexus, cdb: &[u8]) -> Status {
    run(nexus, cdb, &[0; 512]).status
}

fn can_read(nexus: &Nexus) -> bool {
    matches!(
        (status(nexus, &read_10(0, 1)), status(nexus, &cdb_10(0x2F, 0, 0, 1))),
        (Status::Good, Status::Good)
    )
}

fn can_write(nexus: &Nexus) -> bool {
    matches!(
        (status(nexus, &write_10(0, 1)), status(nexus, &cdb_10(0x35, 0, 0, 1))),
        (Status::Good, Status::Good)
    )
}

#[test]
fn one_name_at_a_time() {
    let device = device([(3, LogicalUnit::new(memory(64), identity()))]);
    let lun = [0, 3, 0, 0, 0, 0, 0, 0];
    let first = attach(&device, "home");
    let second_path = attach(&device, "home");
    let refused = device.attach("iqn.2026-11.example:other", "x").unwrap_err();
    assert_eq!((refused.lun, refused.holder.as_str()), (3, "iqn.2026-11.example:home"));
    assert_eq!(
        refused.to_string(),
        "LUN 3 is in use by iqn.2026-11.example:home and not shared"
    );
    drop(first);
    assert!(
        device.attach("iqn.2026-11.example:other", "x").is_err(),
        "the second path still holds it"
    );
    drop(second_path);
    let other = attach(&device, "other");
    assert_eq!(run_at(&other, lun, &read_10(0, 1), &[]).status, Status::Good);
}

#[test]
fn a_lun_held_by_another_is_seen_but_not_used() {
    let (one, two) = (
        LogicalUnit::new(memory(64), identity()),
        LogicalUnit::new(memory(64), identity()),
    );
    let narrow = device([(0, Arc::clone(&one))]);
    let wide = device([(0, Arc::clone(&one)), (1, two)]);
    let holder = attach(&narrow, "home");
    assert_eq!(one.holder().as_deref(), Some("iqn.2026-11.example:home"));
    let other = attach(&wide, "other");
    for seen in [
        &[0x12, 0, 0, 0, 36, 0][..],
        &[0; 6],
        &cdb_10(0x25, 0, 0, 0),
        &cdb_12(0xA0, 0, 0, 64),
        &[0x03, 0, 0, 0, 18, 0],
    ] {
        assert_eq!(status(&other, seen), Status::Good, "{seen:02x?}");
    }
    for kept in [
        &read_10(0, 1)[..],
        &write_10(0, 1),
        &RESERVE,
        &[0x1A, 0, 8, 0, 36, 0],
        &cdb_10(0x35, 0, 0, 0),
    ] {
        assert_eq!(status(&other, kept), Status::ReservationConflict, "{kept:02x?}");
    }
    assert_eq!(
        run_at(&other, [0, 1, 0, 0, 0, 0, 0, 0], &read_10(0, 1), &[]).status,
        Status::Good
    );
    // A reset of the target is not one of LUNs that belong to others.
    other.reset_target();
    assert!(can_write(&holder));
    drop(holder);
    assert_eq!(
        run_at(&other, LUN0, &read_10(0, 1), &[]).status,
        Status::Good,
        "the holder has left"
    );
    assert!(
        narrow.attach("iqn.2026-11.example:home", "x").is_err(),
        "now the other holds it"
    );
}

#[test]
fn a_running_command_of_a_gone_nexus_holds_the_unit() {
    let unit = LogicalUnit::new(memory(64), identity());
    let device = device([(0, Arc::clone(&unit))]);
    let gone = attach(&device, "home");
    let late = execution(&gone, &write_10(0, 1));
    drop(gone);
    // Its write may still come: whoever wrote meanwhile would find it on top.
    let refused = device.attach("iqn.2026-11.example:other", "x").unwrap_err();
    assert_eq!((refused.lun, refused.holder.as_str()), (0, "iqn.2026-11.example:home"));
    assert_eq!(unit.holder().as_deref(), Some("iqn.2026-11.example:home"));
    drop(attach(&device, "home"));
    assert_eq!(finish(&late, &[1; 512]).status, Status::Good);
    assert!(device.attach("iqn.2026-11.example:other", "x").is_err());
    drop(late);
    assert_eq!(unit.holder(), None);
    assert!(can_write(&attach(&device, "other")));
}

#[test]
fn reserve_and_release() {
    let device = shared();
    let one = attach(&device, "one");
    let two = attach(&device, "two");
    assert_eq!(status(&one, &RESERVE), Status::Good);
    assert_eq!(status(&one, &RESERVE), Status::Good);
    for refused in [&RESERVE[..], &[0; 6], &[0x1A, 0, 8, 0, 36, 0], &read_10(0, 1)] {
        assert_eq!(status(&two, refused), Status::ReservationConflict, "{refused:02x?}");
    }
    assert_eq!(status(&two, &[0x12, 0, 0, 0, 36, 0]), Status::Good);
    assert_eq!(status(&two, &RELEASE), Status::Good);
    assert_eq!(
        status(&two, &RESERVE),
        Status::ReservationConflict,
        "the release was not the other's to make"
    );
    assert!(can_write(&one));
    assert_eq!(status(&one, &RELEASE), Status::Good);
    assert_eq!(status(&two, &RESERVE), Status::Good);
    drop(two);
    assert_eq!(status(&one, &RESERVE), Status::Good, "the holder logged out");
    let two = attach(&device, "two");
    two.reset_lun(LUN0);
    assert_eq!(refused(&two, &RESERVE, &[]), (0x6, 0x29, 0x03));
    assert_eq!(status(&two, &RESERVE), Status::Good, "the reset ended it");
}

fn out(nexus: &Nexus, action: u8, kind: u8, key: u64, new_key: u64) -> Result<(), Option<(u8, u8, u8)>> {
    let mut list = [key.to_be_bytes(), new_key.to_be_bytes()].concat();
    list.resize(24, 0);
    let response = run(nexus, &[0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0], &list);
    match response.status {
        Status::Good => Ok(()),
        Status::ReservationConflict => Err(None),
        _ => Err(Some(sense(&response))),
    }
}

const CONFLICT: Result<(), Option<(u8, u8, u8)>> = Err(None);

fn keys(nexus: &Nexus) -> (u32, Vec<u64>) {
    let data = good(nexus, &[0x5E, 0, 0, 0, 0, 0, 0, 4, 0, 0], &[]);
    assert_eq!(
        u32::from_be_bytes(data[4..8].try_into().unwrap()) as usize,
        data.len() - 8
    );
    let keys = data[8..]
        .chunks_exact(8)
        .map(|key| u64::from_be_bytes(key.try_into().unwrap()))
        .collect();
    (u32::from_be_bytes(data[..4].try_into().unwrap()), keys)
}

fn reservation(nexus: &Nexus) -> Option<(u8, u64)> {
    let data = good(nexus, &[0x5E, 1, 0, 0, 0, 0, 0, 4, 0, 0], &[]);
    (data.len() > 8).then(|| (data[21], u64::from_be_bytes(data[8..16].try_into().unwrap())))
}

/// What a second port may do under each type: read and write when registered, read and write when not.
const TYPES: [(u8, [bool; 4]); 6] = [
    (1, [true, false, true, false]),
    (3, [false, false, false, false]),
    (5, [true, true, true, false]),
    (6, [true, true, false, false]),
    (7, [true, true, true, false]),
    (8, [true, true, false, false]),
];

#[test]
fn what_each_type_of_reservation_allows() {
    for (kind, [registered_reads, registered_writes, others_read, others_write]) in TYPES {
        let device = shared();
        let (one, two) = (attach(&device, "one"), attach(&device, "two"));
        assert_eq!(out(&one, 1, kind, 11, 0), CONFLICT, "not registered");
        out(&one, 0, 0, 0, 11).unwrap();
        out(&two, 6, 0, 99, 22).unwrap();
        assert_eq!(keys(&one), (2, vec![11, 22]));
        out(&one, 1, kind, 11, 0).unwrap();
        out(&one, 1, kind, 11, 0).unwrap();
        assert_eq!(reservation(&two), Some((kind, if kind >= 7 { 0 } else { 11 })));
        assert!(can_read(&one) && can_write(&one));
        assert_eq!(
            [can_read(&two), can_write(&two)],
            [registered_reads, registered_writes],
            "type {kind}"
        );
        assert_eq!(
            status(&two, &RESERVE),
            Status::ReservationConflict,
            "RESERVE beside registrations"
        );
        out(&two, 0, 0, 22, 0).unwrap();
        assert_eq!(
            [can_read(&two), can_write(&two)],
            [others_read, others_write],
            "type {kind}"
        );
        for harmless in [&[0; 6][..], &cdb_10(0x25, 0, 0, 0), &[0x12, 0, 0, 0, 36, 0]] {
            assert_eq!(status(&two, harmless), Status::Good, "{harmless:02x?}");
        }
        assert_eq!(
            out(&one, 2, if kind == 1 { 3 } else { 1 }, 11, 0),
            Err(Some((0x5, 0x26, 0x04)))
        );
        out(&one, 2, kind, 11, 0).unwrap();
        assert_eq!(reservation(&one), None);
        assert!(can_write(&two));
    }
}

#[test]
fn a_reservation_outlives_the_nexus_and_ends_with_its_registration() {
    for (kind, _) in TYPES {
        let device = shared();
        let (one, two) = (attach(&device, "one"), attach(&device, "two"));
        out(&one, 0, 0, 0, 11).unwrap();
        out(&two, 0, 0, 0, 22).unwrap();
        out(&one, 1, kind, 11, 0).unwrap();
        drop(one);
        assert!(reservation(&two).is_some());
        let one = attach(&device, "one");
        assert!(can_write(&one), "the port is known again");
        one.reset_lun(LUN0);
        for nexus in [&one, &two] {
            assert_eq!(refused(nexus, &[0; 6], &[]), (0x6, 0x29, 0x03));
        }
        assert!(reservation(&two).is_some(), "nor does a reset end it");
        out(&one, 0, 0, 11, 0).unwrap();
        if kind >= 7 {
            assert_eq!(reservation(&two), Some((kind, 0)), "the other registrant holds it too");
            out(&two, 2, kind, 22, 0).unwrap();
        } else {
            if kind >= 5 {
                assert_eq!(refused(&two, &[0; 6], &[]), (0x6, 0x2A, 0x04), "RESERVATIONS RELEASED");
            }
            assert_eq!(reservation(&two), None);
        }
        assert_eq!(status(&two, &[0; 6]), Status::Good);
    }
}

#[test]
fn preempt_and_clear() {
    let device = shared();
    let (one, two, three) = (attach(&device, "one"), attach(&device, "two"), attach(&device, "three"));
    for (nexus, key) in [(&one, 11), (&two, 22), (&three, 33)] {
        out(nexus, 0, 0, 0, key).unwrap();
    }
    out(&one, 1, 1, 11, 0).unwrap();
    assert_eq!(
        out(&two, 4, 3, 22, 0),
        Err(Some((0x5, 0x26, 0x00))),
        "nobody has key zero"
    );
    assert_eq!(out(&two, 4, 3, 22, 44), CONFLICT, "nobody has that key");
    out(&two, 4, 3, 22, 11).unwrap();
    assert_eq!(reservation(&two), Some((3, 22)));
    assert_eq!(keys(&two).1, [22, 33]);
    assert_eq!(
        refused(&one, &[0; 6], &[]),
        (0x6, 0x2A, 0x05),
        "REGISTRATIONS PREEMPTED"
    );
    assert_eq!(
        refused(&three, &[0; 6], &[]),
        (0x6, 0x2A, 0x04),
        "RESERVATIONS RELEASED: the type is another"
    );
    assert!(!can_read(&one) && !can_read(&three) && can_write(&two));
    // A registration may be preempted without touching the reservation.
    out(&two, 4, 3, 22, 33).unwrap();
    assert_eq!(refused(&three, &[0; 6], &[]), (0x6, 0x2A, 0x05));
    assert_eq!((reservation(&two), keys(&two).1), (Some((3, 22)), vec![22]));
    out(&three, 6, 0, 0, 33).unwrap();
    out(&two, 3, 0, 22, 0).unwrap();
    assert_eq!((reservation(&two), keys(&two).1), (None, vec![]));
    assert_eq!(
        refused(&three, &[0; 6], &[]),
        (0x6, 0x2A, 0x03),
        "RESERVATIONS PREEMPTED"
    );
    assert!(can_write(&one));
}

#[test]
fn registration_rules() {
    let device = shared();
    let one = attach(&device, "one");
    assert_eq!(out(&one, 0, 0, 5, 11), CONFLICT, "there is no key 5");
    out(&one, 0, 0, 0, 0).unwrap();
    assert_eq!(keys(&one), (0, vec![]));
    out(&one, 0, 0, 0, 11).unwrap();
    assert_eq!(out(&one, 0, 0, 0, 12), CONFLICT);
    out(&one, 0, 0, 11, 12).unwrap();
    assert_eq!(keys(&one), (2, vec![12]));
    assert_eq!(out(&one, 1, 0x11, 12, 0), Err(Some(INVALID_FIELD)), "scope");
    assert_eq!(out(&one, 1, 0x02, 12, 0), Err(Some(INVALID_FIELD)), "type");
    assert_eq!(
        refused(&one, &[0x5F, 0, 0, 0, 0, 0, 0, 0, 23, 0], &[0; 23]),
        (0x5, 0x1A, 0x00)
    );
    assert_eq!(
        refused(&one, &[0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0], &[0; 23]),
        (0x5, 0x1A, 0x00)
    );
    let mut aptpl = [0; 24];
    aptpl[20] = 1;
    assert_eq!(
        refused(&one, &[0x5F, 6, 0, 0, 0, 0, 0, 0, 24, 0], &aptpl),
        (0x5, 0x26, 0x00)
    );
    for action in 4..0x20 {
        assert_eq!(
            refused(&one, &[0x5E, action, 0, 0, 0, 0, 0, 4, 0, 0], &[]),
            INVALID_FIELD
        );
    }
    assert_eq!(
        good(&one, &[0x5E, 2, 0, 0, 0, 0, 0, 4, 0, 0], &[]),
        [0, 8, 0x0C, 0x80, 0xEA, 0x01, 0, 0]
    );
    assert_eq!(good(&one, &[0x5E, 0, 0, 0, 0, 0, 0, 0, 4, 0], &[]), [0, 0, 0, 2]);
    let full = good(&one, &[0x5E, 3, 0, 0, 0, 0, 0, 4, 0, 0], &[]);
    assert_eq!(full[8..16], 12_u64.to_be_bytes());
    assert_eq!(full[32..34], [0x45, 0]);
    assert!(full[36..].starts_with(b"iqn.2026-11.example:one,i,0x00023d000001\0"));
    assert!(full.len().is_multiple_of(4));
    // There is room for 256 ports.
    for port in 1..256 {
        out(&attach(&device, &format!("port{port}")), 0, 0, 0, port).unwrap();
    }
    assert_eq!(
        out(&attach(&device, "late"), 0, 0, 0, 999),
        Err(Some((0x5, 0x55, 0x04)))
    );
}
