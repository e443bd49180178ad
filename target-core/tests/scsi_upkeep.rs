//! What goes on at a medium: sanitizing, ejecting, filling up, atomic writes, and long commands among short ones.

mod scsi_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use scsi_support::cached::Cached;
use scsi_support::gate::Gate;
use scsi_support::lax::Lax;
use scsi_support::*;
use target_core::lun::{Allocation, FileMedium, FileOptions, Medium, MemoryMedium, MemoryOptions, Wait};
use target_core::scsi::{Execution, LogicalUnit, LogicalUnitOptions, MediumOptions, Nexus, Prepared, Status};

const NOT_READY: u8 = 0x2;
const IN_PROGRESS: (u8, u8, u8) = (NOT_READY, 0x04, 0x1B);
const NO_MEDIUM: (u8, u8, u8) = (NOT_READY, 0x3A, 0x00);
const TEST_UNIT_READY: [u8; 6] = [0; 6];
const REQUEST_SENSE: [u8; 6] = [0x03, 0, 0, 0, 252, 0];
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(10);

fn unit(medium: Arc<dyn Medium>, options: MediumOptions) -> Arc<LogicalUnit> {
    let options = LogicalUnitOptions {
        shared: true,
        medium: options,
        ..LogicalUnitOptions::default()
    };
    LogicalUnit::with_options(medium, identity(), options)
}

/// Two nexuses at one unit.
fn two(unit: &Arc<LogicalUnit>) -> (Nexus, Nexus) {
    let device = device([(0, Arc::clone(unit))]);
    let other = device.attach(
        "iqn.2026-11.example:other",
        "iqn.2026-11.example:other,i,0x00023d000002",
    );
    (device.attach(INITIATOR, PORT).unwrap(), other.unwrap())
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn sanitize(service_action: u8, list: &[u8]) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[..2].copy_from_slice(&[0x48, service_action]);
    cdb[7..9].copy_from_slice(&(list.len() as u16).to_be_bytes());
    cdb
}

/// Parameter list of OVERWRITE.
fn overwrite(flags_and_count: u8, pattern: &[u8]) -> Vec<u8> {
    let mut list = vec![flags_and_count, 0];
    list.extend_from_slice(&(pattern.len() as u16).to_be_bytes());
    list.extend_from_slice(pattern);
    list
}

#[test]
fn overwriting_leaves_the_pattern_everywhere() {
    let disk = nexus(memory(5000));
    good(&disk, &write_10(7, 1), &[9; 512]);
    let list = overwrite(2, &[1, 2, 3]);
    good(&disk, &sanitize(0x01, &list), &list);
    let block: Vec<u8> = [1, 2, 3].into_iter().cycle().take(512).collect();
    for lba in [0, 7, 2047, 2048, 4999] {
        assert_eq!(good(&disk, &read_10(lba, 1), &[]), block, "{lba}");
    }
    // Two passes, the second inverted.
    let list = overwrite(0x82, &[0xF0]);
    good(&disk, &sanitize(0x01, &list), &list);
    assert_eq!(good(&disk, &read_10(4999, 1), &[]), [0x0F; 512]);
    // And an odd number ends as it began.
    let list = overwrite(0x83, &[0xF0]);
    good(&disk, &sanitize(0x01, &list), &list);
    assert_eq!(good(&disk, &read_10(4999, 1), &[]), [0xF0; 512]);
}

#[test]
fn erasing_gives_everything_back() {
    let medium = memory(5000);
    let disk = nexus(Arc::clone(&medium) as Arc<dyn Medium>);
    good(&disk, &write_10(4000, 100), &[9; 51200]);
    assert!(medium.allocated_bytes() > 0);
    good(&disk, &sanitize(0x02, &[]), &[]);
    assert_eq!(medium.allocated_bytes(), 0);
    assert_eq!(good(&disk, &read_10(4000, 1), &[]), [0; 512]);
}

