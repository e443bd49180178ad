//! Each response's figure in RFC 7143 §11, filled in by hand: four bytes a row, as the figures are drawn.

mod figure;

use figure::raw;
use iscsi_pdu::*;

/// The figure parses to the value, and the value is emitted as the figure.
fn response(figure: &str, expected: Response) {
    let header = raw(figure);
    assert_eq!(Response::parse(&header).as_ref(), Ok(&expected));
    assert_eq!(figure::emitted(&expected, header.data_bytes), figure::bytes(figure));
    assert_eq!(expected.window(), (Serial(0x16), Serial(0x56)));
    assert!(matches!(
        Request::parse(&header),
        Err(HeaderError::UnknownOpcode { .. })
    ));
}

const EXP_CMD_SN: Serial = Serial(0x16);
const MAX_CMD_SN: Serial = Serial(0x56);

#[test]
fn scsi_response() {
    response(
        "21 82 00 02   00 00 00 14
         00 00 00 00   00 00 00 00
         00 00 00 14   00 00 00 09
         00 00 00 18   00 00 00 16
         00 00 00 56   00 00 00 03
         00 00 00 00   00 00 01 00",
        Response::ScsiResponse(ScsiResponse {
            response: ServiceResponse::Completed,
            status: 0x02,
            itt: 0x14,
            snack_tag: 9,
            stat_sn: Serial(0x18),
            exp_cmd_sn: EXP_CMD_SN,
            max_cmd_sn: MAX_CMD_SN,
            exp_data_sn: 3,
            bidirectional_residual: Residual::None,
            residual: Residual::Underflow(0x100),
        }),
    );
    response(
        "21 94 01 00   00 00 00 00
         00 00 00 00   00 00 00 00
         00 00 00 14   00 00 00 00
         00 00 00 18   00 00 00 16
         00 00 00 56   00 00 00 00
         00 00 00 07   00 00 02 00",
        Response::ScsiResponse(ScsiResponse {
            response: ServiceResponse::TargetFailure,
            status: 0,
            itt: 0x14,
            snack_tag: 0,
            stat_sn: Serial(0x18),
            exp_cmd_sn: EXP_CMD_SN,
            max_cmd_sn: MAX_CMD_SN,
            exp_data_sn: 0,
            bidirectional_residual: Residual::Overflow(7),
            residual: Residual::Overflow(0x200),
        }),
    );
}

#[test]
fn sense_in_a_scsi_response() {
    let mut data = Vec::new();
    write_sense(&[0x70, 0, 5], &mut data);
    assert_eq!(data, [0, 3, 0x70, 0, 5]);
    data.extend_from_slice(b"response data");
    assert_eq!(sense_bytes(&data), Some(&[0x70, 0, 5][..]));
    assert_eq!(sense_bytes(&[0, 3, 0x70, 0]), None);
    assert_eq!(sense_bytes(&[0]), None);
}

#[test]
fn task_management_response() {
    response(
        "22 80 05 00   00 00 00 00
         00 00 00 00   00 00 00 00
         00 00 00 20   00 00 00 00
         00 00 00 19   00 00 00 16
         00 00 00 56   00 00 00 00
         00 00 00 00   00 00 00 00",
        Response::TaskManagement(TaskManagementResponse {
            response: TaskOutcome::NotSupported,
            itt: 0x20,
            stat_sn: Serial(0x19),
            exp_cmd_sn: EXP_CMD_SN,
            max_cmd_sn: MAX_CMD_SN,
        }),
    );
    assert_eq!(TaskOutcome::from_code(255), TaskOutcome::Rejected);
}

#[test]
fn data_in_with_status() {
    response(
        "25 83 00 04   00 00 10 00
         00 00 00 00   00 00 00 00
         00 00 00 14   ff ff ff ff
         00 00 00 18   00 00 00 16
         00 00 00 56   00 00 00 02
         00 00 20 00   00 00 00 08",
        Response::DataIn(DataIn {
            final_bit: true,
            acknowledge: false,
            status: Some(DataInStatus {
                status: 4,
                stat_sn: Serial(0x18),
                residual: Residual::Underflow(8),
            }),
            lun: Lun::default(),
            itt: 0x14,
            ttt: RESERVED_TAG,
            exp_cmd_sn: EXP_CMD_SN,
            max_cmd_sn: MAX_CMD_SN,
            data_sn: 2,
            buffer_offset: 0x2000,
        }),
    );
}

