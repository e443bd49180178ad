//! Targets that ask for CHAP, and initiators that speak it by hand.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part of this")]

use std::collections::BTreeMap;
use std::sync::Arc;

use iscsi_pdu::chap::{Digest, Secret, response};
use iscsi_pdu::text::{emit_hex, parse_binary};
use iscsi_pdu::{LoginRequest, LoginResponse, LoginStatus, Response, Stage};
use target_core::iscsi::chap::Credentials;
use target_core::iscsi::{Auth, Limits, Node, Policy};

use crate::support::{self, INITIATOR, TARGET, Wire, login_request, text};

/// A user of the target, and another with a secret of the same length.
pub const USER: &str = "alice";
pub const SECRET: &[u8] = b"open sesame 123!";
pub const OTHER_USER: &str = "bob";
pub const OTHER_SECRET: &[u8] = b"shut sesame 456!";
/// The target's own.
pub const OWN_NAME: &str = "the target";
pub const OWN_SECRET: &[u8] = b"0123456789abcdef";
/// How long a wrong secret waits for its answer, in milliseconds.
pub const DELAY_MS: u64 = 500;

pub fn secret(bytes: &[u8]) -> Secret {
    Secret::new(bytes).expect("long enough")
}

pub fn credentials() -> Credentials {
    let users = [(USER, SECRET), (OTHER_USER, OTHER_SECRET)];
    Credentials {
        users: BTreeMap::from(users.map(|(name, bytes)| (name.to_owned(), secret(bytes)))),
        mutual: Some((OWN_NAME.to_owned(), secret(OWN_SECRET))),
        min_digest: Digest::Md5,
    }
}

/// A node whose one target asks for CHAP.
pub fn locked_node(credentials: Credentials) -> Arc<Node> {
    let node = support::node(Limits::default());
    let target = node.target(TARGET).expect("the target");
    target.set_credentials(credentials);
    target.set_policy(Policy {
        auth: Auth::Chap,
        ..Policy::default()
    });
    node
}

/// A request of the security stage that goes nowhere yet.
pub fn security() -> LoginRequest {
    LoginRequest {
        transit: false,
        csg: Stage::Security,
        nsg: Stage::Security,
        ..login_request()
    }
}

/// One that wants to go on.
pub fn security_over() -> LoginRequest {
    LoginRequest {
        transit: true,
        nsg: Stage::Operational,
        ..security()
    }
}

pub type Keys = Vec<(String, String)>;

pub fn keys(pairs: &[(&str, &str)]) -> Keys {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

pub fn names() -> Keys {
    keys(&[
        ("InitiatorName", INITIATOR),
        ("TargetName", TARGET),
        ("SessionType", "Normal"),
    ])
}

pub fn encoded(keys: &Keys) -> Vec<u8> {
    let pairs: Vec<(&str, &str)> = keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    text(&pairs)
}

pub fn value<'a>(keys: &'a Keys, key: &str) -> Option<&'a str> {
    keys.iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
}

/// What the target wants to have answered.
#[derive(Debug, Clone)]
pub struct Question {
    pub digest: Digest,
    pub identifier: u8,
    pub challenge: Vec<u8>,
}

impl Question {
    pub fn read(answers: &Keys) -> Self {
        let number = |key| value(answers, key).expect(key).parse::<u32>().expect("a number");
        Self {
            digest: Digest::from_code(number("CHAP_A")).expect("a digest"),
            identifier: u8::try_from(number("CHAP_I")).expect("a byte"),
            challenge: parse_binary(value(answers, "CHAP_C").expect("CHAP_C"), 1024).expect("binary"),
        }
    }

    /// The response that `secret` gives.
    pub fn response(&self, secret: &[u8]) -> Vec<u8> {
        response(self.digest, self.identifier, &self::secret(secret), &self.challenge)
    }

    /// CHAP_N and CHAP_R.
    pub fn answer(&self, user: &str, secret: &[u8]) -> Keys {
        keys(&[("CHAP_N", user), ("CHAP_R", &emit_hex(&self.response(secret)))])
    }
}

/// A login that has got to the target's question.
pub fn asked(node: &Arc<Node>, algorithms: &str) -> (Wire, Question) {
    let mut wire = Wire::new(node);
    let question = ask(&mut wire, names(), algorithms);
    (wire, question)
}

pub fn ask(wire: &mut Wire, mut first: Keys, algorithms: &str) -> Question {
    first.extend(keys(&[("AuthMethod", "CHAP,None")]));
    let (response, answers) = wire.login(&security(), &encoded(&first));
    assert!(response.status.is_success() && !response.transit, "{response:?}");
    assert_eq!(value(&answers, "AuthMethod"), Some("CHAP"));
    assert_eq!(value(&answers, "TargetAlias"), None, "not for strangers");
    let (response, answers) = wire.login(&security(), &encoded(&keys(&[("CHAP_A", algorithms)])));
    assert!(response.status.is_success() && !response.transit, "{response:?}");
    Question::read(&answers)
}

/// Sends a request and waits for the answer, as long as it may take.
pub fn say(wire: &mut Wire, request: &LoginRequest, data: &Keys) -> (LoginResponse, Keys) {
    wire.send(request, &encoded(data));
    if wire.answers.is_empty() {
        wire.sleep_ms(DELAY_MS);
    }
    match wire.answers.pop_front() {
        Some((Response::Login(response), data)) => (response, support::pairs(&data)),
        other => panic!(
            "expected a login response, got {other:?}: {:?}",
            wire.connection.ended()
        ),
    }
}

/// The status that a request leads to.
pub fn status(wire: &mut Wire, request: &LoginRequest, data: &Keys) -> LoginStatus {
    say(wire, request, data).0.status
}
