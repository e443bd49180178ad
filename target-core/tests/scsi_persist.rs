//! Persistent reservations with more than one port, aborts, moves, and across restarts.

mod scsi_support;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use scsi_support::gate::Gate;
use scsi_support::*;
use target_core::lun::Wait;
use target_core::scsi::{
    Device, FileStore, LogicalUnit, LogicalUnitOptions, MediumOptions, Mode, Nexus, Prepared, ReservationStore, Saved,
    SavedRegistrant, SavedReservation, Status, TargetPort,
};

const TARGET: &str = "iqn.2026-11.example:disks";
const PARAMETER_FIELD: (u8, u8, u8) = (0x5, 0x26, 0x00);
const LIST_LENGTH: (u8, u8, u8) = (0x5, 0x1A, 0x00);

const SPEC_I_PT: u8 = 0x08;
const ALL_TG_PT: u8 = 0x04;
const APTPL: u8 = 0x01;

fn port(name: &str) -> String {
    format!("iqn.2026-11.example:{name},i,0x00023d000001")
}

fn attach(device: &Arc<Device>, name: &str, tag: u16) -> Nexus {
    let target_port = TargetPort::new(TARGET, tag);
    device
        .attach_to(
            target_port,
            &format!("iqn.2026-11.example:{name}"),
            &port(name),
            &|_| Some(Mode::ReadWrite),
        )
        .expect("admitted")
}

fn shared(tags: &[u16]) -> Arc<Device> {
    let device = device([(0, LogicalUnit::shared(memory(64), identity()))]);
    device.set_target_ports(tags.to_vec());
    device
}

/// A device whose reservations are kept in this file.
fn kept_in(path: &Path) -> Arc<Device> {
    let unit = LogicalUnit::shared(memory(64), identity());
    unit.keep_reservations(Arc::new(FileStore::new(path)))
        .expect("a good file");
    device([(0, unit)])
}

fn list(key: u64, new_key: u64, flags: u8, ids: &[Vec<u8>]) -> Vec<u8> {
    let mut list = [key.to_be_bytes(), new_key.to_be_bytes()].concat();
    list.resize(24, 0);
    list[20] = flags;
    if flags & SPEC_I_PT != 0 {
        let ids = ids.concat();
        list.extend_from_slice(&(ids.len() as u32).to_be_bytes());
        list.extend_from_slice(&ids);
    }
    list
}

fn send(nexus: &Nexus, action: u8, kind: u8, list: &[u8]) -> Result<(), Option<(u8, u8, u8)>> {
    let mut cdb = [0x5F, action, kind, 0, 0, 0, 0, 0, 0, 0];
    cdb[5..9].copy_from_slice(&(list.len() as u32).to_be_bytes());
    let response = run(nexus, &cdb, list);
    match response.status {
        Status::Good => Ok(()),
        Status::ReservationConflict => Err(None),
        _ => Err(Some(sense(&response))),
    }
}

fn out(nexus: &Nexus, action: u8, kind: u8, key: u64, new_key: u64, flags: u8) -> Result<(), Option<(u8, u8, u8)>> {
    send(nexus, action, kind, &list(key, new_key, flags, &[]))
}

const CONFLICT: Result<(), Option<(u8, u8, u8)>> = Err(None);

fn transport_id(format: u8, name: &str) -> Vec<u8> {
    let mut name = name.as_bytes().to_vec();
    name.push(0);
    name.resize(name.len().next_multiple_of(4).max(20), 0);
    [&[format | 0x05, 0, 0, name.len() as u8][..], &name].concat()
}

/// READ FULL STATUS: key, holder, relative target port and initiator port of everybody.
fn full_status(nexus: &Nexus) -> Vec<(u64, bool, u16, String)> {
    let data = good(nexus, &[0x5E, 3, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0], &[]);
    let mut rest = &data[8..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[20..24].try_into().unwrap()) as usize;
        let id = &rest[24..24 + length];
        let name = id[4..].split(|&byte| byte == 0).next().unwrap();
        found.push((
            u64::from_be_bytes(rest[..8].try_into().unwrap()),
            rest[12] & 0x01 != 0,
            u16::from_be_bytes(rest[18..20].try_into().unwrap()),
            String::from_utf8(name.to_vec()).unwrap(),
        ));
        rest = &rest[24 + length..];
    }
    found
}

