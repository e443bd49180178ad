//! The frame decoder: never panics, hands out what is in bounds, accounts for every byte, in whatever pieces it comes.
#![no_main]

use bytes::{BufMut, BytesMut};
use libfuzzer_sys::fuzz_target;
use tunnel::frame::{Decoder, Frame, FrameError};

fn decode(bytes: &[u8], max: usize, piece: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::new(max, BytesMut::new());
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.buffer().put_slice(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fuzz_target!(|input: (u16, u8, Vec<u8>)| {
    let (max, piece, bytes) = input;
    let max = usize::from(max);
    let (frames, error) = decode(&bytes, max, bytes.len().max(1));
    assert_eq!((frames.clone(), error), decode(&bytes, max, usize::from(piece).max(1)));
    for frame in frames {
        if let Frame::Packet(packet) = frame {
            assert!(!packet.is_empty() && packet.len() <= max);
        }
    }
});
