//! The full-feature phase: data in both directions, the command window, task management, time.

mod support;

use iscsi_pdu::{
    DataIn, Isid, LogoutOutcome, LogoutReason, LogoutRequest, Lun, R2t, RESERVED_TAG, RejectReason, Residual, Response,
    ScsiCommand, ScsiResponse, Serial, TaskFunction, TaskManagementRequest, TaskOutcome, TextRequest, sense_bytes,
};
use support::{
    Answer, Direction, INITIATOR, TARGET, Wire, login_request, node, node_with, node_with_luns, pairs, read10, text,
    write10,
};
use target_core::iscsi::{Ended, Limits, Node};

fn pattern(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes)
        .map(|at| {
            (at as u8)
                .wrapping_mul(31)
                .wrapping_add(seed)
                .wrapping_add((at >> 9) as u8)
        })
        .collect()
}

fn status(answer: Answer) -> ScsiResponse {
    match answer {
        (Response::ScsiResponse(response), _) => response,
        other => panic!("expected a SCSI response, got {other:?}"),
    }
}

fn r2t(answer: Answer) -> R2t {
    match answer {
        (Response::R2t(r2t), _) => r2t,
        other => panic!("expected an R2T, got {other:?}"),
    }
}

fn reject_reason(answer: Answer) -> RejectReason {
    match answer {
        (Response::Reject(reject), _) => reject.reason,
        other => panic!("expected a Reject, got {other:?}"),
    }
}

/// Sense key, additional sense code and qualifier of a CHECK CONDITION.
fn sense(answer: Answer) -> (u8, u8, u8) {
    match answer {
        (Response::ScsiResponse(response), data) if response.status == 0x02 => {
            let sense = sense_bytes(&data).expect("sense");
            (sense[2] & 0x0f, sense[12], sense[13])
        }
        other => panic!("expected a CHECK CONDITION, got {other:?}"),
    }
}

/// Reads blocks and checks every rule for Data-In on the way.
fn read(wire: &mut Wire, lba: u32, blocks: u16) -> Vec<u8> {
    let command = wire.command(&read10(lba, blocks), Direction::Read, u32::from(blocks) * 512);
    wire.send(&command, &[]);
    collect_data_in(wire, &command).0
}

fn collect_data_in(wire: &mut Wire, command: &ScsiCommand) -> (Vec<u8>, DataIn) {
    let mut collected = Vec::new();
    for data_sn in 0.. {
        let (Response::DataIn(pdu), data) = wire.next() else {
            panic!("expected Data-In")
        };
        assert_eq!(
            (pdu.itt, pdu.data_sn, pdu.buffer_offset),
            (command.itt, data_sn, collected.len() as u32)
        );
        collected.extend(data);
        if pdu.status.is_some() {
            assert!(pdu.final_bit, "S needs F");
            return (collected, pdu);
        }
    }
    unreachable!()
}

#[test]
fn immediate_data_is_written_and_read_back() {
    for digest in ["None", "CRC32C"] {
        let mut wire = Wire::logged_in(
            &node(Limits::default()),
            &[("HeaderDigest", digest), ("DataDigest", digest)],
        );
        let data = pattern(4096, 1);
        let command = wire.command(&write10(8, 8), Direction::Write, 4096);
        wire.send(&command, &data);
        let response = status(wire.next());
        assert_eq!(
            (response.status, response.residual, response.itt),
            (0, Residual::None, command.itt)
        );
        assert_eq!(read(&mut wire, 8, 8), data, "digest {digest}");
    }
}

