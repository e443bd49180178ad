//! One file per PDU: a plain typed header, a checked `parse` and an `emit`.
//!
//! Every `parse` takes the 48-byte BHS and the AHS bytes and refuses values the standard does not allow; reserved bits
//! are ignored, as RFC 7143 §11.1 asks. Data segments are not part of these types: they travel beside them.

mod async_message;
mod data_in;
mod data_out;
mod login;
mod login_request;
mod login_response;
mod logout_request;
mod logout_response;
mod nop_in;
mod nop_out;
mod r2t;
mod reject;
mod residual;
mod scsi_command;
mod scsi_response;
mod snack;
mod task_management_request;
mod task_management_response;
mod text_request;
mod text_response;

pub use async_message::{AsyncEvent, AsyncMessage};
pub use data_in::{DataIn, DataInStatus};
pub use data_out::DataOut;
pub use login::{LoginStatus, Stage};
pub use login_request::LoginRequest;
pub use login_response::LoginResponse;
pub use logout_request::{LogoutReason, LogoutRequest};
pub use logout_response::{LogoutOutcome, LogoutResponse};
pub use nop_in::NopIn;
pub use nop_out::NopOut;
pub use r2t::R2t;
pub use reject::{Reject, RejectReason};
pub use residual::Residual;
pub use scsi_command::{Cdb, MAX_CDB_BYTES, ScsiCommand, TaskAttribute};
pub use scsi_response::{ScsiResponse, ServiceResponse, sense_bytes, write_sense};
pub use snack::{Snack, SnackType};
pub use task_management_request::{TaskFunction, TaskManagementRequest};
pub use task_management_response::{TaskManagementResponse, TaskOutcome};
pub use text_request::TextRequest;
pub use text_response::TextResponse;
