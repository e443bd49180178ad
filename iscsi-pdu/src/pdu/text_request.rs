//! Text Request (RFC 7143 §11.10).

use nom::number::complete::be_u32;

use crate::fields::{CONTINUE, FINAL, IMMEDIATE, Writer, fields, flag, invalid, lun, no_ahs, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Lun, Opcode, Serial};

/// Header of a Text Request; its data segment is text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextRequest {
    /// Deliver at once, outside the command window.
    pub immediate: bool,
    /// The initiator has nothing more to say in this negotiation.
    pub final_bit: bool,
    /// C: the text goes on in the next request. Never together with `final_bit`.
    pub continue_: bool,
    /// Copied from the response that `ttt` comes from.
    pub lun: Lun,
    /// Tag, the same in all requests of one negotiation.
    pub itt: u32,
    /// Tag of the response being answered, [`RESERVED_TAG`](crate::RESERVED_TAG) in the first request.
    pub ttt: u32,
    /// Command sequence number.
    pub cmd_sn: Serial,
    /// Next status expected.
    pub exp_stat_sn: Serial,
}

impl TextRequest {
    /// Reads the header. F with C is refused (§11.10.2).
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<TextRequest, HeaderError> {
        no_ahs(bhs, ahs)?;
        let (lun, itt, ttt, cmd_sn, exp_stat_sn) = fields(bhs, 8, (lun, be_u32, be_u32, serial, serial))?;
        let (final_bit, continue_) = (bhs[1] & FINAL != 0, bhs[1] & CONTINUE != 0);
        if final_bit && continue_ {
            return Err(invalid(bhs, "C", 1_u8));
        }
        let immediate = bhs[0] & IMMEDIATE != 0;
        Ok(TextRequest {
            immediate,
            final_bit,
            continue_,
            lun,
            itt,
            ttt,
            cmd_sn,
            exp_stat_sn,
        })
    }
}

impl Emit for TextRequest {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        let flags = flag(self.final_bit, FINAL) | flag(self.continue_, CONTINUE);
        Writer::new(Opcode::TextRequest, self.immediate, flags, data_bytes)
            .lun(self.lun)
            .u32(16, self.itt)
            .u32(20, self.ttt)
            .serial(24, self.cmd_sn)
            .serial(28, self.exp_stat_sn)
            .finish(out);
    }
}
