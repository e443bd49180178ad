//! The daemon's side: who may connect, and how much of its time a client can take.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tunnel::server::{ServerError, ServerSocket, check_socket, group_id};

use super::path;
use super::protocol::{self, Action, REQUEST_MAX_BYTES, Refusal};
use crate::config::ControlPlan;

/// Clients at a time.
const CLIENTS_MAX: usize = 16;
/// How long a client may take to say what it wants, or to take its answer, in milliseconds.
const CLIENT_MS: u64 = 10_000;
/// How long to wait after a failed accept (no file descriptors left), in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Carries out what clients ask for.
pub(crate) trait Performer: Send + Sync + 'static {
    /// Does it, for a client with this user id.
    fn perform(&self, action: Action, uid: u32) -> impl Future<Output = Result<serde_json::Value, Refusal>> + Send;
}

/// A control socket that does not accept yet.
#[derive(Debug)]
pub(crate) struct Control {
    socket: ServerSocket,
    path: PathBuf,
    group: Option<u32>,
}

/// Where the socket is to be, and whether somebody has asked for just that place.
pub(crate) fn place(plan: &ControlPlan, named: Option<&Path>) -> Option<(PathBuf, bool)> {
    if let Some(path) = named.or(plan.socket.as_deref()) {
        return Some((path.to_owned(), true));
    }
    plan.enable.then(path::usual).flatten().map(|path| (path, false))
}

/// Whether the socket could be taken, where somebody has asked for one.
pub(crate) fn check(plan: &ControlPlan, named: Option<&Path>) -> Result<(), ServerError> {
    match place(plan, named) {
        Some((path, true)) => check_socket(&path),
        _ => Ok(()),
    }
}

impl Control {
    /// Takes the socket. The usual place may be another daemon's: then this one is served without.
    ///
    /// # Errors
    /// A place somebody has asked for cannot be taken.
    pub(crate) fn bind(plan: &ControlPlan, named: Option<&Path>) -> Result<Option<Self>, ServerError> {
        let Some((path, asked_for)) = place(plan, named) else {
            return Ok(None);
        };
        let usual = || {
            rustix::process::geteuid()
                .is_root()
                .then(|| group_id(path::ADMIN_GROUP))
                .flatten()
        };
        let group = plan.group.or_else(usual);
        match ServerSocket::bind(&path, group) {
            Ok(socket) => Ok(Some(Self { socket, path, group })),
            Err(error) if asked_for => Err(error),
            Err(error) => {
                tracing::warn!("{error}: served without a control socket, unless --control or [control] names another");
                Ok(None)
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Serves clients until this is dropped.
    pub(crate) async fn run(self, performer: Arc<impl Performer>) {
        let room = Arc::new(Semaphore::new(CLIENTS_MAX));
        let mut clients = JoinSet::new();
        loop {
            let stream = match self.socket.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a control client");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                    continue;
                }
            };
            while clients.try_join_next().is_some() {}
            let refusal = match stream.peer_cred() {
                Err(error) => Err(format!("cannot tell who you are: {error}")),
                Ok(peer) if !may_control(&peer, self.group) => Err("you may not control this daemon".to_owned()),
                Ok(peer) => Arc::clone(&room)
                    .try_acquire_owned()
                    .map(|permit| (permit, peer.uid()))
                    .map_err(|_| format!("{CLIENTS_MAX} others are talking to this daemon: try again")),
            };
            match refusal {
                Ok((permit, uid)) => {
                    let performer = Arc::clone(&performer);
                    clients.spawn(async move {
                        converse(stream, &*performer, uid).await;
                        drop(permit);
                    });
                }
                Err(text) => {
                    tracing::warn!(text, "a control client is turned away");
                    // A fresh socket's buffer takes it; if not, the client sees the socket close.
                    let _unheard = stream.try_write(protocol::write_answer(Err(Refusal::failed(text))).as_bytes());
                }
            }
        }
    }
}

/// The socket's mode lets in nobody else, unless somebody has changed it: root, ourselves, and the group.
fn may_control(peer: &UCred, group: Option<u32>) -> bool {
    if peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw() {
        return true;
    }
    let Some(group) = group else { return false };
    peer.gid() == group || peer.pid().is_some_and(|pid| groups_of(pid).contains(&group))
}

/// The supplementary groups of a process (proc_pid_status(5)).
fn groups_of(pid: i32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    groups
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
}

/// Answers requests until the client has no more, takes too long, or says what is no request.
async fn converse(stream: UnixStream, performer: &impl Performer, uid: u32) {
    let limit = Duration::from_millis(CLIENT_MS);
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        // One byte more than may be, to see that it is too much.
        let mut bounded = (&mut read).take(REQUEST_MAX_BYTES as u64 + 1);
        match tokio::time::timeout(limit, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(1..)) => {}
            _ => return,
        }
        let whole = line.pop_if(|last| *last == b'\n').is_some();
        let (answer, goes_on) = match protocol::read_request(&line) {
            _ if !whole => (
                Err(Refusal::wrong(format!(
                    "a request is one line of at most {REQUEST_MAX_BYTES} bytes"
                ))),
                false,
            ),
            Ok(action) => (performer.perform(action, uid).await, true),
            Err(refusal) => (Err(refusal), false),
        };
        let answer = protocol::write_answer(answer);
        let written = tokio::time::timeout(limit, write.write_all(answer.as_bytes())).await;
        if !matches!(written, Ok(Ok(()))) || !goes_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    struct Parrot;

