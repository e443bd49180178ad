//! Task Management Function Response (RFC 7143 §11.6).

use nom::number::complete::be_u32;

use crate::codes::wire_codes;
use crate::fields::{FINAL, Writer, fields, no_ahs, reserved, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Opcode, Serial};

wire_codes! {
    /// What became of it (RFC 7143 §11.6.1, RFC 7144 §4.2).
    TaskOutcome: u8 {
        /// Function complete.
        Complete = 0,
        /// Task does not exist.
        NoSuchTask = 1,
        /// LUN does not exist.
        NoSuchLun = 2,
        /// Task still allegiant.
        StillAllegiant = 3,
        /// Task allegiance reassignment not supported.
        ReassignNotSupported = 4,
        /// Task management function not supported.
        NotSupported = 5,
        /// Function authorization failed.
        NotAuthorized = 6,
        /// Function succeeded (RFC 7144: the queried task or event is there).
        Succeeded = 7,
        /// Function rejected.
        Rejected = 255,
    } else Other
}

/// Header of a Task Management Function Response; it has no data segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskManagementResponse {
    /// What became of it.
    pub response: TaskOutcome,
    /// Tag of the request.
    pub itt: u32,
    /// Status sequence number.
    pub stat_sn: Serial,
    /// Next command expected.
    pub exp_cmd_sn: Serial,
    /// Last command that may be sent.
    pub max_cmd_sn: Serial,
}

impl TaskManagementResponse {
    /// Reads the header.
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<TaskManagementResponse, HeaderError> {
        no_ahs(bhs, ahs)?;
        let (itt, (), stat_sn, exp_cmd_sn, max_cmd_sn) =
            fields(bhs, 16, (be_u32, reserved::<4>, serial, serial, serial))?;
        let response = TaskOutcome::from_code(bhs[2]);
        Ok(TaskManagementResponse {
            response,
            itt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
        })
    }
}

impl Emit for TaskManagementResponse {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        Writer::new(Opcode::TaskManagementResponse, false, FINAL, data_bytes)
            .u8(2, self.response.code())
            .u32(16, self.itt)
            .serial(24, self.stat_sn)
            .serial(28, self.exp_cmd_sn)
            .serial(32, self.max_cmd_sn)
            .finish(out);
    }
}
