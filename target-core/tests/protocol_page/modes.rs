//! The table of mode pages: their length, and which bits of them can be changed.

use target_core::scsi::{Nexus, Response, Status};

use crate::page::{self, Row, show};
use crate::scsi_support::{good, run, sense};
use crate::units::{Kind, Offered};

pub const HEADING: &str = "Mode pages";

struct Page {
    row: Row,
    code: u8,
    subpage: u8,
    offered: Offered,
    bytes: usize,
    changeable: Bits,
    /// What is set by default; `None` where that depends on more than the kind of LUN.
    default: Option<Bits>,
}

fn pages() -> Vec<Page> {
    let table = page::table(
        HEADING,
        &[
            "Page",
            "Sub",
            "Name",
            "Offered",
            "Bytes",
            "Can be changed",
            "Set by default",
            "Contents",
        ],
    );
    let read = |row: Row| Page {
        code: row.hex(0),
        subpage: row.hex(1),
        offered: Offered::read(row.cell(3)).unwrap_or_else(|| row.fail("not where it is offered")),
        bytes: row
            .cell(4)
            .parse()
            .unwrap_or_else(|_| row.fail("not a number of bytes")),
        changeable: Bits::read(&row, 5),
        default: (row.cell(6) != "varies").then(|| Bits::read(&row, 6)),
        row,
    };
    let pages: Vec<Page> = table.rows.into_iter().map(read).collect();
    assert!(
        pages.is_sorted_by(|a, b| (a.code, a.subpage) < (b.code, b.subpage)),
        "{HEADING}: in order, each once"
    );
    pages
}

/// Whether something is so on a kind of LUN.
type On = fn(Kind) -> bool;

/// In front of what is so only where writes stay in a cache, and where space can be given back.
const CONDITIONS: [(&str, On); 2] = [
    ("write-back: ", |kind| kind == Kind::WriteBack),
    ("thin: ", |kind| kind != Kind::Thick),
];

/// Bits of a page.
struct Bits {
    /// Byte and bit.
    places: Vec<(usize, u8)>,
    on: On,
}

impl Bits {
    /// Reads `nothing` or `SWP 4.3, D_SENSE 2.2`: names with byte and bit.
    fn read(row: &Row, at: usize) -> Self {
        let cell = row.cell(at);
        let field = |text: &str| {
            let (name, place) = text.trim().rsplit_once(' ')?;
            let (byte, bit) = place.split_once('.')?;
            let bit = bit.parse().ok().filter(|bit| *bit < 8)?;
            (!name.is_empty()).then_some((byte.parse().ok()?, bit))
        };
        let condition = CONDITIONS.iter().find(|(prefix, _)| cell.starts_with(prefix));
        let (prefix, on) = condition.copied().unwrap_or(("", |_| true));
        let fields = &cell[prefix.len()..];
        let places = fields
            .split(',')
            .filter(|_| cell != "nothing")
            .map(|text| field(text).unwrap_or_else(|| row.fail("not fields with byte.bit")));
        Self {
            places: places.collect(),
            on,
        }
    }

    /// A page of so many bytes with ones in these places, on such a LUN.
    fn mask(&self, kind: Kind, bytes: usize) -> Vec<u8> {
        let mut mask = vec![0; bytes];
        if (self.on)(kind) {
            for (byte, bit) in &self.places {
                mask[*byte] |= 1 << bit;
            }
        }
        mask
    }
}

/// MODE SENSE (10) without block descriptors.
fn mode_sense(control: u8, code: u8, subpage: u8) -> [u8; 10] {
    [0x5A, 0x08, control << 6 | code, subpage, 0, 0, 0, 0x10, 0, 0]
}

/// Code, subpage and bytes of each page behind the header of MODE SENSE (10).
fn split(data: &[u8]) -> Vec<(u8, u8, &[u8])> {
    assert_eq!(
        usize::from(u16::from_be_bytes([data[0], data[1]])),
        data.len() - 2,
        "mode data length"
    );
    assert_eq!(&data[6..8], [0, 0], "no block descriptors");
    let mut rest = &data[8..];
    let mut pages = Vec::new();
    while let [first, second, ..] = *rest {
        // SPF: a subpage code and two bytes of length.
        let (subpage, bytes) = if first & 0x40 != 0 {
            (second, 4 + usize::from(u16::from_be_bytes([rest[2], rest[3]])))
        } else {
            (0, 2 + usize::from(second))
        };
        let (page, behind) = rest.split_at(bytes);
        pages.push((first & 0x3F, subpage, page));
        rest = behind;
    }
    pages
}

