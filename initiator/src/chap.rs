//! CHAP as the initiator (RFC 7143 §12.1.3): we answer the target's challenge, and may send one of our own.

use iscsi_pdu::chap::{BINARY_MAX_BYTES, Digest, Secret, response, verify};
use iscsi_pdu::text::{Key, Pair, emit_base64, emit_hex, parse_binary};

use crate::{Error, PeerError};

/// Length of a challenge of ours, in bytes: that of the longest digest (RFC 7143 §12.1.3 asks for no less).
const CHALLENGE_BYTES: usize = 32;

/// Who we are, and whether the target has to show who it is.
#[derive(Debug, Clone)]
pub struct ChapOptions {
    /// CHAP_N.
    pub user: String,
    /// The secret of that user.
    pub secret: Secret,
    /// If set, the target has to prove that it knows this other secret.
    pub mutual: Option<MutualChap>,
    /// Digests to offer, the one we like best first.
    pub digests: Vec<Digest>,
    /// How we write binary values.
    pub encoding: Encoding,
    /// Whether a target that asks for no proof is good enough: AuthMethod=None is offered as well. Not with `mutual`.
    pub or_none: bool,
}

/// What is known of the target.
#[derive(Debug, Clone)]
pub struct MutualChap {
    /// The name it has to use; `None`: any.
    pub name: Option<String>,
    /// The secret it has to know. Never the one we use ourselves (RFC 7143 §9.2.1).
    pub secret: Secret,
}

/// How binary values are written (RFC 7143 §6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `0x`.
    #[default]
    Hex,
    /// `0b`.
    Base64,
}

impl ChapOptions {
    /// One-way, with every digest there is, the strongest first.
    #[must_use]
    pub fn new(user: impl Into<String>, secret: Secret) -> ChapOptions {
        ChapOptions {
            user: user.into(),
            secret,
            mutual: None,
            digests: Digest::STRONGEST_FIRST.to_vec(),
            encoding: Encoding::Hex,
            or_none: false,
        }
    }
}

/// How far we have come.
#[derive(Debug)]
enum State {
    /// AuthMethod=CHAP is offered.
    Method,
    /// CHAP_A is sent.
    Algorithm,
    /// Our response is sent, and our own challenge if there is one.
    Response { digest: Digest, ours: Option<Challenge> },
    /// The target has shown who it is, or need not.
    Done,
}

#[derive(Debug)]
struct Challenge {
    identifier: u8,
    bytes: Vec<u8>,
}

/// One authentication.
#[derive(Debug)]
pub(crate) struct Chap<'a> {
    options: &'a ChapOptions,
    state: State,
}

