//! NOP-In (RFC 7143 §11.19): the target answers a ping, or pings.

use nom::number::complete::be_u32;

use crate::fields::{FINAL, Writer, fields, lun, no_ahs, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Lun, Opcode, Serial};

/// Header of a NOP-In; its data segment is ping data echoed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NopIn {
    /// To be echoed in the answer when `ttt` asks for one.
    pub lun: Lun,
    /// The NOP-Out's tag when answering one, otherwise [`RESERVED_TAG`](crate::RESERVED_TAG).
    pub itt: u32,
    /// [`RESERVED_TAG`](crate::RESERVED_TAG) when no answer is wanted.
    pub ttt: u32,
    /// Status sequence number; does not advance when `itt` is the reserved tag.
    pub stat_sn: Serial,
    /// Next command expected.
    pub exp_cmd_sn: Serial,
    /// Last command that may be sent.
    pub max_cmd_sn: Serial,
}

impl NopIn {
    /// Reads the header.
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<NopIn, HeaderError> {
        no_ahs(bhs, ahs)?;
        let (lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn) =
            fields(bhs, 8, (lun, be_u32, be_u32, serial, serial, serial))?;
        Ok(NopIn {
            lun,
            itt,
            ttt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
        })
    }
}

impl Emit for NopIn {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        Writer::new(Opcode::NopIn, false, FINAL, data_bytes)
            .lun(self.lun)
            .u32(16, self.itt)
            .u32(20, self.ttt)
            .serial(24, self.stat_sn)
            .serial(28, self.exp_cmd_sn)
            .serial(32, self.max_cmd_sn)
            .finish(out);
    }
}
