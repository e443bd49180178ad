//! The SCSI command core: CDB -> effect on a LUN -> status and sense.
//!
//! It knows nothing of iSCSI. A transport [`attach`](Device::attach)es an I_T nexus to a [`Device`], asks it to
//! [`prepare`](Nexus::prepare) a CDB, learns how much data goes which way, collects that data, and
//! [`run`](Execution::run)s the command.

mod absent;
mod atomic;
mod attention;
mod block;
mod compare;
mod control;
mod copy;
mod device;
mod diagnose;
mod execute;
mod generation;
mod inquiry;
mod limits;
mod log;
mod maintenance;
mod mode;
mod nexus;
mod opcodes;
mod path;
mod persist;
mod ports;
mod provision;
mod ranges;
mod removal;
mod request;
mod reservations;
mod reserve;
mod sanitize;
mod sense;
mod simple;
mod size;
mod table;
mod thin;
mod unit;
mod upkeep;
mod vpd;
mod withdrawal;

pub use device::{ChangeError, Device, Mode, Observer, Slot};
pub use execute::Execution;
pub use generation::Drain;
pub use nexus::{Nexus, Refused, View};
pub use persist::{FileStore, ReservationStore, Saved, SavedRegistrant, SavedReservation};
pub use ports::TargetPort;
pub use request::MAX_TRANSFER_BYTES;
pub use size::ResizeError;
pub use unit::{LogicalUnit, LogicalUnitOptions};
pub use upkeep::MediumOptions;
pub use withdrawal::Removal;

use sense::Sense;

/// SCSI status byte (SAM-6 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The command completed.
    Good = 0x00,
    /// Sense data says what is wrong.
    CheckCondition = 0x02,
    /// PRE-FETCH and the like: the condition was met.
    ConditionMet = 0x04,
    /// The logical unit cannot take the command now.
    Busy = 0x08,
    /// Another initiator holds the logical unit.
    ReservationConflict = 0x18,
    /// No room for another task.
    TaskSetFull = 0x28,
    /// The task was aborted by another I_T nexus.
    TaskAborted = 0x40,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// SCSI status.
    pub status: Status,
    /// Sense data, in the format the initiators have chosen (D_SENSE), empty unless `status` is CHECK CONDITION.
    pub sense: Vec<u8>,
    /// Data for the initiator, already cut to the allocation length.
    pub data_in: Vec<u8>,
}

impl Response {
    fn status(status: Status) -> Self {
        Self {
            status,
            sense: Vec::new(),
            data_in: Vec::new(),
        }
    }

    fn good(data_in: Vec<u8>) -> Self {
        Self {
            status: Status::Good,
            sense: Vec::new(),
            data_in,
        }
    }

    /// TASK ABORTED: it has done nothing.
    pub(crate) fn task_aborted() -> Self {
        Self::status(Status::TaskAborted)
    }

    /// TASK SET FULL: there is no memory for what the command brings, and it may be sent again.
    pub(crate) fn task_set_full() -> Self {
        Self::status(Status::TaskSetFull)
    }

    fn check(sense: Sense) -> Self {
        Self::check_as(sense, sense::Format::Fixed)
    }

    /// CHECK CONDITION with sense data as the logical unit gives it.
    fn check_as(sense: Sense, format: sense::Format) -> Self {
        Self {
            status: Status::CheckCondition,
            sense: sense.bytes(format),
            data_in: Vec::new(),
        }
    }
}

/// The command would have blocked: run it again on a worker with [`Wait::Allowed`](crate::lun::Wait::Allowed),
/// which starts it over. What the first attempt may have done is part of what the second does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WouldBlock;

/// What `prepare` made of a CDB.
#[derive(Debug)]
pub enum Prepared {
    /// It is over already: refused, or answered from memory.
    Done(Response),
    /// It is to be run once its data is here.
    Run(Execution),
}

/// Names the device under which a LUN is known, stable across restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// T10 vendor identification, at most 8 ASCII bytes.
    pub vendor: String,
    /// Product identification, at most 16 ASCII bytes.
    pub product: String,
    /// Product revision level, at most 4 ASCII bytes.
    pub revision: String,
    /// Unit serial number (VPD 80), at most 36 ASCII bytes. The NAA designator of VPD 83 is derived from it.
    pub serial: String,
}
