//! Whatever an initiator sends.

use crate::fields::opcode_of;
use crate::pdu::{
    DataOut, LoginRequest, LogoutRequest, NopOut, ScsiCommand, Snack, TaskManagementRequest, TextRequest,
};
use crate::{Emit, HeaderError, Opcode, RawHeader, Serial};

/// The header of a PDU from the initiator, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// NOP-Out.
    NopOut(NopOut),
    /// SCSI Command.
    ScsiCommand(ScsiCommand),
    /// Task Management Function Request.
    TaskManagement(TaskManagementRequest),
    /// Login Request.
    Login(LoginRequest),
    /// Text Request.
    Text(TextRequest),
    /// SCSI Data-Out.
    DataOut(DataOut),
    /// Logout Request.
    Logout(LogoutRequest),
    /// SNACK Request.
    Snack(Snack),
}

impl Request {
    /// Reads a header. Opcodes that only targets send are unknown here.
    pub fn parse(header: &RawHeader) -> Result<Request, HeaderError> {
        let (bhs, ahs) = (&header.bhs, header.ahs.as_slice());
        let opcode = opcode_of(bhs);
        Ok(match Opcode::from_code(opcode) {
            Some(Opcode::NopOut) => Request::NopOut(NopOut::parse(bhs, ahs)?),
            Some(Opcode::ScsiCommand) => Request::ScsiCommand(ScsiCommand::parse(bhs, ahs)?),
            Some(Opcode::TaskManagementRequest) => Request::TaskManagement(TaskManagementRequest::parse(bhs, ahs)?),
            Some(Opcode::LoginRequest) => Request::Login(LoginRequest::parse(bhs, ahs)?),
            Some(Opcode::TextRequest) => Request::Text(TextRequest::parse(bhs, ahs)?),
            Some(Opcode::DataOut) => Request::DataOut(DataOut::parse(bhs, ahs)?),
            Some(Opcode::LogoutRequest) => Request::Logout(LogoutRequest::parse(bhs, ahs)?),
            Some(Opcode::Snack) => Request::Snack(Snack::parse(bhs, ahs)?),
            _ => return Err(HeaderError::UnknownOpcode { opcode }),
        })
    }

    /// Whether it is to be delivered at once, outside the command window. Login always is.
    #[must_use]
    pub fn immediate(&self) -> bool {
        match self {
            Request::NopOut(pdu) => pdu.immediate,
            Request::ScsiCommand(pdu) => pdu.immediate,
            Request::TaskManagement(pdu) => pdu.immediate,
            Request::Text(pdu) => pdu.immediate,
            Request::Logout(pdu) => pdu.immediate,
            Request::Login(_) => true,
            Request::DataOut(_) | Request::Snack(_) => false,
        }
    }

    /// Initiator task tag.
    #[must_use]
    pub fn itt(&self) -> u32 {
        match self {
            Request::NopOut(pdu) => pdu.itt,
            Request::ScsiCommand(pdu) => pdu.itt,
            Request::TaskManagement(pdu) => pdu.itt,
            Request::Login(pdu) => pdu.itt,
            Request::Text(pdu) => pdu.itt,
            Request::DataOut(pdu) => pdu.itt,
            Request::Logout(pdu) => pdu.itt,
            Request::Snack(pdu) => pdu.itt,
        }
    }

    /// Command sequence number; Data-Out and SNACK have none.
    #[must_use]
    pub fn cmd_sn(&self) -> Option<Serial> {
        match self {
            Request::NopOut(pdu) => Some(pdu.cmd_sn),
            Request::ScsiCommand(pdu) => Some(pdu.cmd_sn),
            Request::TaskManagement(pdu) => Some(pdu.cmd_sn),
            Request::Login(pdu) => Some(pdu.cmd_sn),
            Request::Text(pdu) => Some(pdu.cmd_sn),
            Request::Logout(pdu) => Some(pdu.cmd_sn),
            Request::DataOut(_) | Request::Snack(_) => None,
        }
    }

    /// The status number up to which (not including) the initiator has all.
    #[must_use]
    pub fn exp_stat_sn(&self) -> Serial {
        match self {
            Request::NopOut(pdu) => pdu.exp_stat_sn,
            Request::ScsiCommand(pdu) => pdu.exp_stat_sn,
            Request::TaskManagement(pdu) => pdu.exp_stat_sn,
            Request::Login(pdu) => pdu.exp_stat_sn,
            Request::Text(pdu) => pdu.exp_stat_sn,
            Request::DataOut(pdu) => pdu.exp_stat_sn,
            Request::Logout(pdu) => pdu.exp_stat_sn,
            Request::Snack(pdu) => pdu.exp_stat_sn,
        }
    }

    fn as_emit(&self) -> &dyn Emit {
        match self {
            Request::NopOut(pdu) => pdu,
            Request::ScsiCommand(pdu) => pdu,
            Request::TaskManagement(pdu) => pdu,
            Request::Login(pdu) => pdu,
            Request::Text(pdu) => pdu,
            Request::DataOut(pdu) => pdu,
            Request::Logout(pdu) => pdu,
            Request::Snack(pdu) => pdu,
        }
    }
}

impl Emit for Request {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        self.as_emit().emit(data_bytes, out);
    }

    fn header_bytes(&self) -> usize {
        self.as_emit().header_bytes()
    }
}