#[test]
fn data_in_keeps_to_the_initiators_segment_and_burst() {
    let keys = [("MaxRecvDataSegmentLength", "4096"), ("MaxBurstLength", "16384")];
    let mut wire = Wire::logged_in(&node(Limits::default()), &keys);
    let command = wire.command(&read10(0, 80), Direction::Read, 40960);
    wire.send(&command, &[]);
    let flags: Vec<(usize, bool, bool)> = wire
        .answers
        .iter()
        .map(|(response, data)| match response {
            Response::DataIn(pdu) => (data.len(), pdu.final_bit, pdu.status.is_some()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected: Vec<(usize, bool, bool)> = (1..=10).map(|n| (4096, n == 4 || n == 8 || n == 10, n == 10)).collect();
    assert_eq!(flags, expected, "F at the end of each burst, S on the last");
}

#[test]
fn unsolicited_and_solicited_data_make_one_write() {
    let keys = [
        ("InitialR2T", "No"),
        ("FirstBurstLength", "8192"),
        ("MaxBurstLength", "16384"),
        ("MaxOutstandingR2T", "2"),
    ];
    let mut wire = Wire::logged_in(&node(Limits::default()), &keys);
    let data = pattern(49152, 2);
    let mut command = wire.command(&write10(0, 96), Direction::Write, 49152);
    command.final_bit = false;
    wire.send(&command, &data[..4096]);
    // The first burst is still under way, and the rest is asked for already: one round trip saved.
    let first = r2t(wire.next());
    let second = r2t(wire.next());
    assert!(wire.answers.is_empty(), "two are allowed to be open");
    assert_eq!(
        (first.r2t_sn, first.buffer_offset, first.desired_data_transfer_length),
        (0, 8192, 16384)
    );
    assert_eq!(
        (second.r2t_sn, second.buffer_offset, second.desired_data_transfer_length),
        (1, 24576, 16384)
    );
    wire.data_out(command.itt, RESERVED_TAG, 0, 4096, true, &data[4096..8192]);
    wire.data_out(command.itt, first.ttt, 0, 8192, false, &data[8192..16384]);
    wire.data_out(command.itt, first.ttt, 1, 16384, true, &data[16384..24576]);
    let third = r2t(wire.next());
    assert_eq!(
        (third.r2t_sn, third.buffer_offset, third.desired_data_transfer_length),
        (2, 40960, 8192)
    );
    wire.data_out(command.itt, second.ttt, 0, 24576, true, &data[24576..40960]);
    wire.data_out(command.itt, third.ttt, 0, 40960, true, &data[40960..]);
    let response = status(wire.next());
    assert_eq!((response.status, response.residual), (0, Residual::None));
    assert_eq!(read(&mut wire, 0, 96), data);
}

#[test]
fn without_permission_nothing_comes_unasked() {
    let keys = [("InitialR2T", "Yes"), ("ImmediateData", "No")];
    let mut wire = Wire::logged_in(&node(Limits::default()), &keys);
    let data = pattern(4096, 3);
    let command = wire.command(&write10(0, 8), Direction::Write, 4096);
    wire.send(&command, &[]);
    let r2t = r2t(wire.next());
    wire.data_out(command.itt, r2t.ttt, 0, 0, true, &data);
    assert_eq!(status(wire.next()).status, 0);
    // Immediate data all the same: the command fails, nothing is stored.
    let command = wire.command(&write10(0, 8), Direction::Write, 4096);
    wire.send(&command, &pattern(4096, 9));
    assert_eq!(sense(wire.next()), (0x0b, 0x0c, 0x0c));
    assert_eq!(read(&mut wire, 0, 8), data);
}

#[test]
fn residuals_tell_how_expectation_and_command_differ() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
    // (blocks, expected length, residual) for reads.
    for (blocks, edtl, residual, delivered) in [
        (2u16, 512u32, Residual::Overflow(512), 512),
        (1, 1024, Residual::Underflow(512), 512),
        (1, 512, Residual::None, 512),
        (1, 100, Residual::Overflow(412), 100),
    ] {
        let command = wire.command(&read10(0, blocks), Direction::Read, edtl);
        wire.send(&command, &[]);
        let (data, last) = collect_data_in(&mut wire, &command);
        assert_eq!(
            (data.len(), last.status.map(|status| status.residual)),
            (delivered, Some(residual))
        );
    }
    // And for writes: what is beyond the command is not stored.
    let before = read(&mut wire, 1, 1);
    let command = wire.command(&write10(0, 1), Direction::Write, 1024);
    wire.send(&command, &pattern(1024, 4));
    assert_eq!(status(wire.next()).residual, Residual::Underflow(512));
    assert_eq!(read(&mut wire, 1, 1), before);
    let command = wire.command(&write10(4, 2), Direction::Write, 512);
    wire.send(&command, &pattern(512, 5));
    let response = status(wire.next());
    assert_eq!((response.status, response.residual), (0, Residual::Overflow(512)));
    assert_eq!(read(&mut wire, 4, 1), pattern(512, 5));
    // A command that moves nothing although something was expected.
    let command = wire.command(&[0; 6], Direction::Read, 512);
    wire.send(&command, &[]);
    assert_eq!(status(wire.next()).residual, Residual::Underflow(512));
}

#[test]
fn data_that_does_not_fit_its_command_fails_it() {
    type Mistake = fn(&mut Wire, u32, u32);
    let mistakes: [(&str, Mistake, (u8, u8, u8)); 5] = [
        (
            "wrong offset",
            |wire, itt, ttt| wire.data_out(itt, ttt, 0, 512, true, &[0; 512]),
            (0x0b, 0x0c, 0x0d),
        ),
        (
            "wrong DataSN",
            |wire, itt, ttt| wire.data_out(itt, ttt, 1, 0, true, &[0; 1024]),
            (0x0b, 0x0c, 0x0d),
        ),
        (
            "too much",
            |wire, itt, ttt| wire.data_out(itt, ttt, 0, 0, true, &[0; 2048]),
            (0x0b, 0x0c, 0x0d),
        ),
        (
            "too little",
            |wire, itt, ttt| wire.data_out(itt, ttt, 0, 0, true, &[0; 512]),
            (0x0b, 0x0c, 0x0d),
        ),
        (
            "unasked",
            |wire, itt, ttt| {
                wire.data_out(itt, RESERVED_TAG, 0, 0, true, &[0; 512]);
                wire.data_out(itt, ttt, 0, 0, true, &[0; 1024]);
            },
            (0x0b, 0x0c, 0x0c),
        ),
    ];
    for (what, mistake, expected) in mistakes {
        let mut wire = Wire::logged_in(&node(Limits::default()), &[("ImmediateData", "No")]);
        let command = wire.command(&write10(0, 2), Direction::Write, 1024);
        wire.send(&command, &[]);
        let ttt = r2t(wire.next()).ttt;
        mistake(&mut wire, command.itt, ttt);
        assert_eq!(reject_reason(wire.next()), RejectReason::ProtocolError, "{what}");
        assert_eq!(sense(wire.next()), expected, "{what}");
        assert_eq!(read(&mut wire, 0, 2), [0; 1024], "{what}: nothing stored");
    }
}

#[test]
fn a_bad_data_digest_is_never_written() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[("DataDigest", "CRC32C")]);
    let command = wire.command(&write10(0, 1), Direction::Write, 512);
    let mut bytes = Vec::new();
    wire.framing.pdu(&command, &[7; 512], &mut bytes);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    wire.send_bytes(&bytes);
    assert_eq!(reject_reason(wire.next()), RejectReason::DataDigestError);
    assert_eq!(sense(wire.next()), (0x0b, 0x47, 0x05));
    assert_eq!(read(&mut wire, 0, 1), [0; 512]);
}

