//! RFC 7143 PDUs, text keys and digests: bytes in, typed values out; no I/O, no clock.
//!
//! Bytes go through [`Decoder`] (framing, digests), then [`Request::parse`] or [`Response::parse`] (one typed value
//! per PDU, checked once), and the data segment of login and text PDUs through [`text`]. The way out is
//! [`Emit`] for the header and [`Framing`] for what goes around it.
#![forbid(unsafe_code)]

mod bhs;
pub mod chap;
mod codes;
mod decoder;
mod digest;
mod error;
mod fields;
mod framing;
pub mod pdu;
mod request;
mod response;
pub mod text;

pub use bhs::{BHS_BYTES, Emit, Isid, Lun, MAX_DATA_SEGMENT_BYTES, Opcode, RESERVED_TAG, Serial};
pub use decoder::{Decoder, DecoderLimits, RawHeader, Trailer};
pub use digest::{DIGEST_BYTES, Digest};
pub use error::{DecodeError, HeaderError};
pub use framing::{Framing, padding};
pub use pdu::*;
pub use request::Request;
pub use response::Response;
