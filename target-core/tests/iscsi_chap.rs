//! CHAP as bytes: who gets in, and every way in which somebody does not (RFC 7143 §12.1.3, §9.2.1).

mod chap_support;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use chap_support::*;
use iscsi_pdu::chap::{Digest, response};
use iscsi_pdu::text::{emit_base64, emit_hex};
use iscsi_pdu::{LoginRequest, LoginStatus, Stage};
use proptest::prelude::*;
use support::{INITIATOR, TARGET, Wire, login_request, origin};
use target_core::iscsi::chap::{ChapError, Credentials, CredentialsError};
use target_core::iscsi::{Auth, Ended, Limits, LoginError, Mode, NamePattern, Node, Origin, Policy, Portal, Rule, Way};

const FAILED: LoginStatus = LoginStatus::AuthenticationFailure;

/// Why the connection is over, when it is CHAP's doing.
fn chap_error(wire: &Wire) -> ChapError {
    match wire.connection.ended() {
        Some(Ended::LoginRefused(LoginError::Chap { initiator, error })) => {
            assert_eq!(initiator, INITIATOR);
            error
        }
        other => panic!("not refused by CHAP: {other:?}"),
    }
}

fn session_count(node: &Arc<Node>) -> usize {
    node.target(TARGET).expect("the target").session_count()
}

#[test]
fn who_knows_the_secret_gets_in() {
    let node = locked_node(credentials());
    for digest in Digest::STRONGEST_FIRST {
        for (user, secret) in [(USER, SECRET), (OTHER_USER, OTHER_SECRET)] {
            let (mut wire, question) = asked(&node, &digest.code().to_string());
            assert_eq!(question.digest, digest);
            assert!(question.challenge.len() >= digest.output_bytes());
            let (response, answers) = say(&mut wire, &security_over(), &question.answer(user, secret));
            assert!(
                response.status.is_success() && response.transit,
                "{digest}: {response:?}"
            );
            assert_eq!(value(&answers, "CHAP_R"), None, "nobody asked");
            assert_eq!(value(&answers, "TargetAlias"), Some("a test"));
            let (response, _) = wire.login(&login_request(), &[]);
            assert!(response.status.is_success() && response.transit);
            wire.assert_alive();
            let sessions = node.target(TARGET).expect("the target").sessions();
            assert_eq!(sessions[0].who.chap_user.as_deref(), Some(user));
        }
    }
}

/// Responses of the target to the challenge of bytes 0 to 31 under identifier 0x2a, from Python's hashlib:
/// `hashlib.new(name, b"\x2a" + b"0123456789abcdef" + bytes(range(32))).hexdigest()`.
#[test]
fn the_target_proves_who_it_is() {
    let known = [
        ("5", "0x5fdf0806fabbf071b43f51d0a3efece5"),
        ("6", "0x34316471f80cb6fbbcbe90d268d1b2fe1ffc3899"),
        (
            "7",
            "0x2d84c1d469bd56155ff5417d7e43be7257c2b108e3079eb23af578704ebbad27",
        ),
        (
            "8",
            "0xa62a875d29a7572b24cd4b4d933fe42cc899795a2165e222034d8dfddb75af2f",
        ),
    ];
    let challenge: Vec<u8> = (0..32).collect();
    for (algorithm, expected) in known {
        for (identifier, written) in [("42", emit_hex(&challenge)), ("0x2a", emit_base64(&challenge))] {
            let (mut wire, question) = asked(&locked_node(credentials()), algorithm);
            // Our own values in Base64, and the keys in another order.
            let mut third = keys(&[("CHAP_C", &written), ("CHAP_I", identifier)]);
            third.extend(keys(&[
                ("CHAP_R", &emit_base64(&question.response(SECRET))),
                ("CHAP_N", USER),
            ]));
            let (response, answers) = say(&mut wire, &security_over(), &third);
            assert!(response.transit, "{algorithm}: {response:?}");
            assert_eq!(value(&answers, "CHAP_N"), Some(OWN_NAME));
            assert_eq!(value(&answers, "CHAP_R"), Some(expected), "{algorithm}");
        }
    }
}

