//! Bytes waiting to be written: small pieces gathered, large payloads by reference.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use iscsi_pdu::{Emit, Framing};

/// Payloads from here on are not copied, in bytes.
const BY_REFERENCE_BYTES: usize = 4096;
/// Pieces handed to one vectored write.
pub(crate) const MAX_PIECES: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    ready: VecDeque<Bytes>,
    tail: Vec<u8>,
}

impl Outbox {
    /// Queues a PDU with its data segment.
    pub(crate) fn pdu(&mut self, framing: Framing, pdu: &impl Emit, data: Bytes) {
        // Callers keep segments within the target's MaxRecvDataSegmentLength, which is 24 bits.
        framing.header(pdu, data.len() as u32, &mut self.tail);
        if data.len() < BY_REFERENCE_BYTES {
            self.tail.extend_from_slice(&data);
            framing.trailer(&data, &mut self.tail);
        } else {
            self.seal();
            self.ready.push_back(data.clone());
            framing.trailer(&data, &mut self.tail);
        }
    }

    /// Queues bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.ready.push_back(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.tail.is_empty()
    }

    /// The front of the queue as slices; how many of `slices` were filled.
    pub(crate) fn slices<'a>(&'a mut self, slices: &mut [IoSlice<'a>; MAX_PIECES]) -> usize {
        if self.ready.len() < MAX_PIECES {
            self.seal();
        }
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.ready) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// Forgets what has been written.
    pub(crate) fn written(&mut self, mut bytes: usize) {
        while let Some(front) = self.ready.front_mut() {
            if front.len() > bytes {
                front.advance(bytes);
                return;
            }
            bytes -= front.len();
            self.ready.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iscsi_pdu::{DataOut, Lun, Serial};

    #[test]
    fn written_in_any_pieces() {
        let framing = Framing {
            header_digest: true,
            data_digest: true,
        };
        let pdu = DataOut {
            final_bit: true,
            lun: Lun::default(),
            itt: 1,
            ttt: 2,
            exp_stat_sn: Serial(3),
            data_sn: 0,
            buffer_offset: 0,
        };
        let large: Bytes = (0..9001).map(|n| n as u8).collect();
        let mut expected = Vec::new();
        let mut outbox = Outbox::default();
        for data in [Bytes::from_static(b"small"), large.clone(), large, Bytes::new()] {
            framing.pdu(&pdu, &data, &mut expected);
            outbox.pdu(framing, &pdu, data);
        }
        let mut sent = Vec::new();
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_PIECES];
            let filled = outbox.slices(&mut slices);
            let together: Vec<u8> = slices[..filled]
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .collect();
            let now = together.len().min(777);
            sent.extend_from_slice(&together[..now]);
            outbox.written(now);
        }
        assert_eq!(sent, expected);
    }
}
