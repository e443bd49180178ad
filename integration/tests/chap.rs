//! CHAP: the kernel's initiator with SHA3-256, both ways, under digests; everybody else stays outside, and so does who
//! repeats what was said before.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use initiator::{ChapOptions, Digest, LoginOptions, Secret, Session};
use integration::process::{Process, mortal};
use integration::story::{self, HOST};
use integration::{klog, paths, target};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

const PLAIN: &str = "iqn.2026-11.net.farlun:plain";
const SECRET: &str = "correct horse battery";
const PROOF: &str = "staple of the server";

/// A target that proves itself and one that does not, both for one user and SHA3-256 only; `portal` as the table says.
fn config(dir: &Path, portal: &str) -> Result<String> {
    for (name, secret) in [("guest", SECRET), ("server", PROOF)] {
        let file = dir.join(name);
        fs::write(&file, secret)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    }
    let dir = dir.display();
    let target = |name: &str, more: &str| {
        format!(
            "[[target]]\nname = \"{name}\"\nauth = \"chap\"\nusers = [\"guest\"]\n{more}\n\
             [[target.lun]]\nlun = 0\nmemory = \"128MiB\"\n"
        )
    };
    Ok(format!(
        "{}{}[[user]]\nname = \"guest\"\nsecret_file = \"{dir}/guest\"\n\
         [[user]]\nname = \"server\"\nsecret_file = \"{dir}/server\"\n[chap]\nmin_digest = \"sha3-256\"\n\
         [[portal]]\n{portal}\n",
        target(target::NAME, "mutual = \"server\""),
        target(PLAIN, "")
    ))
}

#[test]
fn the_kernel_logs_in_by_sha3_both_ways_and_nobody_else_does() -> Result<()> {
    let ns = story::host()?;
    let portal = format!("listen = \"{HOST}:3260\"\nallow_public = true");
    let daemon = target::serve(&ns, &config(ns.dir(), &portal)?)?;
    let variables = [("PLAIN", PLAIN), ("SECRET", SECRET), ("PROOF", PROOF)];
    let outcome = story::run(&ns, "chap.sh", 32, &variables)?;
    // Connections that end with the login are told of; nothing else is.
    let ended = |line: &&str| line.ends_with("detected conn error (1020)");
    let trouble: Vec<&str> = klog::trouble(&outcome.kernel_log)
        .into_iter()
        .filter(|line| !ended(line))
        .collect();
    ensure!(trouble.is_empty(), "the kernel complained:\n{}", trouble.join("\n"));
    let log = daemon.process.log();
    ensure!(
        !log.contains(SECRET) && !log.contains(PROOF),
        "a secret is in the log:\n{log}"
    );
    daemon.stop()
}

/// A stream that keeps what is written to it.
struct Recorder {
    stream: TcpStream,
    written: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Recorder {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.written.lock().unwrap().extend_from_slice(&bytes[..count]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// RFC 7143 §11.2: 48 bytes, of which byte 4 counts words of additional headers and bytes 5 to 7 data, padded to words.
fn pdu_bytes(header: &[u8]) -> usize {
    let data = usize::from(header[5]) << 16 | usize::from(header[6]) << 8 | usize::from(header[7]);
    48 + usize::from(header[4]) * 4 + data.next_multiple_of(4)
}

/// Sends recorded requests one by one, and returns the status class (RFC 7143 §11.13.5) and the current and next stage
/// of the last answer.
async fn replay(address: &str, requests: &[u8]) -> Result<(u8, u8)> {
    let mut stream = TcpStream::connect(address).await?;
    let (mut rest, mut last) = (requests, None);
    while !rest.is_empty() {
        let (request, others) = rest.split_at(pdu_bytes(rest));
        rest = others;
        stream.write_all(request).await?;
        let mut header = [0; 48];
        stream.read_exact(&mut header).await.context("closed without a word")?;
        let mut data = vec![0; pdu_bytes(&header) - 48];
        stream.read_exact(&mut data).await?;
        ensure!(header[0] == 0x23, "not a login response: opcode {:#04x}", header[0]);
        last = Some((header[36], header[1]));
        if header[36] != 0 {
            break;
        }
    }
    last.context("nothing was recorded")
}

#[test]
fn what_let_one_in_lets_nobody_in_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let file = dir.path().join("farlun.toml");
    fs::write(&file, config(dir.path(), &format!("listen = \"{address}\""))?)?;
    let mut command = mortal(paths::farlun()?)?;
    command.arg("serve").arg(&file);
    command
        .env("XDG_STATE_HOME", dir.path())
        .env("XDG_RUNTIME_DIR", dir.path());
    let mut daemon = Process::spawn("farlun serve", &mut command, &dir.path().join("log"))?;
    daemon.wait_for_line("ready", Duration::from_secs(10))?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut options = LoginOptions::new("iqn.2026-11.net.farlun:guest", Some(target::NAME));
        let mut chap = ChapOptions::new("guest", Secret::new(SECRET)?);
        chap.digests = vec![Digest::Sha3_256];
        options.chap = Some(chap);
        let written = Arc::default();
        let stream = Recorder {
            stream: TcpStream::connect(&address).await?,
            written: Arc::clone(&written),
        };
        let session = Session::login(stream, &options).await?;
        let requests = written.lock().unwrap().clone();
        session.logout().await?;

        let (class, stages) = replay(&address, &requests).await?;
        ensure!(class == 0x02, "status class {class:#04x}");
        ensure!(
            stages & 0x80 == 0,
            "the answer goes on to the next stage: {stages:#04x}"
        );
        // The same in two halves of one login: the first challenge is over when the second one comes.
        let whole = [requests.as_slice(), requests.as_slice()].concat();
        let (class, _) = replay(&address, &whole).await?;
        ensure!(class == 0x02, "status class {class:#04x}");
        Ok(())
    })?;
    ensure!(daemon.stop()?.success(), "{}", daemon.log());
    Ok(())
}
