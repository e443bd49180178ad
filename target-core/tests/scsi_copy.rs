//! EXTENDED COPY: what is copied, what is refused, and that nobody gets by copying at what is not theirs.

mod scsi_support;

use std::sync::Arc;

use scsi_support::gate::Gate;
use scsi_support::lax::Lax;
use scsi_support::*;
use target_core::lun::{Medium, MemoryMedium, Wait};
use target_core::scsi::{
    Device, Identity, LogicalUnit, LogicalUnitOptions, MediumOptions, Mode, Nexus, Response, Status, TargetPort,
};

const LUN1: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];
const ABORTED: (u8, u8, u8) = (0xA, 0x00, 0x00);
const UNREACHABLE: (u8, u8, u8) = (0xA, 0x08, 0x04);
const NOT_REACHABLE: (u8, u8, u8) = (0xA, 0x0D, 0x02);
const LIST_LENGTH: (u8, u8, u8) = (5, 0x1A, 0);
const INVALID_PARAMETER: (u8, u8, u8) = (5, 0x26, 0);
const BLOCKS: u64 = 8192;

fn unit(serial: &str, block_bytes: u32, copy_offload: bool) -> Arc<LogicalUnit> {
    let medium = MemoryMedium::new(BLOCKS * u64::from(block_bytes), block_bytes).unwrap();
    unit_of(Arc::new(medium), serial, copy_offload)
}

fn unit_of(medium: Arc<dyn Medium>, serial: &str, copy_offload: bool) -> Arc<LogicalUnit> {
    let identity = Identity {
        serial: serial.to_owned(),
        ..identity()
    };
    let options = LogicalUnitOptions {
        shared: true,
        medium: MediumOptions {
            copy_offload,
            ..MediumOptions::default()
        },
        ..LogicalUnitOptions::default()
    };
    LogicalUnit::with_options(medium, identity, options)
}

fn pair() -> Arc<Device> {
    device([(0, unit("zero", 512, true)), (1, unit("one", 512, true))])
}

fn attach(device: &Arc<Device>) -> Nexus {
    device.attach(INITIATOR, PORT).unwrap()
}

/// An identification descriptor with the NAA designator that VPD page 83 has.
fn target(nexus: &Nexus, lun: [u8; 8], block_bytes: u32) -> Vec<u8> {
    let page = run_at(nexus, lun, &[0x12, 1, 0x83, 0, 255, 0], &[]).data_in;
    assert_eq!(page[4..8], [0x01, 0x03, 0, 8]);
    let mut descriptor = vec![0; 32];
    descriptor[0] = 0xE4;
    descriptor[4..16].copy_from_slice(&page[4..16]);
    descriptor[28..].copy_from_slice(&block_bytes.to_be_bytes());
    descriptor
}

fn segment(source: u16, target: u16, blocks: u16, from: u64, to: u64) -> Vec<u8> {
    let mut descriptor = vec![0x02, 0, 0, 0x18];
    descriptor.extend_from_slice(&source.to_be_bytes());
    descriptor.extend_from_slice(&target.to_be_bytes());
    descriptor.extend_from_slice(&[0, 0]);
    descriptor.extend_from_slice(&blocks.to_be_bytes());
    descriptor.extend_from_slice(&from.to_be_bytes());
    descriptor.extend_from_slice(&to.to_be_bytes());
    descriptor
}

fn list(targets: &[Vec<u8>], segments: &[Vec<u8>]) -> Vec<u8> {
    let (targets, segments) = (targets.concat(), segments.concat());
    let mut list = vec![0; 16];
    list[0] = 7;
    list[2..4].copy_from_slice(&(targets.len() as u16).to_be_bytes());
    list[8..12].copy_from_slice(&(segments.len() as u32).to_be_bytes());
    [list, targets, segments].concat()
}

fn cdb(list: &[u8]) -> [u8; 16] {
    cdb_16(0x83, 0, 0, list.len() as u32)
}

fn copy(nexus: &Nexus, list: &[u8]) -> Response {
    run(nexus, &cdb(list), list)
}

fn copied(nexus: &Nexus, list: &[u8]) {
    let response = copy(nexus, list);
    assert_eq!(response.status, Status::Good, "{:02x?}", response.sense);
}

fn numbered(blocks: u32) -> Vec<u8> {
    (0..blocks)
        .flat_map(|block| [block as u8 ^ (block >> 8) as u8; 512])
        .collect()
}

