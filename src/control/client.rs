//! The client's side: one request, one answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::path;
use super::protocol::{self, Action, Refusal, Why};
use crate::exit::{Exit, Failure};

/// How long the daemon may take to take a connection and a request, in milliseconds. What it then does may take longer.
const ASK_MS: u64 = 10_000;

/// Which daemon to talk to.
#[derive(Debug, Clone, Args)]
pub(crate) struct ControlArgs {
    /// Control socket of the daemon; by default where a daemon of this user has it
    #[arg(long, value_name = "PATH", global = true, env = "FARLUN_CONTROL")]
    control: Option<PathBuf>,
}

impl ControlArgs {
    /// The socket.
    fn socket(&self) -> anyhow::Result<PathBuf> {
        let usual = || path::usual().ok_or_else(|| anyhow!("no home directory: name the socket with --control PATH"));
        self.control.clone().map_or_else(usual, Ok)
    }

    /// Asks the daemon for something.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, action: &Action) -> Result<T, Failure> {
        let socket = self.socket()?;
        ask(&socket, action).await
    }
}

async fn ask<T: DeserializeOwned>(socket: &Path, action: &Action) -> Result<T, Failure> {
    let mut request = protocol::write_request(action).map_err(refused)?;
    request.push('\n');
    let limit = Duration::from_millis(ASK_MS);
    let asked = tokio::time::timeout(limit, async {
        let mut stream = UnixStream::connect(socket).await?;
        // Refused clients are told so before they have said anything; the answer is there to be read then.
        match stream.write_all(request.as_bytes()).await {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(stream),
        }
    });
    let stream = match asked.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(socket, &error)),
        Err(_) => {
            let text = format!("the daemon at {} does not answer", socket.display());
            return Err(Failure::new(Exit::CannotConnect, anyhow!(text)));
        }
    };
    let mut line = Vec::new();
    let mut stream = BufReader::new(stream.take(protocol::ANSWER_MAX_BYTES as u64));
    stream
        .read_until(b'\n', &mut line)
        .await
        .map_err(|error| unreachable(socket, &error))?;
    if !line.ends_with(b"\n") {
        let text = "the daemon has ended, or hung up, before it answered: see its log";
        return Err(Failure::new(Exit::CannotConnect, anyhow!(text)));
    }
    protocol::read_answer(&line).map_err(refused)
}

/// What the daemon says no to, with its exit code.
fn refused(refusal: Refusal) -> Failure {
    let exit = match refusal.why {
        Why::Wrong => Exit::Usage,
        Why::AtStake => Exit::Refused,
        Why::Failed => Exit::Failure,
    };
    Failure::new(exit, anyhow!(refusal.text))
}

fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let shown = socket.display();
    let (exit, text) = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => (
            Exit::CannotConnect,
            format!("no farlun serves at {shown}: start farlun serve, or name its socket with --control PATH"),
        ),
        io::ErrorKind::PermissionDenied => (
            Exit::Refused,
            format!(
                "you may not control the daemon at {shown}: use sudo, or join its group ({} by default)",
                path::ADMIN_GROUP
            ),
        ),
        _ => (
            Exit::CannotConnect,
            format!("cannot reach the daemon at {shown}: {error}"),
        ),
    };
    Failure::new(exit, anyhow!(text))
}
