//! SCSI Data-In (RFC 7143 §11.7), with the status in the last one when all went well ("phase collapse").

use nom::number::complete::be_u32;

use crate::fields::{FINAL, Writer, fields, flag, invalid, lun, no_ahs, serial};
use crate::pdu::Residual;
use crate::{BHS_BYTES, Emit, HeaderError, Lun, Opcode, Serial};

const ACKNOWLEDGE: u8 = 0x40;
const OVERFLOW: u8 = 0x04;
const UNDERFLOW: u8 = 0x02;
const STATUS: u8 = 0x01;

/// What the S bit makes meaningful (RFC 7143 §11.7.3): no SCSI Response follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataInStatus {
    /// SAM-5 status code without sense: GOOD, CONDITION MET, ...
    pub status: u8,
    /// Status sequence number.
    pub stat_sn: Serial,
    /// Residual of the command.
    pub residual: Residual,
}

/// Header of a SCSI Data-In; its data segment is data from the medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataIn {
    /// Last of its sequence.
    pub final_bit: bool,
    /// The initiator is asked to acknowledge (only at ErrorRecoveryLevel 1 and above).
    pub acknowledge: bool,
    /// The command's status, in its last Data-In.
    pub status: Option<DataInStatus>,
    /// Logical unit, when `ttt` is given.
    pub lun: Lun,
    /// Tag of the command.
    pub itt: u32,
    /// [`RESERVED_TAG`](crate::RESERVED_TAG), unless an acknowledgement is asked for.
    pub ttt: u32,
    /// Next command expected.
    pub exp_cmd_sn: Serial,
    /// Last command that may be sent.
    pub max_cmd_sn: Serial,
    /// Number within the command, from 0.
    pub data_sn: u32,
    /// Where in the command's data this belongs, in bytes.
    pub buffer_offset: u32,
}

impl DataIn {
    /// Reads the header. S without F is refused (§11.7.1).
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<DataIn, HeaderError> {
        no_ahs(bhs, ahs)?;
        let flags = bhs[1];
        let (lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, data_sn, buffer_offset, count) = fields(
            bhs,
            8,
            (lun, be_u32, be_u32, serial, serial, serial, be_u32, be_u32, be_u32),
        )?;
        let final_bit = flags & FINAL != 0;
        let status = if flags & STATUS == 0 {
            None
        } else if !final_bit {
            return Err(invalid(bhs, "S", 1_u8));
        } else {
            let residual = Residual::from_bits(flags & OVERFLOW != 0, flags & UNDERFLOW != 0, count)
                .ok_or_else(|| invalid(bhs, "O and U", flags))?;
            Some(DataInStatus {
                status: bhs[3],
                stat_sn,
                residual,
            })
        };
        let acknowledge = flags & ACKNOWLEDGE != 0;
        Ok(DataIn {
            final_bit,
            acknowledge,
            status,
            lun,
            itt,
            ttt,
            exp_cmd_sn,
            max_cmd_sn,
            data_sn,
            buffer_offset,
        })
    }
}

impl Emit for DataIn {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        let status_flags = self.status.map_or(0, |s| STATUS | s.residual.bits(OVERFLOW, UNDERFLOW));
        let flags = flag(self.final_bit, FINAL) | flag(self.acknowledge, ACKNOWLEDGE) | status_flags;
        let mut header = Writer::new(Opcode::DataIn, false, flags, data_bytes)
            .lun(self.lun)
            .u32(16, self.itt)
            .u32(20, self.ttt)
            .serial(28, self.exp_cmd_sn)
            .serial(32, self.max_cmd_sn)
            .u32(36, self.data_sn)
            .u32(40, self.buffer_offset);
        if let Some(status) = self.status {
            header = header
                .u8(3, status.status)
                .serial(24, status.stat_sn)
                .u32(44, status.residual.count());
        }
        header.finish(out);
    }
}
