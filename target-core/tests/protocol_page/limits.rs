//! The table of block limits: every byte of VPD page B0.

use crate::page;
use crate::scsi_support::good;
use crate::units::Kind;

pub const HEADING: &str = "Block limits";

/// Bytes of the page before its fields (SPC-5 7.7.1).
const HEADER_BYTES: usize = 4;

#[test]
fn every_field_has_the_value_on_the_page() {
    let kinds = [Kind::Thin, Kind::Thick, Kind::LargeBlocks, Kind::CopyOnWrite];
    let pages = kinds.map(|kind| good(&kind.nexus(), &[0x12, 0x01, 0xB0, 0, 255, 0], &[]));
    let mut behind = HEADER_BYTES;
    for row in page::table(
        HEADING,
        &["Bytes", "Field", "Thin", "Thick", "4096 bytes", "Not atomic"],
    )
    .rows
    {
        let (from, to) = row.cell(0).split_once('-').unwrap_or((row.cell(0), row.cell(0)));
        let (Ok(from), Ok(to)) = (from.parse::<usize>(), to.parse::<usize>()) else {
            row.fail("not a range of bytes");
        };
        if from != behind || to < from {
            row.fail("not the next field");
        }
        behind = to + 1;
        for (at, page) in (2..).zip(&pages) {
            let Some(field) = page.get(from..=to) else {
                row.fail("beyond the end of the page");
            };
            let value = field.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
            if row.cell(at) != value.to_string() {
                row.fail(&format!("{:?}: {value}", kinds[at - 2]));
            }
        }
    }
    assert!(
        pages.iter().all(|page| page.len() == behind),
        "the table ends at byte {behind}"
    );
}
