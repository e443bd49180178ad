//! PERSISTENT RESERVE OUT (SPC-5 6.15): the parameter lists, and what has to be true before the answer.

use std::time::{Duration, Instant};

use super::transport_id::{self, Initiator};
use crate::lun::Wait;
use crate::scsi::Status;
use crate::scsi::control::Control;
use crate::scsi::execute::{Failure, Job, Outcome};
use crate::scsi::path::Path;
use crate::scsi::ports::{NexusName, TargetPort};
use crate::scsi::request::{Planned, Request, be16, be32, be64};
use crate::scsi::reservations::{Denied, Kind, MAX_REGISTRANTS, Operation};
use crate::scsi::sense::Sense;

/// Length of the basic parameter list, and of what stands before the TransportID of REGISTER AND MOVE, in bytes.
const PARAMETER_LIST_BYTES: u32 = 24;
/// Longest parameter list in bytes: room for as many TransportIDs of greatest length as may be registered.
const MAX_LIST_BYTES: u32 = 64 << 10;
/// How long PREEMPT AND ABORT waits for the commands it has aborted, in milliseconds.
const ABORT_WAIT_MS: u64 = 10_000;
/// While it waits, it looks this often whether it is itself aborted, in milliseconds.
const ABORT_LOOK_MS: u64 = 20;

/// SPEC_I_PT.
const SPEC_I_PT: u8 = 0x08;
/// ALL_TG_PT.
const ALL_TG_PT: u8 = 0x04;
/// APTPL.
const APTPL: u8 = 0x01;
/// UNREG, in byte 17 of REGISTER AND MOVE.
const UNREG: u8 = 0x02;

/// Service actions.
const REGISTER: u8 = 0x00;
const RESERVE: u8 = 0x01;
const RELEASE: u8 = 0x02;
const CLEAR: u8 = 0x03;
const PREEMPT: u8 = 0x04;
const PREEMPT_AND_ABORT: u8 = 0x05;
const REGISTER_AND_IGNORE: u8 = 0x06;
const REGISTER_AND_MOVE: u8 = 0x07;

