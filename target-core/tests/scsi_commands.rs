//! Every command, by its bytes: CDB and data in, status, sense and data out.

mod scsi_support;

use scsi_support::*;
use target_core::lun::{Allocation, MemoryMedium, MemoryOptions};
use target_core::scsi::{LogicalUnit, LogicalUnitOptions, MAX_TRANSFER_BYTES, Prepared, Status};

use std::sync::Arc;

const BLOCKS: u64 = 2048;

fn disk() -> target_core::scsi::Nexus {
    nexus(memory(BLOCKS))
}

#[test]
fn block_limits_are_what_is_enforced() {
    let disk = disk();
    let limits = good(&disk, &[0x12, 1, 0xB0, 0, 255, 0], &[]);
    assert_eq!(limits.len(), 64);
    assert_eq!(limits[5], 0xFF, "COMPARE AND WRITE takes all its CDB can say");
    assert_eq!(limits[8..12], (MAX_TRANSFER_BYTES as u32 / 512).to_be_bytes());
    assert_eq!(limits[20..24], [0xFF; 4], "UNMAP of any length");
    assert_eq!(limits[24..28], 256_u32.to_be_bytes());
    assert_eq!(limits[36..44], u64::from(u32::MAX).to_be_bytes(), "zeroes take no time");

    let large = nexus(memory(1 << 30));
    let transfer_blocks = MAX_TRANSFER_BYTES as u32 / 512;
    assert_eq!(
        execution(&large, &cdb_16(0x8A, 0, 0, transfer_blocks)).data_out_bytes(),
        MAX_TRANSFER_BYTES
    );
    assert_eq!(
        execution(&large, &cdb_16(0x88, 0, 0, transfer_blocks)).data_in_bytes(),
        MAX_TRANSFER_BYTES
    );
    assert_eq!(
        refused(&large, &cdb_16(0x8A, 0, 0, transfer_blocks + 1), &[]),
        INVALID_FIELD
    );
    assert_eq!(
        refused(&large, &cdb_12(0xA8, 0, 0, transfer_blocks + 1), &[]),
        INVALID_FIELD
    );
    assert_eq!(
        refused(&large, &cdb_16(0x8F, 0x02, 0, transfer_blocks + 1), &[]),
        INVALID_FIELD
    );
    execution(&large, &cdb_16(0x93, 0x09, 0, 1 << 30));
    let thick = MemoryOptions {
        allocation: Allocation::Thick,
        ..MemoryOptions::default()
    };
    let thick = nexus(Arc::new(MemoryMedium::with_options(1 << 40, thick).unwrap()));
    let limits = good(&thick, &[0x12, 1, 0xB0, 0, 255, 0], &[]);
    let write_same_blocks = (256 << 20) / 512_u64;
    assert_eq!(limits[36..44], write_same_blocks.to_be_bytes(), "zeroes are written");
    assert_eq!(limits[20..32], [0; 12], "nothing is deallocated");
    execution(&thick, &cdb_16(0x93, 0x01, 0, write_same_blocks as u32));
    assert_eq!(
        refused(&thick, &cdb_16(0x93, 0x01, 0, write_same_blocks as u32 + 1), &[]),
        INVALID_FIELD
    );
}

#[test]
fn read_capacity() {
    let disk = disk();
    assert_eq!(good(&disk, &cdb_10(0x25, 0, 0, 0), &[]), [0, 0, 0x07, 0xFF, 0, 0, 2, 0]);
    assert_eq!(refused(&disk, &cdb_10(0x25, 0, 1, 0), &[]), INVALID_FIELD);
    let long = good(&disk, &cdb_16(0x9E, 0x10, 0, 32), &[]);
    assert_eq!(long.len(), 32);
    assert_eq!(long[..16], [0, 0, 0, 0, 0, 0, 0x07, 0xFF, 0, 0, 2, 0, 0, 3, 0xC0, 0]);
    assert_eq!(good(&disk, &cdb_16(0x9E, 0x10, 0, 12), &[]), long[..12]);
    // More blocks than fit: the initiator is to ask with READ CAPACITY (16).
    let huge = nexus(memory(1 << 40));
    assert_eq!(good(&huge, &cdb_10(0x25, 0, 0, 0), &[])[..4], [0xFF; 4]);
    assert_eq!(
        good(&huge, &cdb_16(0x9E, 0x10, 0, 32), &[])[..8],
        ((1_u64 << 40) - 1).to_be_bytes()
    );
}

