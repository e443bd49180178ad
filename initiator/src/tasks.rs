//! What is in flight, and what comes of it.

use bytes::Bytes;
use iscsi_pdu::{Cdb, Lun, Residual, Serial, TaskFunction, TaskOutcome};

use crate::{CommandError, Sense};

/// Names a command of a session (its initiator task tag).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskTag(pub u32);

/// Which way a command's data goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// No data.
    None,
    /// To us: at most this many bytes (Expected Data Transfer Length).
    In(u32),
    /// To the target: these.
    Out(Bytes),
}

/// A SCSI command to be carried out.
#[derive(Clone, Debug)]
pub struct Command {
    /// Logical unit.
    pub lun: Lun,
    /// The command.
    pub cdb: Cdb,
    /// Its data.
    pub transfer: Transfer,
    /// Simple, ordered ...
    pub attribute: iscsi_pdu::TaskAttribute,
}

impl Command {
    /// A simple command.
    #[must_use]
    pub fn new(lun: Lun, cdb: impl Into<Cdb>, transfer: Transfer) -> Command {
        Command {
            lun,
            cdb: cdb.into(),
            transfer,
            attribute: iscsi_pdu::TaskAttribute::Simple,
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiOutcome {
    /// SAM-5 status code: 0x00 GOOD, 0x02 CHECK CONDITION ...
    pub status: u8,
    /// With CHECK CONDITION.
    pub sense: Option<Sense>,
    /// What the target sent.
    pub data: Bytes,
    /// How much more or less it had to move than we expected.
    pub residual: Residual,
}

impl ScsiOutcome {
    /// SAM-5 5.3.1.
    const GOOD: u8 = 0x00;

    /// Its data if the status is GOOD, an error that names the command otherwise.
    pub fn good(self, command: &'static str) -> Result<Bytes, CommandError> {
        if self.status == Self::GOOD {
            Ok(self.data)
        } else {
            Err(CommandError::Status {
                command,
                status: self.status,
                sense: self.sense,
            })
        }
    }
}

/// A request the target has not answered yet.
#[derive(Debug)]
pub(crate) enum Task {
    Scsi(ScsiTask),
    Nop {
        ping: Bytes,
    },
    Management {
        function: TaskFunction,
        lun: Lun,
        referenced: u32,
    },
    Text(TextTask),
    Logout,
}

#[derive(Debug)]
pub(crate) struct ScsiTask {
    pub(crate) command: Command,
    /// Once sent.
    pub(crate) cmd_sn: Serial,
    /// Data-In so far.
    pub(crate) received: Vec<u8>,
    /// Data-Out so far, or asked for: where the next R2T must begin.
    pub(crate) solicited: u32,
    pub(crate) next_data_sn: u32,
    pub(crate) next_r2t_sn: u32,
    pub(crate) is_last_data_in: bool,
}

#[derive(Debug)]
pub(crate) struct TextTask {
    pub(crate) lun: Lun,
    pub(crate) ttt: u32,
    pub(crate) text: Vec<u8>,
}

/// An answer that someone waits for.
#[derive(Debug)]
pub(crate) enum Done {
    Scsi(Result<ScsiOutcome, CommandError>),
    Nop,
    TaskManagement(TaskOutcome),
    /// One segment of an answer, and where to ask for the rest.
    Text {
        segment: Vec<u8>,
        continue_: bool,
        final_bit: bool,
        lun: Lun,
        ttt: u32,
    },
    Logout(iscsi_pdu::LogoutOutcome),
    Rejected(iscsi_pdu::RejectReason),
}
