//! One CDB for each command, with nothing in it that could be refused.

use crate::scsi_support::{cdb_10, cdb_12, cdb_16, good, unmap_cdb, unmap_list};
use crate::units::Kind;

/// A CDB and its data.
pub type Sent = (Vec<u8>, Vec<u8>);

/// A command that ends well, after those in `before`.
pub struct Sample {
    pub before: Vec<Sent>,
    pub cdb: Vec<u8>,
    pub data: Vec<u8>,
}

/// The key that samples register.
const KEY: u64 = 0x1122_3344_5566_7788;
/// WRITE EXCLUSIVE, the type of the reservations that samples make (SPC-5 table 77).
const WRITE_EXCLUSIVE: u8 = 0x01;

/// START STOP UNIT with LOEJ (SBC-4 5.31): the medium out, and in again.
pub const EJECT: [u8; 6] = [0x1B, 0, 0, 0, 0x02, 0];

pub const LOAD: [u8; 6] = [0x1B, 0, 0, 0, 0x03, 0];

/// WRITE EXCLUSIVE, REGISTRANTS ONLY (SPC-5 table 77).
pub const REGISTRANTS_ONLY: u8 = 0x05;

/// SANITIZE, OVERWRITE with IMMED, and a pattern of four bytes (SBC-4 5.30).
pub const OVERWRITE: ([u8; 10], [u8; 8]) = ([0x48, 0x81, 0, 0, 0, 0, 0, 0, 8, 0], [0x01, 0, 0, 4, 1, 2, 3, 4]);

/// The control mode page with its default values (SPC-5 7.5.9): QUEUE ALGORITHM MODIFIER 1.
const CONTROL_PAGE: [u8; 12] = [0x0A, 0x0A, 0, 0x10, 0, 0x40, 0, 0, 0, 0, 0, 0];

/// The command of this operation code and service action for a LUN of such blocks.
#[rustfmt::skip]
pub fn sample(opcode: u8, service_action: Option<u8>, block_bytes: u32) -> Option<Sample> {
    let block = vec![0x5A; block_bytes as usize];
    let (cdb, data): (Vec<u8>, Vec<u8>) = match (opcode, service_action) {
        (0x00 | 0x16 | 0x17 | 0x1E, None) => (vec![opcode, 0, 0, 0, 0, 0], vec![]),
        (0x03 | 0x12, None) => (vec![opcode, 0, 0, 0, 252, 0], vec![]),
        (0x08, None) => (vec![opcode, 0, 0, 0, 1, 0], vec![]),
        (0x0A, None) => (vec![opcode, 0, 0, 0, 1, 0], block),
        (0x15, None) => (vec![opcode, 0x10, 0, 0, 16, 0], [&[0; 4], &CONTROL_PAGE[..]].concat()),
        (0x1A, None) => (vec![opcode, 0, 0x3F, 0, 252, 0], vec![]),
        (0x1B, None) => (vec![opcode, 0, 0, 0, 0x01, 0], vec![]),
        (0x1C, None) => (vec![opcode, 0x01, 0, 0, 252, 0], vec![]),
        (0x1D, None) => (vec![opcode, 0x04, 0, 0, 0, 0], vec![]),
        (0x25, None) => (vec![opcode, 0, 0, 0, 0, 0, 0, 0, 0, 0], vec![]),
        (0x28 | 0x2F | 0x34 | 0x35, None) => (cdb_10(opcode, 0, 0, 1).into(), vec![]),
        (0x2A | 0x2E | 0x41, None) => (cdb_10(opcode, 0, 0, 1).into(), block),
        (0x37, None) => (vec![opcode, 0, 0, 0, 0, 0, 0, 0, 252, 0], vec![]),
        (0x42, None) => (unmap_cdb(&unmap_list(&[(0, 8)])).into(), unmap_list(&[(0, 8)])),
        (0x48, Some(0x01)) => (vec![opcode, 0x01, 0, 0, 0, 0, 0, 0, 8, 0], vec![0x01, 0, 0, 4, 1, 2, 3, 4]),
        (0x48, Some(action @ (0x02 | 0x1F))) => (vec![opcode, action, 0, 0, 0, 0, 0, 0, 0, 0], vec![]),
        (0x4C, None) => (vec![opcode, 0x02, 0x40, 0, 0, 0, 0, 0, 0, 0], vec![]),
        (0x4D, None) => (vec![opcode, 0, 0x40, 0, 0, 0, 0, 0, 252, 0], vec![]),
        (0x55, None) => (vec![opcode, 0x10, 0, 0, 0, 0, 0, 0, 20, 0], [&[0; 8], &CONTROL_PAGE[..]].concat()),
        (0x5A, None) => (vec![opcode, 0, 0x3F, 0, 0, 0, 0, 0, 252, 0], vec![]),
        (0x5E, Some(action @ 0x00..=0x03)) => (vec![opcode, action, 0, 0, 0, 0, 0, 0, 252, 0], vec![]),
        (0x5F, Some(action)) => return persistent_out(action),
        (0x83, Some(0x00)) => copy(&copy_list()),
        (0x84, Some(action @ (0x00 | 0x03))) => {
            let mut cdb = cdb_16(opcode, action, 0, 252);
            cdb[2] = LIST_ID;
            let before = if action == 0x00 { vec![copy(&copy_list())] } else { vec![] };
            return Some(Sample {
                before,
                cdb: cdb.into(),
                data: vec![],
            });
        }
        (0x88 | 0x8F | 0x90 | 0x91, None) => (cdb_16(opcode, 0, 0, 1).into(), vec![]),
        (0x8A | 0x8B | 0x8E | 0x93, None) => (cdb_16(opcode, 0, 0, 1).into(), block),
        // A fresh medium is zeroes.
        (0x89, None) => {
            let mut cdb = cdb_16(opcode, 0, 0, 0);
            cdb[13] = 1;
            (cdb.into(), [vec![0; block.len()], block].concat())
        }
        (0x9C, None) => {
            let mut cdb = cdb_16(opcode, 0, 0, 0);
            cdb[13] = 1;
            (cdb.into(), block)
        }
        (0x9E, Some(action @ (0x10 | 0x12))) => (cdb_16(opcode, action, 0, 252).into(), vec![]),
        (0xA0, None) => (cdb_12(opcode, 0, 0, 252).into(), vec![]),
        (0xA3, Some(action @ (0x0A | 0x0C | 0x0D))) => (cdb_12(opcode, action, 0, 4096).into(), vec![]),
        (0xA8 | 0xAF, None) => (cdb_12(opcode, 0, 0, 1).into(), vec![]),
        (0xAA | 0xAE, None) => (cdb_12(opcode, 0, 0, 1).into(), block),
        (0xB7, None) => (cdb_12(opcode, 0, 0, 252).into(), vec![]),
        _ => return None,
    };
    Some(Sample { before: Vec::new(), cdb, data })
}

