//! The reservation commands: RESERVE and RELEASE (6) of SPC-2, PERSISTENT RESERVE IN and OUT (SPC-5 6.14, 6.15).
//!
//! The rules are in [`reservations`](super::reservations); here are the bytes.

use super::Status;
use super::control::Control;
use super::execute::{Failure, Job, Outcome};
use super::request::{Plan, Planned, Request, answer, be16, be32, be64};
use super::reservations::{Denied, Kind, Operation, Reservations};
use super::sense::Sense;

/// Length of the PERSISTENT RESERVE OUT parameter list in bytes (SPC-5 6.15.3).
const PARAMETER_LIST_BYTES: usize = 24;

/// RESERVE (6): the whole unit, for this nexus.
pub(super) fn reserve_6(request: &Request<'_>) -> Planned {
    let nexus = request.path.nexus_id();
    Ok(
        match request
            .unit
            .change_reservations(request.path, |held| held.reserve_unit(nexus))
        {
            true => Plan::Answer(Vec::new()),
            false => Plan::Status(Status::ReservationConflict),
        },
    )
}

/// RELEASE (6): nothing happens if another nexus holds it.
pub(super) fn release_6(request: &Request<'_>) -> Planned {
    let nexus = request.path.nexus_id();
    request
        .unit
        .change_reservations(request.path, |held| held.release_unit(nexus));
    Ok(Plan::Answer(Vec::new()))
}

/// PERSISTENT RESERVE IN, READ KEYS.
pub(super) fn read_keys(request: &Request<'_>) -> Planned {
    request.unit.with_reservations(|held| {
        let keys = held
            .registrants()
            .iter()
            .flat_map(|registrant| registrant.key.to_be_bytes())
            .collect();
        listing(request, held, keys)
    })
}

/// PERSISTENT RESERVE IN, READ RESERVATION.
pub(super) fn read_reservation(request: &Request<'_>) -> Planned {
    request.unit.with_reservations(|held| {
        let body = held.holder().map_or_else(Vec::new, |(kind, key)| {
            let mut body = vec![0; 16];
            body[..8].copy_from_slice(&key.to_be_bytes());
            // SCOPE 0: the logical unit.
            body[13] = kind as u8;
            body
        });
        listing(request, held, body)
    })
}

/// PERSISTENT RESERVE IN, REPORT CAPABILITIES: nothing survives a restart, and every type is there.
pub(super) fn report_capabilities(request: &Request<'_>) -> Planned {
    answer(
        vec![0, 8, 0x00, 0x80, 0xEA, 0x01, 0, 0],
        u32::from(be16(request.cdb, 7)),
    )
}

/// PERSISTENT RESERVE IN, READ FULL STATUS.
pub(super) fn read_full_status(request: &Request<'_>) -> Planned {
    request.unit.with_reservations(|held| {
        let mut body = Vec::new();
        for registrant in held.registrants() {
            let mut descriptor = vec![0; 24];
            descriptor[..8].copy_from_slice(&registrant.key.to_be_bytes());
            if let Some(kind) = held.held_by(&registrant.port) {
                descriptor[12] = 0x01; // R_HOLDER
                descriptor[13] = kind as u8;
            }
            let transport_id = transport_id(&registrant.port);
            descriptor[20..24].copy_from_slice(&(transport_id.len() as u32).to_be_bytes());
            body.extend_from_slice(&descriptor);
            body.extend_from_slice(&transport_id);
        }
        listing(request, held, body)
    })
}

/// PRGENERATION, length, and what follows.
fn listing(request: &Request<'_>, held: &Reservations, body: Vec<u8>) -> Planned {
    let mut data = held.generation().to_be_bytes().to_vec();
    data.extend_from_slice(&(body.len() as u32).to_be_bytes());
    data.extend_from_slice(&body);
    answer(data, u32::from(be16(request.cdb, 7)))
}

/// TransportID of an iSCSI initiator port (SPC-5 7.6.4.6), with the ISID where the name has one.
fn transport_id(port: &str) -> Vec<u8> {
    let format = if port.contains(",i,0x") { 0x40 } else { 0x00 };
    let mut name = port.as_bytes().to_vec();
    name.push(0);
    name.resize(name.len().next_multiple_of(4).max(20), 0);
    let mut id = vec![format | 0x05, 0];
    id.extend_from_slice(&(name.len() as u16).to_be_bytes());
    id.extend_from_slice(&name);
    id
}

/// PERSISTENT RESERVE OUT.
pub(super) fn plan_persistent_out(request: &Request<'_>) -> Planned {
    let service_action = request.cdb[1] & 0x1F;
    if be32(request.cdb, 5) as usize != PARAMETER_LIST_BYTES {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    let kind = Kind::from_bits(request.cdb[2] & 0x0F);
    // RESERVE, RELEASE and PREEMPT look at SCOPE and TYPE, the others do not.
    if matches!(service_action, 0x01 | 0x02 | 0x04) {
        if request.cdb[2] & 0xF0 != 0 {
            return Err(Sense::cdb_field(2, 7));
        }
        if kind.is_none() {
            return Err(Sense::cdb_field(2, 3));
        }
    }
    Ok(Control::plan(request, PARAMETER_LIST_BYTES as u32, 0, persistent_out))
}

fn persistent_out(job: &Job<'_>, cdb: &[u8]) -> Outcome {
    let kind = Kind::from_bits(cdb[2] & 0x0F);
    if job.data.len() != PARAMETER_LIST_BYTES {
        return Err(Sense::PARAMETER_LIST_LENGTH.into());
    }
    // SPEC_I_PT, ALL_TG_PT, APTPL: none of them is reported as supported.
    let flags = job.data[20] & 0x0D;
    if flags != 0 {
        return Err(Sense::parameter_field(20, flags.ilog2() as u8).into());
    }
    let (key, new_key) = (be64(job.data, 0), be64(job.data, 8));
    let operation = match (cdb[1] & 0x1F, kind) {
        (0x00, _) => Operation::Register {
            existing: Some(key),
            new_key,
        },
        (0x06, _) => Operation::Register {
            existing: None,
            new_key,
        },
        (0x01, Some(kind)) => Operation::Reserve { key, kind },
        (0x02, Some(kind)) => Operation::Release { key, kind },
        (0x03, _) => Operation::Clear { key },
        (0x04, Some(kind)) => Operation::Preempt {
            key,
            victim: new_key,
            kind,
        },
        _ => return Err(Sense::cdb_field(1, 4).into()),
    };
    let path = job.path;
    path.unit()
        .change_reservations(path, |held| held.apply(path.port(), operation))
        .map(|()| Vec::new())
        .map_err(|denied| match denied {
            Denied::Conflict => Failure::Status(Status::ReservationConflict),
            Denied::WrongType => Sense::INVALID_RELEASE.into(),
            Denied::NoVictim => Sense::parameter_field(8, 7).into(),
            Denied::TooMany => Sense::TOO_MANY_REGISTRATIONS.into(),
        })
}