#[test]
fn reads_and_writes_of_every_length() {
    let disk = disk();
    let first = [0x11; 512];
    let second = [0x22; 1024];
    assert_eq!(good(&disk, &[0x0A, 0, 0, 1, 1, 0], &first), NOTHING);
    assert_eq!(good(&disk, &write_10(2, 2), &second), NOTHING);
    assert_eq!(good(&disk, &[0x08, 0, 0, 1, 1, 0], &[]), first);
    assert_eq!(good(&disk, &read_10(2, 2), &[]), second);
    assert_eq!(good(&disk, &cdb_12(0xA8, 0, 2, 2), &[]), second);
    assert_eq!(good(&disk, &cdb_16(0x88, 0, 2, 2), &[]), second);
    assert_eq!(good(&disk, &cdb_12(0xAA, 0, 4, 1), &first), NOTHING);
    assert_eq!(good(&disk, &cdb_16(0x8A, 0, 5, 1), &first), NOTHING);
    assert_eq!(good(&disk, &read_10(4, 2), &[]), [0x11; 1024]);
    // DPO and FUA are fine; zero blocks are none, but 256 in a CDB of six bytes.
    assert_eq!(good(&disk, &cdb_10(0x28, 0x18, 1, 1), &[]), first);
    assert_eq!(good(&disk, &read_10(0, 0), &[]), NOTHING);
    assert_eq!(good(&disk, &[0x08, 0, 0, 0, 0, 0], &[]).len(), 256 * 512);
    assert_eq!(execution(&disk, &[0x0A, 0, 0, 0, 0, 0]).data_out_bytes(), 256 * 512);
}

#[test]
fn a_write_cut_short_stores_the_whole_blocks() {
    let disk = disk();
    good(&disk, &write_10(0, 2), &[0xAA; 1024]);
    assert_eq!(good(&disk, &write_10(0, 2), &[0xBB; 900]), NOTHING);
    assert_eq!(good(&disk, &write_10(1, 1), &[0xBB; 200]), NOTHING);
    assert_eq!(good(&disk, &write_10(1, 1), &[]), NOTHING);
    let data = good(&disk, &read_10(0, 2), &[]);
    assert_eq!(data[..512], [0xBB; 512]);
    assert_eq!(data[512..], [0xAA; 512]);
    // And more than was asked for is not stored.
    good(&disk, &write_10(0, 1), &[0xCC; 1024]);
    assert_eq!(good(&disk, &read_10(1, 1), &[]), [0xAA; 512]);
}

#[test]
fn addresses_beyond_the_end() {
    let disk = disk();
    for opcode in [0x28, 0x2A, 0x2E, 0x2F, 0x34, 0x35] {
        assert_eq!(
            refused(&disk, &cdb_10(opcode, 0, 2047, 2), &[]),
            OUT_OF_RANGE,
            "{opcode:02x}"
        );
        assert_eq!(
            refused(&disk, &cdb_10(opcode, 0, 2048, 0), &[]),
            OUT_OF_RANGE,
            "{opcode:02x}"
        );
        assert_eq!(
            refused(&disk, &cdb_10(opcode, 0, u32::MAX, 1), &[]),
            OUT_OF_RANGE,
            "{opcode:02x}"
        );
    }
    for opcode in [0xA8, 0xAA, 0xAE, 0xAF] {
        assert_eq!(
            refused(&disk, &cdb_12(opcode, 0, 2047, 2), &[]),
            OUT_OF_RANGE,
            "{opcode:02x}"
        );
        assert_eq!(
            refused(&disk, &cdb_12(opcode, 0, 0, u32::MAX), &[]),
            OUT_OF_RANGE,
            "{opcode:02x}"
        );
    }
    for opcode in [0x88, 0x8A, 0x8B, 0x8E, 0x8F, 0x90, 0x91, 0x93] {
        assert_eq!(
            refused(&disk, &cdb_16(opcode, 0, 2047, 2), &[]),
            OUT_OF_RANGE,
            "{opcode:02x}"
        );
        assert_eq!(
            refused(&disk, &cdb_16(opcode, 0, u64::MAX, 1), &[]),
            OUT_OF_RANGE,
            "{opcode:02x}"
        );
        assert_eq!(
            refused(&disk, &cdb_16(opcode, 0, u64::MAX, 0), &[]),
            OUT_OF_RANGE,
            "{opcode:02x}"
        );
    }
    assert_eq!(refused(&disk, &cdb_16(0x9E, 0x12, 2048, 24), &[]), OUT_OF_RANGE);
    assert_eq!(refused(&disk, &[0x08, 0x1F, 0xFF, 0xFF, 1, 0], &[]), OUT_OF_RANGE);
    // INFORMATION names the first block that is not there.
    let response = run(&disk, &read_10(2047, 2), &[]);
    assert_eq!(response.sense[0], 0xF0);
    assert_eq!(response.sense[3..7], 2048_u32.to_be_bytes());
}