impl<'a> Chap<'a> {
    pub(crate) fn new(options: &'a ChapOptions) -> Result<Chap<'a>, Error> {
        let same = |mutual: &MutualChap| mutual.secret == options.secret;
        if options.mutual.as_ref().is_some_and(same) {
            return Err(Error::Misuse("each direction of CHAP needs a secret of its own"));
        }
        if options.or_none && options.mutual.is_some() {
            return Err(Error::Misuse("a target that has to show who it is cannot be let off"));
        }
        Ok(Chap {
            options,
            state: State::Method,
        })
    }

    /// Whether all that we have to say is said: the next stage may be asked for.
    pub(crate) fn may_go_on(&self) -> bool {
        matches!(self.state, State::Response { .. } | State::Done)
    }

    /// Whether nothing is open: the next stage may be entered.
    pub(crate) fn is_done(&self) -> bool {
        match &self.state {
            State::Response { ours, .. } => ours.is_none(),
            State::Done => true,
            State::Method | State::Algorithm => false,
        }
    }

    /// Whether a key is one of CHAP's.
    pub(crate) fn owns(key: Key) -> bool {
        matches!(
            key,
            Key::ChapAlgorithm | Key::ChapIdentifier | Key::ChapChallenge | Key::ChapName | Key::ChapResponse
        )
    }

    /// The target takes CHAP; what to say to that.
    pub(crate) fn agreed(&mut self) -> Vec<(Key, String)> {
        self.state = State::Algorithm;
        let codes: Vec<String> = self
            .options
            .digests
            .iter()
            .map(|digest| digest.code().to_string())
            .collect();
        vec![(Key::ChapAlgorithm, codes.join(","))]
    }

    /// The target's keys of one answer; what to say to them.
    pub(crate) fn answer(&mut self, pairs: &[(Key, Pair<'_>)]) -> Result<Vec<(Key, String)>, Error> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let turn: &[Key] = match &self.state {
            State::Algorithm => &[Key::ChapAlgorithm, Key::ChapIdentifier, Key::ChapChallenge],
            State::Response { ours: Some(_), .. } => &[Key::ChapName, Key::ChapResponse],
            State::Method | State::Response { .. } | State::Done => &[],
        };
        if pairs.len() != turn.len() || !pairs.iter().all(|(key, _)| turn.contains(key)) {
            return Err(PeerError::Unexpected {
                what: "choice of CHAP keys",
            }
            .into());
        }
        let value = |wanted: Key| {
            let mut values = pairs.iter().filter(|(key, _)| *key == wanted).map(|(_, pair)| *pair);
            values.next().ok_or(PeerError::Unexpected {
                what: "choice of CHAP keys",
            })
        };
        match std::mem::replace(&mut self.state, State::Done) {
            State::Response {
                digest,
                ours: Some(ours),
            } => {
                self.judge(digest, &ours, value(Key::ChapName)?, value(Key::ChapResponse)?)?;
                Ok(Vec::new())
            }
            _ => {
                let digest = self.digest(value(Key::ChapAlgorithm)?)?;
                let identifier = number(value(Key::ChapIdentifier)?)?;
                self.respond(digest, identifier, value(Key::ChapChallenge)?)
            }
        }
    }

    /// One of those offered.
    fn digest(&self, pair: Pair<'_>) -> Result<Digest, Error> {
        let digest = pair.value.parse().ok().and_then(Digest::from_code);
        digest
            .filter(|digest| self.options.digests.contains(digest))
            .ok_or_else(|| Error::Negotiation {
                key: pair.key.to_owned(),
                value: pair.value.to_owned(),
            })
    }

    fn respond(&mut self, digest: Digest, identifier: u8, challenge: Pair<'_>) -> Result<Vec<(Key, String)>, Error> {
        let challenge = binary(challenge)?;
        let options = self.options;
        let proof = response(digest, identifier, &options.secret, &challenge);
        let mut keys = vec![
            (Key::ChapName, options.user.clone()),
            (Key::ChapResponse, self.emit(&proof)),
        ];
        let ours = options.mutual.is_some().then(Challenge::new).transpose()?;
        if let Some(ours) = &ours {
            keys.push((Key::ChapIdentifier, ours.identifier.to_string()));
            keys.push((Key::ChapChallenge, self.emit(&ours.bytes)));
        }
        self.state = State::Response { digest, ours };
        Ok(keys)
    }

    /// Whether the target is the one we know.
    fn judge(&self, digest: Digest, ours: &Challenge, name: Pair<'_>, proof: Pair<'_>) -> Result<(), Error> {
        let proof = binary(proof)?;
        let Some(mutual) = &self.options.mutual else {
            return Err(Error::TargetNotProven);
        };
        let named = mutual.name.as_ref().is_none_or(|wanted| wanted == name.value);
        if named && verify(digest, ours.identifier, &mutual.secret, &ours.bytes, &proof) {
            Ok(())
        } else {
            Err(Error::TargetNotProven)
        }
    }

    fn emit(&self, bytes: &[u8]) -> String {
        match self.options.encoding {
            Encoding::Hex => emit_hex(bytes),
            Encoding::Base64 => emit_base64(bytes),
        }
    }
}

impl Challenge {
    fn new() -> Result<Challenge, Error> {
        let mut random = [0; CHALLENGE_BYTES + 1];
        getrandom::fill(&mut random).map_err(|_| Error::Misuse("the system has no random numbers for a challenge"))?;
        Ok(Challenge {
            identifier: random[0],
            bytes: random[1..].to_vec(),
        })
    }
}

fn binary(pair: Pair<'_>) -> Result<Vec<u8>, Error> {
    parse_binary(pair.value, BINARY_MAX_BYTES).map_err(|error| crate::login::bad_value(pair, error))
}

/// CHAP_I is a byte.
fn number(pair: Pair<'_>) -> Result<u8, Error> {
    let number = Key::ChapIdentifier
        .parse_number(pair.value)
        .map_err(|error| crate::login::bad_value(pair, error))?;
    // The key's range is 0 to 255.
    Ok(u8::try_from(number).unwrap_or_default())
}
