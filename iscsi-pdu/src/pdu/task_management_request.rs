//! Task Management Function Request (RFC 7143 §11.5).

use nom::number::complete::be_u32;

use crate::codes::wire_codes;
use crate::fields::{FINAL, IMMEDIATE, Writer, fields, lun, no_ahs, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Lun, Opcode, Serial};

wire_codes! {
    /// What is asked (RFC 7143 §11.5.1, RFC 7144 §4.1). A function we do not know is answered with
    /// [`TaskOutcome::NotSupported`](crate::TaskOutcome), not with a Reject: so every code parses.
    TaskFunction: u8 {
        /// ABORT TASK.
        AbortTask = 1,
        /// ABORT TASK SET.
        AbortTaskSet = 2,
        /// CLEAR ACA.
        ClearAca = 3,
        /// CLEAR TASK SET.
        ClearTaskSet = 4,
        /// LOGICAL UNIT RESET.
        LogicalUnitReset = 5,
        /// TARGET WARM RESET.
        TargetWarmReset = 6,
        /// TARGET COLD RESET.
        TargetColdReset = 7,
        /// TASK REASSIGN.
        TaskReassign = 8,
        /// QUERY TASK (RFC 7144).
        QueryTask = 9,
        /// QUERY TASK SET (RFC 7144).
        QueryTaskSet = 10,
        /// I_T NEXUS RESET (RFC 7144).
        NexusReset = 11,
        /// QUERY ASYNCHRONOUS EVENT (RFC 7144).
        QueryAsynchronousEvent = 12,
    } else Other
}

/// Header of a Task Management Function Request; it has no data segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskManagementRequest {
    /// Deliver at once, outside the command window.
    pub immediate: bool,
    /// What is asked.
    pub function: TaskFunction,
    /// Logical unit, for the functions that concern one.
    pub lun: Lun,
    /// Tag of this request.
    pub itt: u32,
    /// The task to abort or reassign, otherwise [`RESERVED_TAG`](crate::RESERVED_TAG).
    pub referenced_task_tag: u32,
    /// Command sequence number.
    pub cmd_sn: Serial,
    /// Next status expected.
    pub exp_stat_sn: Serial,
    /// CmdSN of the task to abort.
    pub ref_cmd_sn: Serial,
    /// For TASK REASSIGN.
    pub exp_data_sn: u32,
}

impl TaskManagementRequest {
    /// Reads the header.
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<TaskManagementRequest, HeaderError> {
        no_ahs(bhs, ahs)?;
        let (lun, itt, referenced_task_tag, cmd_sn, exp_stat_sn, ref_cmd_sn, exp_data_sn) =
            fields(bhs, 8, (lun, be_u32, be_u32, serial, serial, serial, be_u32))?;
        Ok(TaskManagementRequest {
            immediate: bhs[0] & IMMEDIATE != 0,
            function: TaskFunction::from_code(bhs[1] & 0x7f),
            lun,
            itt,
            referenced_task_tag,
            cmd_sn,
            exp_stat_sn,
            ref_cmd_sn,
            exp_data_sn,
        })
    }
}

impl Emit for TaskManagementRequest {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        let flags = FINAL | (self.function.code() & 0x7f);
        Writer::new(Opcode::TaskManagementRequest, self.immediate, flags, data_bytes)
            .lun(self.lun)
            .u32(16, self.itt)
            .u32(20, self.referenced_task_tag)
            .serial(24, self.cmd_sn)
            .serial(28, self.exp_stat_sn)
            .serial(32, self.ref_cmd_sn)
            .u32(36, self.exp_data_sn)
            .finish(out);
    }
}
