//! LUNs that come, go, change their size and what may be done to them, under commands that are on their way.

mod scsi_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use scsi_support::gate::Gate;
use scsi_support::*;
use target_core::lun::{Medium, Wait};
use target_core::scsi::{
    ChangeError, Device, Identity, LogicalUnit, Mode, Nexus, Observer, ResizeError, Response, Slot, Status, TargetPort,
};

const NO_SUCH_LUN: (u8, u8, u8) = (0x5, 0x25, 0x00);
const OFFLINE: (u8, u8, u8) = (0x2, 0x04, 0x12);
const WRITE_PROTECTED: (u8, u8, u8) = (0x7, 0x27, 0x00);
const LUNS_CHANGED: (u8, u8, u8) = (0x6, 0x3F, 0x0E);
const MEDIUM_CHANGED: (u8, u8, u8) = (0x6, 0x28, 0x00);
const INQUIRY_CHANGED: (u8, u8, u8) = (0x6, 0x3F, 0x03);
const CAPACITY_CHANGED: (u8, u8, u8) = (0x6, 0x2A, 0x09);
const MODE_CHANGED: (u8, u8, u8) = (0x6, 0x2A, 0x01);
const TEST_UNIT_READY: [u8; 6] = [0; 6];
const REPORT_LUNS: [u8; 12] = [0xA0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0];

fn unit(serial: &str) -> Arc<LogicalUnit> {
    unit_on(memory(64), serial)
}

fn unit_on(medium: Arc<dyn Medium>, serial: &str) -> Arc<LogicalUnit> {
    LogicalUnit::shared(
        medium,
        Identity {
            serial: serial.to_owned(),
            ..identity()
        },
    )
}

fn everything(_: u16) -> Option<Mode> {
    Some(Mode::ReadWrite)
}

fn lun(number: u8) -> [u8; 8] {
    [0, number, 0, 0, 0, 0, 0, 0]
}

fn attach(device: &Arc<Device>, name: &str) -> Nexus {
    device.attach(name, &format!("{name},i,0x1")).unwrap()
}

fn reported(nexus: &Nexus) -> Vec<u8> {
    let list = good(nexus, &REPORT_LUNS, &[]);
    assert_eq!(list[..4], (list.len() as u32 - 8).to_be_bytes());
    list[8..].chunks(8).map(|entry| entry[1]).collect()
}

/// What a LUN says to TEST UNIT READY until it says GOOD.
fn attentions(nexus: &Nexus, number: u8) -> Vec<(u8, u8, u8)> {
    let mut heard = Vec::new();
    loop {
        let response = run_at(nexus, lun(number), &TEST_UNIT_READY, &[]);
        if response.status == Status::Good {
            return heard;
        }
        heard.push(sense(&response));
        assert!(heard.len() < 20, "{heard:02x?}");
    }
}

#[test]
fn a_nexus_sees_what_it_may_and_only_that() {
    let device = device([(0, unit("a")), (1, unit("b")), (2, unit("c"))]);
    device.insert_offline(3).unwrap();
    device.insert_offline(4).unwrap();
    let view = |lun| match lun {
        0 | 3 => Some(Mode::ReadWrite),
        2 => Some(Mode::ReadOnly),
        _ => None,
    };
    let port = TargetPort::new("iqn.2026-11.example:disks", 7);
    let nexus = device.attach_to(port, INITIATOR, PORT, &view).unwrap();
    assert_eq!(reported(&nexus), [0, 2, 3]);
    assert_eq!(nexus.luns(), [0, 2, 3]);
    for (number, cdb, data, expected) in [
        (0, &write_10(0, 1)[..], &[1; 512][..], Ok(())),
        (2, &read_10(0, 1)[..], &[][..], Ok(())),
        (2, &write_10(0, 1)[..], &[1; 512][..], Err(WRITE_PROTECTED)),
        (1, &read_10(0, 1)[..], &[][..], Err(NO_SUCH_LUN)),
        (3, &read_10(0, 1)[..], &[][..], Err(OFFLINE)),
        (3, &TEST_UNIT_READY[..], &[][..], Err(OFFLINE)),
        (4, &read_10(0, 1)[..], &[][..], Err(NO_SUCH_LUN)),
        (9, &read_10(0, 1)[..], &[][..], Err(NO_SUCH_LUN)),
    ] {
        let response = run_at(&nexus, lun(number), cdb, data);
        let seen = match response.status {
            Status::Good => Ok(()),
            _ => Err(sense(&response)),
        };
        assert_eq!(seen, expected, "LUN {number}, {cdb:02x?}");
    }
    assert_eq!((nexus.target_port().relative(), nexus.target_ports()), (7, vec![7]));
    device.set_target_ports(vec![9, 2, 7, 2]);
    assert_eq!(nexus.target_ports(), [2, 7, 9]);
}

