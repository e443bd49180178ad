//! How text from a peer can be wrong.

use thiserror::Error;

/// The list of pairs is not one we can take: the negotiation has failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TextError {
    /// More bytes, over all segments of the exchange, than are taken (or may be sent).
    #[error("text of more than {max_bytes} bytes")]
    TooLong {
        /// The limit.
        max_bytes: usize,
    },
    /// More segments joined by the C bit than are taken.
    #[error("text in more than {max_segments} segments")]
    TooManySegments {
        /// The limit.
        max_segments: usize,
    },
    /// More pairs than are taken.
    #[error("more than {max_keys} keys")]
    TooManyKeys {
        /// The limit.
        max_keys: usize,
    },
    /// The last pair does not end in a zero byte.
    #[error("the last key=value is not terminated")]
    Unterminated,
    /// A pair without an equals sign.
    #[error("text without an equals sign")]
    NoEqualsSign,
    /// Not a key name: empty, over 63 bytes, or with characters that names do not have.
    #[error("malformed key name")]
    BadName,
    /// The value is longer than is taken.
    #[error("the value of {key} is over {max_bytes} bytes")]
    ValueTooLong {
        /// Whose value.
        key: String,
        /// The limit.
        max_bytes: usize,
    },
    /// The value is not UTF-8, or has control characters.
    #[error("the value of {key} is not text")]
    BadValue {
        /// Whose value.
        key: String,
    },
    /// The same key twice where that is not allowed.
    #[error("{key} is given twice")]
    Duplicate {
        /// Which key.
        key: String,
    },
}

/// A value is not what its key takes. The usual answer is `Reject` as the value (RFC 7143 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Neither a decimal nor a hexadecimal constant, or it does not fit 64 bits.
    #[error("not a number")]
    NotANumber,
    /// Not two numbers with a tilde between, in order.
    #[error("not a range")]
    NotARange,
    /// A number the key does not allow.
    #[error("{value} is not within {min} to {max}")]
    OutOfRange {
        /// What was offered.
        value: u64,
        /// Least value allowed.
        min: u32,
        /// Greatest value allowed.
        max: u32,
    },
    /// Neither Yes nor No.
    #[error("neither Yes nor No")]
    NotABoolean,
    /// An empty list, an empty element, or more elements than are taken.
    #[error("not a list of values")]
    NotAList,
    /// Characters a simple value does not have, none at all, or more than 255 of them.
    #[error("not a simple value")]
    NotASimpleValue,
    /// Neither hexadecimal (0x) nor Base64 (0b).
    #[error("not a binary value")]
    NotBinary,
    /// More bytes than are taken.
    #[error("value of more than {max_bytes} bytes")]
    TooLong {
        /// The limit.
        max_bytes: usize,
    },
    /// The key is not negotiated in this way.
    #[error("the key has no such value")]
    WrongKind,
}
