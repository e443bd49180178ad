//! Logout Response (RFC 7143 §11.15).

use nom::number::complete::{be_u16, be_u32};

use crate::codes::wire_codes;
use crate::fields::{FINAL, Writer, fields, no_ahs, reserved, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Opcode, Serial};

wire_codes! {
    /// What became of it (RFC 7143 §11.15.1).
    LogoutOutcome: u8 {
        /// Connection or session closed.
        Closed = 0,
        /// CID was not found.
        CidNotFound = 1,
        /// Connection recovery is not supported.
        RecoveryNotSupported = 2,
        /// Cleanup failed for various reasons.
        CleanupFailed = 3,
    } else Other
}

/// Header of a Logout Response; it has no data segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutResponse {
    /// What became of it.
    pub response: LogoutOutcome,
    /// Tag of the request.
    pub itt: u32,
    /// Status sequence number.
    pub stat_sn: Serial,
    /// Next command expected.
    pub exp_cmd_sn: Serial,
    /// Last command that may be sent.
    pub max_cmd_sn: Serial,
    /// Time2Wait: seconds before tasks may be reassigned or the session reinstated.
    pub time_to_wait_s: u16,
    /// Time2Retain: seconds after that during which tasks are kept.
    pub time_to_retain_s: u16,
}

impl LogoutResponse {
    /// Reads the header.
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<LogoutResponse, HeaderError> {
        no_ahs(bhs, ahs)?;
        let (itt, (), stat_sn, exp_cmd_sn, max_cmd_sn, (), time_to_wait_s, time_to_retain_s) = fields(
            bhs,
            16,
            (
                be_u32,
                reserved::<4>,
                serial,
                serial,
                serial,
                reserved::<4>,
                be_u16,
                be_u16,
            ),
        )?;
        let response = LogoutOutcome::from_code(bhs[2]);
        Ok(LogoutResponse {
            response,
            itt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            time_to_wait_s,
            time_to_retain_s,
        })
    }
}

impl Emit for LogoutResponse {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        Writer::new(Opcode::LogoutResponse, false, FINAL, data_bytes)
            .u8(2, self.response.code())
            .u32(16, self.itt)
            .serial(24, self.stat_sn)
            .serial(28, self.exp_cmd_sn)
            .serial(32, self.max_cmd_sn)
            .u16(40, self.time_to_wait_s)
            .u16(42, self.time_to_retain_s)
            .finish(out);
    }
}