fn keys(nexus: &Nexus) -> Vec<u64> {
    full_status(nexus).iter().map(|status| status.0).collect()
}

fn generation(nexus: &Nexus) -> u32 {
    let data = good(nexus, &[0x5E, 0, 0, 0, 0, 0, 0, 0, 4, 0], &[]);
    u32::from_be_bytes(data.try_into().unwrap())
}

fn reservation(nexus: &Nexus) -> Option<(u8, u64)> {
    let data = good(nexus, &[0x5E, 1, 0, 0, 0, 0, 0, 4, 0, 0], &[]);
    (data.len() > 8).then(|| (data[21], u64::from_be_bytes(data[8..16].try_into().unwrap())))
}

#[test]
fn a_registration_is_of_two_ports() {
    let device = shared(&[1, 2]);
    let (by_one, by_two) = (attach(&device, "home", 1), attach(&device, "home", 2));
    out(&by_one, 0, 0, 0, 11, 0).unwrap();
    assert_eq!(
        out(&by_two, 1, 1, 11, 0, 0),
        CONFLICT,
        "the other path is not registered"
    );
    out(&by_two, 0, 0, 0, 22, 0).unwrap();
    out(&by_two, 1, 3, 22, 0, 0).unwrap();
    assert_eq!(
        full_status(&by_one),
        [(11, false, 1, port("home")), (22, true, 2, port("home"))]
    );
    assert_eq!(run(&by_one, &read_10(0, 1), &[]).status, Status::ReservationConflict);
    assert_eq!(run(&by_two, &read_10(0, 1), &[]).status, Status::Good);
}

#[test]
fn all_target_ports() {
    let device = shared(&[1, 2]);
    let (by_one, by_two) = (attach(&device, "home", 1), attach(&device, "home", 2));
    out(&by_one, 0, 0, 0, 11, ALL_TG_PT).unwrap();
    assert_eq!(keys(&by_two), [11, 11]);
    assert_eq!(generation(&by_one), 1);
    // As if it had come by each port: by one of them the key is another (SPC-5 6.15.3).
    out(&by_two, 0, 0, 11, 22, 0).unwrap();
    assert_eq!(out(&by_one, 0, 0, 11, 0, ALL_TG_PT), CONFLICT);
    assert_eq!(keys(&by_two), [11, 22]);
    out(&by_one, 6, 0, 0, 0, ALL_TG_PT).unwrap();
    assert_eq!(keys(&by_two), [0_u64; 0]);
}

#[test]
fn registering_others() {
    let device = shared(&[1]);
    let (one, two) = (attach(&device, "one", 1), attach(&device, "two", 1));
    // A port by its name, and all known ports of an initiator.
    let ids = [
        transport_id(0x40, &port("absent")),
        transport_id(0x00, "iqn.2026-11.example:two"),
    ];
    send(&one, 0, 0, &list(0, 11, SPEC_I_PT, &ids)).unwrap();
    assert_eq!(
        full_status(&one),
        [
            (11, false, 1, port("one")),
            (11, false, 1, port("absent")),
            (11, false, 1, port("two")),
        ]
    );
    assert_eq!(generation(&one), 1);
    out(&two, 1, 6, 11, 0, 0).unwrap();
    let absent = attach(&device, "absent", 1);
    assert_eq!(run(&absent, &write_10(0, 1), &[0; 512]).status, Status::Good);
    // Who is registered cannot do so any more (SPC-5 table 62).
    assert_eq!(
        send(
            &one,
            0,
            0,
            &list(11, 12, SPEC_I_PT, &[transport_id(0x40, &port("more"))])
        ),
        Err(Some(INVALID_FIELD))
    );
    // Only REGISTER knows it.
    for action in [1, 2, 3, 4, 5, 6] {
        let mut basic = list(11, 0, 0, &[]);
        basic[20] = SPEC_I_PT;
        assert_eq!(send(&one, action, 6, &basic), Err(Some(PARAMETER_FIELD)), "{action}");
    }
}

