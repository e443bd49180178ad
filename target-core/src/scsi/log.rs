//! LOG SENSE and LOG SELECT (SPC-5 6.9, 6.10, 7.3; SBC-4 6.4): what a unit has counted since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::attention::Attention;
use super::request::{Plan, Planned, Request, answer, be16};
use super::sense::Sense;
use super::unit::LogicalUnit;

/// Supported log pages.
const SUPPORTED: u8 = 0x00;
/// Logical block provisioning (SBC-4 6.4.5).
const PROVISIONING: u8 = 0x0C;
/// Start-stop cycle counter (SPC-5 7.3.22).
const START_STOP: u8 = 0x0E;
/// General statistics and performance (SPC-5 7.3.10).
const STATISTICS: u8 = 0x19;
/// Informational exceptions (SPC-5 7.3.11).
const EXCEPTIONS: u8 = 0x2F;

/// SUBPAGE CODE that asks for all there are.
const ALL_SUBPAGES: u8 = 0xFF;
/// SPF, in byte 0 of a page: it has a subpage code.
const SPF: u8 = 0x40;
/// DS: the page is never saved.
const DS: u8 = 0x80;

/// FORMAT AND LINKING 11b: a list of values in binary.
const BINARY_LIST: u8 = 0x03;
/// FORMAT AND LINKING 00b: a counter that ends at its greatest value.
const BOUNDED_COUNTER: u8 = 0x00;

/// What one nexus has done at a unit. Only its own commands write here.
#[derive(Debug, Default)]
pub(super) struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

impl Counters {
    /// A command has read so much.
    pub(super) fn note_read(&self, bytes: u64) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A command has written so much.
    pub(super) fn note_written(&self, bytes: u64) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    fn totals(&self) -> Totals {
        Totals {
            reads: self.reads.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            stops: 0,
        }
    }
}

/// Numbers as they were at some moment.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    reads: u64,
    writes: u64,
    bytes_read: u64,
    bytes_written: u64,
    stops: u64,
}

impl Totals {
    fn plus(self, other: Self) -> Self {
        self.combine(other, u64::wrapping_add)
    }

    fn minus(self, other: Self) -> Self {
        self.combine(other, u64::saturating_sub)
    }

    fn combine(self, other: Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            reads: with(self.reads, other.reads),
            writes: with(self.writes, other.writes),
            bytes_read: with(self.bytes_read, other.bytes_read),
            bytes_written: with(self.bytes_written, other.bytes_written),
            stops: with(self.stops, other.stops),
        }
    }
}

/// What is counted for a unit beyond the nexuses that are there now.
#[derive(Debug, Default)]
pub(super) struct Log {
    state: Mutex<LogState>,
}

#[derive(Debug, Default)]
struct LogState {
    /// Of nexuses that are gone; and stops, of all.
    past: Totals,
    /// What does not count any more since LOG SELECT.
    forgotten: Totals,
}

impl Log {
    fn with<T>(&self, work: impl FnOnce(&mut LogState) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The nexus of these counters is gone.
    pub(super) fn keep(&self, counters: &Counters) {
        self.with(|state| state.past = state.past.plus(counters.totals()));
    }

    /// START STOP UNIT has stopped the unit.
    pub(super) fn note_stop(&self) {
        self.with(|state| state.past.stops = state.past.stops.wrapping_add(1));
    }
}

impl LogicalUnit {
    /// Everything since it was opened.
    fn all_totals(&self) -> Totals {
        let present = self.fold_paths(Totals::default(), |totals, path| totals.plus(path.counters().totals()));
        self.log().with(|state| state.past).plus(present)
    }

