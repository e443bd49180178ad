//! Cuts a byte stream into PDUs, in either direction, wherever the reads happen to end.
//!
//! For each PDU: [`Decoder::header`] until it yields one, then [`Decoder::data_remaining`] bytes received wherever the
//! caller likes and reported to [`Decoder::data`], then [`Decoder::trailer`] until it yields. A header that arrives
//! whole is read where it lies; only one that is split is gathered first.

use crate::framing::padding;
use crate::{BHS_BYTES, DIGEST_BYTES, DecodeError, Digest};

/// What the decoder takes from a peer.
#[derive(Clone, Copy, Debug)]
pub struct DecoderLimits {
    /// Additional header segments of one PDU, in bytes (the field can say up to 1020).
    pub max_ahs_bytes: usize,
    /// Data segment of one PDU, in bytes: the MaxRecvDataSegmentLength we declared.
    pub max_data_segment_bytes: u32,
}

/// A PDU's header, framing checked and nothing else. [`Request::parse`](crate::Request::parse) and
/// [`Response::parse`](crate::Response::parse) go on from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawHeader {
    /// The basic header segment.
    pub bhs: [u8; BHS_BYTES],
    /// Additional header segments, padding included; mostly empty, and then nothing is allocated.
    pub ahs: Vec<u8>,
    /// Length of the data segment that follows, without padding.
    pub data_bytes: u32,
}

/// How a data segment arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailer {
    /// As sent, as far as the connection's digests can tell.
    Intact,
    /// Damaged: the data must not be used (RFC 7143 §7.8). The framing is still sound.
    DigestMismatch {
        /// What the peer sent.
        received: Digest,
        /// What the bytes give.
        computed: Digest,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Header,
    Data,
}

/// The incremental decoder of one direction of one connection.
#[derive(Debug)]
pub struct Decoder {
    limits: DecoderLimits,
    /// What the next PDU will have.
    digests: Digests,
    /// What the PDU being read has.
    current: Digests,
    step: Step,
    /// The beginning of a header that arrived in pieces; at most BHS, `max_ahs_bytes` and a digest.
    partial: Vec<u8>,
    data_remaining: u32,
    data_digest: Digest,
    /// Padding and data digest, as far as they have come.
    trailer: [u8; 3 + DIGEST_BYTES],
    trailer_filled: usize,
    trailer_padding: usize,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Digests {
    header: bool,
    data: bool,
}

impl Decoder {
    /// A decoder at the beginning of a connection, where there are no digests.
    #[must_use]
    pub fn new(limits: DecoderLimits) -> Decoder {
        Decoder {
            limits,
            digests: Digests::default(),
            current: Digests::default(),
            step: Step::Header,
            partial: Vec::new(),
            data_remaining: 0,
            data_digest: Digest::EMPTY,
            trailer: [0; 3 + DIGEST_BYTES],
            trailer_filled: 0,
            trailer_padding: 0,
            trailer_bytes: 0,
        }
    }

    /// Says which digests PDUs carry from the next one on (one whose header has not begun).
    pub fn set_digests(&mut self, header: bool, data: bool) {
        self.digests = Digests { header, data };
    }

    /// Changes the limit on data segments, from the next header on.
    pub fn set_max_data_segment_bytes(&mut self, bytes: u32) {
        self.limits.max_data_segment_bytes = bytes;
    }

    /// Takes a header from the front of `input`. `None`: all of `input` was taken, and more is needed.
    ///
    /// # Panics
    /// When the PDU before has not been read to its end: a mistake of the caller, not of the peer.
    pub fn header(&mut self, input: &mut &[u8]) -> Result<Option<RawHeader>, DecodeError> {
        assert!(
            self.step == Step::Header,
            "the data segment before this header has not been read"
        );
        if self.partial.is_empty() {
            if input.is_empty() {
                return Ok(None);
            }
            self.current = self.digests;
            if let Some(bhs) = input.first_chunk::<BHS_BYTES>() {
                let bytes = self.header_bytes(bhs)?;
                if let Some((header, rest)) = input.split_at_checked(bytes) {
                    let header = self.whole_header(header)?;
                    *input = rest;
                    return Ok(Some(header));
                }
            }
        }
        self.gather(BHS_BYTES, input);
        let Some(bhs) = self.partial.first_chunk::<BHS_BYTES>() else {
            return Ok(None);
        };
        let bytes = self.header_bytes(bhs)?;
        self.gather(bytes, input);
        if self.partial.len() < bytes {
            return Ok(None);
        }
        // Swapped out and back so that its memory serves the next split header too.
        let mut partial = std::mem::take(&mut self.partial);
        let header = self.whole_header(&partial);
        partial.clear();
        self.partial = partial;
        header.map(Some)
    }

