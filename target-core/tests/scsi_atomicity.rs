//! Commands that read, compare and write back: nothing else changes the blocks in between.

mod scsi_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use scsi_support::gate::Gate;
use scsi_support::*;
use target_core::lun::{Medium, Wait};
use target_core::scsi::{Nexus, Status, WouldBlock};

fn compare_and_write_cdb(lba: u64, blocks: u8) -> [u8; 16] {
    let mut cdb = cdb_16(0x89, 0, lba, 0);
    cdb[13] = blocks;
    cdb
}

fn swap(old: u8, new: u8) -> Vec<u8> {
    [[old; 1024], [new; 1024]].concat()
}

#[test]
fn a_compare_and_write_is_not_begun_where_it_might_stop_half_way() {
    let gate = Gate::new(64);
    let disk = nexus(Arc::clone(&gate) as Arc<dyn Medium>);
    let cancel = AtomicBool::new(false);
    let execution = execution(&disk, &compare_and_write_cdb(0, 2));
    gate.shut();
    assert_eq!(execution.run(&swap(0, 1), Wait::Never, &cancel), Err(WouldBlock));
    gate.open();
    let response = execution.run(&swap(0, 1), Wait::Allowed, &cancel).unwrap();
    assert_eq!(response.status, Status::Good, "{:02x?}", response.sense);
    assert_eq!(good(&disk, &read_10(0, 2), &[]), [1; 1024]);
}

/// Every way to change a block waits for a COMPARE AND WRITE that stands between its two halves, and does not
/// wait where it may not.
#[test]
fn what_changes_blocks_waits_for_a_compare_and_write() {
    let list = unmap_list(&[(0, 2)]);
    let changes: [(&[u8], Vec<u8>); 7] = [
        (&write_10(0, 2), vec![2; 1024]),
        (&cdb_10(0x2E, 0, 0, 2), vec![2; 1024]),
        (&cdb_10(0x41, 0, 0, 2), vec![2; 512]),
        (&cdb_10(0x41, 0, 0, 2), vec![0; 512]),
        (&cdb_16(0x93, 1, 0, 2), vec![]),
        (&cdb_16(0x8B, 0, 0, 2), vec![2; 1024]),
        (&unmap_cdb(&list), list.clone()),
    ];
    for (cdb, data) in changes {
        let gate = Gate::new(64);
        let disk = nexus(Arc::clone(&gate) as Arc<dyn Medium>);
        let change = execution(&disk, cdb);
        gate.shut();
        thread::scope(|scope| {
            let swapped = scope.spawn(|| run(&disk, &compare_and_write_cdb(0, 2), &swap(0, 1)).status);
            gate.wait_for(1);
            let cancel = AtomicBool::new(false);
            assert_eq!(change.run(&data, Wait::Never, &cancel), Err(WouldBlock), "{cdb:02x?}");
            let changed = scope.spawn(|| {
                let response = change.run(&data, Wait::Allowed, &AtomicBool::new(false)).unwrap();
                response.status
            });
            thread::sleep(Duration::from_millis(30));
            assert!(!changed.is_finished() && gate.waiting() == 1, "{cdb:02x?}");
            gate.open();
            assert_eq!(swapped.join().unwrap(), Status::Good);
            assert_eq!(changed.join().unwrap(), Status::Good, "{cdb:02x?}");
        });
        assert_ne!(good(&disk, &read_10(0, 2), &[]), [1; 1024], "{cdb:02x?} was lost");
    }
}

fn block(disk: &Nexus) -> [u64; 64] {
    let bytes = good(disk, &read_10(0, 1), &[]);
    std::array::from_fn(|at| u64::from_be_bytes(bytes[8 * at..8 * at + 8].try_into().unwrap()))
}

fn bytes(words: &[u64; 64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Threads add to the first word by COMPARE AND WRITE and keep the rest as they find it; another stamps the
/// whole block, the second word being its number and the first zero. An addition that was made without having
/// seen the last stamp would bring back the one before.
#[test]
fn a_plain_write_is_never_lost_to_a_compare_and_write() {
    const STAMPS: u64 = 3000;
    let disk = nexus(Gate::new(8));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let old = block(&disk);
                    let mut new = old;
                    new[0] += 1;
                    run(
                        &disk,
                        &compare_and_write_cdb(0, 1),
                        &[bytes(&old), bytes(&new)].concat(),
                    );
                }
            });
        }
        for stamp in 1..=STAMPS {
            let mut words = [0; 64];
            words[1] = stamp;
            good(&disk, &write_10(0, 1), &bytes(&words));
            let seen = block(&disk)[1];
            if seen != stamp {
                over.store(true, Ordering::SeqCst);
                panic!("stamp {stamp} was overwritten with {seen}");
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    assert_eq!(block(&disk)[1], STAMPS);
}

/// A write that may not wait can stop half-way. Until it has been made again nobody compares with half of it; and if
/// it never is, because it was aborted, nobody waits for it.
#[test]
fn half_a_write_is_not_compared_with() {
    let gate = Gate::new(64);
    let disk = nexus(Arc::clone(&gate) as Arc<dyn Medium>);
    let cancel = AtomicBool::new(false);
    let compare = |old, new| run(&disk, &compare_and_write_cdb(0, 2), &swap(old, new)).status;
    for aborted in [false, true] {
        good(&disk, &write_10(0, 2), &[0; 1024]);
        let write = execution(&disk, &write_10(0, 2));
        gate.shut();
        assert_eq!(write.run(&[3; 1024], Wait::Never, &cancel), Err(WouldBlock));
        gate.open();
        assert_eq!(
            good(&disk, &read_10(0, 2), &[]),
            [[3; 512], [0; 512]].concat(),
            "half of it"
        );
        assert_eq!(compare(3, 4), Status::Busy, "neither equal nor different");
        if aborted {
            drop(write);
            assert_eq!(compare(3, 4), Status::CheckCondition);
        } else {
            let response = write.run(&[3; 1024], Wait::Allowed, &cancel).unwrap();
            assert_eq!(response.status, Status::Good);
            assert_eq!(compare(3, 4), Status::Good);
        }
    }
}