#[test]
fn who_stays_hears_that_luns_have_come_and_gone() {
    let device = device([(0, unit("a")), (1, unit("b"))]);
    let mut one = attach(&device, "iqn.2026-11.example:one");
    let mut two = attach(&device, "iqn.2026-11.example:two");
    device.insert(2, unit("c")).unwrap();
    assert_eq!(one.refresh(&everything), [0; 0]);
    assert_eq!(attentions(&one, 0), [LUNS_CHANGED]);
    assert_eq!(reported(&one), [0, 1, 2]);
    assert_eq!(attentions(&one, 1), [], "the list has been read since");
    assert_eq!(attentions(&one, 2), []);
    // Who may not see it has nothing to hear of.
    let but_two = |lun| (lun != 2).then_some(Mode::ReadWrite);
    assert_eq!(two.refresh(&but_two), [0; 0]);
    assert_eq!(attentions(&two, 0), []);
    assert!(device.remove(1).unwrap().is_drained());
    assert_eq!(one.refresh(&everything), [1]);
    assert_eq!(attentions(&one, 0), [LUNS_CHANGED]);
    assert_eq!(sense(&run_at(&one, lun(1), &read_10(0, 1), &[])), NO_SUCH_LUN);
    // What changes for this nexus alone, it alone hears of.
    let read_only = |lun| (lun != 2).then_some(Mode::ReadOnly);
    assert_eq!(two.refresh(&read_only), [1]);
    assert_eq!(attentions(&two, 0), [MODE_CHANGED, LUNS_CHANGED]);
    assert_eq!(attentions(&one, 2), [LUNS_CHANGED]);
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let device = device([(0, unit("a"))]);
    let there = device.unit(0).unwrap();
    assert_eq!(device.insert(0, unit("b")), Err(ChangeError::Taken(0)));
    assert_eq!(device.insert(0x4000, unit("b")), Err(ChangeError::TooLarge(0x4000)));
    assert_eq!(device.insert_offline(0), Err(ChangeError::Taken(0)));
    assert_eq!(device.remove(1).err(), Some(ChangeError::Missing(1)));
    assert_eq!(device.replace(1, unit("b")).err(), Some(ChangeError::Missing(1)));
    assert_eq!(device.replace(0, there).err(), Some(ChangeError::Taken(0)));
    assert_eq!(device.set_offline(1).err(), Some(ChangeError::Missing(1)));
    assert_eq!(device.set_online(0, unit("b")), Err(ChangeError::Online(0)));
    assert!(device.set_offline(0).is_ok());
    assert_eq!(device.set_offline(0).err(), Some(ChangeError::Offline(0)));
    assert_eq!(device.replace(0, unit("b")).err(), Some(ChangeError::Offline(0)));
    assert!(device.remove(0).unwrap().is_closed(), "there is nothing to wait for");
    assert!(device.slots().is_empty());
}

