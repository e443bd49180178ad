//! The login phase (RFC 7143 §6.3): security, with CHAP or without, then operational negotiation.

use std::time::Duration;

use iscsi_pdu::text::{
    CollectorLimits, Duplicates, Key, Kind, NONE, NOT_UNDERSTOOD, NumberRule, Pair, REJECT, Special, TextCollector,
    TextLimits, TextWriter, boolean, parse, parse_boolean,
};
use iscsi_pdu::{LoginRequest, LoginResponse, Response, Serial, Stage};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::chap::Chap;
use crate::connection::Connection;
use crate::{Error, LoginOptions, Negotiated, PeerError};

/// Requests in one login before we give up on a target that never goes on.
const MAX_ROUNDS: usize = 32;
/// All text of one answer, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// PDUs of one answer.
const MAX_ANSWER_SEGMENTS: usize = 32;
/// Text of one request: what every target must be able to receive (RFC 7143 §6.2).
const MAX_REQUEST_BYTES: usize = 8192;
/// Task tag of login requests.
const LOGIN_TAG: u32 = 0;
/// Keys the target may send over the whole login.
const MAX_KEYS_FROM_TARGET: usize = 256;

/// Where a login has got to: sans-IO, one answer in, one request out.
struct Login<'a> {
    options: &'a LoginOptions,
    stage: Stage,
    chap: Option<Chap<'a>>,
    negotiated: Negotiated,
    offered: Vec<Key>,
    /// Whether the target has taken AuthMethod=CHAP.
    chap_agreed: bool,
    exp_stat_sn: Option<Serial>,
}

/// What the engine needs to go on.
pub(crate) struct LoggedIn {
    pub(crate) negotiated: Negotiated,
    pub(crate) cmd_sn: Serial,
    pub(crate) exp_stat_sn: Serial,
    pub(crate) max_cmd_sn: Serial,
}

/// First CmdSN of every session.
const FIRST_CMD_SN: Serial = Serial(1);

pub(crate) async fn login<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S>,
    options: &LoginOptions,
) -> Result<LoggedIn, Error> {
    let mut login = Login {
        options,
        stage: options.first_stage,
        chap: match (&options.chap, options.first_stage) {
            (Some(chap), Stage::Security) => Some(Chap::new(chap)?),
            // Nobody is to believe that the target has been asked who it is.
            (Some(_), _) => {
                return Err(Error::Misuse(
                    "CHAP has its place in the security stage, which is left out",
                ));
            }
            (None, _) => None,
        },
        negotiated: Negotiated::defaults(options),
        offered: Vec::new(),
        chap_agreed: false,
        exp_stat_sn: None,
    };
    let mut collector = TextCollector::new(CollectorLimits {
        max_bytes: MAX_ANSWER_BYTES,
        max_segments: MAX_ANSWER_SEGMENTS,
    });
    let mut text = login.opening()?;
    let mut entering = false;
    for _ in 0..MAX_ROUNDS {
        // While the target's answer goes on, we only ask for more (RFC 7143 §11.12.2).
        let request = login.request(!collector.in_progress() && login.chap.as_ref().is_none_or(Chap::may_go_on));
        let asked_for = request.transit.then_some(request.nsg);
        connection.send(&request, std::mem::take(&mut text));
        let answer = timeout(Duration::from_millis(options.timeout_ms), connection.receive())
            .await
            .map_err(|_| Error::Timeout {
                waiting_for: "login response",
                timeout_ms: options.timeout_ms,
            })??;
        let (Response::Login(response), data) = answer else {
            return Err(PeerError::Unexpected {
                what: "PDU during login",
            }
            .into());
        };
        login.check(&response, &data)?;
        if response.transit && asked_for != Some(response.nsg) {
            return Err(PeerError::Unexpected {
                what: "stage transition nobody asked for",
            }
            .into());
        }
        let Some(answer) = collector.feed(&data, response.continue_).map_err(PeerError::from)? else {
            continue;
        };
        let replies = login.answer(&answer)?;
        if response.transit {
            if !replies.is_empty() {
                return Err(PeerError::Unexpected {
                    what: "offer in the last answer of a stage",
                }
                .into());
            }
            if !login.chap.as_ref().is_none_or(Chap::is_done) {
                return Err(Error::TargetNotProven);
            }
            login.stage = response.nsg;
            entering = true;
        } else {
            text = replies;
        }
        match login.stage {
            Stage::FullFeature => return login.finish(&response),
            Stage::Operational if entering => text = login.operational()?,
            _ => {}
        }
        entering = false;
    }
    Err(PeerError::Unexpected {
        what: "login that does not end",
    }
    .into())
}

