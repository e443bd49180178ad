//! Bytes written as the RFC's figures draw them.
#![allow(dead_code, reason = "each test file uses some of it")]

use iscsi_pdu::{BHS_BYTES, Emit, RawHeader};

/// Two hexadecimal digits a byte, white space anywhere.
pub(crate) fn bytes(figure: &str) -> Vec<u8> {
    figure
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
        .collect()
}

/// A figure as the decoder would hand it on; the data length is read from bytes 5 to 7.
pub(crate) fn raw(figure: &str) -> RawHeader {
    let bytes = bytes(figure);
    let (bhs, ahs) = bytes.split_first_chunk::<BHS_BYTES>().expect("48 bytes at least");
    RawHeader {
        bhs: *bhs,
        ahs: ahs.to_vec(),
        data_bytes: u32::from_be_bytes([0, bhs[5], bhs[6], bhs[7]]),
    }
}

pub(crate) fn emitted(pdu: &impl Emit, data_bytes: u32) -> Vec<u8> {
    let mut out = vec![0xee];
    pdu.emit(data_bytes, &mut out);
    assert_eq!(out.len() - 1, pdu.header_bytes());
    assert_eq!(out.remove(0), 0xee, "emit appends");
    out
}
