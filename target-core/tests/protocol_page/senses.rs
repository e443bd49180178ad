//! The tables of status and sense codes: each that is given is provoked, and all that the code can give are on the
//! page.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use target_core::lun::Wait;
use target_core::scsi::Status;

use crate::attentions::ATTENTIONS;
use crate::faults::{Fault, broken};
use crate::page::{self, Row, show};
use crate::provoke::provoke;
use crate::samples::{self, REGISTRANTS_ONLY};
use crate::scsi_support::{cdb_16, execution, finish, good, read_10, run, write_10};
use crate::source;
use crate::units::{self, Kind};

pub const STATUSES: &str = "Status codes";
pub const SENSES: &str = "Sense codes";

const COLUMNS: [&str; 4] = ["Code", "Name", "Given", "When"];

/// Whether a code is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    Yes,
    No,
    /// Only if something of ours is broken, which no test can bring about.
    Faults,
    /// Only when memory is short, which takes another test (`iscsi_windows.rs`) to bring about.
    ShortOfMemory,
}

impl Given {
    pub fn read(row: &Row, at: usize) -> Self {
        match row.cell(at) {
            "yes" => Self::Yes,
            "no" => Self::No,
            "faults only" => Self::Faults,
            "short of memory" => Self::ShortOfMemory,
            _ => row.fail("neither yes nor no, faults only nor short of memory"),
        }
    }
}

/// The rows of a table of codes, each with whether it is given.
pub fn rows<T: Ord>(heading: &str, code: impl Fn(&Row) -> T) -> Vec<(Row, T, Given)> {
    let rows = page::table(heading, &COLUMNS).rows;
    rows.into_iter()
        .map(|row| (row.clone(), code(&row), Given::read(&row, 2)))
        .collect()
}

fn in_order<T: Ord>(heading: &str, rows: &[(Row, T, Given)]) {
    assert!(rows.is_sorted_by(|a, b| a.1 < b.1), "{heading}: in order, each once");
}

/// SAM-6 table 34, without what is obsolete.
const SAM_STATUSES: [u8; 8] = [0x00, 0x02, 0x04, 0x08, 0x18, 0x28, 0x30, 0x40];

/// Provokes a status; `None` where nobody knows how.
fn provoke_status(status: u8) -> Option<Status> {
    let device = Kind::Thin.device();
    let (nexus, other) = (units::attach(&device), units::attach_other(&device));
    let response = match status {
        0x00 => run(&nexus, &[0; 6], &[]),
        0x02 => run(&nexus, &[0xFF; 6], &[]),
        0x18 => {
            good(&other, &[0x16, 0, 0, 0, 0, 0], &[]);
            run(&nexus, &read_10(0, 1), &[])
        }
        // COMPARE AND WRITE where a write has stopped half-way.
        0x08 => {
            let nexus = broken(Fault::Half);
            let half = execution(&nexus, &write_10(0, 1));
            assert!(half.run(&[1; 512], Wait::Never, &AtomicBool::new(false)).is_err());
            let mut compare = cdb_16(0x89, 0, 0, 0);
            compare[13] = 1;
            run(&nexus, &compare, &[0; 1024])
        }
        // A write that another initiator preempts and aborts.
        0x40 => {
            let (register, list) = samples::register();
            for registrant in [&nexus, &other] {
                good(registrant, &register, &list);
            }
            let write = execution(&nexus, &write_10(0, 1));
            let mut list = samples::reserve(REGISTRANTS_ONLY).1;
            list.copy_within(..8, 8);
            good(&other, &[0x5F, 0x05, REGISTRANTS_ONLY, 0, 0, 0, 0, 0, 24, 0], &list);
            finish(&write, &[1; 512])
        }
        _ => return None,
    };
    Some(response.status)
}