#[test]
fn the_initiator_prefers_and_the_target_insists() {
    // (CHAP_A, the weakest that will do, what is chosen)
    let table = [
        ("5", Digest::Md5, Some(Digest::Md5)),
        ("5,6,7,8", Digest::Md5, Some(Digest::Md5)),
        ("8,7,6,5", Digest::Md5, Some(Digest::Sha3_256)),
        ("6,8", Digest::Md5, Some(Digest::Sha1)),
        ("5,6,7,8", Digest::Sha256, Some(Digest::Sha256)),
        ("5,8,7", Digest::Sha256, Some(Digest::Sha3_256)),
        ("5,6,7", Digest::Sha3_256, None),
        ("5", Digest::Sha1, None),
        ("0x7", Digest::Md5, Some(Digest::Sha256)),
        (
            "4,9,0,261,4294967301,18446744073709551621,7",
            Digest::Md5,
            Some(Digest::Sha256),
        ),
        ("md5,sha256", Digest::Md5, None),
        ("07", Digest::Md5, None),
        ("", Digest::Md5, None),
        ("5,,6", Digest::Md5, None),
        ("-5", Digest::Md5, None),
        ("5 ", Digest::Md5, None),
        ("None", Digest::Md5, None),
    ];
    for (offered, min_digest, chosen) in table {
        let node = locked_node(Credentials {
            min_digest,
            ..credentials()
        });
        let mut wire = Wire::new(&node);
        let mut first = names();
        first.extend(keys(&[("AuthMethod", "CHAP")]));
        wire.login(&security(), &encoded(&first));
        let (response, answers) = say(&mut wire, &security(), &keys(&[("CHAP_A", offered)]));
        match chosen {
            Some(digest) => assert_eq!(Question::read(&answers).digest, digest, "CHAP_A={offered}"),
            None => {
                assert_eq!(response.status, FAILED, "CHAP_A={offered} of at least {min_digest}");
                assert!(matches!(chap_error(&wire), ChapError::NoDigest { min, .. } if min == min_digest));
            }
        }
    }
}