#[test]
fn lists_of_transport_ids_that_are_refused() {
    let device = shared(&[1]);
    let one = attach(&device, "one", 1);
    let good_id = transport_id(0x40, &port("two"));
    let whole = list(0, 11, SPEC_I_PT, std::slice::from_ref(&good_id));
    assert_eq!(send(&one, 0, 0, &whole[..24]), Err(Some(LIST_LENGTH)), "no length");
    assert_eq!(send(&one, 0, 0, &whole[..whole.len() - 4]), Err(Some(LIST_LENGTH)));
    assert_eq!(
        send(&one, 0, 0, &[&whole[..], &[0; 4]].concat()),
        Err(Some(LIST_LENGTH))
    );
    assert_eq!(
        send(&one, 0, 0, &[0; 28]),
        Err(Some(LIST_LENGTH)),
        "longer without SPEC_I_PT"
    );
    for (what, id, at) in [
        ("another protocol", [&[0x46][..], &good_id[1..]].concat(), 28_u16 + 48),
        ("no ISID", transport_id(0x40, "iqn.2026-11.example:two"), 28 + 48 + 4),
    ] {
        let list = list(0, 11, SPEC_I_PT, &[good_id.clone(), id]);
        let mut cdb = [0x5F, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        cdb[8] = list.len() as u8;
        let response = run(&one, &cdb, &list);
        assert_eq!(sense(&response), PARAMETER_FIELD, "{what}");
        assert_eq!(response.sense[16..18], at.to_be_bytes(), "{what}");
    }
    assert_eq!(keys(&one), [0_u64; 0], "all or nothing");
    let too_many = (0..256)
        .map(|n| transport_id(0x40, &port(&format!("p{n}"))))
        .collect::<Vec<_>>();
    assert_eq!(
        send(&one, 0, 0, &list(0, 11, SPEC_I_PT, &too_many)),
        Err(Some((0x5, 0x55, 0x04)))
    );
    send(&one, 0, 0, &list(0, 11, SPEC_I_PT, &too_many[1..])).unwrap();
    assert_eq!(keys(&one).len(), 256);
}

fn move_list(key: u64, new_key: u64, flags: u8, tag: u16, id: &[u8]) -> Vec<u8> {
    let mut list = [key.to_be_bytes(), new_key.to_be_bytes()].concat();
    list.extend_from_slice(&[0, flags]);
    list.extend_from_slice(&tag.to_be_bytes());
    list.extend_from_slice(&(id.len() as u32).to_be_bytes());
    list.extend_from_slice(id);
    list
}

#[test]
fn register_and_move() {
    let device = shared(&[1, 2]);
    let (one, two) = (attach(&device, "one", 1), attach(&device, "two", 2));
    let id = transport_id(0x40, &port("two"));
    let to_two = |flags| move_list(11, 22, flags, 2, &id);
    assert_eq!(send(&one, 7, 0, &to_two(0)), CONFLICT, "not registered");
    out(&one, 0, 0, 0, 11, 0).unwrap();
    assert_eq!(send(&one, 7, 0, &to_two(0)), CONFLICT, "there is no reservation");
    for kind in [7, 8] {
        out(&one, 1, kind, 11, 0, 0).unwrap();
        assert_eq!(send(&one, 7, 0, &to_two(0)), CONFLICT, "all registrants hold it");
        out(&one, 2, kind, 11, 0, 0).unwrap();
    }
    out(&one, 1, 3, 11, 0, 0).unwrap();
    let before = generation(&one);
    for (what, list, expected) in [
        ("key zero", move_list(11, 0, 0, 2, &id), PARAMETER_FIELD),
        ("no such port of ours", move_list(11, 22, 0, 9, &id), PARAMETER_FIELD),
        (
            "to itself",
            move_list(11, 22, 0, 1, &transport_id(0x40, &port("one"))),
            PARAMETER_FIELD,
        ),
        (
            "to nobody in particular",
            move_list(11, 22, 0, 2, &transport_id(0, "iqn.a")),
            PARAMETER_FIELD,
        ),
        (
            "APTPL without a store",
            move_list(11, 22, APTPL, 2, &id),
            PARAMETER_FIELD,
        ),
        ("a TransportID cut short", to_two(0)[..40].to_vec(), LIST_LENGTH),
    ] {
        assert_eq!(send(&one, 7, 0, &list), Err(Some(expected)), "{what}");
    }
    assert_eq!(generation(&one), before);
    send(&one, 7, 0, &to_two(0)).unwrap();
    assert_eq!(reservation(&one), Some((3, 22)));
    assert_eq!(
        full_status(&two),
        [(11, false, 1, port("one")), (22, true, 2, port("two"))]
    );
    assert_eq!(generation(&one), before + 1);
    assert_eq!(
        run(&two, &write_10(0, 1), &[0; 512]).status,
        Status::Good,
        "and nobody is told"
    );
    assert_eq!(
        run(&one, &write_10(0, 1), &[0; 512]).status,
        Status::ReservationConflict
    );
    // And back, with UNREG.
    let back = move_list(22, 12, 0x02, 1, &transport_id(0x40, &port("one")));
    send(&two, 7, 0, &back).unwrap();
    assert_eq!(full_status(&one), [(12, true, 1, port("one"))]);
}

#[test]
fn preempt_and_abort_ends_the_commands_of_the_other() {
    let medium = Gate::new(64);
    let device = device([(0, LogicalUnit::shared(Arc::clone(&medium) as _, identity()))]);
    let (one, two) = (attach(&device, "one", 1), attach(&device, "two", 1));
    out(&one, 0, 0, 0, 11, 0).unwrap();
    out(&two, 0, 0, 0, 22, 0).unwrap();
    out(&two, 1, 5, 22, 0, 0).unwrap();
    let (running, late) = (execution(&two, &write_10(0, 1)), execution(&two, &write_10(1, 1)));
    let own = execution(&one, &write_10(2, 1));
    medium.shut();
    std::thread::scope(|scope| {
        let write = scope.spawn(|| running.run(&[2; 512], Wait::Allowed, &AtomicBool::new(false)));
        medium.wait_for(1);
        let preempt = scope.spawn(|| out(&one, 5, 5, 11, 22, 0));
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!preempt.is_finished(), "it waits for the write that has begun");
        medium.open();
        preempt.join().unwrap().unwrap();
        write.join().unwrap().unwrap();
    });
    // What had not begun does not, what is its own goes on.
    let cancel = AtomicBool::new(false);
    assert_ne!(
        late.run(&[2; 512], Wait::Allowed, &cancel).unwrap().status,
        Status::Good
    );
    assert_eq!(own.run(&[1; 512], Wait::Allowed, &cancel).unwrap().status, Status::Good);
    assert_eq!(good(&one, &read_10(1, 1), &[]), [0; 512]);
    assert_eq!(
        refused(&two, &[0; 6], &[]),
        (0x6, 0x2A, 0x05),
        "REGISTRATIONS PREEMPTED"
    );
    assert_eq!((reservation(&one), keys(&one)), (Some((5, 11)), vec![11]));
}

