//! The reservation commands: RESERVE and RELEASE (6) of SPC-2, PERSISTENT RESERVE IN (SPC-5 6.14) and, in
//! [`out`], PERSISTENT RESERVE OUT.
//!
//! The rules are in [`reservations`](super::reservations); here are the bytes.

pub(super) mod out;
mod transport_id;

use super::Status;
use super::request::{Plan, Planned, Request, answer, be16};
use super::reservations::Reservations;

/// RESERVE (6): the whole unit, for this nexus.
pub(super) fn reserve_6(request: &Request<'_>) -> Planned {
    // A PERSISTENT RESERVE OUT in the middle of its work may be the first registration.
    let Some(_alone) = request.unit.keeper.try_lock() else {
        return Ok(Plan::Status(Status::ReservationConflict));
    };
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

/// RELEASE (6): nothing happens if another nexus holds it. While anybody is registered, it is the wrong kind of
/// reservation (SPC-2 5.5.1).
pub(super) fn release_6(request: &Request<'_>) -> Planned {
    let nexus = request.path.nexus_id();
    let unregistered = request.unit.change_reservations(request.path, |held| {
        held.release_unit(nexus);
        held.registrants().is_empty()
    });
    Ok(if unregistered {
        Plan::Answer(Vec::new())
    } else {
        Plan::Status(Status::ReservationConflict)
    })
}

/// PERSISTENT RESERVE IN, READ KEYS.
pub(super) fn read_keys(request: &Request<'_>) -> Planned {
    look(request, |held| {
        let keys = held
            .registrants()
            .iter()
            .flat_map(|registrant| registrant.key.to_be_bytes())
            .collect();
        listing(held, keys)
    })
}

/// PERSISTENT RESERVE IN, READ RESERVATION.
pub(super) fn read_reservation(request: &Request<'_>) -> Planned {
    look(request, |held| {
        let body = held.holder().map_or_else(Vec::new, |(kind, key)| {
            let mut body = vec![0; 16];
            body[..8].copy_from_slice(&key.to_be_bytes());
            // SCOPE 0: the logical unit.
            body[13] = kind as u8;
            body
        });
        listing(held, body)
    })
}

/// PERSISTENT RESERVE IN, REPORT CAPABILITIES.
pub(super) fn report_capabilities(request: &Request<'_>) -> Planned {
    look(request, |held| {
        // SIP_C and ATP_C: registrations for others, and for all target ports; PTPL_C: a restart can be survived.
        let persists = u8::from(request.unit.keeper.has_store());
        // TMV, and PTPL_A: it would be survived now. All six types.
        let activated = u8::from(held.is_kept());
        vec![0, 8, 0x08 | 0x04 | persists, 0x80 | activated, 0xEA, 0x01, 0, 0]
    })
}

/// PERSISTENT RESERVE IN, READ FULL STATUS.
pub(super) fn read_full_status(request: &Request<'_>) -> Planned {
    look(request, |held| {
        let mut body = Vec::new();
        for registrant in held.registrants() {
            let mut descriptor = vec![0; 24];
            descriptor[..8].copy_from_slice(&registrant.key.to_be_bytes());
            if let Some(kind) = held.held_by(&registrant.nexus) {
                descriptor[12] = 0x01; // R_HOLDER
                descriptor[13] = kind as u8;
            }
            descriptor[18..20].copy_from_slice(&registrant.nexus.target_port.relative().to_be_bytes());
            let transport_id = transport_id::emit(&registrant.nexus.initiator_port);
            descriptor[20..24].copy_from_slice(&(transport_id.len() as u32).to_be_bytes());
            body.extend_from_slice(&descriptor);
            body.extend_from_slice(&transport_id);
        }
        listing(held, body)
    })
}

/// Answers with what `show` makes of the reservations, unless they are of the other kind: all PERSISTENT RESERVE IN
/// conflict with RESERVE (6), even from who holds it (SPC-2 5.5.1).
fn look(request: &Request<'_>, show: impl FnOnce(&Reservations) -> Vec<u8>) -> Planned {
    request.unit.with_reservations(|held| {
        if held.is_unit_held() {
            return Ok(Plan::Status(Status::ReservationConflict));
        }
        answer(show(held), u32::from(be16(request.cdb, 7)))
    })
}

/// PRGENERATION, length, and what follows.
fn listing(held: &Reservations, body: Vec<u8>) -> Vec<u8> {
    let mut data = held.generation().to_be_bytes().to_vec();
    data.extend_from_slice(&(body.len() as u32).to_be_bytes());
    data.extend_from_slice(&body);
    data
}