#[test]
fn what_sanitize_refuses() {
    let disk = nexus(memory(64));
    let list = overwrite(1, &[5]);
    let with = |byte: usize, value: u8| {
        let mut cdb = sanitize(0x01, &list);
        cdb[byte] = value;
        cdb
    };
    // CRYPTO ERASE and what is reserved, ZNR, a list without a pattern, or longer than a block.
    for cdb in [
        with(1, 0x03),
        with(1, 0x04),
        with(1, 0x00),
        with(1, 0x41),
        with(2, 1),
        with(8, 4),
    ] {
        assert_eq!(refused(&disk, &cdb, &list), INVALID_FIELD, "{cdb:02x?}");
    }
    let long = overwrite(1, &[5; 513]);
    assert_eq!(refused(&disk, &sanitize(0x01, &long), &long), INVALID_FIELD);
    for action in [0x02, 0x1F] {
        assert_eq!(
            refused(&disk, &sanitize(action, &list), &list),
            INVALID_FIELD,
            "{action}"
        );
    }
    // No pass at all, TEST, a pattern that is longer than the list, and an empty one.
    for list in [
        overwrite(0, &[5]),
        overwrite(0x21, &[5]),
        vec![1, 0, 0, 9, 5, 5],
        vec![1, 0, 0, 0, 5],
        vec![1, 0, 2, 1, 5],
    ] {
        assert_eq!(
            refused(&disk, &sanitize(0x01, &list), &list),
            (5, 0x26, 0),
            "{list:02x?}"
        );
    }
    assert_eq!(good(&disk, &read_10(0, 1), &[]), [0; 512], "nothing was done");
    // A thick medium gives nothing back.
    let options = MemoryOptions {
        allocation: Allocation::Thick,
        ..MemoryOptions::default()
    };
    let thick = nexus(Arc::new(MemoryMedium::with_options(1 << 20, options).unwrap()));
    assert_eq!(refused(&thick, &sanitize(0x02, &[]), &[]), INVALID_FIELD);
    good(&thick, &sanitize(0x01, &list), &list);
    let options = LogicalUnitOptions {
        read_only: true,
        ..LogicalUnitOptions::default()
    };
    let read_only = device([(0, LogicalUnit::with_options(memory(64), identity(), options))]);
    let read_only = read_only.attach(INITIATOR, PORT).unwrap();
    assert_eq!(refused(&read_only, &sanitize(0x01, &list), &list), (7, 0x27, 0));
}

/// While it runs, nothing else is done; whoever asks is told how far it is; it ends although its session has.
#[test]
fn sanitizing_goes_on_without_its_session() {
    let gate = Gate::new(8192);
    let unit = unit(Arc::clone(&gate) as Arc<dyn Medium>, MediumOptions::default());
    let (disk, other) = two(&unit);
    let before = execution(&other, &write_10(8000, 1));
    let list = overwrite(1, &[0xAA]);
    gate.shut();
    let mut cdb = sanitize(0x81, &list);
    good(&disk, &cdb, &list);
    gate.wait_for(1);
    drop(disk);
    for cdb in [
        &TEST_UNIT_READY[..],
        &read_10(0, 1),
        &write_10(0, 1),
        &cdb,
        &[0x1B, 0, 0, 0, 0, 0],
    ] {
        let response = run(&other, cdb, &[]);
        assert_eq!(sense(&response), IN_PROGRESS, "{cdb:02x?}");
        assert_eq!(response.sense[15], 0x80, "SKSV: it says how far it is");
    }
    for cdb in [
        &[0x12, 0, 0, 0, 96, 0][..],
        &[0x1A, 0x08, 0x3F, 0, 252, 0],
        &[0x5E, 0, 0, 0, 0, 0, 0, 0, 64, 0],
    ] {
        good(&other, cdb, &[]);
    }
    let told = good(&other, &REQUEST_SENSE, &[]);
    assert_eq!((told[2], told[12], told[13]), IN_PROGRESS);
    assert_eq!(
        sense(&finish(&before, &[1; 512])),
        IN_PROGRESS,
        "a command that was prepared before does not begin"
    );
    gate.open();
    until("the end of it", || {
        run(&other, &TEST_UNIT_READY, &[]).status == Status::Good
    });
    assert_eq!(good(&other, &read_10(8000, 1), &[]), [0xAA; 512]);
    assert_eq!(good(&other, &REQUEST_SENSE, &[])[2], 0);
    // Not immediate: it answers when it is over.
    cdb[1] = 0x01;
    good(&other, &cdb, &list);
}

