//! The digests of CHAP_A.

use std::fmt;
use std::str::FromStr;

/// A digest, the weakest first. The numbers are those of IANA's registry "PPP Authentication Algorithms", which
/// CHAP_A takes over (RFC 7143 §12.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Digest {
    /// MD5 (RFC 1994). Every initiator knows it.
    #[default]
    Md5 = 5,
    /// SHA-1.
    Sha1 = 6,
    /// SHA-256.
    Sha256 = 7,
    /// SHA3-256.
    Sha3_256 = 8,
}

impl Digest {
    /// All digests, the strongest first: the order in which an initiator best offers them.
    pub const STRONGEST_FIRST: [Digest; 4] = [Digest::Sha3_256, Digest::Sha256, Digest::Sha1, Digest::Md5];

    /// The digest with this number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Digest> {
        Digest::STRONGEST_FIRST
            .into_iter()
            .find(|digest| u32::from(digest.code()) == code)
    }

    /// Its number in CHAP_A.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Length of its result, and so of a response, in bytes.
    #[must_use]
    pub fn output_bytes(self) -> usize {
        match self {
            Digest::Md5 => 16,
            Digest::Sha1 => 20,
            Digest::Sha256 | Digest::Sha3_256 => 32,
        }
    }

    /// Its name in configurations and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Digest::Md5 => "md5",
            Digest::Sha1 => "sha1",
            Digest::Sha256 => "sha256",
            Digest::Sha3_256 => "sha3-256",
        }
    }

    pub(super) fn of(self, parts: &[&[u8]]) -> Vec<u8> {
        fn run<D: md5::digest::Digest>(parts: &[&[u8]]) -> Vec<u8> {
            let mut state = D::new();
            for part in parts {
                state.update(part);
            }
            state.finalize().to_vec()
        }
        match self {
            Digest::Md5 => run::<md5::Md5>(parts),
            Digest::Sha1 => run::<sha1::Sha1>(parts),
            Digest::Sha256 => run::<sha2::Sha256>(parts),
            Digest::Sha3_256 => run::<sha3::Sha3_256>(parts),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no digest's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown digest {0:?}: md5, sha1, sha256 or sha3-256")]
pub struct UnknownDigest(pub String);

impl FromStr for Digest {
    type Err = UnknownDigest;

    fn from_str(name: &str) -> Result<Digest, UnknownDigest> {
        Digest::STRONGEST_FIRST
            .into_iter()
            .find(|digest| digest.name() == name)
            .ok_or_else(|| UnknownDigest(name.to_owned()))
    }
}