#[test]
fn data_in_without_status() {
    response(
        "25 40 00 00   00 ff ff ff
         00 01 00 00   00 00 00 00
         00 00 00 14   00 00 00 66
         00 00 00 00   00 00 00 16
         00 00 00 56   00 00 00 01
         00 00 10 00   00 00 00 00",
        Response::DataIn(DataIn {
            final_bit: false,
            acknowledge: true,
            status: None,
            lun: Lun::from_number(1),
            itt: 0x14,
            ttt: 0x66,
            exp_cmd_sn: EXP_CMD_SN,
            max_cmd_sn: MAX_CMD_SN,
            data_sn: 1,
            buffer_offset: 0x1000,
        }),
    );
}

#[test]
fn r2t() {
    response(
        "31 80 00 00   00 00 00 00
         00 05 00 00   00 00 00 00
         00 00 00 14   12 34 56 78
         00 00 00 18   00 00 00 16
         00 00 00 56   00 00 00 04
         00 01 00 00   00 04 00 00",
        Response::R2t(R2t {
            lun: Lun::from_number(5),
            itt: 0x14,
            ttt: 0x1234_5678,
            stat_sn: Serial(0x18),
            exp_cmd_sn: EXP_CMD_SN,
            max_cmd_sn: MAX_CMD_SN,
            r2t_sn: 4,
            buffer_offset: 0x1_0000,
            desired_data_transfer_length: 0x4_0000,
        }),
    );
}

#[test]
fn async_message() {
    response(
        "32 80 00 00   00 00 00 00
         00 06 00 00   00 00 00 00
         ff ff ff ff   00 00 00 00
         00 00 00 1a   00 00 00 16
         00 00 00 56   02 07 00 01
         00 02 00 14   00 00 00 00",
        Response::AsyncMessage(AsyncMessage {
            lun: Lun::from_number(6),
            stat_sn: Serial(0x1a),
            exp_cmd_sn: EXP_CMD_SN,
            max_cmd_sn: MAX_CMD_SN,
            event: AsyncEvent::ConnectionDrop,
            vendor_code: 7,
            parameter1: 1,
            parameter2: 2,
            parameter3: 20,
        }),
    );
}

#[test]
fn text_response() {
    response(
        "24 40 00 00   00 00 02 00
         00 00 00 00   00 00 00 09
         00 00 00 21   00 00 00 77
         00 00 00 1b   00 00 00 16
         00 00 00 56   00 00 00 00
         00 00 00 00   00 00 00 00",
        Response::Text(TextResponse {
            final_bit: false,
            continue_: true,
            lun: Lun([0, 0, 0, 0, 0, 0, 0, 9]),
            itt: 0x21,
            ttt: 0x77,
            stat_sn: Serial(0x1b),
            exp_cmd_sn: EXP_CMD_SN,
            max_cmd_sn: MAX_CMD_SN,
        }),
    );
}

#[test]
fn login_response() {
    response(
        "23 81 02 01   00 00 00 30
         00 02 3d 00   00 01 0a 0b
         00 00 00 05   00 00 00 00
         00 00 00 02   00 00 00 16
         00 00 00 56   00 00 00 00
         00 00 00 00   00 00 00 00",
        Response::Login(LoginResponse {
            transit: true,
            continue_: false,
            csg: Stage::Security,
            nsg: Stage::Operational,
            version_max: 2,
            version_active: 1,
            isid: Isid([0, 2, 0x3d, 0, 0, 1]),
            tsih: 0x0a0b,
            itt: 5,
            stat_sn: Serial(2),
            exp_cmd_sn: EXP_CMD_SN,
            max_cmd_sn: MAX_CMD_SN,
            status: LoginStatus::Success,
        }),
    );
    response(
        "23 04 00 00   00 00 00 00
         00 02 3d 00   00 01 00 00
         00 00 00 05   00 00 00 00
         00 00 00 02   00 00 00 16
         00 00 00 56   02 07 00 00
         00 00 00 00   00 00 00 00",
        Response::Login(LoginResponse {
            transit: false,
            continue_: false,
            csg: Stage::Operational,
            nsg: Stage::Operational,
            version_max: 0,
            version_active: 0,
            isid: Isid([0, 2, 0x3d, 0, 0, 1]),
            tsih: 0,
            itt: 5,
            stat_sn: Serial(2),
            exp_cmd_sn: EXP_CMD_SN,
            max_cmd_sn: MAX_CMD_SN,
            status: LoginStatus::MissingParameter,
        }),
    );
}