#[test]
fn sanitizing_waits_for_writes_under_way_and_an_abort_does_not_stop_it() {
    let gate = Gate::new(64);
    let unit = unit(Arc::clone(&gate) as Arc<dyn Medium>, MediumOptions::default());
    let (disk, other) = two(&unit);
    let list = overwrite(1, &[0xAA]);
    let aborted = AtomicBool::new(false);
    gate.shut();
    thread::scope(|scope| {
        let write = scope.spawn(|| run(&other, &write_10(5, 1), &[1; 512]).status);
        gate.wait_for(1);
        let command = execution(&disk, &sanitize(0x01, &list));
        let sanitize = {
            let (aborted, list) = (&aborted, &list);
            scope.spawn(move || command.run(list, Wait::Allowed, aborted).unwrap().status)
        };
        until("its beginning", || {
            run(&other, &TEST_UNIT_READY, &[]).status != Status::Good
        });
        assert_eq!(gate.waiting(), 1, "it waits for the write");
        aborted.store(true, Ordering::SeqCst);
        assert_eq!(sanitize.join().unwrap(), Status::TaskAborted);
        gate.open();
        assert_eq!(write.join().unwrap(), Status::Good);
    });
    until("the end of it", || {
        run(&other, &TEST_UNIT_READY, &[]).status == Status::Good
    });
    assert_eq!(good(&other, &read_10(5, 1), &[]), [0xAA; 512]);
}

#[test]
fn a_sanitize_that_failed_is_remembered() {
    // No room for all of it.
    let medium = || Arc::new(MemoryMedium::with_limit(1 << 20, 512, 128 * 1024).unwrap());
    let failed = (3, 0x31, 0x03);
    let list = overwrite(1, &[7]);
    for may_exit in [false, true] {
        let disk = nexus(medium());
        let flag = u8::from(may_exit) << 5;
        assert_eq!(refused(&disk, &sanitize(0x01 | flag, &list), &list), failed);
        assert_eq!(refused(&disk, &TEST_UNIT_READY, &[]), failed);
        assert_eq!(refused(&disk, &read_10(0, 1), &[]), failed);
        assert_eq!(refused(&disk, &write_10(0, 1), &[1; 512]), failed);
        if may_exit {
            good(&disk, &sanitize(0x1F, &[]), &[]);
            good(&disk, &read_10(0, 1), &[]);
        } else {
            assert_eq!(refused(&disk, &sanitize(0x1F, &[]), &[]), INVALID_FIELD);
        }
        // Another that succeeds leads out of it as well.
        good(&disk, &sanitize(0x02, &[]), &[]);
        assert_eq!(good(&disk, &read_10(0, 1), &[]), [0; 512]);
        good(&disk, &sanitize(0x1F, &[]), &[]);
    }
}

#[test]
fn sanitizing_ends_when_the_unit_is_put_away() {
    let gate = Gate::new(8192);
    let unit = unit(Arc::clone(&gate) as Arc<dyn Medium>, MediumOptions::default());
    let (disk, _other) = two(&unit);
    let list = overwrite(31, &[7]);
    gate.shut();
    good(&disk, &sanitize(0x81, &list), &list);
    gate.wait_for(1);
    thread::scope(|scope| {
        let stopped = scope.spawn(|| unit.stop_background_work());
        thread::sleep(Duration::from_millis(50));
        assert!(!stopped.is_finished(), "it waits for the write under way");
        gate.open();
        stopped.join().unwrap();
    });
    assert_eq!(refused(&disk, &TEST_UNIT_READY, &[]), (3, 0x31, 0x03));
}

