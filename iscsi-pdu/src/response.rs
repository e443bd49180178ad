//! Whatever a target sends.

use crate::fields::opcode_of;
use crate::pdu::{
    AsyncMessage, DataIn, LoginResponse, LogoutResponse, NopIn, R2t, Reject, ScsiResponse, TaskManagementResponse,
    TextResponse,
};
use crate::{Emit, HeaderError, Opcode, RawHeader, Serial};

/// The header of a PDU from the target, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// NOP-In.
    NopIn(NopIn),
    /// SCSI Response.
    ScsiResponse(ScsiResponse),
    /// Task Management Function Response.
    TaskManagement(TaskManagementResponse),
    /// Login Response.
    Login(LoginResponse),
    /// Text Response.
    Text(TextResponse),
    /// SCSI Data-In.
    DataIn(DataIn),
    /// Logout Response.
    Logout(LogoutResponse),
    /// Ready To Transfer.
    R2t(R2t),
    /// Asynchronous Message.
    AsyncMessage(AsyncMessage),
    /// Reject.
    Reject(Reject),
}

impl Response {
    /// Reads a header. Opcodes that only initiators send are unknown here.
    pub fn parse(header: &RawHeader) -> Result<Response, HeaderError> {
        let (bhs, ahs) = (&header.bhs, header.ahs.as_slice());
        let opcode = opcode_of(bhs);
        Ok(match Opcode::from_code(opcode) {
            Some(Opcode::NopIn) => Response::NopIn(NopIn::parse(bhs, ahs)?),
            Some(Opcode::ScsiResponse) => Response::ScsiResponse(ScsiResponse::parse(bhs, ahs)?),
            Some(Opcode::TaskManagementResponse) => Response::TaskManagement(TaskManagementResponse::parse(bhs, ahs)?),
            Some(Opcode::LoginResponse) => Response::Login(LoginResponse::parse(bhs, ahs)?),
            Some(Opcode::TextResponse) => Response::Text(TextResponse::parse(bhs, ahs)?),
            Some(Opcode::DataIn) => Response::DataIn(DataIn::parse(bhs, ahs)?),
            Some(Opcode::LogoutResponse) => Response::Logout(LogoutResponse::parse(bhs, ahs)?),
            Some(Opcode::R2t) => Response::R2t(R2t::parse(bhs, ahs)?),
            Some(Opcode::AsyncMessage) => Response::AsyncMessage(AsyncMessage::parse(bhs, ahs)?),
            Some(Opcode::Reject) => Response::Reject(Reject::parse(bhs, ahs)?),
            _ => return Err(HeaderError::UnknownOpcode { opcode }),
        })
    }

    /// Initiator task tag; an Asynchronous Message and a Reject have none.
    #[must_use]
    pub fn itt(&self) -> Option<u32> {
        match self {
            Response::NopIn(pdu) => Some(pdu.itt),
            Response::ScsiResponse(pdu) => Some(pdu.itt),
            Response::TaskManagement(pdu) => Some(pdu.itt),
            Response::Login(pdu) => Some(pdu.itt),
            Response::Text(pdu) => Some(pdu.itt),
            Response::DataIn(pdu) => Some(pdu.itt),
            Response::Logout(pdu) => Some(pdu.itt),
            Response::R2t(pdu) => Some(pdu.itt),
            Response::AsyncMessage(_) | Response::Reject(_) => None,
        }
    }

    /// (ExpCmdSN, MaxCmdSN): the command window, in every PDU of a target.
    #[must_use]
    pub fn window(&self) -> (Serial, Serial) {
        match self {
            Response::NopIn(pdu) => (pdu.exp_cmd_sn, pdu.max_cmd_sn),
            Response::ScsiResponse(pdu) => (pdu.exp_cmd_sn, pdu.max_cmd_sn),
            Response::TaskManagement(pdu) => (pdu.exp_cmd_sn, pdu.max_cmd_sn),
            Response::Login(pdu) => (pdu.exp_cmd_sn, pdu.max_cmd_sn),
            Response::Text(pdu) => (pdu.exp_cmd_sn, pdu.max_cmd_sn),
            Response::DataIn(pdu) => (pdu.exp_cmd_sn, pdu.max_cmd_sn),
            Response::Logout(pdu) => (pdu.exp_cmd_sn, pdu.max_cmd_sn),
            Response::R2t(pdu) => (pdu.exp_cmd_sn, pdu.max_cmd_sn),
            Response::AsyncMessage(pdu) => (pdu.exp_cmd_sn, pdu.max_cmd_sn),
            Response::Reject(pdu) => (pdu.exp_cmd_sn, pdu.max_cmd_sn),
        }
    }

    /// The StatSN this PDU uses up; `None` where it carries none or only announces the next one.
    #[must_use]
    pub fn stat_sn(&self) -> Option<Serial> {
        match self {
            Response::NopIn(pdu) => (pdu.itt != crate::RESERVED_TAG).then_some(pdu.stat_sn),
            Response::ScsiResponse(pdu) => Some(pdu.stat_sn),
            Response::TaskManagement(pdu) => Some(pdu.stat_sn),
            Response::Login(pdu) => Some(pdu.stat_sn),
            Response::Text(pdu) => Some(pdu.stat_sn),
            Response::DataIn(pdu) => pdu.status.map(|status| status.stat_sn),
            Response::Logout(pdu) => Some(pdu.stat_sn),
            Response::R2t(_) => None,
            Response::AsyncMessage(pdu) => Some(pdu.stat_sn),
            Response::Reject(pdu) => Some(pdu.stat_sn),
        }
    }

    fn as_emit(&self) -> &dyn Emit {
        match self {
            Response::NopIn(pdu) => pdu,
            Response::ScsiResponse(pdu) => pdu,
            Response::TaskManagement(pdu) => pdu,
            Response::Login(pdu) => pdu,
            Response::Text(pdu) => pdu,
            Response::DataIn(pdu) => pdu,
            Response::Logout(pdu) => pdu,
            Response::R2t(pdu) => pdu,
            Response::AsyncMessage(pdu) => pdu,
            Response::Reject(pdu) => pdu,
        }
    }
}

impl Emit for Response {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        self.as_emit().emit(data_bytes, out);
    }

    fn header_bytes(&self) -> usize {
        self.as_emit().header_bytes()
    }
}
