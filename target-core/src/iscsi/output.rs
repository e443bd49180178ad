//! Emitting PDUs into the transmit queue, with digests as negotiated.

use std::sync::Arc;

use iscsi_pdu::Emit;
use iscsi_pdu::Framing;

use super::transmit::{DataBuffer, Transmit};

/// Where a state machine puts what it has to say.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) transmit: Transmit,
    pub(super) framing: Framing,
}

impl Output {
    /// Queues a PDU with a short data segment, which is copied.
    pub(super) fn pdu(&mut self, pdu: &impl Emit, data: &[u8]) {
        let framing = &self.framing;
        let data_bytes = u32::try_from(data.len()).expect("data segments are far below 4 GiB");
        self.transmit.headers(|out| {
            framing.header(pdu, data_bytes, out);
            out.extend_from_slice(data);
            framing.trailer(data, out);
        });
    }

    /// Queues a PDU whose data segment is a part of `buffer`, which is not copied.
    pub(super) fn pdu_from(&mut self, pdu: &impl Emit, buffer: &Arc<DataBuffer>, start: usize, end: usize) {
        let framing = &self.framing;
        let data_bytes = u32::try_from(end - start).expect("data segments are far below 4 GiB");
        self.transmit.headers(|out| framing.header(pdu, data_bytes, out));
        self.transmit.data(buffer, start, end);
        self.transmit
            .headers(|out| framing.trailer(&buffer.bytes()[start..end], out));
    }
}