#[test]
fn a_bad_header_digest_ends_the_connection() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[("HeaderDigest", "CRC32C")]);
    let command = wire.command(&read10(0, 1), Direction::Read, 512);
    let mut bytes = Vec::new();
    wire.framing.pdu(&command, &[], &mut bytes);
    bytes[20] ^= 1;
    wire.send_bytes(&bytes);
    assert!(matches!(wire.connection.ended(), Some(Ended::Framing(_))));
}

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

fn itt(response: &Response) -> u32 {
    match response {
        Response::ScsiResponse(pdu) => pdu.itt,
        Response::DataIn(pdu) => pdu.itt,
        Response::TaskManagement(pdu) => pdu.itt,
        other => panic!("no task tag in {other:?}"),
    }
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
    assert!(two.answers.is_empty(), "aborted by the other");
    let probe = two.command(&[0; 6], Direction::None, 0);
    two.send(&probe, &[]);
    assert_eq!(sense(two.next()).0, 0x06, "and told so by a unit attention");
    let probe = two.command(&[0; 6], Direction::None, 0);
    two.send(&probe, &[]);
    assert_eq!(status(two.next()).status, 0, "once");

    manage(&mut one, TaskFunction::TargetColdReset, 0, RESERVED_TAG, Serial(0));
    assert_eq!(
        outcome(one.next()),
        TaskOutcome::NotAuthorized,
        "the other's session is not its to end"
    );
    drop(two);
    let mut two = Wire::logged_in_as(&node, INITIATOR, Isid([0x80, 0, 0, 0, 0, 2]), &[]);
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
    holder.pump();
    let job = holder.held.pop().expect("the read");
    holder.run(job);
    holder.pump();
    let (data, _) = collect_data_in(&mut holder, &command);
    assert_eq!(data.len(), 512, "the holder's command is untouched");
}