#[test]
fn blocks_are_copied_from_unit_to_unit() {
    let nexus = attach(&pair());
    let data = numbered(5000);
    good(&nexus, &cdb_16(0x8A, 0, 100, 5000), &data);
    let both = [target(&nexus, LUN0, 512), target(&nexus, LUN1, 512)];
    copied(
        &nexus,
        &list(&both, &[segment(0, 1, 5000, 100, 3000), segment(1, 1, 1, 3001, 0)]),
    );
    assert_eq!(run_at(&nexus, LUN1, &cdb_16(0x88, 0, 3000, 5000), &[]).data_in, data);
    assert_eq!(run_at(&nexus, LUN1, &read_10(0, 1), &[]).data_in, [1; 512]);
    // Its result is there for this nexus under its number.
    let status = |list_id| {
        let mut cdb = cdb_16(0x84, 0, 0, 12);
        cdb[2] = list_id;
        run(&nexus, &cdb, &[])
    };
    assert_eq!(sense(&status(8)), INVALID_FIELD);
    let mut expected = vec![0, 0, 0, 8, 1, 0, 2, 0];
    expected.extend_from_slice(&(5001 * 512_u32).to_be_bytes());
    assert_eq!(status(7).data_in, expected);
    let nothing = list(&[], &[]);
    copied(&nexus, &nothing);
    good(&nexus, &cdb(&[]), &[]);
}

#[test]
fn within_a_unit_ranges_may_overlap() {
    let nexus = attach(&pair());
    let only = [target(&nexus, LUN0, 512)];
    let data = numbered(6000);
    for (from, to) in [(0, 700), (700, 0), (5, 5)] {
        good(&nexus, &cdb_16(0x8A, 0, from, 6000), &data);
        copied(&nexus, &list(&only, &[segment(0, 0, 6000, from, to)]));
        assert!(good(&nexus, &cdb_16(0x88, 0, to, 6000), &[]) == data, "{from} to {to}");
    }
}

#[test]
fn blocks_of_other_sizes_are_counted_as_the_segment_says() {
    let device = device([(0, unit("small", 512, true)), (1, unit("large", 4096, true))]);
    let nexus = attach(&device);
    good(&nexus, &write_10(8, 16), &numbered(16));
    let both = [target(&nexus, LUN0, 512), target(&nexus, LUN1, 4096)];
    copied(&nexus, &list(&both, &[segment(0, 1, 16, 8, 5)]));
    assert_eq!(run_at(&nexus, LUN1, &read_10(5, 2), &[]).data_in, numbered(16));
    // DC: two of the target's.
    let mut by_target = segment(0, 1, 2, 8, 9);
    by_target[1] = 0x02;
    copied(&nexus, &list(&both, &[by_target]));
    assert_eq!(run_at(&nexus, LUN1, &read_10(9, 2), &[]).data_in, numbered(16));
    assert_eq!(
        sense(&copy(&nexus, &list(&both, &[segment(0, 1, 15, 8, 5)]))),
        ABORTED,
        "no whole blocks"
    );
    let wrong = [target(&nexus, LUN0, 512), target(&nexus, LUN1, 512)];
    assert_eq!(sense(&copy(&nexus, &list(&wrong, &[segment(0, 1, 16, 8, 5)]))), ABORTED);
}

