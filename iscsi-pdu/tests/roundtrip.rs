//! Any PDU that can be made survives the wire; any bytes at all do no harm.

mod bodies;

use iscsi_pdu::*;
use proptest::array::{uniform4, uniform6, uniform8};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn serial() -> impl Strategy<Value = Serial> {
    any::<u32>().prop_map(Serial)
}

fn lun() -> impl Strategy<Value = Lun> {
    uniform8(any::<u8>()).prop_map(Lun)
}

fn isid() -> impl Strategy<Value = Isid> {
    uniform6(any::<u8>()).prop_map(Isid)
}

fn residual() -> impl Strategy<Value = Residual> {
    prop_oneof![
        Just(Residual::None),
        any::<u32>().prop_map(Residual::Underflow),
        any::<u32>().prop_map(Residual::Overflow)
    ]
}

/// (T or F, C), never both.
fn ends() -> impl Strategy<Value = (bool, bool)> {
    select(vec![(false, false), (false, true), (true, false)])
}

/// (T, C, CSG, NSG) as login allows.
fn stages() -> impl Strategy<Value = (bool, bool, Stage, Stage)> {
    use Stage::{FullFeature, Operational, Security};
    select(vec![
        (false, false, Security, Security),
        (false, true, Security, Security),
        (false, false, Operational, Operational),
        (false, true, Operational, Operational),
        (true, false, Security, Operational),
        (true, false, Security, FullFeature),
        (true, false, Operational, FullFeature),
    ])
}

fn cdb() -> impl Strategy<Value = Cdb> {
    vec(any::<u8>(), 0..=MAX_CDB_BYTES).prop_filter_map("fits", |bytes| Cdb::new(&bytes))
}

