//! Mode pages (SPC-5 7.5, SBC-4 6.5): what they say, what of it can be changed, and MODE SENSE.
//!
//! Every page is one shared copy per logical unit (VPD 87 says so), so a change is a unit attention for the others.
//! Nothing can be saved: a unit comes back from a reset, and from a restart, with its defaults.

pub(super) mod select;

use std::sync::atomic::{AtomicU8, Ordering};

use super::request::{Planned, Request, answer, be16};
use super::sense::{Format, Sense};
use super::unit::LogicalUnit;
use crate::lun::{Durability, WriteCache};

/// Page code and subpage code.
type Code = (u8, u8);

/// Read-write error recovery (SBC-4 6.5.10): nothing is retried, reassigned or corrected here.
const RECOVERY: Code = (0x01, 0x00);
/// Disconnect-reconnect (SPC-5 7.5.10): no limits beyond those negotiated at login.
const DISCONNECT: Code = (0x02, 0x00);
/// Caching (SBC-4 6.5.6).
const CACHING: Code = (0x08, 0x00);
/// Control (SPC-5 7.5.9).
const CONTROL: Code = (0x0A, 0x00);
/// Control extension (SPC-5 7.5.8).
const CONTROL_EXTENSION: Code = (0x0A, 0x01);
/// Informational exceptions control (SBC-4 6.5.8): there are none to be reported.
const EXCEPTIONS: Code = (0x1C, 0x00);

/// Logical block provisioning (SBC-4 6.5.9): only where a threshold is watched.
const PROVISIONING: Code = (0x1C, 0x02);

/// All pages, in the order they are reported.
const PAGES: [Code; 7] = [
    RECOVERY,
    DISCONNECT,
    CACHING,
    CONTROL,
    CONTROL_EXTENSION,
    EXCEPTIONS,
    PROVISIONING,
];

/// PAGE CODE that asks for all pages.
const ALL_PAGES: u8 = 0x3F;
/// SUBPAGE CODE that asks for all subpages.
const ALL_SUBPAGES: u8 = 0xFF;
/// SPF, in byte 0 of a page: it has a subpage code.
const SPF: u8 = 0x40;

/// WP: the medium is write protected (SBC-4 6.5.1).
const WRITE_PROTECTED: u8 = 0x80;
/// DPOFUA: DPO and FUA are understood.
const DPOFUA: u8 = 0x10;

/// A bit that MODE SELECT may change.
#[derive(Debug, Clone, Copy)]
struct Setting {
    /// Where [`Modes`] keeps it.
    slot: u8,
    page: Code,
    byte: usize,
    mask: u8,
}

/// WCE.
const WRITE_CACHE: Setting = Setting {
    slot: 0x01,
    page: CACHING,
    byte: 2,
    mask: 0x04,
};
/// D_SENSE.
const DESCRIPTOR_SENSE: Setting = Setting {
    slot: 0x02,
    page: CONTROL,
    byte: 2,
    mask: 0x04,
};
/// SWP.
const SOFTWARE_WRITE_PROTECT: Setting = Setting {
    slot: 0x04,
    page: CONTROL,
    byte: 4,
    mask: 0x08,
};
const SETTINGS: [Setting; 3] = [WRITE_CACHE, DESCRIPTOR_SENSE, SOFTWARE_WRITE_PROTECT];

impl Setting {
    /// WCE can be cleared and set again where there is a cache; where every write is stable, it is not ours to say
    /// otherwise.
    fn is_changeable(self, unit: &LogicalUnit) -> bool {
        self.slot != WRITE_CACHE.slot || unit.properties().write_cache == WriteCache::WriteBack
    }
}

/// What initiators have changed, by [`Setting::slot`]: a set bit means "not as by default".
#[derive(Debug, Default)]
pub(super) struct Modes {
    flipped: AtomicU8,
}

impl Modes {
    fn is_flipped(&self, setting: Setting) -> bool {
        self.flipped.load(Ordering::SeqCst) & setting.slot != 0
    }

    /// How CHECK CONDITIONs carry their sense data (D_SENSE).
    pub(super) fn sense_format(&self) -> Format {
        if self.is_flipped(DESCRIPTOR_SENSE) {
            Format::Descriptor
        } else {
            Format::Fixed
        }
    }

    /// Whether an initiator has write protected the unit (SWP).
    pub(super) fn is_write_protected(&self) -> bool {
        self.is_flipped(SOFTWARE_WRITE_PROTECT)
    }

    /// Whether an initiator has switched the write cache off (WCE): every write is to be stable.
    pub(super) fn is_cache_off(&self) -> bool {
        self.is_flipped(WRITE_CACHE)
    }

    /// What a write has to be that was asked to be `asked`.
    pub(super) fn durability(&self, asked: Durability) -> Durability {
        if self.is_cache_off() { Durability::Stable } else { asked }
    }

    /// Back to the defaults, as a reset wants (SPC-5 6.13.1.4: saved values, and there are none).
    pub(super) fn reset(&self) {
        self.flipped.store(0, Ordering::SeqCst);
    }
}

/// Which values of a page (SPC-5 table 176, PC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Current,
    Changeable,
    Default,
}

