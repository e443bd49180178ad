//! Operational negotiation as the responder (RFC 7143 §6.2, §13): one answer for each key offered.

use iscsi_pdu::text::{
    IRRELEVANT, Key, Kind, NO, NONE, NOT_UNDERSTOOD, Pair, Phase, REJECT, Senders, TextError, TextWriter, ValueError,
    boolean, choose, parse_boolean, parse_list,
};

use super::node::Limits;
use super::params::{BURST_MAX_BYTES, FIRST_BURST_MAX_BYTES, OUTSTANDING_R2T_MAX, Params, SessionType};

/// iSCSIProtocolLevel that is offered: RFC 7144.
const PROTOCOL_LEVEL: u32 = 2;
/// Values in one list that are looked at.
const LIST_ITEMS_MAX: usize = 32;
/// Keys we do not know that are answered with NotUnderstood before the initiator is given up. An answer is
/// longer than a question can be, so this bounds what a stranger can make us send (CVE-2026-63887).
const UNKNOWN_KEYS_MAX: usize = 16;

/// What a key did not go well for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// A value that the key cannot have, and that cannot be answered with Reject.
    #[error("{key}: {error}")]
    Value {
        /// The key.
        key: Key,
        /// What is wrong.
        error: ValueError,
    },
    /// RFC 7143 §6.3: a key is negotiated once.
    #[error("{0} was negotiated before")]
    Again(Key),
    /// A key that initiators do not send, or not in this stage.
    #[error("{0} has no place here")]
    Misplaced(Key),
    /// More unknown keys than are answered.
    #[error("more than {UNKNOWN_KEYS_MAX} keys that are not known")]
    TooManyUnknown,
    /// The answers do not fit in one PDU.
    #[error(transparent)]
    Answer(#[from] TextError),
}

/// The state of one negotiation.
#[derive(Debug)]
pub(super) struct Negotiation {
    params: Params,
    seen: Vec<Key>,
    unknown_keys: usize,
}

impl Negotiation {
    pub(super) fn new() -> Self {
        Self {
            params: Params::default(),
            seen: Vec::new(),
            unknown_keys: 0,
        }
    }

    /// Answers one operational or unknown key.
    pub(super) fn answer(
        &mut self,
        pair: Pair<'_>,
        session_type: SessionType,
        limits: &Limits,
        answers: &mut TextWriter,
    ) -> Result<(), NegotiationError> {
        let Some(key) = Key::from_name(pair.key) else {
            self.unknown_keys += 1;
            if self.unknown_keys > UNKNOWN_KEYS_MAX {
                return Err(NegotiationError::TooManyUnknown);
            }
            // An answer of ours that we are told was not understood needs no answer (RFC 7143 §6.2).
            if pair.value != NOT_UNDERSTOOD {
                answers.push(pair.key, NOT_UNDERSTOOD)?;
            }
            return Ok(());
        };
        self.note(key)?;
        let spec = key.spec();
        if key == Key::NodeArchitecture {
            // A declaration for people who look for faults (RFC 7143 §13.26); nothing may depend on it.
            tracing::debug!(architecture = ?pair.value, "the initiator's");
            return Ok(());
        }
        if spec.senders == Senders::Target
            || !matches!(spec.phase, Phase::Operational | Phase::OperationalOrFullFeature)
        {
            return Err(NegotiationError::Misplaced(key));
        }
        if session_type == SessionType::Discovery && !spec.discovery {
            answers.push(key.name(), IRRELEVANT)?;
            return Ok(());
        }
        match self.settle(key, pair.value, limits) {
            Ok(Some(answer)) => answers.push(key.name(), answer)?,
            Ok(None) => {}
            // A declaration cannot be rejected, only a negotiation can (RFC 7143 §6.2).
            Err(error) if key == Key::MaxRecvDataSegmentLength => return Err(NegotiationError::Value { key, error }),
            Err(_) => answers.push(key.name(), REJECT)?,
        }
        Ok(())
    }

    /// Notes that a key has been given: once is enough.
    pub(super) fn note(&mut self, key: Key) -> Result<(), NegotiationError> {
        if self.seen.contains(&key) {
            return Err(NegotiationError::Again(key));
        }
        self.seen.push(key);
        Ok(())
    }

