//! SCSI Command (RFC 7143 §11.3) with its additional headers (§11.2.2).

use std::fmt;

use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::{IResult, Parser};

use crate::codes::wire_codes;
use crate::fields::{FINAL, IMMEDIATE, Writer, array, fields, flag, invalid, lun, opcode_of, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Lun, Opcode, Serial};

/// Bytes of the CDB field in the BHS (RFC 7143 §11.3.5).
const BHS_CDB_BYTES: usize = 16;
/// Longest CDB SPC-5 defines (variable length CDBs, 4.2.3: 8 + 252).
pub const MAX_CDB_BYTES: usize = 260;

/// AHSType of the rest of a CDB longer than 16 bytes (RFC 7143 §11.2.2.1).
const AHS_EXTENDED_CDB: u8 = 0x01;
/// AHSType of the read length of a bidirectional command (RFC 7143 §11.2.2.1).
const AHS_BIDIRECTIONAL_READ: u8 = 0x02;

const READ: u8 = 0x40;
const WRITE: u8 = 0x20;

wire_codes! {
    /// Task attribute (RFC 7143 §11.3.1).
    TaskAttribute: u8 {
        /// No attribute: treated as simple by SAM-5.
        Untagged = 0,
        /// SIMPLE.
        Simple = 1,
        /// ORDERED.
        Ordered = 2,
        /// HEAD OF QUEUE.
        HeadOfQueue = 3,
        /// ACA.
        Aca = 4,
    }
}

/// A command descriptor block: 16 bytes, or more when the command came with an extended-CDB header.
#[derive(Clone, PartialEq, Eq)]
pub struct Cdb(CdbBytes);

#[derive(Clone, PartialEq, Eq)]
enum CdbBytes {
    Short([u8; BHS_CDB_BYTES]),
    // Longer than BHS_CDB_BYTES, at most MAX_CDB_BYTES.
    Long(Box<[u8]>),
}

impl Cdb {
    /// A CDB of up to 16 bytes, the rest zero; up to [`MAX_CDB_BYTES`] as an extended one. `None` when longer.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Cdb> {
        match bytes.len() {
            0..=BHS_CDB_BYTES => {
                let mut short = [0; BHS_CDB_BYTES];
                short[..bytes.len()].copy_from_slice(bytes);
                Some(Cdb(CdbBytes::Short(short)))
            }
            17..=MAX_CDB_BYTES => Some(Cdb(CdbBytes::Long(bytes.into()))),
            _ => None,
        }
    }

    /// All of it: at least 16 bytes, shorter CDBs padded with zeroes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            CdbBytes::Short(bytes) => bytes,
            CdbBytes::Long(bytes) => bytes,
        }
    }

    /// OPERATION CODE.
    #[must_use]
    pub fn opcode(&self) -> u8 {
        self.as_slice()[0]
    }

    fn split(&self) -> (&[u8], &[u8]) {
        self.as_slice().split_at(BHS_CDB_BYTES)
    }
}

impl From<[u8; 16]> for Cdb {
    fn from(bytes: [u8; 16]) -> Cdb {
        Cdb(CdbBytes::Short(bytes))
    }
}

impl fmt::Debug for Cdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cdb(")?;
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// Header of a SCSI Command; its data segment is immediate data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiCommand {
    /// Deliver at once, outside the command window.
    pub immediate: bool,
    /// No unsolicited Data-Out follows. Always set without `write`.
    pub final_bit: bool,
    /// Data flows to the initiator.
    pub read: bool,
    /// Data flows to the target.
    pub write: bool,
    /// Task attribute.
    pub attribute: TaskAttribute,
    /// Logical unit.
    pub lun: Lun,
    /// Task tag.
    pub itt: u32,
    /// Bytes the initiator expects to move; those to the target for a bidirectional command.
    pub expected_data_transfer_length: u32,
    /// Command sequence number.
    pub cmd_sn: Serial,
    /// Next status expected.
    pub exp_stat_sn: Serial,
    /// The command.
    pub cdb: Cdb,
    /// Bytes to the initiator for a bidirectional command (`read` and `write` both set).
    pub bidirectional_read_length: Option<u32>,
}