/// What is sent in place of the right third message, and how that ends.
#[test]
fn third_messages_that_are_none() {
    let long = |bytes: usize| format!("0x{}", "ab".repeat(bytes));
    let invalid = LoginStatus::InitiatorError;
    let missing = LoginStatus::MissingParameter;
    for (what, value, expected) in [
        ("empty", String::new(), invalid),
        ("no prefix", "ab".repeat(32), invalid),
        ("prefix only", "0x".to_owned(), invalid),
        ("base64 prefix only", "0b".to_owned(), invalid),
        ("other prefix", format!("0z{}", "ab".repeat(32)), invalid),
        ("a decimal number", "12345".to_owned(), invalid),
        ("odd characters", format!("0x{}zz", "ab".repeat(31)), invalid),
        ("white space", format!("0x {}", "ab".repeat(32)), invalid),
        ("bad base64 length", "0bQUJD0".to_owned(), invalid),
        ("bad base64 characters", "0bQUJ_".to_owned(), invalid),
        ("base64 with padding inside", "0bQQ==QQ==".to_owned(), invalid),
        ("base64 with too much padding", "0bQ===".to_owned(), invalid),
        ("base64 with bits left over", "0bQR==".to_owned(), invalid),
        ("1025 bytes", long(1025), invalid),
        ("1024 bytes", long(1024), FAILED),
        ("one byte", long(1), FAILED),
        ("31 bytes", long(31), FAILED),
        ("33 bytes", long(33), FAILED),
        ("32 zero bytes", emit_hex(&[0; 32]), FAILED),
        ("a special value", "NotUnderstood".to_owned(), invalid),
    ] {
        let node = locked_node(credentials());
        let (mut wire, _) = asked(&node, "7");
        let third = keys(&[("CHAP_N", USER), ("CHAP_R", &value)]);
        assert_eq!(
            say(&mut wire, &security_over(), &third).0.status,
            expected,
            "CHAP_R: {what}"
        );
        assert!(wire.connection.ended().is_some(), "{what}: no second try");
        assert_eq!(session_count(&node), 0, "{what}");
    }
    // Rows made from the right answer.
    type Change = fn(&mut Keys, &Question);
    let changes: &[(&str, LoginStatus, Change)] = &[
        ("another secret", FAILED, |keys, question| {
            *keys = question.answer(USER, OTHER_SECRET);
        }),
        ("another user's name", FAILED, |keys, question| {
            *keys = question.answer(OTHER_USER, SECRET);
        }),
        ("a user that does not exist", FAILED, |keys, question| {
            *keys = question.answer("mallory", SECRET);
        }),
        ("the user's name in upper case", FAILED, |keys, question| {
            *keys = question.answer("ALICE", SECRET);
        }),
        ("the target's own name and secret", FAILED, |keys, question| {
            *keys = question.answer(OWN_NAME, OWN_SECRET);
        }),
        ("no name", FAILED, |keys, question| *keys = question.answer("", SECRET)),
        ("a name of 256 bytes", LoginStatus::InitiatorError, |keys, question| {
            *keys = question.answer(&"a".repeat(256), SECRET);
        }),
        ("a name that goes on", FAILED, |keys, question| {
            *keys = question.answer("alice ", SECRET);
        }),
        ("another identifier", FAILED, |keys, question| {
            let other = Question {
                identifier: question.identifier.wrapping_add(1),
                ..question.clone()
            };
            *keys = other.answer(USER, SECRET);
        }),
        ("another digest", FAILED, |keys, question| {
            let other = Question {
                digest: Digest::Sha3_256,
                ..question.clone()
            };
            *keys = other.answer(USER, SECRET);
        }),
        ("CHAP_R is missing", missing, |keys, _| {
            keys.retain(|(key, _)| key != "CHAP_R")
        }),
        ("CHAP_N is missing", missing, |keys, _| {
            keys.retain(|(key, _)| key != "CHAP_N")
        }),
        ("CHAP_C without CHAP_I", missing, |keys, _| {
            keys.push(("CHAP_C".into(), "0x00112233445566778899".into()));
        }),
        ("CHAP_I without CHAP_C", missing, |keys, _| {
            keys.push(("CHAP_I".into(), "1".into()))
        }),
        ("CHAP_I of 256", invalid, |keys, _| {
            keys.push(("CHAP_I".into(), "256".into()));
            keys.push(("CHAP_C".into(), "0x00112233445566778899".into()));
        }),
        ("CHAP_I that is no number", invalid, |keys, _| {
            keys.push(("CHAP_I".into(), "one".into()));
            keys.push(("CHAP_C".into(), "0x00112233445566778899".into()));
        }),
        ("CHAP_C of 1025 bytes", invalid, |keys, _| {
            keys.push(("CHAP_I".into(), "1".into()));
            keys.push(("CHAP_C".into(), format!("0x{}", "00".repeat(1025))));
        }),
        ("CHAP_C that is not binary", invalid, |keys, _| {
            keys.push(("CHAP_I".into(), "1".into()));
            keys.push(("CHAP_C".into(), "challenge".into()));
        }),
        ("CHAP_A again", invalid, |keys, _| {
            keys.push(("CHAP_A".into(), "7".into()))
        }),
        ("AuthMethod again", invalid, |keys, _| {
            keys.push(("AuthMethod".into(), "None".into()))
        }),
        ("CHAP_R twice", invalid, |keys, _| {
            let again = keys[1].clone();
            keys.push(again);
        }),
        ("an operational key too", invalid, |keys, _| {
            keys.push(("MaxBurstLength".into(), "65536".into()));
        }),
        ("another target's name", invalid, |keys, _| {
            keys.push(("TargetName".into(), TARGET.into()));
        }),
    ];
    for (what, expected, change) in changes {
        let node = locked_node(credentials());
        let (mut wire, question) = asked(&node, "7");
        let mut third = question.answer(USER, SECRET);
        change(&mut third, &question);
        assert_eq!(say(&mut wire, &security_over(), &third).0.status, *expected, "{what}");
        assert!(wire.connection.ended().is_some(), "{what}: no second try");
        assert_eq!(session_count(&node), 0, "{what}");
    }
}