    /// What holds in the end. A burst that nobody mentioned keeps its default, but cannot be longer than another.
    pub(super) fn params(&self) -> Params {
        let params = self.params.clone();
        Params {
            first_burst_bytes: params.first_burst_bytes.min(params.max_burst_bytes),
            ..params
        }
    }

    /// Takes an offer over into the parameters and says what to answer; `None` for a declaration.
    fn settle(&mut self, key: Key, value: &str, limits: &Limits) -> Result<Option<String>, ValueError> {
        let params = &mut self.params;
        let answer = match key {
            Key::HeaderDigest => digest(value, &mut params.header_digest)?.to_owned(),
            Key::DataDigest => digest(value, &mut params.data_digest)?.to_owned(),
            Key::MaxRecvDataSegmentLength => {
                params.max_send_data_segment_bytes = key.parse_number(value)?;
                return Ok(None);
            }
            Key::InitialR2T => truth(key, value, false, &mut params.initial_r2t)?,
            Key::ImmediateData => truth(key, value, true, &mut params.immediate_data)?,
            Key::MaxBurstLength => number(
                key,
                value,
                limits.max_burst_bytes.min(BURST_MAX_BYTES),
                &mut params.max_burst_bytes,
            )?,
            // Never more than MaxBurstLength (RFC 7143 §13.14), which is settled first.
            Key::FirstBurstLength => {
                let ours = limits.first_burst_bytes.min(FIRST_BURST_MAX_BYTES);
                number(
                    key,
                    value,
                    ours.min(params.max_burst_bytes),
                    &mut params.first_burst_bytes,
                )?
            }
            Key::MaxOutstandingR2T => {
                let mut result = 1;
                let answer = number(
                    key,
                    value,
                    u32::from(limits.max_outstanding_r2t.min(OUTSTANDING_R2T_MAX)),
                    &mut result,
                )?;
                params.max_outstanding_r2t = u16::try_from(result).unwrap_or(u16::MAX);
                answer
            }
            // Always in order: true whatever is offered, by the OR.
            Key::DataPDUInOrder | Key::DataSequenceInOrder => truth(key, value, true, &mut true)?,
            // One connection a session, no recovery within one: 1 and 0 by the minimum.
            Key::MaxConnections => number(key, value, 1, &mut 1)?,
            Key::ErrorRecoveryLevel | Key::DefaultTime2Retain => number(key, value, 0, &mut 0)?,
            Key::DefaultTime2Wait => number(key, value, 0, &mut 0)?,
            Key::ISCSIProtocolLevel => {
                let mut result = 1;
                let answer = number(key, value, PROTOCOL_LEVEL, &mut result)?;
                params.protocol_level = u8::try_from(result).unwrap_or(u8::MAX);
                answer
            }
            Key::TaskReporting => {
                let offered = parse_list(value, LIST_ITEMS_MAX)?;
                choose(&offered, &["RFC3720"]).unwrap_or(REJECT).to_owned()
            }
            // RFC 7143 §13.25: a marker may be answered with No, an interval only with Reject.
            Key::IFMarker | Key::OFMarker => NO.to_owned(),
            _ if key.spec().kind == Kind::Obsolete => REJECT.to_owned(),
            _ => REJECT.to_owned(),
        };
        Ok(Some(answer))
    }
}

fn digest(value: &str, enabled: &mut bool) -> Result<&'static str, ValueError> {
    let offered = parse_list(value, LIST_ITEMS_MAX)?;
    match choose(&offered, &["CRC32C", NONE]) {
        Some(NONE) => Ok(NONE),
        Some(_) => {
            *enabled = true;
            Ok("CRC32C")
        }
        None => Ok(REJECT),
    }
}

fn truth(key: Key, value: &str, ours: bool, result: &mut bool) -> Result<String, ValueError> {
    *result = key.negotiate_boolean(parse_boolean(value)?, ours)?;
    Ok(boolean(*result).to_owned())
}

fn number(key: Key, value: &str, ours: u32, result: &mut u32) -> Result<String, ValueError> {
    *result = key.negotiate_number(key.parse_number(value)?, ours)?;
    Ok(result.to_string())
}
