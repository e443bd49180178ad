//! SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS.

mod scsi_support;

use std::sync::Arc;

use scsi_support::cached::Cached;
use scsi_support::*;

const SELF_TEST: [u8; 6] = [0x1D, 0x04, 0, 0, 0, 0];

#[test]
fn the_default_self_test_reads_and_flushes() {
    let medium = Cached::new(64);
    let disk = nexus(Arc::clone(&medium) as _);
    assert_eq!(good(&disk, &SELF_TEST, &[]), NOTHING);
    assert_eq!(medium.counts(), (0, 0, 1));
    // DEVOFFL and UNITOFFL allow what it does not need.
    assert_eq!(good(&disk, &[0x1D, 0x07, 0, 0, 0, 0], &[]), NOTHING);
    // Without SELFTEST and without a list there is nothing to do.
    assert_eq!(good(&disk, &[0x1D, 0x10, 0, 0, 0, 0], &[]), NOTHING);
    medium.fail();
    assert_eq!(
        refused(&disk, &SELF_TEST, &[]),
        (0x4, 0x3E, 0x03),
        "LOGICAL UNIT FAILED SELF-TEST"
    );
}

#[test]
fn what_there_is_not() {
    let disk = nexus(memory(64));
    assert_eq!(good(&disk, &[0x1C, 1, 0, 0, 255, 0], &[]), [0, 0, 0, 1, 0]);
    assert_eq!(good(&disk, &[0x1C, 1, 0, 0, 2, 0], &[]), [0, 0]);
    for (what, cdb, pointer) in [
        ("a page of its own", [0x1C, 1, 0x40, 0, 255, 0], [0xCF, 0, 2]),
        ("results of what was sent", [0x1C, 0, 0, 0, 255, 0], [0xC8, 0, 1]),
        ("a background self-test", [0x1D, 0x20, 0, 0, 0, 0], [0xCF, 0, 1]),
        ("a page to be sent", [0x1D, 0x10, 0, 0, 4, 0], [0xCF, 0, 3]),
    ] {
        let response = run(&disk, &cdb, &[0; 4]);
        assert_eq!(sense(&response), INVALID_FIELD, "{what}");
        assert_eq!(response.sense[15..18], pointer, "{what}");
    }
}