fn scsi_command() -> impl Strategy<Value = Request> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let rest = (
        select(TaskAttribute::ALL),
        lun(),
        any::<u32>(),
        any::<u32>(),
        uniform4(any::<u32>()),
    );
    (flags, rest, cdb(), any::<bool>()).prop_map(
        |((immediate, final_bit, read, write), (attribute, lun, itt, length, numbers), cdb, both)| {
            Request::ScsiCommand(ScsiCommand {
                immediate,
                final_bit: final_bit || !write,
                read,
                write,
                attribute,
                lun,
                itt,
                expected_data_transfer_length: if read || write { length } else { 0 },
                cmd_sn: Serial(numbers[0]),
                exp_stat_sn: Serial(numbers[1]),
                cdb,
                bidirectional_read_length: (both && read && write).then_some(numbers[2]),
            })
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let tags = || (any::<u32>(), any::<u32>(), serial(), serial());
    let nop = (any::<bool>(), lun(), tags()).prop_map(|(immediate, lun, (itt, ttt, cmd_sn, exp_stat_sn))| {
        Request::NopOut(NopOut {
            immediate,
            lun,
            itt,
            ttt,
            cmd_sn,
            exp_stat_sn,
        })
    });
    let task = (any::<bool>(), 0_u8..0x80, lun(), tags(), serial(), any::<u32>()).prop_map(
        |(immediate, function, lun, (itt, referenced_task_tag, cmd_sn, exp_stat_sn), ref_cmd_sn, exp_data_sn)| {
            let function = TaskFunction::from_code(function);
            Request::TaskManagement(TaskManagementRequest {
                immediate,
                function,
                lun,
                itt,
                referenced_task_tag,
                cmd_sn,
                exp_stat_sn,
                ref_cmd_sn,
                exp_data_sn,
            })
        },
    );
    let login = (stages(), uniform4(any::<u8>()), isid(), any::<(u16, u16)>(), tags()).prop_map(
        |((transit, continue_, csg, nsg), versions, isid, (tsih, cid), (itt, _, cmd_sn, exp_stat_sn))| {
            let (version_max, version_min) = (versions[0], versions[1]);
            Request::Login(LoginRequest {
                transit,
                continue_,
                csg,
                nsg,
                version_max,
                version_min,
                isid,
                tsih,
                itt,
                cid,
                cmd_sn,
                exp_stat_sn,
            })
        },
    );
    let text = (any::<bool>(), ends(), lun(), tags()).prop_map(
        |(immediate, (final_bit, continue_), lun, (itt, ttt, cmd_sn, exp_stat_sn))| {
            Request::Text(TextRequest {
                immediate,
                final_bit,
                continue_,
                lun,
                itt,
                ttt,
                cmd_sn,
                exp_stat_sn,
            })
        },
    );
    let data = (any::<bool>(), lun(), tags(), any::<u32>()).prop_map(
        |(final_bit, lun, (itt, ttt, exp_stat_sn, Serial(data_sn)), buffer_offset)| {
            Request::DataOut(DataOut {
                final_bit,
                lun,
                itt,
                ttt,
                exp_stat_sn,
                data_sn,
                buffer_offset,
            })
        },
    );
    let logout = (any::<bool>(), select(LogoutReason::ALL), any::<u16>(), tags()).prop_map(
        |(immediate, reason, cid, (itt, _, cmd_sn, exp_stat_sn))| {
            Request::Logout(LogoutRequest {
                immediate,
                reason,
                itt,
                cid,
                cmd_sn,
                exp_stat_sn,
            })
        },
    );
    let snack = (select(SnackType::ALL), lun(), tags(), any::<u32>()).prop_map(
        |(kind, lun, (itt, ttt, exp_stat_sn, Serial(beg_run)), run_length)| {
            Request::Snack(Snack {
                kind,
                lun,
                itt,
                ttt,
                exp_stat_sn,
                beg_run,
                run_length,
            })
        },
    );
    prop_oneof![nop, scsi_command(), task, login, text, data, logout, snack]
}

fn response() -> impl Strategy<Value = Response> {
    let numbers = || (any::<u32>(), any::<u32>(), serial(), serial(), serial());
    let nop = (lun(), numbers()).prop_map(|(lun, (itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn))| {
        Response::NopIn(NopIn {
            lun,
            itt,
            ttt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
        })
    });
    let scsi = (any::<(u8, u8, u32)>(), numbers(), residual(), residual()).prop_map(
        |((response, status, exp_data_sn), (itt, snack_tag, stat_sn, exp_cmd_sn, max_cmd_sn), one, other)| {
            Response::ScsiResponse(ScsiResponse {
                response: ServiceResponse::from_code(response),
                status,
                itt,
                snack_tag,
                stat_sn,
                exp_cmd_sn,
                max_cmd_sn,
                exp_data_sn,
                bidirectional_residual: one,
                residual: other,
            })
        },
    );
    let task = (any::<u8>(), numbers()).prop_map(|(code, (itt, _, stat_sn, exp_cmd_sn, max_cmd_sn))| {
        let response = TaskOutcome::from_code(code);
        Response::TaskManagement(TaskManagementResponse {
            response,
            itt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
        })
    });
    let login = (stages(), uniform4(any::<u8>()), isid(), any::<(u16, u16)>(), numbers()).prop_map(
        |((transit, continue_, csg, nsg), versions, isid, (tsih, code), (itt, _, stat_sn, exp_cmd_sn, max_cmd_sn))| {
            let status = LoginStatus::from_code(code % 0x0400);
            let going_on = status.is_success();
            Response::Login(LoginResponse {
                transit: transit && going_on,
                continue_: continue_ && going_on,
                csg,
                nsg: if going_on { nsg } else { csg },
                version_max: versions[0],
                version_active: versions[1],
                isid,
                tsih,
                itt,
                stat_sn,
                exp_cmd_sn,
                max_cmd_sn,
                status,
            })
        },
    );
    let text = (ends(), lun(), numbers()).prop_map(
        |((final_bit, continue_), lun, (itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn))| {
            Response::Text(TextResponse {
                final_bit,
                continue_,
                lun,
                itt,
                ttt,
                stat_sn,
                exp_cmd_sn,
                max_cmd_sn,
            })
        },
    );
    let status = (any::<u8>(), serial(), residual()).prop_map(|(status, stat_sn, residual)| DataInStatus {
        status,
        stat_sn,
        residual,
    });
    let data = (any::<(bool, bool, u32, u32)>(), option::of(status), lun(), numbers()).prop_map(
        |((final_bit, acknowledge, data_sn, buffer_offset), status, lun, (itt, ttt, _, exp_cmd_sn, max_cmd_sn))| {
            Response::DataIn(DataIn {
                final_bit: final_bit || status.is_some(),
                acknowledge,
                status,
                lun,
                itt,
                ttt,
                exp_cmd_sn,
                max_cmd_sn,
                data_sn,
                buffer_offset,
            })
        },
    );
    let logout = (any::<(u8, u16, u16)>(), numbers()).prop_map(
        |((code, time_to_wait_s, time_to_retain_s), (itt, _, stat_sn, exp_cmd_sn, max_cmd_sn))| {
            let response = LogoutOutcome::from_code(code);
            Response::Logout(LogoutResponse {
                response,
                itt,
                stat_sn,
                exp_cmd_sn,
                max_cmd_sn,
                time_to_wait_s,
                time_to_retain_s,
            })
        },
    );
    let r2t = (lun(), numbers(), any::<(u32, u32)>(), 1..=u32::MAX).prop_map(
        |(lun, (itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn), (r2t_sn, buffer_offset), desired)| {
            Response::R2t(R2t {
                lun,
                itt,
                ttt,
                stat_sn,
                exp_cmd_sn,
                max_cmd_sn,
                r2t_sn,
                buffer_offset,
                desired_data_transfer_length: desired,
            })
        },
    );
    let asynchronous = (lun(), numbers(), any::<(u8, u8, u16, u16, u16)>()).prop_map(
        |(lun, (_, _, stat_sn, exp_cmd_sn, max_cmd_sn), (event, vendor_code, parameter1, parameter2, parameter3))| {
            let event = AsyncEvent::from_code(event);
            Response::AsyncMessage(AsyncMessage {
                lun,
                stat_sn,
                exp_cmd_sn,
                max_cmd_sn,
                event,
                vendor_code,
                parameter1,
                parameter2,
                parameter3,
            })
        },
    );
    let reject = (any::<u8>(), numbers()).prop_map(|(code, (data_sn, _, stat_sn, exp_cmd_sn, max_cmd_sn))| {
        let reason = RejectReason::from_code(code);
        Response::Reject(Reject {
            reason,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            data_sn,
        })
    });
    prop_oneof![nop, scsi, task, login, text, data, logout, r2t, asynchronous, reject]
}

proptest! {
    #[test]
    fn requests_survive_the_wire(pdu in request(), data_bytes in 0..=MAX_DATA_SEGMENT_BYTES) {
        let header = bodies::raw(&pdu, data_bytes);
        prop_assert_eq!(Request::parse(&header), Ok(pdu));
    }

    #[test]
    fn responses_survive_the_wire(pdu in response(), data_bytes in 0..=MAX_DATA_SEGMENT_BYTES) {
        let header = bodies::raw(&pdu, data_bytes);
        prop_assert_eq!(Response::parse(&header), Ok(pdu));
    }

    #[test]
    fn any_header_that_parses_is_stable(mut bhs in vec(any::<u8>(), 48), opcode in select(Opcode::ALL)) {
        bhs[0] = bhs[0] & 0x40 | opcode.code();
        let mut header = RawHeader { bhs: [0; 48], ahs: Vec::new(), data_bytes: 0 };
        header.bhs.copy_from_slice(&bhs);
        bodies::reparse(&header);
    }

    /// A stream of several PDUs gives them back however it is cut, with their data, with and without digests.
    #[test]
    fn streams_may_be_cut_anywhere(
        pdus in vec((request(), vec(any::<u8>(), 0..300)), 1..5),
        header_digest: bool,
        data_digest: bool,
        pieces in vec(1..200_usize, 1..20),
    ) {
        let framing = Framing { header_digest, data_digest };
        let mut stream = Vec::new();
        let pdus: Vec<_> = pdus.into_iter().filter(|(pdu, _)| pdu.header_bytes() <= 48 + 64).collect();
        for (pdu, data) in &pdus {
            framing.pdu(pdu, data, &mut stream);
        }
        let (decoded, error) = bodies::decode(&stream, (header_digest, data_digest), &pieces);
        prop_assert_eq!(error, None);
        prop_assert_eq!(decoded.len(), pdus.len());
        for (found, (pdu, data)) in decoded.iter().zip(&pdus) {
            prop_assert_eq!(&Request::parse(&found.header), &Ok(pdu.clone()));
            prop_assert_eq!(&found.data, data);
            prop_assert_eq!(found.trailer, Trailer::Intact);
        }
    }

    /// Any one bit wrong is noticed: in a header the connection is over, in data only that PDU is lost.
    #[test]
    fn damage_is_noticed(pdu in request(), data in vec(any::<u8>(), 1..300), place: prop::sample::Index, bit in 0..8) {
        prop_assume!(pdu.header_bytes() <= 48 + 64);
        let mut stream = Vec::new();
        Framing { header_digest: true, data_digest: true }.pdu(&pdu, &data, &mut stream);
        let at = place.index(stream.len());
        stream[at] ^= 1_u8 << bit;
        let (decoded, error) = bodies::decode(&stream, (true, true), &[]);
        if at < pdu.header_bytes() + 4 {
            prop_assert!(decoded.is_empty());
            // A longer TotalAHSLength may also make the decoder wait for more than there is.
            prop_assert!(error.is_some() || at == 4);
        } else {
            prop_assert_eq!(error, None);
            let damaged = matches!(decoded[0].trailer, Trailer::DigestMismatch { .. });
            prop_assert!(damaged);
        }
    }

    #[test]
    fn any_bytes_as_a_stream(bytes in vec(any::<u8>(), 0..600)) {
        bodies::decoder(&bytes);
    }

    /// As above, but the lengths are ones that fit, so that more than the first header is reached.
    #[test]
    fn any_short_pdus_as_a_stream(choice: u8, pdus in vec((vec(any::<u8>(), 48), 0_u8..4, 0_u8..40), 1..6)) {
        let mut stream = vec![choice];
        for (mut bhs, ahs_words, data_bytes) in pdus {
            bhs[4..8].copy_from_slice(&[ahs_words, 0, 0, data_bytes]);
            let body = bhs.clone();
            stream.extend(bhs);
            stream.extend(body.iter().cycle().take(usize::from(ahs_words) * 4 + usize::from(data_bytes)));
        }
        bodies::decoder(&stream);
    }
}
