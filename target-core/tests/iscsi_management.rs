//! Task management, and the order in which commands are taken and run.

mod support;

use iscsi_pdu::{
    Isid, Lun, RESERVED_TAG, RejectReason, Response, ScsiCommand, Serial, TaskFunction, TaskManagementRequest,
    TaskOutcome,
};
use support::answers::{collect_data_in, itt, r2t, read, reject_reason, sense, status};
use support::{Answer, Direction, TARGET, Wire, login_request, node, node_with, node_with_luns, read10, text, write10};
use target_core::iscsi::Limits;

/// TASK ABORTED (SAM-5 5.3.1).
const TASK_ABORTED: u8 = 0x40;

#[test]
fn commands_are_taken_in_the_order_of_their_numbers() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
    let first = wire.command(&write10(0, 1), Direction::Write, 512);
    let second = wire.command(&write10(0, 1), Direction::Write, 512);
    let third = wire.command(&read10(0, 1), Direction::Read, 512);
    wire.send(&third, &[]);
    wire.send(&second, &[2; 512]);
    assert!(wire.answers.is_empty(), "both wait for the first");
    wire.send(&second, &[9; 512]);
    wire.send(&first, &[1; 512]);
    let order: Vec<u32> = wire.answers.iter().map(|(response, _)| itt(response)).collect();
    assert_eq!(order, [first.itt, second.itt, third.itt]);
    let (_, data) = wire.answers.pop_back().expect("the read");
    assert_eq!(data, [2; 512], "the duplicate of the second was ignored");
    wire.answers.clear();
    // Too low and too high: no answer at all.
    wire.send(&first, &[1; 512]);
    let beyond = ScsiCommand {
        cmd_sn: wire.max_cmd_sn + 1,
        itt: 999,
        ..third.clone()
    };
    wire.send(&beyond, &[]);
    assert!(wire.answers.is_empty());
    wire.assert_alive();
}

#[test]
fn a_task_tag_in_use_is_refused() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
    wire.hold = true;
    let first = wire.command(&read10(0, 1), Direction::Read, 512);
    let second = ScsiCommand {
        itt: first.itt,
        ..wire.command(&read10(1, 1), Direction::Read, 512)
    };
    wire.send(&first, &[]);
    wire.send(&second, &[]);
    assert_eq!(reject_reason(wire.next()), RejectReason::TaskInProgress);
    wire.assert_alive();
}

fn manage(wire: &mut Wire, function: TaskFunction, lun: u16, referenced: u32, ref_cmd_sn: Serial) -> u32 {
    let itt = wire.next_itt;
    wire.next_itt += 1;
    let request = TaskManagementRequest {
        immediate: true,
        function,
        lun: Lun::from_number(lun),
        itt,
        referenced_task_tag: referenced,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
        ref_cmd_sn,
        exp_data_sn: 0,
    };
    wire.send(&request, &[]);
    itt
}

fn outcome(answer: Answer) -> TaskOutcome {
    match answer {
        (Response::TaskManagement(response), _) => response.response,
        other => panic!("expected a task management response, got {other:?}"),
    }
}

#[test]
fn an_abort_waits_for_the_worker_and_its_completion_goes_nowhere() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
    wire.hold = true;
    let command = wire.command(&write10(0, 1), Direction::Write, 512);
    wire.send(&command, &[1; 512]);
    manage(&mut wire, TaskFunction::AbortTask, 0, command.itt, command.cmd_sn);
    assert!(wire.answers.is_empty(), "a worker is still at it");
    let job = wire.held.pop().expect("the write");
    assert!(
        job.cancel.load(std::sync::atomic::Ordering::Relaxed),
        "the worker is told"
    );
    wire.run(job);
    wire.pump();
    assert_eq!(outcome(wire.next()), TaskOutcome::Complete);
    assert!(wire.answers.is_empty(), "no status for an aborted command");
}

