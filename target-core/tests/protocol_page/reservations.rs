//! The table of types of persistent reservations.

use std::io;
use std::sync::Arc;

use target_core::scsi::{ReservationStore, Saved, Status};

use crate::page::{self, Row};
use crate::samples;
use crate::scsi_support::{device, good, run, sense};
use crate::units::{self, Kind};

pub const HEADING: &str = "Persistent reservation types";

fn rows() -> Vec<Row> {
    let rows = page::table(HEADING, &["Type", "Name", "Offered"]).rows;
    for row in &rows {
        if row.cell(2) != "yes" {
            row.fail("what is not there is in no row");
        }
    }
    rows
}

#[test]
fn just_the_types_on_the_page_can_be_reserved() {
    let rows = rows();
    for kind in 0..=0x0F {
        let nexus = Kind::Thin.nexus();
        let (cdb, data) = samples::register();
        good(&nexus, &cdb, &data);
        let (cdb, data) = samples::reserve(kind);
        let response = run(&nexus, &cdb, &data);
        match rows.iter().find(|row| row.hex(0) == kind) {
            Some(row) if response.status != Status::Good => row.fail(&format!("{response:02X?}")),
            Some(_) => {}
            None => assert_eq!(sense(&response), (0x05, 0x24, 0x00), "type {kind:02X}"),
        }
    }
}

/// REPORT CAPABILITIES, PERSISTENT RESERVATION TYPE MASK (SPC-5 6.14.4): bit 15 is type 7, bit 0 type 8.
#[test]
fn the_types_reported_are_those_on_the_page() {
    let data = good(&Kind::Thin.nexus(), &[0x5E, 0x02, 0, 0, 0, 0, 0, 0, 8, 0], &[]);
    assert_ne!(data[3] & 0x80, 0, "TMV");
    let mask = u16::from_be_bytes([data[4], data[5]]);
    let expected = rows().iter().fold(0, |mask, row| {
        mask | match row.hex(0) {
            8 => 0x0001,
            kind => 0x0100 << kind,
        }
    });
    assert_eq!(format!("{mask:016b}"), format!("{expected:016b}"));
}

/// A store that forgets.
#[derive(Debug)]
struct Forgetful;

impl ReservationStore for Forgetful {
    fn load(&self) -> io::Result<Option<Saved>> {
        Ok(None)
    }

    fn save(&self, _: &Saved) -> io::Result<()> {
        Ok(())
    }
}

/// PTPL_C (SPC-5 6.14.4) and what becomes of APTPL.
#[test]
fn registrations_are_kept_only_where_there_is_a_store() {
    for has_store in [false, true] {
        let unit = Kind::Thin.unit();
        if has_store {
            unit.keep_reservations(Arc::new(Forgetful)).expect("it is the first");
        }
        let nexus = units::attach(&device([(0, unit)]));
        let data = good(&nexus, &[0x5E, 0x02, 0, 0, 0, 0, 0, 0, 8, 0], &[]);
        assert_eq!(data[2] & 0x01 != 0, has_store, "PTPL_C");
        let (cdb, mut list) = samples::register();
        list[20] = 0x01;
        let response = run(&nexus, &cdb, &list);
        if has_store {
            assert_eq!(response.status, Status::Good);
        } else {
            assert_eq!(sense(&response), (0x05, 0x26, 0x00));
        }
    }
}