/// PERSISTENT RESERVE OUT.
pub(in crate::scsi) fn plan(request: &Request<'_>) -> Planned {
    let action = request.cdb[1] & 0x1F;
    let list_bytes = be32(request.cdb, 5);
    let fits = match action {
        REGISTER | REGISTER_AND_MOVE => (PARAMETER_LIST_BYTES..=MAX_LIST_BYTES).contains(&list_bytes),
        _ => list_bytes == PARAMETER_LIST_BYTES,
    };
    if !fits {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    // RESERVE, RELEASE and PREEMPT look at SCOPE and TYPE, the others do not.
    if matches!(action, RESERVE | RELEASE | PREEMPT | PREEMPT_AND_ABORT) {
        if request.cdb[2] & 0xF0 != 0 {
            return Err(Sense::cdb_field(2, 7));
        }
        if Kind::from_bits(request.cdb[2] & 0x0F).is_none() {
            return Err(Sense::cdb_field(2, 3));
        }
    }
    Ok(Control::plan_with_ports(
        request,
        list_bytes,
        request.nexus.target_ports(),
        run,
    ))
}

fn run(job: &Job<'_>, control: &Control) -> Outcome {
    let cdb = control.cdb();
    let action = cdb[1] & 0x1F;
    if job.data.len() as u64 != control.data_out_bytes() {
        return Err(Sense::PARAMETER_LIST_LENGTH.into());
    }
    let operation = if action == REGISTER_AND_MOVE {
        read_move(job, control.ports())?
    } else {
        read_basic(job, cdb, control.ports())?
    };
    let path = job.path;
    let unit = path.unit();
    let changing = match job.wait {
        Wait::Allowed => unit.keeper.lock(),
        Wait::Never => unit.keeper.try_lock().ok_or(Failure::WouldBlock)?,
    };
    if unit.with_reservations(|held| held.is_unit_held()) {
        return Err(Failure::Status(Status::ReservationConflict));
    }
    // Nothing counts, and nobody hears of it, before it is on disk.
    let before = unit.with_reservations(Clone::clone);
    let mut after = before.clone();
    after.apply(path.name(), operation).map_err(refusal)?;
    if changing.has_to_save(&before, &after) {
        if job.wait == Wait::Never {
            return Err(Failure::WouldBlock);
        }
        changing.save(&before, &after).map_err(|error| {
            tracing::error!(lun = path.lun(), %error, "persistent reservations could not be saved");
            match action {
                REGISTER | REGISTER_AND_IGNORE | REGISTER_AND_MOVE => Sense::TOO_MANY_REGISTRATIONS,
                _ => Sense::INTERNAL,
            }
        })?;
    }
    if action == PREEMPT_AND_ABORT && job.wait == Wait::Never {
        return Err(Failure::WouldBlock);
    }
    let thrown_out = after.take_thrown_out();
    unit.change_reservations(path, |held| held.install(after));
    // Whom it has to wait for may be waiting for the right to change reservations.
    drop(changing);
    if action == PREEMPT_AND_ABORT {
        abort_commands(job, &thrown_out)?;
    }
    Ok(Vec::new())
}

/// Ends the commands of nexuses that are not registered any more, and waits for those that have begun: whoever
/// preempts relies on none of their writes to come later. Nor do they prevent the removal of the medium any more
/// (SPC-5 5.13.11.2.6).
fn abort_commands(job: &Job<'_>, nexuses: &[NexusName]) -> Result<(), Failure> {
    let (own, unit) = (job.path.nexus_id(), job.path.unit());
    let is_victim = |path: &Path| path.nexus_id() != own && nexuses.contains(path.name());
    let drain = unit.abort(is_victim);
    let victims = unit.fold_paths(Vec::new(), |mut victims, path| {
        victims.extend(is_victim(path).then(|| path.nexus_id()));
        victims
    });
    for nexus_id in victims {
        unit.upkeep().removal().prevent(nexus_id, false);
    }
    let deadline = Instant::now() + Duration::from_millis(ABORT_WAIT_MS);
    while !drain.wait(Duration::from_millis(ABORT_LOOK_MS)) {
        job.check_cancelled()?;
        if Instant::now() >= deadline {
            tracing::error!(
                lun = job.path.lun(),
                "the medium is still busy with commands of a preempted initiator"
            );
            return Err(Sense::INTERNAL.into());
        }
    }
    Ok(())
}

fn refusal(denied: Denied) -> Failure {
    match denied {
        Denied::Conflict => Failure::Status(Status::ReservationConflict),
        Denied::WrongType => Sense::INVALID_RELEASE.into(),
        Denied::NoKey => Sense::parameter_field(8, 7).into(),
        Denied::ToItself => Sense::parameter_field(PARAMETER_LIST_BYTES as u16, 7).into(),
        // SPC-5 table 62 has INVALID FIELD IN CDB for this.
        Denied::AlreadyRegistered => Sense::cdb_field(1, 4).into(),
        Denied::TooMany => Sense::TOO_MANY_REGISTRATIONS.into(),
    }
}

/// APTPL needs somewhere to keep things.
fn keep(job: &Job<'_>, flags: u8, at: u16) -> Result<bool, Sense> {
    let keep = flags & APTPL != 0;
    if keep && !job.path.unit().keeper.has_store() {
        return Err(Sense::parameter_field(at, 0));
    }
    Ok(keep)
}

/// The basic parameter list (SPC-5 6.15.3).
fn read_basic(job: &Job<'_>, cdb: &[u8], ports: &[u16]) -> Result<Operation, Sense> {
    let (key, new_key, flags) = (be64(job.data, 0), be64(job.data, 8), job.data[20]);
    let action = cdb[1] & 0x1F;
    let kind = Kind::from_bits(cdb[2] & 0x0F);
    let is_registration = matches!(action, REGISTER | REGISTER_AND_IGNORE);
    if flags & SPEC_I_PT != 0 && action != REGISTER {
        return Err(Sense::parameter_field(20, 3));
    }
    if flags & SPEC_I_PT == 0 && job.data.len() != PARAMETER_LIST_BYTES as usize {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    if is_registration {
        let mut initiators = vec![job.path.port().into()];
        if flags & SPEC_I_PT != 0 {
            initiators.extend(read_initiators(job)?);
        }
        let own = job.path.name();
        let tags = match flags & ALL_TG_PT != 0 {
            true => ports,
            false => &[own.target_port.relative()],
        };
        let also = initiators
            .iter()
            .flat_map(|initiator| {
                tags.iter()
                    .map(|tag| NexusName::new(initiator, TargetPort::new(own.target_port.target(), *tag)))
            })
            .collect();
        return Ok(Operation::Register {
            existing: (action == REGISTER).then_some(key),
            new_key,
            also,
            keep: keep(job, flags, 20)?,
        });
    }
    match (action, kind) {
        (RESERVE, Some(kind)) => Ok(Operation::Reserve { key, kind }),
        (RELEASE, Some(kind)) => Ok(Operation::Release { key, kind }),
        (CLEAR, _) => Ok(Operation::Clear { key }),
        (PREEMPT | PREEMPT_AND_ABORT, Some(kind)) => Ok(Operation::Preempt {
            key,
            victim: new_key,
            kind,
        }),
        _ => Err(Sense::cdb_field(1, 4)),
    }
}

/// The TransportIDs behind the basic list, as names of initiator ports.
fn read_initiators(job: &Job<'_>) -> Result<Vec<Box<str>>, Sense> {
    let start = PARAMETER_LIST_BYTES as usize;
    let length = job.data.get(start..start + 4).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let ids = &job.data[start + 4..];
    if be32(length, 0) as usize != ids.len() {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    let mut at = 0;
    let mut names = Vec::new();
    while at < ids.len() {
        let wrong = |offset: usize| Sense::parameter_field((start + 4 + at + offset) as u16, 7);
        let (initiator, id_bytes) = transport_id::parse(&ids[at..]).map_err(wrong)?;
        match initiator {
            Initiator::Port(port) => names.push(port.into()),
            Initiator::AllPorts(initiator) => names.extend(job.path.unit().ports_of(&initiator)),
        }
        if names.len() > MAX_REGISTRANTS {
            return Err(Sense::TOO_MANY_REGISTRATIONS);
        }
        at += id_bytes;
    }
    Ok(names)
}

/// The parameter list of REGISTER AND MOVE (SPC-5 6.15.4).
fn read_move(job: &Job<'_>, ports: &[u16]) -> Result<Operation, Sense> {
    let data = job.data;
    let start = PARAMETER_LIST_BYTES as usize;
    if be32(data, 20) as usize != data.len() - start {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    let tag = be16(data, 18);
    if !ports.contains(&tag) {
        return Err(Sense::parameter_field(18, 7));
    }
    let wrong = |offset: usize| Sense::parameter_field((start + offset) as u16, 7);
    let (initiator, id_bytes) = transport_id::parse(&data[start..]).map_err(wrong)?;
    // A reservation goes to one port.
    let Initiator::Port(port) = initiator else {
        return Err(wrong(0));
    };
    if id_bytes != data.len() - start {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    let target = job.path.name().target_port.target();
    Ok(Operation::Move {
        key: be64(data, 0),
        new_key: be64(data, 8),
        to: NexusName::new(&port, TargetPort::new(target, tag)),
        unregister: data[17] & UNREG != 0,
        keep: keep(job, data[17], 17)?,
    })
}
