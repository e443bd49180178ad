//! What the SCSI tests share: a device with one LUN, and commands sent the way a server sends them.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

pub mod cached;
pub mod gate;
pub mod lax;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use target_core::lun::{Medium, MemoryMedium, Wait};
use target_core::scsi::{Device, Execution, Identity, LogicalUnit, Nexus, Prepared, Response, Status};

pub const LUN0: [u8; 8] = [0; 8];
pub const INITIATOR: &str = "iqn.2026-11.example:home";
pub const PORT: &str = "iqn.2026-11.example:home,i,0x00023d000001";

pub fn identity() -> Identity {
    Identity {
        vendor: "FARLUN".to_owned(),
        product: "DISK".to_owned(),
        revision: "0001".to_owned(),
        serial: "serial-0001".to_owned(),
    }
}

pub fn memory(blocks: u64) -> Arc<MemoryMedium> {
    Arc::new(MemoryMedium::new(blocks * 512, 512).expect("a memory medium"))
}

pub fn device(units: impl IntoIterator<Item = (u16, Arc<LogicalUnit>)>) -> Arc<Device> {
    Device::new(units.into_iter().collect::<BTreeMap<_, _>>())
}

pub fn nexus(medium: Arc<dyn Medium>) -> Nexus {
    device([(0, LogicalUnit::new(medium, identity()))])
        .attach(INITIATOR, PORT)
        .expect("nobody else is there")
}

/// Prepares and runs a command at LUN 0, first without waiting, as a server does.
pub fn run(nexus: &Nexus, cdb: &[u8], data: &[u8]) -> Response {
    run_at(nexus, LUN0, cdb, data)
}

pub fn run_at(nexus: &Nexus, lun: [u8; 8], cdb: &[u8], data: &[u8]) -> Response {
    match nexus.prepare(lun, cdb) {
        Prepared::Done(response) => response,
        Prepared::Run(execution) => finish(&execution, data),
    }
}

pub fn finish(execution: &Execution, data: &[u8]) -> Response {
    let cancel = AtomicBool::new(false);
    execution
        .run(data, Wait::Never, &cancel)
        .or_else(|_| execution.run(data, Wait::Allowed, &cancel))
        .expect("nothing blocks that may wait")
}

pub fn execution(nexus: &Nexus, cdb: &[u8]) -> Execution {
    match nexus.prepare(LUN0, cdb) {
        Prepared::Run(execution) => execution,
        Prepared::Done(response) => panic!("{cdb:02x?} was over at once: {response:02x?}"),
    }
}

/// No data.
pub const NOTHING: [u8; 0] = [];

/// The data of a command that must end well.
pub fn good(nexus: &Nexus, cdb: &[u8], data: &[u8]) -> Vec<u8> {
    let response = run(nexus, cdb, data);
    assert_eq!(response.status, Status::Good, "{cdb:02x?}: {:02x?}", response.sense);
    assert_eq!(response.sense, [0; 0], "no sense with GOOD");
    response.data_in
}

/// Sense key, additional sense code and qualifier of a command that must end in CHECK CONDITION.
pub fn refused(nexus: &Nexus, cdb: &[u8], data: &[u8]) -> (u8, u8, u8) {
    sense(&run(nexus, cdb, data))
}

pub fn sense(response: &Response) -> (u8, u8, u8) {
    assert_eq!(response.status, Status::CheckCondition, "{response:02x?}");
    assert_eq!(response.sense.len(), 18, "fixed format");
    assert_eq!(response.sense[0] & 0x7F, 0x70, "current error, fixed format");
    assert_eq!(response.data_in, [0; 0], "no data with CHECK CONDITION");
    (response.sense[2] & 0x0F, response.sense[12], response.sense[13])
}

pub const INVALID_OPCODE: (u8, u8, u8) = (0x5, 0x20, 0x00);
pub const INVALID_FIELD: (u8, u8, u8) = (0x5, 0x24, 0x00);
pub const OUT_OF_RANGE: (u8, u8, u8) = (0x5, 0x21, 0x00);

pub fn read_10(lba: u32, blocks: u16) -> [u8; 10] {
    cdb_10(0x28, 0, lba, blocks)
}

pub fn write_10(lba: u32, blocks: u16) -> [u8; 10] {
    cdb_10(0x2A, 0, lba, blocks)
}

pub fn cdb_10(opcode: u8, flags: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[..2].copy_from_slice(&[opcode, flags]);
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

pub fn cdb_12(opcode: u8, flags: u8, lba: u32, blocks: u32) -> [u8; 12] {
    let mut cdb = [0; 12];
    cdb[..2].copy_from_slice(&[opcode, flags]);
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[6..10].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

pub fn cdb_16(opcode: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[..2].copy_from_slice(&[opcode, flags]);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// An UNMAP parameter list.
pub fn unmap_list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let descriptor_bytes = (16 * ranges.len()) as u16;
    let mut list = (descriptor_bytes + 6).to_be_bytes().to_vec();
    list.extend_from_slice(&descriptor_bytes.to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    for (lba, blocks) in ranges {
        list.extend_from_slice(&lba.to_be_bytes());
        list.extend_from_slice(&blocks.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
    }
    list
}

pub fn unmap_cdb(list: &[u8]) -> [u8; 10] {
    cdb_10(0x42, 0, 0, list.len() as u16)
}
