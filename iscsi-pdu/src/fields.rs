//! Reading and writing fields of the BHS, for the PDU files.

use nom::bytes::complete::take;
use nom::number::complete::be_u32;
use nom::{IResult, Parser};

use crate::{BHS_BYTES, HeaderError, Lun, MAX_DATA_SEGMENT_BYTES, Opcode, Serial};

/// Bit 7 of byte 1: F, or T in login PDUs (RFC 7143 §11.2.1).
pub(crate) const FINAL: u8 = 0x80;
/// Bit 6 of byte 1: C in login and text PDUs (RFC 7143 §11.10.2, §11.12.2).
pub(crate) const CONTINUE: u8 = 0x40;
/// Bit 6 of byte 0: I (RFC 7143 §11.2.1.1).
pub(crate) const IMMEDIATE: u8 = 0x40;

pub(crate) fn opcode_of(bhs: &[u8; BHS_BYTES]) -> u8 {
    bhs[0] & 0x3f
}

/// Runs a nom parser over the BHS from byte `from`. A parser that asks for more than there is would be a mistake of
/// ours; it comes out as an error and not as a panic.
pub(crate) fn fields<'a, O>(
    bhs: &'a [u8; BHS_BYTES],
    from: usize,
    mut parser: impl Parser<&'a [u8], Output = O, Error = ()>,
) -> Result<O, HeaderError> {
    match bhs.get(from..).map(|rest| parser.parse_complete(rest)) {
        Some(Ok((_, value))) => Ok(value),
        _ => Err(invalid(bhs, "BHS", 0_u8)),
    }
}

pub(crate) fn lun(input: &[u8]) -> IResult<&[u8], Lun, ()> {
    array(input).map(|(rest, bytes)| (rest, Lun(bytes)))
}

pub(crate) fn serial(input: &[u8]) -> IResult<&[u8], Serial, ()> {
    be_u32(input).map(|(rest, number)| (rest, Serial(number)))
}

pub(crate) fn array<const N: usize>(input: &[u8]) -> IResult<&[u8], [u8; N], ()> {
    let (rest, bytes) = take(N)(input)?;
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    Ok((rest, array))
}

pub(crate) fn reserved<const N: usize>(input: &[u8]) -> IResult<&[u8], (), ()> {
    take(N)(input).map(|(rest, _)| (rest, ()))
}

pub(crate) fn invalid(bhs: &[u8; BHS_BYTES], field: &'static str, value: impl Into<u32>) -> HeaderError {
    HeaderError::InvalidField {
        opcode: opcode_of(bhs),
        field,
        value: value.into(),
    }
}

/// Only the SCSI Command carries additional headers (RFC 7143 §11.2.2 defines none for the others).
pub(crate) fn no_ahs(bhs: &[u8; BHS_BYTES], ahs: &[u8]) -> Result<(), HeaderError> {
    if ahs.is_empty() {
        return Ok(());
    }
    Err(HeaderError::InvalidAhs {
        opcode: opcode_of(bhs),
        what: "this PDU has none",
    })
}

/// A BHS being filled.
pub(crate) struct Writer([u8; BHS_BYTES]);

impl Writer {
    pub(crate) fn new(opcode: Opcode, immediate: bool, flags: u8, data_bytes: u32) -> Writer {
        assert!(
            data_bytes <= MAX_DATA_SEGMENT_BYTES,
            "a data segment of {data_bytes} bytes cannot be announced"
        );
        let mut bhs = [0; BHS_BYTES];
        bhs[0] = opcode.code() | if immediate { IMMEDIATE } else { 0 };
        bhs[1] = flags;
        bhs[5..8].copy_from_slice(&data_bytes.to_be_bytes()[1..]);
        Writer(bhs)
    }

    pub(crate) fn u8(mut self, at: usize, value: u8) -> Writer {
        self.0[at] = value;
        self
    }

    pub(crate) fn u16(mut self, at: usize, value: u16) -> Writer {
        self.0[at..at + 2].copy_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn u32(mut self, at: usize, value: u32) -> Writer {
        self.0[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn serial(self, at: usize, value: Serial) -> Writer {
        self.u32(at, value.0)
    }

    pub(crate) fn bytes(mut self, at: usize, value: &[u8]) -> Writer {
        self.0[at..at + value.len()].copy_from_slice(value);
        self
    }

    pub(crate) fn lun(self, lun: Lun) -> Writer {
        self.bytes(8, &lun.0)
    }

    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

pub(crate) fn flag(on: bool, bit: u8) -> u8 {
    if on { bit } else { 0 }
}