/// A store that stops at a gate.
#[derive(Debug, Default)]
struct SlowStore(AtomicBool, AtomicBool);

impl ReservationStore for SlowStore {
    fn load(&self) -> io::Result<Option<Saved>> {
        Ok(None)
    }

    fn save(&self, _: &Saved) -> io::Result<()> {
        self.1.store(self.0.load(Ordering::SeqCst), Ordering::SeqCst);
        while self.0.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        Ok(())
    }
}

#[test]
fn two_that_preempt_each_other_do_not_wait_for_each_other() {
    let store = Arc::new(SlowStore::default());
    let unit = LogicalUnit::shared(memory(64), identity());
    unit.keep_reservations(Arc::clone(&store) as _).unwrap();
    let device = device([(0, unit)]);
    let (one, two) = (attach(&device, "one", 1), attach(&device, "two", 1));
    out(&one, 0, 0, 0, 11, APTPL).unwrap();
    out(&two, 0, 0, 0, 22, APTPL).unwrap();
    store.0.store(true, Ordering::SeqCst);
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| out(&one, 5, 5, 11, 22, 0));
        while !store.1.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        // It has begun, and waits for the first, when that looks whom it has to wait for.
        let second = scope.spawn(|| out(&two, 5, 5, 22, 11, 0));
        std::thread::sleep(std::time::Duration::from_millis(100));
        store.0.store(false, Ordering::SeqCst);
        first.join().unwrap().unwrap();
        assert_eq!(second.join().unwrap(), CONFLICT, "it is not registered any more");
    });
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
    assert_eq!(keys(&one), [11]);
}

