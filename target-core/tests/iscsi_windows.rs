//! Wide windows and large transfers: what is promised is kept, and never more is promised than there is.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use iscsi_pdu::{Isid, R2t, RESERVED_TAG, Response, Serial};
use support::answers::{collect_data_in, pattern, r2t, status};
use support::{Direction, Wire, node, read10, write10};
use target_core::iscsi::{Limits, Node};

const WINDOW: u32 = 4096;
/// The first CmdSN of a [`Wire`].
const FIRST: Serial = Serial(100);
const MIB: usize = 1 << 20;
/// TASK SET FULL (SAM-5 5.3.1).
const TASK_SET_FULL: u8 = 0x28;
/// Slots whose memory an idle window keeps.
const IDLE_SLOTS: usize = 32;
/// Silence after which a window gives back memory, in milliseconds.
const IDLE_MS: u64 = 5_000;

fn wide(first_burst_bytes: u32, window_memory_bytes: usize) -> Arc<Node> {
    node(Limits {
        command_window: WINDOW,
        first_burst_bytes,
        window_memory_bytes,
        ..Limits::default()
    })
}

/// A session that brings what it writes along.
fn session(node: &Arc<Node>, number: u8) -> Wire {
    let keys = [
        ("InitialR2T", "Yes"),
        ("ImmediateData", "Yes"),
        ("FirstBurstLength", "16777215"),
        ("MaxBurstLength", "16777215"),
    ];
    let name = format!("iqn.2026-11.net.farlun:s{number}");
    let mut wire = Wire::logged_in_as(node, &name, Isid([0x80, 0, 0, 0, 0, number]), &keys);
    wire.hold = true;
    wire
}

/// How many commands the initiator may still send.
fn open(wire: &Wire) -> usize {
    (wire.max_cmd_sn + 1).0.wrapping_sub(wire.cmd_sn.0) as usize
}

fn block_of(number: u32) -> Vec<u8> {
    pattern(512, (number as u8).wrapping_mul(13).wrapping_add((number >> 8) as u8))
}

