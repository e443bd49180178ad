//! PDUs as bytes, right or wrong: written by the figures of RFC 7143 §11 and not by the codec under test.

/// A PDU whose every byte can be set.
#[derive(Clone)]
pub struct Pdu {
    bhs: [u8; 48],
    ahs: Vec<u8>,
    data: Vec<u8>,
}

impl Pdu {
    /// Byte 0 is the I bit and the opcode, byte 1 the flags.
    pub fn new(opcode: u8, flags: u8) -> Self {
        let mut bhs = [0; 48];
        (bhs[0], bhs[1]) = (opcode, flags);
        Self {
            bhs,
            ahs: Vec::new(),
            data: Vec::new(),
        }
    }

    pub fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.bhs[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn u8(self, at: usize, value: u8) -> Self {
        self.put(at, &[value])
    }

    pub fn u16(self, at: usize, value: u16) -> Self {
        self.put(at, &value.to_be_bytes())
    }

    pub fn u32(self, at: usize, value: u32) -> Self {
        self.put(at, &value.to_be_bytes())
    }

    /// Adds a data segment and announces its length.
    pub fn data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.data = data.into();
        let bytes = self.data.len() as u32;
        self.announce(bytes)
    }

    /// Announces a length, whatever is sent: DataSegmentLength has three bytes.
    pub fn announce(self, bytes: u32) -> Self {
        self.put(5, &bytes.to_be_bytes()[1..])
    }

    /// Adds header segments and announces their length.
    pub fn ahs(mut self, ahs: &[u8]) -> Self {
        self.ahs = ahs.to_vec();
        self.u8(4, (ahs.len() / 4) as u8)
    }

    /// On the wire, without digests.
    pub fn bytes(&self) -> Vec<u8> {
        self.with_digests(None, None)
    }

    /// On the wire, with digests where they are given: what is added to the right value makes them wrong.
    pub fn with_digests(&self, header: Option<u32>, data: Option<u32>) -> Vec<u8> {
        let mut bytes = [&self.bhs[..], &self.ahs].concat();
        if let Some(off) = header {
            let digest = crc32c(&bytes) ^ off;
            bytes.extend(digest.to_le_bytes());
        }
        let mut segment = self.data.clone();
        segment.resize(segment.len().next_multiple_of(4), 0);
        bytes.extend(&segment);
        if let Some(off) = data.filter(|_| !segment.is_empty()) {
            bytes.extend((crc32c(&segment) ^ off).to_le_bytes());
        }
        bytes
    }
}

/// The CRC of RFC 7143 §13.1, bit by bit, as it is sent (little-endian).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// The tag that is nobody's (RFC 7143 §11.2.1.8).
pub const NO_TAG: u32 = 0xffff_ffff;
/// CmdSN of the first command after the login.
pub const FIRST: u32 = 1;
/// F, or T in a login.
pub const F: u8 = 0x80;
/// C in logins and texts.
pub const C: u8 = 0x40;
/// From the operational stage to the full-feature phase.
pub const LAST: u8 = 0x87;

/// The one target.
pub const TARGET: &str = "iqn.2026-11.net.farlun:test";
/// What every good login says.
pub const NAMES: &str = "InitiatorName=iqn.2026-11.net.farlun:hostile\0TargetName=iqn.2026-11.net.farlun:test\0";
pub const DISCOVERY: &str = "InitiatorName=iqn.2026-11.net.farlun:hostile\0SessionType=Discovery\0";

/// Login Request (RFC 7143 §11.12).
pub fn login(flags: u8, text: impl Into<Vec<u8>>) -> Pdu {
    Pdu::new(0x43, flags)
        .put(8, &[0x80, 0, 0, 0, 0, 9])
        .u32(16, 7)
        .u16(20, 1)
        .u32(24, FIRST)
        .data(text)
}

/// NOP-Out (§11.18), immediate.
pub fn nop(itt: u32, ttt: u32) -> Pdu {
    Pdu::new(0x40, F).u32(16, itt).u32(20, ttt).u32(24, FIRST)
}

/// SCSI Command (§11.3) for LUN 0; `flags` without F are for writes with unsolicited data.
pub fn command(flags: u8, itt: u32, cmd_sn: u32, edtl: u32, cdb: &[u8]) -> Pdu {
    Pdu::new(0x01, flags)
        .u32(16, itt)
        .u32(20, edtl)
        .u32(24, cmd_sn)
        .put(32, cdb)
}

/// R and F, task attribute SIMPLE.
pub const READ: u8 = 0xc1;
/// W and F.
pub const WRITE: u8 = 0xa1;
/// W without F: unsolicited Data-Out follows.
pub const WRITE_MORE: u8 = 0x21;
/// F alone: no data.
pub const NO_DATA: u8 = 0x81;

/// Data-Out (§11.7).
pub fn data_out(flags: u8, itt: u32, ttt: u32, data_sn: u32, offset: u32, bytes: usize) -> Pdu {
    Pdu::new(0x05, flags)
        .u32(16, itt)
        .u32(20, ttt)
        .u32(36, data_sn)
        .u32(40, offset)
        .data(vec![0x5a; bytes])
}

/// Task Management (§11.5), immediate, for LUN 0.
pub fn management(function: u8, itt: u32, referenced: u32) -> Pdu {
    Pdu::new(0x42, F | function)
        .u32(16, itt)
        .u32(20, referenced)
        .u32(24, FIRST)
}

/// Text Request (§11.10), immediate.
pub fn text(flags: u8, itt: u32, ttt: u32, text: impl Into<Vec<u8>>) -> Pdu {
    Pdu::new(0x44, flags)
        .u32(16, itt)
        .u32(20, ttt)
        .u32(24, FIRST)
        .data(text)
}

/// Logout Request (§11.14), immediate.
pub fn logout(reason: u8, itt: u32) -> Pdu {
    Pdu::new(0x46, F | reason).u32(16, itt).u16(20, 1).u32(24, FIRST)
}

/// SNACK (§11.16).
pub fn snack(kind: u8, itt: u32) -> Pdu {
    Pdu::new(0x10, F | kind).u32(16, itt).u32(20, NO_TAG)
}

/// READ (10) or WRITE (10) and what looks like them (SBC-4 5.13).
pub fn cdb10(opcode: u8, lba: u32, blocks: u16) -> Vec<u8> {
    let (lba, blocks) = (lba.to_be_bytes(), blocks.to_be_bytes());
    [&[opcode, 0][..], &lba, &[0], &blocks, &[0]].concat()
}

/// READ (12) and the like.
pub fn cdb12(opcode: u8, lba: u32, blocks: u32) -> Vec<u8> {
    [&[opcode, 0][..], &lba.to_be_bytes(), &blocks.to_be_bytes(), &[0, 0]].concat()
}

/// READ (16) and the like.
pub fn cdb16(opcode: u8, lba: u64, blocks: u32) -> Vec<u8> {
    [&[opcode, 0][..], &lba.to_be_bytes(), &blocks.to_be_bytes(), &[0, 0]].concat()
}
