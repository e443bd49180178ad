//! CHAP on the target's side (RFC 7143 §12.1.3): whose secrets are known.

use std::collections::BTreeMap;

pub use iscsi_pdu::chap::{Digest, NAME_MAX_BYTES, Secret, SecretError};

/// Who may log in by CHAP, and how we show who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    users: BTreeMap<String, Secret>,
    mutual: Option<(String, Secret)>,
    min_digest: Digest,
}

/// Users and secrets that cannot be used together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// A user name that is empty, too long, or has control characters.
    #[error("{0:?} is not a CHAP user name (1 to {NAME_MAX_BYTES} bytes, no control characters)")]
    BadName(String),
    /// With one secret for both directions, each end could answer the other's challenge with the other's own
    /// help (RFC 7143 §9.2.1).
    #[error("the secret of {0} is also the target's own: each direction needs its own")]
    SameSecret(String),
}

impl Credentials {
    /// `users` may log in. With `mutual`, a name and a secret, the target answers initiators that ask who it is.
    /// Digests below `min_digest` are not agreed to.
    pub fn new(
        users: BTreeMap<String, Secret>,
        mutual: Option<(String, Secret)>,
        min_digest: Digest,
    ) -> Result<Self, CredentialsError> {
        let own = mutual.as_ref().map(|(name, _)| name);
        for name in users.keys().chain(own) {
            if name.is_empty() || name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
                return Err(CredentialsError::BadName(name.clone()));
            }
        }
        if let Some((_, own)) = &mutual
            && let Some((name, _)) = users.iter().find(|(_, secret)| *secret == own)
        {
            return Err(CredentialsError::SameSecret(name.clone()));
        }
        Ok(Self {
            users,
            mutual,
            min_digest,
        })
    }

    /// The names that may log in.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// The name the target answers by, when it can answer.
    pub fn mutual_name(&self) -> Option<&str> {
        self.mutual.as_ref().map(|(name, _)| name.as_str())
    }

    /// The weakest digest that is agreed to.
    pub fn min_digest(&self) -> Digest {
        self.min_digest
    }
}
