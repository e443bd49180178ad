//! MODE SENSE and MODE SELECT: what the pages say, what of it can be changed, and what that does.

mod scsi_support;

use std::sync::Arc;

use scsi_support::cached::Cached;
use scsi_support::*;
use target_core::lun::MemoryMedium;
use target_core::scsi::{Device, LogicalUnit, LogicalUnitOptions, MediumOptions, Mode, Nexus, Status, TargetPort};

const CURRENT: u8 = 0x00;
const CHANGEABLE: u8 = 0x40;
const DEFAULT: u8 = 0x80;
const SAVED: u8 = 0xC0;

const PARAMETER_FIELD: (u8, u8, u8) = (0x5, 0x26, 0x00);
const LIST_LENGTH: (u8, u8, u8) = (0x5, 0x1A, 0x00);
const MODE_PARAMETERS_CHANGED: (u8, u8, u8) = (0x6, 0x2A, 0x01);

fn shared(medium: Arc<dyn target_core::lun::Medium>) -> Arc<Device> {
    device([(0, LogicalUnit::shared(medium, identity()))])
}

fn attach(device: &Arc<Device>, name: &str) -> Nexus {
    let name = format!("iqn.2026-11.example:{name}");
    let port = format!("{name},i,0x00023d000001");
    device.attach(&name, &port).expect("admitted")
}

/// MODE SENSE (6) without block descriptor: the pages alone.
fn pages(nexus: &Nexus, control: u8, page: u8, subpage: u8) -> Vec<u8> {
    let data = good(nexus, &[0x1A, 0x08, control | page, subpage, 255, 0], &[]);
    assert_eq!(usize::from(data[0]), data.len() - 1, "MODE DATA LENGTH");
    assert_eq!(data[3], 0, "no descriptor");
    data[4..].to_vec()
}

fn select_6(list: &[u8]) -> [u8; 6] {
    [0x15, 0x10, 0, 0, list.len() as u8, 0]
}

/// MODE SELECT (6) of one page.
fn set(nexus: &Nexus, page: &[u8]) -> target_core::scsi::Response {
    let list = [&[0; 4], page].concat();
    run(nexus, &select_6(&list), &list)
}

/// The current page with the bits of `mask` in a byte set or cleared.
fn with(nexus: &Nexus, page: u8, byte: usize, mask: u8, on: bool) -> Vec<u8> {
    let mut bytes = pages(nexus, CURRENT, page, 0);
    bytes[byte] = bytes[byte] & !mask | if on { mask } else { 0 };
    bytes
}

fn cache(nexus: &Nexus, on: bool) {
    let response = set(nexus, &with(nexus, 0x08, 2, 0x04, on));
    assert_eq!(response.status, Status::Good, "{:02x?}", response.sense);
}

fn write_protect(nexus: &Nexus, on: bool) {
    let response = set(nexus, &with(nexus, 0x0A, 4, 0x08, on));
    assert_eq!(response.status, Status::Good, "{:02x?}", response.sense);
}

fn descriptor_sense(nexus: &Nexus, on: bool) {
    let response = set(nexus, &with(nexus, 0x0A, 2, 0x04, on));
    assert_eq!(response.status, Status::Good, "{:02x?}", response.sense);
}

#[test]
fn every_page_in_every_form() {
    let disk = nexus(Cached::new(64));
    // Page, subpage, length, and the bytes that are not zero: current and default, changeable.
    type Bytes = &'static [(usize, u8)];
    let table: [(u8, u8, usize, Bytes, Bytes); 6] = [
        (0x01, 0x00, 12, &[], &[]),
        (0x02, 0x00, 16, &[], &[]),
        (0x08, 0x00, 20, &[(2, 0x04)], &[(2, 0x04)]),
        (0x0A, 0x00, 12, &[(3, 0x10), (5, 0x40)], &[(2, 0x04), (4, 0x08)]),
        (0x0A, 0x01, 32, &[(4, 0x01)], &[]),
        (0x1C, 0x00, 12, &[], &[]),
    ];
    for control in [CURRENT, CHANGEABLE, DEFAULT] {
        let (mut all, mut all_with_subpages) = (Vec::new(), Vec::new());
        for (code, subpage, length, values, changeable) in table {
            let mut page = vec![0; length];
            match subpage {
                0 => page[..2].copy_from_slice(&[code, (length - 2) as u8]),
                _ => page[..4].copy_from_slice(&[0x40 | code, subpage, 0, (length - 4) as u8]),
            }
            for &(at, byte) in if control == CHANGEABLE { changeable } else { values } {
                page[at] = byte;
            }
            assert_eq!(pages(&disk, control, code, subpage), page, "{code:02x}/{subpage:02x}");
            all_with_subpages.extend_from_slice(&page);
            if subpage == 0 {
                all.extend_from_slice(&page);
            }
        }
        assert_eq!(pages(&disk, control, 0x3F, 0x00), all);
        assert_eq!(pages(&disk, control, 0x3F, 0xFF), all_with_subpages);
        let control_pages = [pages(&disk, control, 0x0A, 0x00), pages(&disk, control, 0x0A, 0x01)];
        assert_eq!(pages(&disk, control, 0x0A, 0xFF), control_pages.concat());
    }
}

