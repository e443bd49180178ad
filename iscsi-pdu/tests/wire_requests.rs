//! Each request's figure in RFC 7143 §11, filled in by hand: four bytes a row, as the figures are drawn.

mod figure;

use figure::raw;
use iscsi_pdu::*;

/// The figure parses to the value, and the value is emitted as the figure.
fn request(figure: &str, expected: Request) {
    let header = raw(figure);
    assert_eq!(Request::parse(&header).as_ref(), Ok(&expected));
    assert_eq!(figure::emitted(&expected, header.data_bytes), figure::bytes(figure));
    assert!(matches!(
        Response::parse(&header),
        Err(HeaderError::UnknownOpcode { .. })
    ));
}

#[test]
fn scsi_command_read_10() {
    request(
        "01 c1 00 00   00 00 00 00
         00 05 00 00   00 00 00 00
         00 00 00 14   00 00 04 00
         00 00 00 15   00 00 00 18
         28 00 00 00   00 10 00 00   02 00 00 00   00 00 00 00",
        Request::ScsiCommand(ScsiCommand {
            immediate: false,
            final_bit: true,
            read: true,
            write: false,
            attribute: TaskAttribute::Simple,
            lun: Lun::from_number(5),
            itt: 0x14,
            expected_data_transfer_length: 0x400,
            cmd_sn: Serial(0x15),
            exp_stat_sn: Serial(0x18),
            cdb: Cdb::new(&[0x28, 0, 0, 0, 0, 0x10, 0, 0, 2, 0]).expect("short"),
            bidirectional_read_length: None,
        }),
    );
}

#[test]
fn scsi_command_write_with_immediate_and_unsolicited_data() {
    request(
        "41 22 00 00   00 00 10 01
         41 23 00 00   00 00 00 00
         aa bb cc dd   00 02 00 00
         ff ff ff ff   80 00 00 00
         8a 08 00 00   00 00 00 00   00 40 00 00   01 00 00 00",
        Request::ScsiCommand(ScsiCommand {
            immediate: true,
            final_bit: false,
            read: false,
            write: true,
            attribute: TaskAttribute::Ordered,
            lun: Lun::from_number(0x123),
            itt: 0xaabb_ccdd,
            expected_data_transfer_length: 0x2_0000,
            cmd_sn: Serial(0xffff_ffff),
            exp_stat_sn: Serial(0x8000_0000),
            cdb: Cdb::from([0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 1, 0, 0, 0]),
            bidirectional_read_length: None,
        }),
    );
}

#[test]
fn scsi_command_with_both_additional_headers() {
    // AHSLength of an extended CDB of 18 bytes in all: 2 and the reserved byte. TotalAHSLength is in words: 2 + 2.
    request(
        "01 e4 00 00   04 00 00 00
         00 00 00 00   00 00 00 00
         00 00 00 01   00 00 02 00
         00 00 00 02   00 00 00 03
         7f 00 00 00   00 00 00 0a   00 0b 00 00   00 00 00 00
         00 03 01 00   99 98 00 00
         00 05 02 00   00 00 10 00",
        Request::ScsiCommand(ScsiCommand {
            immediate: false,
            final_bit: true,
            read: true,
            write: true,
            attribute: TaskAttribute::Aca,
            lun: Lun::default(),
            itt: 1,
            expected_data_transfer_length: 0x200,
            cmd_sn: Serial(2),
            exp_stat_sn: Serial(3),
            cdb: Cdb::new(&[0x7f, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0x0b, 0, 0, 0, 0, 0, 0, 0x99, 0x98]).expect("18 bytes"),
            bidirectional_read_length: Some(0x1000),
        }),
    );
}

#[test]
fn task_management() {
    request(
        "42 81 00 00   00 00 00 00
         00 03 00 00   00 00 00 00
         00 00 00 20   00 00 00 14
         00 00 00 16   00 00 00 19
         00 00 00 15   00 00 00 07
         00 00 00 00   00 00 00 00",
        Request::TaskManagement(TaskManagementRequest {
            immediate: true,
            function: TaskFunction::AbortTask,
            lun: Lun::from_number(3),
            itt: 0x20,
            referenced_task_tag: 0x14,
            cmd_sn: Serial(0x16),
            exp_stat_sn: Serial(0x19),
            ref_cmd_sn: Serial(0x15),
            exp_data_sn: 7,
        }),
    );
    for (code, function) in [
        (2, TaskFunction::AbortTaskSet),
        (3, TaskFunction::ClearAca),
        (4, TaskFunction::ClearTaskSet),
        (5, TaskFunction::LogicalUnitReset),
        (6, TaskFunction::TargetWarmReset),
        (7, TaskFunction::TargetColdReset),
        (8, TaskFunction::TaskReassign),
        (0x55, TaskFunction::Other(0x55)),
    ] {
        assert_eq!(TaskFunction::from_code(code), function);
        assert_eq!(function.code(), code);
    }
}