#[test]
fn a_cleared_task_set_is_told_to_whom_it_concerns() {
    let node = node(Limits::default());
    let mut one = Wire::logged_in(&node, &[]);
    let mut two = Wire::logged_in_as(&node, "iqn.2026-11.net.farlun:two", Isid([0x80, 0, 0, 0, 0, 2]), &[]);
    let mut idle = Wire::logged_in_as(&node, "iqn.2026-11.net.farlun:idle", Isid([0x80, 0, 0, 0, 0, 3]), &[]);
    two.hold = true;
    let command = two.command(&read10(0, 1), Direction::Read, 512);
    two.send(&command, &[]);
    manage(&mut one, TaskFunction::ClearTaskSet, 0, RESERVED_TAG, Serial(0));
    assert_eq!(outcome(one.next()), TaskOutcome::Complete);
    for (wire, told) in [(&mut one, false), (&mut two, true), (&mut idle, false)] {
        wire.pump();
        let probe = wire.command(&[0; 6], Direction::None, 0);
        wire.send(&probe, &[]);
        let answer = wire.next();
        if told {
            assert_eq!(sense(answer), (0x06, 0x2f, 0x00));
        } else {
            assert_eq!(status(answer).status, 0);
        }
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
fn silence_is_asked_about_and_then_ended() {
    let limits = Limits::default();
    let patience_ms = limits.idle_ping_ms;
    let mut wire = Wire::logged_in(&node(limits), &[]);
    wire.sleep_ms(patience_ms + 1);
    let (Response::NopIn(ping), _) = wire.next() else {
        panic!("expected a NOP-In")
    };
    assert!(
        ping.itt == RESERVED_TAG && ping.ttt != RESERVED_TAG,
        "one that asks for an answer"
    );
    let pong = iscsi_pdu::NopOut {
        immediate: true,
        lun: ping.lun,
        itt: RESERVED_TAG,
        ttt: ping.ttt,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
    };
    wire.send(&pong, &[]);
    assert!(wire.answers.is_empty());
    wire.sleep_ms(patience_ms - 1);
    assert!(wire.answers.is_empty() && wire.connection.ended().is_none());
    wire.sleep_ms(2 * patience_ms + 2);
    assert_eq!(wire.connection.ended(), Some(Ended::Silent));
}

#[test]
fn a_long_upload_is_told_that_the_line_works() {
    let limits = Limits::default();
    let every_ms = limits.upload_ping_ms;
    let mut wire = Wire::logged_in(&node(limits), &[("ImmediateData", "No")]);
    let command = wire.command(&write10(0, 200), Direction::Write, 102_400);
    wire.send(&command, &[]);
    let ttt = r2t(wire.next()).ttt;
    // 100 kB at 10 kB/s, in small pieces: ten seconds in which the target has nothing to answer.
    let mut bytes = Vec::new();
    let pdu = iscsi_pdu::DataOut {
        final_bit: true,
        lun: Lun::default(),
        itt: command.itt,
        ttt,
        exp_stat_sn: Serial(0),
        data_sn: 0,
        buffer_offset: 0,
    };
    wire.framing.pdu(&pdu, &[5; 102_400], &mut bytes);
    let mut nops = 0;
    for piece in bytes.chunks(1024) {
        wire.send_bytes(piece);
        wire.sleep_ms(100);
        for (response, _) in wire.answers.drain(..) {
            match response {
                Response::NopIn(nop) => {
                    assert_eq!((nop.itt, nop.ttt), (RESERVED_TAG, RESERVED_TAG), "it asks for nothing");
                    nops += 1;
                }
                Response::ScsiResponse(response) => assert_eq!(response.status, 0),
                other => panic!("{other:?}"),
            }
        }
    }
    let expected = 10_000 / every_ms;
    assert!(
        (expected - 1..=expected).contains(&nops),
        "{nops} NOP-Ins in ten seconds"
    );
}

#[test]
fn logout_ends_the_session_after_its_answer() {
    for (reason, expected) in [
        (LogoutReason::CloseSession, LogoutOutcome::Closed),
        (LogoutReason::CloseConnection, LogoutOutcome::Closed),
        (
            LogoutReason::RemoveConnectionForRecovery,
            LogoutOutcome::RecoveryNotSupported,
        ),
    ] {
        let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
        let request = LogoutRequest {
            immediate: true,
            reason,
            itt: 77,
            cid: 1,
            cmd_sn: wire.cmd_sn,
            exp_stat_sn: Serial(0),
        };
        wire.send(&request, &[]);
        let (Response::Logout(response), _) = wire.next() else {
            panic!("expected a logout response")
        };
        assert_eq!(response.response, expected);
        let ended = wire.connection.ended();
        assert_eq!(ended.is_some(), expected == LogoutOutcome::Closed, "{reason:?}");
    }
}

/// A discovery session on `node` that takes segments of `segment` bytes.
fn discovery(node: &std::sync::Arc<Node>, segment: &str) -> Wire {
    let mut wire = Wire::new(node);
    let keys = [
        ("InitiatorName", INITIATOR),
        ("SessionType", "Discovery"),
        ("MaxRecvDataSegmentLength", segment),
    ];
    assert!(wire.login(&login_request(), &text(&keys)).0.transit);
    wire
}

/// Asks for targets, and for the rest until the answer is whole.
fn send_targets(wire: &mut Wire, which: &str) -> (Vec<(String, String)>, usize) {
    let mut request = TextRequest {
        immediate: true,
        final_bit: true,
        continue_: false,
        lun: Lun::default(),
        itt: 5,
        ttt: RESERVED_TAG,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
    };
    let mut whole = Vec::new();
    wire.send(&request, &text(&[("SendTargets", which)]));
    for pdus in 1.. {
        let (Response::Text(response), data) = wire.next() else {
            panic!("expected a text response")
        };
        whole.extend(data);
        if response.final_bit {
            return (pairs(&whole), pdus);
        }
        assert!(response.continue_);
        request.ttt = response.ttt;
        wire.send(&request, &[]);
    }
    unreachable!()
}

#[test]
fn targets_are_told_to_those_who_ask() {
    let node = node(Limits::default());
    let own = [("TargetName", TARGET), ("TargetAddress", "192.0.2.1:3260,1")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
    let reject = vec![("SendTargets".to_owned(), "Reject".to_owned())];
    let mut finder = discovery(&node, "8192");
    assert_eq!(send_targets(&mut finder, "All").0, own);
    assert_eq!(send_targets(&mut finder, TARGET).0, own);
    assert_eq!(send_targets(&mut finder, "iqn.2026-11.net.farlun:none").0, []);
    assert_eq!(
        send_targets(&mut finder, "").0,
        reject,
        "there is no target it is logged in to"
    );
    let command = finder.command(&[0; 6], Direction::None, 0);
    finder.send(&command, &[]);
    assert_eq!(reject_reason(finder.next()), RejectReason::CommandNotSupported);

    let mut user = Wire::logged_in(&node, &[]);
    assert_eq!(send_targets(&mut user, "").0, own);
    assert_eq!(send_targets(&mut user, TARGET).0, own);
    assert_eq!(send_targets(&mut user, "All").0, reject);
}

#[test]
fn a_long_list_of_targets_comes_in_pieces() {
    use std::collections::BTreeMap;
    use target_core::{iscsi::Target, scsi::Device};
    let name = |n: usize| format!("iqn.2026-11.net.farlun:target-{n:03}");
    let targets = (0..100).map(|n| Target::new(&name(n), None, Device::new(BTreeMap::new())));
    let mut wire = discovery(&Node::new(Limits::default(), targets), "512");
    let (answer, pdus) = send_targets(&mut wire, "All");
    let names: Vec<&str> = answer
        .iter()
        .filter(|(key, _)| key == "TargetName")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(names, (0..100).map(name).collect::<Vec<_>>());
    assert!(pdus > 10, "512 bytes at a time: {pdus} PDUs");
}

#[test]
fn a_peer_that_asks_without_listening_is_not_read_for_ever() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
    let nop = iscsi_pdu::NopOut {
        immediate: true,
        lun: Lun::default(),
        itt: 9,
        ttt: RESERVED_TAG,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
    };
    let mut bytes = Vec::new();
    wire.framing.pdu(&nop, &[0; 8192], &mut bytes);
    // The transmit queue is never emptied here: the initiator does not take what it asked for.
    for _ in 0..10_000 {
        if !wire.connection.wants_input() {
            break;
        }
        wire.connection.receive(wire.now, &mut bytes.as_slice());
    }
    assert!(!wire.connection.wants_input());
    assert!(wire.connection.transmit().queued_bytes() < 9 * 1024 * 1024);
}

#[test]
fn an_initiator_that_only_reads_on_a_slow_line_is_alive() {
    let limits = Limits::default();
    let patience_ms = limits.idle_ping_ms;
    let mut wire = Wire::logged_in(&node(limits), &[]);
    let command = wire.command(&read10(0, 2048), Direction::Read, 1 << 20);
    let mut bytes = Vec::new();
    wire.framing.pdu(&command, &[], &mut bytes);
    wire.connection.receive(wire.now, &mut bytes.as_slice());
    let job = wire.connection.next_job().expect("the read");
    wire.run(job);
    // 1 MiB at 4 KiB in 10 s: the line is busy for three quarters of an hour.
    while !wire.connection.transmit().is_empty() {
        let part = wire.connection.transmit().queued_bytes().min(4096);
        wire.connection.sent(wire.now, part);
        wire.now += std::time::Duration::from_millis(patience_ms / 3);
        if wire.connection.next_timeout() <= wire.now {
            wire.connection.timeout(wire.now);
        }
        assert_eq!(wire.connection.ended(), None);
    }
}