    /// Moves bytes from `input` to `partial` until that holds `want`.
    fn gather(&mut self, want: usize, input: &mut &[u8]) {
        let missing = want.saturating_sub(self.partial.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.partial.extend_from_slice(taken);
        *input = rest;
    }

    /// Length of BHS, AHS and header digest together.
    fn header_bytes(&self, bhs: &[u8; BHS_BYTES]) -> Result<usize, DecodeError> {
        let ahs_bytes = usize::from(bhs[4]) * 4;
        let max_bytes = self.limits.max_ahs_bytes;
        // With a header digest the length may simply be damaged, but there is no way on in either case.
        if ahs_bytes > max_bytes {
            return Err(DecodeError::AhsTooLong {
                bytes: ahs_bytes,
                max_bytes,
            });
        }
        Ok(BHS_BYTES + ahs_bytes + if self.current.header { DIGEST_BYTES } else { 0 })
    }

    /// `bytes` is exactly a header with its AHS and digest.
    fn whole_header(&mut self, bytes: &[u8]) -> Result<RawHeader, DecodeError> {
        let covered = if self.current.header {
            let (covered, received) = bytes.split_at(bytes.len() - DIGEST_BYTES);
            let mut wire = [0; DIGEST_BYTES];
            wire.copy_from_slice(received);
            let (received, computed) = (Digest::from_wire(wire), Digest::of(covered));
            if received != computed {
                return Err(DecodeError::HeaderDigest { received, computed });
            }
            covered
        } else {
            bytes
        };
        let (bhs, ahs) = covered.split_at(BHS_BYTES);
        let data_bytes = u32::from_be_bytes([0, bhs[5], bhs[6], bhs[7]]);
        let max_bytes = self.limits.max_data_segment_bytes;
        if data_bytes > max_bytes {
            return Err(DecodeError::DataSegmentTooLong {
                opcode: bhs[0] & 0x3f,
                bytes: data_bytes,
                max_bytes,
            });
        }
        let mut header = RawHeader {
            bhs: [0; BHS_BYTES],
            ahs: ahs.to_vec(),
            data_bytes,
        };
        header.bhs.copy_from_slice(bhs);

        self.step = Step::Data;
        self.data_remaining = data_bytes;
        self.data_digest = Digest::EMPTY;
        self.trailer_filled = 0;
        self.trailer_padding = padding(data_bytes);
        self.trailer_bytes = self.trailer_padding
            + if self.current.data && data_bytes > 0 {
                DIGEST_BYTES
            } else {
                0
            };
        Ok(header)
    }

    /// Bytes of this PDU's data segment still to come.
    #[must_use]
    pub fn data_remaining(&self) -> u32 {
        self.data_remaining
    }

    /// Tells the decoder which data bytes came next, so that it can count and check them.
    ///
    /// # Panics
    /// When there are more of them than [`data_remaining`](Decoder::data_remaining).
    pub fn data(&mut self, chunk: &[u8]) {
        assert!(
            chunk.len() <= self.data_remaining as usize,
            "more data than the segment holds"
        );
        self.data_remaining -= chunk.len() as u32;
        if self.current.data {
            self.data_digest = self.data_digest.append(chunk);
        }
    }

    /// Takes padding and data digest from the front of `input`, once all data has come. `None`: all of `input` was
    /// taken, and more is needed. Without padding and digest it yields at once, whatever `input` holds.
    ///
    /// # Panics
    /// Before [`header`](Decoder::header) or while [`data_remaining`](Decoder::data_remaining) is not 0.
    pub fn trailer(&mut self, input: &mut &[u8]) -> Result<Option<Trailer>, DecodeError> {
        assert!(
            self.step == Step::Data && self.data_remaining == 0,
            "the data segment has not been read"
        );
        let missing = (self.trailer_bytes - self.trailer_filled).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.trailer[self.trailer_filled..self.trailer_filled + missing].copy_from_slice(taken);
        self.trailer_filled += missing;
        *input = rest;
        if self.trailer_filled < self.trailer_bytes {
            return Ok(None);
        }
        self.step = Step::Header;
        let (padding, digest) = self.trailer[..self.trailer_bytes].split_at(self.trailer_padding);
        let Some(wire) = digest.first_chunk::<DIGEST_BYTES>() else {
            return Ok(Some(Trailer::Intact));
        };
        let (received, computed) = (Digest::from_wire(*wire), self.data_digest.append(padding));
        Ok(Some(if received == computed {
            Trailer::Intact
        } else {
            Trailer::DigestMismatch { received, computed }
        }))
    }
}
