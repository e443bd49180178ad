//! READ, WRITE, SYNCHRONIZE CACHE and READ CAPACITY: CDBs that name blocks (SBC-4 clause 5).

use super::execute::Action;
use super::limits;
use super::request::{Plan, Planned, Request, answer, be16, be32, be64};
use super::sense::Sense;
use crate::lun::Durability;

/// LBA and number of blocks of a CDB, and where the latter stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) lba: u64,
    pub(super) blocks: u64,
    pub(super) length_field: u16,
}

/// The range in a CDB of 6, 10, 12 or 16 bytes; the group code says which (SPC-5 4.2.5.1).
pub(super) fn range(cdb: &[u8]) -> Range {
    match cdb[0] >> 5 {
        0 => {
            let blocks = u64::from(cdb[4]);
            // In six bytes zero means 256 (SBC-4 5.12).
            Range {
                lba: u64::from(be32(cdb, 0) & 0x001F_FFFF),
                blocks: if blocks == 0 { 256 } else { blocks },
                length_field: 4,
            }
        }
        1 | 2 => Range {
            lba: u64::from(be32(cdb, 2)),
            blocks: u64::from(be16(cdb, 7)),
            length_field: 7,
        },
        5 => Range {
            lba: u64::from(be32(cdb, 2)),
            blocks: u64::from(be32(cdb, 6)),
            length_field: 6,
        },
        _ => Range {
            lba: be64(cdb, 2),
            blocks: u64::from(be32(cdb, 10)),
            length_field: 10,
        },
    }
}

/// Whether a CDB of ten bytes or more has FUA set.
fn fua(cdb: &[u8]) -> bool {
    cdb[0] >> 5 != 0 && cdb[1] & 0x08 != 0
}

/// What the FUA bit of a CDB asks of a write.
pub(super) fn durability(cdb: &[u8]) -> Durability {
    if fua(cdb) {
        Durability::Stable
    } else {
        Durability::Cached
    }
}

/// RDPROTECT, WRPROTECT and VRPROTECT must be zero without protection information (SBC-4 4.21).
pub(super) fn check_protect(cdb: &[u8]) -> Result<(), Sense> {
    if cdb[0] >> 5 != 0 && cdb[1] & 0xE0 != 0 {
        Err(Sense::cdb_field(1, 7))
    } else {
        Ok(())
    }
}

/// READ (6), (10), (12), (16).
pub(super) fn read(request: &Request<'_>) -> Planned {
    check_protect(request.cdb)?;
    let range = range(request.cdb);
    let span = request.transfer(range.lba, range.blocks, range.length_field)?;
    Ok(Plan::Run(Action::Read {
        span,
        stable: fua(request.cdb),
    }))
}

/// WRITE (6), (10), (12), (16).
pub(super) fn write(request: &Request<'_>) -> Planned {
    check_protect(request.cdb)?;
    request.check_writable()?;
    let range = range(request.cdb);
    let span = request.transfer(range.lba, range.blocks, range.length_field)?;
    Ok(Plan::Run(Action::Write {
        span,
        durability: durability(request.cdb),
    }))
}

/// SYNCHRONIZE CACHE (10), (16). The whole cache is written whatever the range, and IMMED brings no earlier
/// answer: GOOD then still means that the data is on the medium.
pub(super) fn synchronize_cache(request: &Request<'_>) -> Planned {
    let range = range(request.cdb);
    request.span(range.lba, range.blocks)?;
    Ok(Plan::Run(Action::Flush))
}

/// READ CAPACITY (10) (SBC-4 5.20).
pub(super) fn read_capacity_10(request: &Request<'_>) -> Planned {
    // PMI is obsolete; without it the LBA has to be zero.
    if request.cdb[8] & 0x01 == 0 && be32(request.cdb, 2) != 0 {
        return Err(Sense::cdb_field(2, 7));
    }
    let last = u32::try_from(request.unit.blocks().saturating_sub(1)).unwrap_or(u32::MAX);
    let mut data = Vec::with_capacity(8);
    data.extend_from_slice(&last.to_be_bytes());
    data.extend_from_slice(&request.unit.properties().block_bytes.to_be_bytes());
    answer(data, u32::MAX)
}

/// READ CAPACITY (16) (SBC-4 5.21).
pub(super) fn read_capacity_16(request: &Request<'_>) -> Planned {
    let properties = request.unit.properties();
    let mut data = vec![0; 32];
    data[..8].copy_from_slice(&request.unit.blocks().saturating_sub(1).to_be_bytes());
    data[8..12].copy_from_slice(&properties.block_bytes.to_be_bytes());
    // LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT.
    data[13] = (properties.physical_block_bytes / properties.block_bytes).ilog2() as u8 & 0x0F;
    // LOWEST ALIGNED LOGICAL BLOCK ADDRESS.
    let lowest_aligned = (properties.alignment_offset_bytes / properties.block_bytes) as u16 & 0x3FFF;
    data[14..16].copy_from_slice(&lowest_aligned.to_be_bytes());
    if properties.provisioning.is_some() {
        // LBPME and LBPRZ.
        data[14] |= 0x80 | if limits::promises_zeroes(request.unit) { 0x40 } else { 0 };
    }
    answer(data, be32(request.cdb, 10))
}