#[test]
fn a_removable_medium_comes_and_goes() {
    let eject = [0x1B, 0, 0, 0, 0x02, 0];
    let load = [0x1B, 0, 0, 0, 0x03, 0];
    let prevent = |yes: u8| [0x1E, 0, 0, 0, yes, 0];
    let options = MediumOptions {
        removable: true,
        ..MediumOptions::default()
    };
    let unit = unit(memory(64), options);
    let (disk, other) = two(&unit);
    assert_eq!(good(&disk, &[0x12, 0, 0, 0, 96, 0], &[])[1], 0x80, "RMB");
    good(&disk, &write_10(0, 1), &[3; 512]);
    let late = execution(&disk, &write_10(0, 1));
    // Each nexus for itself.
    good(&disk, &prevent(1), &[]);
    good(&other, &prevent(1), &[]);
    assert_eq!(refused(&disk, &eject, &[]), (5, 0x53, 0x02));
    good(&disk, &prevent(0), &[]);
    assert_eq!(refused(&disk, &eject, &[]), (5, 0x53, 0x02), "the other still does");
    drop(other);
    good(&disk, &eject, &[]);
    assert!(!unit.is_loaded());
    good(&disk, &eject, &[]);
    for cdb in [
        &TEST_UNIT_READY[..],
        &read_10(0, 1),
        &cdb_10(0x25, 0, 0, 0),
        &cdb_10(0x35, 0, 0, 0),
        &cdb_16(0x9E, 0x10, 0, 32),
        &[0x1B, 0, 0, 0, 0x01, 0],
    ] {
        assert_eq!(refused(&disk, cdb, &[]), NO_MEDIUM, "{cdb:02x?}");
    }
    assert_eq!(sense(&finish(&late, &[4; 512])), NO_MEDIUM, "prepared before");
    let told = good(&disk, &REQUEST_SENSE, &[]);
    assert_eq!((told[2], told[12], told[13]), NO_MEDIUM);
    good(&disk, &[0x1A, 0x08, 0x3F, 0, 252, 0], &[]);
    let (_, other) = two(&unit);
    good(&disk, &load, &[]);
    assert_eq!(good(&disk, &read_10(0, 1), &[]), [3; 512]);
    assert_eq!(
        refused(&other, &TEST_UNIT_READY, &[]),
        (6, 0x28, 0x00),
        "the others hear of it"
    );
    good(&other, &TEST_UNIT_READY, &[]);
    // A reset ends every prevention.
    good(&other, &prevent(1), &[]);
    other.reset_lun(LUN0).unwrap();
    assert_eq!(refused(&disk, &TEST_UNIT_READY, &[]).0, 6);
    good(&disk, &eject, &[]);
}

#[test]
fn what_cannot_be_removed_is_not() {
    let disk = nexus(memory(64));
    assert_eq!(good(&disk, &[0x12, 0, 0, 0, 96, 0], &[])[1], 0x00);
    assert_eq!(refused(&disk, &[0x1B, 0, 0, 0, 0x02, 0], &[]), INVALID_FIELD);
    assert_eq!(refused(&disk, &[0x1B, 0, 0, 0, 0x03, 0], &[]), INVALID_FIELD);
    good(&disk, &TEST_UNIT_READY, &[]);
}