/// LIST IDENTIFIER of the samples' copies.
const LIST_ID: u8 = 7;

/// EXTENDED COPY (LID1) with this parameter list (SPC-4 6.4).
pub fn copy(list: &[u8]) -> Sent {
    (cdb_16(0x83, 0, 0, list.len() as u32).into(), list.into())
}

/// The list of [`copy`]: block 1 of a LUN to its block 0. One CSCD descriptor at 16, one segment descriptor at 48.
pub fn copy_list() -> Vec<u8> {
    // The NAA designator of VPD page 83.
    let page = good(&Kind::CopyOffload.nexus(), &[0x12, 0x01, 0x83, 0, 255, 0], &[]);
    assert_eq!(page[4..8], [0x01, 0x03, 0x00, 0x08], "the first designator");
    let mut list = vec![0; 16 + 32 + 28];
    list[0] = LIST_ID;
    (list[3], list[11]) = (32, 28);
    list[16] = 0xE4;
    list[20..32].copy_from_slice(&page[4..16]);
    list[44..48].copy_from_slice(&512_u32.to_be_bytes());
    (list[48], list[51], list[59], list[67]) = (0x02, 24, 1, 1);
    list
}

fn persistent_out(action: u8) -> Option<Sample> {
    let before = match action {
        0x00 | 0x06 => vec![],
        0x01..=0x05 => vec![register()],
        0x07 => vec![register(), reserve(WRITE_EXCLUSIVE)],
        _ => return None,
    };
    let (cdb, data) = match action {
        0x00 | 0x06 => reserve_out(action, 0, 0, KEY),
        // PREEMPT of our own registration (SPC-5 5.13.11.2.4).
        0x04 | 0x05 => reserve_out(action, WRITE_EXCLUSIVE, KEY, KEY),
        0x07 => register_and_move(),
        _ => reserve_out(action, WRITE_EXCLUSIVE, KEY, 0),
    };
    Some(Sample { before, cdb, data })
}

/// REGISTER AND MOVE (SPC-5 6.15.4) to a port of somebody else.
fn register_and_move() -> Sent {
    /// Of the one port group that there is, and the protocol identifier of iSCSI with a port's name.
    const RELATIVE_PORT: u8 = 1;
    const ISCSI_PORT: u8 = 0x45;
    let mut name = b"iqn.2026-11.example:heir,i,0x00023d000003".to_vec();
    name.resize((name.len() + 1).next_multiple_of(4), 0);
    let id = [&[ISCSI_PORT, 0, 0, name.len() as u8][..], &name].concat();
    let (mut cdb, mut data) = reserve_out(0x07, 0, KEY, KEY);
    data[19] = RELATIVE_PORT;
    // What is a flag in the basic list is part of a length here.
    data[20..24].copy_from_slice(&(id.len() as u32).to_be_bytes());
    data.extend_from_slice(&id);
    cdb[8] = data.len() as u8;
    (cdb, data)
}

/// PERSISTENT RESERVE OUT, REGISTER of the samples' key.
pub fn register() -> Sent {
    reserve_out(0x00, 0, 0, KEY)
}

/// PERSISTENT RESERVE OUT, RESERVE by who has registered.
pub fn reserve(kind: u8) -> Sent {
    reserve_out(0x01, kind, KEY, 0)
}

fn reserve_out(action: u8, kind: u8, key: u64, action_key: u64) -> Sent {
    let mut data = vec![0; 24];
    data[..8].copy_from_slice(&key.to_be_bytes());
    data[8..16].copy_from_slice(&action_key.to_be_bytes());
    (vec![0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0], data)
}
