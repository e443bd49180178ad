//! What a unit can take: the VPD pages B0 and B2, and the limits behind them (SBC-4 6.6.4, 6.6.6).

use super::provision::{MAX_UNMAP_DESCRIPTORS, MAX_WRITE_SAME_BYTES};
use super::request::MAX_TRANSFER_BYTES;
use super::unit::LogicalUnit;

/// OPTIMAL TRANSFER LENGTH in bytes: longer ones gain nothing and delay what waits behind them.
const OPTIMAL_TRANSFER_BYTES: u64 = 1 << 20;

/// Block limits (SBC-4 6.6.4).
pub(super) fn block_limits(unit: &LogicalUnit) -> Vec<u8> {
    let properties = unit.properties();
    let blocks = |bytes: u64| {
        u32::try_from(bytes / u64::from(properties.block_bytes))
            .unwrap_or(u32::MAX)
            .to_be_bytes()
    };
    let mut body = vec![0; 60];
    body[2..4].copy_from_slice(&((properties.physical_block_bytes / properties.block_bytes) as u16).to_be_bytes());
    // MAXIMUM COMPARE AND WRITE LENGTH: all that the CDB can say.
    body[1] = 0xFF;
    body[4..8].copy_from_slice(&blocks(MAX_TRANSFER_BYTES));
    body[8..12].copy_from_slice(&blocks(OPTIMAL_TRANSFER_BYTES));
    if let Some(provisioning) = properties.provisioning {
        // MAXIMUM UNMAP LBA COUNT: no limit but that of the field.
        body[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        body[20..24].copy_from_slice(&MAX_UNMAP_DESCRIPTORS.to_be_bytes());
        body[24..28].copy_from_slice(&blocks(u64::from(provisioning.granularity_bytes)));
        // UGAVALID; units are aligned to LBA 0.
        body[28] = 0x80;
    }
    body[32..40].copy_from_slice(&(MAX_WRITE_SAME_BYTES / u64::from(properties.block_bytes)).to_be_bytes());
    body
}

/// Logical block provisioning (SBC-4 6.6.6).
pub(super) fn provisioning(unit: &LogicalUnit) -> Vec<u8> {
    match unit.properties().provisioning {
        // LBPU, LBPWS, LBPWS10, LBPRZ; thin provisioned.
        Some(thin) => vec![0, 0xE0 | if thin.reads_zeroes { 0x04 } else { 0 }, 0x02, 0],
        None => vec![0; 4],
    }
}