/// Who has no secret learns nothing from the answer: not which of both was wrong, and not by when it came.
#[test]
fn wrong_names_and_wrong_secrets_look_the_same() {
    let mut seen = Vec::new();
    for (user, secret) in [(USER, OTHER_SECRET), ("mallory", SECRET), ("mallory", OTHER_SECRET)] {
        let node = locked_node(credentials());
        let (mut wire, question) = asked(&node, "8");
        let start = wire.bytes_out;
        wire.send(&security_over(), &encoded(&question.answer(user, secret)));
        wire.sleep_ms(DELAY_MS - 1);
        assert!(wire.answers.is_empty(), "{user}: it takes a while");
        // Asking again does not help, nor does a right answer now.
        wire.send(&security_over(), &encoded(&question.answer(USER, SECRET)));
        assert!(wire.answers.is_empty(), "{user}");
        assert_eq!(wire.connection.ended(), None);
        wire.sleep_ms(1);
        let (response, text) = wire.next();
        assert_eq!(chap_error(&wire), ChapError::Wrong { user: user.to_owned() });
        seen.push((response, text, wire.bytes_out - start));
        wire.sleep_ms(60_000);
        assert!(wire.answers.is_empty(), "{user}: one answer");
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
}

#[test]
fn a_response_is_good_for_one_challenge() {
    let node = locked_node(credentials());
    let (mut first, question) = asked(&node, "8");
    let recorded = question.answer(USER, SECRET);
    assert!(status(&mut first, &security_over(), &recorded).is_success());
    let (mut second, other) = asked(&node, "8");
    assert_ne!(question.challenge, other.challenge);
    assert_eq!(status(&mut second, &security_over(), &recorded), FAILED, "replayed");
    // Nor twice on the connection it was made for.
    assert_eq!(
        status(&mut first, &login_request(), &recorded),
        LoginStatus::InitiatorError
    );
}

/// Somebody without a secret lets the target answer its own challenge.
#[test]
fn reflected_challenges_are_refused() {
    let node = locked_node(credentials());
    let with_challenge = |question: &Question, challenge: &[u8]| {
        let mut third = question.answer(USER, SECRET);
        third.extend(keys(&[
            ("CHAP_I", &question.identifier.to_string()),
            ("CHAP_C", &emit_hex(challenge)),
        ]));
        third
    };
    let reflected = ChapError::Reflected { user: USER.to_owned() };
    let (mut wire, question) = asked(&node, "8");
    let third = with_challenge(&question, &question.challenge);
    assert_eq!(
        status(&mut wire, &security_over(), &third),
        FAILED,
        "the same connection"
    );
    assert_eq!(chap_error(&wire), reflected);

    // A user who may log in has the challenge of another connection answered, even one to another node.
    for node_of_other in [Arc::clone(&node), locked_node(credentials())] {
        let (_waits, wanted) = asked(&node_of_other, "8");
        let (mut wire, question) = asked(&node, "8");
        let third = with_challenge(&question, &wanted.challenge);
        assert_eq!(
            status(&mut wire, &security_over(), &third),
            FAILED,
            "another connection"
        );
        assert_eq!(chap_error(&wire), reflected);
    }
    // Nothing is answered before the initiator has shown who it is.
    let (mut wire, question) = asked(&node, "8");
    let mut third = with_challenge(&question, &[7; 32]);
    third[1].1 = emit_hex(&[0; 32]);
    let (response, answers) = say(&mut wire, &security_over(), &third);
    assert_eq!((response.status, answers.len()), (FAILED, 0));
}

#[test]
fn each_direction_has_a_secret_of_its_own() {
    let same = Credentials {
        mutual: Some((OWN_NAME.to_owned(), secret(SECRET))),
        ..credentials()
    };
    assert_eq!(same.check(), Err(CredentialsError::SameSecret(USER.to_owned())));
    assert_eq!(credentials().check(), Ok(()));
    assert_eq!(
        credentials().check_not_a_user(&secret(OTHER_SECRET)),
        Err(CredentialsError::SameSecret(OTHER_USER.to_owned()))
    );
    for name in ["", "a\nb", &"x".repeat(256)] {
        let users = BTreeMap::from([(name.to_owned(), secret(SECRET))]);
        let bad = Credentials { users, ..credentials() };
        assert_eq!(bad.check(), Err(CredentialsError::BadName(name.to_owned())));
    }
    // And if nobody has checked: that user cannot make use of it, the others can.
    let node = locked_node(same);
    for (user, bytes, works) in [(USER, SECRET, false), (OTHER_USER, OTHER_SECRET, true)] {
        let (mut wire, question) = asked(&node, "8");
        let mut third = question.answer(user, bytes);
        third.extend(keys(&[("CHAP_I", "1"), ("CHAP_C", &emit_hex(&[7; 32]))]));
        let (response, answers) = say(&mut wire, &security_over(), &third);
        assert_eq!(response.status.is_success(), works, "{user}");
        assert_eq!(value(&answers, "CHAP_R").is_some(), works, "{user}");
    }
}

#[test]
fn a_target_that_cannot_prove_itself_says_so() {
    let node = locked_node(Credentials {
        mutual: None,
        ..credentials()
    });
    let (mut wire, question) = asked(&node, "8");
    let mut third = question.answer(USER, SECRET);
    third.extend(keys(&[("CHAP_I", "1"), ("CHAP_C", &emit_hex(&[7; 32]))]));
    assert_eq!(status(&mut wire, &security_over(), &third), FAILED);
    assert_eq!(chap_error(&wire), ChapError::NoMutual { user: USER.to_owned() });
}

/// Every way around the security stage (RFC 7143 §6.3.2).
#[test]
fn nobody_gets_past_the_question() {
    let straight = login_request();
    let to_the_end = LoginRequest {
        nsg: Stage::FullFeature,
        ..security_over()
    };
    type Row<'a> = (&'a str, LoginRequest, &'a [(&'a str, &'a str)], LoginStatus);
    let table: &[Row<'_>] = &[
        ("the operational stage at once", straight, &[], FAILED),
        ("without AuthMethod", security_over(), &[], FAILED),
        ("without AuthMethod, to the end", to_the_end.clone(), &[], FAILED),
        ("AuthMethod=None", security_over(), &[("AuthMethod", "None")], FAILED),
        (
            "AuthMethod=None, to the end",
            to_the_end,
            &[("AuthMethod", "None")],
            FAILED,
        ),
        (
            "methods we do not have",
            security(),
            &[("AuthMethod", "KRB5,SRP,None")],
            FAILED,
        ),
        ("a method in lower case", security(), &[("AuthMethod", "chap")], FAILED),
        (
            "a list with a hole",
            security(),
            &[("AuthMethod", "CHAP,,None")],
            FAILED,
        ),
        (
            "the algorithm before the method is agreed",
            security(),
            &[("AuthMethod", "CHAP"), ("CHAP_A", "8")],
            LoginStatus::InitiatorError,
        ),
        (
            "the algorithm without a method",
            security(),
            &[("CHAP_A", "8")],
            LoginStatus::InitiatorError,
        ),
        (
            "everything at once",
            security_over(),
            &[
                ("AuthMethod", "CHAP"),
                ("CHAP_A", "8"),
                ("CHAP_N", USER),
                ("CHAP_R", "0x00"),
            ],
            LoginStatus::InitiatorError,
        ),
    ];
    for (what, request, more, expected) in table {
        let node = locked_node(credentials());
        let mut wire = Wire::new(&node);
        let mut first = names();
        first.extend(keys(more));
        assert_eq!(status(&mut wire, request, &first), *expected, "{what}");
        assert_eq!(session_count(&node), 0, "{what}");
    }
    // In the place of CHAP_A.
    for (what, second, expected) in [
        (
            "a response to no question",
            keys(&[("CHAP_N", USER), ("CHAP_R", "0x00")]),
            LoginStatus::InitiatorError,
        ),
        (
            "CHAP_A and more",
            keys(&[("CHAP_A", "8"), ("CHAP_N", USER)]),
            LoginStatus::InitiatorError,
        ),
        (
            "another method",
            keys(&[("AuthMethod", "None")]),
            LoginStatus::InitiatorError,
        ),
        (
            "another session type",
            keys(&[("SessionType", "Discovery")]),
            LoginStatus::InitiatorError,
        ),
    ] {
        let mut wire = Wire::new(&locked_node(credentials()));
        let mut first = names();
        first.extend(keys(&[("AuthMethod", "CHAP")]));
        wire.login(&security(), &encoded(&first));
        assert_eq!(status(&mut wire, &security(), &second), expected, "{what}");
    }
    // T is not granted while the question is open, and nothing is entered by asking for it.
    let node = locked_node(credentials());
    let mut wire = Wire::new(&node);
    let mut first = names();
    first.extend(keys(&[("AuthMethod", "CHAP")]));
    for data in [first, Vec::new(), keys(&[("CHAP_A", "8")]), Vec::new()] {
        let (response, _) = wire.login(&security_over(), &encoded(&data));
        assert!(response.status.is_success() && !response.transit, "{response:?}");
    }
    assert_eq!(
        status(&mut wire, &login_request(), &Vec::new()),
        LoginStatus::InitiatorError
    );
    assert_eq!(session_count(&node), 0);
}

/// A session that would need no authentication cannot become one that does, nor the other way round.
#[test]
fn what_a_session_is_for_is_said_once_and_first() {
    let open = support::node(Limits::default());
    open.set_discovery_credentials(Some(credentials()));
    let first = keys(&[("InitiatorName", INITIATOR), ("TargetName", TARGET)]);
    for later in [
        ("SessionType", "Discovery"),
        ("TargetName", TARGET),
        ("InitiatorName", "iqn.2026-11.net.farlun:b"),
    ] {
        let mut wire = Wire::new(&open);
        assert!(status(&mut wire, &security_over(), &first).is_success());
        assert_eq!(
            status(&mut wire, &login_request(), &keys(&[later])),
            LoginStatus::InitiatorError
        );
    }
}

#[test]
fn discovery_asks_for_what_the_node_says() {
    let discovery = || keys(&[("InitiatorName", INITIATOR), ("SessionType", "Discovery")]);
    let node = support::node(Limits::default());
    node.set_discovery_credentials(Some(credentials()));
    assert_eq!(status(&mut Wire::new(&node), &login_request(), &discovery()), FAILED);
    let mut none = discovery();
    none.extend(keys(&[("AuthMethod", "None")]));
    assert_eq!(status(&mut Wire::new(&node), &security_over(), &none), FAILED);

    let mut wire = Wire::new(&node);
    let question = ask(&mut wire, discovery(), "7");
    assert_eq!(
        status(&mut wire, &security_over(), &question.answer(USER, OTHER_SECRET)),
        FAILED
    );
    let mut wire = Wire::new(&node);
    let question = ask(&mut wire, discovery(), "7");
    assert!(status(&mut wire, &security_over(), &question.answer(USER, SECRET)).is_success());
    assert!(wire.login(&login_request(), &[]).0.transit);
    wire.assert_alive();
    // Targets have their own minds about that, and a target's secrets are not the node's.
    let names: Vec<_> = names();
    assert!(status(&mut Wire::new(&node), &login_request(), &names).is_success());
    let locked = locked_node(credentials());
    assert!(status(&mut Wire::new(&locked), &login_request(), &discovery()).is_success());
}

/// A target that asks nobody still lets those show who they are that want to.
#[test]
fn authentication_may_be_offered_without_being_asked_for() {
    let node = support::node(Limits::default());
    let target = node.target(TARGET).expect("the target");
    for (with_secrets, offered, expected) in [
        (false, "CHAP,None", Ok("None")),
        (false, "CHAP", Err(FAILED)),
        (true, "CHAP,None", Ok("CHAP")),
        (true, "None,CHAP", Ok("None")),
        (true, "KRB5,CHAP", Ok("CHAP")),
        (true, "KRB5", Err(FAILED)),
    ] {
        target.set_credentials(if with_secrets {
            credentials()
        } else {
            Credentials::default()
        });
        let mut first = names();
        first.extend(keys(&[("AuthMethod", offered)]));
        let (response, answers) = say(&mut Wire::new(&node), &security(), &first);
        match expected {
            Ok(method) => assert_eq!(value(&answers, "AuthMethod"), Some(method), "{offered}"),
            Err(status) => assert_eq!(response.status, status, "{offered}"),
        }
    }
    target.set_credentials(credentials());
    let (mut wire, question) = asked(&node, "8");
    assert_eq!(
        status(&mut wire, &security_over(), &question.answer(USER, OTHER_SECRET)),
        FAILED
    );
}

/// Logs in as far as it goes with this name and secret.
fn log_in_as(node: &Arc<Node>, user: &str, secret: &[u8]) -> (Wire, LoginStatus) {
    let (mut wire, question) = asked(node, "8");
    let first = status(&mut wire, &security_over(), &question.answer(user, secret));
    if !first.is_success() {
        return (wire, first);
    }
    wire.send(&login_request(), &[]);
    (wire, LoginStatus::Success)
}

/// An initiator's name is no secret: it does not help to end the session of who goes by it.
#[test]
fn sessions_are_taken_over_by_their_own_user_only() {
    let node = locked_node(credentials());
    let (mut alice, _) = log_in_as(&node, USER, SECRET);
    alice.next();
    alice.assert_alive();
    let (bob, refused) = log_in_as(&node, OTHER_USER, OTHER_SECRET);
    assert_eq!(refused, LoginStatus::AuthorizationFailure);
    let expected = LoginError::SessionOfAnother {
        initiator: INITIATOR.to_owned(),
    };
    assert_eq!(bob.connection.ended(), Some(Ended::LoginRefused(expected)));
    alice.pump();
    alice.assert_alive();
    let (mut again, status) = log_in_as(&node, USER, SECRET);
    assert!(status.is_success());
    alice.pump();
    assert!(alice.connection.ended().is_some());
    drop(alice);
    again.sleep_ms(10);
    again.next();
    again.assert_alive();
}

fn rule(initiators: &[&str], chap_users: &[&str]) -> Rule {
    Rule {
        initiators: initiators.iter().map(|name| NamePattern::new(name)).collect(),
        chap_users: chap_users.iter().map(|name| (*name).to_owned()).collect(),
        tunnel_users: Vec::new(),
        mode: Mode::ReadWrite,
    }
}

#[test]
fn rules_are_asked_once_it_is_clear_who_it_is() {
    let node = locked_node(credentials());
    let target = node.target(TARGET).expect("the target");
    let refused = LoginStatus::AuthorizationFailure;
    let ok = LoginStatus::Success;
    for (rules, user, secret, expected) in [
        (vec![rule(&[], &[USER])], USER, SECRET, ok),
        (vec![rule(&[], &[USER])], OTHER_USER, OTHER_SECRET, refused),
        (vec![rule(&[INITIATOR], &[])], USER, SECRET, ok),
        (
            vec![rule(&["iqn.2026-11.net.farlun:other"], &[])],
            USER,
            SECRET,
            refused,
        ),
        (
            vec![rule(&["iqn.2026-11.net.farlun:other"], &[])],
            USER,
            OTHER_SECRET,
            FAILED,
        ),
        (vec![rule(&["*:other"], &[USER])], "mallory", SECRET, FAILED),
        (
            vec![rule(&["*:other"], &[]), rule(&["*:init*"], &[OTHER_USER])],
            OTHER_USER,
            OTHER_SECRET,
            ok,
        ),
    ] {
        let policy = Policy {
            auth: Auth::Chap,
            rules,
            ..Policy::default()
        };
        target.set_policy(policy.clone());
        let (mut wire, question) = asked(&node, "8");
        let status = status(&mut wire, &security_over(), &question.answer(user, secret));
        assert_eq!(status, expected, "{user} by {policy:?}");
    }
    // Where nothing needs to be shown, the name alone decides, in whatever stage the login begins.
    target.set_policy(Policy {
        rules: vec![rule(&["*:other"], &[])],
        ..Policy::default()
    });
    for request in [login_request(), security_over()] {
        assert_eq!(status(&mut Wire::new(&node), &request, &names()), refused);
    }
    target.set_policy(Policy {
        rules: vec![rule(&[], &[USER])],
        ..Policy::default()
    });
    assert_eq!(
        status(&mut Wire::new(&node), &login_request(), &names()),
        refused,
        "no CHAP, no user"
    );
}

#[test]
fn some_targets_are_for_the_tunnel_or_for_a_portal_group() {
    let node = support::node(Limits::default());
    let target = node.target(TARGET).expect("the target");
    let by = |tag, way| Origin {
        portal: Portal {
            tag,
            way,
            announce: None,
        },
        ..origin()
    };
    let tunnel = || Way::Tunnel {
        user: Some("ann".to_owned()),
    };
    let login = |origin| {
        let mut wire = Wire::coming_by(&node, origin);
        let (response, answers) = say(&mut wire, &login_request(), &names());
        (
            response.status,
            value(&answers, "TargetPortalGroupTag").map(str::to_owned),
        )
    };
    let tagged = |tag: &str| (LoginStatus::Success, Some(tag.to_owned()));
    assert_eq!(login(by(7, Way::Network)), tagged("7"));
    target.set_portal_groups(vec![2, 3], &[]);
    assert_eq!(login(by(7, Way::Network)), (LoginStatus::NotFound, None));
    assert_eq!(login(by(3, Way::Network)), tagged("3"));
    target.set_policy(Policy {
        tunnel_only: true,
        ..Policy::default()
    });
    assert_eq!(login(by(3, Way::Network)), (LoginStatus::AuthorizationFailure, None));
    assert_eq!(login(by(3, tunnel())), tagged("3"));
    assert_eq!(login(by(7, tunnel())), (LoginStatus::NotFound, None));
    target.set_policy(Policy {
        rules: vec![Rule {
            tunnel_users: vec!["bob".to_owned()],
            ..rule(&[], &[])
        }],
        ..Policy::default()
    });
    assert_eq!(login(by(3, tunnel())), (LoginStatus::AuthorizationFailure, None));
}

/// One request of somebody who has no secret, but all else.
#[derive(Debug, Clone)]
enum Move {
    Name(usize),
    Method(usize),
    Algorithm(usize),
    Response(usize, usize),
    Challenge(usize),
    Nothing,
    Bytes(String, String),
}

fn moves() -> impl Strategy<Value = (Vec<Move>, bool, bool, u8)> {
    let one = prop_oneof![
        (0..4_usize).prop_map(Move::Name),
        (0..5_usize).prop_map(Move::Method),
        (0..5_usize).prop_map(Move::Algorithm),
        (0..4_usize, 0..6_usize).prop_map(|(user, response)| Move::Response(user, response)),
        (0..4_usize).prop_map(Move::Challenge),
        Just(Move::Nothing),
        ("(CHAP_[ACINR]|AuthMethod|[A-Za-z]{1,8})", "[ -~]{0,40}").prop_map(|(key, value)| Move::Bytes(key, value)),
    ];
    (prop::collection::vec(one, 0..4), any::<bool>(), any::<bool>(), 0..3_u8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is said in whatever order, nobody without the secret gets in, and nothing panics.
    #[test]
    fn no_dialog_lets_a_stranger_in(
        regular in any::<bool>(),
        requests in prop::collection::vec(moves(), 1..8),
    ) {
        let node = locked_node(credentials());
        // What a stranger may have heard: a login that went well, with a proof of the target's.
        let (mut heard, old) = asked(&node, "8");
        let mut recorded = old.answer(USER, SECRET);
        recorded.extend(keys(&[("CHAP_I", "1"), ("CHAP_C", &emit_hex(&[7; 32]))]));
        let (_, proof) = say(&mut heard, &security_over(), &recorded);
        drop(heard);
        let (_open, wanted) = asked(&node, "8");

        let mut wire = Wire::new(&node);
        let mut question = None;
        if regular {
            question = Some(ask(&mut wire, names(), "8"));
        }
        for (moves, transit, to_the_end, stage) in requests {
            let mut data: Keys = Vec::new();
            for one in moves {
                data.extend(said(&one, question.as_ref(), &recorded, &proof, &wanted));
            }
            let request = LoginRequest {
                transit,
                csg: if stage == 0 { Stage::Operational } else { Stage::Security },
                nsg: if to_the_end || stage == 0 { Stage::FullFeature } else { Stage::Operational },
                ..login_request()
            };
            wire.send(&request, &encoded(&data));
            wire.sleep_ms(DELAY_MS);
            while let Some((answer, text)) = wire.answers.pop_front() {
                let iscsi_pdu::Response::Login(login) = answer else { panic!("{answer:?}") };
                prop_assert!(!login.transit, "{login:?}");
                let answers = support::pairs(&text);
                prop_assert!(value(&answers, "CHAP_R").is_none(), "no proof for strangers");
                if value(&answers, "CHAP_C").is_some() {
                    question = Some(Question::read(&answers));
                }
            }
            prop_assert_eq!(session_count(&node), 0);
        }
    }
}

fn said(one: &Move, question: Option<&Question>, recorded: &Keys, proof: &Keys, wanted: &Question) -> Keys {
    let guess = |bytes: &[u8]| match question {
        Some(question) => emit_hex(&response(
            question.digest,
            question.identifier,
            &secret(bytes),
            &question.challenge,
        )),
        None => emit_hex(bytes),
    };
    match one {
        Move::Name(0) => keys(&[("InitiatorName", INITIATOR)]),
        Move::Name(1) => keys(&[("TargetName", TARGET)]),
        Move::Name(2) => keys(&[("SessionType", "Normal")]),
        Move::Name(_) => names(),
        Move::Method(at) => keys(&[("AuthMethod", ["CHAP", "None", "CHAP,None", "None,CHAP", ""][*at])]),
        Move::Algorithm(at) => keys(&[("CHAP_A", ["5", "8,7,6,5", "6", "", "9"][*at])]),
        Move::Response(user, response) => {
            let user = [USER, OTHER_USER, OWN_NAME, ""][*user];
            let response = match response {
                0 => value(recorded, "CHAP_R").unwrap_or_default().to_owned(),
                1 => value(proof, "CHAP_R").unwrap_or_default().to_owned(),
                2 => guess(b"not the secret!!"),
                3 => guess(OWN_SECRET),
                4 => "0x".to_owned(),
                _ => "0bAAAA".to_owned(),
            };
            keys(&[("CHAP_N", user), ("CHAP_R", &response)])
        }
        Move::Challenge(at) => {
            let challenge = match (at, question) {
                (0, Some(question)) => emit_hex(&question.challenge),
                (1, _) => emit_hex(&wanted.challenge),
                (2, _) => "0x".to_owned(),
                _ => emit_base64(&[7; 32]),
            };
            keys(&[("CHAP_I", "7"), ("CHAP_C", &challenge)])
        }
        Move::Nothing => Vec::new(),
        Move::Bytes(key, value) => keys(&[(key, value)]),
    }
}