#[test]
fn who_is_preempted_and_aborted_does_not_prevent_removal() {
    let options = LogicalUnitOptions {
        shared: true,
        medium: MediumOptions {
            removable: true,
            ..MediumOptions::default()
        },
        ..LogicalUnitOptions::default()
    };
    let device = device([(0, LogicalUnit::with_options(memory(64), identity(), options))]);
    let (one, two) = (attach(&device, "one", 1), attach(&device, "two", 1));
    let eject = [0x1B, 0, 0, 0, 0x02, 0];
    for action in [4, 5] {
        out(&one, 6, 0, 0, 11, 0).unwrap();
        out(&two, 6, 0, 0, 22, 0).unwrap();
        good(&two, &[0x1E, 0, 0, 0, 1, 0], &[]);
        out(&one, action, 5, 11, 22, 0).unwrap();
        match action {
            4 => assert_eq!(refused(&one, &eject, &[]), (0x5, 0x53, 0x02)),
            _ => assert_eq!(good(&one, &eject, &[]), NOTHING),
        }
        assert_eq!(refused(&two, &[0; 6], &[]), (0x6, 0x2A, 0x05));
    }
}

#[test]
fn both_kinds_of_reservation_exclude_each_other() {
    let device = shared(&[1]);
    let (one, two) = (attach(&device, "one", 1), attach(&device, "two", 1));
    let (reserve, release) = ([0x16, 0, 0, 0, 0, 0], [0x17, 0, 0, 0, 0, 0]);
    assert_eq!(run(&one, &reserve, &[]).status, Status::Good);
    // Not even who holds it (SPC-2 5.5.1).
    assert_eq!(out(&one, 0, 0, 0, 11, 0), CONFLICT);
    assert_eq!(
        run(&one, &[0x5E, 0, 0, 0, 0, 0, 0, 4, 0, 0], &[]).status,
        Status::ReservationConflict
    );
    assert_eq!(run(&one, &release, &[]).status, Status::Good);
    out(&one, 0, 0, 0, 11, 0).unwrap();
    for nexus in [&one, &two] {
        assert_eq!(run(nexus, &reserve, &[]).status, Status::ReservationConflict);
        assert_eq!(run(nexus, &release, &[]).status, Status::ReservationConflict);
    }
}

#[test]
fn what_asked_for_it_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reservations");
    for (kind, holder_key) in [(1, 11), (3, 11), (5, 11), (6, 11), (7, 0), (8, 0)] {
        let device = kept_in(&path);
        let (one, two) = (attach(&device, "one", 1), attach(&device, "two", 2));
        let capabilities = |nexus: &Nexus| good(nexus, &[0x5E, 2, 0, 0, 0, 0, 0, 0, 8, 0], &[]);
        assert_eq!(capabilities(&one)[2..4], [0x0D, 0x80], "PTPL_C, not yet PTPL_A");
        out(&one, 0, 0, 0, 11, APTPL).unwrap();
        assert_eq!(capabilities(&one)[2..4], [0x0D, 0x81]);
        out(&two, 6, 0, 0, 22, APTPL).unwrap();
        out(&one, 1, kind, 11, 0, 0).unwrap();
        let before = full_status(&one);
        drop((one, two, device));

        let device = kept_in(&path);
        let (one, two) = (attach(&device, "one", 1), attach(&device, "two", 2));
        assert_eq!(reservation(&two), Some((kind, holder_key)));
        assert_eq!(full_status(&two), before);
        assert_eq!(generation(&two), 0, "a power on resets it");
        assert_eq!(capabilities(&two)[3], 0x81);
        assert_eq!(run(&one, &write_10(0, 1), &[0; 512]).status, Status::Good);
        let stranger = attach(&device, "three", 1);
        assert_eq!(
            run(&stranger, &write_10(0, 1), &[0; 512]).status,
            Status::ReservationConflict
        );
        out(&one, 3, 0, 11, 0, 0).unwrap();
        drop((one, two, stranger, device));

        let device = kept_in(&path);
        assert_eq!(keys(&attach(&device, "one", 1)), [0_u64; 0], "CLEAR is kept as well");
    }
}