#[test]
fn a_threshold_is_told_once_until_there_is_space_again() {
    const MIB: usize = 1 << 20;
    let medium = Arc::new(MemoryMedium::with_limit(1 << 30, 512, 64 << 20).unwrap());
    let options = MediumOptions {
        threshold_percent: Some(50),
        ..MediumOptions::default()
    };
    let (disk, other) = two(&unit(medium, options));
    let threshold = (6, 0x38, 0x07);
    let write = |mib: u32| good(&disk, &write_10(mib * 2048, 2048), &vec![1; MIB]);
    (0..31).for_each(|mib| drop(write(mib)));
    good(&other, &TEST_UNIT_READY, &[]);
    let (reached, mut at) = ((0x6, 0x38, 0x07), 31);
    // It is looked at now and then, not at every write.
    while run(&other, &TEST_UNIT_READY, &[]).status == Status::Good {
        assert!(at < 31 + 17, "never told");
        run(&disk, &write_10(at * 2048, 2048), &vec![1; MIB]);
        at += 1;
    }
    assert_eq!(reached, threshold);
    good(&other, &TEST_UNIT_READY, &[]);
    while run(&disk, &TEST_UNIT_READY, &[]).status != Status::Good {}
    // Full: the writes fail, and it is not told a second time.
    while run(&disk, &write_10(at * 2048, 2048), &vec![1; MIB]).status == Status::Good {
        at += 1;
    }
    assert_eq!(
        refused(&disk, &write_10(at * 2048, 2048), &vec![1; MIB]),
        (7, 0x27, 0x07)
    );
    good(&other, &TEST_UNIT_READY, &[]);
    // Everything that was written is there, and once there is space again it is told again.
    assert_eq!(good(&disk, &read_10(30 * 2048, 1), &[]), [1; 512]);
    let list = unmap_list(&[(0, at * 2048)]);
    good(&disk, &unmap_cdb(&list), &list);
    for round in 0..2 {
        (0..40).for_each(|mib| drop(run(&disk, &write_10(mib * 2048, 2048), &vec![round; MIB])));
    }
    assert_eq!(refused(&other, &TEST_UNIT_READY, &[]), threshold);
}

#[test]
fn a_write_is_atomic_where_the_medium_is() {
    let write = |lba: u64, blocks: u16| {
        let mut cdb = cdb_16(0x9C, 0, lba, 0);
        cdb[12..14].copy_from_slice(&blocks.to_be_bytes());
        cdb
    };
    let disk = nexus(memory(8192));
    let limits = good(&disk, &[0x12, 1, 0xB0, 0, 255, 0], &[]);
    assert_eq!(limits[44..48], 2048_u32.to_be_bytes(), "MAXIMUM ATOMIC TRANSFER LENGTH");
    assert_eq!(limits[48..64], [0; 16], "no alignment, no boundaries");
    good(&disk, &write(100, 2048), &vec![5; 1 << 20]);
    assert_eq!(good(&disk, &read_10(100 + 2047, 2), &[]), [[5; 512], [0; 512]].concat());
    good(&disk, &write(0, 0), &[]);
    assert_eq!(refused(&disk, &write(0, 2049), &[]), INVALID_FIELD);
    assert_eq!(refused(&disk, &write(8191, 2), &[]), OUT_OF_RANGE);
    let mut with_boundary = write(0, 8);
    with_boundary[11] = 8;
    assert_eq!(refused(&disk, &with_boundary, &[]), INVALID_FIELD);
    let mut protected = write(0, 1);
    protected[1] = 0x20;
    assert_eq!(refused(&disk, &protected, &[]), INVALID_FIELD);
    assert_eq!(
        refused(&disk, &write(0, 2), &[1; 512]),
        (5, 0x0E, 0x03),
        "less than all is nothing"
    );
    assert_eq!(good(&disk, &read_10(0, 2), &[]), [0; 1024]);

    // No room for all of it: nothing is written.
    let medium = MemoryMedium::with_limit(4 << 20, 512, 2 * 65536).unwrap();
    let full = nexus(Arc::new(medium));
    assert_eq!(refused(&full, &write(0, 384), &vec![5; 384 * 512]), (7, 0x27, 0x07));
    assert_eq!(good(&full, &read_10(0, 384), &[]), vec![0; 384 * 512]);

    let folder = tempfile::tempdir().unwrap();
    let file = FileMedium::create(&folder.path().join("lun"), 1 << 20, FileOptions::default()).unwrap();
    let disk = nexus(Arc::new(file));
    assert_eq!(refused(&disk, &write(0, 1), &[1; 512]), INVALID_OPCODE);
    let asked = good(&disk, &[0xA3, 0x0C, 0x01, 0x9C, 0, 0, 0, 0, 0, 64, 0, 0], &[]);
    assert_eq!(asked[1] & 0x07, 0x01, "not supported");
}

