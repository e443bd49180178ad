//! Taking answers apart, and failing when they are of another kind.

use iscsi_pdu::{DataIn, R2t, RejectReason, Response, ScsiCommand, ScsiResponse, sense_bytes};

use super::{Answer, Direction, Wire, read10};

pub fn pattern(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes)
        .map(|at| {
            (at as u8)
                .wrapping_mul(31)
                .wrapping_add(seed)
                .wrapping_add((at >> 9) as u8)
        })
        .collect()
}

pub fn status(answer: Answer) -> ScsiResponse {
    match answer {
        (Response::ScsiResponse(response), _) => response,
        other => panic!("expected a SCSI response, got {other:?}"),
    }
}

pub fn r2t(answer: Answer) -> R2t {
    match answer {
        (Response::R2t(r2t), _) => r2t,
        other => panic!("expected an R2T, got {other:?}"),
    }
}

pub fn reject_reason(answer: Answer) -> RejectReason {
    match answer {
        (Response::Reject(reject), _) => reject.reason,
        other => panic!("expected a Reject, got {other:?}"),
    }
}

/// Sense key, additional sense code and qualifier of a CHECK CONDITION.
pub fn sense(answer: Answer) -> (u8, u8, u8) {
    match answer {
        (Response::ScsiResponse(response), data) if response.status == 0x02 => {
            let sense = sense_bytes(&data).expect("sense");
            (sense[2] & 0x0f, sense[12], sense[13])
        }
        other => panic!("expected a CHECK CONDITION, got {other:?}"),
    }
}

/// Reads blocks and checks every rule for Data-In on the way.
pub fn read(wire: &mut Wire, lba: u32, blocks: u16) -> Vec<u8> {
    let command = wire.command(&read10(lba, blocks), Direction::Read, u32::from(blocks) * 512);
    wire.send(&command, &[]);
    collect_data_in(wire, &command).0
}

pub fn collect_data_in(wire: &mut Wire, command: &ScsiCommand) -> (Vec<u8>, DataIn) {
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

pub fn itt(response: &Response) -> u32 {
    match response {
        Response::ScsiResponse(pdu) => pdu.itt,
        Response::DataIn(pdu) => pdu.itt,
        Response::TaskManagement(pdu) => pdu.itt,
        other => panic!("no task tag in {other:?}"),
    }
}
