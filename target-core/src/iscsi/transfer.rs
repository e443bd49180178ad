//! A command's data on its way: what has come for it, and what is still to be sent.

use std::collections::VecDeque;
use std::sync::Arc;

use iscsi_pdu::pdu::Residual;

use super::transmit::DataBuffer;
use crate::scsi::Response;

/// Data from the initiator.
#[derive(Debug, Default)]
pub(super) struct DataOut {
    /// What has come so far, in order.
    pub(super) buffer: Vec<u8>,
    /// How much of it has been handed to the medium, in bytes.
    pub(super) received_bytes: u32,
    /// How much the command takes in all, in bytes: the smaller of what the CDB and the initiator say.
    pub(super) wanted_bytes: u32,
    /// Whether unsolicited Data-Out PDUs are still to come.
    pub(super) unsolicited_open: bool,
    /// How much comes unasked, in bytes.
    pub(super) unasked_bytes: u32,
    /// DataSN of the next unsolicited Data-Out.
    pub(super) next_data_sn: u32,
    /// First byte that no R2T has asked for yet.
    pub(super) asked_bytes: u32,
    /// R2Ts not yet answered in full, in order.
    pub(super) r2ts: VecDeque<OpenR2t>,
    /// R2TSN of the next R2T.
    pub(super) next_r2t_sn: u32,
}

/// An R2T whose data is not here yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenR2t {
    pub(super) ttt: u32,
    /// Where its data ends, in bytes from the start of the command's data.
    pub(super) end_bytes: u32,
    pub(super) next_data_sn: u32,
}

/// Data for the initiator, as far as it has not been cut into PDUs yet, and the status that goes behind it.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) buffer: Arc<DataBuffer>,
    /// Where the next PDU begins.
    pub(super) start: usize,
    /// Where the burst ends that it is part of.
    pub(super) burst_end: usize,
    pub(super) data_sn: u32,
    pub(super) response: Response,
    pub(super) residual: Residual,
}

impl Transfer {
    /// Bytes that are in no PDU yet.
    pub(super) fn left_bytes(&self) -> usize {
        self.buffer.bytes().len() - self.start
    }
}