#[test]
fn every_status_is_given_as_the_page_says() {
    let rows = rows(STATUSES, |row| row.hex(0));
    let codes: Vec<u8> = rows.iter().map(|row| row.1).collect();
    assert_eq!(codes, SAM_STATUSES, "every status of SAM-6 5.3.1, in order");
    for (row, code, given) in &rows {
        match provoke_status(*code) {
            Some(status) if *given == Given::Yes && status as u8 == *code => {}
            None if *given != Given::Yes => {}
            other => row.fail(&format!("provoked: {other:?}")),
        }
    }
    for name in source::names("Status::", &["scsi/mod.rs"]) {
        let code = status(&name) as u8;
        let row = rows.iter().find(|row| row.1 == code);
        assert!(
            row.is_some_and(|row| row.2 != Given::No),
            "{name} is given, says the source"
        );
    }
}

/// The status of this name.
fn status(name: &str) -> Status {
    let all = [
        Status::Good,
        Status::CheckCondition,
        Status::ConditionMet,
        Status::Busy,
        Status::ReservationConflict,
        Status::TaskSetFull,
        Status::TaskAborted,
    ];
    let found = all.into_iter().find(|status| format!("{status:?}") == name);
    found.unwrap_or_else(|| panic!("no status is called {name}"))
}

#[test]
fn every_sense_code_is_given_as_the_page_says() {
    let rows = rows(SENSES, |row| row.sense(0));
    in_order(SENSES, &rows);
    for (row, code, given) in &rows {
        let came = provoke(*code);
        let expected = (*given == Given::Yes).then_some(*code);
        if came != expected {
            row.fail(&format!("provoked: {}", came.map_or("nothing".to_owned(), show)));
        }
    }
}

/// Where the code has sense codes, as pairs of two hex numbers.
const SOURCES: [&str; 3] = ["scsi/sense.rs", "scsi/attention.rs", "iscsi/full_feature/mod.rs"];

#[test]
fn every_sense_code_in_the_source_is_on_the_page() {
    let mut on_page: BTreeSet<(u8, u8)> = rows(SENSES, |row| row.sense(0))
        .iter()
        .map(|row| (row.1.1, row.1.2))
        .collect();
    on_page.extend(
        rows(ATTENTIONS, |row| row.sense(0))
            .iter()
            .map(|row| (row.1.1, row.1.2)),
    );
    for file in SOURCES {
        let source = source::text(file);
        let there: BTreeSet<(u8, u8)> = source.split('(').skip(1).filter_map(source::pair).collect();
        assert!(there.len() > 2, "{file}: the codes are written in another way now");
        for (code, qualifier) in there {
            assert!(
                on_page.contains(&(code, qualifier)),
                "{file}: {code:02X}/{qualifier:02X} is not on the page"
            );
        }
    }
}

/// A code that is used somewhere is not one that is never given.
#[test]
fn what_the_source_uses_is_given() {
    let senses = rows(SENSES, |row| row.sense(0));
    let definitions = source::text("scsi/sense.rs");
    for name in source::names("Sense::", &["scsi/sense.rs"]) {
        // The constants; functions such as `cdb_field` have their codes in their bodies.
        let Some(code) = source::pair_behind(&definitions, &format!("const {name}: Self")) else {
            assert!(
                name.chars().any(char::is_lowercase),
                "{name} is defined in another way now"
            );
            continue;
        };
        let key = source::sense_key(&definitions, &name);
        let row = senses
            .iter()
            .find(|row| row.1 == (key, code.0, code.1) && row.2 != Given::No);
        assert!(row.is_some(), "{name} is used, and on the page never given");
    }
    let attentions = rows(ATTENTIONS, |row| row.sense(0));
    let definitions = source::text("scsi/attention.rs");
    for name in source::names("Attention::", &["scsi/attention.rs"]) {
        if name.starts_with(char::is_lowercase) {
            continue;
        }
        let code = source::pair_behind(&definitions, &format!("Self::{name} => ")).expect("a definition");
        let row = attentions
            .iter()
            .find(|row| (row.1.1, row.1.2) == code && row.2 != Given::No);
        assert!(row.is_some(), "{name} is used, and on the page never given");
    }
}
