//! The table of log pages: which there are, and which parameters they have.

use target_core::scsi::Status;

use crate::page::{self, Row, show};
use crate::scsi_support::{good, run, sense};
use crate::units::{Kind, Offered};

pub const HEADING: &str = "Log pages";

struct Page {
    row: Row,
    code: u8,
    subpage: u8,
    offered: Offered,
    /// Parameter codes; `None` where the page is a list of pages.
    parameters: Option<Vec<u16>>,
}

fn pages() -> Vec<Page> {
    let columns = ["Page", "Sub", "Name", "Offered", "Parameters", "Contents"];
    let read = |row: Row| Page {
        code: row.hex(0),
        subpage: row.hex(1),
        offered: Offered::read(row.cell(3)).unwrap_or_else(|| row.fail("not where it is offered")),
        parameters: match row.cell(4) {
            "list" => None,
            codes => Some(codes.split(' ').map(|code| parameter(&row, code)).collect()),
        },
        row,
    };
    let pages: Vec<Page> = page::table(HEADING, &columns).rows.into_iter().map(read).collect();
    assert!(
        pages.is_sorted_by(|a, b| (a.code, a.subpage) < (b.code, b.subpage)),
        "{HEADING}: in order, each once"
    );
    pages
}

/// Four hex digits.
fn parameter(row: &Row, code: &str) -> u16 {
    let parsed = u16::from_str_radix(code, 16).ok().filter(|_| code.len() == 4);
    parsed.unwrap_or_else(|| row.fail(&format!("`{code}` is no parameter code")))
}

/// LOG SENSE of cumulative values.
fn log_sense(code: u8, subpage: u8) -> [u8; 10] {
    [0x4D, 0, 0x40 | code, subpage, 0, 0, 0, 0x10, 0, 0]
}

/// What is in a page behind its header, which must be that of this page.
fn body(data: &[u8], code: u8, subpage: u8) -> Option<&[u8]> {
    let (header, body) = data.split_at_checked(4)?;
    let spf = if subpage == 0 { 0 } else { 0x40 };
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    (header[0] & 0x7F == spf | code && header[1] == subpage && length == body.len()).then_some(body)
}

fn parameters(mut body: &[u8]) -> Vec<u16> {
    let mut codes = Vec::new();
    while let [high, low, _, length, rest @ ..] = body {
        codes.push(u16::from_be_bytes([*high, *low]));
        body = &rest[usize::from(*length)..];
    }
    assert!(body.is_empty(), "a parameter that is cut short");
    codes
}

#[test]
fn every_page_is_there_or_refused_as_the_page_says() {
    let pages = pages();
    for kind in Kind::ALL {
        let nexus = kind.nexus();
        for (code, subpage) in (0..=0x3F).flat_map(|code| (0..=0xFF).map(move |subpage| (code, subpage))) {
            let page = pages.iter().find(|page| (page.code, page.subpage) == (code, subpage));
            let response = run(&nexus, &log_sense(code, subpage), &[]);
            match page {
                Some(page) if page.offered.on(kind) => {
                    let Some(body) = body(&response.data_in, code, subpage).filter(|_| response.status == Status::Good)
                    else {
                        page.row.fail(&format!("{kind:?}: {response:02X?}"))
                    };
                    if let Some(expected) = &page.parameters
                        && parameters(body) != *expected
                    {
                        page.row.fail(&format!("{kind:?}: {:04X?}", parameters(body)));
                    }
                }
                _ => {
                    let expected = page
                        .and_then(|page| page.offered.otherwise)
                        .unwrap_or((0x05, 0x24, 0x00));
                    assert_eq!(
                        show(sense(&response)),
                        show(expected),
                        "{kind:?}, log page {code:02X},{subpage:02X}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_lists_of_pages_are_those_of_the_page() {
    /// The lists of pages, and of pages and subpages (SPC-5 7.3.17, 7.3.18).
    const SUPPORTED: (u8, u8) = (0x00, 0x00);
    const SUPPORTED_SUBPAGES: (u8, u8) = (0x00, 0xFF);
    for kind in Kind::ALL {
        let nexus = kind.nexus();
        let there: Vec<(u8, u8)> = pages()
            .iter()
            .filter(|page| page.offered.on(kind))
            .map(|page| (page.code, page.subpage))
            .collect();
        let data = good(&nexus, &log_sense(SUPPORTED.0, SUPPORTED.1), &[]);
        let mut codes: Vec<u8> = there.iter().map(|(code, _)| *code).collect();
        codes.dedup();
        assert_eq!(data[4..], codes, "{kind:?}");
        let data = good(&nexus, &log_sense(SUPPORTED_SUBPAGES.0, SUPPORTED_SUBPAGES.1), &[]);
        let pairs: Vec<(u8, u8)> = data[4..].chunks(2).map(|pair| (pair[0], pair[1])).collect();
        assert_eq!(pairs, there, "{kind:?}");
    }
}
