//! Logout Request (RFC 7143 §11.14).

use nom::number::complete::{be_u16, be_u32};

use crate::codes::wire_codes;
use crate::fields::{FINAL, IMMEDIATE, Writer, fields, invalid, no_ahs, reserved, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Opcode, Serial};

wire_codes! {
    /// What is to be closed (RFC 7143 §11.14.1).
    LogoutReason: u8 {
        /// The session, with all its connections.
        CloseSession = 0,
        /// The connection in `cid`.
        CloseConnection = 1,
        /// The connection in `cid`, whose tasks will be reassigned.
        RemoveConnectionForRecovery = 2,
    }
}

/// Header of a Logout Request; it has no data segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutRequest {
    /// Deliver at once, outside the command window.
    pub immediate: bool,
    /// What is to be closed.
    pub reason: LogoutReason,
    /// Tag of this request.
    pub itt: u32,
    /// Which connection; reserved when the session is closed.
    pub cid: u16,
    /// Command sequence number.
    pub cmd_sn: Serial,
    /// Next status expected.
    pub exp_stat_sn: Serial,
}

impl LogoutRequest {
    /// Reads the header.
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<LogoutRequest, HeaderError> {
        no_ahs(bhs, ahs)?;
        let (itt, cid, (), cmd_sn, exp_stat_sn) = fields(bhs, 16, (be_u32, be_u16, reserved::<2>, serial, serial))?;
        let reason =
            LogoutReason::from_code(bhs[1] & 0x7f).ok_or_else(|| invalid(bhs, "Reason Code", bhs[1] & 0x7f))?;
        Ok(LogoutRequest {
            immediate: bhs[0] & IMMEDIATE != 0,
            reason,
            itt,
            cid,
            cmd_sn,
            exp_stat_sn,
        })
    }
}

impl Emit for LogoutRequest {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        Writer::new(
            Opcode::LogoutRequest,
            self.immediate,
            FINAL | self.reason.code(),
            data_bytes,
        )
        .u32(16, self.itt)
        .u16(20, self.cid)
        .serial(24, self.cmd_sn)
        .serial(28, self.exp_stat_sn)
        .finish(out);
    }
}
