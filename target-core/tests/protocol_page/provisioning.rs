//! The table of thin provisioning: every bit of VPD page B2, and that the commands are as it says.

use target_core::scsi::{Nexus, Status};

use crate::page::{self, Row};
use crate::scsi_support::{cdb_10, cdb_16, good, run, sense};
use crate::units::Kind;

pub const HEADING: &str = "Thin provisioning";

/// The kinds in the columns.
const KINDS: [Kind; 4] = [Kind::Thin, Kind::NoUnmap, Kind::NoZeroes, Kind::Thick];

/// Length of the page without descriptors (SBC-4 6.6.6), and of its header.
const PAGE_BYTES: usize = 8;
const HEADER_BYTES: usize = 4;

/// Byte and bits, highest and lowest, of a cell such as `4`, `5.7` or `5.4-2`.
fn place(row: &Row) -> (usize, u8, u8) {
    let (byte, bits) = row.cell(0).split_once('.').unwrap_or((row.cell(0), "7-0"));
    let (high, low) = bits.split_once('-').unwrap_or((bits, bits));
    match (byte.parse(), high.parse(), low.parse()) {
        (Ok(byte), Ok(high), Ok(low)) if low <= high && high < 8 => (byte, high, low),
        _ => row.fail("not a place in the page"),
    }
}

fn provisioning(nexus: &Nexus) -> Vec<u8> {
    good(nexus, &[0x12, 0x01, 0xB2, 0, 255, 0], &[])
}

#[test]
fn every_field_has_the_value_on_the_page() {
    let pages = KINDS.map(|kind| provisioning(&kind.nexus()));
    // Whole bits from the front: byte 4 bit 7 comes first.
    let mut next_bit = HEADER_BYTES * 8;
    for row in page::table(HEADING, &["Bits", "Field", "Thin", "No UNMAP", "No zeroes", "Thick"]).rows {
        let (byte, high, low) = place(&row);
        if byte * 8 + usize::from(7 - high) != next_bit {
            row.fail("not the next field");
        }
        next_bit = byte * 8 + usize::from(8 - low);
        for (at, page) in (2..).zip(&pages) {
            let value = u32::from(page[byte] >> low) & ((2 << (high - low)) - 1);
            if row.cell(at) != value.to_string() {
                row.fail(&format!("{:?}: {value}", KINDS[at - 2]));
            }
        }
    }
    assert_eq!(next_bit, PAGE_BYTES * 8, "the table ends before the page");
}

/// WRITE SAME unmaps and READ CAPACITY (16) promises just what page B2 does.
#[test]
fn the_commands_do_what_is_told() {
    /// UNMAP, in byte 1 of WRITE SAME.
    const UNMAP: u8 = 0x08;
    for kind in Kind::ALL.into_iter().filter(|kind| kind.may_be_written()) {
        let nexus = kind.nexus();
        let page = provisioning(&nexus);
        let zeroes = vec![0; kind.block_bytes() as usize];
        for (told, cdb) in [
            (page[5] & 0x40 != 0, cdb_16(0x93, UNMAP, 0, 1).to_vec()),
            (page[5] & 0x20 != 0, cdb_10(0x41, UNMAP, 0, 1).to_vec()),
        ] {
            let response = run(&nexus, &cdb, &zeroes);
            if told {
                assert_eq!(response.status, Status::Good, "{kind:?}, {:02X}", cdb[0]);
            } else {
                assert_eq!(sense(&response), (0x05, 0x24, 0x00), "{kind:?}, {:02X}", cdb[0]);
            }
        }
        let capacity = good(&nexus, &cdb_16(0x9E, 0x10, 0, 32), &[]);
        assert_eq!(capacity[14] & 0x80 != 0, page[6] & 0x07 != 0, "{kind:?}: LBPME");
        assert_eq!(capacity[14] & 0x40 != 0, page[5] & 0x1C != 0, "{kind:?}: LBPRZ");
    }
}
