//! Data in both directions: immediate, unsolicited, by R2T, Data-In, residuals, digests.

mod support;

use iscsi_pdu::pdu::sense_bytes;
use iscsi_pdu::{RESERVED_TAG, RejectReason, Residual, Response, ScsiCommand};
use support::answers::{collect_data_in, pattern, r2t, read, reject_reason, sense, status};
use support::{Answer, Direction, Wire, node, read10, write10};
use target_core::iscsi::{Ended, Limits};

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
fn what_is_being_read_counts_as_queued() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
    wire.hold = true;
    for _ in 0..16 {
        let command = wire.command(&read10(0, 2048), Direction::Read, 1 << 20);
        wire.send(&command, &[]);
    }
    assert_eq!(
        wire.held.len(),
        4,
        "4 MiB are on their way: more would only stand in line"
    );
    for job in std::mem::take(&mut wire.held) {
        wire.run(job);
    }
    wire.pump();
    assert_eq!(wire.held.len(), 4, "and then the next");
}

#[test]
fn immediate_commands_reserve_what_they_bring() {
    // The memory of one slot of the window, and no more.
    let limits = Limits {
        first_burst_bytes: 4096,
        window_memory_bytes: 4096,
        ..Limits::default()
    };
    let mut wire = Wire::logged_in(&node(limits), &[("FirstBurstLength", "4096")]);
    wire.hold = true;
    let command = ScsiCommand {
        immediate: true,
        ..wire.command(&write10(0, 8), Direction::Write, 4096)
    };
    wire.send(&command, &pattern(4096, 1));
    assert_eq!(reject_reason(wire.next()), RejectReason::TooManyImmediate);
    assert!(wire.held.is_empty(), "it is not run");
}

#[test]
fn refused_data_is_told_of_in_the_format_that_was_chosen() {
    let mut wire = Wire::logged_in(&node(Limits::default()), &[("ImmediateData", "No")]);
    let refuse = |wire: &mut Wire| {
        // Immediate data that was not agreed to, then a sequence that is too short.
        let write = wire.command(&write10(0, 1), Direction::Write, 512);
        wire.send(&write, &[1; 512]);
        let first = format_and_key(wire.next());
        let write = wire.command(&write10(0, 1), Direction::Write, 512);
        wire.send(&write, &[]);
        let ttt = r2t(wire.next()).ttt;
        wire.data_out(write.itt, ttt, 0, 0, true, &[1; 256]);
        assert_eq!(reject_reason(wire.next()), RejectReason::ProtocolError);
        [first, format_and_key(wire.next())]
    };
    assert_eq!(refuse(&mut wire), [(0x70, 0x0b), (0x70, 0x0b)]);
    // MODE SELECT: D_SENSE.
    let page = [0, 0, 0, 0, 0x0A, 10, 0x04, 0x10, 0, 0x40, 0, 0, 0, 0, 0, 0];
    let select = wire.command(&[0x15, 0x10, 0, 0, 16, 0], Direction::Write, 16);
    wire.send(&select, &[]);
    let ttt = r2t(wire.next()).ttt;
    wire.data_out(select.itt, ttt, 0, 0, true, &page);
    assert_eq!(status(wire.next()).status, 0);
    assert_eq!(refuse(&mut wire), [(0x72, 0x0b), (0x72, 0x0b)]);
}

/// Response code and sense key of a CHECK CONDITION.
fn format_and_key((_, data): Answer) -> (u8, u8) {
    let sense = sense_bytes(&data).expect("sense data");
    match sense[0] & 0x7F {
        0x72 => (0x72, sense[1]),
        code => (code, sense[2] & 0x0F),
    }
}
