//! CHAP against a scripted target: what we say, and what we do not take.

mod peer;

use initiator::{ChapOptions, Digest, Encoding, Error, LoginOptions, MutualChap, Secret, Session};
use iscsi_pdu::Stage;
use iscsi_pdu::chap::response;
use iscsi_pdu::text::{emit_hex, parse_binary};
use peer::{KEYS, PIPE_BYTES, Peer, options, text};

const SECRET: &[u8] = b"0123456789abcdef";
const TARGETS_SECRET: &[u8] = b"fedcba9876543210";

fn secret(bytes: &[u8]) -> Secret {
    Secret::new(bytes).expect("long enough")
}

fn chap(mutual: bool) -> ChapOptions {
    ChapOptions {
        mutual: mutual.then(|| MutualChap {
            name: Some("disk".to_owned()),
            secret: secret(TARGETS_SECRET),
        }),
        ..ChapOptions::new("alice", secret(SECRET))
    }
}

fn login_options(chap: ChapOptions) -> LoginOptions {
    LoginOptions {
        chap: Some(chap),
        ..options()
    }
}

type Keys = Vec<(String, String)>;

fn value<'a>(keys: &'a Keys, key: &str) -> Option<&'a str> {
    keys.iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
}

/// Answers without agreeing to go on.
async fn stay(peer: &mut Peer, keys: &[(&str, &str)]) -> Keys {
    let (request, said) = peer.login_request().await;
    assert!(!request.transit, "not yet: {said:?}");
    let answer = peer.login_response(&request);
    peer.send(&answer, &text(keys)).await;
    said
}

