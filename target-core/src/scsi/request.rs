//! A checked CDB on its way to becoming a plan.

use std::sync::Arc;

use super::Status;
use super::execute::Action;
use super::nexus::Nexus;
use super::path::Path;
use super::sense::Sense;
use super::unit::LogicalUnit;

/// Longest transfer of one command in bytes, reported as MAXIMUM TRANSFER LENGTH (SBC-4 6.6.4).
pub const MAX_TRANSFER_BYTES: u64 = 32 << 20;

/// What a command will do.
#[derive(Debug)]
pub(super) enum Plan {
    /// Nothing more: these bytes are the answer, already cut to the allocation length.
    Answer(Vec<u8>),
    /// Nothing more: this status, without sense data.
    Status(Status),
    /// Something with the medium, or with data still to come.
    Run(Action),
}

/// A plan, or why there is none.
pub(super) type Planned = Result<Plan, Sense>;

/// A CDB of full length, its fixed bits checked, at a LUN that exists.
pub(super) struct Request<'a> {
    pub(super) cdb: &'a [u8],
    pub(super) nexus: &'a Nexus,
    pub(super) path: &'a Arc<Path>,
    pub(super) unit: &'a LogicalUnit,
}

/// A run of blocks inside the medium, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset_bytes: u64,
    pub(super) length_bytes: u64,
}

impl Span {
    /// First byte, and the one after the last.
    pub(super) fn bytes(self) -> std::ops::Range<u64> {
        self.offset_bytes..self.offset_bytes + self.length_bytes
    }
}

impl Request<'_> {
    /// A run of blocks, refused if any of it lies beyond the end (SBC-4 4.4.2).
    pub(super) fn span(&self, lba: u64, blocks: u64) -> Result<Span, Sense> {
        let capacity = self.unit.blocks();
        match lba.checked_add(blocks) {
            // A run of no blocks may not start at the end either: that is no block's address.
            Some(end) if end <= capacity && lba < capacity => {
                let block_bytes = u64::from(self.unit.properties().block_bytes);
                Ok(Span {
                    offset_bytes: lba * block_bytes,
                    length_bytes: blocks * block_bytes,
                })
            }
            _ => Err(Sense::LBA_OUT_OF_RANGE.with_information(lba.max(capacity))),
        }
    }

    /// A run of blocks short enough to be transferred; `field` is where its length stands in the CDB.
    pub(super) fn transfer(&self, lba: u64, blocks: u64, field: u16) -> Result<Span, Sense> {
        let span = self.span(lba, blocks)?;
        if span.length_bytes > MAX_TRANSFER_BYTES {
            return Err(Sense::cdb_field(field, 7));
        }
        Ok(span)
    }

    /// Refuses commands that change the medium where nothing may be changed.
    pub(super) fn check_writable(&self) -> Result<(), Sense> {
        self.path.check_writable()
    }
}

/// An answer cut to the allocation length.
pub(super) fn answer(mut data: Vec<u8>, allocation_bytes: u32) -> Planned {
    data.truncate(allocation_bytes as usize);
    Ok(Plan::Answer(data))
}

/// The first 16 bytes of a CDB, zeroes where it is shorter.
pub(super) fn padded(cdb: &[u8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = cdb.len().min(bytes.len());
    bytes[..length].copy_from_slice(&cdb[..length]);
    bytes
}

/// Big-endian field of two bytes; missing bytes read as zero.
pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(field(bytes, at))
}

/// Big-endian field of four bytes; missing bytes read as zero.
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(field(bytes, at))
}

/// Big-endian field of eight bytes; missing bytes read as zero.
pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(field(bytes, at))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}