#[test]
fn an_abort_answers_within_its_bound_when_the_medium_hangs() {
    let limits = Limits::default();
    let bound_ms = limits.abort_wait_ms;
    let mut wire = Wire::logged_in(&node(limits), &[]);
    wire.hold = true;
    let command = wire.command(&read10(0, 1), Direction::Read, 512);
    wire.send(&command, &[]);
    manage(&mut wire, TaskFunction::LogicalUnitReset, 0, RESERVED_TAG, Serial(0));
    wire.sleep_ms(bound_ms - 1);
    assert!(wire.answers.is_empty());
    wire.sleep_ms(2);
    assert_eq!(
        outcome(wire.next()),
        TaskOutcome::Rejected,
        "it cannot be said that nothing lands any more"
    );
    // The tag is free again; the late end of the old command is not taken for the new one's.
    wire.hold = false;
    let late = wire.held.pop().expect("the read");
    let again = ScsiCommand {
        itt: command.itt,
        ..wire.command(&[0; 6], Direction::None, 0)
    };
    wire.hold = true;
    wire.send(&again, &[]);
    wire.run(late);
    wire.pump();
    let answers: Vec<u32> = wire.answers.iter().map(|(response, _)| itt(response)).collect();
    assert!(answers.len() <= 1, "only the new command is answered: {answers:?}");
}

#[test]
fn what_cannot_be_aborted_is_named() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
    let before = wire.cmd_sn.0.wrapping_sub(1);
    let table = [
        (
            TaskFunction::AbortTask,
            0,
            12345,
            Serial(before),
            TaskOutcome::NoSuchTask,
        ),
        (
            TaskFunction::AbortTaskSet,
            9,
            RESERVED_TAG,
            Serial(0),
            TaskOutcome::NoSuchLun,
        ),
        (
            TaskFunction::LogicalUnitReset,
            9,
            RESERVED_TAG,
            Serial(0),
            TaskOutcome::NoSuchLun,
        ),
        (
            TaskFunction::AbortTaskSet,
            0,
            RESERVED_TAG,
            Serial(0),
            TaskOutcome::Complete,
        ),
        (
            TaskFunction::TargetWarmReset,
            0,
            RESERVED_TAG,
            Serial(0),
            TaskOutcome::Complete,
        ),
        (
            TaskFunction::TaskReassign,
            0,
            1,
            Serial(0),
            TaskOutcome::ReassignNotSupported,
        ),
        (
            TaskFunction::ClearAca,
            0,
            RESERVED_TAG,
            Serial(0),
            TaskOutcome::NotSupported,
        ),
    ];
    for (function, lun, tag, ref_cmd_sn, expected) in table {
        manage(&mut wire, function, lun, tag, ref_cmd_sn);
        assert_eq!(outcome(wire.next()), expected, "{function:?}");
    }
}

#[test]
fn a_command_aborted_before_it_came_leaves_no_gap() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
    let lost = wire.command(&write10(0, 1), Direction::Write, 512);
    let next = wire.command(&read10(0, 1), Direction::Read, 512);
    wire.send(&next, &[]);
    assert!(wire.answers.is_empty());
    manage(&mut wire, TaskFunction::AbortTask, 0, lost.itt, lost.cmd_sn);
    let mut seen: Vec<u32> = wire.answers.iter().map(|(response, _)| itt(response)).collect();
    seen.retain(|itt| *itt == next.itt);
    assert_eq!(seen.len(), 1, "the command behind it goes on: {:?}", wire.answers);
    wire.answers.clear();
    wire.send(&lost, &[9; 512]);
    assert!(wire.answers.is_empty(), "it comes too late");
    assert_eq!(read(&mut wire, 0, 1), [0; 512]);
}

#[test]
fn data_for_an_aborted_write_is_passed_over() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[("ImmediateData", "No")]);
    let command = wire.command(&write10(0, 2), Direction::Write, 1024);
    wire.send(&command, &[]);
    let ttt = r2t(wire.next()).ttt;
    manage(&mut wire, TaskFunction::AbortTask, 0, command.itt, command.cmd_sn);
    assert_eq!(outcome(wire.next()), TaskOutcome::Complete);
    wire.data_out(command.itt, ttt, 0, 0, true, &[1; 1024]);
    assert!(wire.answers.is_empty(), "{:?}", wire.answers);
    assert_eq!(read(&mut wire, 0, 2), [0; 1024]);
    // Data for a command that never was is another matter.
    wire.data_out(4242, 17, 0, 0, true, &[1; 512]);
    assert_eq!(reject_reason(wire.next()), RejectReason::ProtocolError);
}

