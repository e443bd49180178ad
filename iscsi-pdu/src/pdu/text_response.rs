//! Text Response (RFC 7143 §11.11).

use nom::number::complete::be_u32;

use crate::fields::{CONTINUE, FINAL, Writer, fields, flag, invalid, lun, no_ahs, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Lun, Opcode, Serial};

/// Header of a Text Response; its data segment is text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextResponse {
    /// The negotiation is over.
    pub final_bit: bool,
    /// C: the text goes on in the next response. Never together with `final_bit`.
    pub continue_: bool,
    /// To be copied into the next request.
    pub lun: Lun,
    /// Tag of the request.
    pub itt: u32,
    /// To be copied into the next request; [`RESERVED_TAG`](crate::RESERVED_TAG) when final.
    pub ttt: u32,
    /// Status sequence number.
    pub stat_sn: Serial,
    /// Next command expected.
    pub exp_cmd_sn: Serial,
    /// Last command that may be sent.
    pub max_cmd_sn: Serial,
}

impl TextResponse {
    /// Reads the header. F with C is refused (§11.11.2).
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<TextResponse, HeaderError> {
        no_ahs(bhs, ahs)?;
        let (lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn) =
            fields(bhs, 8, (lun, be_u32, be_u32, serial, serial, serial))?;
        let (final_bit, continue_) = (bhs[1] & FINAL != 0, bhs[1] & CONTINUE != 0);
        if final_bit && continue_ {
            return Err(invalid(bhs, "C", 1_u8));
        }
        Ok(TextResponse {
            final_bit,
            continue_,
            lun,
            itt,
            ttt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
        })
    }
}

impl Emit for TextResponse {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        let flags = flag(self.final_bit, FINAL) | flag(self.continue_, CONTINUE);
        Writer::new(Opcode::TextResponse, false, flags, data_bytes)
            .lun(self.lun)
            .u32(16, self.itt)
            .u32(20, self.ttt)
            .serial(24, self.stat_sn)
            .serial(28, self.exp_cmd_sn)
            .serial(32, self.max_cmd_sn)
            .finish(out);
    }
}