/// Counts the answers that have come, and sees to it that all of them are good.
fn answered(wire: &mut Wire, into: &mut BTreeSet<u32>) {
    for (response, _) in std::mem::take(&mut wire.answers) {
        match response {
            Response::ScsiResponse(pdu) => {
                assert_eq!(pdu.status, 0);
                assert!(into.insert(pdu.itt), "answered twice: {pdu:?}");
            }
            Response::DataIn(pdu) => {
                if pdu.status.is_some() {
                    assert!(into.insert(pdu.itt), "answered twice: {pdu:?}");
                }
            }
            Response::NopIn(pdu) => assert_eq!((pdu.itt, pdu.ttt), (RESERVED_TAG, RESERVED_TAG)),
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// What is true at every moment, `first_burst` being what each command that is still let in may bring.
fn check(node: &Node, wire: &Wire, last: &mut Serial, in_flight: usize, first_burst: usize) {
    assert!(last.le(wire.max_cmd_sn), "MaxCmdSN never goes back");
    *last = wire.max_cmd_sn;
    assert!(
        in_flight + open(wire) <= WINDOW as usize,
        "{in_flight} at work, {} let in",
        open(wire)
    );
    let used_bytes = node.budget.window.used_bytes();
    assert!(used_bytes <= node.budget.window.limit_bytes());
    assert!(
        used_bytes >= open(wire) * first_burst,
        "every one of {} is paid for, {used_bytes}",
        open(wire)
    );
}

#[test]
fn a_window_of_4096_fills_and_empties() {
    let first_burst = 16 * 1024;
    // With memory for all of it twice over.
    let node = wide(first_burst, 2 * WINDOW as usize * first_burst as usize);
    let mut wire = session(&node, 1);
    let (mut last, mut done) = (wire.max_cmd_sn, BTreeSet::new());
    let mut sent = 0;
    while open(&wire) > 0 {
        let command = wire.command(&write10(sent, 1), Direction::Write, 512);
        wire.send(&command, &block_of(sent));
        sent += 1;
        answered(&mut wire, &mut done);
        check(&node, &wire, &mut last, wire.held.len(), first_burst as usize);
    }
    assert_eq!(
        (sent, wire.held.len(), wire.max_cmd_sn),
        (WINDOW, WINDOW as usize, FIRST + (WINDOW - 1))
    );
    // One too many is passed over.
    let beyond = wire.command(&read10(0, 1), Direction::Read, 512);
    wire.cmd_sn = beyond.cmd_sn;
    wire.send(&beyond, &[]);
    assert!(wire.held.len() == WINDOW as usize && wire.answers.is_empty());
    // From behind and from the front in turn: every end opens the window by one.
    for round in 0..WINDOW {
        let job = if round % 2 == 0 {
            wire.held.pop()
        } else {
            Some(wire.held.remove(0))
        };
        wire.run(job.expect("one for each command"));
        wire.pump();
        answered(&mut wire, &mut done);
        check(&node, &wire, &mut last, wire.held.len(), first_burst as usize);
        assert_eq!(open(&wire), round as usize + 1, "told with the answer or soon after");
    }
    assert_eq!(done.len(), WINDOW as usize);
    wire.hold = false;
    for number in (0..WINDOW).step_by(128) {
        let command = wire.command(&read10(number, 128), Direction::Read, 128 * 512);
        wire.send(&command, &[]);
        let (data, _) = collect_data_in(&mut wire, &command);
        let expected: Vec<u8> = (number..number + 128).flat_map(block_of).collect();
        assert!(data == expected, "blocks from {number}");
    }
}

#[test]
fn a_small_budget_lets_in_what_it_can_hold_and_everybody_gets_through() {
    let first_burst = 16 * 1024;
    let node = wide(first_burst, 64 * first_burst as usize);
    let mut wires = [session(&node, 1), session(&node, 2)];
    let mut last = wires.each_ref().map(|wire| wire.max_cmd_sn);
    let mut done = [BTreeSet::new(), BTreeSet::new()];
    let mut most = 0;
    while done.iter().any(|done| done.len() < WINDOW as usize) {
        for (index, wire) in wires.iter_mut().enumerate() {
            // Each brings as much as it may.
            while open(wire) > 0 && wire.next_itt <= WINDOW {
                let lba = wire.next_itt % 1024 * 32;
                let command = wire.command(&write10(lba, 32), Direction::Write, first_burst);
                wire.send(&command, &vec![0x5a; first_burst as usize]);
                answered(wire, &mut done[index]);
                check(&node, wire, &mut last[index], wire.held.len(), first_burst as usize);
            }
            most = most.max(wire.held.len());
            for job in std::mem::take(&mut wire.held) {
                wire.run(job);
            }
            wire.pump();
            answered(wire, &mut done[index]);
            check(&node, wire, &mut last[index], 0, first_burst as usize);
            if wire.next_itt > WINDOW && done[index].len() == WINDOW as usize - 1 {
                // The last one: with all of the others answered the window is never shut.
                assert!(open(wire) > 0);
                let command = wire.command(&read10(0, 1), Direction::Read, 512);
                wire.send(&command, &[]);
                for job in std::mem::take(&mut wire.held) {
                    wire.run(job);
                }
                wire.pump();
                answered(wire, &mut done[index]);
            }
        }
    }
    assert!((8..=64).contains(&most), "{most} at a time");
    drop(wires);
    assert_eq!(node.budget.window.used_bytes(), 0);
}

#[test]
fn commands_that_bring_nothing_fill_the_window_whatever_memory_there_is() {
    let first_burst = 16 * 1024;
    let node = wide(first_burst, 64 * first_burst as usize);
    let mut wire = session(&node, 1);
    let (mut last, mut done) = (wire.max_cmd_sn, BTreeSet::new());
    let mut sent = 0;
    while open(&wire) > 0 {
        let command = wire.command(&read10(sent, 1), Direction::Read, 512);
        wire.send(&command, &[]);
        sent += 1;
        answered(&mut wire, &mut done);
        check(&node, &wire, &mut last, sent as usize, first_burst as usize);
    }
    assert_eq!(sent, WINDOW);
    while !wire.held.is_empty() {
        for job in std::mem::take(&mut wire.held) {
            wire.run(job);
        }
        wire.pump();
    }
    answered(&mut wire, &mut done);
    assert_eq!(done.len(), WINDOW as usize);
    check(&node, &wire, &mut last, 0, first_burst as usize);
    assert!(open(&wire) > 0);
}

#[test]
fn an_idle_window_gives_back_and_gets_again_while_there_is_something() {
    let first_burst = 16 * 1024;
    let slot = first_burst as usize;
    let node = wide(first_burst, 1024 * slot);
    let mut wire = session(&node, 1);
    let mut done = BTreeSet::new();
    while open(&wire) > 0 && wire.held.len() < 512 {
        let command = wire.command(&write10(0, 1), Direction::Write, 512);
        wire.send(&command, &[1; 512]);
    }
    for job in std::mem::take(&mut wire.held) {
        wire.run(job);
    }
    wire.pump();
    answered(&mut wire, &mut done);
    let (width, max_cmd_sn) = (open(&wire), wire.max_cmd_sn);
    assert!(width > 128, "{width}");
    assert_eq!(node.budget.window.used_bytes(), width * slot);
    wire.sleep_ms(IDLE_MS - 1);
    assert_eq!(node.budget.window.used_bytes(), width * slot);
    wire.sleep_ms(2);
    assert_eq!(node.budget.window.used_bytes(), IDLE_SLOTS * slot, "all but a few");
    assert_eq!(wire.max_cmd_sn, max_cmd_sn, "what was promised still holds");
    // Another session takes all it can get.
    let mut greedy = session(&node, 2);
    loop {
        while open(&greedy) > 0 {
            let command = greedy.command(&write10(64, 32), Direction::Write, first_burst);
            greedy.send(&command, &vec![2; slot]);
        }
        greedy.pump();
        if open(&greedy) == 0 {
            break;
        }
    }
    let free = (node.budget.window.limit_bytes() - node.budget.window.used_bytes()) / slot;
    assert!(free < width - IDLE_SLOTS, "{free} slots are left");
    // So many as there is memory for are taken, the others told to come again: none is passed over.
    for _ in 0..width {
        let command = wire.command(&write10(0, 32), Direction::Write, first_burst);
        wire.send(&command, &vec![3; slot]);
    }
    let taken = wire.held.len();
    assert_eq!(taken, IDLE_SLOTS + free);
    let mut refused = 0;
    for (response, data) in std::mem::take(&mut wire.answers) {
        if let Response::ScsiResponse(_) = response {
            assert_eq!(status((response, data)).status, TASK_SET_FULL);
            refused += 1;
        }
    }
    assert_eq!(taken + refused, width);
    assert!(node.budget.window.used_bytes() <= node.budget.window.limit_bytes());
    // A command that brings nothing is as good as any.
    for job in std::mem::take(&mut wire.held) {
        wire.run(job);
    }
    wire.pump();
    wire.answers.clear();
    assert!(open(&wire) > 0);
    let probe = wire.command(&[0; 6], Direction::None, 0);
    wire.send(&probe, &[]);
    assert_eq!(status(wire.next()).status, 0);
    // And when the other has gone there is room for all again.
    drop(greedy);
    wire.pump();
    let mut written = BTreeSet::new();
    for _ in 0..200 {
        wire.answers
            .retain(|(response, _)| matches!(response, Response::ScsiResponse(_)));
        answered(&mut wire, &mut written);
        let command = wire.command(&write10(0, 32), Direction::Write, first_burst);
        assert!(wire.cmd_sn.le(wire.max_cmd_sn + 1));
        wire.send(&command, &vec![4; slot]);
        let job = wire.held.pop().expect("taken");
        wire.run(job);
        wire.pump();
    }
    answered(&mut wire, &mut written);
    assert_eq!(written.len(), 200);
}

/// A session with the largest sizes there are.
fn large(digest: &str, r2ts: &str, immediate: &str) -> (Arc<Node>, Wire) {
    let node = node(Limits {
        first_burst_bytes: 1 << 20,
        max_recv_data_segment_bytes: 1 << 20,
        max_burst_bytes: (1 << 24) - 1,
        max_outstanding_r2t: 16,
        ..Limits::default()
    });
    let keys = [
        ("InitialR2T", "No"),
        ("ImmediateData", immediate),
        ("FirstBurstLength", "16777215"),
        ("MaxBurstLength", "16777215"),
        ("MaxRecvDataSegmentLength", "1048576"),
        ("MaxOutstandingR2T", r2ts),
        ("DataDigest", digest),
    ];
    let wire = Wire::logged_in(&node, &keys);
    (node, wire)
}

/// WRITE (16) or READ (16) of 32 MiB from block 0.
fn cdb16(opcode: u8) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[10..14].copy_from_slice(&65_536_u32.to_be_bytes());
    cdb
}

/// Answers an R2T by Data-Outs of a mebibyte, and what is left.
fn answer(wire: &mut Wire, r2t: &R2t, data: &[u8]) {
    let start = r2t.buffer_offset as usize;
    let end = start + r2t.desired_data_transfer_length as usize;
    for (offset, data_sn) in (start..end).step_by(MIB).zip(0..) {
        let stop = end.min(offset + MIB);
        wire.data_out(
            r2t.itt,
            r2t.ttt,
            data_sn,
            offset as u32,
            stop == end,
            &data[offset..stop],
        );
    }
}

#[test]
fn thirty_two_mebibytes_go_in_bursts_of_the_largest_size_there_is() {
    let data = pattern(32 * MIB, 3);
    for (digest, r2ts, immediate) in [("None", "1", "Yes"), ("CRC32C", "16", "No")] {
        let (node, mut wire) = large(digest, r2ts, immediate);
        let is_immediate = immediate == "Yes";
        let mut command = wire.command(&cdb16(0x8a), Direction::Write, 32 << 20);
        command.final_bit = is_immediate;
        wire.send(&command, if is_immediate { &data[..MIB] } else { &[] });
        if !is_immediate {
            wire.data_out(command.itt, RESERVED_TAG, 0, 0, false, &data[..MIB / 2]);
            wire.data_out(
                command.itt,
                RESERVED_TAG,
                1,
                (MIB / 2) as u32,
                true,
                &data[MIB / 2..MIB],
            );
        }
        let burst = (1 << 24) - 1;
        let expected = [(MIB, burst), (MIB + burst, 31 * MIB - burst)];
        let mut asked = Vec::new();
        for (offset, bytes) in expected {
            if asked.is_empty() {
                asked.extend(std::mem::take(&mut wire.answers).into_iter().map(r2t));
                assert_eq!(asked.len(), if r2ts == "1" { 1 } else { 2 }, "of {r2ts} at a time");
            }
            let r2t = asked.remove(0);
            assert_eq!(
                (r2t.buffer_offset as usize, r2t.desired_data_transfer_length as usize),
                (offset, bytes)
            );
            assert!(node.budget.transfer.used_bytes() >= 31 * MIB, "all of it is reserved");
            answer(&mut wire, &r2t, &data);
        }
        assert_eq!(status(wire.next()).status, 0);
        assert_eq!(node.budget.transfer.used_bytes(), 0);

        let command = wire.command(&cdb16(0x88), Direction::Read, 32 << 20);
        wire.send(&command, &[]);
        let ends: Vec<usize> = wire
            .answers
            .iter()
            .filter_map(|(response, data)| match response {
                Response::DataIn(pdu) if pdu.final_bit => Some(pdu.buffer_offset as usize + data.len()),
                _ => None,
            })
            .collect();
        assert_eq!(ends, [burst, 2 * burst, 32 * MIB], "F at the end of every burst");
        let (found, _) = collect_data_in(&mut wire, &command);
        assert!(found == data, "digest {digest}");
    }
}

#[test]
fn a_byte_more_than_the_largest_segment_ends_the_connection_and_one_more_than_the_first_burst_the_command() {
    let (_node, mut wire) = large("None", "1", "Yes");
    let command = wire.command(&cdb16(0x8a), Direction::Write, 32 << 20);
    wire.send(&command, &vec![0; MIB + 1]);
    assert!(wire.connection.ended().is_some(), "{:?}", wire.answers);

    let (_node, mut wire) = large("None", "1", "Yes");
    let mut command = wire.command(&cdb16(0x8a), Direction::Write, 32 << 20);
    command.final_bit = false;
    wire.send(&command, &vec![0; MIB]);
    wire.answers.clear();
    wire.data_out(command.itt, RESERVED_TAG, 0, MIB as u32, true, &[0]);
    let (Response::Reject(_), _) = wire.next() else {
        panic!("beyond the first burst")
    };
    wire.assert_alive();
}