impl Login<'_> {
    fn request(&self, transit: bool) -> LoginRequest {
        let nsg = match self.stage {
            Stage::Security => Stage::Operational,
            _ => Stage::FullFeature,
        };
        LoginRequest {
            transit,
            continue_: false,
            csg: self.stage,
            nsg: if transit { nsg } else { self.stage },
            version_max: 0,
            version_min: 0,
            isid: self.options.isid,
            tsih: self.options.tsih,
            itt: LOGIN_TAG,
            cid: self.options.cid,
            cmd_sn: FIRST_CMD_SN,
            exp_stat_sn: self.exp_stat_sn.unwrap_or_default(),
        }
    }

    /// The first request: who we are and whom we want.
    fn opening(&mut self) -> Result<Vec<u8>, Error> {
        let mut writer = TextWriter::new(MAX_REQUEST_BYTES);
        let session_type = if self.options.target_name.is_some() {
            "Normal"
        } else {
            "Discovery"
        };
        push(&mut writer, Key::InitiatorName.name(), &self.options.initiator_name)?;
        push(&mut writer, Key::SessionType.name(), session_type)?;
        if let Some(name) = &self.options.target_name {
            push(&mut writer, Key::TargetName.name(), name)?;
        }
        match self.stage {
            Stage::Security => {
                self.offered.push(Key::AuthMethod);
                push(&mut writer, Key::AuthMethod.name(), self.method())?;
                Ok(writer.into_bytes())
            }
            _ => {
                let mut text = writer.into_bytes();
                text.extend(self.operational()?);
                Ok(text)
            }
        }
    }

    /// The only AuthMethod we take, unless the options say that we need not show who we are. With CHAP nothing less
    /// will do: that is why we have a secret.
    fn method(&self) -> &'static str {
        match &self.chap {
            Some(_) if self.may_do_without() => "CHAP,None",
            Some(_) => "CHAP",
            None => NONE,
        }
    }

    fn may_do_without(&self) -> bool {
        self.options.chap.as_ref().is_some_and(|chap| chap.or_none)
    }

    /// Everything we negotiate, in one request.
    fn operational(&mut self) -> Result<Vec<u8>, Error> {
        let options = self.options;
        let digest = |on: bool| if on { "CRC32C,None" } else { "None" }.to_owned();
        let mut keys = vec![
            (Key::HeaderDigest, digest(options.header_digest)),
            (Key::DataDigest, digest(options.data_digest)),
            (Key::DefaultTime2Wait, "2".to_owned()),
            (Key::DefaultTime2Retain, "0".to_owned()),
            (Key::ErrorRecoveryLevel, "0".to_owned()),
            (
                Key::MaxRecvDataSegmentLength,
                options.max_recv_data_segment_bytes.to_string(),
            ),
        ];
        if options.target_name.is_some() {
            keys.extend([
                (Key::InitialR2T, boolean(options.initial_r2t).to_owned()),
                (Key::ImmediateData, boolean(options.immediate_data).to_owned()),
                (Key::MaxBurstLength, options.max_burst_bytes.to_string()),
                (
                    Key::FirstBurstLength,
                    options.first_burst_bytes.min(options.max_burst_bytes).to_string(),
                ),
                (Key::MaxOutstandingR2T, options.max_outstanding_r2t.to_string()),
                (Key::MaxConnections, "1".to_owned()),
                (Key::DataPDUInOrder, "Yes".to_owned()),
                (Key::DataSequenceInOrder, "Yes".to_owned()),
            ]);
        }
        let mut writer = TextWriter::new(MAX_REQUEST_BYTES);
        for (key, value) in keys {
            if matches!(key.spec().kind, Kind::Number { .. }) && key.parse_number(&value).is_err() {
                return Err(Error::Misuse(
                    "a login option is outside the range of its key (RFC 7143 section 13)",
                ));
            }
            push(&mut writer, key.name(), &value)?;
            self.offered.push(key);
        }
        for (key, value) in &options.extra_keys {
            push(&mut writer, key, value)?;
        }
        Ok(writer.into_bytes())
    }

    fn check(&mut self, response: &LoginResponse, data: &[u8]) -> Result<(), Error> {
        if !response.status.is_success() {
            let pairs = parse(data, &TextLimits::default(), Duplicates::Allowed).unwrap_or_default();
            let redirect = pairs.iter().find(|pair| pair.key == Key::TargetAddress.name());
            let redirect = redirect
                .map(|pair| pair.value.to_owned())
                .filter(|_| response.status.class() == 1);
            return Err(Error::LoginRefused {
                status: response.status,
                redirect,
            });
        }
        same("ITT of a login response", response.itt, LOGIN_TAG)?;
        same("CSG of a login response", response.csg.code(), self.stage.code())?;
        same("version of a login response", response.version_active, 0_u8)?;
        if response.isid != self.options.isid {
            return Err(PeerError::Unexpected {
                what: "ISID in a login response",
            }
            .into());
        }
        if let Some(expected) = self.exp_stat_sn {
            same("StatSN of a login response", response.stat_sn.0, expected.0)?;
        }
        self.exp_stat_sn = Some(response.stat_sn + 1);
        Ok(())
    }

    /// Takes a whole answer in; what is to be said to it is the result.
    fn answer(&mut self, text: &[u8]) -> Result<Vec<u8>, Error> {
        let limits = TextLimits::default();
        let pairs = parse(text, &limits, Duplicates::Refused).map_err(PeerError::from)?;
        let mut writer = TextWriter::new(MAX_REQUEST_BYTES);
        let (mut agreed, mut chap_keys) = (false, Vec::new());
        for pair in pairs {
            if self.negotiated.from_target.len() == MAX_KEYS_FROM_TARGET {
                return Err(PeerError::Unexpected { what: "number of keys" }.into());
            }
            self.negotiated
                .from_target
                .push((pair.key.to_owned(), pair.value.to_owned()));
            let extra = self.options.extra_keys.iter().any(|(key, _)| key == pair.key);
            match Key::from_name(pair.key) {
                Some(key) if self.chap.is_some() && Chap::owns(key) => chap_keys.push((key, pair)),
                Some(Key::AuthMethod) if self.chap.is_some() && pair.value == "CHAP" && !self.chap_agreed => {
                    (agreed, self.chap_agreed) = (true, true);
                }
                Some(Key::AuthMethod) if self.may_do_without() && pair.value == NONE && !self.chap_agreed => {
                    self.chap = None;
                }
                Some(key) if self.offered.contains(&key) => self.outcome(key, pair)?,
                // An answer to an answer of ours, or to a key sent for a test.
                _ if extra || Special::of(pair.value).is_some() => {}
                Some(key) => {
                    if let Some(reply) = self.offer(key, pair)? {
                        push(&mut writer, pair.key, &reply)?;
                    }
                }
                None => push(&mut writer, pair.key, NOT_UNDERSTOOD)?,
            }
        }
        if let Some(chap) = &mut self.chap {
            let mut replies = chap.answer(&chap_keys)?;
            if agreed {
                replies.extend(chap.agreed());
            }
            for (key, value) in replies {
                push(&mut writer, key.name(), &value)?;
            }
        }
        Ok(writer.into_bytes())
    }

    /// The target's answer to an offer of ours, or its declaration.
    fn outcome(&mut self, key: Key, pair: Pair<'_>) -> Result<(), Error> {
        let refused = || Error::Negotiation {
            key: pair.key.to_owned(),
            value: pair.value.to_owned(),
        };
        if Special::of(pair.value).is_some() {
            // The default stays, except where without our value there can be no session.
            return match key {
                Key::AuthMethod | Key::HeaderDigest | Key::DataDigest => Err(refused()),
                _ => Ok(()),
            };
        }
        let number = || key.parse_number(pair.value).map_err(|error| bad_value(pair, error));
        let yes = || parse_boolean(pair.value).map_err(|error| bad_value(pair, error));
        let (method, options, negotiated) = (self.method(), self.options, &mut self.negotiated);
        let at_most = |value: u32, limit: u32| if value <= limit { Ok(value) } else { Err(refused()) };
        match key {
            Key::AuthMethod if pair.value != method || self.chap_agreed => return Err(refused()),
            Key::HeaderDigest => {
                negotiated.header_digest = digest(pair.value, options.header_digest).ok_or_else(refused)?;
            }
            Key::DataDigest => {
                negotiated.data_digest = digest(pair.value, options.data_digest).ok_or_else(refused)?;
            }
            Key::MaxRecvDataSegmentLength => negotiated.max_send_data_segment_bytes = number()?,
            Key::InitialR2T => match yes()? {
                false if options.initial_r2t => return Err(refused()),
                value => negotiated.initial_r2t = value,
            },
            Key::ImmediateData => match yes()? {
                true if !options.immediate_data => return Err(refused()),
                value => negotiated.immediate_data = value,
            },
            Key::MaxBurstLength => negotiated.max_burst_bytes = at_most(number()?, options.max_burst_bytes)?,
            Key::FirstBurstLength => negotiated.first_burst_bytes = at_most(number()?, options.first_burst_bytes)?,
            Key::MaxOutstandingR2T => {
                negotiated.max_outstanding_r2t = at_most(number()?, options.max_outstanding_r2t)?;
            }
            Key::MaxConnections => negotiated.max_connections = at_most(number()?, 1)?,
            Key::DefaultTime2Wait => negotiated.default_time_to_wait_s = number()?,
            Key::DefaultTime2Retain => negotiated.default_time_to_retain_s = at_most(number()?, 0)?,
            Key::ErrorRecoveryLevel => negotiated.error_recovery_level = at_most(number()?, 0)?,
            Key::DataPDUInOrder | Key::DataSequenceInOrder if !yes()? => return Err(refused()),
            _ => {}
        }
        Ok(())
    }

    /// An offer or declaration of the target's own.
    fn offer(&mut self, key: Key, pair: Pair<'_>) -> Result<Option<String>, Error> {
        Ok(match key.spec().kind {
            Kind::Number {
                rule: NumberRule::Declared,
                ..
            } => {
                let value = key.parse_number(pair.value).map_err(|error| bad_value(pair, error))?;
                if key == Key::MaxRecvDataSegmentLength {
                    self.negotiated.max_send_data_segment_bytes = value;
                }
                None
            }
            Kind::Number {
                default: Some(ours), ..
            } => Some(match key.parse_number(pair.value) {
                Ok(offered) => key.negotiate_number(offered, ours).unwrap_or(ours).to_string(),
                Err(_) => REJECT.to_owned(),
            }),
            Kind::And { default } | Kind::Or { default } => Some(match parse_boolean(pair.value) {
                Ok(offered) => boolean(key.negotiate_boolean(offered, default).unwrap_or(default)).to_owned(),
                Err(_) => REJECT.to_owned(),
            }),
            Kind::List {
                default: Some(default), ..
            } if pair.value.split(',').any(|value| value == default) => Some(default.to_owned()),
            Kind::List { .. } | Kind::Obsolete => Some(REJECT.to_owned()),
            Kind::Text | Kind::OneOf { .. } | Kind::Binary { .. } | Kind::Number { .. } => None,
        })
    }

    fn finish(mut self, response: &LoginResponse) -> Result<LoggedIn, Error> {
        if response.tsih == 0 {
            return Err(PeerError::Unexpected {
                what: "TSIH of 0 at the end of login",
            }
            .into());
        }
        self.negotiated.tsih = response.tsih;
        self.negotiated.first_burst_bytes = self.negotiated.first_burst_bytes.min(self.negotiated.max_burst_bytes);
        Ok(LoggedIn {
            negotiated: self.negotiated,
            cmd_sn: FIRST_CMD_SN,
            exp_stat_sn: response.stat_sn + 1,
            max_cmd_sn: response.max_cmd_sn,
        })
    }
}

fn push(writer: &mut TextWriter, key: &str, value: &str) -> Result<(), Error> {
    writer
        .push(key, value)
        .map_err(|_| Error::Misuse("a login key is too long or not text"))
}

fn digest(value: &str, offered: bool) -> Option<bool> {
    match value {
        NONE => Some(false),
        "CRC32C" if offered => Some(true),
        _ => None,
    }
}

pub(crate) fn bad_value(pair: Pair<'_>, error: iscsi_pdu::text::ValueError) -> Error {
    PeerError::Value {
        key: pair.key.to_owned(),
        value: pair.value.to_owned(),
        error,
    }
    .into()
}

/// The first must be the second.
pub(crate) fn same(what: &'static str, found: impl Into<u64>, expected: impl Into<u64>) -> Result<(), PeerError> {
    let (found, expected) = (found.into(), expected.into());
    if found == expected {
        Ok(())
    } else {
        Err(PeerError::Mismatch { what, found, expected })
    }
}
