//! What the link decides, without I/O: which packets pass, what is counted, and when silence means a dead line.

use bytes::Bytes;

use crate::filter::{Counters, DropReason, Filter};
use crate::frame::{Encoder, Frame};

/// After sending nothing for this long an end says that it is alive, in milliseconds.
pub const ALIVE_AFTER_MS: u64 = 10_000;

/// After hearing nothing for this long the line is dead, in milliseconds: two "alive" may be late.
pub const DEAD_AFTER_MS: u64 = 30_000;

/// Filter, counters and liveness of one link on one end. Time is any clock in milliseconds that does not go back.
#[derive(Debug)]
pub struct Engine {
    filter: Filter,
    counters: Counters,
    says_alive: bool,
    sent_ms: u64,
    heard_ms: u64,
}

impl Engine {
    /// `says_alive`: both ends send empty frames when they have nothing to say.
    pub fn new(filter: Filter, says_alive: bool, now_ms: u64) -> Self {
        Self {
            filter,
            counters: Counters::default(),
            says_alive,
            sent_ms: now_ms,
            heard_ms: now_ms,
        }
    }

    /// Takes a packet of our own kernel: into the encoder, or dropped and counted.
    pub fn outbound(&mut self, packet: &[u8], now_ms: u64, encoder: &mut Encoder) {
        let verdict = self.filter.outbound(packet, now_ms);
        match verdict.and_then(|()| {
            if encoder.push(packet) {
                Ok(())
            } else {
                Err(DropReason::TooLong)
            }
        }) {
            Ok(()) => {
                self.counters.sent_packets += 1;
                self.counters.sent_bytes += packet.len() as u64;
            }
            Err(reason) => {
                tracing::trace!(reason = reason.name(), "own packet dropped");
                self.counters.outbound_drops.note(reason);
            }
        }
    }

    /// Takes a frame of the peer: gives the packet for our kernel, if it may have it.
    pub fn inbound(&mut self, frame: Frame, now_ms: u64) -> Option<Bytes> {
        let Frame::Packet(packet) = frame else {
            return None;
        };
        match self.filter.inbound(&packet, now_ms) {
            Ok(()) => {
                self.counters.received_packets += 1;
                self.counters.received_bytes += packet.len() as u64;
                Some(packet)
            }
            Err(reason) => {
                tracing::trace!(reason = reason.name(), "the peer's packet dropped");
                self.counters.inbound_drops.note(reason);
                None
            }
        }
    }

    /// Our kernel did not take a packet that the filter had let pass.
    pub fn not_taken(&mut self, packet: &[u8]) {
        self.counters.received_packets -= 1;
        self.counters.received_bytes -= packet.len() as u64;
        self.counters.inbound_drops.note(DropReason::Device);
    }

    /// Something has been written to the peer.
    pub fn wrote(&mut self, now_ms: u64) {
        self.sent_ms = now_ms;
    }

    /// Bytes have come from the peer.
    pub fn heard(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
    }

    /// When an "alive" is due, unless something is written before.
    pub fn alive_due_ms(&self) -> Option<u64> {
        self.says_alive.then_some(self.sent_ms + ALIVE_AFTER_MS)
    }

    /// When the line is dead, unless something is heard before.
    pub fn dead_ms(&self) -> Option<u64> {
        self.says_alive.then_some(self.heard_ms + DEAD_AFTER_MS)
    }

    /// What has been counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