    impl Performer for Parrot {
        async fn perform(&self, action: Action, uid: u32) -> Result<serde_json::Value, Refusal> {
            Ok(json!({ "uid": uid, "did": action }))
        }
    }

    fn plan(path: &Path) -> ControlPlan {
        ControlPlan {
            socket: Some(path.to_owned()),
            ..ControlPlan::default()
        }
    }

    async fn say(path: &Path, bytes: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(path).await.unwrap();
        // A daemon that has heard enough hangs up.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn several_requests_are_answered_and_the_socket_is_the_owners() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");
        let control = Control::bind(&plan(&path), None).unwrap().unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Control::bind(&plan(&path), None).is_err(), "it was asked for");
        let serving = tokio::spawn(control.run(Arc::new(Parrot)));
        let request = "{\"version\":1,\"do\":{\"status\":{}}}\n";
        let answer = say(&path, request.repeat(3).as_bytes()).await;
        assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), 3);
        let uid = rustix::process::geteuid().as_raw();
        let expected = json!({ "uid": uid, "did": { "status": {} } });
        let first = answer.split(|byte| *byte == b'\n').next().unwrap();
        assert_eq!(protocol::read_answer::<serde_json::Value>(first), Ok(expected));
        let too_long = say(&path, &vec![b'x'; REQUEST_MAX_BYTES + 10]).await;
        assert!(String::from_utf8_lossy(&too_long).contains("one line of at most"));
        serving.abort();
        assert!(serving.await.is_err());
        assert!(!path.exists(), "it goes with the daemon");
    }

    #[tokio::test]
    async fn one_client_too_many_is_told_so() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");
        let control = Control::bind(&plan(&path), None).unwrap().unwrap();
        let serving = tokio::spawn(control.run(Arc::new(Parrot)));
        let mut silent = Vec::new();
        for _ in 0..CLIENTS_MAX {
            silent.push(UnixStream::connect(&path).await.unwrap());
        }
        let answer = say(&path, b"{\"version\":1,\"do\":{\"status\":{}}}\n").await;
        assert!(String::from_utf8_lossy(&answer).contains("try again"), "{answer:?}");
        drop(silent);
        serving.abort();
    }

    #[test]
    fn strangers_may_not_control() {
        let groups = groups_of(i32::try_from(std::process::id()).unwrap());
        let ours = rustix::process::getgroups().unwrap();
        assert_eq!(groups.len(), ours.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_comes_the_next_client_is_served(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let home = tempfile::tempdir().unwrap();
                let path = home.path().join("control.sock");
                let control = Control::bind(&plan(&path), None).unwrap().unwrap();
                let serving = tokio::spawn(control.run(Arc::new(Parrot)));
                say(&path, &bytes).await;
                let answer = say(&path, b"{\"version\":1,\"do\":{\"status\":{}}}\n").await;
                assert!(answer.starts_with(b"{\"ok\""), "{answer:?}");
                serving.abort();
            });
        }
    }
}
