//! MODE SELECT (SPC-5 6.11, 6.12): a parameter list is looked at whole before any of it takes effect.

use std::sync::atomic::Ordering;

use super::{SETTINGS, SOFTWARE_WRITE_PROTECT, SPF, Values, WRITE_CACHE, page, supported};
use crate::scsi::attention::Attention;
use crate::scsi::control::Control;
use crate::scsi::execute::{Job, Outcome};
use crate::scsi::request::{Plan, Planned, Request, be16, be32, be64};
use crate::scsi::sense::Sense;
use crate::scsi::unit::LogicalUnit;

/// PF: pages are as the standard has them.
const PF: u8 = 0x10;
/// SP: save the pages.
const SP: u8 = 0x01;
/// LONGLBA, in byte 4 of the header of ten-byte commands.
const LONGLBA: u8 = 0x01;

/// MODE SELECT (6).
pub(in crate::scsi) fn plan_6(request: &Request<'_>) -> Planned {
    plan(request, u32::from(request.cdb[4]))
}

/// MODE SELECT (10).
pub(in crate::scsi) fn plan_10(request: &Request<'_>) -> Planned {
    plan(request, u32::from(be16(request.cdb, 7)))
}

fn plan(request: &Request<'_>, list_bytes: u32) -> Planned {
    if request.cdb[1] & SP != 0 {
        return Err(Sense::cdb_field(1, 0));
    }
    if list_bytes == 0 {
        return Ok(Plan::Answer(Vec::new()));
    }
    if request.cdb[1] & PF == 0 {
        return Err(Sense::cdb_field(1, 4));
    }
    request.path.check_may_change()?;
    Ok(Control::plan(request, list_bytes, 0, select))
}

fn select(job: &Job<'_>, control: &Control) -> Outcome {
    let unit = job.path.unit();
    let modes = &unit.modes().flipped;
    let (before, flipped) = loop {
        let before = modes.load(Ordering::SeqCst);
        let after = read_list(unit, before, control.cdb()[0] == 0x55, job.data)?;
        // Another MODE SELECT may have come in between.
        if modes
            .compare_exchange(before, after, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
        {
            break (before, after);
        }
    };
    if before != flipped {
        unit.tell_others(job.path, Attention::ModeParametersChanged);
        tracing::info!(
            lun = job.path.lun(),
            initiator = job.path.initiator(),
            "mode parameters changed"
        );
    }
    // Who switches the cache off, or write protects the unit, relies on what was written before to be stable.
    if flipped & (WRITE_CACHE.slot | SOFTWARE_WRITE_PROTECT.slot) != 0 {
        job.flush()?;
    }
    Ok(Vec::new())
}

/// What [`Modes`](super::Modes) is to hold after this list.
fn read_list(unit: &LogicalUnit, before: u8, ten: bool, list: &[u8]) -> Result<u8, Sense> {
    let header_bytes = if ten { 8 } else { 4 };
    let header = list.get(..header_bytes).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    // MODE DATA LENGTH and the device-specific parameter have no meaning here (SPC-5 7.5.5, SBC-4 6.5.1); MEDIUM TYPE
    // is zero for direct access devices.
    let (medium_type_at, long, descriptor_bytes) = if ten {
        (2, header[4] & LONGLBA != 0, usize::from(be16(header, 6)))
    } else {
        (1, false, usize::from(header[3]))
    };
    if header[medium_type_at] != 0 {
        return Err(Sense::parameter_field(medium_type_at as u16, 7));
    }
    let descriptor = list
        .get(header_bytes..header_bytes + descriptor_bytes)
        .ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let full_bytes = if long { 16 } else { 8 };
    if descriptor_bytes != 0 {
        if descriptor_bytes != full_bytes {
            return Err(Sense::parameter_field(header_bytes as u16 - 1, 7));
        }
        check_descriptor(unit, descriptor, long, header_bytes)?;
    }
    let mut flipped = before;
    let mut at = header_bytes + descriptor_bytes;
    while at < list.len() {
        let (page_bytes, flips) = read_page(unit, flipped, &list[at..], at)?;
        flipped = flips;
        at += page_bytes;
    }
    Ok(flipped)
}

/// A block descriptor may say what is so already, or nothing: another block size would be a FORMAT UNIT, and the
/// number of blocks is the administrator's.
fn check_descriptor(unit: &LogicalUnit, descriptor: &[u8], long: bool, at: usize) -> Result<(), Sense> {
    let (blocks, all, length_at) = if long {
        (be64(descriptor, 0), u64::MAX, 12)
    } else {
        (u64::from(be32(descriptor, 0)), u64::from(u32::MAX), 4)
    };
    if blocks != 0 && blocks != all && blocks != unit.blocks() {
        return Err(Sense::parameter_field(at as u16, 7));
    }
    let block_bytes = be32(descriptor, length_at);
    if block_bytes != 0 && block_bytes != unit.properties().block_bytes {
        return Err(Sense::parameter_field((at + length_at) as u16, 7));
    }
    Ok(())
}

/// Length of the page that `rest` begins with, and the settings that it asks for.
fn read_page(unit: &LogicalUnit, flipped: u8, rest: &[u8], at: usize) -> Result<(usize, u8), Sense> {
    let first = *rest.first().ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let byte = |offset: usize| *rest.get(offset).unwrap_or(&0);
    let code = (first & 0x3F, if first & SPF != 0 { byte(1) } else { 0 });
    if !supported(unit).any(|known| known == code) {
        // A page with a subpage code in its short form, or the reverse, is none of ours either.
        return Err(Sense::parameter_field(at as u16, 5));
    }
    let expected = page(unit, code, Values::Default);
    let changeable = page(unit, code, Values::Changeable);
    // The page length, in its own field.
    let header_bytes = if code.1 == 0 { 2 } else { 4 };
    if first & SPF != expected[0] & SPF {
        return Err(Sense::parameter_field(at as u16, 6));
    }
    if rest.len() < header_bytes {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    if rest[1..header_bytes] != expected[1..header_bytes] {
        return Err(Sense::parameter_field((at + header_bytes - 1) as u16, 7));
    }
    let sent = rest.get(..expected.len()).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    for offset in header_bytes..expected.len() {
        let fixed = (sent[offset] ^ expected[offset]) & !changeable[offset];
        if fixed != 0 {
            return Err(Sense::parameter_field((at + offset) as u16, fixed.ilog2() as u8));
        }
    }
    let mut flips = flipped;
    for setting in SETTINGS {
        if setting.page == code && setting.is_changeable(unit) {
            let flip = (sent[setting.byte] ^ expected[setting.byte]) & setting.mask != 0;
            flips = flips & !setting.slot | if flip { setting.slot } else { 0 };
        }
    }
    Ok((expected.len(), flips))
}