#[test]
fn pages_that_are_not_there() {
    let disk = nexus(memory(64));
    // The field that is wrong (SPC-5 4.4.2.4.2): page code or subpage code.
    for (page, subpage, pointer) in [
        (0x00, 0x00, [0xCD, 0, 2]),
        (0x1A, 0x00, [0xCD, 0, 2]),
        (0x19, 0xFF, [0xCD, 0, 2]),
        (0x08, 0x01, [0xCF, 0, 3]),
        (0x3F, 0x01, [0xCF, 0, 3]),
        (0x3F, 0xFE, [0xCF, 0, 3]),
    ] {
        let response = run(&disk, &[0x1A, 0, page, subpage, 255, 0], &[]);
        assert_eq!(sense(&response), INVALID_FIELD, "{page:02x}/{subpage:02x}");
        assert_eq!(response.sense[15..18], pointer, "{page:02x}/{subpage:02x}");
    }
    // SAVING PARAMETERS NOT SUPPORTED.
    assert_eq!(
        refused(&disk, &[0x1A, 0, SAVED | 0x08, 0, 255, 0], &[]),
        (0x5, 0x39, 0x00)
    );
    assert_eq!(
        refused(&disk, &[0x5A, 0, SAVED | 0x3F, 0, 0, 0, 0, 0, 255, 0], &[]),
        (0x5, 0x39, 0x00)
    );
}

#[test]
fn a_threshold_has_a_page_of_its_own() {
    let medium = Arc::new(MemoryMedium::with_limit(1 << 30, 512, 64 << 20).expect("a memory medium"));
    let options = LogicalUnitOptions {
        medium: MediumOptions {
            threshold_percent: Some(75),
            ..Default::default()
        },
        ..Default::default()
    };
    let disk = attach(
        &device([(0, LogicalUnit::with_options(medium, identity(), options))]),
        "one",
    );
    let exponent = good(&disk, &[0x12, 1, 0xB2, 0, 8, 0], &[])[4];
    assert_ne!(exponent, 0, "THRESHOLD EXPONENT");
    // A quarter of 64 MiB left, in sets of 2^exponent blocks.
    let sets = ((16 << 20) / 512_u32) >> exponent;
    let mut expected = vec![0; 24];
    expected[..4].copy_from_slice(&[0x5C, 0x02, 0, 20]);
    // Enabled, soft, armed as it decreases; on available resources.
    expected[16..18].copy_from_slice(&[0x80, 0x01]);
    expected[20..].copy_from_slice(&sets.to_be_bytes());
    assert_eq!(pages(&disk, CURRENT, 0x1C, 0x02), expected);
    assert_eq!(pages(&disk, CHANGEABLE, 0x1C, 0x02)[4..], [0; 20]);
    // LBPERE.
    assert_eq!(pages(&disk, CURRENT, 0x01, 0)[7], 0x80);
    assert_eq!(
        pages(&disk, CURRENT, 0x3F, 0xFF).len(),
        12 + 16 + 20 + 12 + 32 + 12 + 24
    );
}

