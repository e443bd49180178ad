//! What CHAP computes with (RFC 7143 §12.1.3, RFC 1994): secrets, digests, and the response to a challenge.
//!
//! Which keys are sent when, and what is refused, is the target's and the initiator's own business.

use subtle::ConstantTimeEq;

mod digest;
mod secret;

pub use digest::{Digest, UnknownDigest};
pub use secret::{SECRET_MAX_BYTES, SECRET_MIN_BYTES, Secret, SecretError};

/// Longest challenge or response, decoded, in bytes (RFC 7143 §12.1.3).
pub const BINARY_MAX_BYTES: usize = 1024;

/// Longest user name we take, in bytes. RFC 7143 §12.1.3 leaves it at "text"; a name is stored and logged.
pub const NAME_MAX_BYTES: usize = 255;

/// The response to a challenge: the digest over identifier, secret and challenge (RFC 1994 §4.1).
#[must_use]
pub fn response(digest: Digest, identifier: u8, secret: &Secret, challenge: &[u8]) -> Vec<u8> {
    digest.of(&[&[identifier], secret.bytes(), challenge])
}

/// Whether `answer` is the response to a challenge. Takes the same time wherever it is wrong.
#[must_use]
pub fn verify(digest: Digest, identifier: u8, secret: &Secret, challenge: &[u8], answer: &[u8]) -> bool {
    response(digest, identifier, secret, challenge).ct_eq(answer).into()
}
