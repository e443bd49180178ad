//! What must hold for any bytes at all: shared by the property tests and the fuzz targets.
#![allow(dead_code, reason = "each fuzz target uses one of them")]

use iscsi_pdu::text::{
    CollectorLimits, Duplicates, Key, Special, TextCollector, TextLimits, TextWriter, parse, parse_binary, parse_list,
    parse_number, parse_range,
};
use iscsi_pdu::{DecodeError, Decoder, DecoderLimits, Emit, RawHeader, Request, Response, Trailer};

pub(crate) const LIMITS: DecoderLimits = DecoderLimits {
    max_ahs_bytes: 64,
    max_data_segment_bytes: 4096,
};

/// One PDU as a decoder gave it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) header: RawHeader,
    pub(crate) data: Vec<u8>,
    pub(crate) trailer: Trailer,
}

/// Decodes as far as it goes; `pieces` says how many bytes each read brings (0 as 1; the last is repeated).
pub(crate) fn decode(stream: &[u8], digests: (bool, bool), pieces: &[usize]) -> (Vec<Decoded>, Option<DecodeError>) {
    let mut decoder = Decoder::new(LIMITS);
    decoder.set_digests(digests.0, digests.1);
    let mut pdus = Vec::new();
    let mut current: Option<(RawHeader, Vec<u8>)> = None;
    let mut rest = stream;
    let mut turn = 0;
    while !rest.is_empty() {
        let piece = pieces
            .get(turn)
            .or(pieces.last())
            .copied()
            .unwrap_or(usize::MAX)
            .clamp(1, rest.len());
        turn += 1;
        let (mut input, after) = rest.split_at(piece);
        rest = after;
        loop {
            match current.take() {
                None => match decoder.header(&mut input) {
                    Ok(Some(header)) => current = Some((header, Vec::new())),
                    Ok(None) => break assert!(input.is_empty()),
                    Err(error) => return (pdus, Some(error)),
                },
                Some((header, mut data)) => {
                    let wanted = (decoder.data_remaining() as usize).min(input.len());
                    decoder.data(&input[..wanted]);
                    data.extend_from_slice(&input[..wanted]);
                    input = &input[wanted..];
                    if decoder.data_remaining() > 0 {
                        current = Some((header, data));
                        break;
                    }
                    match decoder.trailer(&mut input) {
                        Ok(Some(trailer)) => pdus.push(Decoded { header, data, trailer }),
                        Ok(None) => {
                            current = Some((header, data));
                            break assert!(input.is_empty());
                        }
                        Err(error) => return (pdus, Some(error)),
                    }
                }
            }
        }
    }
    (pdus, None)
}

/// A header that parses is emitted again, parses to the same, and is then stable byte for byte.
pub(crate) fn reparse(header: &RawHeader) {
    if let Ok(request) = Request::parse(header) {
        let again = raw(&request, header.data_bytes);
        assert_eq!(Request::parse(&again).as_ref(), Ok(&request));
    }
    if let Ok(response) = Response::parse(header) {
        let again = raw(&response, header.data_bytes);
        assert_eq!(Response::parse(&again).as_ref(), Ok(&response));
    }
}

pub(crate) fn raw(pdu: &impl Emit, data_bytes: u32) -> RawHeader {
    let mut bytes = Vec::new();
    pdu.emit(data_bytes, &mut bytes);
    assert_eq!(bytes.len(), pdu.header_bytes());
    let (bhs, ahs) = bytes.split_first_chunk().expect("a whole BHS");
    assert_eq!(usize::from(bhs[4]) * 4, ahs.len());
    RawHeader {
        bhs: *bhs,
        ahs: ahs.to_vec(),
        data_bytes,
    }
}

/// The first byte chooses digests and the size of reads.
pub(crate) fn decoder(bytes: &[u8]) {
    let Some((choice, stream)) = bytes.split_first() else {
        return;
    };
    let digests = (choice & 1 != 0, choice & 2 != 0);
    let whole = decode(stream, digests, &[]);
    let split = decode(stream, digests, &[usize::from(choice >> 2) + 1]);
    assert_eq!(whole, split);
    for pdu in &whole.0 {
        assert!(pdu.header.ahs.len() <= LIMITS.max_ahs_bytes);
        assert!(pdu.data.len() <= LIMITS.max_data_segment_bytes as usize);
        assert_eq!(pdu.data.len(), pdu.header.data_bytes as usize);
        reparse(&pdu.header);
    }
}

/// Whatever is taken can be written and read back; every value reader keeps to its bounds.
pub(crate) fn text(bytes: &[u8]) {
    const MAX_BYTES: usize = 1024;
    let limits = TextLimits {
        max_keys: 8,
        max_value_bytes: 300,
    };
    let mut collector = TextCollector::new(CollectorLimits {
        max_bytes: MAX_BYTES,
        max_segments: 4,
    });
    let half = bytes.len() / 2;
    let joined = collector
        .feed(&bytes[..half], true)
        .and_then(|_| collector.feed(&bytes[half..], false));
    assert_eq!(joined.is_ok(), bytes.len() <= MAX_BYTES);
    assert!(!collector.in_progress());
    for duplicates in [Duplicates::Refused, Duplicates::Allowed] {
        let Ok(pairs) = parse(bytes, &limits, duplicates) else {
            continue;
        };
        assert!(pairs.len() <= limits.max_keys);
        let mut writer = TextWriter::new(bytes.len());
        for pair in &pairs {
            assert!(!pair.key.is_empty() && pair.key.len() <= 63 && pair.value.len() <= limits.max_value_bytes);
            writer.push(pair.key, pair.value).expect("what was read can be written");
            values(pair.key, pair.value);
        }
        assert_eq!(writer.into_bytes(), bytes);
    }
}

fn values(name: &str, value: &str) {
    let _ = (parse_number(value), Special::of(value));
    if let Ok(range) = parse_range(value) {
        assert!(range.start() <= range.end());
    }
    if let Ok(items) = parse_list(value, 5) {
        assert!(items.len() <= 5);
        assert_eq!(items.join(","), value);
    }
    if let Ok(decoded) = parse_binary(value, 20) {
        assert!(decoded.len() <= 20);
    }
    let Some(key) = Key::from_name(name) else { return };
    assert_eq!(key.name(), name);
    if let Ok(number) = key.parse_number(value) {
        let result = key.negotiate_number(number, key.default_number().unwrap_or(0));
        assert!(result.is_ok() || key.default_number().is_none() || key.name() == "MaxRecvDataSegmentLength");
    }
}
