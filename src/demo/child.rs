//! Programs the demo starts: each ends with it, however it ends, and what it said is shown when something goes wrong.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a condition is looked at.
const POLL_MS: u64 = 10;
/// How long a program has to end after SIGTERM, in milliseconds.
const STOP_MS: u64 = 10_000;

/// A program of the system by name, also from where only root looks by itself.
pub(super) fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// A command that the kernel asks to end when the demo dies, where setpriv is there to arrange that.
pub(super) fn mortal(program: &Path) -> Command {
    match tool("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Runs a command to its end; its output, or an error with it.
pub(super) async fn output(mut command: Command) -> Result<String> {
    let name = shown(&command);
    // Reaped by tokio, so that an interrupted demo does not wait for it.
    command.stdin(Stdio::null());
    let done = tokio::process::Command::from(command).kill_on_drop(true).output().await;
    let done = done.with_context(|| format!("cannot start {name}"))?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        bail!(
            "{name}: {}\n{said}{}",
            done.status,
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(said)
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A program that runs beside us. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Child {
    child: std::process::Child,
    name: &'static str,
    log: PathBuf,
}

impl Child {
    /// Starts it; what it says goes to a file in `directory`.
    pub(super) fn spawn(name: &'static str, mut command: Command, directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{}.log", name.replace(' ', "-")));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn();
        let child = child.with_context(|| format!("cannot start {}", shown(&command)))?;
        Ok(Self { child, name, log })
    }

    /// Everything it has said.
    pub(super) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it says a line that starts with `prefix`; that line.
    pub(super) async fn line(&mut self, prefix: &str, limit: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            // Looked at first, so that a last line is not missed.
            let ended = self.child.try_wait()?;
            let said = self.said();
            let whole = said.rsplit_once('\n').map_or("", |(lines, _)| lines);
            if let Some(line) = whole.lines().find(|line| line.starts_with(prefix)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}):\n{said}", self.name);
            }
            if start.elapsed() > limit {
                bail!("{} is not ready after {} s:\n{said}", self.name, limit.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
    }

    /// Asks it to end with SIGTERM and waits.
    pub(super) async fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > Duration::from_millis(STOP_MS) {
                return Err(anyhow!("{} does not end:\n{}", self.name, self.said()));
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