#[test]
fn headers_and_block_descriptors() {
    let small = nexus(memory(0x1234));
    // MODE SENSE (6): length, medium type, DPOFUA, descriptor length.
    let six = good(&small, &[0x1A, 0, 0x08, 0, 255, 0], &[]);
    assert_eq!(six[..12], [31, 0, 0x10, 8, 0, 0, 0x12, 0x34, 0, 0, 2, 0]);
    let ten = good(&small, &[0x5A, 0, 0x08, 0, 0, 0, 0, 0, 255, 0], &[]);
    assert_eq!(ten[..8], [0, 34, 0, 0x10, 0, 0, 0, 8]);
    assert_eq!(ten[8..16], [0, 0, 0x12, 0x34, 0, 0, 2, 0]);
    // LLBAA asks for the long descriptor.
    let long = good(&small, &[0x5A, 0x10, 0x08, 0, 0, 0, 0, 0, 255, 0], &[]);
    assert_eq!(long[..8], [0, 42, 0, 0x10, 0x01, 0, 0, 16]);
    assert_eq!(long[8..24], [0, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 0, 2, 0]);
    let none = good(&small, &[0x5A, 0x18, 0x08, 0, 0, 0, 0, 0, 255, 0], &[]);
    assert_eq!(none[..8], [0, 26, 0, 0x10, 0, 0, 0, 0], "DBD is stronger");
    // More blocks than the short descriptor can say.
    let large = nexus(memory(1 << 33));
    let six = good(&large, &[0x1A, 0, 0x08, 0, 12, 0], &[]);
    assert_eq!(six[4..12], [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 2, 0]);
    let long = good(&large, &[0x5A, 0x10, 0x08, 0, 0, 0, 0, 0, 24, 0], &[]);
    assert_eq!(long[8..16], (1_u64 << 33).to_be_bytes());
    assert_eq!(
        good(&large, &[0x1A, 0, 0x08, 0, 3, 0], &[]),
        six[..3],
        "cut to the allocation length"
    );
}

