//! IP packets in a byte stream: a two-byte length in network order, then the packet.
//!
//! Sans-IO. The decoder takes bytes as they come and hands out whole packets; the encoder gathers packets until the
//! shell writes them in one go. A length of zero carries no packet: it says that the sender is alive.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest packet a frame can carry, in bytes: what the total length of IPv4 can say (RFC 791 §3.1).
pub const MAX_PACKET_BYTES: usize = 0xffff;

/// The length in front of each packet, in bytes.
pub const LENGTH_BYTES: usize = 2;

/// What the encoder gathers before it wants to be written out, in bytes.
pub const COALESCE_BYTES: usize = 0x1_0000;

/// What the peer did wrong; the stream cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length announces more than the MTU both ends agreed on.
    #[error("a packet of {length} bytes was announced, but {max} was agreed as the largest")]
    TooLong {
        /// The announced length in bytes.
        length: usize,
        /// The agreed bound in bytes.
        max: usize,
    },
}

/// What comes out of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// One packet, not looked at yet.
    Packet(Bytes),
    /// The peer is alive and has nothing to say.
    Alive,
}

/// Turns bytes into packets.
///
/// It holds at most one packet more than was put into it: the shell takes out all whole frames before it puts in more.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    max: usize,
    failed: Option<FrameError>,
}

impl Decoder {
    /// A decoder that refuses packets over `max` bytes (itself bounded by [`MAX_PACKET_BYTES`]), starting with what
    /// was read past the end of the hello.
    pub fn new(max: usize, already_read: BytesMut) -> Self {
        Self {
            buffer: already_read,
            max: max.min(MAX_PACKET_BYTES),
            failed: None,
        }
    }

    /// The buffer to append received bytes to.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame, `None` when more bytes are needed.
    ///
    /// # Errors
    /// When a length is over the bound; the decoder then stays failed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*prefix));
        if length > self.max {
            let error = FrameError::TooLong { length, max: self.max };
            self.failed = Some(error);
            return Err(error);
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        if length == 0 {
            return Ok(Some(Frame::Alive));
        }
        Ok(Some(Frame::Packet(self.buffer.split_to(length).freeze())))
    }
}

/// Gathers packets into one run of bytes.
#[derive(Debug, Default)]
pub struct Encoder {
    buffer: BytesMut,
}

impl Encoder {
    /// An empty encoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one packet. Empty ones and those over [`MAX_PACKET_BYTES`] cannot be said in a frame: `false`, and
    /// nothing is added.
    #[must_use]
    pub fn push(&mut self, packet: &[u8]) -> bool {
        let Ok(length @ 1..) = u16::try_from(packet.len()) else {
            return false;
        };
        self.buffer.reserve(LENGTH_BYTES + packet.len());
        self.buffer.put_u16(length);
        self.buffer.put_slice(packet);
        true
    }

    /// Adds the frame that only says "alive".
    pub fn push_alive(&mut self) {
        self.buffer.put_u16(0);
    }

    /// Whether enough has gathered to be written before anything more is added.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= COALESCE_BYTES
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What is to be written.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Forgets what has been written.
    pub fn clear(&mut self) {
        self.buffer.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(decoder: &mut Decoder) -> Result<Vec<Frame>, FrameError> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn bytes_on_the_wire() {
        let mut encoder = Encoder::new();
        assert!(encoder.push(b"abc"));
        encoder.push_alive();
        assert!(encoder.push(b"d"));
        assert_eq!(encoder.bytes(), b"\x00\x03abc\x00\x00\x00\x01d");
    }

    #[test]
    fn too_long_stays_failed() {
        let mut decoder = Decoder::new(1500, BytesMut::from(&b"\x05\xdd"[..]));
        let error = FrameError::TooLong {
            length: 1501,
            max: 1500,
        };
        assert_eq!(decoder.next_frame(), Err(error));
        decoder.buffer().clear();
        decoder.buffer().put_slice(b"\x00\x01a");
        assert_eq!(decoder.next_frame(), Err(error));
    }

    #[test]
    fn cannot_be_said() {
        let mut encoder = Encoder::new();
        assert!(!encoder.push(&[]));
        assert!(!encoder.push(&vec![0; MAX_PACKET_BYTES + 1]));
        assert!(encoder.is_empty());
        assert!(encoder.push(&vec![0; MAX_PACKET_BYTES]));
        assert!(encoder.is_full());
    }

    proptest! {
        #[test]
        fn round_trip_in_any_pieces(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            pieces in prop::collection::vec(1usize..97, 1..40),
        ) {
            let mut encoder = Encoder::new();
            for packet in &packets {
                if packet.is_empty() { encoder.push_alive() } else { prop_assert!(encoder.push(packet)) }
            }
            let mut decoder = Decoder::new(300, BytesMut::new());
            let (mut got, mut rest, mut pieces) = (Vec::new(), encoder.bytes(), pieces.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*pieces.next().unwrap()).min(rest.len()));
                decoder.buffer().put_slice(now);
                rest = later;
                got.extend(drain(&mut decoder).unwrap());
                prop_assert!(decoder.buffer().len() < LENGTH_BYTES + 300);
            }
            let wanted: Vec<_> = packets.into_iter()
                .map(|packet| if packet.is_empty() { Frame::Alive } else { Frame::Packet(packet.into()) })
                .collect();
            prop_assert_eq!(got, wanted);
        }

        #[test]
        fn any_bytes_are_followed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..4096), max in 0usize..70000) {
            let mut decoder = Decoder::new(max, BytesMut::from(&bytes[..]));
            let mut taken = 0;
            loop {
                match decoder.next_frame() {
                    Ok(Some(Frame::Packet(packet))) => {
                        prop_assert!(!packet.is_empty() && packet.len() <= max);
                        taken += LENGTH_BYTES + packet.len();
                    }
                    Ok(Some(Frame::Alive)) => taken += LENGTH_BYTES,
                    Ok(None) => break,
                    Err(FrameError::TooLong { length, .. }) => { prop_assert!(length > max); break; }
                }
            }
            prop_assert_eq!(taken + decoder.buffer().len(), bytes.len());
        }
    }
}
