//! One authentication, from CHAP_A to the end (RFC 7143 §12.1.3), without the login around it.

use std::sync::Arc;

use iscsi_pdu::chap::{BINARY_MAX_BYTES, Digest, NAME_MAX_BYTES, Secret, response, verify};
use iscsi_pdu::text::{Key, TextError, TextWriter, ValueError, emit_hex, parse_binary, parse_list, parse_number};

use super::Credentials;
use super::challenge::{Challenge, key};

/// What of a value that somebody offers is put in the log, in characters.
const EXCERPT_MAX_CHARS: usize = 64;
/// Algorithms in a list that are looked at.
const ALGORITHMS_MAX: usize = 32;

/// Why somebody is not let in by CHAP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChapError {
    /// A key that has its turn at another time, or a second time.
    #[error("{0} is out of turn")]
    OutOfTurn(Key),
    /// A key without the one that goes with it.
    #[error("{0} is missing")]
    Missing(Key),
    /// A value that cannot be read.
    #[error("{key}: {error}")]
    Value {
        /// The key.
        key: Key,
        /// What is wrong.
        error: ValueError,
    },
    /// No algorithm offered is known here and strong enough.
    #[error("no algorithm of at least {min} in CHAP_A={offered}")]
    NoDigest {
        /// CHAP_A.
        offered: String,
        /// The weakest that would do.
        min: Digest,
    },
    /// The name or the response is wrong. Which of both is not for the other end to know.
    #[error("wrong name or secret of {user:?}")]
    Wrong {
        /// CHAP_N.
        user: String,
    },
    /// The initiator's challenge is one of ours: it wants us to answer it in its place.
    #[error("{user:?} sent a challenge of ours back")]
    Reflected {
        /// CHAP_N.
        user: String,
    },
    /// The initiator wants to know who we are, and we have nothing to show.
    #[error("{user:?} asks for a proof of ours, and the target has no secret of its own")]
    NoMutual {
        /// CHAP_N.
        user: String,
    },
    /// Our own secret is that of the initiator as well.
    #[error("{user:?} has the secret that the target itself uses")]
    SameSecret {
        /// CHAP_N.
        user: String,
    },
    /// The system has no random numbers.
    #[error("no random numbers: {0}")]
    NoRandomness(getrandom::Error),
    /// Our answer does not fit.
    #[error(transparent)]
    Answer(#[from] TextError),
}

impl ChapError {
    /// Whether the other end has failed to show who it is, as opposed to not speaking CHAP.
    pub(in crate::iscsi) fn is_failure(&self) -> bool {
        match self {
            Self::NoDigest { .. }
            | Self::Wrong { .. }
            | Self::Reflected { .. }
            | Self::NoMutual { .. }
            | Self::SameSecret { .. } => true,
            Self::OutOfTurn(_) | Self::Missing(_) | Self::Value { .. } | Self::NoRandomness(_) | Self::Answer(_) => {
                false
            }
        }
    }
}

/// The keys of CHAP that one logical request brings.
#[derive(Debug, Default)]
pub(in crate::iscsi) struct ChapKeys<'a>(Vec<(Key, &'a str)>);

impl<'a> ChapKeys<'a> {
    /// Adds a key of CHAP.
    pub(in crate::iscsi) fn add(&mut self, key: Key, value: &'a str) {
        self.0.push((key, value));
    }

    /// One of them, if there is any.
    pub(in crate::iscsi) fn first(&self) -> Option<Key> {
        self.0.first().map(|(key, _)| *key)
    }

    fn get(&self, key: Key) -> Option<&'a str> {
        self.0.iter().find_map(|(name, value)| (*name == key).then_some(*value))
    }

    fn need(&self, key: Key) -> Result<&'a str, ChapError> {
        self.get(key).ok_or(ChapError::Missing(key))
    }

    fn binary(&self, key: Key) -> Result<Vec<u8>, ChapError> {
        parse_binary(self.need(key)?, BINARY_MAX_BYTES).map_err(|error| ChapError::Value { key, error })
    }

    fn only(&self, allowed: &[Key]) -> Result<(), ChapError> {
        match self.0.iter().find(|(key, _)| !allowed.contains(key)) {
            Some((key, _)) => Err(ChapError::OutOfTurn(*key)),
            None => Ok(()),
        }
    }
}

/// One authentication. It has one challenge and takes one response.
#[derive(Debug)]
pub(in crate::iscsi) struct Dialog {
    credentials: Arc<Credentials>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// CHAP_A is to come.
    Algorithm,
    /// CHAP_N and CHAP_R are to come.
    Response { digest: Digest, challenge: Challenge },
    /// It is over, well or not.
    Over { user: Option<String> },
}

impl Dialog {
    pub(in crate::iscsi) fn new(credentials: Arc<Credentials>) -> Self {
        Self {
            credentials,
            state: State::Algorithm,
        }
    }

    /// Who has shown who he is.
    pub(in crate::iscsi) fn user(&self) -> Option<&str> {
        match &self.state {
            State::Over { user } => user.as_deref(),
            _ => None,
        }
    }

