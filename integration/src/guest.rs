//! A guest: Debian's user-mode Linux kernel, an ordinary process, booted in a namespace from the host's own `/` to run
//! one script of `guest/` and power off. What it writes stays in its memory, but for its run folder.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;

use crate::netns::Namespace;
use crate::process::{Process, wait_until};
use crate::{klog, paths};

/// The tap device in the namespace that the guest's network card is.
pub const TAP: &str = "uml0";

/// Time for a boot, a script and a power-off; the longest takes a tenth of this on a quiet machine.
const LIFE_LIMIT: Duration = Duration::from_secs(180);

/// How much of a failed guest's console is shown: a panic fits, the boot does not.
const CONSOLE_LINES: usize = 40;

/// A guest under way.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    run: TempDir,
}

/// What a guest whose script ran to its end left.
#[derive(Debug)]
pub struct Outcome {
    /// What the script printed, standard output and error.
    pub output: String,
    /// The kernel's log from the start of the script, `<priority>[seconds] text` per line.
    pub kernel_log: String,
}

impl Guest {
    /// Boot in `ns`, which has a tap device [`TAP`], and run `guest/SCRIPT` with `variables` set.
    ///
    /// # Errors
    /// The kernel or the script is missing or cannot be started.
    pub fn boot(ns: &Namespace, script: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let uml = paths::uml()?;
        let run = tempfile::Builder::new().prefix("guest-").tempdir_in(ns.dir())?;
        fs::write(run.path().join("script"), compose(script, variables)?)?;
        let init = paths::guest_script("init")?;
        let mut command = ns.command(uml.join("usr/bin/linux.uml"))?;
        command
            .env("TMPDIR", "/dev/shm")
            .args(["mem=1G", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"]);
        command.args(["con=null", "con0=null,fd:1", "ssl=null", "umid=uml"]);
        // Without gro the card's receive side stalls and logins hang.
        command.arg(format!("vec0:transport=tap,ifname={TAP},depth=64,gro=1"));
        command.arg(format!("uml_dir={}/", run.path().display()));
        command.arg(format!("init={}", init.display()));
        command
            .arg(format!("FARLUN_RUN={}", run.path().display()))
            .arg(format!("FARLUN_UML={}", uml.display()));
        let process = Process::spawn("guest", &mut command, &run.path().join("console"))?;
        Ok(Self { process, run })
    }

    /// The run folder: files the script writes to `$FARLUN_RUN` appear here at once, and the other way.
    pub fn run_dir(&self) -> &Path {
        self.run.path()
    }

    /// Wait until the script says `sign` (`tell` in `guest/lib.sh`).
    ///
    /// # Errors
    /// The guest ends or `limit` passes before that; the error carries all there is to read.
    pub fn await_sign(&mut self, sign: &str, limit: Duration) -> Result<()> {
        let file = self.run.path().join(sign);
        let process = &mut self.process;
        let said = wait_until(&format!("the guest says {sign}"), limit, || {
            if file.exists() {
                return Ok(Some(()));
            }
            ensure!(process.is_running(), "the guest ended before it said {sign}");
            Ok(None)
        });
        said.map_err(|error| anyhow!("{error}\n{}", self.account()))
    }

    /// Tell the script `sign`, which it may be waiting for (`await` in `guest/lib.sh`).
    ///
    /// # Errors
    /// The run folder is gone.
    pub fn give_sign(&self, sign: &str) -> Result<()> {
        Ok(fs::write(self.run.path().join(sign), "")?)
    }

    /// Wait for the power-off.
    ///
    /// # Errors
    /// The script failed, the guest crashed or took too long; the error carries all there is to read.
    pub fn wait(self) -> Result<Outcome> {
        self.wait_within(LIFE_LIMIT)
    }

    /// The same for a script that takes longer, or must not take so long.
    ///
    /// # Errors
    /// As [`Guest::wait`].
    pub fn wait_within(mut self, limit: Duration) -> Result<Outcome> {
        let ended = self.process.wait(limit);
        let read = |name: &str| self.read(name);
        let (status, output, kernel_log) = (read("status"), read("output"), read("dmesg"));
        if ended.is_ok() && status.trim() == "0" {
            let kernel_log = klog::since_start(&kernel_log)?.to_owned();
            return Ok(Outcome { output, kernel_log });
        }
        let end = match &ended {
            Ok(end) => format!("guest ended ({end}), its script with status {:?}", status.trim()),
            Err(_) => format!("guest killed after {limit:?}"),
        };
        bail!("{end}\n{}", self.account());
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.run.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All there is to read of a guest that did not do what it should.
    fn account(&self) -> String {
        let console = last_lines(&self.process.log(), CONSOLE_LINES);
        let (iscsid, output) = (self.read("iscsid.log"), self.read("output"));
        format!("--- iscsid\n{iscsid}\n--- console\n{console}\n--- output\n{output}")
    }
}

/// Boot, run and wait in one step.
///
/// # Errors
/// As [`Guest::boot`] and [`Guest::wait`].
pub fn run(ns: &Namespace, script: &str, variables: &[(&str, &str)]) -> Result<Outcome> {
    Guest::boot(ns, script, variables)?.wait()
}

/// The script as the guest runs it: the variables, the shared functions, the story.
fn compose(script: &str, variables: &[(&str, &str)]) -> Result<String> {
    let mut text = String::new();
    for (name, value) in variables {
        writeln!(text, "{name}={}", quote(value))?;
    }
    for part in ["lib.sh", script] {
        text += &fs::read_to_string(paths::guest_script(part)?).with_context(|| part.to_owned())?;
    }
    Ok(text)
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// `value` as one word of a shell.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_end_of_a_console_is_shown() {
        assert_eq!(super::last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(super::last_lines("a", 2), "a");
    }

    #[test]
    fn a_value_stays_one_word() {
        assert_eq!(super::quote("it's $HOME"), r"'it'\''s $HOME'");
    }
}
