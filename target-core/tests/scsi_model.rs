//! Random commands over every kind of medium, against a plain vector of bytes; and random bytes as commands.

mod scsi_support;

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use scsi_support::*;
use target_core::lun::{Allocation, FileMedium, FileOptions, Medium, MemoryMedium, MemoryOptions, WriteCache};
use target_core::scsi::{Nexus, Prepared, Status};

const SIZE_BYTES: u64 = 512 * 1024;
const MAX_RUN_BYTES: u64 = 96 * 1024;

/// So many cases, and as many times more as `PROPTEST_CASES` is above its default of 256: some cost far more than
/// others.
fn config(cases: u32) -> ProptestConfig {
    let scale = ProptestConfig::default().cases.div_ceil(256);
    ProptestConfig {
        cases: cases.saturating_mul(scale),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write { cdb_bytes: u8, fua: bool, byte: u8 },
    Read { cdb_bytes: u8, fua: bool },
    WriteAtomic { byte: u8 },
    WriteAndVerify { byte: u8 },
    OrWrite { byte: u8 },
    CompareAndWrite { equal: bool, byte: u8 },
    Verify { equal: bool },
    Unmap,
    WriteSame { long: bool, unmap: bool, byte: u8 },
    Zero { unmap: bool },
    Flush,
}

fn op() -> impl Strategy<Value = Op> {
    let length = prop_oneof![Just(6_u8), Just(10), Just(12), Just(16)];
    prop_oneof![
        4 => (length.clone(), any::<bool>(), any::<u8>()).prop_map(|(cdb_bytes, fua, byte)| Op::Write { cdb_bytes, fua, byte }),
        4 => (length, any::<bool>()).prop_map(|(cdb_bytes, fua)| Op::Read { cdb_bytes, fua }),
        1 => any::<u8>().prop_map(|byte| Op::WriteAtomic { byte }),
        1 => any::<u8>().prop_map(|byte| Op::WriteAndVerify { byte }),
        1 => any::<u8>().prop_map(|byte| Op::OrWrite { byte }),
        1 => (any::<bool>(), any::<u8>()).prop_map(|(equal, byte)| Op::CompareAndWrite { equal, byte }),
        1 => any::<bool>().prop_map(|equal| Op::Verify { equal }),
        2 => Just(Op::Unmap),
        2 => (any::<bool>(), any::<bool>(), prop_oneof![Just(0_u8), any::<u8>()])
            .prop_map(|(long, unmap, byte)| Op::WriteSame { long, unmap, byte }),
        2 => any::<bool>().prop_map(|unmap| Op::Zero { unmap }),
        1 => Just(Op::Flush),
    ]
}

/// An operation with where it starts and how long it is, in parts of 65536.
fn ops() -> impl Strategy<Value = Vec<(Op, u16, u16)>> {
    vec((op(), any::<u16>(), any::<u16>()), 1..24)
}

struct Model {
    nexus: Nexus,
    block_bytes: u64,
    atomic: bool,
    thin: bool,
    bytes: Vec<u8>,
    seed: u8,
}

impl Model {
    fn new(medium: Arc<dyn Medium>) -> Self {
        let properties = medium.properties();
        let block_bytes = u64::from(properties.block_bytes);
        Self {
            atomic: properties.atomic.is_some(),
            thin: properties.provisioning.is_some(),
            nexus: nexus(medium),
            block_bytes,
            bytes: vec![0; SIZE_BYTES as usize],
            seed: 0,
        }
    }

    /// Data no two blocks of which are alike.
    fn data(&mut self, byte: u8, length_bytes: usize) -> Vec<u8> {
        self.seed = self.seed.wrapping_add(17);
        (0..length_bytes)
            .map(|i| byte ^ self.seed ^ (i / 512) as u8 ^ (i % 251) as u8)
            .collect()
    }

    fn apply(&mut self, op: &Op, start: u16, length: u16) {
        let total_blocks = SIZE_BYTES / self.block_bytes;
        let lba = u64::from(start) * total_blocks / 65536;
        let blocks = (u64::from(length) * (MAX_RUN_BYTES / self.block_bytes) / 65536).min(total_blocks - lba);
        let (lba_32, blocks_32) = (lba as u32, blocks as u32);
        let from = (lba * self.block_bytes) as usize;
        let to = from + (blocks * self.block_bytes) as usize;
        match *op {
            Op::Write { cdb_bytes, fua, byte } => {
                let data = self.data(byte, to - from);
                let flags = u8::from(fua) << 3;
                match cdb_bytes {
                    6 if blocks == 0 => return,
                    6 => good(
                        &self.nexus,
                        &[0x0A, 0, (lba >> 8) as u8, lba as u8, blocks as u8, 0],
                        &data,
                    ),
                    10 => good(&self.nexus, &cdb_10(0x2A, flags, lba_32, blocks as u16), &data),
                    12 => good(&self.nexus, &cdb_12(0xAA, flags, lba_32, blocks_32), &data),
                    _ => good(&self.nexus, &cdb_16(0x8A, flags, lba, blocks_32), &data),
                };
                self.bytes[from..to].copy_from_slice(&data);
            }
            Op::Read { cdb_bytes, fua } => {
                let flags = u8::from(fua) << 3;
                let data = match cdb_bytes {
                    6 if blocks == 0 => return,
                    6 => good(
                        &self.nexus,
                        &[0x08, 0, (lba >> 8) as u8, lba as u8, blocks as u8, 0],
                        &[],
                    ),
                    10 => good(&self.nexus, &cdb_10(0x28, flags, lba_32, blocks as u16), &[]),
                    12 => good(&self.nexus, &cdb_12(0xA8, flags, lba_32, blocks_32), &[]),
                    _ => good(&self.nexus, &cdb_16(0x88, flags, lba, blocks_32), &[]),
                };
                assert!(data == self.bytes[from..to], "read {blocks} at {lba}");
            }
            Op::WriteAtomic { byte } => {
                let data = self.data(byte, to - from);
                let mut cdb = cdb_16(0x9C, 0, lba, 0);
                cdb[12..14].copy_from_slice(&(blocks as u16).to_be_bytes());
                if self.atomic {
                    good(&self.nexus, &cdb, &data);
                    self.bytes[from..to].copy_from_slice(&data);
                } else {
                    assert_eq!(refused(&self.nexus, &cdb, &data), INVALID_OPCODE);
                }
            }
            Op::WriteAndVerify { byte } => {
                let data = self.data(byte, to - from);
                good(&self.nexus, &cdb_16(0x8E, 0x02, lba, blocks_32), &data);
                self.bytes[from..to].copy_from_slice(&data);
            }
            Op::OrWrite { byte } => {
                let data = self.data(byte, to - from);
                good(&self.nexus, &cdb_16(0x8B, 0, lba, blocks_32), &data);
                self.bytes[from..to]
                    .iter_mut()
                    .zip(&data)
                    .for_each(|(old, new)| *old |= new);
            }
            Op::CompareAndWrite { equal, byte } => {
                let mut old = self.bytes[from..to].to_vec();
                let new = self.data(byte, to - from);
                let mut cdb = cdb_16(0x89, 0, lba, 0);
                cdb[13] = blocks as u8;
                let differs = match old.last_mut() {
                    Some(last) if !equal => {
                        *last ^= 1;
                        true
                    }
                    _ => false,
                };
                let response = run(&self.nexus, &cdb, &[old, new.clone()].concat());
                if differs {
                    assert_eq!(sense(&response), (0xE, 0x1D, 0x00));
                } else {
                    assert_eq!(response.status, Status::Good);
                    self.bytes[from..to].copy_from_slice(&new);
                }
            }
            Op::Verify { equal } => {
                let mut data = self.bytes[from..to].to_vec();
                let differs = match data.first_mut() {
                    Some(first) if !equal => {
                        *first ^= 0x80;
                        true
                    }
                    _ => false,
                };
                let response = run(&self.nexus, &cdb_16(0x8F, 0x02, lba, blocks_32), &data);
                assert_eq!(
                    response.status,
                    if differs { Status::CheckCondition } else { Status::Good }
                );
            }
            Op::Unmap => {
                let half = blocks_32 / 2;
                let list = unmap_list(&[(lba, half), (lba + u64::from(half), blocks_32 - half)]);
                if !self.thin {
                    assert_eq!(refused(&self.nexus, &unmap_cdb(&list), &list), INVALID_OPCODE);
                    return;
                }
                good(&self.nexus, &unmap_cdb(&list), &list);
                self.bytes[from..to].fill(0);
            }
            Op::WriteSame { long, unmap, byte } => {
                let block = if byte == 0 {
                    vec![0; self.block_bytes as usize]
                } else {
                    self.data(byte, self.block_bytes as usize)
                };
                // A thick medium would refuse to deallocate.
                let flags = u8::from(unmap && self.thin) << 3;
                // WRITE SAME (10) does not unmap where unmapped blocks are said to read as zeroes.
                if long || flags != 0 {
                    good(&self.nexus, &cdb_16(0x93, flags, lba, blocks_32), &block);
                } else {
                    good(&self.nexus, &cdb_10(0x41, flags, lba_32, blocks as u16), &block);
                }
                let to = if blocks == 0 { SIZE_BYTES as usize } else { to };
                self.bytes[from..to]
                    .chunks_exact_mut(block.len())
                    .for_each(|chunk| chunk.copy_from_slice(&block));
            }
            Op::Zero { unmap } => {
                good(
                    &self.nexus,
                    &cdb_16(0x93, 0x01 | u8::from(unmap && self.thin) << 3, lba, blocks_32),
                    &[],
                );
                let to = if blocks == 0 { SIZE_BYTES as usize } else { to };
                self.bytes[from..to].fill(0);
            }
            Op::Flush => drop(good(&self.nexus, &cdb_10(0x35, 0, 0, 0), &[])),
        }
    }

    fn check_all(&self) {
        let data = good(
            &self.nexus,
            &cdb_16(0x88, 0, 0, (SIZE_BYTES / self.block_bytes) as u32),
            &[],
        );
        assert!(data == self.bytes, "the whole medium");
        // What GET LBA STATUS calls deallocated reads as zeroes, and its runs join up.
        let mut lba = 0;
        while lba * self.block_bytes < SIZE_BYTES {
            let status = good(&self.nexus, &cdb_16(0x9E, 0x12, lba, 4096), &[]);
            assert!(status.len() > 8);
            for run in status[8..].chunks_exact(16) {
                assert_eq!(run[..8], lba.to_be_bytes());
                let blocks = u64::from(u32::from_be_bytes(run[8..12].try_into().unwrap()));
                let bytes = (lba * self.block_bytes) as usize..((lba + blocks) * self.block_bytes) as usize;
                assert!(run[12] == 0 || self.bytes[bytes].iter().all(|&byte| byte == 0));
                lba += blocks;
            }
        }
        assert_eq!(lba * self.block_bytes, SIZE_BYTES);
    }
}

fn check(medium: Arc<dyn Medium>, ops: &[(Op, u16, u16)]) {
    let mut model = Model::new(medium);
    for (op, start, length) in ops {
        model.apply(op, *start, *length);
    }
    model.check_all();
}

fn check_file_as(folder: tempfile::TempDir, options: FileOptions, ops: &[(Op, u16, u16)]) {
    let path = folder.path().join("lun");
    check(Arc::new(FileMedium::create(&path, SIZE_BYTES, options).unwrap()), ops);
}

fn check_file(folder: tempfile::TempDir, block_bytes: u32, write_cache: WriteCache, ops: &[(Op, u16, u16)]) {
    let options = FileOptions {
        block_bytes,
        write_cache,
        ..FileOptions::default()
    };
    check_file_as(folder, options, ops);
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn memory_medium(ops in ops(), large in any::<bool>()) {
        let block_bytes = if large { 4096 } else { 512 };
        check(Arc::new(MemoryMedium::new(SIZE_BYTES, block_bytes).unwrap()), &ops);
    }

    #[test]
    fn thick_memory(ops in ops(), large in any::<bool>()) {
        let options = MemoryOptions {
            block_bytes: if large { 4096 } else { 512 },
            allocation: Allocation::Thick,
            ..MemoryOptions::default()
        };
        check(Arc::new(MemoryMedium::with_options(SIZE_BYTES, options).unwrap()), &ops);
    }

    #[test]
    fn thick_file(ops in ops(), large in any::<bool>(), on_tmpfs in any::<bool>()) {
        let options = FileOptions {
            block_bytes: if large { 4096 } else { 512 },
            allocation: Allocation::Thick,
            ..FileOptions::default()
        };
        let folder = if on_tmpfs { tempfile::tempdir_in("/dev/shm") } else { tempfile::tempdir() };
        check_file_as(folder.unwrap(), options, &ops);
    }

    #[test]
    fn file_on_tmpfs(ops in ops(), large in any::<bool>()) {
        let block_bytes = if large { 4096 } else { 512 };
        check_file(tempfile::tempdir_in("/dev/shm").unwrap(), block_bytes, WriteCache::WriteBack, &ops);
    }

    #[test]
    fn file_on_disk_write_back(ops in ops(), large in any::<bool>()) {
        let block_bytes = if large { 4096 } else { 512 };
        check_file(tempfile::tempdir().unwrap(), block_bytes, WriteCache::WriteBack, &ops);
    }
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn file_on_disk_write_through(ops in ops()) {
        check_file(tempfile::tempdir().unwrap(), 512, WriteCache::WriteThrough, &ops);
    }
}

/// Operation codes that there are come up often enough to get past the first check.
fn cdb() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![
        any::<u8>(),
        proptest::sample::select(
            &[
                0x00, 0x03, 0x08, 0x0A, 0x12, 0x16, 0x17, 0x1A, 0x1B, 0x25, 0x28, 0x2A, 0x2E, 0x2F, 0x35, 0x41, 0x42,
                0x5A, 0x5E, 0x5F, 0x88, 0x89, 0x8A, 0x83, 0x84, 0x8B, 0x8E, 0x8F, 0x91, 0x93, 0x9C, 0x9E, 0xA0, 0xA3,
                0xA8, 0xAA, 0xB7,
            ][..]
        ),
    ];
    let rest = vec(prop_oneof![3 => Just(0_u8), 1 => 0_u8..32, 1 => any::<u8>()], 0..20);
    (opcode, rest).prop_map(|(opcode, mut rest)| {
        rest.insert(0, opcode);
        rest
    })
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn any_bytes_get_an_answer(
        cdbs in vec((cdb(), vec(any::<u8>(), 0..600), any::<bool>()), 1..12),
        lun in prop_oneof![Just([0; 8]), Just([0x40, 7, 0, 0, 0, 0, 0, 0]), any::<[u8; 8]>()],
    ) {
        let unit = |medium| target_core::scsi::LogicalUnit::new(medium, identity());
        let device = device([(0, unit(memory(64))), (7, unit(memory(1 << 40)))]);
        let nexus = device.attach(INITIATOR, PORT).unwrap();
        for (cdb, data, reset) in cdbs {
            if reset {
                nexus.reset_lun(lun);
            }
            let response = match nexus.prepare(lun, &cdb) {
                Prepared::Done(response) => response,
                Prepared::Run(execution) => {
                    prop_assert!(execution.data_out_bytes() <= target_core::scsi::MAX_TRANSFER_BYTES);
                    prop_assert!(execution.data_in_bytes() <= target_core::scsi::MAX_TRANSFER_BYTES);
                    let promised = execution.data_in_bytes();
                    let response = finish(&execution, &data);
                    prop_assert!(response.data_in.len() as u64 <= promised);
                    response
                }
            };
            prop_assert_eq!(response.status == Status::CheckCondition, response.sense.len() == 18);
            prop_assert!(response.data_in.is_empty() || response.status == Status::Good);
        }
    }
}