#[test]
fn every_page_is_there_or_refused_as_the_page_says() {
    /// Reserved for "all pages", and for all subpages.
    const ALL: u8 = 0x3F;
    const ALL_SUBPAGES: u8 = 0xFF;
    let pages = pages();
    for kind in Kind::ALL {
        let nexus = kind.nexus();
        for (code, subpage) in (0..ALL).flat_map(|code| (0..ALL_SUBPAGES).map(move |subpage| (code, subpage))) {
            let response = run(&nexus, &mode_sense(0, code, subpage), &[]);
            let page = pages.iter().find(|page| (page.code, page.subpage) == (code, subpage));
            match page {
                Some(page) if page.offered.on(kind) => {
                    if response.status != Status::Good {
                        page.row.fail(&format!("{kind:?}: {response:02X?}"));
                    }
                    let found = split(&response.data_in);
                    let one = [(code, subpage, page.bytes)];
                    let found: Vec<_> = found
                        .iter()
                        .map(|(code, sub, bytes)| (*code, *sub, bytes.len()))
                        .collect();
                    if found != one {
                        page.row.fail(&format!("{kind:?}: {found:02X?}"));
                    }
                }
                _ => {
                    let expected = page
                        .and_then(|page| page.offered.otherwise)
                        .unwrap_or((0x05, 0x24, 0x00));
                    assert_eq!(
                        show(sense(&response)),
                        show(expected),
                        "{kind:?}, mode page {code:02X},{subpage:02X}"
                    );
                }
            }
        }
    }
}

#[test]
fn all_pages_together_are_those_of_the_page() {
    for kind in Kind::ALL {
        for (subpage, subpages_too) in [(0x00, false), (0xFF, true)] {
            let data = good(&kind.nexus(), &mode_sense(0, 0x3F, subpage), &[]);
            let mut found: Vec<_> = split(&data).iter().map(|(code, sub, _)| (*code, *sub)).collect();
            found.sort_unstable();
            let expected: Vec<_> = pages()
                .iter()
                .filter(|page| page.offered.on(kind) && (subpages_too || page.subpage == 0))
                .map(|page| (page.code, page.subpage))
                .collect();
            assert_eq!(found, expected, "{kind:?}");
        }
    }
}

impl Page {
    fn header_bytes(&self) -> usize {
        if self.subpage == 0 { 2 } else { 4 }
    }

    fn get(&self, nexus: &Nexus, control: u8) -> Vec<u8> {
        let data = good(nexus, &mode_sense(control, self.code, self.subpage), &[]);
        split(&data)[0].2.to_vec()
    }
}

/// MODE SELECT (10) of one page.
fn mode_select(nexus: &Nexus, page: &[u8]) -> Response {
    let list = [&[0; 8], page].concat();
    run(nexus, &[0x55, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0], &list)
}

#[test]
fn defaults_are_those_of_the_page() {
    /// PC: current and default values.
    const CURRENT: u8 = 0b00;
    const DEFAULT: u8 = 0b10;
    for page in pages() {
        for kind in Kind::ALL.into_iter().filter(|kind| page.offered.on(*kind)) {
            let nexus = kind.nexus();
            let values = page.get(&nexus, DEFAULT);
            let from = page.header_bytes();
            let expected = page.default.as_ref().map(|bits| bits.mask(kind, page.bytes));
            let differs = expected.is_some_and(|expected| values[from..] != expected[from..]);
            if differs || page.get(&nexus, CURRENT) != values {
                page.row.fail(&format!("{kind:?}: {values:02X?}"));
            }
        }
    }
}

#[test]
fn changeable_values_are_those_of_the_page() {
    for page in pages() {
        for kind in Kind::ALL.into_iter().filter(|kind| page.offered.on(*kind)) {
            let values = page.get(&kind.nexus(), 0b01);
            let from = page.header_bytes();
            if values[from..] != page.changeable.mask(kind, page.bytes)[from..] {
                page.row.fail(&format!("{kind:?}: {values:02X?}"));
            }
        }
    }
}

#[test]
fn just_the_bits_on_the_page_can_be_changed() {
    for page in pages() {
        for kind in Kind::ALL.into_iter().filter(|kind| page.offered.on(*kind)) {
            let mask = page.changeable.mask(kind, page.bytes);
            for (byte, bit) in (page.header_bytes()..page.bytes).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
                let nexus = kind.nexus();
                let mut wanted = page.get(&nexus, 0b00);
                wanted[byte] ^= 1 << bit;
                let response = mode_select(&nexus, &wanted);
                let may = mask[byte] & 1 << bit != 0;
                if may && (response.status != Status::Good || page.get(&nexus, 0b00) != wanted) {
                    page.row
                        .fail(&format!("{kind:?}: {byte}.{bit} cannot be changed: {response:02X?}"));
                }
                if !may && (response.status == Status::Good || sense(&response) != (0x05, 0x26, 0x00)) {
                    page.row
                        .fail(&format!("{kind:?}: {byte}.{bit} can be changed: {response:02X?}"));
                }
            }
        }
    }
}

/// Saved values: nothing is saved (PC=11b).
#[test]
fn saved_values_are_refused() {
    for page in pages() {
        let nexus = Kind::Thin.nexus();
        let response = run(&nexus, &mode_sense(0b11, page.code, page.subpage), &[]);
        assert_eq!(sense(&response), (0x05, 0x39, 0x00), "{:?}", page.row);
    }
}
