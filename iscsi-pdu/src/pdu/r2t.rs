//! Ready To Transfer (RFC 7143 §11.8): the target asks for a stretch of a write's data.

use nom::number::complete::be_u32;

use crate::fields::{FINAL, Writer, fields, invalid, lun, no_ahs, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Lun, Opcode, Serial};

/// Header of an R2T; it has no data segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct R2t {
    /// Logical unit, to be copied into the Data-Outs.
    pub lun: Lun,
    /// Tag of the command.
    pub itt: u32,
    /// Tag the Data-Outs must carry.
    pub ttt: u32,
    /// The StatSN the next status will have; this PDU does not advance it.
    pub stat_sn: Serial,
    /// Next command expected.
    pub exp_cmd_sn: Serial,
    /// Last command that may be sent.
    pub max_cmd_sn: Serial,
    /// Number within the command, from 0.
    pub r2t_sn: u32,
    /// Where the wanted stretch begins, in bytes.
    pub buffer_offset: u32,
    /// How many bytes are wanted; never 0.
    pub desired_data_transfer_length: u32,
}

impl R2t {
    /// Reads the header. An R2T for no bytes is refused (§11.8.4).
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<R2t, HeaderError> {
        no_ahs(bhs, ahs)?;
        let (lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, r2t_sn, buffer_offset, desired_data_transfer_length) =
            fields(
                bhs,
                8,
                (lun, be_u32, be_u32, serial, serial, serial, be_u32, be_u32, be_u32),
            )?;
        if desired_data_transfer_length == 0 {
            return Err(invalid(bhs, "Desired Data Transfer Length", 0_u8));
        }
        Ok(R2t {
            lun,
            itt,
            ttt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            r2t_sn,
            buffer_offset,
            desired_data_transfer_length,
        })
    }
}

impl Emit for R2t {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        Writer::new(Opcode::R2t, false, FINAL, data_bytes)
            .lun(self.lun)
            .u32(16, self.itt)
            .u32(20, self.ttt)
            .serial(24, self.stat_sn)
            .serial(28, self.exp_cmd_sn)
            .serial(32, self.max_cmd_sn)
            .u32(36, self.r2t_sn)
            .u32(40, self.buffer_offset)
            .u32(44, self.desired_data_transfer_length)
            .finish(out);
    }
}
