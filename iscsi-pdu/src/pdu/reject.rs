//! Reject (RFC 7143 §11.17): what the target does not take, and why.

use nom::number::complete::be_u32;

use crate::codes::wire_codes;
use crate::fields::{FINAL, Writer, fields, no_ahs, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Opcode, RESERVED_TAG, Serial};

wire_codes! {
    /// Why (RFC 7143 §11.17.1).
    RejectReason: u8 {
        /// Data (payload) digest error; the original PDU may be sent again.
        DataDigestError = 0x02,
        /// SNACK Reject; the original PDU may be sent again.
        SnackReject = 0x03,
        /// Protocol error, such as a SNACK for a status already acknowledged.
        ProtocolError = 0x04,
        /// Command not supported.
        CommandNotSupported = 0x05,
        /// Immediate command reject: too many immediate commands.
        TooManyImmediate = 0x06,
        /// Task in progress.
        TaskInProgress = 0x07,
        /// Invalid data acknowledgement.
        InvalidDataAck = 0x08,
        /// Invalid PDU field.
        InvalidPduField = 0x09,
        /// Long operation reject: cannot generate a target transfer tag, out of resources.
        LongOperationReject = 0x0a,
        /// Negotiation reset (RFC 3720; deprecated by RFC 7143).
        NegotiationReset = 0x0b,
        /// Waiting for logout.
        WaitingForLogout = 0x0c,
    } else Other
}

/// Header of a Reject; its data segment is the header of the PDU that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub reason: RejectReason,
    /// Status sequence number.
    pub stat_sn: Serial,
    /// Next command expected.
    pub exp_cmd_sn: Serial,
    /// Last command that may be sent.
    pub max_cmd_sn: Serial,
    /// DataSN/R2TSN: for a rejected data acknowledgement, the next number expected.
    pub data_sn: u32,
}

impl Reject {
    /// Reads the header.
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<Reject, HeaderError> {
        no_ahs(bhs, ahs)?;
        let (stat_sn, exp_cmd_sn, max_cmd_sn, data_sn) = fields(bhs, 24, (serial, serial, serial, be_u32))?;
        Ok(Reject {
            reason: RejectReason::from_code(bhs[2]),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            data_sn,
        })
    }
}

impl Emit for Reject {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        Writer::new(Opcode::Reject, false, FINAL, data_bytes)
            .u8(2, self.reason.code())
            .u32(16, RESERVED_TAG)
            .serial(24, self.stat_sn)
            .serial(28, self.exp_cmd_sn)
            .serial(32, self.max_cmd_sn)
            .u32(36, self.data_sn)
            .finish(out);
    }
}
