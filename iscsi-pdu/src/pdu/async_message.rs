//! Asynchronous Message (RFC 7143 §11.9).

use nom::number::complete::{be_u8, be_u16};

use crate::codes::wire_codes;
use crate::fields::{FINAL, Writer, fields, lun, no_ahs, reserved, serial};
use crate::{BHS_BYTES, Emit, HeaderError, Lun, Opcode, RESERVED_TAG, Serial};

wire_codes! {
    /// What happened (RFC 7143 §11.9.1).
    AsyncEvent: u8 {
        /// A SCSI asynchronous event; sense data is in the data segment.
        ScsiEvent = 0,
        /// The target requests logout; Parameter3 is the time in seconds.
        LogoutRequested = 1,
        /// The target will drop the connection in Parameter1.
        ConnectionDrop = 2,
        /// The target will drop all connections of the session.
        SessionDrop = 3,
        /// The target requests parameter negotiation on this connection.
        NegotiationRequested = 4,
        /// All active tasks of the logical unit are being terminated.
        TasksTerminated = 5,
        /// Vendor-specific.
        Vendor = 255,
    } else Other
}

/// Header of an Asynchronous Message; its data segment is sense ([`sense_bytes`](crate::sense_bytes)) and event data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsyncMessage {
    /// Logical unit, for events that concern one.
    pub lun: Lun,
    /// Status sequence number.
    pub stat_sn: Serial,
    /// Next command expected.
    pub exp_cmd_sn: Serial,
    /// Last command that may be sent.
    pub max_cmd_sn: Serial,
    /// What happened.
    pub event: AsyncEvent,
    /// AsyncVCode: a vendor's code.
    pub vendor_code: u8,
    /// Parameter1: a CID where the event has one.
    pub parameter1: u16,
    /// Parameter2: Time2Wait in seconds where the event has one.
    pub parameter2: u16,
    /// Parameter3: Time2Retain or another time in seconds where the event has one.
    pub parameter3: u16,
}

impl AsyncMessage {
    /// Reads the header.
    pub fn parse(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<AsyncMessage, HeaderError> {
        no_ahs(bhs, ahs)?;
        let (lun, (), stat_sn, exp_cmd_sn, max_cmd_sn, event, vendor_code, parameter1, parameter2, parameter3) =
            fields(
                bhs,
                8,
                (
                    lun,
                    reserved::<8>,
                    serial,
                    serial,
                    serial,
                    be_u8,
                    be_u8,
                    be_u16,
                    be_u16,
                    be_u16,
                ),
            )?;
        let event = AsyncEvent::from_code(event);
        Ok(AsyncMessage {
            lun,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            event,
            vendor_code,
            parameter1,
            parameter2,
            parameter3,
        })
    }
}

impl Emit for AsyncMessage {
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>) {
        Writer::new(Opcode::AsyncMessage, false, FINAL, data_bytes)
            .lun(self.lun)
            .u32(16, RESERVED_TAG)
            .serial(24, self.stat_sn)
            .serial(28, self.exp_cmd_sn)
            .serial(32, self.max_cmd_sn)
            .u8(36, self.event.code())
            .u8(37, self.vendor_code)
            .u16(38, self.parameter1)
            .u16(40, self.parameter2)
            .u16(42, self.parameter3)
            .finish(out);
    }
}