/// MODE SENSE (6).
pub(super) fn sense_6(request: &Request<'_>) -> Planned {
    let (descriptor, pages) = contents(request, false)?;
    let mut data = vec![0, 0, device_specific(request), descriptor.len() as u8];
    data.extend_from_slice(&descriptor);
    data.extend_from_slice(&pages);
    data[0] = u8::try_from(data.len() - 1).unwrap_or(u8::MAX);
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
        | if request.check_writable().is_err() {
            WRITE_PROTECTED
        } else {
            0
        }
}

/// Block descriptor and pages.
fn contents(request: &Request<'_>, long: bool) -> Result<(Vec<u8>, Vec<u8>), Sense> {
    let cdb = request.cdb;
    let values = match cdb[2] >> 6 {
        0b00 => Values::Current,
        0b01 => Values::Changeable,
        0b10 => Values::Default,
        _ => return Err(Sense::SAVING_NOT_SUPPORTED),
    };
    let wanted = (cdb[2] & 0x3F, cdb[3]);
    let mut pages = Vec::new();
    for code in supported(request.unit) {
        let page_fits = wanted.0 == ALL_PAGES || wanted.0 == code.0;
        let subpage_fits = wanted.1 == ALL_SUBPAGES || wanted.1 == code.1;
        if page_fits && subpage_fits {
            pages.extend_from_slice(&page(request.unit, code, values));
        }
    }
    if pages.is_empty() {
        // Points at the subpage where the page itself would be there.
        return Err(
            if supported(request.unit).any(|code| code.0 == wanted.0) || wanted.0 == ALL_PAGES {
                Sense::cdb_field(3, 7)
            } else {
                Sense::cdb_field(2, 5)
            },
        );
    }
    // ALL_PAGES knows subpages 00h and FFh only (SPC-5 table 177).
    if wanted.0 == ALL_PAGES && !matches!(wanted.1, 0x00 | ALL_SUBPAGES) {
        return Err(Sense::cdb_field(3, 7));
    }
    // DBD.
    let descriptor = if cdb[1] & 0x08 != 0 {
        Vec::new()
    } else {
        block_descriptor(request.unit, long)
    };
    Ok((descriptor, pages))
}

/// The pages a unit has.
fn supported(unit: &LogicalUnit) -> impl Iterator<Item = Code> {
    let thresholds = threshold(unit).is_some();
    PAGES
        .into_iter()
        .filter(move |code| *code != PROVISIONING || thresholds)
}

/// The threshold that the administrator has set for the storage underneath: how much of it is left then, in threshold
/// sets (SBC-4 4.7.3.8).
fn threshold(unit: &LogicalUnit) -> Option<u32> {
    let report = unit.thin_report()?;
    let left_percent = 100 - u128::from(report.threshold_percent?.min(100));
    let left_bytes = u128::from(unit.medium().space()?.total_bytes) * left_percent / 100;
    let set_bytes = u128::from(unit.properties().block_bytes) << report.exponent;
    Some(u32::try_from(left_bytes / set_bytes).unwrap_or(u32::MAX))
}

/// Short or long LBA mode parameter block descriptor (SBC-4 6.5.2).
fn block_descriptor(unit: &LogicalUnit, long: bool) -> Vec<u8> {
    let blocks = unit.blocks();
    let block_bytes = unit.properties().block_bytes;
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

/// A whole page, from its code on.
fn page(unit: &LogicalUnit, code: Code, values: Values) -> Vec<u8> {
    let mut page = match code {
        CACHING => header(code, 20),
        DISCONNECT => header(code, 16),
        CONTROL_EXTENSION => header(code, 32),
        PROVISIONING => header(code, 24),
        _ => header(code, 12),
    };
    if values != Values::Changeable {
        match code {
            CACHING if unit.properties().write_cache == WriteCache::WriteBack => page[2] = WRITE_CACHE.mask,
            // TST 000b: one task set for all. QUEUE ALGORITHM MODIFIER 1h: unrestricted reordering. TAS: commands that
            // another nexus aborts end with TASK ABORTED.
            CONTROL => {
                page[3] = 0x10;
                page[5] = 0x40;
            }
            // IALUAE: access states, of which there is one, are the target's to change.
            CONTROL_EXTENSION => page[4] = 0x01,
            // LBPERE: thresholds are told of.
            RECOVERY if threshold(unit).is_some() => page[7] = 0x80,
            PROVISIONING => {
                // One threshold: enabled, soft, armed as the count decreases; on what is available. SITUA is 0:
                // everybody hears of it.
                page[16..18].copy_from_slice(&[0x80, 0x01]);
                page[20..24].copy_from_slice(&threshold(unit).unwrap_or(0).to_be_bytes());
            }
            _ => {}
        }
    }
    for setting in SETTINGS {
        let shows = match values {
            Values::Current => unit.modes().is_flipped(setting),
            Values::Changeable => setting.is_changeable(unit),
            Values::Default => false,
        };
        if setting.page == code && shows {
            page[setting.byte] ^= setting.mask;
        }
    }
    page
}

/// Zeroes under a page header of `page_bytes` in all (SPC-5 7.5.7); PS is 0.
fn header(code: Code, page_bytes: usize) -> Vec<u8> {
    let mut page = vec![0; page_bytes];
    match code {
        (code, 0) => {
            page[0] = code;
            page[1] = (page_bytes - 2) as u8;
        }
        (code, subpage) => {
            page[0] = SPF | code;
            page[1] = subpage;
            page[2..4].copy_from_slice(&((page_bytes - 4) as u16).to_be_bytes());
        }
    }
    page
}
