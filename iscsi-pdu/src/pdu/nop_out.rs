//! NOP-Out (RFC 7143 §11.18): the initiator pings, or answers a ping.

use nom::number::complete::be_u32;

use crate::fields::{FINAL, IMMEDIATE, Writer, fields, lun, no_ahs, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Lun, Opcode, Serial};

/// Header of a NOP-Out; its data segment is ping data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NopOut {
    /// Deliver at once, outside the command window.
    pub immediate: bool,
    /// Echoed from the NOP-In when answering one.
    pub lun: Lun,
    /// [`RESERVED_TAG`](crate::RESERVED_TAG) when no answer is wanted.
    pub itt: u32,
    /// The NOP-In's tag when answering one, otherwise [`RESERVED_TAG`](crate::RESERVED_TAG).
    pub ttt: u32,
    /// Command sequence number.
    pub cmd_sn: Serial,
    /// Next status expected.
    pub exp_stat_sn: Serial,
}

impl NopOut {
    /// Reads the header.
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<NopOut, HeaderError> {
        no_ahs(bhs, ahs)?;
        let (lun, itt, ttt, cmd_sn, exp_stat_sn) = fields(bhs, 8, (lun, be_u32, be_u32, serial, serial))?;
        Ok(NopOut {
            immediate: bhs[0] & IMMEDIATE != 0,
            lun,
            itt,
            ttt,
            cmd_sn,
            exp_stat_sn,
        })
    }
}

impl Emit for NopOut {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        Writer::new(Opcode::NopOut, self.immediate, FINAL, data_bytes)
            .lun(self.lun)
            .u32(16, self.itt)
            .u32(20, self.ttt)
            .serial(24, self.cmd_sn)
            .serial(28, self.exp_stat_sn)
            .finish(out);
    }
}