/// Readers see all of an atomic write, or of a COMPARE AND WRITE, or nothing.
#[test]
fn nobody_reads_half_of_an_atomic_write() {
    const BLOCKS: u16 = 512;
    let disk = nexus(memory(2048));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let seen = good(&disk, &read_10(64, BLOCKS), &[]);
                    assert!(
                        seen.iter().all(|&byte| byte == seen[0]),
                        "{} and {}",
                        seen[0],
                        seen[seen.len() - 1]
                    );
                }
            });
        }
        let mut atomic = cdb_16(0x9C, 0, 64, 0);
        atomic[12..14].copy_from_slice(&BLOCKS.to_be_bytes());
        for round in 0..300_u32 {
            good(&disk, &atomic, &vec![round as u8; usize::from(BLOCKS) * 512]);
        }
        over.store(true, Ordering::SeqCst);
    });
}

fn pattern(lba: u64, blocks: u32) -> [u8; 16] {
    cdb_16(0x93, 0, lba, blocks)
}

/// A pattern over terabytes takes for ever. Others are served meanwhile, at the very blocks it is at too, and it
/// ends as soon as it is aborted, or the unit reset.
#[test]
fn a_long_command_lets_others_in_and_is_aborted_at_once() {
    let medium = Arc::new(MemoryMedium::with_limit(4 << 40, 512, 1 << 42).unwrap());
    let gate = AtomicBool::new(false);
    let disk = nexus(Arc::clone(&medium) as Arc<dyn Medium>);
    let begin = |disk: &Nexus| match disk.prepare(LUN0, &pattern(0, u32::MAX)) {
        Prepared::Run(execution) => execution,
        Prepared::Done(response) => panic!("{response:02x?}"),
    };
    for by_reset in [false, true] {
        gate.store(false, Ordering::SeqCst);
        let long: Execution = begin(&disk);
        thread::scope(|scope| {
            let running = scope.spawn(|| long.run(&[6; 512], Wait::Allowed, &gate).unwrap().status);
            until("its beginning", || medium.allocated_bytes() > 8 << 20);
            for lba in [0, 1 << 20] {
                let began = Instant::now();
                good(&disk, &write_10(lba, 8), &[1; 4096]);
                good(&disk, &read_10(lba, 8), &[]);
                let mut swap = cdb_16(0x89, 0, u64::from(lba), 0);
                swap[13] = 1;
                run(&disk, &swap, &[0; 1024]);
                assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            }
            assert!(!running.is_finished());
            let aborted = Instant::now();
            if by_reset {
                disk.reset_lun(LUN0).unwrap();
            } else {
                gate.store(true, Ordering::SeqCst);
            }
            assert_eq!(running.join().unwrap(), Status::TaskAborted);
            assert!(
                aborted.elapsed() < Duration::from_millis(500),
                "{:?}",
                aborted.elapsed()
            );
        });
        let began = Instant::now();
        if by_reset {
            assert_eq!(refused(&disk, &TEST_UNIT_READY, &[]).0, 6);
        }
        // Zeroes over terabytes take no time.
        good(&disk, &cdb_16(0x93, 0x09, 0, u32::MAX), &[]);
        let list = unmap_list(&[(0, u32::MAX), (1 << 32, u32::MAX)]);
        good(&disk, &unmap_cdb(&list), &list);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(medium.allocated_bytes(), 0);
    }
}

/// On real file systems: a terabyte is given back in moments.
#[test]
fn a_terabyte_of_file_is_given_back_in_moments() {
    for folder in [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()] {
        let file = FileMedium::create(&folder.path().join("lun"), 1 << 40, FileOptions::default()).unwrap();
        let disk = nexus(Arc::new(file));
        for lba in (0..1 << 31).step_by(1 << 27) {
            good(&disk, &write_10(lba, 16), &[1; 8192]);
        }
        let began = Instant::now();
        let list = unmap_list(&[(0, 1 << 31)]);
        good(&disk, &unmap_cdb(&list), &list);
        good(&disk, &cdb_16(0x93, 0x09, 0, 1 << 31), &[]);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let status = good(&disk, &cdb_16(0x9E, 0x12, 0, 24), &[]);
        assert_eq!(
            (&status[16..20], status[20]),
            (&(1_u32 << 31).to_be_bytes()[..], 1),
            "all of it is a hole"
        );
    }
}