#[test]
fn what_did_not_ask_for_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reservations");
    let device = kept_in(&path);
    let one = attach(&device, "one", 1);
    out(&one, 0, 0, 0, 11, 0).unwrap();
    assert!(!path.exists(), "nothing to keep");
    out(&one, 0, 0, 11, 12, APTPL).unwrap();
    out(&one, 1, 3, 12, 0, 0).unwrap();
    // The last registration counts, for all of them (SPC-5 5.13.5).
    out(&one, 0, 0, 12, 13, 0).unwrap();
    drop((one, device));
    let device = kept_in(&path);
    let one = attach(&device, "one", 1);
    assert_eq!((reservation(&one), keys(&one)), (None, vec![]));
}

#[test]
fn without_a_store_nothing_is_promised() {
    let device = shared(&[1]);
    let one = attach(&device, "one", 1);
    assert_eq!(out(&one, 0, 0, 0, 11, APTPL), Err(Some(PARAMETER_FIELD)));
    assert_eq!(out(&one, 6, 0, 0, 11, APTPL), Err(Some(PARAMETER_FIELD)));
    assert_eq!(keys(&one), [0_u64; 0]);
}

#[test]
fn a_file_that_was_damaged_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reservations");
    let device = kept_in(&path);
    let one = attach(&device, "one", 1);
    out(&one, 0, 0, 0, 11, APTPL).unwrap();
    out(&one, 1, 3, 11, 0, 0).unwrap();
    drop((one, device));
    let good = fs::read_to_string(&path).unwrap();
    for (what, text) in [
        ("empty", String::new()),
        ("cut", good[..good.len() / 2].to_owned()),
        ("another key", good.replace("\"key\": 11", "\"key\": 12")),
        ("another version", good.replace("\"version\": 1", "\"version\": 2")),
        ("an unknown field", good.replace("\"key\"", "\"clef\"")),
    ] {
        assert_ne!(text, good, "{what}");
        fs::write(&path, &text).unwrap();
        let unit = LogicalUnit::shared(memory(64), identity());
        let error = unit.keep_reservations(Arc::new(FileStore::new(&path))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{what}: {error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "{what}");
    }
}

/// A store in memory that can fail.
#[derive(Debug, Default)]
struct Fickle {
    saved: Mutex<Option<Saved>>,
    fails: AtomicBool,
}

impl ReservationStore for Fickle {
    fn load(&self) -> io::Result<Option<Saved>> {
        Ok(self.saved.lock().unwrap().clone())
    }

    fn save(&self, saved: &Saved) -> io::Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("no space"));
        }
        *self.saved.lock().unwrap() = Some(saved.clone());
        Ok(())
    }
}

