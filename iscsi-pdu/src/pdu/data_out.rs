//! SCSI Data-Out (RFC 7143 §11.7).

use nom::number::complete::be_u32;

use crate::fields::{FINAL, Writer, fields, flag, lun, no_ahs, reserved, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Lun, Opcode, Serial};

/// Header of a SCSI Data-Out; its data segment is data for the medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataOut {
    /// Last of its sequence: of the unsolicited burst, or of what the R2T asked for.
    pub final_bit: bool,
    /// Copied from the R2T; zero or the command's in unsolicited data.
    pub lun: Lun,
    /// Tag of the command.
    pub itt: u32,
    /// Tag of the R2T, or [`RESERVED_TAG`](crate::RESERVED_TAG) for unsolicited data.
    pub ttt: u32,
    /// Next status expected.
    pub exp_stat_sn: Serial,
    /// Number within the sequence, from 0.
    pub data_sn: u32,
    /// Where in the command's data this belongs, in bytes.
    pub buffer_offset: u32,
}

impl DataOut {
    /// Reads the header.
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<DataOut, HeaderError> {
        no_ahs(bhs, ahs)?;
        let (lun, itt, ttt, (), exp_stat_sn, (), data_sn, buffer_offset) = fields(
            bhs,
            8,
            (
                lun,
                be_u32,
                be_u32,
                reserved::<4>,
                serial,
                reserved::<4>,
                be_u32,
                be_u32,
            ),
        )?;
        Ok(DataOut {
            final_bit: bhs[1] & FINAL != 0,
            lun,
            itt,
            ttt,
            exp_stat_sn,
            data_sn,
            buffer_offset,
        })
    }
}

impl Emit for DataOut {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        Writer::new(Opcode::DataOut, false, flag(self.final_bit, FINAL), data_bytes)
            .lun(self.lun)
            .u32(16, self.itt)
            .u32(20, self.ttt)
            .serial(28, self.exp_stat_sn)
            .u32(36, self.data_sn)
            .u32(40, self.buffer_offset)
            .finish(out);
    }
}
