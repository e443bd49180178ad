//! One daemon with a target of each kind, and the suite run over all of them at once.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::kinds::{LunKind, May, Run};
use super::{KINDS, LISTED_VERSION, Results};
use crate::netns::Namespace;
use crate::process::{self, Finished, wait_until};
use crate::{paths, target};

/// Time for one run of the suite: most take half a minute, the one that sanitizes sleeps a minute.
const RUN_LIMIT: Duration = Duration::from_secs(300);
/// The two portals of loopback; multipath takes both.
const PORTALS: [&str; 2] = ["127.0.0.1:3260", "127.0.0.1:3261"];
/// Size of the file that is only read.
const READ_ONLY_BYTES: u64 = 256 << 20;

/// Whether the suite installed is the one that the lists were written with.
///
/// # Errors
/// It is not installed.
pub fn is_listed_version() -> Result<bool> {
    let mut query = process::mortal(paths::tool("dpkg-query")?)?;
    query.args(["--show", "--showformat=${Version}", "libiscsi-bin"]);
    Ok(process::run("dpkg-query", &mut query, Duration::from_secs(10))?.starts_with(LISTED_VERSION))
}

/// Run the whole suite over every kind, in the order of [`KINDS`].
///
/// # Errors
/// The suite or the target is missing, crashes or hangs.
pub fn run() -> Result<Vec<Results>> {
    let ns = Namespace::new()?;
    // A file that is only read has to be there.
    fs::File::create(ns.dir().join("read-only.img"))?.set_len(READ_ONLY_BYTES)?;
    let mut daemon = target::serve(&ns, &configuration(&ns)?)?;
    let results = thread::scope(|scope| {
        let ns = &ns;
        let running = KINDS.map(|kind| scope.spawn(move || run_kind(ns, &kind).context(kind.name)));
        let done = running.map(|run| run.join().map_err(|_| anyhow!("a run panicked")).flatten());
        done.into_iter().collect::<Result<Vec<_>>>()
    })?;
    ensure!(
        daemon.process.is_running(),
        "the target ended in the run:\n{}",
        daemon.process.log()
    );
    wait_until("the target answers after the run", Duration::from_secs(10), || {
        let mut inquiry = ns.command(paths::tool("iscsi-inq")?)?;
        inquiry.arg(url(&KINDS[0], PORTALS[0], 0));
        let done = process::finish("iscsi-inq", &mut inquiry, Duration::from_secs(10))?;
        Ok(done.status.success().then_some(()))
    })?;
    daemon.stop()?;
    Ok(results)
}

fn configuration(ns: &Namespace) -> Result<String> {
    let dir = ns.dir().to_str().context("a folder that is not UTF-8")?;
    let mut toml = String::new();
    for kind in &KINDS {
        writeln!(toml, "[[target]]\nname = \"{}\"", target_name(kind))?;
        for (number, lun) in kind.luns.iter().enumerate() {
            // The tests of reservations and of task management log in as two initiators.
            let lun = lun.replace("DIR", dir);
            writeln!(toml, "[[target.lun]]\nlun = {number}\nshared = true\n{lun}")?;
        }
    }
    for portal in PORTALS {
        writeln!(toml, "[[portal]]\nlisten = \"{portal}\"")?;
    }
    Ok(toml)
}

fn target_name(kind: &LunKind) -> String {
    format!("{}-{}", target::NAME, kind.name)
}

fn url(kind: &LunKind, portal: &str, lun: u16) -> String {
    format!("iscsi://{portal}/{}/{lun}", target_name(kind))
}

fn run_kind(ns: &Namespace, kind: &LunKind) -> Result<Results> {
    let mut results = Results::default();
    for run in kind.runs {
        results.replace(run_once(ns, kind, run)?);
    }
    Ok(results)
}

fn run_once(ns: &Namespace, kind: &LunKind, run: &Run) -> Result<Results> {
    let mut command = ns.command(paths::tool("stdbuf")?)?;
    command.arg("-oL").arg(paths::tool("iscsi-test-cu")?).arg("--verbose");
    if run.may != May::Look {
        command.arg("--dataloss");
    }
    if run.may == May::Sanitize {
        command.arg("--allow-sanitize");
    }
    // Each kind has initiators of its own, or they would be in each other's way on no target but in the log.
    command.arg(format!("--initiator-name={}:{}-1", target::NAME, kind.name));
    command.arg(format!("--initiator-name-2={}:{}-2", target::NAME, kind.name));
    command.arg(format!("--test={}", run.tests));
    let portals = if kind.multipath { &PORTALS[..] } else { &PORTALS[..1] };
    command.args(portals.iter().map(|portal| url(kind, portal, run.lun)));
    let Finished { status, output } = process::finish("iscsi-test-cu", &mut command, RUN_LIMIT)?;
    // It ends with 1 when a test failed; a signal is a crash.
    ensure!(status.code().is_some(), "iscsi-test-cu: {status}:\n{output}");
    ensure!(
        output.contains("Run Summary:"),
        "iscsi-test-cu ended early ({status}):\n{output}"
    );
    Results::from_output(&output)
}
