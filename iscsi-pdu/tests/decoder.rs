//! The decoder's bounds, its digests by hand, and how little it asks for.

mod bodies;
mod figure;

use bodies::{LIMITS, decode};
use iscsi_pdu::*;

/// NOP-Out with `data_bytes` announced.
const NOP: &str = "40 80 00 00 00 00 00 05  00 00 00 00 00 00 00 00  00 00 00 01 ff ff ff ff  00 00 00 01 00 00 00 01
                   00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00";

#[test]
fn padding_and_digest_follow_the_data() {
    let mut stream = figure::bytes(NOP);
    stream.extend_from_slice(b"farlu\0\0\0");
    let (pdus, error) = decode(&stream, (false, false), &[]);
    assert_eq!((pdus.len(), error), (1, None));
    assert_eq!(
        (pdus[0].data.as_slice(), pdus[0].trailer),
        (&b"farlu"[..], Trailer::Intact)
    );

    stream.extend_from_slice(&Digest::of(b"farlu\0\0\0").to_wire());
    let (pdus, error) = decode(&stream, (false, true), &[]);
    assert_eq!((pdus.len(), pdus[0].trailer, error), (1, Trailer::Intact, None));
    // Padding counts too (RFC 7143 §11.2.4).
    stream[48 + 6] = 1;
    let (pdus, _) = decode(&stream, (false, true), &[]);
    assert!(matches!(pdus[0].trailer, Trailer::DigestMismatch { .. }));
}

#[test]
fn no_data_no_data_digest() {
    let mut stream = figure::bytes(NOP);
    stream[7] = 0;
    let both = [stream.clone(), stream].concat();
    let (pdus, error) = decode(&both, (false, true), &[]);
    assert_eq!((pdus.len(), error), (2, None));
    let mut out = Vec::new();
    Framing {
        header_digest: true,
        data_digest: true,
    }
    .trailer(&[], &mut out);
    assert!(out.is_empty());
}

#[test]
fn header_digest_covers_the_additional_headers() {
    let mut header = figure::bytes(NOP);
    (header[4], header[7]) = (1, 0);
    header.extend_from_slice(&[1, 2, 3, 4]);
    header.extend_from_slice(&Digest::of(&header).to_wire());
    let (pdus, error) = decode(&header, (true, false), &[]);
    assert_eq!((pdus[0].header.ahs.as_slice(), error), (&[1, 2, 3, 4][..], None));
    header[50] ^= 0x80;
    let (pdus, error) = decode(&header, (true, false), &[7]);
    assert!(pdus.is_empty());
    assert!(matches!(error, Some(DecodeError::HeaderDigest { .. })), "{error:?}");
}

#[test]
fn lengths_over_the_limit_end_the_connection_before_anything_is_taken() {
    let mut stream = figure::bytes(NOP);
    stream[4] = 17;
    let error = decode(&stream, (false, false), &[]).1;
    assert_eq!(
        error,
        Some(DecodeError::AhsTooLong {
            bytes: 68,
            max_bytes: LIMITS.max_ahs_bytes
        })
    );

    for (length, fits) in [
        ([0, 0x10, 0x00], true),
        ([0, 0x10, 0x01], false),
        ([0xff, 0xff, 0xff], false),
    ] {
        let mut stream = figure::bytes(NOP);
        stream[5..8].copy_from_slice(&length);
        let mut decoder = Decoder::new(LIMITS);
        let mut input = stream.as_slice();
        let header = decoder.header(&mut input);
        assert_eq!(header.is_ok(), fits);
        if !fits {
            let bytes = u32::from_be_bytes([0, length[0], length[1], length[2]]);
            assert_eq!(
                header,
                Err(DecodeError::DataSegmentTooLong {
                    opcode: 0,
                    bytes,
                    max_bytes: 4096
                })
            );
        }
    }
}

#[test]
fn settings_hold_from_the_next_pdu_on() {
    let mut decoder = Decoder::new(LIMITS);
    let first = figure::bytes(NOP);
    let mut input = &first[..20];
    assert_eq!(decoder.header(&mut input), Ok(None));
    // The header has begun: it has no digest, and neither has its data.
    decoder.set_digests(true, true);
    let mut input = &first[20..];
    let header = decoder.header(&mut input).expect("sound").expect("whole");
    assert_eq!((header.data_bytes, decoder.data_remaining(), input.len()), (5, 5, 0));
    decoder.data(b"far");
    decoder.data(b"lu");
    let mut padding = &[0; 3][..];
    assert_eq!(decoder.trailer(&mut padding), Ok(Some(Trailer::Intact)));

    decoder.set_max_data_segment_bytes(4);
    let mut second = first.clone();
    second.extend_from_slice(&Digest::of(&first).to_wire());
    assert!(matches!(
        decoder.header(&mut second.as_slice()),
        Err(DecodeError::DataSegmentTooLong { bytes: 5, .. })
    ));
}

#[test]
fn nothing_to_come_yields_at_once() {
    let mut decoder = Decoder::new(LIMITS);
    let mut pdu = figure::bytes(NOP);
    pdu[7] = 0;
    let header = decoder.header(&mut pdu.as_slice()).expect("sound").expect("whole");
    assert_eq!(header.ahs.capacity(), 0);
    assert_eq!(decoder.trailer(&mut &[][..]), Ok(Some(Trailer::Intact)));
}

#[test]
#[should_panic(expected = "more data than the segment holds")]
fn the_caller_may_not_report_more_than_there_is() {
    let mut decoder = Decoder::new(LIMITS);
    let pdu = figure::bytes(NOP);
    decoder.header(&mut pdu.as_slice()).expect("sound");
    decoder.data(b"farlun");
}

#[test]
fn trailer_of_parts_is_that_of_the_whole() {
    let framing = Framing {
        header_digest: false,
        data_digest: true,
    };
    let (mut whole, mut parts) = (Vec::new(), Vec::new());
    framing.trailer(b"farlun target", &mut whole);
    framing.trailer_of_parts(&[b"far", b"", b"lun target"], &mut parts);
    assert_eq!(whole, parts);
    assert_eq!(whole.len(), 3 + 4);
}