#[test]
fn data_out() {
    request(
        "05 80 00 00   00 00 20 00
         00 05 00 00   00 00 00 00
         00 00 00 14   12 34 56 78
         00 00 00 00   00 00 00 1a
         00 00 00 00   00 00 00 03
         00 01 00 00   00 00 00 00",
        Request::DataOut(DataOut {
            final_bit: true,
            lun: Lun::from_number(5),
            itt: 0x14,
            ttt: 0x1234_5678,
            exp_stat_sn: Serial(0x1a),
            data_sn: 3,
            buffer_offset: 0x1_0000,
        }),
    );
}

#[test]
fn text() {
    request(
        "04 80 00 00   00 00 00 10
         00 00 00 00   00 00 00 00
         00 00 00 21   ff ff ff ff
         00 00 00 17   00 00 00 1b
         00 00 00 00   00 00 00 00   00 00 00 00   00 00 00 00",
        Request::Text(TextRequest {
            immediate: false,
            final_bit: true,
            continue_: false,
            lun: Lun::default(),
            itt: 0x21,
            ttt: RESERVED_TAG,
            cmd_sn: Serial(0x17),
            exp_stat_sn: Serial(0x1b),
        }),
    );
    request(
        "44 40 00 00   00 00 00 00
         00 00 00 00   00 00 00 09
         00 00 00 21   00 00 00 77
         00 00 00 17   00 00 00 1b
         00 00 00 00   00 00 00 00   00 00 00 00   00 00 00 00",
        Request::Text(TextRequest {
            immediate: true,
            final_bit: false,
            continue_: true,
            lun: Lun([0, 0, 0, 0, 0, 0, 0, 9]),
            itt: 0x21,
            ttt: 0x77,
            cmd_sn: Serial(0x17),
            exp_stat_sn: Serial(0x1b),
        }),
    );
}

#[test]
fn login() {
    // T, CSG 1, NSG 3; ISID 00 02 3d 00 00 01; TSIH 0x0102; CID 0x0304.
    request(
        "43 87 02 01   00 00 01 00
         00 02 3d 00   00 01 01 02
         00 00 00 05   03 04 00 00
         00 00 00 01   00 00 00 02
         00 00 00 00   00 00 00 00   00 00 00 00   00 00 00 00",
        Request::Login(LoginRequest {
            transit: true,
            continue_: false,
            csg: Stage::Operational,
            nsg: Stage::FullFeature,
            version_max: 2,
            version_min: 1,
            isid: Isid([0, 2, 0x3d, 0, 0, 1]),
            tsih: 0x0102,
            itt: 5,
            cid: 0x0304,
            cmd_sn: Serial(1),
            exp_stat_sn: Serial(2),
        }),
    );
    request(
        "43 40 00 00   00 00 00 08
         80 12 34 56   78 9a 00 00
         00 00 00 00   00 01 00 00
         00 00 00 01   00 00 00 00
         00 00 00 00   00 00 00 00   00 00 00 00   00 00 00 00",
        Request::Login(LoginRequest {
            transit: false,
            continue_: true,
            csg: Stage::Security,
            nsg: Stage::Security,
            version_max: 0,
            version_min: 0,
            isid: Isid([0x80, 0x12, 0x34, 0x56, 0x78, 0x9a]),
            tsih: 0,
            itt: 0,
            cid: 1,
            cmd_sn: Serial(1),
            exp_stat_sn: Serial(0),
        }),
    );
}

#[test]
fn logout() {
    request(
        "46 81 00 00   00 00 00 00
         00 00 00 00   00 00 00 00
         00 00 00 30   00 07 00 00
         00 00 00 18   00 00 00 1c
         00 00 00 00   00 00 00 00   00 00 00 00   00 00 00 00",
        Request::Logout(LogoutRequest {
            immediate: true,
            reason: LogoutReason::CloseConnection,
            itt: 0x30,
            cid: 7,
            cmd_sn: Serial(0x18),
            exp_stat_sn: Serial(0x1c),
        }),
    );
}

#[test]
fn snack() {
    request(
        "10 81 00 00   00 00 00 00
         00 01 00 00   00 00 00 00
         ff ff ff ff   ff ff ff ff
         00 00 00 00   00 00 00 1d
         00 00 00 00   00 00 00 00
         00 00 00 1d   00 00 00 04",
        Request::Snack(Snack {
            kind: SnackType::Status,
            lun: Lun::from_number(1),
            itt: RESERVED_TAG,
            ttt: RESERVED_TAG,
            exp_stat_sn: Serial(0x1d),
            beg_run: 0x1d,
            run_length: 4,
        }),
    );
}

#[test]
fn nop_out() {
    request(
        "40 80 00 00   00 00 00 04
         00 02 00 00   00 00 00 00
         00 00 00 31   ff ff ff ff
         00 00 00 19   00 00 00 1e
         00 00 00 00   00 00 00 00   00 00 00 00   00 00 00 00",
        Request::NopOut(NopOut {
            immediate: true,
            lun: Lun::from_number(2),
            itt: 0x31,
            ttt: RESERVED_TAG,
            cmd_sn: Serial(0x19),
            exp_stat_sn: Serial(0x1e),
        }),
    );
}