#[test]
fn a_reset_reaches_the_other_sessions() {
    let node = node(Limits::default());
    let mut one = Wire::logged_in(&node, &[]);
    let mut two = Wire::logged_in_as(&node, "iqn.2026-11.net.farlun:two", Isid([0x80, 0, 0, 0, 0, 2]), &[]);
    two.hold = true;
    let command = two.command(&read10(0, 1), Direction::Read, 512);
    two.send(&command, &[]);
    manage(&mut one, TaskFunction::LogicalUnitReset, 0, RESERVED_TAG, Serial(0));
    assert_eq!(outcome(one.next()), TaskOutcome::Complete);
    two.pump();
    let job = two.held.pop().expect("the read");
    two.hold = false;
    two.run(job);
    two.pump();
    assert_eq!(status(two.next()).status, TASK_ABORTED, "TAS is 1");
    let probe = two.command(&[0; 6], Direction::None, 0);
    two.send(&probe, &[]);
    assert_eq!(sense(two.next()).0, 0x06, "and told so by a unit attention");
    let probe = two.command(&[0; 6], Direction::None, 0);
    two.send(&probe, &[]);
    assert_eq!(status(two.next()).status, 0, "once");

    manage(&mut one, TaskFunction::TargetColdReset, 0, RESERVED_TAG, Serial(0));
    assert_eq!(outcome(one.next()), TaskOutcome::Complete);
    two.pump();
    assert!(two.connection.ended().is_some() && one.connection.ended().is_some());
}

#[test]
fn a_unit_stays_held_until_the_last_command_is_over() {
    let node = node_with(Limits::default(), false);
    let mut holder = Wire::logged_in(&node, &[]);
    holder.hold = true;
    let command = holder.command(&read10(0, 1), Direction::Read, 512);
    holder.send(&command, &[]);
    let held = holder.held.pop().expect("the read");
    // The holder's connection goes, its command is still at the medium.
    drop(holder);
    let mut other = Wire::new(&node);
    let keys = [
        ("InitiatorName", "iqn.2026-11.net.farlun:other"),
        ("TargetName", TARGET),
    ];
    let (response, _) = other.login(&login_request(), &text(&keys));
    assert!(!response.status.is_success(), "held until the last command is over");
    drop(held);
    let mut other = Wire::new(&node);
    assert!(other.login(&login_request(), &text(&keys)).0.status.is_success());
}

#[test]
fn what_another_holds_is_not_to_be_reset() {
    let node = node_with_luns(Limits::default(), &[false, true]);
    let mut holder = Wire::logged_in(&node, &[]);
    holder.hold = true;
    let command = holder.command(&read10(0, 1), Direction::Read, 512);
    holder.send(&command, &[]);
    let mut other = Wire::logged_in_as(&node, "iqn.2026-11.net.farlun:two", Isid([0x80, 0, 0, 0, 0, 2]), &[]);
    for function in [
        TaskFunction::LogicalUnitReset,
        TaskFunction::ClearTaskSet,
        TaskFunction::AbortTaskSet,
    ] {
        manage(&mut other, function, 0, RESERVED_TAG, Serial(0));
        assert_eq!(outcome(other.next()), TaskOutcome::NotAuthorized, "{function:?}");
    }
    manage(&mut other, TaskFunction::TargetWarmReset, 0, RESERVED_TAG, Serial(0));
    assert_eq!(outcome(other.next()), TaskOutcome::Complete, "of the LUN it may use");
    manage(&mut other, TaskFunction::TargetColdReset, 0, RESERVED_TAG, Serial(0));
    assert_eq!(
        outcome(other.next()),
        TaskOutcome::NotAuthorized,
        "the holder's connection is not its to end"
    );
    holder.pump();
    let job = holder.held.pop().expect("the read");
    holder.run(job);
    holder.pump();
    let (data, _) = collect_data_in(&mut holder, &command);
    assert_eq!(data.len(), 512, "the holder's command is untouched");
}