#[test]
fn what_could_not_be_saved_has_not_happened() {
    let store = Arc::new(Fickle::default());
    let unit = LogicalUnit::shared(memory(64), identity());
    unit.keep_reservations(Arc::clone(&store) as _).unwrap();
    let device = device([(0, unit)]);
    let (one, two) = (attach(&device, "one", 1), attach(&device, "two", 1));
    out(&one, 0, 0, 0, 11, APTPL).unwrap();
    out(&two, 0, 0, 0, 22, APTPL).unwrap();
    out(&one, 1, 3, 11, 0, 0).unwrap();
    let (before, kept) = (generation(&one), store.load().unwrap());
    store.fails.store(true, Ordering::SeqCst);
    // INSUFFICIENT REGISTRATION RESOURCES, or INTERNAL TARGET FAILURE.
    assert_eq!(out(&two, 0, 0, 22, 23, APTPL), Err(Some((0x5, 0x55, 0x04))));
    assert_eq!(out(&one, 2, 3, 11, 0, 0), Err(Some((0x4, 0x44, 0x00))));
    assert_eq!(out(&two, 4, 3, 22, 11, 0), Err(Some((0x4, 0x44, 0x00))));
    assert_eq!(out(&one, 3, 0, 11, 0, 0), Err(Some((0x4, 0x44, 0x00))));
    assert_eq!((reservation(&one), keys(&one)), (Some((3, 11)), vec![11, 22]));
    assert_eq!((generation(&one), store.load().unwrap()), (before, kept));
    assert_eq!(run(&two, &[0; 6], &[]).status, Status::Good, "nobody was told anything");
    // What changes nothing that is kept needs no store.
    out(&one, 1, 3, 11, 0, 0).unwrap();
    store.fails.store(false, Ordering::SeqCst);
    out(&one, 2, 3, 11, 0, 0).unwrap();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let registrant = |port: &str, key| SavedRegistrant {
        initiator_port: port.to_owned(),
        target: TARGET.to_owned(),
        portal_group: 1,
        key,
    };
    let held = |kind, holder| Some(SavedReservation { kind, holder });
    let (a, b) = (registrant("a", 1), registrant("b", 2));
    for (what, registrants, reservation) in [
        ("key zero", vec![registrant("a", 0)], None),
        ("no name", vec![registrant("", 1)], None),
        ("twice the same", vec![a.clone(), a.clone()], None),
        ("no such type", vec![a.clone()], held(2, Some(0))),
        ("a holder that is not there", vec![a.clone()], held(1, Some(1))),
        ("all hold what one holds", vec![a.clone(), b.clone()], held(3, None)),
        ("one holds what all hold", vec![a.clone(), b], held(7, Some(0))),
        ("held by nobody", vec![], held(7, None)),
        (
            "too many",
            (0..257).map(|n| registrant(&n.to_string(), 1)).collect(),
            None,
        ),
    ] {
        let store = Fickle::default();
        store
            .save(&Saved {
                registrants,
                reservation,
            })
            .unwrap();
        let unit = LogicalUnit::shared(memory(64), identity());
        let error = unit.keep_reservations(Arc::new(store)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}");
    }
}

#[test]
fn saving_is_for_those_who_may_wait() {
    let store = Arc::new(Fickle::default());
    let unit = LogicalUnit::shared(memory(64), identity());
    unit.keep_reservations(Arc::clone(&store) as _).unwrap();
    let one = attach(&device([(0, unit)]), "one", 1);
    let list = list(0, 11, APTPL, &[]);
    let Prepared::Run(execution) = one.prepare(LUN0, &[0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0]) else {
        panic!("it needs data");
    };
    let cancel = AtomicBool::new(false);
    assert!(execution.run(&list, Wait::Never, &cancel).is_err(), "it would block");
    assert_eq!((keys(&one), store.load().unwrap()), (vec![], None));
    execution.run(&list, Wait::Allowed, &cancel).unwrap();
    assert_eq!(keys(&one), [11]);
}

#[test]
fn starting_and_allowing_harm_nobody() {
    let device = shared(&[1]);
    let (one, two) = (attach(&device, "one", 1), attach(&device, "two", 1));
    out(&one, 0, 0, 0, 11, 0).unwrap();
    out(&one, 1, 1, 11, 0, 0).unwrap();
    for (what, cdb, expected) in [
        ("start", [0x1B, 0, 0, 0, 1, 0], Status::Good),
        ("stop", [0x1B, 0, 0, 0, 0, 0], Status::ReservationConflict),
        ("allow", [0x1E, 0, 0, 0, 0, 0], Status::Good),
        ("prevent", [0x1E, 0, 0, 0, 1, 0], Status::ReservationConflict),
    ] {
        assert_eq!(run(&two, &cdb, &[]).status, expected, "{what}");
        assert_eq!(run(&one, &cdb, &[]).status, Status::Good, "{what}");
    }
}
