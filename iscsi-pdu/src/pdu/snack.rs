//! SNACK Request (RFC 7143 §11.16): only at ErrorRecoveryLevel 1 and above.

use nom::number::complete::be_u32;

use crate::codes::wire_codes;
use crate::fields::{FINAL, Writer, fields, invalid, lun, no_ahs, reserved, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Lun, Opcode, Serial};

wire_codes! {
    /// What is asked for again, or acknowledged (RFC 7143 §11.16.1).
    SnackType: u8 {
        /// Data-In or R2T PDUs.
        DataOrR2t = 0,
        /// Status PDUs.
        Status = 1,
        /// Acknowledges Data-In.
        DataAck = 2,
        /// Data-In PDUs, cut anew.
        ResegmentedData = 3,
    }
}

/// Header of a SNACK Request; it has no data segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snack {
    /// What is asked for.
    pub kind: SnackType,
    /// Logical unit, for a data acknowledgement.
    pub lun: Lun,
    /// Tag of the command, or [`RESERVED_TAG`](crate::RESERVED_TAG).
    pub itt: u32,
    /// TTT or SNACK tag, or [`RESERVED_TAG`](crate::RESERVED_TAG).
    pub ttt: u32,
    /// Next status expected.
    pub exp_stat_sn: Serial,
    /// First number missing.
    pub beg_run: u32,
    /// How many are missing; 0 for all from there.
    pub run_length: u32,
}

impl Snack {
    /// Reads the header.
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<Snack, HeaderError> {
        no_ahs(bhs, ahs)?;
        let (lun, itt, ttt, (), exp_stat_sn, (), beg_run, run_length) = fields(
            bhs,
            8,
            (
                lun,
                be_u32,
                be_u32,
                reserved::<4>,
                serial,
                reserved::<8>,
                be_u32,
                be_u32,
            ),
        )?;
        let kind = SnackType::from_code(bhs[1] & 0x0f).ok_or_else(|| invalid(bhs, "Type", bhs[1] & 0x0f))?;
        Ok(Snack {
            kind,
            lun,
            itt,
            ttt,
            exp_stat_sn,
            beg_run,
            run_length,
        })
    }
}

impl Emit for Snack {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        Writer::new(Opcode::Snack, false, FINAL | self.kind.code(), data_bytes)
            .lun(self.lun)
            .u32(16, self.itt)
            .u32(20, self.ttt)
            .serial(28, self.exp_stat_sn)
            .u32(40, self.beg_run)
            .u32(44, self.run_length)
            .finish(out);
    }
}
