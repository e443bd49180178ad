//! CHAP on the target's side (RFC 7143 §12.1.3).

pub use iscsi_pdu::chap::{Digest, NAME_MAX_BYTES, Secret, SecretError};
