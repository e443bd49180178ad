//! The initiator of this workspace against the target: logins by CHAP, whole, over a stream.

mod chap_support;
mod support;

use std::sync::Arc;

use chap_support::{OWN_NAME, OWN_SECRET, SECRET, USER, credentials, locked_node, secret};
use initiator::{ChapOptions, Digest, Encoding, Error, LoginOptions, LoginStatus, MutualChap, SendTargets, Session};
use support::{INITIATOR, TARGET};
use target_core::iscsi::chap::Credentials;
use target_core::iscsi::{Limits, Node, Origin};
use target_core::server::Server;
use tokio::io::DuplexStream;

/// Bytes on the way between both.
const PIPE_BYTES: usize = 64 * 1024;

/// Logs in over a stream of memory.
async fn log_in(node: &Arc<Node>, options: &LoginOptions) -> Result<Session<DuplexStream>, Error> {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let server = Server::new(Arc::clone(node));
    tokio::spawn(async move { server.serve_stream(far, Origin::default()).await });
    Session::login(near, options).await
}

fn options(target: Option<&str>, chap: ChapOptions) -> LoginOptions {
    LoginOptions {
        chap: Some(chap),
        header_digest: true,
        data_digest: true,
        ..LoginOptions::new(INITIATOR, target)
    }
}

fn one_way() -> ChapOptions {
    ChapOptions::new(USER, secret(SECRET))
}

fn mutual() -> ChapOptions {
    ChapOptions {
        mutual: Some(MutualChap {
            name: Some(OWN_NAME.to_owned()),
            secret: secret(OWN_SECRET),
        }),
        ..one_way()
    }
}

/// What the target is told, without randomness and in order.
async fn works(node: &Arc<Node>, target: Option<&str>, chap: ChapOptions) -> String {
    let what = format!("{chap:?}");
    let mut session = log_in(node, &options(target, chap))
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let which = if target.is_some() {
        SendTargets::This
    } else {
        SendTargets::All
    };
    let told = session.send_targets(&which).await.expect("an answer");
    assert_eq!(told[0].name, TARGET);
    let algorithm = session.negotiated().key("CHAP_A").expect("CHAP_A").to_owned();
    session.logout().await.expect("a proper end");
    algorithm
}

#[tokio::test]
async fn every_digest_one_way_and_mutual_in_either_encoding() {
    let node = locked_node(credentials());
    node.set_discovery_credentials(Some(credentials()));
    for digest in Digest::STRONGEST_FIRST {
        for encoding in [Encoding::Hex, Encoding::Base64] {
            for chap in [one_way(), mutual()] {
                for target in [Some(TARGET), None] {
                    let chap = ChapOptions {
                        digests: vec![digest],
                        encoding,
                        ..chap.clone()
                    };
                    assert_eq!(works(&node, target, chap).await, digest.code().to_string());
                }
            }
        }
    }
    assert_eq!(
        works(&node, Some(TARGET), mutual()).await,
        "8",
        "the strongest is offered first"
    );
    let node = locked_node(Credentials {
        min_digest: Digest::Sha256,
        ..credentials()
    });
    let weak_first = ChapOptions {
        digests: vec![Digest::Md5, Digest::Sha1, Digest::Sha256, Digest::Sha3_256],
        ..mutual()
    };
    assert_eq!(works(&node, Some(TARGET), weak_first).await, "7");
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so() {
    let node = locked_node(credentials());
    let open = support::node(Limits::default());
    let no_proof = locked_node(Credentials {
        mutual: None,
        ..credentials()
    });
    let strict = locked_node(Credentials {
        min_digest: Digest::Sha3_256,
        ..credentials()
    });
    let wrong_secret = ChapOptions::new(USER, secret(b"not the secret!!"));
    let wrong_user = ChapOptions::new("mallory", secret(SECRET));
    let weak = ChapOptions {
        digests: vec![Digest::Md5, Digest::Sha256],
        ..one_way()
    };
    let nothing = LoginOptions::new(INITIATOR, Some(TARGET));
    let target = Some(TARGET);
    // All at once: a wrong secret waits for its answer.
    let mut logins = tokio::task::JoinSet::new();
    for (what, node, options) in [
        ("wrong secret", &node, options(target, wrong_secret)),
        ("wrong user", &node, options(target, wrong_user)),
        ("no proof of the target's", &no_proof, options(target, mutual())),
        ("digests too weak", &strict, options(target, weak)),
        ("no CHAP", &node, nothing),
        ("a target that has no secrets", &open, options(target, one_way())),
    ] {
        let node = Arc::clone(node);
        logins.spawn(async move { (what, log_in(&node, &options).await) });
    }
    for (what, outcome) in logins.join_all().await {
        match outcome {
            Err(Error::LoginRefused { status, .. }) => {
                assert_eq!(status, LoginStatus::AuthenticationFailure, "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_target_that_is_another_is_not_taken() {
    let node = locked_node(credentials());
    let knows = |name: Option<&str>, bytes: &[u8]| ChapOptions {
        mutual: Some(MutualChap {
            name: name.map(str::to_owned),
            secret: secret(bytes),
        }),
        ..one_way()
    };
    works(&node, Some(TARGET), knows(None, OWN_SECRET)).await;
    for (what, chap) in [
        ("another secret", knows(None, b"another's secret")),
        ("another name", knows(Some("another"), OWN_SECRET)),
    ] {
        match log_in(&node, &options(Some(TARGET), chap)).await {
            Err(Error::TargetNotProven) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
    match log_in(&node, &options(Some(TARGET), knows(None, SECRET))).await {
        Err(Error::Misuse(_)) => {}
        other => panic!("one secret for both: {other:?}"),
    }
}
