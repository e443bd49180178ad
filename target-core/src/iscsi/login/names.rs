//! Who wants what: the declarations of the first request (RFC 7143 §6.3.1).

use iscsi_pdu::text::{Key, Pair};

use super::LoginError;
use crate::iscsi::params::SessionType;

/// Longest iSCSI name, in bytes (RFC 7143 §4.2.7.1).
const NAME_MAX_BYTES: usize = 223;

/// InitiatorName, SessionType and TargetName.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) initiator: String,
    pub(super) session_type: SessionType,
    /// Of a normal session; `None` for a discovery.
    pub(super) target: Option<String>,
}

impl Names {
    pub(super) fn read(pairs: &[Pair<'_>]) -> Result<Self, LoginError> {
        let (mut initiator, mut target, mut session_type) = (None, None, SessionType::Normal);
        for pair in pairs {
            match Key::from_name(pair.key) {
                Some(key @ Key::InitiatorName) => initiator = Some(iscsi_name(key, pair.value)?),
                Some(key @ Key::TargetName) => target = Some(iscsi_name(key, pair.value)?),
                Some(Key::SessionType) => {
                    session_type = match pair.value {
                        "Normal" => SessionType::Normal,
                        "Discovery" => SessionType::Discovery,
                        _ => return Err(LoginError::SessionType),
                    };
                }
                _ => {}
            }
        }
        let initiator = initiator.ok_or(LoginError::Missing(Key::InitiatorName))?;
        let target = match session_type {
            SessionType::Normal => Some(target.ok_or(LoginError::Missing(Key::TargetName))?),
            SessionType::Discovery => None,
        };
        Ok(Self {
            initiator,
            session_type,
            target,
        })
    }

    /// Whether a key is one of these.
    pub(super) fn owns(key: Key) -> bool {
        matches!(key, Key::InitiatorName | Key::TargetName | Key::SessionType)
    }
}

/// RFC 7143 §4.2.7.1, as far as a peer's name has to be right for us: its length and no odd characters.
fn iscsi_name(key: Key, value: &str) -> Result<String, LoginError> {
    let fits = |c: char| !c.is_whitespace() && !c.is_control();
    if value.is_empty() || value.len() > NAME_MAX_BYTES || !value.chars().all(fits) {
        return Err(LoginError::BadName(key));
    }
    Ok(value.to_owned())
}