/// One byte of a good request changed, and the field that is refused for it.
#[test]
fn values_the_standard_does_not_allow() {
    let read = "01 c1 00 00 00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 14 00 00 04 00  00 00 00 15 00 00 00 18
                28 00 00 00 00 10 00 00  02 00 00 00 00 00 00 00";
    let login = "43 87 00 00 00 00 00 00  00 02 3d 00 00 01 00 00  00 00 00 05 00 00 00 00  00 00 00 01 00 00 00 02
                 00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00";
    let text = "04 80 00 00 00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 21 ff ff ff ff  00 00 00 17 00 00 00 1b
                00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00";
    let logout = "46 80 00 00 00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 30 00 00 00 00  00 00 00 18 00 00 00 1c
                  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00";
    let snack = "10 80 00 00 00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 01 ff ff ff ff  00 00 00 00 00 00 00 1d
                 00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00";
    for (figure, at, byte, field) in [
        (read, 1, 0xc5, "ATTR"),
        (read, 1, 0xc7, "ATTR"),
        (read, 1, 0x41, "F"),
        (read, 1, 0x81, "Expected Data Transfer Length"),
        (login, 1, 0x8b, "CSG"),
        (login, 1, 0x0f, "CSG"),
        (login, 1, 0x86, "NSG"),
        (login, 1, 0x84, "NSG"),
        (login, 1, 0x85, "NSG"),
        (login, 1, 0xc7, "C"),
        (text, 1, 0xc0, "C"),
        (logout, 1, 0x83, "Reason Code"),
        (snack, 1, 0x84, "Type"),
    ] {
        let mut header = raw(figure);
        assert!(Request::parse(&header).is_ok(), "{field}: the figure itself");
        header.bhs[at] = byte;
        let error = Request::parse(&header).expect_err(field);
        assert!(
            matches!(error, HeaderError::InvalidField { field: found, .. } if found == field),
            "{error}"
        );
        assert_eq!(error.reject_reason(), RejectReason::InvalidPduField);
        assert_eq!(error.opcode(), header.bhs[0] & 0x3f);
    }
}

#[test]
fn opcodes_that_are_not_requests() {
    let mut header = raw(&"00 ".repeat(48));
    for opcode in 0..0x40 {
        header.bhs[0] = opcode;
        let known = Opcode::from_code(opcode).is_some_and(Opcode::is_request);
        let unknown = Request::parse(&header) == Err(HeaderError::UnknownOpcode { opcode });
        assert_eq!(known, !unknown, "{opcode:#x}");
    }
    header.bhs[0] = 0x1c;
    let reason = Request::parse(&header).expect_err("vendor-specific").reject_reason();
    assert_eq!(reason, RejectReason::CommandNotSupported);
}

#[test]
fn additional_headers_that_do_not_fit() {
    let command = "01 e0 00 00 00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 14 00 00 04 00  00 00 00 15 00 00 00 18
                   28 00 00 00 00 10 00 00  02 00 00 00 00 00 00 00";
    for (ahs, what) in [
        ("00 09 01 00 11 22 00 00", "its length runs past the header"),
        ("00 00 01 00", "extended CDB of no bytes"),
        ("00 01 01 00", "extended CDB of no bytes"),
        ("00 02 01 00 11 00 00 00 00 02 01 00 11 00 00 00", "two extended CDBs"),
        ("00 04 02 00 00 00 10 00", "bidirectional read length is short"),
        (
            "00 06 02 00 00 00 10 00 00 00 00 00",
            "bidirectional read length is not 5 bytes",
        ),
        (
            "00 05 02 00 00 00 10 00 00 05 02 00 00 00 10 00",
            "two bidirectional read lengths",
        ),
        ("00 01 03 00", "unknown AHSType"),
        ("00 00", "its length runs past the header"),
    ] {
        let mut header = raw(command);
        header.ahs = figure::bytes(ahs);
        assert_eq!(
            Request::parse(&header),
            Err(HeaderError::InvalidAhs { opcode: 1, what })
        );
    }
    let mut header = raw(command);
    header.bhs[1] = 0xc0;
    header.ahs = figure::bytes("00 05 02 00 00 00 10 00");
    let what = "bidirectional read length without R and W";
    assert_eq!(
        Request::parse(&header),
        Err(HeaderError::InvalidAhs { opcode: 1, what })
    );
    // The longest CDB there is, and one byte more.
    for (extension, fits) in [(244, true), (245, false)] {
        let mut ahs = vec![0, extension + 1, 1, 0];
        ahs.resize(4 + usize::from(extension).next_multiple_of(4), 0x55);
        let mut header = raw(command);
        header.ahs = ahs;
        assert_eq!(Request::parse(&header).is_ok(), fits);
    }
    // Nothing but a SCSI Command has them.
    let mut header = raw(&"00 ".repeat(48));
    header.ahs = vec![0, 5, 2, 0, 0, 0, 0, 0];
    assert!(matches!(
        Request::parse(&header),
        Err(HeaderError::InvalidAhs { opcode: 0, .. })
    ));
}