#[test]
fn protection_information_is_refused() {
    let disk = disk();
    for opcode in [0x28, 0x2A, 0x2E, 0x2F, 0x41] {
        let response = run(&disk, &cdb_10(opcode, 0x20, 0, 1), &[]);
        assert_eq!(sense(&response), INVALID_FIELD, "{opcode:02x}");
        assert_eq!(response.sense[15..18], [0xCF, 0, 1], "pointing at byte 1, bit 7");
    }
    for opcode in [0x88, 0x89, 0x8A, 0x8B, 0x8E, 0x8F, 0x93] {
        assert_eq!(
            refused(&disk, &cdb_16(opcode, 0x80, 0, 0), &[]),
            INVALID_FIELD,
            "{opcode:02x}"
        );
    }
}

#[test]
fn reserved_bits_naca_and_short_cdbs() {
    let disk = disk();
    let response = run(&disk, &[0x00, 0, 0, 0x40, 0, 0], &[]);
    assert_eq!(sense(&response), INVALID_FIELD);
    assert_eq!(response.sense[15..18], [0xCE, 0, 3], "pointing at byte 3, bit 6");
    let response = run(&disk, &[0x00, 0, 0, 0, 0, 0x04], &[]);
    assert_eq!(response.sense[15..18], [0xCA, 0, 5], "NACA");
    assert_eq!(refused(&disk, &[0x28, 0, 0], &[]), INVALID_FIELD);
    assert_eq!(refused(&disk, &[], &[]), INVALID_OPCODE);
    assert_eq!(refused(&disk, &[0x7F; 32], &[]), INVALID_OPCODE);
    assert_eq!(refused(&disk, &[0xFF; 16], &[]), INVALID_OPCODE);
    assert_eq!(
        refused(&disk, &cdb_16(0x9E, 0x11, 0, 0), &[]),
        INVALID_FIELD,
        "unknown service action"
    );
    // A transport pads CDBs to 16 bytes; what lies beyond the CDB does not matter.
    let mut padded = [0xFF; 16];
    padded[..6].copy_from_slice(&[0; 6]);
    assert_eq!(good(&disk, &padded, &[]), NOTHING);
}