#[test]
fn what_is_wrong_with_a_list() {
    let nexus = attach(&pair());
    let ok = || target(&nexus, LUN0, 512);
    let changed = |at: usize, value: u8| {
        let mut descriptor = ok();
        descriptor[at] = value;
        descriptor
    };
    let one = || segment(0, 0, 8, 0, 100);
    let whole = list(&[ok()], &[one()]);
    for length in [1, 15, 16, 47, 48, 75] {
        assert_eq!(sense(&copy(&nexus, &whole[..length])), LIST_LENGTH, "{length}");
    }
    let parameters = good(&nexus, &cdb_16(0x84, 0x03, 0, 64), &[]);
    assert_eq!(parameters[..4], [0, 0, 0, 42]);
    let max_targets = u16::from_be_bytes([parameters[8], parameters[9]]);
    let max_segments = u16::from_be_bytes([parameters[10], parameters[11]]);
    let many = |targets: u16, segments: u16| {
        let targets: Vec<_> = (0..targets).map(|_| ok()).collect();
        let segments: Vec<_> = (0..segments).map(|_| one()).collect();
        list(&targets, &segments)
    };
    copied(&nexus, &many(max_targets, max_segments));
    assert_eq!(sense(&copy(&nexus, &many(max_targets + 1, 1))), (5, 0x26, 0x06));
    assert_eq!(sense(&copy(&nexus, &many(1, max_segments + 1))), (5, 0x26, 0x08));
    assert_eq!(
        sense(&copy(&nexus, &many(max_targets + 1, max_segments + 1))),
        LIST_LENGTH
    );

    let mut other = one();
    other[0] = 0x00;
    assert_eq!(sense(&copy(&nexus, &list(&[ok()], &[other]))), (5, 0x26, 0x09));
    assert_eq!(
        sense(&copy(&nexus, &list(&[changed(0, 0xE0)], &[one()]))),
        (5, 0x26, 0x07)
    );
    for (at, value) in [(1, 0x01), (5, 0x13), (7, 21)] {
        let response = copy(&nexus, &list(&[changed(at, value)], &[one()]));
        assert_eq!(sense(&response), INVALID_PARAMETER, "{at}: {value:02x}");
    }
    let mut short = one();
    short[3] = 0x17;
    assert_eq!(sense(&copy(&nexus, &list(&[ok()], &[short]))), INVALID_PARAMETER);
    let mut with_inline_data = whole.clone();
    with_inline_data[15] = 1;
    assert_eq!(sense(&copy(&nexus, &with_inline_data)), (5, 0x26, 0x0B));

    // NUL, an index that is none, a name that is nobody's, and blocks beyond the end.
    assert_eq!(
        sense(&copy(&nexus, &list(&[changed(1, 0x20)], &[one()]))),
        NOT_REACHABLE
    );
    assert_eq!(
        sense(&copy(&nexus, &list(&[ok()], &[segment(0, 1, 8, 0, 8)]))),
        UNREACHABLE
    );
    assert_eq!(sense(&copy(&nexus, &list(&[changed(15, 0xEE)], &[one()]))), UNREACHABLE);
    for beyond in [
        segment(0, 0, 8, BLOCKS - 7, 0),
        segment(0, 0, 8, 0, BLOCKS - 7),
        segment(0, 0, 1, u64::MAX, 0),
    ] {
        assert_eq!(sense(&copy(&nexus, &list(&[ok()], &[beyond]))), ABORTED);
    }
}

#[test]
fn nobody_copies_what_is_not_theirs() {
    let device = device([
        (0, unit("zero", 512, true)),
        (1, unit("one", 512, true)),
        (2, unit("two", 512, false)),
    ]);
    let all = attach(&device);
    let zero = target(&all, LUN0, 512);
    let one = target(&all, LUN1, 512);
    let two = target(&all, [0, 2, 0, 0, 0, 0, 0, 0], 512);
    run_at(&all, LUN1, &write_10(0, 1), &[0x55; 512]);
    let limited = |mode: Option<Mode>, name: &str| {
        let port = format!("{name},i,0x1");
        let view = move |lun| if lun == 1 { mode } else { Some(Mode::ReadWrite) };
        device.attach_to(TargetPort::new("", 1), name, &port, &view).unwrap()
    };
    let read_one = list(&[zero.clone(), one.clone()], &[segment(1, 0, 1, 0, 0)]);
    let write_one = list(&[zero.clone(), one.clone()], &[segment(0, 1, 1, 9, 0)]);
    let clean = |nexus: &Nexus| while run(nexus, &[0; 6], &[]).status != Status::Good {};

    let blind = limited(None, "iqn.blind");
    clean(&blind);
    assert_eq!(sense(&copy(&blind, &read_one)), UNREACHABLE);
    assert_eq!(sense(&copy(&blind, &write_one)), UNREACHABLE);
    let reader = limited(Some(Mode::ReadOnly), "iqn.reader");
    clean(&reader);
    assert_eq!(sense(&copy(&reader, &write_one)), NOT_REACHABLE);
    copied(&reader, &read_one);
    assert_eq!(good(&reader, &read_10(0, 1), &[]), [0x55; 512]);

    // A LUN without the option takes no part, not even for who may do everything.
    assert_eq!(
        sense(&copy(&all, &list(&[zero.clone(), two], &[segment(1, 0, 1, 0, 0)]))),
        UNREACHABLE
    );
    // Held by another: neither read nor written.
    let mut reserve = [0; 10];
    reserve[..3].copy_from_slice(&[0x5F, 0x00, 0]);
    reserve[8] = 24;
    let mut parameters = [0; 24];
    parameters[8..16].copy_from_slice(&1_u64.to_be_bytes());
    assert_eq!(run_at(&all, LUN1, &reserve, &parameters).status, Status::Good);
    // Exclusive access.
    reserve[1..3].copy_from_slice(&[0x01, 0x03]);
    parameters[..8].copy_from_slice(&1_u64.to_be_bytes());
    parameters[8..16].fill(0);
    assert_eq!(run_at(&all, LUN1, &reserve, &parameters).status, Status::Good);
    let other = limited(Some(Mode::ReadWrite), "iqn.other");
    clean(&other);
    for list in [&read_one, &write_one] {
        assert_eq!(sense(&copy(&other, list)), NOT_REACHABLE);
    }
    copied(&all, &write_one);
    assert_eq!(run_at(&all, LUN1, &read_10(0, 1), &[]).data_in, [0; 512]);
}