/// Identifier and challenge of which Python's hashlib gives the responses below.
const QUESTION: [(&str, &str); 2] = [
    ("CHAP_I", "42"),
    (
        "CHAP_C",
        "0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    ),
];

/// `hashlib.new(name, b"\x2a" + b"0123456789abcdef" + bytes(range(32))).hexdigest()`
const KNOWN: [(Digest, &str, &str); 4] = [
    (Digest::Md5, "5", "0x5fdf0806fabbf071b43f51d0a3efece5"),
    (Digest::Sha1, "6", "0x34316471f80cb6fbbcbe90d268d1b2fe1ffc3899"),
    (
        Digest::Sha256,
        "7",
        "0x2d84c1d469bd56155ff5417d7e43be7257c2b108e3079eb23af578704ebbad27",
    ),
    (
        Digest::Sha3_256,
        "8",
        "0xa62a875d29a7572b24cd4b4d933fe42cc899795a2165e222034d8dfddb75af2f",
    ),
];

#[tokio::test]
async fn we_answer_and_ask_back() {
    for (digest, code, expected) in KNOWN {
        for mutual in [false, true] {
            let (near, mut peer) = Peer::pair(PIPE_BYTES);
            let options = login_options(chap(mutual));
            let target = async {
                let said = stay(&mut peer, &[("AuthMethod", "CHAP")]).await;
                assert_eq!(value(&said, "AuthMethod"), Some("CHAP"), "and nothing less");
                let mut question = vec![("CHAP_A", code)];
                question.extend(QUESTION);
                let said = stay(&mut peer, &question).await;
                assert_eq!(said, [("CHAP_A".to_owned(), "8,7,6,5".to_owned())]);
                let (request, said) = peer.login_request().await;
                assert!(request.transit && request.nsg == Stage::Operational);
                assert_eq!(value(&said, "CHAP_N"), Some("alice"));
                assert_eq!(value(&said, "CHAP_R"), Some(expected));
                assert_eq!(said.len(), if mutual { 4 } else { 2 }, "{said:?}");
                let answer = peer.login_response(&request);
                let proof = proof(&said, digest);
                let keys: &[(&str, &str)] = &[("CHAP_N", "disk"), ("CHAP_R", &proof)];
                peer.send(&answer, &text(if mutual { keys } else { &[] })).await;
                let (request, _) = peer.login_request().await;
                let answer = peer.login_response(&request);
                peer.send(&answer, &text(KEYS)).await;
            };
            let (session, ()) = tokio::join!(Session::login(near, &options), target);
            session.unwrap_or_else(|error| panic!("{digest}, mutual: {mutual}: {error}"));
        }
    }
}

/// What a target with the right secret says to our challenge; nothing if we have none.
fn proof(said: &Keys, digest: Digest) -> String {
    let (Some(identifier), Some(challenge)) = (value(said, "CHAP_I"), value(said, "CHAP_C")) else {
        return String::new();
    };
    let challenge = parse_binary(challenge, 1024).expect("binary");
    assert!(challenge.len() >= digest.output_bytes());
    let identifier = identifier.parse().expect("a byte");
    emit_hex(&response(digest, identifier, &secret(TARGETS_SECRET), &challenge))
}

#[tokio::test]
async fn our_binary_values_may_be_base64() {
    let (near, mut peer) = Peer::pair(PIPE_BYTES);
    let options = login_options(ChapOptions {
        encoding: Encoding::Base64,
        digests: vec![Digest::Md5],
        ..chap(true)
    });
    let target = async move {
        stay(&mut peer, &[("AuthMethod", "CHAP")]).await;
        let said = stay(
            &mut peer,
            &[
                ("CHAP_A", "5"),
                ("CHAP_I", "42"),
                // The same challenge in Base64.
                ("CHAP_C", "0bAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
            ],
        )
        .await;
        assert_eq!(value(&said, "CHAP_A"), Some("5"));
        let (_, said) = peer.login_request().await;
        let response = value(&said, "CHAP_R").expect("CHAP_R");
        assert!(response.starts_with("0b") && value(&said, "CHAP_C").is_some_and(|value| value.starts_with("0b")));
        assert_eq!(parse_binary(response, 16), parse_binary(KNOWN[0].2, 16));
    };
    let login = async {
        let error = Session::login(near, &options).await.expect_err("the target hangs up");
        assert!(
            !format!("{error:?}{options:?}").contains("0123456789"),
            "secrets are not shown"
        );
    };
    tokio::join!(login, target);
}

/// Where the target goes wrong, and how we call it.
#[tokio::test]
async fn targets_that_break_the_dialog() {
    let method: &[(&str, &str)] = &[("AuthMethod", "CHAP")];
    let with = |more: &[(&'static str, &'static str)]| [&[("CHAP_A", "8")][..], &QUESTION, more].concat();
    let second = with(&[]);
    type Answers = Vec<Vec<(&'static str, &'static str)>>;
    let refused = "is not an answer to our offer";
    let choice = "unexpected choice of CHAP keys";
    let long: &'static str = format!("0x{}", "00".repeat(1025)).leak();
    let table: Vec<(&str, bool, Answers, &str)> = vec![
        ("no authentication", false, vec![vec![("AuthMethod", "None")]], refused),
        ("no common method", false, vec![vec![("AuthMethod", "Reject")]], refused),
        ("a question at once", false, vec![with(method)], choice),
        (
            "an algorithm that was not offered",
            false,
            vec![method.to_vec(), [&[("CHAP_A", "9")][..], &QUESTION].concat()],
            refused,
        ),
        (
            "no algorithm",
            false,
            vec![method.to_vec(), vec![("CHAP_A", "Reject")]],
            choice,
        ),
        (
            "no identifier",
            false,
            vec![method.to_vec(), vec![("CHAP_A", "8"), QUESTION[1]]],
            choice,
        ),
        (
            "identifier of 256",
            false,
            vec![method.to_vec(), vec![("CHAP_A", "8"), ("CHAP_I", "256"), QUESTION[1]]],
            "256 is not within 0 to 255",
        ),
        (
            "a challenge that is too long",
            false,
            vec![method.to_vec(), vec![("CHAP_A", "8"), QUESTION[0], ("CHAP_C", long)]],
            "more than 1024 bytes",
        ),
        (
            "a challenge that is none",
            false,
            vec![method.to_vec(), vec![("CHAP_A", "8"), QUESTION[0], ("CHAP_C", "xyz")]],
            "not a binary value",
        ),
        ("the method again", false, vec![method.to_vec(), with(method)], refused),
        (
            "a proof nobody wants",
            false,
            vec![method.to_vec(), with(&[("CHAP_N", "disk")])],
            choice,
        ),
        (
            "a proof nobody asked for",
            false,
            vec![
                method.to_vec(),
                second.clone(),
                vec![("CHAP_N", "disk"), ("CHAP_R", "0x00")],
            ],
            choice,
        ),
        (
            "another question",
            false,
            vec![method.to_vec(), second.clone(), second.clone()],
            choice,
        ),
        (
            "no proof",
            true,
            vec![method.to_vec(), second.clone(), vec![]],
            "could not prove who it is",
        ),
        (
            "half a proof",
            true,
            vec![method.to_vec(), second.clone(), vec![("CHAP_N", "disk")]],
            choice,
        ),
        (
            "another proof",
            true,
            vec![
                method.to_vec(),
                second.clone(),
                vec![("CHAP_N", "disk"), ("CHAP_R", "0x00")],
            ],
            "could not prove who it is",
        ),
    ];
    for (what, mutual, answers, says) in table {
        let (near, mut peer) = Peer::pair(PIPE_BYTES);
        let options = login_options(chap(mutual));
        let target = async {
            for keys in answers {
                let (request, _) = peer.login_request().await;
                let answer = peer.login_response(&request);
                peer.send(&answer, &text(&keys)).await;
            }
        };
        let (session, ()) = tokio::join!(Session::login(near, &options), target);
        let error = session.expect_err(what).to_string();
        assert!(error.contains(says), "{what}: {error}");
    }
    // A stage that ends before we have answered.
    for (at, answers) in [(0, vec![method.to_vec()]), (1, vec![method.to_vec(), second])] {
        let (near, mut peer) = Peer::pair(PIPE_BYTES);
        let options = login_options(chap(false));
        let target = async {
            for (number, keys) in answers.into_iter().enumerate() {
                let (request, _) = peer.login_request().await;
                let mut answer = peer.login_response(&request);
                if number == at {
                    (answer.transit, answer.nsg) = (true, Stage::Operational);
                }
                peer.send(&answer, &text(&keys)).await;
            }
        };
        let (session, ()) = tokio::join!(Session::login(near, &options), target);
        let error = session.expect_err("too early").to_string();
        assert!(error.contains("stage transition nobody asked for"), "{error}");
    }
}

#[tokio::test]
async fn one_secret_for_both_directions_is_not_used() {
    let (near, _peer) = Peer::pair(PIPE_BYTES);
    let options = login_options(ChapOptions {
        secret: secret(TARGETS_SECRET),
        ..chap(true)
    });
    assert!(matches!(Session::login(near, &options).await, Err(Error::Misuse(_))));
}

#[tokio::test]
async fn a_login_without_the_stage_of_chap_is_not_made_without_chap() {
    let (near, _peer) = Peer::pair(PIPE_BYTES);
    let options = LoginOptions {
        first_stage: Stage::Operational,
        ..login_options(chap(false))
    };
    assert!(matches!(Session::login(near, &options).await, Err(Error::Misuse(_))));
}

#[tokio::test]
async fn a_target_that_asks_for_no_proof_is_taken_only_if_that_was_offered() {
    for or_none in [true, false] {
        let (near, mut peer) = Peer::pair(PIPE_BYTES);
        let options = login_options(ChapOptions { or_none, ..chap(false) });
        let target = async {
            let said = stay(&mut peer, &[("AuthMethod", "None")]).await;
            let offer = if or_none { "CHAP,None" } else { "CHAP" };
            assert_eq!(value(&said, "AuthMethod"), Some(offer));
            if or_none {
                let (request, _) = peer.login_request().await;
                assert!(request.transit, "nothing is left to be said in this stage");
                let answer = peer.login_response(&request);
                peer.send(&answer, &[]).await;
                let (request, _) = peer.login_request().await;
                let answer = peer.login_response(&request);
                peer.send(&answer, &text(KEYS)).await;
            }
        };
        let (outcome, ()) = tokio::join!(Session::login(near, &options), target);
        match outcome {
            Ok(_) => assert!(or_none),
            Err(error) => assert!(!or_none && matches!(error, Error::Negotiation { .. }), "{error}"),
        }
    }
    let misuse = ChapOptions {
        or_none: true,
        ..chap(true)
    };
    let (near, _peer) = Peer::pair(PIPE_BYTES);
    let outcome = Session::login(near, &login_options(misuse)).await;
    assert!(matches!(outcome, Err(Error::Misuse(_))), "{:?}", outcome.err());
}
