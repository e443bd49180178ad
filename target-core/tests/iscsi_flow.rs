//! How a session flows: answers ahead of bulk data, logout on request, limits that shape, numbers that add up.

mod support;

use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iscsi_pdu::{
    AsyncEvent, DataIn, DecoderLimits, Isid, LogoutReason, LogoutRequest, Lun, NopOut, RESERVED_TAG, Response, Serial,
    TaskFunction, TaskManagementRequest, TaskOutcome,
};
use support::answers::{pattern, read, status};
use support::{Direction, TARGET, Wire, node, node_with_luns, read10, write10};
use target_core::iscsi::mailbox::{CloseReason, Notice};
use target_core::iscsi::shape::Rate;
use target_core::iscsi::{Ended, Limits};
use target_core::lun::Wait;

const MIB: u32 = 1 << 20;

/// Takes a number of bytes from the target, as a line does that takes no more for now.
fn take(wire: &mut Wire, bytes: usize) -> Vec<u8> {
    let mut taken = Vec::new();
    while taken.len() < bytes && !wire.connection.transmit().is_empty() {
        let mut slices = [IoSlice::new(&[]); 8];
        let count = wire.connection.transmit().gather(&mut slices);
        let joined: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        let part = joined.len().min(bytes - taken.len());
        taken.extend_from_slice(&joined[..part]);
        wire.connection.sent(wire.now, part);
    }
    taken
}

/// Everything the target still has to say, and what it has said before.
fn decode(bytes: &[u8]) -> Vec<(Response, usize)> {
    let mut decoder = iscsi_pdu::Decoder::new(DecoderLimits {
        max_ahs_bytes: 0,
        max_data_segment_bytes: (1 << 24) - 1,
    });
    let mut input = bytes;
    let mut answers = Vec::new();
    while let Some(header) = decoder.header(&mut input).expect("framing") {
        let (data, rest) = input.split_at(decoder.data_remaining() as usize);
        decoder.data(data);
        input = rest;
        decoder.trailer(&mut input).expect("padding").expect("whole");
        answers.push((Response::parse(&header).expect("a response"), data.len()));
    }
    assert!(input.is_empty());
    answers
}

fn stat_sn(response: &Response) -> Option<Serial> {
    match response {
        Response::DataIn(DataIn { status, .. }) => status.map(|status| status.stat_sn),
        Response::NopIn(pdu) => Some(pdu.stat_sn),
        Response::ScsiResponse(pdu) => Some(pdu.stat_sn),
        Response::TaskManagement(pdu) => Some(pdu.stat_sn),
        Response::Logout(pdu) => Some(pdu.stat_sn),
        other => panic!("unexpected {other:?}"),
    }
}

/// A read of 16 MiB whose data waits for the line; nothing has been taken yet but the first few bytes.
fn stalled_read() -> (Wire, u32, Vec<u8>) {
    let node = node(Limits::default());
    let mut wire = Wire::logged_in(&node, &[("MaxRecvDataSegmentLength", "262144")]);
    let command = wire.command(&read10(0, 32768), Direction::Read, 16 * MIB);
    let mut bytes = Vec::new();
    wire.framing.pdu(&command, &[], &mut bytes);
    wire.connection.receive(wire.now, &mut &bytes[..]);
    let job = wire.connection.next_job().expect("the read");
    let finished = job.run(Wait::Allowed).expect("workers may block");
    wire.connection.finished(wire.now, finished);
    let taken = take(&mut wire, 100_000);
    (wire, command.itt, taken)
}

fn say(wire: &mut Wire, pdu: &impl iscsi_pdu::Emit) {
    let mut bytes = Vec::new();
    wire.framing.pdu(pdu, &[], &mut bytes);
    wire.connection.receive(wire.now, &mut &bytes[..]);
}

fn nop(wire: &Wire) -> NopOut {
    NopOut {
        immediate: true,
        lun: Lun::default(),
        itt: 0x4000,
        ttt: RESERVED_TAG,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
    }
}

fn management(wire: &Wire, function: TaskFunction, referenced_task_tag: u32) -> TaskManagementRequest {
    TaskManagementRequest {
        immediate: true,
        function,
        lun: Lun::from_number(0),
        itt: 0x4001,
        referenced_task_tag,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
        ref_cmd_sn: Serial(50),
        exp_data_sn: 0,
    }
}