/// The table of §11.13.5, class and detail.
#[test]
fn login_status() {
    for (class, detail, status) in [
        (0, 0, LoginStatus::Success),
        (1, 1, LoginStatus::TargetMovedTemporarily),
        (1, 2, LoginStatus::TargetMovedPermanently),
        (2, 0, LoginStatus::InitiatorError),
        (2, 1, LoginStatus::AuthenticationFailure),
        (2, 2, LoginStatus::AuthorizationFailure),
        (2, 3, LoginStatus::NotFound),
        (2, 4, LoginStatus::TargetRemoved),
        (2, 5, LoginStatus::UnsupportedVersion),
        (2, 6, LoginStatus::TooManyConnections),
        (2, 7, LoginStatus::MissingParameter),
        (2, 8, LoginStatus::CannotIncludeInSession),
        (2, 9, LoginStatus::SessionTypeNotSupported),
        (2, 10, LoginStatus::SessionDoesNotExist),
        (2, 11, LoginStatus::InvalidDuringLogin),
        (3, 0, LoginStatus::TargetError),
        (3, 1, LoginStatus::ServiceUnavailable),
        (3, 2, LoginStatus::OutOfResources),
    ] {
        assert_eq!(
            (status.class(), status.detail(), status.is_success()),
            (class, detail, class == 0)
        );
        assert_eq!(LoginStatus::from_code(u16::from_be_bytes([class, detail])), status);
    }
    assert_eq!(LoginStatus::from_code(0x0399).to_string(), "target error (03/99)");
    assert_eq!(LoginStatus::NotFound.to_string(), "no such target here (02/03)");
}

#[test]
fn logout_response() {
    response(
        "26 80 02 00   00 00 00 00
         00 00 00 00   00 00 00 00
         00 00 00 30   00 00 00 00
         00 00 00 1c   00 00 00 16
         00 00 00 56   00 00 00 00
         00 02 00 14   00 00 00 00",
        Response::Logout(LogoutResponse {
            response: LogoutOutcome::RecoveryNotSupported,
            itt: 0x30,
            stat_sn: Serial(0x1c),
            exp_cmd_sn: EXP_CMD_SN,
            max_cmd_sn: MAX_CMD_SN,
            time_to_wait_s: 2,
            time_to_retain_s: 20,
        }),
    );
}

#[test]
fn reject() {
    response(
        "3f 80 09 00   00 00 00 30
         00 00 00 00   00 00 00 00
         ff ff ff ff   00 00 00 00
         00 00 00 1d   00 00 00 16
         00 00 00 56   00 00 00 05
         00 00 00 00   00 00 00 00",
        Response::Reject(Reject {
            reason: RejectReason::InvalidPduField,
            stat_sn: Serial(0x1d),
            exp_cmd_sn: EXP_CMD_SN,
            max_cmd_sn: MAX_CMD_SN,
            data_sn: 5,
        }),
    );
}

#[test]
fn nop_in() {
    response(
        "20 80 00 00   00 00 00 04
         00 02 00 00   00 00 00 00
         ff ff ff ff   00 00 00 88
         00 00 00 1e   00 00 00 16
         00 00 00 56   00 00 00 00
         00 00 00 00   00 00 00 00",
        Response::NopIn(NopIn {
            lun: Lun::from_number(2),
            itt: RESERVED_TAG,
            ttt: 0x88,
            stat_sn: Serial(0x1e),
            exp_cmd_sn: EXP_CMD_SN,
            max_cmd_sn: MAX_CMD_SN,
        }),
    );
}

#[test]
fn contradictions_in_responses() {
    let blank = "21 80 00 00 00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 14 00 00 00 00  00 00 00 00 00 00 00 00
                 00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 01";
    for (opcode, flags, field) in [
        (0x21, 0x86, "O and U"),
        (0x21, 0x98, "o and u"),
        (0x25, 0x01, "S"),
        (0x25, 0x87, "O and U"),
        (0x24, 0xc0, "C"),
        (0x23, 0x8c, "CSG"),
        (0x23, 0x82, "NSG"),
        (0x23, 0xc1, "C"),
    ] {
        let mut header = raw(blank);
        (header.bhs[0], header.bhs[1]) = (opcode, flags);
        let error = Response::parse(&header).expect_err(field);
        assert!(
            matches!(error, HeaderError::InvalidField { field: found, .. } if found == field),
            "{error}"
        );
    }
    let mut header = raw(blank);
    (header.bhs[0], header.bhs[47]) = (0x31, 0);
    let error = Response::parse(&header).expect_err("an R2T for nothing");
    assert!(matches!(
        error,
        HeaderError::InvalidField {
            field: "Desired Data Transfer Length",
            ..
        }
    ));
}

#[test]
fn only_pdus_with_a_status_use_up_a_number() {
    let nop = |itt| {
        let mut header = raw(&"20 ".repeat(48));
        (header.bhs[4], header.bhs[5]) = (0, 0);
        header.bhs[16..20].copy_from_slice(&u32::to_be_bytes(itt));
        Response::parse(&header).expect("a NOP-In").stat_sn()
    };
    assert_eq!((nop(1), nop(RESERVED_TAG)), (Some(Serial(0x2020_2020)), None));
}