impl ScsiCommand {
    /// Reads the header and its additional segments.
    ///
    /// Refused besides reserved values: F clear without W (§11.3.1), and a transfer length without a direction
    /// (§11.3.1).
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<ScsiCommand, HeaderError> {
        let flags = bhs[1];
        let (lun, itt, expected_data_transfer_length, cmd_sn, exp_stat_sn, cdb) =
            fields(bhs, 8, (lun, be_u32, be_u32, serial, serial, array::<BHS_CDB_BYTES>))?;
        let attribute = TaskAttribute::from_code(flags & 0x07).ok_or_else(|| invalid(bhs, "ATTR", flags & 0x07))?;
        let (final_bit, read, write) = (flags & FINAL != 0, flags & READ != 0, flags & WRITE != 0);
        if !final_bit && !write {
            return Err(invalid(bhs, "F", 0_u8));
        }
        if !read && !write && expected_data_transfer_length != 0 {
            return Err(invalid(
                bhs,
                "Expected Data Transfer Length",
                expected_data_transfer_length,
            ));
        }
        let mut command = ScsiCommand {
            immediate: bhs[0] & IMMEDIATE != 0,
            final_bit,
            read,
            write,
            attribute,
            lun,
            itt,
            expected_data_transfer_length,
            cmd_sn,
            exp_stat_sn,
            cdb: Cdb::from(cdb),
            bidirectional_read_length: None,
        };
        if !ahs.is_empty() {
            command.parse_ahs(ahs).map_err(|what| HeaderError::InvalidAhs {
                opcode: opcode_of(bhs),
                what,
            })?;
        }
        Ok(command)
    }

    fn parse_ahs(&mut self, mut ahs: &[u8]) -> Result<(), &'static str> {
        while !ahs.is_empty() {
            let (rest, (kind, body)) = ahs_segment(ahs).map_err(|_| "its length runs past the header")?;
            ahs = rest;
            match kind {
                AHS_EXTENDED_CDB => {
                    let (_, extension) = (be_u8::<_, ()>, nom::combinator::rest)
                        .parse(body)
                        .map_err(|_| "extended CDB of no bytes")?
                        .1;
                    if matches!(self.cdb.0, CdbBytes::Long(_)) {
                        return Err("two extended CDBs");
                    }
                    if extension.is_empty() {
                        return Err("extended CDB of no bytes");
                    }
                    self.cdb =
                        Cdb::new(&[self.cdb.as_slice(), extension].concat()).ok_or("extended CDB is too long")?;
                }
                AHS_BIDIRECTIONAL_READ => {
                    let (_, (_, length)) = (be_u8::<_, ()>, be_u32)
                        .parse(body)
                        .map_err(|_| "bidirectional read length is short")?;
                    if body.len() != 5 {
                        return Err("bidirectional read length is not 5 bytes");
                    }
                    if !(self.read && self.write) {
                        return Err("bidirectional read length without R and W");
                    }
                    if self.bidirectional_read_length.replace(length).is_some() {
                        return Err("two bidirectional read lengths");
                    }
                }
                _ => return Err("unknown AHSType"),
            }
        }
        Ok(())
    }
}

/// One segment, padding skipped: AHSLength counts the bytes after AHSType (RFC 7143 §11.2.2.2).
fn ahs_segment(input: &[u8]) -> IResult<&[u8], (u8, &[u8]), ()> {
    let (rest, (length, kind)) = (be_u16, be_u8).parse(input)?;
    let (rest, body) = take(length)(rest)?;
    let padding = (4 - (3 + body.len()) % 4) % 4;
    let (rest, _) = take(padding)(rest)?;
    Ok((rest, (kind, body)))
}

impl Emit for ScsiCommand {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        let flags =
            flag(self.final_bit, FINAL) | flag(self.read, READ) | flag(self.write, WRITE) | self.attribute.code();
        let (cdb, extension) = self.cdb.split();
        let ahs_words = (self.header_bytes() - BHS_BYTES) / 4;
        Writer::new(Opcode::ScsiCommand, self.immediate, flags, data_bytes)
            .u8(4, ahs_words as u8)
            .lun(self.lun)
            .u32(16, self.itt)
            .u32(20, self.expected_data_transfer_length)
            .serial(24, self.cmd_sn)
            .serial(28, self.exp_stat_sn)
            .bytes(32, cdb)
            .finish(out);
        if !extension.is_empty() {
            // The length counts the reserved byte (RFC 7143 §11.2.2.3).
            out.extend_from_slice(&(extension.len() as u16 + 1).to_be_bytes());
            out.extend_from_slice(&[AHS_EXTENDED_CDB, 0]);
            out.extend_from_slice(extension);
            out.resize(out.len() + (4 - extension.len() % 4) % 4, 0);
        }
        if let Some(length) = self.bidirectional_read_length {
            out.extend_from_slice(&[0x00, 0x05, AHS_BIDIRECTIONAL_READ, 0]);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }

    fn header_bytes(&self) -> usize {
        let extension = match self.cdb.split().1.len() {
            0 => 0,
            bytes => 4 + bytes.next_multiple_of(4),
        };
        BHS_BYTES + extension + if self.bidirectional_read_length.is_some() { 8 } else { 0 }
    }
}