#[test]
fn verify() {
    let disk = disk();
    let mut data = vec![0x5A; 1024];
    good(&disk, &write_10(0, 2), &data);
    assert_eq!(execution(&disk, &cdb_10(0x2F, 0x00, 0, 2)).data_out_bytes(), 0);
    good(&disk, &cdb_10(0x2F, 0x10, 0, 2), &[]);
    good(&disk, &cdb_10(0x2F, 0x02, 0, 2), &data);
    good(&disk, &cdb_12(0xAF, 0x02, 0, 2), &data);
    good(&disk, &cdb_16(0x8F, 0x02, 0, 2), &data);
    good(&disk, &cdb_10(0x2F, 0x02, 0, 0), &[]);
    assert_eq!(execution(&disk, &cdb_10(0x2F, 0x06, 0, 2)).data_out_bytes(), 512);
    good(&disk, &cdb_10(0x2F, 0x06, 0, 2), &data[..512]);
    assert_eq!(refused(&disk, &cdb_10(0x2F, 0x04, 0, 2), &[]), INVALID_FIELD);
    data[700] ^= 1;
    for cdb in [
        &cdb_10(0x2F, 0x02, 0, 2)[..],
        &cdb_12(0xAF, 0x02, 0, 2),
        &cdb_16(0x8F, 0x02, 0, 2),
    ] {
        let response = run(&disk, cdb, &data);
        assert_eq!(sense(&response), (0xE, 0x1D, 0x00));
        assert_eq!(response.sense[3..7], 700_u32.to_be_bytes());
    }
    assert_eq!(
        refused(&disk, &cdb_10(0x2F, 0x06, 0, 2), &data[512..]),
        (0xE, 0x1D, 0x00)
    );
    good(&disk, &write_10(0, 2), &data);
    let response = run(&disk, &cdb_10(0x2F, 0x06, 0, 2), &data[..512]);
    assert_eq!(sense(&response), (0xE, 0x1D, 0x00));
    assert_eq!(response.sense[3..7], 700_u32.to_be_bytes());
}

#[test]
fn write_and_verify() {
    let disk = disk();
    for (at, cdb) in [
        &cdb_10(0x2E, 0, 7, 1)[..],
        &cdb_12(0xAE, 0x12, 7, 1),
        &cdb_16(0x8E, 0x02, 7, 1),
    ]
    .iter()
    .enumerate()
    {
        let data = vec![at as u8 + 1; 512];
        good(&disk, cdb, &data);
        assert_eq!(good(&disk, &read_10(7, 1), &[]), data);
    }
}

#[test]
fn compare_and_write() {
    let disk = disk();
    let cdb = |blocks| {
        let mut cdb = cdb_16(0x89, 0, 3, 0);
        cdb[13] = blocks;
        cdb
    };
    good(&disk, &write_10(3, 1), &[1; 512]);
    let swap = |old: u8, new: u8| [[old; 512], [new; 512]].concat();
    let ready = execution(&disk, &cdb(1));
    assert_eq!(ready.data_out_bytes(), 1024);
    assert_eq!(ready.check_data_out(1024), Ok(()));
    assert_eq!(sense(&ready.check_data_out(2048).unwrap_err()), INVALID_FIELD);
    assert_eq!(sense(&ready.check_data_out(512).unwrap_err()), INVALID_FIELD);
    assert_eq!(refused(&disk, &cdb(1), &[1; 512]), INVALID_FIELD);
    good(&disk, &cdb(1), &swap(1, 2));
    assert_eq!(good(&disk, &read_10(3, 1), &[]), [2; 512]);
    let response = run(&disk, &cdb(1), &swap(1, 3));
    assert_eq!(sense(&response), (0xE, 0x1D, 0x00));
    assert_eq!(
        response.sense[..7],
        [0xF0, 0, 0xE, 0, 0, 0, 0],
        "the first byte differs"
    );
    assert_eq!(good(&disk, &read_10(3, 1), &[]), [2; 512]);
    good(&disk, &cdb(0), &[]);
    assert!(
        execution(&disk, &cdb(0)).check_data_out(2 * 256 * 512).is_err(),
        "256 blocks do not fit the field"
    );
}

#[test]
fn or_write() {
    let disk = disk();
    good(&disk, &write_10(9, 1), &[0b0101; 512]);
    good(&disk, &cdb_16(0x8B, 0x08, 9, 1), &[0b0011; 512]);
    assert_eq!(good(&disk, &read_10(9, 1), &[]), [0b0111; 512]);
}

