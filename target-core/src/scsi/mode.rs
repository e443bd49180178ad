//! MODE SENSE (SPC-5 6.13, 6.14) and the mode pages there are. None of them can be changed.

use super::request::{Planned, Request, answer, be16};
use super::sense::Sense;
use crate::lun::WriteCache;

/// Caching mode page (SBC-4 6.5.6).
const CACHING: u8 = 0x08;
/// Control mode page (SPC-5 7.5.9).
const CONTROL: u8 = 0x0A;
/// Informational exceptions control mode page (SBC-4 6.5.8).
const EXCEPTIONS: u8 = 0x1C;
/// All pages.
const ALL: u8 = 0x3F;

/// WP: the medium is write protected (SBC-4 6.5.1).
const WRITE_PROTECTED: u8 = 0x80;
/// DPOFUA: DPO and FUA are understood.
const DPOFUA: u8 = 0x10;

/// MODE SENSE (6).
pub(super) fn sense_6(request: &Request<'_>) -> Planned {
    let (descriptor, pages) = contents(request, false)?;
    let mut data = vec![0, 0, device_specific(request), descriptor.len() as u8];
    data.extend_from_slice(&descriptor);
    data.extend_from_slice(&pages);
    data[0] = (data.len() - 1) as u8;
    answer(data, u32::from(request.cdb[4]))
}

/// MODE SENSE (10).
pub(super) fn sense_10(request: &Request<'_>) -> Planned {
    let long = request.cdb[1] & 0x10 != 0;
    let (descriptor, pages) = contents(request, long)?;
    let longlba = u8::from(long && !descriptor.is_empty());
    let mut data = vec![0, 0, 0, device_specific(request), longlba, 0, 0, descriptor.len() as u8];
    data.extend_from_slice(&descriptor);
    data.extend_from_slice(&pages);
    let length = (data.len() - 2) as u16;
    data[..2].copy_from_slice(&length.to_be_bytes());
    answer(data, u32::from(be16(request.cdb, 7)))
}

fn device_specific(request: &Request<'_>) -> u8 {
    DPOFUA
        | if request.unit.options().read_only {
            WRITE_PROTECTED
        } else {
            0
        }
}

/// Block descriptor and pages.
fn contents(request: &Request<'_>, long: bool) -> Result<(Vec<u8>, Vec<u8>), Sense> {
    let cdb = request.cdb;
    let control = cdb[2] >> 6;
    let page = cdb[2] & 0x3F;
    if control == 0b11 {
        return Err(Sense::SAVING_NOT_SUPPORTED);
    }
    // There are no subpages: 00h is the page itself, FFh asks for all there are.
    if !matches!(cdb[3], 0x00 | 0xFF) {
        return Err(Sense::cdb_field(3, 7));
    }
    let changeable = control == 0b01;
    let mut pages = Vec::new();
    for known in [CACHING, CONTROL, EXCEPTIONS] {
        if page == known || page == ALL {
            pages.extend_from_slice(&mode_page(request, known, changeable));
        }
    }
    if pages.is_empty() {
        return Err(Sense::cdb_field(2, 5));
    }
    let descriptor = if cdb[1] & 0x08 != 0 {
        Vec::new()
    } else {
        block_descriptor(request, long)
    };
    Ok((descriptor, pages))
}

/// Short or long LBA mode parameter block descriptor (SBC-4 6.5.2).
fn block_descriptor(request: &Request<'_>, long: bool) -> Vec<u8> {
    let blocks = request.unit.blocks();
    let block_bytes = request.unit.properties().block_bytes;
    let mut descriptor = Vec::with_capacity(16);
    if long {
        descriptor.extend_from_slice(&blocks.to_be_bytes());
        descriptor.extend_from_slice(&[0; 4]);
    } else {
        descriptor.extend_from_slice(&u32::try_from(blocks).unwrap_or(u32::MAX).to_be_bytes());
    }
    // In the short form the first byte is reserved; our block sizes leave it zero.
    descriptor.extend_from_slice(&block_bytes.to_be_bytes());
    descriptor
}

fn mode_page(request: &Request<'_>, code: u8, changeable: bool) -> Vec<u8> {
    let mut page = match code {
        CACHING => vec![0; 20],
        _ => vec![0; 12],
    };
    page[0] = code;
    page[1] = (page.len() - 2) as u8;
    if changeable {
        return page;
    }
    match code {
        CACHING if request.unit.properties().write_cache == WriteCache::WriteBack => page[2] = 0x04, // WCE
        // QUEUE ALGORITHM MODIFIER 1: unrestricted reordering.
        CONTROL => page[3] = 0x10,
        _ => {}
    }
    page
}
