//! How a peer can break the framing or the header rules.

use thiserror::Error;

use crate::Digest;
use crate::pdu::RejectReason;

/// The stream can no longer be cut into PDUs: drop the connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The header's CRC32C does not match (RFC 7143 §11.2.3); no length in it can be believed.
    #[error("header digest is {received}, computed {computed}")]
    HeaderDigest {
        /// What the peer sent.
        received: Digest,
        /// What the bytes give.
        computed: Digest,
    },
    /// TotalAHSLength is over our limit.
    #[error("additional headers of {bytes} bytes, at most {max_bytes} are taken")]
    AhsTooLong {
        /// Announced length in bytes.
        bytes: usize,
        /// [`DecoderLimits::max_ahs_bytes`](crate::DecoderLimits).
        max_bytes: usize,
    },
    /// DataSegmentLength is over the MaxRecvDataSegmentLength we declared.
    #[error("data segment of {bytes} bytes (opcode {opcode:#04x}), at most {max_bytes} are taken")]
    DataSegmentTooLong {
        /// The operation code, six bits.
        opcode: u8,
        /// Announced length in bytes.
        bytes: u32,
        /// The limit in force.
        max_bytes: u32,
    },
}

/// A whole header arrived and says something the standard does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// No such operation, or not one this side receives.
    #[error("opcode {opcode:#04x} is not one a peer may send here")]
    UnknownOpcode {
        /// Six bits of the BHS's first byte.
        opcode: u8,
    },
    /// A field holds a value the standard reserves, or two fields contradict each other.
    #[error("opcode {opcode:#04x}: {field} must not be {value:#x}")]
    InvalidField {
        /// Six bits of the BHS's first byte.
        opcode: u8,
        /// The field's name in the RFC.
        field: &'static str,
        /// What it held.
        value: u32,
    },
    /// The additional header segments do not fit each other or this PDU.
    #[error("opcode {opcode:#04x}: bad additional header segment: {what}")]
    InvalidAhs {
        /// Six bits of the BHS's first byte.
        opcode: u8,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl HeaderError {
    /// What to say in a Reject PDU (RFC 7143 §11.17.1).
    #[must_use]
    pub fn reject_reason(&self) -> RejectReason {
        match self {
            HeaderError::UnknownOpcode { .. } => RejectReason::CommandNotSupported,
            HeaderError::InvalidField { .. } | HeaderError::InvalidAhs { .. } => RejectReason::InvalidPduField,
        }
    }

    /// The operation code of the offending PDU, six bits.
    #[must_use]
    pub fn opcode(&self) -> u8 {
        match *self {
            HeaderError::UnknownOpcode { opcode }
            | HeaderError::InvalidField { opcode, .. }
            | HeaderError::InvalidAhs { opcode, .. } => opcode,
        }
    }
}