    /// Takes the keys of one request; answers them, or says why not. Without keys nothing happens.
    pub(in crate::iscsi) fn answer(&mut self, keys: &ChapKeys<'_>, answers: &mut TextWriter) -> Result<(), ChapError> {
        let Some(first) = keys.first() else { return Ok(()) };
        // Whatever goes wrong, there is no second try.
        match std::mem::replace(&mut self.state, State::Over { user: None }) {
            State::Algorithm => self.challenge(keys, answers),
            State::Response { digest, challenge } => self.judge(digest, &challenge, keys, answers),
            State::Over { .. } => Err(ChapError::OutOfTurn(first)),
        }
    }

    fn challenge(&mut self, keys: &ChapKeys<'_>, answers: &mut TextWriter) -> Result<(), ChapError> {
        keys.only(&[Key::ChapAlgorithm])?;
        let offered = keys.need(Key::ChapAlgorithm)?;
        let min = self.credentials.min_digest;
        let digest = choose_digest(offered, min).ok_or_else(|| ChapError::NoDigest {
            offered: excerpt(offered),
            min,
        })?;
        let challenge = Challenge::new().map_err(ChapError::NoRandomness)?;
        answers.push(Key::ChapAlgorithm.name(), digest.code())?;
        answers.push(Key::ChapIdentifier.name(), challenge.identifier)?;
        answers.push(Key::ChapChallenge.name(), emit_hex(&challenge.bytes))?;
        self.state = State::Response { digest, challenge };
        Ok(())
    }

    fn judge(
        &mut self,
        digest: Digest,
        challenge: &Challenge,
        keys: &ChapKeys<'_>,
        answers: &mut TextWriter,
    ) -> Result<(), ChapError> {
        keys.only(&[
            Key::ChapName,
            Key::ChapResponse,
            Key::ChapIdentifier,
            Key::ChapChallenge,
        ])?;
        let user = name(keys.need(Key::ChapName)?)?.to_owned();
        let answer = keys.binary(Key::ChapResponse)?;
        let theirs = Theirs::read(keys)?;
        if theirs
            .as_ref()
            .is_some_and(|theirs| Challenge::is_ours(&theirs.challenge))
        {
            return Err(ChapError::Reflected { user });
        }
        // One digest is computed whether the name is known or not.
        let credentials = Arc::clone(&self.credentials);
        let known = credentials.users.get(&user);
        let secret = match known {
            Some(secret) => secret,
            None => key().map_err(ChapError::NoRandomness)?,
        };
        let right = verify(digest, challenge.identifier, secret, &challenge.bytes, &answer);
        let Some(secret) = known.filter(|_| right) else {
            return Err(ChapError::Wrong { user });
        };
        if let Some(theirs) = theirs {
            match &credentials.mutual {
                None => return Err(ChapError::NoMutual { user }),
                Some((_, own)) if own == secret => return Err(ChapError::SameSecret { user }),
                Some((our_name, own)) => theirs.answer(digest, our_name, own, answers)?,
            }
        }
        self.state = State::Over { user: Some(user) };
        Ok(())
    }
}

/// What the initiator wants to have answered.
struct Theirs {
    identifier: u8,
    challenge: Vec<u8>,
}

impl Theirs {
    fn read(keys: &ChapKeys<'_>) -> Result<Option<Self>, ChapError> {
        if keys.get(Key::ChapIdentifier).is_none() && keys.get(Key::ChapChallenge).is_none() {
            return Ok(None);
        }
        let key = Key::ChapIdentifier;
        let identifier = key
            .parse_number(keys.need(key)?)
            .map_err(|error| ChapError::Value { key, error })?;
        Ok(Some(Self {
            // The key's range is that of a byte (RFC 7143 §12.1.3).
            identifier: u8::try_from(identifier).map_err(|_| ChapError::Value {
                key,
                error: ValueError::NotANumber,
            })?,
            challenge: keys.binary(Key::ChapChallenge)?,
        }))
    }

    fn answer(&self, digest: Digest, our_name: &str, own: &Secret, answers: &mut TextWriter) -> Result<(), ChapError> {
        let response = response(digest, self.identifier, own, &self.challenge);
        answers.push(Key::ChapName.name(), our_name)?;
        answers.push(Key::ChapResponse.name(), emit_hex(&response))?;
        Ok(())
    }
}

/// The first algorithm of the initiator's list that is known and strong enough.
fn choose_digest(offered: &str, min: Digest) -> Option<Digest> {
    parse_list(offered, ALGORITHMS_MAX).ok()?.into_iter().find_map(|item| {
        let code = u32::try_from(parse_number(item).ok()?).ok()?;
        Digest::from_code(code).filter(|digest| *digest >= min)
    })
}

/// The beginning of a value, for the log.
pub(in crate::iscsi) fn excerpt(value: &str) -> String {
    value.chars().take(EXCERPT_MAX_CHARS).collect()
}

/// A name that can be stored and logged. An empty one is nobody's.
fn name(value: &str) -> Result<&str, ChapError> {
    if value.len() > NAME_MAX_BYTES {
        return Err(ChapError::Value {
            key: Key::ChapName,
            error: ValueError::TooLong {
                max_bytes: NAME_MAX_BYTES,
            },
        });
    }
    Ok(value)
}
