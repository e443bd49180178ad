//! SCSI Response (RFC 7143 §11.4).

use nom::number::complete::be_u32;

use crate::codes::wire_codes;
use crate::fields::{FINAL, Writer, fields, invalid, no_ahs, serial};
use crate::pdu::Residual;
use crate::{BHS_BYTES, Emit, HeaderError, Opcode, Serial};

const BIDIRECTIONAL_OVERFLOW: u8 = 0x10;
const BIDIRECTIONAL_UNDERFLOW: u8 = 0x08;
const OVERFLOW: u8 = 0x04;
const UNDERFLOW: u8 = 0x02;

wire_codes! {
    /// iSCSI service response (RFC 7143 §11.4.3). `status` means something only with `Completed`.
    ServiceResponse: u8 {
        /// Command completed at target.
        Completed = 0x00,
        /// Target failure.
        TargetFailure = 0x01,
    } else Other
}

/// Header of a SCSI Response; its data segment is sense ([`sense_bytes`]) and response data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiResponse {
    /// Whether the target carried the command out.
    pub response: ServiceResponse,
    /// SAM-5 status code: 0x00 GOOD, 0x02 CHECK CONDITION ...
    pub status: u8,
    /// Task tag.
    pub itt: u32,
    /// For R-Data SNACK; 0 or a copy of the tag otherwise.
    pub snack_tag: u32,
    /// Status sequence number.
    pub stat_sn: Serial,
    /// Next command expected.
    pub exp_cmd_sn: Serial,
    /// Last command that may be sent.
    pub max_cmd_sn: Serial,
    /// Number of Data-In and R2T PDUs sent for the command.
    pub exp_data_sn: u32,
    /// Residual of the read half of a bidirectional command.
    pub bidirectional_residual: Residual,
    /// Residual of the command.
    pub residual: Residual,
}

impl ScsiResponse {
    /// Reads the header.
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<ScsiResponse, HeaderError> {
        no_ahs(bhs, ahs)?;
        let flags = bhs[1];
        let (itt, snack_tag, stat_sn, exp_cmd_sn, max_cmd_sn, exp_data_sn, bidirectional_count, count) = fields(
            bhs,
            16,
            (be_u32, be_u32, serial, serial, serial, be_u32, be_u32, be_u32),
        )?;
        let residual = |overflow, underflow, count, field| {
            Residual::from_bits(flags & overflow != 0, flags & underflow != 0, count)
                .ok_or_else(|| invalid(bhs, field, flags))
        };
        Ok(ScsiResponse {
            response: ServiceResponse::from_code(bhs[2]),
            status: bhs[3],
            itt,
            snack_tag,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            exp_data_sn,
            bidirectional_residual: residual(
                BIDIRECTIONAL_OVERFLOW,
                BIDIRECTIONAL_UNDERFLOW,
                bidirectional_count,
                "o and u",
            )?,
            residual: residual(OVERFLOW, UNDERFLOW, count, "O and U")?,
        })
    }
}

impl Emit for ScsiResponse {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        let flags = FINAL
            | self
                .bidirectional_residual
                .bits(BIDIRECTIONAL_OVERFLOW, BIDIRECTIONAL_UNDERFLOW)
            | self.residual.bits(OVERFLOW, UNDERFLOW);
        Writer::new(Opcode::ScsiResponse, false, flags, data_bytes)
            .u8(2, self.response.code())
            .u8(3, self.status)
            .u32(16, self.itt)
            .u32(20, self.snack_tag)
            .serial(24, self.stat_sn)
            .serial(28, self.exp_cmd_sn)
            .serial(32, self.max_cmd_sn)
            .u32(36, self.exp_data_sn)
            .u32(40, self.bidirectional_residual.count())
            .u32(44, self.residual.count())
            .finish(out);
    }
}

/// The sense data in a SCSI Response's data segment (RFC 7143 §11.4.7.2): behind its two-byte length. `None` when the
/// length runs past the segment or there is none.
#[must_use]
pub fn sense_bytes(data: &[u8]) -> Option<&[u8]> {
    let (length, rest) = data.split_first_chunk::<2>()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}

/// Appends sense data with its length, as the data segment of a SCSI Response wants it (RFC 7143 §11.4.7.2). Sense is
/// at most 252 bytes (SPC-5 4.4.1); more than the length field can say is cut.
pub fn write_sense(sense: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(sense.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&sense[..usize::from(length)]);
}
