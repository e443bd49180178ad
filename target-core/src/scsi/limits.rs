//! What a unit can take: the VPD pages B0 and B2, and the limits behind them (SBC-4 6.6.4, 6.6.6).

use super::request::MAX_TRANSFER_BYTES;
use super::unit::LogicalUnit;

/// Block descriptors in one UNMAP (SBC-4 6.6.4, MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT).
pub(super) const MAX_UNMAP_DESCRIPTORS: u32 = 256;
/// Longest WRITE SAME in bytes where zeroes have to be written out.
const MAX_SLOW_WRITE_SAME_BYTES: u64 = 256 << 20;
/// LBPU: UNMAP is supported (SBC-4 6.6.6).
const LBPU: u8 = 0x80;
/// LBPWS: WRITE SAME (16) unmaps.
const LBPWS: u8 = 0x40;
/// LBPWS10: WRITE SAME (10) unmaps.
const LBPWS10: u8 = 0x20;
/// LBPRZ 001b: unmapped blocks read as zeroes.
const LBPRZ_ZEROES: u8 = 0x04;
/// PROVISIONING TYPE: thin.
const PROVISIONED_THIN: u8 = 0x02;
/// OPTIMAL TRANSFER LENGTH in bytes: longer ones gain nothing and delay what waits behind them.
const OPTIMAL_TRANSFER_BYTES: u64 = 1 << 20;

/// Longest WRITE SAME in blocks (SBC-4 6.6.4, MAXIMUM WRITE SAME LENGTH): what its CDB can say where zeroes take no
/// time. A pattern then may take long, in steps that let others in between.
pub(super) fn max_write_same_blocks(unit: &LogicalUnit) -> u64 {
    let properties = unit.properties();
    if properties.zeroes_quickly {
        u64::from(u32::MAX)
    } else {
        MAX_SLOW_WRITE_SAME_BYTES / u64::from(properties.block_bytes)
    }
}

/// The body of VPD page B0, block limits, after its length.
pub(super) fn block_limits(unit: &LogicalUnit) -> Vec<u8> {
    let properties = unit.properties();
    let blocks = |bytes: u64| {
        u32::try_from(bytes / u64::from(properties.block_bytes))
            .unwrap_or(u32::MAX)
            .to_be_bytes()
    };
    let mut body = vec![0; 60];
    // MAXIMUM COMPARE AND WRITE LENGTH: all that the CDB can say. WSNZ is 0: WRITE SAME of no blocks goes to the end.
    body[1] = 0xFF;
    body[2..4].copy_from_slice(&((properties.physical_block_bytes / properties.block_bytes) as u16).to_be_bytes());
    body[4..8].copy_from_slice(&blocks(MAX_TRANSFER_BYTES));
    body[8..12].copy_from_slice(&blocks(OPTIMAL_TRANSFER_BYTES));
    if offers_unmap(unit) {
        // MAXIMUM UNMAP LBA COUNT: no limit but that of the field.
        body[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        body[20..24].copy_from_slice(&MAX_UNMAP_DESCRIPTORS.to_be_bytes());
    }
    if let Some(provisioning) = properties.provisioning {
        body[24..28].copy_from_slice(&blocks(u64::from(provisioning.granularity_bytes)));
        body[28..32].copy_from_slice(&blocks(u64::from(provisioning.alignment_bytes)));
        // UGAVALID.
        body[28] |= 0x80;
    }
    body[32..40].copy_from_slice(&max_write_same_blocks(unit).to_be_bytes());
    if let Some(atomic) = properties.atomic {
        // MAXIMUM ATOMIC TRANSFER LENGTH, ATOMIC ALIGNMENT, ATOMIC TRANSFER LENGTH GRANULARITY; no boundaries.
        body[40..44].copy_from_slice(&blocks(u64::from(atomic.max_bytes)));
        if atomic.unit_bytes > properties.block_bytes {
            body[44..48].copy_from_slice(&blocks(u64::from(atomic.unit_bytes)));
            body[48..52].copy_from_slice(&blocks(u64::from(atomic.unit_bytes)));
        }
    }
    body
}

/// The body of VPD page B2, logical block provisioning, after its length.
pub(super) fn provisioning(unit: &LogicalUnit) -> Vec<u8> {
    if unit.properties().provisioning.is_none() {
        // Fully provisioned; nothing of this is supported.
        return vec![0; 4];
    }
    let exponent = if unit.medium().space().is_some() {
        unit.threshold_exponent()
    } else {
        0
    };
    let bit = |is: bool, bit: u8| if is { bit } else { 0 };
    let support = bit(offers_unmap(unit), LBPU)
        | LBPWS
        | bit(unmaps_by_write_same_10(unit), LBPWS10)
        | bit(promises_zeroes(unit), LBPRZ_ZEROES);
    vec![exponent, support, PROVISIONED_THIN, 0]
}

/// Whether UNMAP is offered.
pub(super) fn offers_unmap(unit: &LogicalUnit) -> bool {
    unit.properties().provisioning.is_some() && !unit.upkeep().options().no_unmap_command
}

/// Whether initiators may rely on unmapped blocks to read as zeroes (SBC-4 4.7.3.2).
pub(super) fn promises_zeroes(unit: &LogicalUnit) -> bool {
    let medium = unit.properties().provisioning.is_some_and(|thin| thin.reads_zeroes);
    medium && !unit.upkeep().options().unmapped_reads_anything
}

/// Whether WRITE SAME (10) unmaps. Where zeroes are promised UNMAP and WRITE SAME (16) do, which is what initiators
/// take first; some take the short form for a way to unmap whatever the pattern, which the promise does not allow.
pub(super) fn unmaps_by_write_same_10(unit: &LogicalUnit) -> bool {
    unit.properties().provisioning.is_some() && !promises_zeroes(unit)
}
