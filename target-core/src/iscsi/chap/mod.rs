//! CHAP on the target's side (RFC 7143 §12.1.3, RFC 1994).
//!
//! `dialog` is the exchange of keys, `challenge` makes challenges; the digests are in [`iscsi_pdu::chap`]. Who may log
//! in by which secret is in [`Credentials`]; whether anybody must, in the target's [`Policy`](super::policy::Policy).

mod challenge;
mod dialog;

pub use dialog::ChapError;
pub(super) use dialog::{ChapKeys, Dialog, excerpt};
pub use iscsi_pdu::chap::{Digest, NAME_MAX_BYTES, Secret, SecretError};

use std::collections::BTreeMap;

/// The secrets by which initiators prove who they are, and we in turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Secrets of initiators, by CHAP_N.
    pub users: BTreeMap<String, Secret>,
    /// Our own name and secret, for initiators that ask for a proof in turn.
    pub mutual: Option<(String, Secret)>,
    /// The weakest digest that is good enough.
    pub min_digest: Digest,
}

/// Users and secrets that cannot be used together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// A user name that is empty, too long, or has control characters.
    #[error("{0:?} is not a CHAP user name (1 to {NAME_MAX_BYTES} bytes, no control characters)")]
    BadName(String),
    /// With one secret for both directions, each end could answer the other's challenge with the other's own
    /// help (RFC 7143 §9.2.1).
    #[error("the secret of {0:?} is also the target's own: each direction needs its own")]
    SameSecret(String),
}

impl Credentials {
    /// Whether names and secrets are such as RFC 7143 §9.2.1 asks for. To be called before they are used.
    pub fn check(&self) -> Result<(), CredentialsError> {
        let own = self.mutual.as_ref();
        for name in self.users.keys().chain(own.map(|(name, _)| name)) {
            if name.is_empty() || name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
                return Err(CredentialsError::BadName(name.clone()));
            }
        }
        own.map_or(Ok(()), |(_, secret)| self.check_not_a_user(secret))
    }

    /// Whether a secret by which the target shows who it is, here or anywhere in the same node, is no user's.
    pub fn check_not_a_user(&self, own: &Secret) -> Result<(), CredentialsError> {
        match self.users.iter().find(|(_, secret)| *secret == own) {
            Some((name, _)) => Err(CredentialsError::SameSecret(name.clone())),
            None => Ok(()),
        }
    }
}
