//! A secret that two ends share: never printed, wiped when dropped.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Shortest secret, in bytes: 96 bits (RFC 7143 §9.2.1).
pub const SECRET_MIN_BYTES: usize = 12;
/// Longest secret, in bytes: more is surely the wrong file.
pub const SECRET_MAX_BYTES: usize = 255;

/// A CHAP secret. `Debug` does not show it, comparing takes the same time whatever it is, and its memory is
/// overwritten when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Bytes that are no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Too easily guessed by whoever has heard one login (RFC 7143 §9.2.1).
    #[error("the secret has {bytes} bytes, and needs at least {SECRET_MIN_BYTES} (96 bits)")]
    TooShort {
        /// How long it is.
        bytes: usize,
    },
    /// Longer than [`SECRET_MAX_BYTES`].
    #[error("the secret has {bytes} bytes, and may have at most {SECRET_MAX_BYTES}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
}

impl Secret {
    /// A secret of these bytes, exactly: strip the newline of a file before.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Secret, SecretError> {
        let bytes = Zeroizing::new(bytes.into());
        match bytes.len() {
            length if length < SECRET_MIN_BYTES => Err(SecretError::TooShort { bytes: length }),
            length if length > SECRET_MAX_BYTES => Err(SecretError::TooLong { bytes: length }),
            _ => Ok(Secret(bytes)),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
