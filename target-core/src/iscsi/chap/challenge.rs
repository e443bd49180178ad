//! Challenges: never the same twice, and known again when somebody sends one back.

use std::sync::OnceLock;

use iscsi_pdu::chap::{Digest, Secret, response, verify};

/// Random part of a challenge, in bytes: as long as the longest digest (RFC 7143 §12.1.3 asks for no less).
const NONCE_BYTES: usize = 32;
/// Length of the process's own key, in bytes.
const KEY_BYTES: usize = 32;

/// What this process, and nobody else, can compute from a nonce.
static KEY: OnceLock<Secret> = OnceLock::new();

/// A challenge with its identifier.
///
/// It is a nonce and a mark made of the nonce and [`KEY`]. By the mark any challenge of ours is recognized, on
/// whatever connection and for whatever target it was made, without keeping a list: who sends one to us as his own
/// wants us to compute the answer he needs elsewhere (RFC 7143 §9.2.1).
#[derive(Debug)]
pub(super) struct Challenge {
    pub(super) identifier: u8,
    pub(super) bytes: Vec<u8>,
}

impl Challenge {
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut random = [0; NONCE_BYTES + 1];
        getrandom::fill(&mut random)?;
        let (identifier, nonce) = (random[0], &random[1..]);
        let mut bytes = nonce.to_vec();
        bytes.extend(response(Digest::Sha3_256, 0, key()?, nonce));
        Ok(Self { identifier, bytes })
    }

    /// Whether a challenge was made by this process.
    pub(super) fn is_ours(challenge: &[u8]) -> bool {
        let Some((nonce, mark)) = challenge.split_at_checked(NONCE_BYTES) else {
            return false;
        };
        KEY.get()
            .is_some_and(|key| verify(Digest::Sha3_256, 0, key, nonce, mark))
    }
}

/// Secret of nobody: what users that do not exist are measured against.
pub(super) fn key() -> Result<&'static Secret, getrandom::Error> {
    if let Some(key) = KEY.get() {
        return Ok(key);
    }
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes)?;
    let secret = Secret::new(bytes).map_err(|_| getrandom::Error::UNEXPECTED)?;
    Ok(KEY.get_or_init(|| secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_differ_and_are_known_again() {
        let challenges: Vec<Challenge> = (0..100).map(|_| Challenge::new().unwrap()).collect();
        for (at, challenge) in challenges.iter().enumerate() {
            assert!(Challenge::is_ours(&challenge.bytes));
            assert!(challenge.bytes.len() >= Digest::Sha3_256.output_bytes());
            assert!(
                challenges[..at]
                    .iter()
                    .all(|other| other.bytes[..NONCE_BYTES] != challenge.bytes[..NONCE_BYTES])
            );
        }
        let identifiers: std::collections::HashSet<u8> = challenges.iter().map(|one| one.identifier).collect();
        assert!(identifiers.len() > 10, "{identifiers:?}");
        let mut other = challenges[0].bytes.clone();
        for at in 0..other.len() {
            other[at] ^= 1;
            assert!(!Challenge::is_ours(&other), "byte {at}");
            other[at] ^= 1;
        }
        other.push(0);
        assert!(!Challenge::is_ours(&other));
        for length in [0, 1, NONCE_BYTES, NONCE_BYTES + 31] {
            assert!(!Challenge::is_ours(&other[..length]), "{length}");
        }
    }
}