#[test]
fn observers_hear_of_changes_that_were_made() {
    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Observer for Count {
        fn luns_changed(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let device = device([(0, unit("a"))]);
    let count = Arc::new(Count::default());
    let weak: std::sync::Weak<Count> = Arc::downgrade(&count);
    device.observe(weak);
    let heard = || count.0.load(Ordering::SeqCst);
    device.insert(1, unit("b")).unwrap();
    assert_eq!(heard(), 1);
    assert!(device.insert(1, unit("b")).is_err() && device.remove(5).is_err());
    assert_eq!(heard(), 1);
    let _removal = (device.remove(1).unwrap(), device.set_offline(0).unwrap());
    assert_eq!(heard(), 3);
}

#[test]
fn a_unit_is_removed_under_a_command_that_hangs() {
    let gate = Gate::new(64);
    let device = device([(0, unit_on(gate.clone(), "slow")), (1, unit("other"))]);
    let mut one = attach(&device, "iqn.2026-11.example:one");
    let mut two = attach(&device, "iqn.2026-11.example:two");
    let (hangs, late) = (execution(&one, &write_10(0, 1)), execution(&two, &write_10(1, 1)));
    gate.shut();
    let mut removal = thread::scope(|scope| {
        let hung = scope.spawn(|| finish(&hangs, &[1; 512]).status);
        gate.wait_for(1);
        let removal = device.remove(0).unwrap();
        assert!(!removal.is_drained() && !removal.is_closed());
        // Whether a session knows it already or not, nothing begins.
        assert_eq!(sense(&finish(&late, &[2; 512])), NO_SUCH_LUN);
        assert_eq!(sense(&run(&two, &write_10(2, 1), &[2; 512])), NO_SUCH_LUN);
        assert_eq!(two.refresh(&everything), [0]);
        assert_eq!(sense(&run(&two, &write_10(2, 1), &[2; 512])), NO_SUCH_LUN);
        // The other LUN has nothing to do with it.
        assert_eq!(run_at(&one, lun(1), &write_10(0, 1), &[3; 512]).status, Status::Good);
        assert_eq!(gate.waiting(), 1, "nothing but what was there has reached the medium");
        gate.open();
        assert_eq!(hung.join().unwrap(), Status::Good);
        removal
    });
    assert!(removal.is_drained());
    removal.flush().unwrap();
    assert!(!removal.is_closed(), "commands and sessions still know it");
    drop((hangs, late));
    assert_eq!(one.refresh(&everything), [0]);
    assert!(removal.is_closed());
    assert_eq!(Arc::strong_count(&gate), 1, "the medium is ours alone");
    let mut blocks = Vec::new();
    gate.read(0, 3 * 512, &mut blocks, Wait::Allowed).unwrap();
    assert_eq!(blocks, [[1; 512], [0; 512], [0; 512]].concat());
}

#[test]
fn a_unit_that_comes_back_is_not_taken_for_the_one_that_went() {
    let there = unit("a");
    let device = device([(0, Arc::clone(&there))]);
    let mut nexus = attach(&device, INITIATOR);
    let old = execution(&nexus, &write_10(0, 1));
    let _removal = device.remove(0).unwrap();
    device.insert(0, there).unwrap();
    assert_eq!(nexus.refresh(&everything), [0]);
    assert_eq!(sense(&finish(&old, &[1; 512])), NO_SUCH_LUN);
    assert_eq!(attentions(&nexus, 0), [MEDIUM_CHANGED, INQUIRY_CHANGED]);
    good(&nexus, &write_10(0, 1), &[1; 512]);
}

#[test]
fn a_unit_put_in_anothers_place_gets_none_of_its_commands() {
    let device = device([(0, unit("old")), (1, unit("b"))]);
    let mut nexus = attach(&device, INITIATOR);
    let old = execution(&nexus, &write_10(0, 1));
    let mut removal = device.replace(0, unit("new")).unwrap();
    assert_eq!(sense(&run(&nexus, &write_10(1, 1), &[1; 512])), NO_SUCH_LUN);
    assert_eq!(nexus.refresh(&everything), [0]);
    assert_eq!(sense(&finish(&old, &[1; 512])), NO_SUCH_LUN);
    assert_eq!(attentions(&nexus, 0), [MEDIUM_CHANGED, INQUIRY_CHANGED]);
    assert_eq!(attentions(&nexus, 1), [LUNS_CHANGED]);
    assert_eq!(good(&nexus, &read_10(0, 2), &[]), [0; 1024]);
    removal.flush().unwrap();
    drop(old);
    assert!(removal.is_closed());
}

#[test]
fn a_unit_at_two_luns_goes_from_one_of_them_only() {
    let both = unit("both");
    let device = device([(0, Arc::clone(&both)), (1, Arc::clone(&both))]);
    let mut nexus = attach(&device, INITIATOR);
    let stays = match nexus.prepare(lun(1), &write_10(5, 1)) {
        target_core::scsi::Prepared::Run(execution) => execution,
        done => panic!("{done:?}"),
    };
    let removal = device.remove(0).unwrap();
    assert!(removal.is_drained() && removal.is_closed(), "there is nothing to close");
    assert_eq!(finish(&stays, &[5; 512]).status, Status::Good);
    assert_eq!(nexus.refresh(&everything), [0]);
    assert_eq!(sense(&run(&nexus, &read_10(0, 1), &[])), NO_SUCH_LUN);
    assert_eq!(attentions(&nexus, 1), [LUNS_CHANGED]);
}

#[test]
fn only_a_lun_that_nobody_has_goes_offline() {
    let device = device([(0, unit("a")), (1, unit("b"))]);
    let mut nexus = attach(&device, INITIATOR);
    let in_use = ChangeError::InUse {
        lun: 0,
        holder: INITIATOR.to_owned(),
    };
    assert_eq!(device.set_offline(0).err(), Some(in_use.clone()));
    assert!(matches!(device.slots()[&0], Slot::Online(_)));
    let running = execution(&nexus, &write_10(0, 1));
    // Out of this nexus' sight, but a command of it is still about.
    assert_eq!(nexus.refresh(&|lun| (lun == 1).then_some(Mode::ReadWrite)), [0]);
    assert_eq!(device.set_offline(0).err(), Some(in_use));
    drop(running);
    let mut removal = device.set_offline(0).unwrap();
    removal.flush().unwrap();
    assert!(removal.is_closed(), "its file can be used by others now");
    assert_eq!(nexus.refresh(&everything), [0; 0]);
    assert_eq!(sense(&run(&nexus, &TEST_UNIT_READY, &[])), OFFLINE);
    assert_eq!(reported(&nexus), [0, 1]);
    assert_eq!(
        good(&nexus, &[0x12, 0, 0, 0, 36, 0], &[]).len(),
        36,
        "INQUIRY works anyway"
    );
    device.set_online(0, unit("a")).unwrap();
    assert_eq!(sense(&run(&nexus, &TEST_UNIT_READY, &[])), OFFLINE, "not heard of yet");
    assert_eq!(nexus.refresh(&everything), [0; 0]);
    assert_eq!(attentions(&nexus, 0), [MEDIUM_CHANGED, INQUIRY_CHANGED]);
    assert_eq!(attentions(&nexus, 1), []);
}

/// PERSISTENT RESERVE OUT with its parameter list.
fn reserve_out(nexus: &Nexus, action: u8, kind: u8, key: u64, new_key: u64) -> Response {
    let cdb = [0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0];
    let mut list = [key.to_be_bytes(), new_key.to_be_bytes()].concat();
    list.resize(24, 0);
    run(nexus, &cdb, &list)
}

#[test]
fn persistent_reservations_outlive_being_offline_but_not_another_disk() {
    for (serial, kept) in [("a", true), ("z", false)] {
        let device = device([(0, unit("a"))]);
        let one = attach(&device, "iqn.2026-11.example:one");
        assert_eq!(reserve_out(&one, 0x00, 0, 0, 0x11).status, Status::Good);
        // Write exclusive.
        assert_eq!(reserve_out(&one, 0x01, 0x01, 0x11, 0).status, Status::Good);
        drop(one);
        let _removal = device.set_offline(0).unwrap();
        device.set_online(0, unit(serial)).unwrap();
        let two = attach(&device, "iqn.2026-11.example:two");
        let status = run(&two, &write_10(0, 1), &[1; 512]).status;
        assert_eq!(
            status == Status::ReservationConflict,
            kept,
            "serial {serial}: {status:?}"
        );
        // It belongs to the port, whoever comes by it.
        let one = attach(&device, "iqn.2026-11.example:one");
        assert_eq!(run(&one, &write_10(0, 1), &[1; 512]).status, Status::Good);
    }
}

#[test]
fn commands_planned_before_a_unit_shrank_stay_inside() {
    let unit = unit("a");
    let device = device([(0, Arc::clone(&unit))]);
    let nexus = attach(&device, INITIATOR);
    let planned = [
        execution(&nexus, &write_10(31, 1)),
        execution(&nexus, &write_10(31, 2)),
        execution(&nexus, &write_10(40, 4)),
        execution(&nexus, &read_10(32, 1)),
    ];
    unit.resize(32 * 512).unwrap();
    assert_eq!(unit.blocks(), 32);
    let data = [7; 4 * 512];
    assert_eq!(finish(&planned[0], &data[..512]).status, Status::Good);
    for execution in &planned[1..] {
        assert_eq!(sense(&finish(execution, &data[..])), OUT_OF_RANGE);
    }
    assert_eq!(attentions(&nexus, 0), [CAPACITY_CHANGED]);
    unit.resize(64 * 512).unwrap();
    assert_eq!(attentions(&nexus, 0), [CAPACITY_CHANGED]);
    assert_eq!(
        good(&nexus, &read_10(32, 32), &[]),
        [0; 32 * 512],
        "nothing was written beyond the end"
    );
    unit.resize(64 * 512).unwrap();
    assert_eq!(attentions(&nexus, 0), [], "nothing has changed");
}

#[test]
fn a_unit_shrinks_only_when_nobody_is_beyond_its_new_end() {
    let gate = Gate::new(64);
    let unit = unit_on(gate.clone(), "slow");
    let device = device([(0, Arc::clone(&unit))]);
    let nexus = attach(&device, INITIATOR);
    let running = execution(&nexus, &write_10(60, 1));
    gate.shut();
    thread::scope(|scope| {
        let write = scope.spawn(|| finish(&running, &[1; 512]).status);
        gate.wait_for(1);
        let shrink = scope.spawn(|| unit.resize(32 * 512));
        // From the moment that it waits, nothing is let in beyond the new end; before it, everything is.
        while sense_of(&run(&nexus, &[0x34, 0, 0, 0, 0, 60, 0, 0, 1, 0], &[])) != Some(OUT_OF_RANGE) {
            thread::yield_now();
        }
        assert!(!shrink.is_finished());
        assert_eq!(gate.size_bytes(), 64 * 512);
        gate.open();
        assert_eq!(write.join().unwrap(), Status::Good);
        shrink.join().unwrap().unwrap();
    });
    assert_eq!((gate.size_bytes(), unit.blocks()), (32 * 512, 32));
}

fn sense_of(response: &Response) -> Option<(u8, u8, u8)> {
    (response.status == Status::CheckCondition).then(|| sense(response))
}

#[test]
fn a_unit_that_cannot_shrink_is_as_it_was() {
    let gate = Gate::new(64);
    let unit = unit_on(gate.clone(), "slow");
    let device = device([(0, Arc::clone(&unit))]);
    let nexus = attach(&device, INITIATOR);
    let running = execution(&nexus, &write_10(60, 1));
    gate.shut();
    thread::scope(|scope| {
        scope.spawn(|| finish(&running, &[1; 512]));
        gate.wait_for(1);
        // This takes its whole patience.
        assert!(matches!(unit.resize(32 * 512), Err(ResizeError::Busy)));
        gate.open();
    });
    assert_eq!((gate.size_bytes(), unit.blocks()), (64 * 512, 64));
    assert_eq!(attentions(&nexus, 0), []);
    assert_eq!(good(&nexus, &read_10(60, 1), &[]), [1; 512]);
}

#[test]
fn what_was_planned_before_writing_was_forbidden_does_not_write() {
    let unit = unit("a");
    let device = device([(0, Arc::clone(&unit))]);
    let mut nexus = attach(&device, INITIATOR);
    let planned = [
        execution(&nexus, &write_10(0, 1)),
        execution(&nexus, &unmap_cdb(&unmap_list(&[(0, 1)]))),
        execution(&nexus, &cdb_16(0x93, 0, 0, 1)),
        execution(&nexus, &cdb_10(0x2E, 0, 0, 1)),
    ];
    let reading = execution(&nexus, &read_10(0, 1));
    good(&nexus, &write_10(0, 1), &[9; 512]);
    assert!(unit.set_read_only(true).is_drained());
    let check = |planned: &[target_core::scsi::Execution]| {
        for execution in planned {
            assert_eq!(sense(&finish(execution, &[1; 512])), WRITE_PROTECTED, "{execution:?}");
        }
    };
    check(&planned);
    assert_eq!(finish(&reading, &[]).data_in, [9; 512]);
    assert_eq!(attentions(&nexus, 0), [MODE_CHANGED]);
    let _drain = unit.set_read_only(true);
    assert_eq!(attentions(&nexus, 0), [], "nothing has changed");
    let _drain = unit.set_read_only(false);
    assert_eq!(attentions(&nexus, 0), [MODE_CHANGED]);
    // The same for one nexus alone.
    assert_eq!(nexus.refresh(&|_| Some(Mode::ReadOnly)), [0; 0]);
    check(&planned);
    assert_eq!(attentions(&nexus, 0), [MODE_CHANGED]);
    let other = attach(&device, "iqn.2026-11.example:other");
    good(&other, &write_10(0, 1), &[8; 512]);
}

#[test]
fn whether_a_unit_is_shared_may_change() {
    let unit = LogicalUnit::new(memory(64), identity());
    let device = device([(0, Arc::clone(&unit)), (1, self::unit("b"))]);
    let one = attach(&device, "iqn.2026-11.example:one");
    let two = attach(&device, "iqn.2026-11.example:two");
    assert_eq!(run(&two, &read_10(0, 1), &[]).status, Status::ReservationConflict);
    unit.set_shared(true);
    good(&two, &read_10(0, 1), &[]);
    // Who is in stays in; who comes now does not get in.
    unit.set_shared(false);
    good(&two, &read_10(0, 1), &[]);
    good(&one, &read_10(0, 1), &[]);
    let three = attach(&device, "iqn.2026-11.example:three");
    assert_eq!(run(&three, &read_10(0, 1), &[]).status, Status::ReservationConflict);
}

#[test]
fn clearing_a_task_set_ends_everybodys_commands_and_waits_for_them() {
    let gate = Gate::new(64);
    let device = device([(0, unit_on(gate.clone(), "slow"))]);
    let (one, two) = (
        attach(&device, "iqn.2026-11.example:one"),
        attach(&device, "iqn.2026-11.example:two"),
    );
    let (hangs, late) = (execution(&one, &write_10(0, 1)), execution(&one, &write_10(1, 1)));
    gate.shut();
    thread::scope(|scope| {
        let hung = scope.spawn(|| finish(&hangs, &[1; 512]).status);
        gate.wait_for(1);
        let drain = two.clear_task_set(LUN0).unwrap();
        assert!(!drain.is_drained());
        assert_eq!(finish(&late, &[1; 512]).status, Status::TaskAborted);
        gate.open();
        hung.join().unwrap();
        assert!(drain.is_drained());
    });
    assert_eq!(
        attentions(&one, 0),
        [],
        "that is told by the transport, who knows what was lost"
    );
    assert!(two.clear_task_set(lun(5)).is_none());
}

#[test]
fn no_write_lands_after_a_removal_is_drained_whoever_writes() {
    const WRITERS: usize = 3;
    for round in 0..40_u8 {
        let medium = memory(64);
        let device = device([(0, unit_on(medium.clone(), "a"))]);
        let stop = AtomicBool::new(false);
        let nexuses: Vec<Nexus> = (0..WRITERS)
            .map(|n| attach(&device, &format!("iqn.2026-11.example:{n}")))
            .collect();
        let (at_the_end, later) = thread::scope(|scope| {
            for (lba, nexus) in nexuses.iter().enumerate() {
                let stop = &stop;
                scope.spawn(move || {
                    let mut value = 0_u8;
                    while !stop.load(Ordering::Relaxed) {
                        value = value.wrapping_add(1);
                        let response = run(nexus, &write_10(lba as u32, 1), &[value; 512]);
                        if response.status != Status::Good {
                            assert_eq!(sense(&response), NO_SUCH_LUN);
                        }
                    }
                });
            }
            thread::sleep(Duration::from_micros(u64::from(round) * 20));
            let removal = device.remove(0).unwrap();
            while !removal.is_drained() {
                thread::yield_now();
            }
            let look = || {
                let mut blocks = Vec::new();
                medium.read(0, WRITERS * 512, &mut blocks, Wait::Allowed).unwrap();
                blocks
            };
            let at_the_end = look();
            thread::sleep(Duration::from_millis(1));
            let later = look();
            stop.store(true, Ordering::Relaxed);
            (at_the_end, later)
        });
        assert!(
            at_the_end == later,
            "round {round}: somebody wrote to a unit that was gone"
        );
    }
}

#[test]
fn a_unit_does_not_shrink_while_it_is_sanitized() {
    let gate = Gate::new(64);
    let unit = unit_on(gate.clone(), "slow");
    let device = device([(0, Arc::clone(&unit))]);
    let nexus = attach(&device, INITIATOR);
    // OVERWRITE with IMMED (SBC-4 5.31), one pass of one byte: its answer is there before it is done.
    let list = [0x01, 0, 0, 1, 0xA5];
    gate.shut();
    good(&nexus, &[0x48, 0x81, 0, 0, 0, 0, 0, 0, list.len() as u8, 0], &list);
    gate.wait_for(1);
    assert!(matches!(unit.resize(32 * 512), Err(ResizeError::Busy)));
    assert_eq!(gate.size_bytes(), 64 * 512);
    gate.open();
    while unit.resize(32 * 512).is_err() {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(attentions(&nexus, 0), [CAPACITY_CHANGED]);
    assert_eq!(good(&nexus, &read_10(31, 1), &[]), [0xA5; 512]);
}
