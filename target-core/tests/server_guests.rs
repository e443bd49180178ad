//! Connections that do not log in: they have few places, and keep nobody out who does.

mod chap_support;
mod support;

use std::sync::Arc;
use std::time::Duration;

use chap_support::{SECRET, USER, credentials, locked_node, secret};
use initiator::{ChapOptions, Error, LoginOptions, Session};
use support::{INITIATOR, TARGET};
use target_core::iscsi::{Limits, Origin};
use target_core::server::Server;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::time::timeout;

/// Bytes on the way between both.
const PIPE_BYTES: usize = 64 * 1024;
/// Places of those who do not log in, from one address and in all.
const PER_PEER: usize = 32;
const IN_ALL: usize = 256;
/// Longest wait for what has to happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for what happens at once, and shorter than the delay of a refusal.
const AT_ONCE: Duration = Duration::from_millis(100);

fn connect(server: &Server, peer: &str) -> DuplexStream {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let server = server.clone();
    let origin = Origin {
        peer: peer.to_owned(),
        ..Origin::default()
    };
    tokio::spawn(async move { server.serve_stream(far, origin).await });
    near
}

async fn log_in(server: &Server, peer: &str, options: &LoginOptions) -> Result<Session<DuplexStream>, Error> {
    Session::login(connect(server, peer), options).await
}

fn normal(number: u8) -> LoginOptions {
    let name = format!("{INITIATOR}-{number}");
    LoginOptions::new(&name, Some(TARGET))
}

/// Whether the target hangs up.
async fn is_closed(stream: &mut DuplexStream) -> bool {
    let read = timeout(AT_ONCE, stream.read(&mut [0; 1])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

async fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect(what);
}

#[tokio::test]
async fn who_is_silent_keeps_nobody_else_out() {
    let server = Server::new(support::node(Limits::default()));
    let mut before = log_in(&server, "192.0.2.1:1", &normal(0)).await.expect("a session");
    let mut silent: Vec<_> = (0..PER_PEER).map(|_| connect(&server, "192.0.2.1:2")).collect();
    tokio::task::yield_now().await;
    assert!(is_closed(&mut connect(&server, "192.0.2.1:3")).await, "one too many");
    assert!(!is_closed(&mut silent[0]).await);
    before.nop("ping").await.expect("sessions do not count");
    let other = log_in(&server, "192.0.2.2:1", &normal(1)).await.expect("a session");
    other.logout().await.expect("an end");
    // A place that is free again.
    silent.pop();
    let more = timeout(PATIENCE, async {
        while log_in(&server, "192.0.2.1:4", &normal(2)).await.is_err() {}
    });
    more.await.expect("a session");
}

#[tokio::test]
async fn who_has_the_most_makes_room() {
    let server = Server::new(support::node(Limits::default()));
    let mut flood: Vec<_> = (0..IN_ALL)
        .map(|number| connect(&server, &format!("192.0.2.{}:1", number % 8)))
        .collect();
    tokio::task::yield_now().await;
    for stream in &mut flood {
        assert!(
            timeout(Duration::ZERO, stream.read(&mut [0; 1])).await.is_err(),
            "all have places"
        );
    }
    let mut late = log_in(&server, "198.51.100.1:1", &normal(0)).await.expect("a session");
    late.nop("ping").await.expect("it stays");
    let mut closed = 0;
    for stream in &mut flood {
        let read = timeout(Duration::from_millis(1), stream.read(&mut [0; 1])).await;
        closed += usize::from(read.is_ok());
    }
    assert_eq!(closed, 1, "one has made room");
}

#[tokio::test]
async fn sessions_are_not_counted_and_discovery_is() {
    let server = Server::new(support::node(Limits::default()));
    let mut sessions = Vec::new();
    for number in 0..=PER_PEER {
        let options = normal(u8::try_from(number).expect("few"));
        sessions.push(log_in(&server, "192.0.2.1:1", &options).await.expect("a session"));
    }
    let discovery = LoginOptions::new(INITIATOR, None);
    let mut looking = Vec::new();
    for _ in 0..PER_PEER {
        looking.push(log_in(&server, "192.0.2.1:1", &discovery).await.expect("a session"));
    }
    assert!(log_in(&server, "192.0.2.1:1", &discovery).await.is_err());
    assert!(log_in(&server, "192.0.2.2:1", &discovery).await.is_ok());
    for session in &mut sessions {
        session.nop("ping").await.expect("it stays");
    }
}

#[tokio::test]
async fn hanging_up_makes_nobody_guess_faster() {
    let node = locked_node(credentials());
    let server = Server::new(Arc::clone(&node));
    let with = |bytes: &[u8]| LoginOptions {
        chap: Some(ChapOptions::new(USER, secret(bytes))),
        ..LoginOptions::new(INITIATOR, Some(TARGET))
    };
    let (wrong, right) = (with(b"not the secret!!"), with(SECRET));
    let guesses: Vec<_> = (0..PER_PEER)
        .map(|_| {
            let (server, wrong) = (server.clone(), wrong.clone());
            tokio::spawn(async move { timeout(AT_ONCE, log_in(&server, "192.0.2.1:1", &wrong)).await.is_err() })
        })
        .collect();
    for guess in guesses {
        assert!(guess.await.expect("no panic"), "no answer so soon");
    }
    wait_for("all are counted", || node.refused_logins() == PER_PEER as u64).await;
    assert!(log_in(&server, "192.0.2.1:1", &right).await.is_err(), "not yet");
    let other = log_in(&server, "192.0.2.2:1", &right).await.expect("another address");
    other.logout().await.expect("an end");
    tokio::time::sleep(Duration::from_millis(chap_support::DELAY_MS)).await;
    log_in(&server, "192.0.2.1:1", &right).await.expect("now");
}