fn logout(wire: &Wire) -> LogoutRequest {
    LogoutRequest {
        immediate: true,
        reason: LogoutReason::CloseSession,
        itt: 0x4002,
        cid: 1,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
    }
}

/// Bytes of data before the first answer that `is_it` picks.
fn data_before(answers: &[(Response, usize)], is_it: impl Fn(&Response) -> bool) -> usize {
    let at = answers
        .iter()
        .position(|(response, _)| is_it(response))
        .expect("an answer");
    answers[..at].iter().map(|(_, bytes)| bytes).sum()
}

fn assert_stat_sn_in_order(answers: &[(Response, usize)]) {
    let numbers: Vec<u32> = answers
        .iter()
        .filter_map(|(response, _)| stat_sn(response))
        .map(|sn| sn.0)
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)),
        "StatSN {numbers:?}"
    );
}

#[test]
fn a_ping_does_not_wait_behind_sixteen_mebibytes() {
    let (mut wire, itt, mut taken) = stalled_read();
    let ping = nop(&wire);
    say(&mut wire, &ping);
    taken.extend(take(&mut wire, usize::MAX));
    let answers = decode(&taken);
    let before = data_before(
        &answers,
        |response| matches!(response, Response::NopIn(nop) if nop.itt == ping.itt),
    );
    assert!(before <= 2 * 262_144, "{before} bytes before the answer");
    assert_stat_sn_in_order(&answers);
    let all: usize = answers.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(all, 16 << 20);
    let (last, _) = answers.last().expect("the status");
    assert!(matches!(last, Response::DataIn(pdu) if pdu.itt == itt && pdu.status.is_some()));
}

#[test]
fn an_abort_ends_the_data_that_has_not_been_sent() {
    let (mut wire, itt, mut taken) = stalled_read();
    let abort = management(&wire, TaskFunction::AbortTask, itt);
    say(&mut wire, &abort);
    taken.extend(take(&mut wire, usize::MAX));
    let answers = decode(&taken);
    let (last, _) = answers.last().expect("an answer");
    assert!(
        matches!(last, Response::TaskManagement(answer) if answer.response == TaskOutcome::Complete),
        "nothing follows: {last:?}"
    );
    let sent: usize = answers.iter().map(|(_, bytes)| bytes).sum();
    assert!(sent <= 2 * 262_144, "{sent} bytes of an aborted read");
    assert!(
        answers
            .iter()
            .all(|(response, _)| !matches!(response, Response::DataIn(pdu) if pdu.status.is_some()))
    );
}

#[test]
fn a_logout_does_not_wait_for_the_data() {
    let (mut wire, _, mut taken) = stalled_read();
    let request = logout(&wire);
    say(&mut wire, &request);
    taken.extend(take(&mut wire, usize::MAX));
    let answers = decode(&taken);
    assert!(matches!(answers.last(), Some((Response::Logout(_), _))));
    let sent: usize = answers.iter().map(|(_, bytes)| bytes).sum();
    assert!(sent <= 2 * 262_144, "{sent} bytes before the logout");
    assert_eq!(wire.connection.ended(), Some(Ended::Logout));
}

#[test]
fn data_of_several_reads_comes_whole_and_in_order_however_the_line_takes_it() {
    for step in [1_000, 70_000, 300_000, 3_000_000] {
        let node = node(Limits::default());
        let mut wire = Wire::logged_in(&node, &[("MaxRecvDataSegmentLength", "65536")]);
        for number in 0..6u32 {
            let command = wire.command(&read10(number * 2048, 2048), Direction::Read, MIB);
            say(&mut wire, &command);
        }
        let mut taken = Vec::new();
        for _ in 0..100_000 {
            while let Some(job) = wire.connection.next_job() {
                let finished = job.run(Wait::Allowed).expect("workers may block");
                wire.connection.finished(wire.now, finished);
            }
            if wire.connection.transmit().is_empty() {
                break;
            }
            taken.extend(take(&mut wire, step));
        }
        let answers = decode(&taken);
        assert_stat_sn_in_order(&answers);
        let done = answers
            .iter()
            .filter(|(response, _)| stat_sn(response).is_some())
            .count();
        let sum: usize = answers.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!((done, sum), (6, 6 << 20), "steps of {step}");
        assert_eq!(node.budget.transfer.used_bytes(), 0);
    }
}