#[test]
fn commands_that_another_aborts_end_with_task_aborted() {
    for function in [TaskFunction::ClearTaskSet, TaskFunction::LogicalUnitReset] {
        let node = node(Limits::default());
        let mut one = Wire::logged_in(&node, &[]);
        let two_port = Isid([0x80, 0, 0, 0, 0, 2]);
        let mut two = Wire::logged_in_as(
            &node,
            "iqn.2026-11.net.farlun:two",
            two_port,
            &[("ImmediateData", "No")],
        );
        // One waits for its data, one is in a worker's hands, one for those before it.
        let collecting = two.command(&write10(0, 1), Direction::Write, 512);
        two.send(&collecting, &[]);
        let ttt = r2t(two.next()).ttt;
        two.hold = true;
        let running = two.command(&read10(0, 1), Direction::Read, 512);
        two.send(&running, &[]);
        let behind = ScsiCommand {
            attribute: iscsi_pdu::TaskAttribute::Ordered,
            ..two.command(&read10(0, 1), Direction::Read, 512)
        };
        two.send(&behind, &[]);
        manage(&mut one, function, 0, RESERVED_TAG, Serial(0));
        assert_eq!(outcome(one.next()), TaskOutcome::Complete);
        // What comes after it is not concerned.
        let sense_of_reset = two.command(&[0x03, 0, 0, 0, 18, 0], Direction::Read, 18);
        two.send(&sense_of_reset, &[]);
        let later = two.command(&write10(1, 1), Direction::Write, 512);
        two.send(&later, &[]);
        two.pump();
        let ends = |two: &mut Wire| {
            let mut ends = Vec::new();
            for (response, data) in std::mem::take(&mut two.answers) {
                match response {
                    Response::ScsiResponse(_) => ends.push((itt(&response), status((response, data)).status)),
                    Response::DataIn(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            ends.sort_unstable();
            ends
        };
        assert_eq!(
            two.answers
                .iter()
                .filter(|(response, _)| matches!(response, Response::R2t(_)))
                .count(),
            1,
            "the later write asks for its data"
        );
        two.answers
            .retain(|(response, _)| !matches!(response, Response::R2t(_)));
        assert_eq!(ends(&mut two), [(behind.itt, TASK_ABORTED)]);
        two.data_out(collecting.itt, ttt, 0, 0, true, &[1; 512]);
        assert_eq!(ends(&mut two), [(collecting.itt, TASK_ABORTED)]);
        two.hold = false;
        let job = two.held.pop().expect("the read");
        two.run(job);
        two.pump();
        assert_eq!(ends(&mut two), [(running.itt, TASK_ABORTED)]);
        manage(&mut two, TaskFunction::AbortTaskSet, 0, RESERVED_TAG, Serial(0));
        assert_eq!(outcome(two.next()), TaskOutcome::Complete);
        assert_eq!(read(&mut two, 0, 1), [0; 512], "and nothing was written");
    }
}

#[test]
fn an_ordered_command_waits_for_those_before_and_holds_those_behind() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
    wire.hold = true;
    let send = |wire: &mut Wire, attribute| {
        let command = ScsiCommand {
            attribute,
            ..wire.command(&read10(0, 1), Direction::Read, 512)
        };
        wire.send(&command, &[]);
    };
    send(&mut wire, iscsi_pdu::TaskAttribute::Simple);
    send(&mut wire, iscsi_pdu::TaskAttribute::Ordered);
    send(&mut wire, iscsi_pdu::TaskAttribute::Simple);
    assert_eq!(wire.held.len(), 1, "only the first may run");
    send(&mut wire, iscsi_pdu::TaskAttribute::HeadOfQueue);
    assert_eq!(wire.held.len(), 2, "the head of the queue may always");
    for running in [1, 1] {
        for job in std::mem::take(&mut wire.held) {
            wire.run(job);
        }
        wire.pump();
        assert_eq!(wire.held.len(), running, "then the ordered one, alone, then the last");
    }
}

#[test]
fn nothing_is_at_work_where_nothing_is_in_service() {
    let node = node(Limits::default());
    let target = node.target(TARGET).expect("it is there");
    target.device.insert_offline(3).expect("there is none");
    let mut wire = Wire::logged_in(&node, &[]);
    for (function, expected) in [
        (TaskFunction::AbortTask, TaskOutcome::NoSuchTask),
        (TaskFunction::AbortTaskSet, TaskOutcome::Complete),
        (TaskFunction::ClearTaskSet, TaskOutcome::Complete),
        (TaskFunction::LogicalUnitReset, TaskOutcome::Complete),
        (TaskFunction::TargetWarmReset, TaskOutcome::Complete),
        (TaskFunction::TargetColdReset, TaskOutcome::Complete),
    ] {
        manage(&mut wire, function, 3, RESERVED_TAG, Serial(0));
        assert_eq!(outcome(wire.next()), expected, "{function:?}");
    }
}
