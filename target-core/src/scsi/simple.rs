//! Commands that neither name blocks nor describe the unit.

use super::Status;
use super::attention::Attention;
use super::execute::Action;
use super::request::{Plan, Planned, Request, answer, be16, be32};
use super::sense::{Format, Sense};
use super::table::Access;

/// TEST UNIT READY (SPC-5 6.48): whatever is in the way has been said before the command comes here.
pub(super) fn test_unit_ready(_: &Request<'_>) -> Planned {
    Ok(Plan::Answer(Vec::new()))
}

/// REQUEST SENSE (SPC-5 6.43): a pending unit attention is handed over as data, and with that is done. Else it
/// tells why the unit is not ready, and how far what keeps it busy has come.
pub(super) fn request_sense(request: &Request<'_>) -> Planned {
    let state = || request.unit.upkeep().present_sense().unwrap_or(Sense::NONE);
    let sense = request.path.pending().take().map_or_else(state, Attention::sense);
    let format = if request.cdb[1] & 0x01 != 0 {
        Format::Descriptor
    } else {
        Format::Fixed
    };
    answer(sense.bytes(format), u32::from(request.cdb[4]))
}

/// START STOP UNIT (SBC-4 5.25). There is nothing to start or stop: stopping empties the cache, as the standard
/// wants, and the unit stays ready. Only a removable medium is ejected and loaded.
pub(super) fn start_stop_unit(request: &Request<'_>) -> Planned {
    let cdb = request.cdb;
    // POWER CONDITION: there are none to change to. With one, START and LOEJ count for nothing (SBC-4 5.31), and to a
    // unit that ejects it means no more than that.
    if cdb[4] & 0xF0 != 0 {
        return if request.unit.upkeep().options().removable {
            Ok(Plan::Answer(Vec::new()))
        } else {
            Err(Sense::cdb_field(4, 7))
        };
    }
    let (start, no_flush) = (cdb[4] & 0x01 != 0, cdb[4] & 0x04 != 0);
    // Starting harms nobody (SBC-4 table 15).
    let harmless = start && cdb[4] & 0x02 == 0;
    if !harmless && !may_write(request) {
        return Ok(Plan::Status(Status::ReservationConflict));
    }
    // LOEJ.
    if cdb[4] & 0x02 != 0 {
        if !request.unit.upkeep().options().removable {
            return Err(Sense::cdb_field(4, 1));
        }
        request.path.check_may_change()?;
        if !start {
            return Ok(Plan::Run(Action::Eject { flush: !no_flush }));
        }
        request.unit.load(request.path)?;
        return Ok(Plan::Answer(Vec::new()));
    }
    if !request.unit.is_loaded() {
        return Err(Sense::NO_MEDIUM);
    }
    if !start {
        request.unit.log().note_stop();
    }
    Ok(if start || no_flush {
        Plan::Answer(Vec::new())
    } else {
        Plan::Run(Action::Flush)
    })
}

/// Whether reservations let this nexus change something.
fn may_write(request: &Request<'_>) -> bool {
    let path = request.path;
    request.unit.allow(path, path.is_admitted(), Access::Write)
}

/// PREVENT ALLOW MEDIUM REMOVAL (SPC-5 6.16).
pub(super) fn prevent_allow(request: &Request<'_>) -> Planned {
    let prevent = request.cdb[4] & 0x01 != 0;
    // Allowing harms nobody (SPC-5 table 66).
    if prevent && !may_write(request) {
        return Ok(Plan::Status(Status::ReservationConflict));
    }
    let removal = request.unit.upkeep().removal();
    removal.prevent(request.path.nexus_id(), prevent);
    Ok(Plan::Answer(Vec::new()))
}

/// READ DEFECT DATA (10), (12) (SBC-4 5.18): both lists are empty.
pub(super) fn read_defect_data(request: &Request<'_>) -> Planned {
    let cdb = request.cdb;
    let (lists, allocation_bytes, mut data) = match cdb[0] {
        0x37 => (cdb[2], u32::from(be16(cdb, 7)), vec![0; 4]),
        _ => (cdb[1], be32(cdb, 6), vec![0; 8]),
    };
    // PLISTV, GLISTV and the format, as asked for.
    data[1] = lists & 0x1F;
    answer(data, allocation_bytes)
}