#[test]
fn without_cache_every_write_is_stable() {
    let medium = Cached::new(64);
    let device = shared(Arc::clone(&medium) as _);
    let (one, two) = (attach(&device, "one"), attach(&device, "two"));
    let write_same = cdb_16(0x93, 0x01, 0, 8);
    let compare_and_write = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    let writes = |stable: usize, cached: usize| {
        medium.counts();
        good(&one, &write_10(0, 1), &[1; 512]);
        good(&one, &[0x0A, 0, 0, 1, 1, 0], &[1; 512]);
        good(&one, &compare_and_write, &[1; 1024]);
        good(&one, &cdb_16(0x8B, 0, 0, 1), &[1; 512]);
        good(&one, &write_same, &[]);
        good(&one, &cdb_16(0x93, 0, 0, 1), &[1; 512]);
        let (done_stable, done_cached, _) = medium.counts();
        assert_eq!((done_stable, done_cached), (stable, cached));
    };
    writes(0, 6);
    cache(&one, false);
    assert_eq!(
        medium.counts().2,
        1,
        "what was in the cache is written before the answer"
    );
    assert_eq!(pages(two_heard(&two), CURRENT, 0x08, 0)[2], 0, "and the other sees it");
    assert_eq!(pages(&one, DEFAULT, 0x08, 0)[2], 0x04);
    writes(6, 0);
    let list = unmap_list(&[(0, 8)]);
    medium.counts();
    good(&one, &unmap_cdb(&list), &list);
    assert_eq!(medium.counts().2, 1, "zeroes are data like any other");
    cache(&one, true);
    writes(0, 6);
    good(&one, &unmap_cdb(&list), &list);
    assert_eq!(medium.counts().2, 0);

    fn two_heard(two: &Nexus) -> &Nexus {
        assert_eq!(refused(two, &[0; 6], &[]), MODE_PARAMETERS_CHANGED);
        assert_eq!(run(two, &[0; 6], &[]).status, Status::Good);
        two
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_not_switched_off_quietly() {
    let medium = Cached::new(64);
    let disk = nexus(Arc::clone(&medium) as _);
    medium.fail();
    let response = set(&disk, &with(&disk, 0x08, 2, 0x04, false));
    assert_eq!(sense(&response), (0x3, 0x0C, 0x00));
}

#[test]
fn where_every_write_is_stable_there_is_no_cache_to_switch_on() {
    let disk = nexus(memory(64));
    assert_eq!(pages(&disk, CURRENT, 0x08, 0)[2], 0);
    assert_eq!(pages(&disk, CHANGEABLE, 0x08, 0)[2], 0);
    let response = set(&disk, &with(&disk, 0x08, 2, 0x04, true));
    assert_eq!(sense(&response), PARAMETER_FIELD);
    // Byte 2 of the page, behind a header of four bytes; bit 2.
    assert_eq!(response.sense[15..18], [0x8A, 0, 6]);
}

#[test]
fn software_write_protection() {
    let device = shared(memory(64));
    let (one, two) = (attach(&device, "one"), attach(&device, "two"));
    good(&one, &write_10(0, 1), &[7; 512]);
    write_protect(&one, true);
    assert_eq!(refused(&two, &[0; 6], &[]), MODE_PARAMETERS_CHANGED);
    for nexus in [&one, &two] {
        // LOGICAL UNIT SOFTWARE WRITE PROTECTED, for everyone.
        for (cdb, data) in [
            (write_10(0, 1).to_vec(), 512),
            (cdb_16(0x8A, 0, 0, 1).to_vec(), 512),
            (cdb_10(0x41, 0, 0, 1).to_vec(), 512),
            (cdb_16(0x8B, 0, 0, 1).to_vec(), 512),
            (unmap_cdb(&unmap_list(&[(0, 1)])).to_vec(), 24),
        ] {
            assert_eq!(refused(nexus, &cdb, &vec![0; data]), (0x7, 0x27, 0x02), "{cdb:02x?}");
        }
        assert_eq!(good(nexus, &read_10(0, 1), &[]), [7; 512]);
        assert_eq!(
            good(nexus, &[0x1A, 0x08, 0x0A, 0, 4, 0], &[])[2],
            0x90,
            "WP in the header"
        );
    }
    write_protect(&two, false);
    assert_eq!(refused(&one, &[0; 6], &[]), MODE_PARAMETERS_CHANGED);
    good(&one, &write_10(0, 1), &[8; 512]);
    assert_eq!(good(&one, &[0x1A, 0x08, 0x0A, 0, 4, 0], &[])[2], 0x10);
}

#[test]
fn a_read_only_unit_says_so() {
    let options = LogicalUnitOptions {
        read_only: true,
        ..Default::default()
    };
    let unit = LogicalUnit::with_options(memory(64), identity(), options);
    let disk = attach(&device([(0, unit)]), "one");
    assert_eq!(good(&disk, &[0x1A, 0x08, 0x08, 0, 4, 0], &[])[2], 0x90);
    assert_eq!(refused(&disk, &write_10(0, 1), &[0; 512]), (0x7, 0x27, 0x00));
    // Lifting what was not set changes nothing.
    write_protect(&disk, false);
    assert_eq!(refused(&disk, &write_10(0, 1), &[0; 512]), (0x7, 0x27, 0x00));
}

#[test]
fn descriptor_sense_for_everyone() {
    let device = shared(memory(64));
    let (one, two) = (attach(&device, "one"), attach(&device, "two"));
    descriptor_sense(&one, true);
    let response = run(&two, &[0; 6], &[]);
    assert_eq!(
        response.sense,
        [0x72, 0x06, 0x2A, 0x01, 0, 0, 0, 0],
        "already the attention itself"
    );
    let response = run(&two, &cdb_16(0x88, 0, 1 << 40, 1), &[]);
    assert_eq!(response.status, Status::CheckCondition);
    let mut expected = vec![0x72, 0x05, 0x21, 0, 0, 0, 0, 12, 0x00, 0x0A, 0x80, 0];
    expected.extend_from_slice(&(1_u64 << 40).to_be_bytes());
    assert_eq!(response.sense, expected);
    // REQUEST SENSE goes by its own bit (SPC-5 6.39).
    assert_eq!(good(&two, &[0x03, 0, 0, 0, 255, 0], &[])[0], 0x70);
    assert_eq!(good(&two, &[0x03, 1, 0, 0, 255, 0], &[]), [0x72, 0, 0, 0, 0, 0, 0, 0]);
    descriptor_sense(&one, false);
    assert_eq!(refused(&two, &[0; 6], &[]), MODE_PARAMETERS_CHANGED);
    let response = run(&two, &cdb_16(0x88, 0, 1 << 40, 1), &[]);
    assert_eq!(sense(&response), OUT_OF_RANGE);
    assert_eq!(
        (response.sense[0], &response.sense[3..7]),
        (0x70, &[0; 4][..]),
        "too large: not VALID"
    );
}

#[test]
fn who_changes_nothing_disturbs_nobody() {
    let device = shared(memory(64));
    let (one, two) = (attach(&device, "one"), attach(&device, "two"));
    for code in [0x01, 0x02, 0x08, 0x0A, 0x1C] {
        let page = pages(&one, CURRENT, code, 0);
        assert_eq!(set(&one, &page).status, Status::Good, "{code:02x}");
    }
    assert_eq!(set(&one, &pages(&one, CURRENT, 0x0A, 1)).status, Status::Good);
    assert_eq!(set(&one, &pages(&one, CURRENT, 0x3F, 0xFF)).status, Status::Good);
    assert_eq!(run(&two, &[0; 6], &[]).status, Status::Good);
    assert_eq!(run(&one, &[0; 6], &[]).status, Status::Good);
}

#[test]
fn a_reset_brings_the_defaults_back() {
    let device = shared(memory(64));
    let one = attach(&device, "one");
    descriptor_sense(&one, true);
    write_protect(&one, true);
    one.reset_lun(LUN0).expect("there is such a LUN");
    assert_eq!(refused(&one, &[0; 6], &[]), (0x6, 0x29, 0x03), "in fixed format again");
    good(&one, &write_10(0, 1), &[8; 512]);
    assert_eq!(pages(&one, CURRENT, 0x0A, 0), pages(&one, DEFAULT, 0x0A, 0));
}

#[test]
fn lists_that_are_refused() {
    let disk = nexus(memory(64));
    let control = pages(&disk, CURRENT, 0x0A, 0);
    let header = [0_u8; 4];
    let list = |parts: &[&[u8]]| parts.concat();
    let mut tst = control.clone();
    tst[2] |= 0x20;
    let mut short_page = control.clone();
    short_page[1] = 9;
    let mut with_subpage = pages(&disk, CURRENT, 0x0A, 1);
    with_subpage[1] = 2;
    let descriptor = |blocks: u32, block_bytes: u32| [blocks.to_be_bytes(), block_bytes.to_be_bytes()].concat();
    // Parameter list, sense, field pointer.
    type Case = (&'static str, Vec<u8>, (u8, u8, u8), [u8; 3]);
    let table: [Case; 13] = [
        ("half a header", vec![0, 0, 0], LIST_LENGTH, [0; 3]),
        ("half a page", list(&[&header, &control[..7]]), LIST_LENGTH, [0; 3]),
        ("a page code alone", list(&[&header, &[0x0A]]), LIST_LENGTH, [0; 3]),
        ("half a descriptor", vec![0, 0, 0, 8, 0, 0, 0], LIST_LENGTH, [0; 3]),
        (
            "a medium type",
            list(&[&[0, 1, 0, 0], &control]),
            PARAMETER_FIELD,
            [0x8F, 0, 1],
        ),
        (
            "a descriptor of 4 bytes",
            vec![0, 0, 0, 4, 0, 0, 0, 0],
            PARAMETER_FIELD,
            [0x8F, 0, 3],
        ),
        (
            "another size",
            list(&[&[0, 0, 0, 8], &descriptor(63, 512)]),
            PARAMETER_FIELD,
            [0x8F, 0, 4],
        ),
        (
            "other blocks",
            list(&[&[0, 0, 0, 8], &descriptor(64, 4096)]),
            PARAMETER_FIELD,
            [0x8F, 0, 8],
        ),
        (
            "no such page",
            list(&[&header, &[0x1A, 10], &[0; 10]]),
            PARAMETER_FIELD,
            [0x8D, 0, 4],
        ),
        (
            "no such subpage",
            list(&[&header, &with_subpage]),
            PARAMETER_FIELD,
            [0x8D, 0, 4],
        ),
        (
            "another length",
            list(&[&header, &short_page]),
            PARAMETER_FIELD,
            [0x8F, 0, 5],
        ),
        (
            "a bit that is fixed",
            list(&[&header, &tst]),
            PARAMETER_FIELD,
            [0x8D, 0, 6],
        ),
        (
            "the same behind a good page",
            list(&[&header, &with(&disk, 0x0A, 2, 0x04, true), &tst]),
            PARAMETER_FIELD,
            [0x8D, 0, 18],
        ),
    ];
    for (what, list, expected, pointer) in table {
        let response = run(&disk, &select_6(&list), &list);
        assert_eq!(sense(&response), expected, "{what}");
        assert_eq!(response.sense[15..18], pointer, "{what}");
    }
    assert_eq!(pages(&disk, CURRENT, 0x0A, 0), control, "and nothing of it took effect");
}

#[test]
fn bits_of_the_cdb() {
    let disk = nexus(memory(64));
    let list = [&[0; 4][..], &pages(&disk, CURRENT, 0x0A, 0)].concat();
    let length = list.len() as u8;
    for (what, cdb, pointer) in [
        ("SP", [0x15, 0x11, 0, 0, length, 0], [0xC8, 0, 1]),
        ("no PF", [0x15, 0x00, 0, 0, length, 0], [0xCC, 0, 1]),
        ("RTD", [0x15, 0x12, 0, 0, length, 0], [0xC9, 0, 1]),
    ] {
        let response = run(&disk, &cdb, &list);
        assert_eq!(sense(&response), INVALID_FIELD, "{what}");
        assert_eq!(response.sense[15..18], pointer, "{what}");
    }
    assert_eq!(
        good(&disk, &[0x15, 0, 0, 0, 0, 0], &[]),
        NOTHING,
        "no list: nothing to do"
    );
    assert_eq!(good(&disk, &cdb_10(0x55, 0, 0, 0), &[]), NOTHING);
}

#[test]
fn ten_bytes_and_long_descriptors() {
    let disk = nexus(memory(64));
    let page = with(&disk, 0x0A, 2, 0x04, true);
    let mut header = [0; 8];
    header[4] = 0x01;
    header[7] = 16;
    let mut descriptor = [0; 16];
    descriptor[7] = 64;
    descriptor[12..].copy_from_slice(&512_u32.to_be_bytes());
    let list = [&header[..], &descriptor, &page].concat();
    good(&disk, &cdb_10(0x55, 0x10, 0, list.len() as u16), &list);
    assert_eq!(pages(&disk, CURRENT, 0x0A, 0)[2], 0x04);
    descriptor[0] = 1;
    let list = [&header[..], &descriptor, &page].concat();
    let response = run(&disk, &cdb_10(0x55, 0x10, 0, list.len() as u16), &list);
    assert_eq!(
        response.sense,
        [0x72, 5, 0x26, 0, 0, 0, 0, 8, 0x02, 0x06, 0, 0, 0x8F, 0, 8, 0]
    );
}

#[test]
fn a_reserved_unit_keeps_its_modes() {
    let device = shared(memory(64));
    let (one, two) = (attach(&device, "one"), attach(&device, "two"));
    good(&one, &[0x16, 0, 0, 0, 0, 0], &[]);
    let list = [&[0; 4][..], &with(&one, 0x0A, 2, 0x04, true)].concat();
    assert_eq!(run(&two, &select_6(&list), &list).status, Status::ReservationConflict);
    assert_eq!(
        run(&two, &[0x1A, 0, 0x3F, 0, 255, 0], &[]).status,
        Status::ReservationConflict
    );
}

#[test]
fn who_may_only_read_changes_nothing_for_others() {
    let options = LogicalUnitOptions {
        shared: true,
        medium: MediumOptions {
            removable: true,
            ..MediumOptions::default()
        },
        ..LogicalUnitOptions::default()
    };
    let device = device([(0, LogicalUnit::with_options(memory(64), identity(), options))]);
    let owner = attach(&device, "owner");
    let reader = device
        .attach_to(
            TargetPort::new("iqn.2026-11.example:disks", 1),
            "iqn.2026-11.example:reader",
            "iqn.2026-11.example:reader,i,0x00023d000001",
            &|_| Some(Mode::ReadOnly),
        )
        .unwrap();
    // SWP.
    let list = [0, 0, 0, 0, 0x0A, 10, 0, 0x10, 0x08, 0x40, 0, 0, 0, 0, 0, 0];
    for (cdb, data) in [
        (&[0x15, 0x10, 0, 0, 16, 0][..], &list[..]),
        (&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 16, 0], &list),
        (&[0x1B, 0, 0, 0, 0x02, 0], &[]),
        (&[0x1B, 0, 0, 0, 0x03, 0], &[]),
    ] {
        assert_eq!(refused(&reader, cdb, data), (0x7, 0x27, 0x00), "{cdb:02x?}");
    }
    good(&owner, &write_10(0, 1), &[1; 512]);
    good(&reader, &[0x1B, 0, 0, 0, 0x01, 0], &[]);
    good(&owner, &[0x15, 0x10, 0, 0, 16, 0], &list);
}