#[test]
fn it_is_off_unless_it_was_asked_for() {
    let nexus = nexus(memory(64));
    for cdb in [cdb_16(0x83, 0, 0, 0), cdb_16(0x84, 0, 0, 12), cdb_16(0x84, 3, 0, 64)] {
        assert_eq!(refused(&nexus, &cdb, &[]), INVALID_OPCODE);
    }
    assert_eq!(refused(&nexus, &[0x12, 1, 0x8F, 0, 255, 0], &[]), INVALID_FIELD);
    assert_eq!(good(&nexus, &[0x12, 0, 0, 0, 96, 0], &[])[5] & 0x08, 0, "3PC");
    assert!(!good(&nexus, &[0x12, 1, 0, 0, 255, 0], &[])[4..].contains(&0x8F));

    let nexus = attach(&pair());
    assert_eq!(good(&nexus, &[0x12, 0, 0, 0, 96, 0], &[])[5] & 0x08, 0x08, "3PC");
    assert!(good(&nexus, &[0x12, 1, 0, 0, 255, 0], &[])[4..].contains(&0x8F));
    let page = good(&nexus, &[0x12, 1, 0x8F, 0, 255, 0], &[]);
    assert_eq!(page.len(), 4 + usize::from(u16::from_be_bytes([page[2], page[3]])));
    let mut rest = &page[4..];
    let mut kinds = Vec::new();
    while !rest.is_empty() {
        kinds.push(u16::from_be_bytes([rest[0], rest[1]]));
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        assert!(length.is_multiple_of(4) && rest.len() >= 4 + length);
        rest = &rest[4 + length..];
    }
    assert_eq!(kinds, [0x0001, 0x0004, 0x0008, 0x000C, 0x8001]);
    // EXTENDED COPY with one service action, RECEIVE COPY RESULTS with two.
    assert_eq!(page[8..16], [7, 0x83, 1, 0, 0x84, 2, 0, 3]);
}

/// What is forbidden in the middle of a copy holds from the next piece on.
#[test]
fn a_unit_that_changes_under_a_copy_is_left_alone() {
    type Change = fn(&LogicalUnit);
    let changes: [(Change, (u8, u8, u8)); 2] = [
        (
            |unit| assert!(unit.set_read_only(true).wait(std::time::Duration::from_secs(5))),
            NOT_REACHABLE,
        ),
        (|unit| unit.resize(1 << 20).unwrap(), ABORTED),
    ];
    for (change, expected) in changes {
        let gate = Gate::new(BLOCKS);
        let to = unit_of(Lax::new(&gate), "one", true);
        let nexus = attach(&device([(0, unit("zero", 512, true)), (1, Arc::clone(&to))]));
        good(&nexus, &cdb_16(0x8A, 0, 0, 6144), &[7; 6144 * 512]);
        let both = [target(&nexus, LUN0, 512), target(&nexus, LUN1, 512)];
        let list = list(&both, &[segment(0, 1, 6144, 0, 0)]);
        gate.shut();
        std::thread::scope(|scope| {
            let copy = scope.spawn(|| copy(&nexus, &list));
            gate.wait_for(1);
            let change = scope.spawn(|| change(&to));
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(!change.is_finished(), "the piece that has begun is waited for");
            gate.open();
            change.join().unwrap();
            assert_eq!(sense(&copy.join().unwrap()), expected);
        });
        let mut beyond = Vec::new();
        gate.read(1 << 20, 1 << 20, &mut beyond, Wait::Allowed).unwrap();
        assert!(beyond.iter().all(|&byte| byte == 0), "nothing is written any more");
    }
}
