//! The table of unit attentions: each is established, and they come in the order of the page.

use std::sync::Arc;

use target_core::iscsi::Mode;
use target_core::scsi::{Nexus, Status};

use crate::page::{Sense, show};
use crate::provoke::write_protect;
use crate::samples::{self, EJECT, LOAD, REGISTRANTS_ONLY};
use crate::scsi_support::{LUN0, device, good, run, sense};
use crate::senses::{Given, rows};
use crate::source;
use crate::units::{self, BLOCKS, Kind};

pub const ATTENTIONS: &str = "Unit attentions";

/// Service actions of PERSISTENT RESERVE OUT (SPC-5 table 80).
const RESERVE: u8 = 0x01;

const RELEASE: u8 = 0x02;

const CLEAR: u8 = 0x03;

const PREEMPT: u8 = 0x04;

/// Establishes a unit attention for the first nexus and returns what it hears; `None` where nobody knows how.
fn establish(code: Sense) -> Option<Sense> {
    let unit = Kind::Removable.unit();
    let device = device([(0, Arc::clone(&unit))]);
    let (mut nexus, other) = (units::attach(&device), units::attach_other(&device));
    match (code.1, code.2) {
        (0x28, 0x00) => {
            good(&other, &EJECT, &[]);
            good(&other, &LOAD, &[]);
        }
        (0x29, 0x02) => drop(other.reset_target()),
        (0x29, 0x03) => drop(other.reset_lun(LUN0)),
        (0x2A, 0x01) => write_protect(&other),
        (0x2A, 0x02) => drop(good(&other, &[0x4C, 0x02, 0x40, 0, 0, 0, 0, 0, 0, 0], &[])),
        (0x2A, 0x03) => {
            register_both(&nexus, &other);
            persistent_out(&other, CLEAR, &samples::reserve(REGISTRANTS_ONLY).1);
        }
        (0x2A, 0x04) => {
            register_both(&nexus, &other);
            for action in [RESERVE, RELEASE] {
                persistent_out(&other, action, &samples::reserve(REGISTRANTS_ONLY).1);
            }
        }
        (0x2A, 0x05) => {
            register_both(&nexus, &other);
            // Both have the same key, and only the other's own registration stays.
            let mut list = samples::reserve(REGISTRANTS_ONLY).1;
            list.copy_within(..8, 8);
            persistent_out(&other, PREEMPT, &list);
        }
        (0x2A, 0x09) => unit.resize(BLOCKS / 2 * 512).expect("it can"),
        (0x38, 0x07) => unit.check_threshold(),
        (0x3F, 0x03) => {
            drop(device.replace(0, Kind::Thin.unit()).expect("it is there"));
            nexus.refresh(&|_| Some(Mode::ReadWrite));
            // It comes behind the news that the medium may be another one.
            assert_eq!(sense(&run(&nexus, &[0; 6], &[])), (0x06, 0x28, 0x00));
        }
        (0x3F, 0x0E) => {
            device.insert(1, Kind::Thin.unit()).expect("there is none");
            nexus.refresh(&|_| Some(Mode::ReadWrite));
        }
        _ => return None,
    }
    Some(sense(&run(&nexus, &[0; 6], &[])))
}

#[test]
fn every_unit_attention_is_established_as_the_page_says() {
    for (row, code, given) in rows(ATTENTIONS, |row| row.sense(0)) {
        let came = establish(code);
        if came != (given == Given::Yes).then_some(code) {
            row.fail(&format!("established: {}", came.map_or("nothing".to_owned(), show)));
        }
    }
}

/// All conditions that there are, in the order in which the source reports them.
#[test]
fn the_conditions_of_the_source_are_those_of_the_page() {
    let text = source::text("scsi/attention.rs");
    let list = text
        .split("const ALL: ")
        .nth(1)
        .and_then(|behind| behind.split("];").next());
    let names = list.expect("the list of conditions").split("Self::").skip(1);
    let known: Vec<(u8, u8)> = names
        .map(|name| name.trim_end().trim_end_matches(','))
        .map(|name| source::pair_behind(&text, &format!("Self::{name} => ")).expect(name))
        .collect();
    let mut on_page = Vec::new();
    for (row, (key, code, qualifier), given) in rows(ATTENTIONS, |row| row.sense(0)) {
        assert_eq!(key, 0x06, "UNIT ATTENTION: {row:?}");
        // A row may say of what the source does not know that it is not there.
        if given != Given::No || known.contains(&(code, qualifier)) {
            on_page.push((code, qualifier));
        }
    }
    assert_eq!(on_page, known);
}

/// The order of the rows is the order of reporting: whatever can be made pending together comes out so.
#[test]
fn unit_attentions_come_in_the_order_of_the_page() {
    let unit = Kind::Removable.unit();
    let device = device([(0, Arc::clone(&unit))]);
    let (mut nexus, other) = (units::attach(&device), units::attach_other(&device));
    register_both(&nexus, &other);
    persistent_out(&other, CLEAR, &samples::reserve(REGISTRANTS_ONLY).1);
    write_protect(&other);
    good(&other, &EJECT, &[]);
    good(&other, &LOAD, &[]);
    unit.check_threshold();
    device.insert(1, Kind::Thin.unit()).expect("there is none");
    nexus.refresh(&|_| Some(Mode::ReadWrite));
    unit.resize(BLOCKS / 2 * 512).expect("it can");
    drop(other.reset_lun(LUN0));
    drop(other.reset_target());
    let heard: Vec<Sense> = std::iter::from_fn(|| {
        let response = run(&nexus, &[0; 6], &[]);
        (response.status != Status::Good).then(|| sense(&response))
    })
    .collect();
    assert_eq!(heard.len(), 8, "{heard:02X?}");
    let on_page: Vec<Sense> = rows(ATTENTIONS, |row| row.sense(0))
        .into_iter()
        .map(|row| row.1)
        .collect();
    let expected: Vec<Sense> = on_page.into_iter().filter(|code| heard.contains(code)).collect();
    assert_eq!(heard, expected);
}

fn persistent_out(nexus: &Nexus, action: u8, list: &[u8]) {
    good(nexus, &[0x5F, action, REGISTRANTS_ONLY, 0, 0, 0, 0, 0, 24, 0], list);
}

/// Both register the same key.
fn register_both(nexus: &Nexus, other: &Nexus) {
    let (cdb, list) = samples::register();
    for registrant in [nexus, other] {
        good(registrant, &cdb, &list);
    }
}