#[test]
fn sanitizing_waits_for_a_write_that_waits_for_a_worker() {
    let gate = Gate::new(64);
    let unit = unit(Arc::clone(&gate) as Arc<dyn Medium>, MediumOptions::default());
    let (disk, other) = two(&unit);
    let never = AtomicBool::new(false);
    // It stops half-way and is to be made again by a worker, but all workers are busy for a while.
    gate.shut();
    let write = execution(&other, &write_10(5, 2));
    assert!(write.run(&[1; 1024], Wait::Never, &never).is_err());
    gate.open();
    good(&disk, &sanitize(0x82, &[]), &[]);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(refused(&disk, &TEST_UNIT_READY, &[]), IN_PROGRESS);
    let late = write.run(&[1; 1024], Wait::Allowed, &never).unwrap();
    assert_eq!(sense(&late), IN_PROGRESS);
    drop(write);
    until("the end of it", || {
        run(&disk, &TEST_UNIT_READY, &[]).status == Status::Good
    });
    assert_eq!(good(&disk, &read_10(5, 2), &[]), [0; 1024]);
}

#[test]
fn a_reset_does_not_wait_for_the_end_of_sanitizing() {
    let gate = Gate::new(64);
    let unit = unit(Arc::clone(&gate) as Arc<dyn Medium>, MediumOptions::default());
    let (disk, other) = two(&unit);
    let list = overwrite(1, &[0xAA]);
    gate.shut();
    thread::scope(|scope| {
        let sanitize = scope.spawn(|| run(&disk, &sanitize(0x01, &list), &list).status);
        gate.wait_for(1);
        let reset = other.reset_lun(LUN0).unwrap();
        assert!(
            reset.wait(Duration::from_secs(2)),
            "the command is gone, its work goes on"
        );
        assert_eq!(sanitize.join().unwrap(), Status::TaskAborted);
        assert_eq!(refused(&other, &TEST_UNIT_READY, &[]), (0x6, 0x29, 0x03));
        assert_eq!(refused(&other, &TEST_UNIT_READY, &[]), IN_PROGRESS);
        gate.open();
    });
    until("the end of it", || {
        run(&other, &TEST_UNIT_READY, &[]).status == Status::Good
    });
    assert_eq!(good(&other, &read_10(63, 1), &[]), [0xAA; 512]);
}

#[test]
fn a_unit_that_becomes_smaller_meanwhile_refuses_what_is_beyond_its_end() {
    let gate = Gate::new(64);
    let medium = Lax::new(&gate);
    let disk = nexus(Arc::clone(&medium) as Arc<dyn Medium>);
    for cdb in [cdb_16(0x93, 0x01, 60, 0), {
        let mut cdb = cdb_16(0x9E, 0x12, 60, 0);
        cdb[13] = 64;
        cdb
    }] {
        medium.melts_by_bytes.store(0, Ordering::SeqCst);
        medium.resize(64 * 512).unwrap();
        medium.melts_by_bytes.store(16 * 512, Ordering::SeqCst);
        assert_eq!(refused(&disk, &cdb, &[]), OUT_OF_RANGE, "{cdb:02x?}");
    }
}

#[test]
fn another_size_is_told_of_even_if_it_could_not_be_made_stable() {
    let medium = Cached::new(64);
    let unit = unit(Arc::clone(&medium) as Arc<dyn Medium>, MediumOptions::default());
    let (disk, _other) = two(&unit);
    medium.fail();
    assert!(unit.resize(128 * 512).is_err());
    assert_eq!(refused(&disk, &TEST_UNIT_READY, &[]), (0x6, 0x2A, 0x09));
    assert_eq!(good(&disk, &cdb_10(0x25, 0, 0, 0), &[])[..4], [0, 0, 0, 127]);
    assert!(unit.resize(128 * 512).is_err());
    good(&disk, &TEST_UNIT_READY, &[]);
}