    /// Everything since LOG SELECT.
    fn totals(&self) -> Totals {
        self.all_totals().minus(self.log().with(|state| state.forgotten))
    }
}

/// The pages a unit has, in order. How full it is only thin units know.
fn pages(unit: &LogicalUnit) -> Vec<u8> {
    let mut pages = vec![SUPPORTED];
    if unit.thin_report().is_some() {
        pages.push(PROVISIONING);
    }
    pages.extend_from_slice(&[START_STOP, STATISTICS, EXCEPTIONS]);
    pages
}

/// A log parameter: its code, its control byte and its value.
type Parameter = (u16, u8, Vec<u8>);

/// LOG SENSE.
pub(super) fn sense(request: &Request<'_>) -> Planned {
    let cdb = request.cdb;
    let (control, code, subpage) = (cdb[2] >> 6, cdb[2] & 0x3F, cdb[3]);
    let unit = request.unit;
    if cdb[1] & 0x01 != 0 {
        // SP: nothing is saved.
        return Err(Sense::cdb_field(1, 0));
    }
    if !pages(unit).contains(&code) {
        return Err(Sense::cdb_field(2, 5));
    }
    if subpage != 0 && (code, subpage) != (SUPPORTED, ALL_SUBPAGES) {
        return Err(Sense::cdb_field(3, 7));
    }
    let pointer = be16(cdb, 5);
    let (header, body) = if code == SUPPORTED {
        if pointer != 0 {
            return Err(Sense::cdb_field(5, 7));
        }
        supported(unit, subpage)
    } else {
        // PC 01b, cumulative values: there are no thresholds, and the defaults are zeroes.
        if control != 0b01 {
            return Err(Sense::cdb_field(2, 7));
        }
        let parameters = parameters(unit, code);
        if parameters.last().is_none_or(|(last, ..)| pointer > *last) {
            return Err(Sense::cdb_field(5, 7));
        }
        let mut body = Vec::new();
        for (code, control, value) in parameters.into_iter().filter(|(code, ..)| *code >= pointer) {
            body.extend_from_slice(&code.to_be_bytes());
            body.extend_from_slice(&[control, value.len() as u8]);
            body.extend_from_slice(&value);
        }
        ([DS | code, 0], body)
    };
    let mut data = header.to_vec();
    data.extend_from_slice(&(body.len() as u16).to_be_bytes());
    data.extend_from_slice(&body);
    answer(data, u32::from(be16(cdb, 7)))
}

/// The list of pages, or of pages and subpages.
fn supported(unit: &LogicalUnit, subpage: u8) -> ([u8; 2], Vec<u8>) {
    let pages = pages(unit);
    if subpage == 0 {
        return ([SUPPORTED, 0], pages);
    }
    let mut list = vec![SUPPORTED, 0, SUPPORTED, ALL_SUBPAGES];
    list.extend(pages.iter().skip(1).flat_map(|&page| [page, 0]));
    ([SPF | SUPPORTED, ALL_SUBPAGES], list)
}

/// What a page holds, in the order of parameter codes.
fn parameters(unit: &LogicalUnit, code: u8) -> Vec<Parameter> {
    match code {
        PROVISIONING => unit.thin_report().map_or_else(Vec::new, |report| {
            // SCOPE: what is left is for all on the same storage, what is used is of this unit.
            let count = |sets: u32, scope: u8| [&sets.to_be_bytes()[..], &[scope, 0, 0, 0]].concat();
            vec![
                (0x0001, BINARY_LIST, count(report.available, 0x02)),
                (0x0002, BINARY_LIST, count(report.used, 0x01)),
            ]
        }),
        // Accumulated cycles: nothing turns, so there are neither dates nor specified counts.
        START_STOP => {
            let stops = u32::try_from(unit.totals().stops).unwrap_or(u32::MAX);
            vec![(0x0004, BINARY_LIST, stops.to_be_bytes().to_vec())]
        }
        STATISTICS => {
            let totals = unit.totals();
            let block_bytes = u64::from(unit.properties().block_bytes);
            // Commands, blocks received and transmitted; processing intervals are not measured.
            let counts = [
                totals.reads,
                totals.writes,
                totals.bytes_written / block_bytes,
                totals.bytes_read / block_bytes,
                0,
                0,
                0,
                0,
            ];
            let counts = counts.into_iter().flat_map(u64::to_be_bytes).collect();
            // Idle time, and the length of an interval: none, for they are not measured.
            vec![
                (0x0001, BOUNDED_COUNTER, counts),
                (0x0002, BOUNDED_COUNTER, vec![0; 8]),
                (0x0003, BINARY_LIST, vec![0; 8]),
            ]
        }
        // No exception; no temperature.
        EXCEPTIONS => vec![(0x0000, BINARY_LIST, vec![0, 0, 0xFF, 0])],
        _ => Vec::new(),
    }
}

/// LOG SELECT: counters can be set to zero (PCR), and to nothing else.
pub(super) fn select(request: &Request<'_>) -> Planned {
    let cdb = request.cdb;
    if cdb[1] & 0x01 != 0 {
        return Err(Sense::cdb_field(1, 0));
    }
    if be16(cdb, 7) != 0 {
        return Err(Sense::cdb_field(7, 7));
    }
    let (reset, code) = (cdb[1] & 0x02 != 0, cdb[2] & 0x3F);
    if !pages(request.unit).contains(&code) {
        return Err(Sense::cdb_field(2, 5));
    }
    if cdb[3] != 0 {
        return Err(Sense::cdb_field(3, 7));
    }
    if reset {
        let unit = request.unit;
        let now = unit.all_totals();
        unit.log().with(|state| match code {
            // With page 00h for all of them.
            SUPPORTED => state.forgotten = now,
            START_STOP => state.forgotten.stops = now.stops,
            STATISTICS => {
                state.forgotten = Totals {
                    stops: state.forgotten.stops,
                    ..now
                }
            }
            _ => {}
        });
        unit.tell_others(request.path, Attention::LogParametersChanged);
    }
    Ok(Plan::Answer(Vec::new()))
}