#[test]
fn luns_there_are_and_luns_there_are_not() {
    let unit = || LogicalUnit::new(memory(64), identity());
    let device = device([(1, unit()), (300, unit())]);
    let nexus = device.attach(INITIATOR, PORT).unwrap();
    let report = [0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0];
    let list = [
        [0, 0, 0, 16, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 0],
        [0x41, 0x2C, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    for lun in [LUN0, [0, 1, 0, 0, 0, 0, 0, 0], [0x41, 0x2C, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(run_at(&nexus, lun, &report, &[]).data_in, list);
    }
    assert_eq!(
        run_at(&nexus, LUN0, &[0xA0, 0, 1, 0, 0, 0, 0, 0, 0, 64, 0, 0], &[]).data_in,
        [0; 8]
    );
    assert_eq!(
        sense(&run_at(&nexus, LUN0, &[0xA0, 0, 9, 0, 0, 0, 0, 0, 0, 64, 0, 0], &[])),
        INVALID_FIELD
    );
    assert_eq!(
        sense(&run_at(&nexus, LUN0, &[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 0, 0], &[])),
        INVALID_FIELD
    );

    let tur = [0; 6];
    assert_eq!(run_at(&nexus, [0, 1, 0, 0, 0, 0, 0, 0], &tur, &[]).status, Status::Good);
    assert_eq!(
        run_at(&nexus, [0x40, 1, 0, 0, 0, 0, 0, 0], &tur, &[]).status,
        Status::Good
    );
    for absent in [
        LUN0,
        [0, 44, 0, 0, 0, 0, 0, 0],
        [1, 44, 0, 0, 0, 0, 0, 0],
        [0xC1, 1, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 0, 0, 0, 0],
    ] {
        assert!(!nexus.lun_exists(absent));
        for cdb in [&tur[..], &read_10(0, 1), &[0x16, 0, 0, 0, 0, 0], &[0xFF; 16], &[]] {
            assert_eq!(sense(&run_at(&nexus, absent, cdb, &[])), (0x5, 0x25, 0x00));
        }
        let inquiry = run_at(&nexus, absent, &[0x12, 0, 0, 0, 36, 0], &[]);
        assert_eq!(
            (inquiry.status, inquiry.data_in[0], inquiry.data_in.len()),
            (Status::Good, 0x7F, 36)
        );
        let request_sense = run_at(&nexus, absent, &[0x03, 0, 0, 0, 18, 0], &[]);
        assert_eq!(
            (
                request_sense.status,
                request_sense.data_in[2],
                request_sense.data_in[12]
            ),
            (Status::Good, 5, 0x25)
        );
    }
}

#[test]
fn request_sense_and_unit_attentions() {
    let unit = LogicalUnit::shared(memory(64), identity());
    let device = device([(0, Arc::clone(&unit))]);
    let one = device.attach(INITIATOR, PORT).unwrap();
    let two = device
        .attach("iqn.2026-11.example:other", "iqn.2026-11.example:other,i,0x1")
        .unwrap();
    // Nothing is pending after a login.
    assert_eq!(good(&two, &[0; 6], &[]), NOTHING);
    assert_eq!(good(&one, &[0x03, 0, 0, 0, 255, 0], &[])[..3], [0x70, 0, 0]);

    // A reset is heard by every nexus, once.
    one.reset_lun(LUN0);
    assert_eq!(refused(&two, &read_10(0, 1), &[]), (0x6, 0x29, 0x03));
    good(&two, &read_10(0, 1), &[]);
    // INQUIRY and REPORT LUNS leave it pending, REQUEST SENSE hands it over.
    good(&one, &[0x12, 0, 0, 0, 36, 0], &[]);
    assert_eq!(
        good(&one, &[0x03, 1, 0, 0, 255, 0], &[]),
        [0x72, 6, 0x29, 0x03, 0, 0, 0, 0]
    );
    good(&one, &[0; 6], &[]);

    one.reset_target();
    unit.resize(32 * 512).unwrap();
    // Each in its turn, and before anything is said about an unknown command.
    assert_eq!(refused(&two, &[0xFF; 6], &[]), (0x6, 0x29, 0x02));
    assert_eq!(refused(&two, &[0; 6], &[]), (0x6, 0x2A, 0x09));
    assert_eq!(good(&two, &cdb_10(0x25, 0, 0, 0), &[])[..4], [0, 0, 0, 31]);
}

#[test]
fn start_stop_and_what_cannot_be_removed() {
    let disk = disk();
    good(&disk, &[0x1B, 0, 0, 0, 0x01, 0], &[]);
    good(&disk, &[0x1B, 1, 0, 0, 0x00, 0], &[]);
    good(&disk, &read_10(0, 1), &[]);
    assert_eq!(refused(&disk, &[0x1B, 0, 0, 0, 0x02, 0], &[]), INVALID_FIELD);
    assert_eq!(refused(&disk, &[0x1B, 0, 0, 0, 0x30, 0], &[]), INVALID_FIELD);
    good(&disk, &[0x1E, 0, 0, 0, 1, 0], &[]);
    good(&disk, &cdb_10(0x35, 0x02, 0, 0), &[]);
    good(&disk, &cdb_16(0x91, 0, 0, 2048), &[]);
    good(&disk, &cdb_10(0x34, 0x02, 0, 8), &[]);
    assert_eq!(good(&disk, &[0x37, 0, 0x18, 0, 0, 0, 0, 0, 8, 0], &[]), [0, 0x18, 0, 0]);
    assert_eq!(good(&disk, &cdb_12(0xB7, 0x08, 0, 8), &[]), [0, 0x08, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn unmap_and_lba_status() {
    // Chunks of memory are 128 blocks.
    let disk = disk();
    good(&disk, &cdb_16(0x8A, 0, 0, 1024), &[0xEE; 1024 * 512]);
    let list = unmap_list(&[(128, 256), (0, 0), (640, 1)]);
    good(&disk, &unmap_cdb(&list), &list);
    let data = good(&disk, &cdb_16(0x88, 0, 0, 1024), &[]);
    for (block, data) in data.chunks_exact(512).enumerate() {
        let zero = (128..384).contains(&block) || block == 640;
        assert_eq!(data, if zero { [0; 512] } else { [0xEE; 512] }, "block {block}");
    }
    let status = good(&disk, &cdb_16(0x9E, 0x12, 64, 8 + 3 * 16), &[]);
    let mut expected = (4 + 3 * 16_u32).to_be_bytes().to_vec();
    expected.extend_from_slice(&[0; 4]);
    for (lba, blocks, state) in [(64_u64, 64_u32, 0), (128, 256, 1), (384, 640, 0)] {
        expected.extend_from_slice(&lba.to_be_bytes());
        expected.extend_from_slice(&blocks.to_be_bytes());
        expected.extend_from_slice(&[state, 0, 0, 0]);
    }
    assert_eq!(status, expected);
    // At least one descriptor is counted, however little room there is for it.
    assert_eq!(good(&disk, &cdb_16(0x9E, 0x12, 64, 4), &[]), 20_u32.to_be_bytes());
}

#[test]
fn unmap_lists_that_are_wrong_change_nothing() {
    let disk = disk();
    good(&disk, &write_10(0, 1), &[1; 512]);
    let bad = unmap_list(&[(0, 1), (2048, 1)]);
    assert_eq!(refused(&disk, &unmap_cdb(&bad), &bad), OUT_OF_RANGE);
    let overflowing = unmap_list(&[(0, 1), (u64::MAX, 2)]);
    assert_eq!(refused(&disk, &unmap_cdb(&overflowing), &overflowing), OUT_OF_RANGE);
    let many = unmap_list(&[(0, 1); 257]);
    assert_eq!(refused(&disk, &unmap_cdb(&many), &many), (0x5, 0x26, 0x00));
    let list = unmap_list(&[(0, 1)]);
    assert_eq!(refused(&disk, &cdb_10(0x42, 0, 0, 7), &list[..7]), (0x5, 0x1A, 0x00));
    assert_eq!(
        refused(&disk, &cdb_10(0x42, 0, 0, 8), &list[..8]),
        (0x5, 0x1A, 0x00),
        "descriptors are missing"
    );
    assert_eq!(
        refused(&disk, &unmap_cdb(&list), &list[..20]),
        (0x5, 0x1A, 0x00),
        "data was cut short"
    );
    assert_eq!(refused(&disk, &cdb_10(0x42, 1, 0, 24), &list), INVALID_FIELD, "ANCHOR");
    good(&disk, &cdb_10(0x42, 0, 0, 0), &[]);
    assert_eq!(good(&disk, &read_10(0, 1), &[]), [1; 512]);
}

#[test]
fn write_same() {
    let disk = disk();
    let block: Vec<u8> = (0..512).map(|i| i as u8).collect();
    good(&disk, &cdb_10(0x41, 0, 8, 4), &block);
    assert_eq!(good(&disk, &read_10(8, 4), &[]), block.repeat(4));
    assert_eq!(good(&disk, &read_10(12, 1), &[]), [0; 512]);
    // Longer than the piece that is written at once.
    good(&disk, &cdb_16(0x93, 0, 0, 2048), &block);
    assert_eq!(good(&disk, &cdb_16(0x88, 0, 0, 2048), &[]), block.repeat(2048));
    // NDOB brings no data, UNMAP gives the space back, no number means up to the end.
    assert_eq!(execution(&disk, &cdb_16(0x93, 0x01, 0, 8)).data_out_bytes(), 0);
    good(&disk, &cdb_16(0x93, 0x01, 0, 1), &[]);
    assert_eq!(good(&disk, &read_10(0, 1), &[]), [0; 512]);
    good(&disk, &cdb_16(0x93, 0x08, 1024, 0), &[0; 512]);
    let status = good(&disk, &cdb_16(0x9E, 0x12, 1024, 24), &[]);
    assert_eq!(status[8..], [0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
    // Without UNMAP zeroes stay allocated.
    good(&disk, &cdb_10(0x41, 0, 1024, 0), &[0; 512]);
    assert_eq!(good(&disk, &cdb_16(0x9E, 0x12, 1024, 24), &[])[20], 0);
    assert_eq!(
        refused(&disk, &cdb_10(0x41, 0x10, 0, 1), &block),
        INVALID_FIELD,
        "ANCHOR"
    );
    assert_eq!(
        refused(&disk, &cdb_10(0x41, 0x01, 0, 1), &block),
        INVALID_FIELD,
        "no NDOB in ten bytes"
    );
    assert_eq!(
        refused(&disk, &cdb_16(0x93, 0x02, 0, 1), &block),
        INVALID_FIELD,
        "LBDATA"
    );
    assert_eq!(refused(&disk, &cdb_10(0x41, 0, 0, 1), &block[..256]), (0x5, 0x0E, 0x03));
    assert_eq!(refused(&disk, &cdb_10(0x41, 0, 0, 1), &[]), (0x5, 0x0E, 0x03));
    assert!(execution(&disk, &cdb_10(0x41, 0, 0, 1)).check_data_out(1024).is_err());
}

#[test]
fn read_only_units() {
    let options = LogicalUnitOptions {
        read_only: true,
        shared: false,
        ..LogicalUnitOptions::default()
    };
    let unit = LogicalUnit::with_options(memory(BLOCKS), identity(), options);
    let disk = device([(0, unit)]).attach(INITIATOR, PORT).unwrap();
    let list = unmap_list(&[(0, 1)]);
    let writes: [(&[u8], &[u8]); 9] = [
        (&[0x0A, 0, 0, 0, 1, 0], &[0; 512]),
        (&write_10(0, 1), &[0; 512]),
        (&cdb_12(0xAA, 0, 0, 1), &[0; 512]),
        (&cdb_16(0x8A, 0, 0, 1), &[0; 512]),
        (&cdb_16(0x89, 0, 0, 1), &[0; 1024]),
        (&cdb_16(0x8B, 0, 0, 1), &[0; 512]),
        (&cdb_10(0x2E, 0, 0, 1), &[0; 512]),
        (&cdb_10(0x41, 0, 0, 1), &[0; 512]),
        (&unmap_cdb(&list), &list),
    ];
    for (cdb, data) in writes {
        assert_eq!(refused(&disk, cdb, data), (0x7, 0x27, 0x00), "{cdb:02x?}");
    }
    assert_eq!(
        good(&disk, &[0x1A, 0x08, 0x08, 0, 255, 0], &[])[2],
        0x90,
        "WP and DPOFUA"
    );
    good(&disk, &read_10(0, 1), &[]);
}

#[test]
fn what_needs_no_medium_is_done_at_once() {
    let disk = disk();
    for cdb in [&[0; 6][..], &[0x12, 0, 0, 0, 36, 0], &cdb_10(0x25, 0, 0, 0)] {
        assert!(matches!(disk.prepare(LUN0, cdb), Prepared::Done(_)), "{cdb:02x?}");
    }
}
