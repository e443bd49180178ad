//! What a reset does to commands that were there before it, of whichever nexus.

mod scsi_support;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use scsi_support::gate::Gate;
use scsi_support::*;
use target_core::lun::{Medium, Wait};
use target_core::scsi::{Execution, LogicalUnit, Nexus, Status};

fn two_nexuses(medium: Arc<dyn Medium>) -> (Nexus, Nexus) {
    let device = device([(0, LogicalUnit::shared(medium, identity()))]);
    let attach = |name: &str| device.attach(name, &format!("{name},i,0x1")).unwrap();
    (attach("iqn.2026-11.example:one"), attach("iqn.2026-11.example:two"))
}

fn status_of(execution: &Execution, data: &[u8]) -> Status {
    let response = execution.run(data, Wait::Allowed, &AtomicBool::new(false)).unwrap();
    assert_eq!(response.sense, [0; 0]);
    response.status
}

#[test]
fn a_command_from_before_a_reset_does_nothing() {
    let (one, two) = two_nexuses(memory(64));
    type Reset = fn(&Nexus);
    let resets: [Reset; 2] = [
        |nexus| assert!(nexus.reset_lun(LUN0).unwrap().is_drained()),
        |nexus| assert!(nexus.reset_target().iter().all(|drain| drain.is_drained())),
    ];
    for reset in resets {
        let late = [execution(&one, &write_10(0, 1)), execution(&two, &write_10(1, 1))];
        reset(&two);
        for execution in &late {
            assert_eq!(status_of(execution, &[7; 512]), Status::TaskAborted);
        }
        // Each hears of it, and then goes on.
        for nexus in [&one, &two] {
            assert_eq!(sense(&run(nexus, &[0; 6], &[])).0, 0x6);
        }
        assert_eq!(good(&one, &read_10(0, 2), &[]), [0; 1024]);
        good(&one, &write_10(2, 1), &[1; 512]);
    }
}

#[test]
fn a_reset_is_drained_when_what_ran_before_it_is_done() {
    let gate = Gate::new(64);
    let (one, two) = two_nexuses(Arc::clone(&gate) as Arc<dyn Medium>);
    let running = execution(&one, &write_10(0, 1));
    gate.shut();
    thread::scope(|scope| {
        let running = scope.spawn(|| status_of(&running, &[1; 512]));
        gate.wait_for(1);
        let first = two.reset_lun(LUN0).unwrap();
        assert!(!first.is_drained());
        // A second reset waits for the same command, although it is two generations old by then.
        let second = two.reset_lun(LUN0).unwrap();
        assert!(!second.is_drained() && !first.is_drained());
        let third = two.reset_target().remove(0);
        assert!(!third.is_drained() && !second.is_drained() && !first.is_drained());
        gate.open();
        assert_eq!(running.join().unwrap(), Status::Good, "it was too late to stop it");
        assert!(third.is_drained() && second.is_drained() && first.is_drained());
    });
}

#[test]
fn a_reset_does_not_wait_for_what_comes_after_it() {
    let gate = Gate::new(64);
    let (one, two) = two_nexuses(Arc::clone(&gate) as Arc<dyn Medium>);
    let reset = two.reset_lun(LUN0).unwrap();
    assert_eq!(refused(&one, &[0; 6], &[]), (0x6, 0x29, 0x03));
    let younger = execution(&one, &write_10(0, 1));
    gate.shut();
    thread::scope(|scope| {
        let younger = scope.spawn(|| status_of(&younger, &[1; 512]));
        gate.wait_for(1);
        assert!(reset.is_drained());
        gate.open();
        assert_eq!(younger.join().unwrap(), Status::Good);
    });
}

#[test]
fn a_long_command_stops_at_a_reset() {
    let gate = Gate::new(1 << 17);
    let (one, two) = two_nexuses(Arc::clone(&gate) as Arc<dyn Medium>);
    let long = execution(&one, &cdb_16(0x93, 0, 0, 1 << 17));
    gate.shut();
    thread::scope(|scope| {
        let long = scope.spawn(|| status_of(&long, &[9; 512]));
        gate.wait_for(1);
        let reset = two.reset_lun(LUN0).unwrap();
        gate.open();
        assert_eq!(long.join().unwrap(), Status::TaskAborted);
        assert!(reset.is_drained());
    });
    assert_eq!(refused(&one, &[0; 6], &[]), (0x6, 0x29, 0x03));
    assert_eq!(good(&one, &read_10((1 << 17) - 1, 1), &[]), [0; 512]);
}

#[test]
fn a_stranger_resets_nothing() {
    let held = LogicalUnit::new(memory(64), identity());
    let free = LogicalUnit::new(memory(64), identity());
    let holder = device([(0, Arc::clone(&held))]).attach(INITIATOR, PORT).unwrap();
    let stranger = device([(0, held), (1, free)])
        .attach("iqn.2026-11.example:other", "iqn.2026-11.example:other,i,0x1")
        .unwrap();
    let lun1 = [0, 1, 0, 0, 0, 0, 0, 0];
    assert!(holder.is_admitted(LUN0) && !stranger.is_admitted(LUN0) && stranger.is_admitted(lun1));
    assert!(!stranger.is_admitted([0, 2, 0, 0, 0, 0, 0, 0]), "there is no such LUN");
    let write = execution(&holder, &write_10(0, 1));
    assert!(stranger.reset_lun(LUN0).is_none());
    assert!(stranger.reset_lun([0, 2, 0, 0, 0, 0, 0, 0]).is_none());
    assert_eq!(stranger.reset_target().len(), 1);
    assert_eq!(status_of(&write, &[1; 512]), Status::Good);
    good(&holder, &[0; 6], &[]);
    drop((write, holder));
    assert!(stranger.is_admitted(LUN0), "the holder has left");
}

#[test]
fn whose_tasks_were_cleared_hears_of_it_by_their_status_alone() {
    let (one, two) = two_nexuses(memory(64));
    let write = execution(&one, &write_10(0, 1));
    assert!(!write.is_aborted());
    assert!(two.clear_task_set(LUN0).unwrap().is_drained());
    assert!(write.is_aborted());
    assert_eq!(status_of(&write, &[1; 512]), Status::TaskAborted);
    good(&one, &[0; 6], &[]);
    good(&two, &[0; 6], &[]);
}