/// Reads that run one after the other use the same memory again, which costs less than half of fresh memory for each.
#[test]
fn data_is_sent_before_more_is_read_as_long_as_the_line_takes_it() {
    let node = node(Limits::default());
    let mut wire = Wire::logged_in(&node, &[("MaxRecvDataSegmentLength", "262144")]);
    assert!(!wire.connection.sends_first());
    for number in 0..2u32 {
        let command = wire.command(&read10(number * 2048, 2048), Direction::Read, MIB);
        say(&mut wire, &command);
    }
    let run = |wire: &mut Wire| {
        let job = wire.connection.next_job().expect("a read");
        let finished = job.run(Wait::Allowed).expect("workers may block");
        wire.connection.finished(wire.now, finished);
    };
    run(&mut wire);
    assert!(wire.connection.sends_first());
    take(&mut wire, usize::MAX);
    assert!(!wire.connection.sends_first(), "all of it is out");
    run(&mut wire);
    take(&mut wire, 100_000);
    assert!(
        !wire.connection.sends_first(),
        "the line takes no more: other commands are not to wait for it"
    );
}

#[test]
fn a_logout_is_asked_for_and_the_connection_closed_when_it_does_not_come() {
    for obeys in [true, false] {
        let node = node(Limits::default());
        let mut wire = Wire::logged_in(&node, &[]);
        wire.mailbox.post(Notice::AskLogout {
            within_ms: 2_500,
            reason: CloseReason::Stopping,
        });
        wire.pump();
        match wire.next() {
            (Response::AsyncMessage(message), data) => {
                assert_eq!((message.event, message.parameter3), (AsyncEvent::LogoutRequested, 3));
                assert_eq!((message.parameter1, message.parameter2, data.len()), (0, 0, 0));
            }
            other => panic!("expected an asynchronous message, got {other:?}"),
        }
        // Commands go on.
        assert_eq!(read(&mut wire, 0, 1), [0; 512]);
        // Asked again it does not say so again, and an earlier end holds.
        wire.mailbox.post(Notice::AskLogout {
            within_ms: 60_000,
            reason: CloseReason::TargetRemoved,
        });
        wire.pump();
        assert!(wire.answers.is_empty());
        if obeys {
            let request = logout(&wire);
            wire.send(&request, &[]);
            assert!(matches!(wire.next(), (Response::Logout(_), _)));
            assert_eq!(wire.connection.ended(), Some(Ended::Logout));
        } else {
            wire.sleep_ms(2_499);
            assert_eq!(wire.connection.ended(), None);
            wire.sleep_ms(2);
            assert_eq!(wire.connection.ended(), Some(Ended::Closed(CloseReason::Stopping)));
        }
    }
}

#[test]
fn who_has_not_logged_in_is_not_asked_but_closed() {
    let mut wire = Wire::new(&node(Limits::default()));
    wire.mailbox.post(Notice::AskLogout {
        within_ms: 10_000,
        reason: CloseReason::Stopping,
    });
    wire.pump();
    assert_eq!(wire.connection.ended(), Some(Ended::Closed(CloseReason::Stopping)));
}

#[test]
fn a_session_counts_what_it_does() {
    let node = node(Limits::default());
    let mut wire = Wire::logged_in(&node, &[("DataDigest", "CRC32C")]);
    let target = node.target(TARGET).expect("the target");
    let write = wire.command(&write10(0, 8), Direction::Write, 4096);
    wire.send(&write, &pattern(4096, 1));
    assert_eq!(status(wire.next()).status, 0);
    read(&mut wire, 0, 4);
    let beyond = wire.command(&read10(u32::MAX, 1), Direction::Read, 512);
    wire.send(&beyond, &[]);
    wire.answers.clear();
    // A flush that takes 5 ms.
    let flush = wire.command(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], Direction::None, 0);
    wire.hold = true;
    wire.send(&flush, &[]);
    let stats = Arc::clone(&target.sessions()[0].stats);
    assert_eq!(stats.snapshot().queue_depth, 1);
    wire.now += Duration::from_millis(5);
    let job = wire.held.pop().expect("the flush");
    wire.run(job);
    wire.pump();
    wire.hold = false;
    // A digest that is wrong.
    let bad = wire.command(&write10(0, 1), Direction::Write, 512);
    let mut bytes = Vec::new();
    wire.framing.pdu(&bad, &[7; 512], &mut bytes);
    *bytes.last_mut().expect("a digest") ^= 1;
    wire.send_bytes(&bytes);
    let reset = management(&wire, TaskFunction::LogicalUnitReset, RESERVED_TAG);
    wire.send(&reset, &[]);

    let numbers = stats.snapshot();
    assert_eq!((numbers.commands, numbers.queue_depth, numbers.rejects), (5, 0, 1));
    assert_eq!((numbers.data_digest_errors, numbers.task_management[5]), (1, 1));
    assert_eq!(numbers.latency.count(), 5);
    let lun = &numbers.luns[&0];
    assert_eq!((lun.read_bytes, lun.written_bytes), (2048, 4096));
    let commands: Vec<_> = lun.commands.iter().map(|(key, count)| (*key, *count)).collect();
    assert_eq!(
        commands,
        [
            ((0x28, 0x00), 1),
            ((0x28, 0x02), 1),
            ((0x2a, 0x00), 1),
            ((0x2a, 0x02), 1),
            ((0x35, 0x00), 1)
        ]
    );
    assert_eq!(
        (lun.flush.count(), lun.flush.sum_us, lun.flush.permille_us(500)),
        (1, 5_000, Some(8_192))
    );
    assert!(numbers.bytes_out > 2048 && numbers.bytes_in > 4096);
    // What it did stays with the target.
    drop(wire);
    assert!(target.sessions().is_empty());
    let totals = target.totals().done;
    assert_eq!((totals.commands, totals.queue_depth, totals.luns), (5, 0, numbers.luns));
}

