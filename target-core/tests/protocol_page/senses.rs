//! The tables of status and sense codes: each that is given is provoked, and all that the code can give are on the
//! page.

use std::collections::BTreeSet;

use target_core::scsi::Status;

use crate::attentions::ATTENTIONS;
use crate::page::{self, Row, show};
use crate::provoke::provoke;
use crate::scsi_support::{good, read_10, run};
use crate::units::{self, Kind};

pub const STATUSES: &str = "Status codes";
pub const SENSES: &str = "Sense codes";

const COLUMNS: [&str; 4] = ["Code", "Name", "Given", "When"];

/// The rows of a table of codes, each with whether it is given.
pub fn rows<T: Ord>(heading: &str, code: impl Fn(&Row) -> T) -> Vec<(Row, T, bool)> {
    let rows: Vec<(Row, T, bool)> = page::table(heading, &COLUMNS)
        .rows
        .into_iter()
        .map(|row| {
            let given = match row.cell(2) {
                "yes" => true,
                "no" => false,
                _ => row.fail("neither yes nor no"),
            };
            (row.clone(), code(&row), given)
        })
        .collect();
    rows
}

fn in_order<T: Ord>(heading: &str, rows: &[(Row, T, bool)]) {
    assert!(rows.is_sorted_by(|a, b| a.1 < b.1), "{heading}: in order, each once");
}

/// Every status byte that the code knows.
fn known_statuses() -> BTreeSet<u8> {
    // The match fails to compile when a variant is added.
    let of = |status: Status| match status {
        Status::Good
        | Status::CheckCondition
        | Status::ConditionMet
        | Status::Busy
        | Status::ReservationConflict
        | Status::TaskSetFull
        | Status::TaskAborted => status as u8,
    };
    [
        Status::Good,
        Status::CheckCondition,
        Status::ConditionMet,
        Status::Busy,
        Status::ReservationConflict,
        Status::TaskSetFull,
        Status::TaskAborted,
    ]
    .map(of)
    .into()
}

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
        _ => return None,
    };
    Some(response.status)
}

#[test]
fn every_status_is_given_as_the_page_says() {
    let rows = rows(STATUSES, |row| row.hex(0));
    in_order(STATUSES, &rows);
    for (row, code, given) in &rows {
        match provoke_status(*code) {
            Some(status) if *given && status as u8 == *code => {}
            None if !given => {}
            other => row.fail(&format!("provoked: {other:?}")),
        }
    }
    let on_page: BTreeSet<u8> = rows.iter().map(|row| row.1).collect();
    assert!(
        on_page.is_superset(&known_statuses()),
        "not all of {:02X?} are on the page",
        known_statuses()
    );
}

#[test]
fn every_sense_code_is_given_as_the_page_says() {
    let rows = rows(SENSES, |row| row.sense(0));
    in_order(SENSES, &rows);
    for (row, code, given) in &rows {
        let came = provoke(*code);
        let expected = given.then_some(*code);
        if came != expected {
            row.fail(&format!("provoked: {}", came.map_or("nothing".to_owned(), show)));
        }
    }
}

/// Where the code has sense codes, as pairs of two hex numbers.
const SOURCES: [(&str, &str); 3] = [
    ("sense.rs", include_str!("../../src/scsi/sense.rs")),
    ("attention.rs", include_str!("../../src/scsi/attention.rs")),
    (
        "full_feature/mod.rs",
        include_str!("../../src/iscsi/full_feature/mod.rs"),
    ),
];

/// `(0x24, 0x00)` and the like.
fn pairs(source: &str) -> BTreeSet<(u8, u8)> {
    let number = |text: &str| u8::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok();
    source
        .split('(')
        .skip(1)
        .filter_map(|behind| {
            let (first, second) = behind.split_once(')')?.0.split_once(',')?;
            Some((number(first)?, number(second)?))
        })
        .collect()
}

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
    for (name, source) in SOURCES {
        let there = pairs(source);
        assert!(there.len() > 2, "{name}: the codes are written in another way now");
        for (code, qualifier) in there {
            assert!(
                on_page.contains(&(code, qualifier)),
                "{name}: {code:02X}/{qualifier:02X} is not on the page"
            );
        }
    }
}
