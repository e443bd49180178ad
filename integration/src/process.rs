//! Child processes that end with their owner, write to a log file, and are waited for with a time limit.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::paths;

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(10);
/// How long a process has to end after SIGTERM before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A command that the kernel kills when the thread that starts it ends, however that comes about.
pub fn mortal(program: impl AsRef<Path>) -> Result<Command> {
    let mut command = Command::new(paths::tool("setpriv")?);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program.as_ref());
    Ok(command)
}

/// A running process with its standard output and error in one log file. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Start `command`, writing what it says to `log`.
    ///
    /// # Errors
    /// The log cannot be created or the command not started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("{}: cannot create", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("{name}: cannot start"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
            log: log.to_owned(),
        })
    }

    /// Process id, the same in every namespace of these tests.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has said so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Wait until a line of the log starts with `prefix`, and return that line.
    ///
    /// # Errors
    /// The process ends or `limit` passes before that.
    pub fn wait_for_line(&mut self, prefix: &str, limit: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            // Looked at before the log, so that a last line written just before the end is not missed.
            let ended = self.child.try_wait()?;
            let log = self.log();
            let complete = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
            if let Some(line) = complete.lines().find(|line| line.starts_with(prefix)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = ended {
                bail!("{}: ended ({status}) before saying {prefix:?}:\n{log}", self.name);
            }
            if start.elapsed() > limit {
                bail!("{}: did not say {prefix:?} within {limit:?}:\n{log}", self.name);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Wait for its end.
    ///
    /// # Errors
    /// `limit` passes before that; then it is killed.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                self.kill();
                bail!("{}: still running after {limit:?}:\n{}", self.name, self.log());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Send a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("{}: cannot be signalled", self.name))
    }

    /// End it politely with SIGTERM.
    ///
    /// # Errors
    /// It had ended before, or does not end within ten seconds.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{}: had ended by itself ({status}):\n{}", self.name, self.log());
        }
        self.signal(Signal::TERM)?;
        self.wait(STOP_LIMIT)
    }

    fn kill(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a command that ran to its end left.
#[derive(Debug)]
pub struct Finished {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output and error, in the order written.
    pub output: String,
}

/// Run `command` to its end, successful or not.
///
/// # Errors
/// It cannot be started or runs longer than `limit`.
pub fn finish(name: &str, command: &mut Command, limit: Duration) -> Result<Finished> {
    let log = tempfile::NamedTempFile::new()?;
    let mut process = Process::spawn(name, command, log.path())?;
    let status = process.wait(limit)?;
    Ok(Finished {
        status,
        output: process.log(),
    })
}

/// Run `command`, which must succeed, and return what it said.
///
/// # Errors
/// As [`finish`], or it fails.
pub fn run(name: &str, command: &mut Command, limit: Duration) -> Result<String> {
    let Finished { status, output } = finish(name, command, limit)?;
    if !status.success() {
        bail!("{name}: {status}:\n{output}");
    }
    Ok(output)
}

/// Look at `condition` until it gives something.
///
/// # Errors
/// `limit` passes before that, or `condition` fails.
pub fn wait_until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = mortal("/bin/sh").unwrap();
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_command_gives_its_output_or_fails_with_it() {
        let second = Duration::from_secs(5);
        assert_eq!(
            run("echo", &mut shell("echo one; echo two >&2"), second).unwrap(),
            "one\ntwo\n"
        );
        let error = run("false", &mut shell("echo why; exit 3"), second)
            .unwrap_err()
            .to_string();
        assert!(error.contains("exit status: 3") && error.contains("why"), "{error}");
    }

    #[test]
    fn a_command_that_takes_too_long_is_killed() {
        let start = Instant::now();
        let error = run("slow", &mut shell("exec sleep 60"), Duration::from_millis(50))
            .unwrap_err()
            .to_string();
        assert!(error.contains("still running"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn waiting_for_a_line_sees_the_line_or_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut speaker = Process::spawn("speaker", &mut shell("echo ready on 1; exec sleep 60"), &log).unwrap();
        assert_eq!(
            speaker.wait_for_line("ready", Duration::from_secs(5)).unwrap(),
            "ready on 1"
        );
        assert!(speaker.is_running());
        assert!(!speaker.stop().unwrap().success());
        let mut mute = Process::spawn("mute", &mut shell("echo no"), &log).unwrap();
        let error = mute
            .wait_for_line("ready", Duration::from_secs(5))
            .unwrap_err()
            .to_string();
        assert!(error.contains("ended"), "{error}");
    }
}