#[test]
fn a_wrong_header_digest_is_counted_by_the_target() {
    let node = node(Limits::default());
    let mut wire = Wire::logged_in(&node, &[("HeaderDigest", "CRC32C")]);
    let mut bytes = Vec::new();
    wire.framing.pdu(&nop(&wire), &[], &mut bytes);
    bytes[20] ^= 1;
    wire.send_bytes(&bytes);
    assert!(matches!(wire.connection.ended(), Some(Ended::Framing(_))));
    drop(wire);
    assert_eq!(
        node.target(TARGET)
            .expect("the target")
            .totals()
            .done
            .header_digest_errors,
        1
    );
}

#[test]
fn queries_tell_whether_a_task_is_there() {
    for (level, there, gone) in [
        ("2", TaskOutcome::Succeeded, TaskOutcome::Complete),
        ("1", TaskOutcome::NotSupported, TaskOutcome::NotSupported),
    ] {
        let mut wire = Wire::logged_in(&node(Limits::default()), &[("iSCSIProtocolLevel", level)]);
        wire.hold = true;
        let command = wire.command(&read10(0, 1), Direction::Read, 512);
        wire.send(&command, &[]);
        let ask = |wire: &mut Wire, function, tag| {
            let request = management(wire, function, tag);
            wire.send(&request, &[]);
            match wire.next() {
                (Response::TaskManagement(answer), _) => answer.response,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(ask(&mut wire, TaskFunction::QueryTask, command.itt), there);
        assert_eq!(ask(&mut wire, TaskFunction::QueryTask, 0x999), gone);
        assert_eq!(ask(&mut wire, TaskFunction::QueryTaskSet, RESERVED_TAG), there);
        let job = wire.held.pop().expect("the read");
        wire.run(job);
        wire.pump();
        wire.answers.clear();
        assert_eq!(ask(&mut wire, TaskFunction::QueryTaskSet, RESERVED_TAG), gone);
    }
}

/// Lets sessions work at full depth for a while, and returns how many commands of `blocks` each has done.
fn work(wires: &mut [Wire], blocks: &[u16], seconds: u64) -> Vec<u64> {
    const DEPTH: usize = 16;
    let start = wires[0].now;
    let mut clock = start;
    let mut done = vec![0; wires.len()];
    let mut open = vec![0; wires.len()];
    while clock < start + Duration::from_secs(seconds) {
        for (index, wire) in wires.iter_mut().enumerate() {
            advance(wire, clock);
            let answered = wire
                .answers
                .drain(..)
                .filter(|(response, _)| matches!(response, Response::DataIn(pdu) if pdu.status.is_some()))
                .count();
            done[index] += answered as u64;
            open[index] -= answered;
            while open[index] < DEPTH {
                let command = wire.command(
                    &read10(0, blocks[index]),
                    Direction::Read,
                    u32::from(blocks[index]) * 512,
                );
                wire.send(&command, &[]);
                open[index] += 1;
            }
        }
        clock += Duration::from_millis(1);
    }
    done
}

fn advance(wire: &mut Wire, clock: Instant) {
    let ms = clock.saturating_duration_since(wire.now).as_millis();
    wire.sleep_ms(u64::try_from(ms).expect("short"));
}

fn sessions(node: &Arc<target_core::iscsi::Node>, count: u8) -> Vec<Wire> {
    let mut wires: Vec<Wire> = (0..count)
        .map(|number| Wire::logged_in_as(node, support::INITIATOR, Isid([0x80, 0, 0, 0, 0, number]), &[]))
        .collect();
    let now = wires.iter().map(|wire| wire.now).max().expect("some");
    wires.iter_mut().for_each(|wire| wire.now = now);
    wires
}

fn assert_near(is: u64, wanted: u64, what: &str) {
    let off = is.abs_diff(wanted) * 100;
    assert!(off <= wanted * 5, "{what}: {is} and not {wanted}");
}

#[test]
fn a_limit_of_a_lun_holds_over_all_sessions_and_starves_none() {
    let node = node(Limits::default());
    let unit = node.target(TARGET).expect("the target").device.unit(0).expect("a LUN");
    unit.shaper().set(Rate {
        iops: 3_000,
        bytes_per_s: 0,
    });
    let mut wires = sessions(&node, 3);
    let done = work(&mut wires, &[1, 1, 8], 10);
    assert_near(done.iter().sum(), 30_000, "in all");
    for count in done {
        assert!(count.abs_diff(10_000) < 1_000, "an equal part: {count}");
    }
    // A limit in bytes is shared by bytes.
    unit.shaper().set(Rate {
        iops: 0,
        bytes_per_s: 8 << 20,
    });
    drop(wires);
    let mut wires = sessions(&node, 2);
    let done = work(&mut wires, &[8, 128], 10);
    let bytes = [done[0] * 4096, done[1] * 65536];
    assert_near(bytes.iter().sum(), 80 << 20, "bytes in all");
    assert_near(bytes[0], 40 << 20, "small reads");
    // And none at all is none at all.
    unit.shaper().set(Rate::default());
    drop(wires);
    let mut wires = sessions(&node, 1);
    let done = work(&mut wires, &[1], 1);
    assert!(done[0] > 10_000, "{} without a limit", done[0]);
}

#[test]
fn a_limit_of_a_session_holds_for_that_session_alone() {
    let node = node(Limits::default());
    let target = node.target(TARGET).expect("the target");
    let mut wires = sessions(&node, 2);
    target.set_session_rate(Rate {
        iops: 500,
        bytes_per_s: 0,
    });
    let done = work(&mut wires, &[1, 8], 10);
    assert_near(done[0], 5_000, "the first");
    assert_near(done[1], 5_000, "the second");
}

#[test]
fn what_a_limit_holds_back_can_be_aborted_and_holds_back_nobody_elses() {
    let node = node_with_luns(Limits::default(), &[true, true]);
    let device = &node.target(TARGET).expect("the target").device;
    device.unit(0).expect("LUN 0").shaper().set(Rate {
        iops: 1,
        bytes_per_s: 0,
    });
    let mut wire = Wire::logged_in(&node, &[]);
    let commands: Vec<_> = (0..3)
        .map(|_| {
            let command = wire.command(&read10(0, 1), Direction::Read, 512);
            wire.send(&command, &[]);
            command
        })
        .collect();
    assert_eq!(wire.answers.len(), 1, "one begins at once");
    wire.answers.clear();
    // Another LUN, a command without a medium, task management: all at once.
    let mut other = wire.command(&read10(0, 1), Direction::Read, 512);
    other.lun = Lun::from_number(1);
    wire.send(&other, &[]);
    assert_eq!(wire.answers.len(), 1);
    wire.answers.clear();
    let abort = management(&wire, TaskFunction::AbortTask, commands[1].itt);
    wire.send(&abort, &[]);
    assert!(matches!(wire.next(), (Response::TaskManagement(answer), _) if answer.response == TaskOutcome::Complete));
    wire.sleep_ms(900);
    assert!(wire.answers.is_empty());
    wire.sleep_ms(101);
    assert_eq!(wire.answers.len(), 1, "the third goes when its second is over");
    wire.answers.clear();
    // A change holds at once.
    let late = wire.command(&read10(0, 1), Direction::Read, 512);
    wire.send(&late, &[]);
    assert!(wire.answers.is_empty());
    device.unit(0).expect("LUN 0").shaper().set(Rate::default());
    wire.pump();
    assert_eq!(wire.answers.len(), 1);
}
