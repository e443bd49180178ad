//! What is on its way out: headers and data as a list of slices for one vectored write.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use super::budget::Reservation;

/// Data for the initiator, shared by the Data-In PDUs that carry it.
#[derive(Debug)]
pub struct DataBuffer {
    bytes: Vec<u8>,
    /// Kept until the last byte is out.
    _reservation: Option<Reservation>,
}

impl DataBuffer {
    /// Keeps `reservation` for as long as any part of `bytes` is queued.
    pub fn new(bytes: Vec<u8>, reservation: Option<Reservation>) -> Arc<Self> {
        Arc::new(Self {
            bytes,
            _reservation: reservation,
        })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Debug)]
enum Segment {
    /// Headers, digests and padding: a run of bytes of the arena, which ends there.
    Headers { length: usize },
    Data {
        buffer: Arc<DataBuffer>,
        start: usize,
        end: usize,
    },
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Transmit {
    segments: VecDeque<Segment>,
    /// Headers of all queued PDUs, one after the other; `arena_sent` of its bytes are out.
    arena: Vec<u8>,
    arena_sent: usize,
    queued_bytes: usize,
    /// Largest buffers that have been sent, kept for reuse.
    spare: Vec<Vec<u8>>,
}

/// Buffers below this size are cheaper to allocate than to keep.
const SPARE_MIN_BYTES: usize = 64 * 1024;
/// How many buffers are kept at most.
const SPARE_MAX_BUFFERS: usize = 4;
/// Buffers above this size are not kept.
const SPARE_MAX_BYTES: usize = 2 * 1024 * 1024;

impl Transmit {
    /// Bytes still to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether everything is out.
    pub fn is_empty(&self) -> bool {
        self.queued_bytes == 0
    }

    /// Lets `write` append header bytes.
    pub fn headers(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.arena.len();
        write(&mut self.arena);
        let length = self.arena.len() - before;
        self.queued_bytes += length;
        match self.segments.back_mut() {
            Some(Segment::Headers { length: last }) => *last += length,
            _ if length > 0 => self.segments.push_back(Segment::Headers { length }),
            _ => {}
        }
    }

    /// Queues a part of `buffer`.
    pub fn data(&mut self, buffer: &Arc<DataBuffer>, start: usize, end: usize) {
        assert!(start <= end && end <= buffer.bytes.len());
        if start < end {
            self.queued_bytes += end - start;
            self.segments.push_back(Segment::Data {
                buffer: Arc::clone(buffer),
                start,
                end,
            });
        }
    }

    /// Fills `slices` from the front of the queue and returns how many there are.
    pub fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut arena_at = self.arena_sent;
        let mut count = 0;
        for (slot, segment) in slices.iter_mut().zip(&self.segments) {
            *slot = match segment {
                Segment::Headers { length } => {
                    let slice = &self.arena[arena_at..arena_at + length];
                    arena_at += length;
                    IoSlice::new(slice)
                }
                Segment::Data { buffer, start, end } => IoSlice::new(&buffer.bytes[*start..*end]),
            };
            count += 1;
        }
        count
    }

    /// `sent` bytes from the front are out.
    pub fn advance(&mut self, mut sent: usize) {
        assert!(sent <= self.queued_bytes, "more sent than was queued");
        self.queued_bytes -= sent;
        while sent > 0 {
            let whole = match self.segments.front_mut().expect("queued bytes have a segment") {
                Segment::Headers { length } => {
                    let part = sent.min(*length);
                    *length -= part;
                    self.arena_sent += part;
                    sent -= part;
                    *length == 0
                }
                Segment::Data { start, end, .. } => {
                    let part = sent.min(*end - *start);
                    *start += part;
                    sent -= part;
                    start == end
                }
            };
            if whole && let Some(Segment::Data { buffer, .. }) = self.segments.pop_front() {
                self.recycle_shared(buffer);
            }
        }
        if self.segments.is_empty() {
            self.arena.clear();
            self.arena_sent = 0;
        } else if self.arena_sent > ARENA_COMPACT_BYTES {
            self.arena.drain(..self.arena_sent);
            self.arena_sent = 0;
        }
    }

    /// An empty buffer with room for `capacity_bytes`, an old one if there is one that fits.
    pub fn buffer(&mut self, capacity_bytes: usize) -> Vec<u8> {
        if capacity_bytes >= SPARE_MIN_BYTES
            && let Some(index) = self.spare.iter().position(|spare| spare.capacity() >= capacity_bytes)
        {
            return self.spare.swap_remove(index);
        }
        Vec::with_capacity(capacity_bytes)
    }

    /// Takes a buffer that is no longer needed.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if (SPARE_MIN_BYTES..=SPARE_MAX_BYTES).contains(&buffer.capacity()) && self.spare.len() < SPARE_MAX_BUFFERS {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    fn recycle_shared(&mut self, buffer: Arc<DataBuffer>) {
        if let Some(last) = Arc::into_inner(buffer) {
            self.recycle(last.bytes);
        }
    }
}

/// Sent header bytes are cut off the arena when there are this many.
const ARENA_COMPACT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(transmit: &mut Transmit, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !transmit.is_empty() {
            let mut slices = [IoSlice::new(&[]); 3];
            let count = transmit.gather(&mut slices);
            let joined: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
            let part = step.min(joined.len());
            out.extend_from_slice(&joined[..part]);
            transmit.advance(part);
        }
        out
    }

    #[test]
    fn what_goes_in_comes_out_in_order_however_it_is_cut() {
        for step in [1, 2, 3, 7, 100] {
            let mut transmit = Transmit::default();
            let buffer = DataBuffer::new(b"abcdefgh".to_vec(), None);
            transmit.headers(|out| out.extend(b"12"));
            transmit.headers(|out| out.extend(b"34"));
            transmit.data(&buffer, 0, 4);
            transmit.headers(|out| out.extend(b"5"));
            transmit.data(&buffer, 4, 8);
            transmit.data(&buffer, 8, 8);
            transmit.headers(|_| {});
            assert_eq!(transmit.queued_bytes(), 13);
            assert_eq!(drain(&mut transmit, step), b"1234abcd5efgh", "step {step}");
        }
    }
}
