//! The table of vital product data pages.

use target_core::scsi::Status;

use crate::page::{self, Row, show};
use crate::scsi_support::{good, run, sense};
use crate::units::{Kind, Offered};

pub const HEADING: &str = "Vital product data pages";

struct Page {
    row: Row,
    code: u8,
    offered: Offered,
    /// Length of the whole page in bytes; `None` where it depends on names.
    bytes: Option<usize>,
}

/// Pages that are there, and pages that are named as refused.
fn pages() -> Vec<Page> {
    let table = page::table(HEADING, &["Page", "Name", "Offered", "Bytes", "Contents"]);
    let read = |row: Row| Page {
        code: row.hex(0),
        offered: Offered::read(row.cell(2)).unwrap_or_else(|| row.fail("not where it is offered")),
        bytes: match row.cell(3) {
            "varies" | "" => None,
            number => Some(number.parse().unwrap_or_else(|_| row.fail("not a number of bytes"))),
        },
        row,
    };
    let pages: Vec<Page> = table.rows.into_iter().map(read).collect();
    assert!(
        pages.is_sorted_by(|a, b| a.code < b.code),
        "{HEADING}: in order, each once"
    );
    pages
}

fn inquiry(code: u8) -> [u8; 6] {
    [0x12, 0x01, code, 0x10, 0, 0]
}

#[test]
fn every_page_is_there_or_refused_as_the_page_says() {
    let pages = pages();
    for kind in Kind::ALL {
        let nexus = kind.nexus();
        for code in 0..=0xFF {
            let page = pages.iter().find(|page| page.code == code);
            let response = run(&nexus, &inquiry(code), &[]);
            match page {
                Some(page) if page.offered.on(kind) => {
                    let data = &response.data_in;
                    if response.status != Status::Good || data[1] != code {
                        page.row.fail(&format!("{kind:?}: {response:02X?}"));
                    }
                    let length = usize::from(u16::from_be_bytes([data[2], data[3]]));
                    if length + 4 != data.len() || page.bytes.is_some_and(|bytes| bytes != data.len()) {
                        page.row
                            .fail(&format!("{kind:?}: {} bytes, which say {}", data.len(), length + 4));
                    }
                }
                _ => {
                    let expected = page
                        .and_then(|page| page.offered.otherwise)
                        .unwrap_or((0x05, 0x24, 0x00));
                    assert_eq!(show(sense(&response)), show(expected), "{kind:?}, VPD page {code:02X}");
                }
            }
        }
    }
}

#[test]
fn the_list_of_pages_is_that_of_the_page() {
    let pages = pages();
    for kind in Kind::ALL {
        let expected: Vec<u8> = pages
            .iter()
            .filter(|page| page.offered.on(kind))
            .map(|page| page.code)
            .collect();
        assert_eq!(good(&kind.nexus(), &inquiry(0x00), &[])[4..], expected, "{kind:?}");
    }
}
