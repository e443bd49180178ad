//! A target with one LUN on a file: farlun, or Debian's tgt as the one to compare with.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::netns::{GROUP, Namespace};
use crate::paths;
use crate::process::{self, Process};

/// Name of the one target.
pub const NAME: &str = "iqn.2026-11.net.farlun:test";

/// Where farlun's end of the tunnel is found by those who may use it.
pub const TUNNEL_SOCKET: &str = "/run/farlun/tunnel.sock";

const START_LIMIT: Duration = Duration::from_secs(10);

/// Which program serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The binary under test.
    Farlun,
    /// Debian's tgt.
    Tgt,
}

impl Kind {
    /// farlun, unless `FARLUN_TEST_TARGET=tgt` asks for the stand-in, to try a test itself.
    ///
    /// # Errors
    /// The variable names something else.
    pub fn from_env() -> Result<Self> {
        match std::env::var("FARLUN_TEST_TARGET").as_deref() {
            Err(_) | Ok("farlun") => Ok(Self::Farlun),
            Ok("tgt") => Ok(Self::Tgt),
            Ok(other) => bail!("FARLUN_TEST_TARGET={other}: farlun or tgt"),
        }
    }

    /// Its name in tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Farlun => "farlun",
            Self::Tgt => "tgt",
        }
    }

    /// Number of the disk's LUN: tgt keeps 0 for a controller.
    pub fn lun(self) -> u64 {
        match self {
            Self::Farlun => 0,
            Self::Tgt => 1,
        }
    }
}

/// What to serve and where.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The program.
    pub kind: Kind,
    /// Address and port to listen on; without one, a tunnel is the only way in.
    pub portal: Option<String>,
    /// The file behind the LUN, made if missing; `/dev/shm` is a tmpfs of the namespace's own.
    pub file: PathBuf,
    /// Its size in MiB.
    pub size_mib: u64,
    /// Whether two initiators may use the LUN at once (farlun only; tgt always allows it).
    pub shared: bool,
    /// Whether tunnels are taken (farlun only).
    pub tunnel: bool,
    /// The only processor to run on.
    pub cpu: Option<usize>,
}

impl Spec {
    /// 256 MiB in the namespace's tmpfs, one initiator at a time, no tunnel.
    pub fn new(kind: Kind, portal: &str) -> Self {
        Self {
            portal: Some(portal.to_owned()),
            ..Self::unreachable(kind)
        }
    }

    /// The same for farlun, reached through tunnels only.
    pub fn tunnelled() -> Self {
        Self {
            tunnel: true,
            ..Self::unreachable(Kind::Farlun)
        }
    }

    fn unreachable(kind: Kind) -> Self {
        Self {
            kind,
            portal: None,
            file: "/dev/shm/lun.img".into(),
            size_mib: 256,
            shared: false,
            tunnel: false,
            cpu: None,
        }
    }

    /// Start it in `ns` and wait until it serves.
    ///
    /// # Errors
    /// The program is missing, does not start, or refuses its configuration.
    pub fn start(&self, ns: &Namespace) -> Result<Target> {
        let log = ns.dir().join(format!("{}.log", self.kind.label()));
        let process = match self.kind {
            Kind::Farlun => self.start_farlun(ns, &log)?,
            Kind::Tgt => self.start_tgt(ns, &log)?,
        };
        Ok(Target {
            process,
            kind: self.kind,
        })
    }

    fn pinned(&self, ns: &Namespace, program: &Path) -> Result<Command> {
        let Some(cpu) = self.cpu else {
            return ns.command(program);
        };
        let mut command = ns.command(paths::tool("taskset")?)?;
        command.arg("--cpu-list").arg(cpu.to_string()).arg(program);
        Ok(command)
    }

    fn start_farlun(&self, ns: &Namespace, log: &Path) -> Result<Process> {
        start_farlun(
            ns,
            self.pinned(ns, &paths::farlun()?)?,
            &ns.dir().join(CONFIG),
            &self.farlun_config()?,
            log,
        )
    }

    fn farlun_config(&self) -> Result<String> {
        let mut toml = String::new();
        writeln!(toml, "[[target]]\nname = \"{NAME}\"")?;
        writeln!(
            toml,
            "[[target.lun]]\nlun = {}\nfile = \"{}\"",
            self.kind.lun(),
            self.file.display()
        )?;
        writeln!(toml, "size = \"{}MiB\"\nshared = {}", self.size_mib, self.shared)?;
        if let Some(portal) = &self.portal {
            writeln!(toml, "[[portal]]\nlisten = \"{portal}\"")?;
            if !portal.starts_with("127.") {
                writeln!(toml, "allow_public = true")?;
            }
        }
        if self.tunnel {
            writeln!(
                toml,
                "[tunnel]\nenable = true\nsocket = \"{TUNNEL_SOCKET}\"\ngroup = \"{GROUP}\""
            )?;
        }
        Ok(toml)
    }

    fn start_tgt(&self, ns: &Namespace, log: &Path) -> Result<Process> {
        let mut command = self.pinned(ns, &paths::tool("tgtd")?)?;
        let portal = self.portal.as_deref().context("tgt needs a portal")?;
        command
            .args(["--foreground", "--iscsi"])
            .arg(format!("portal={portal}"));
        let mut tgtd = Process::spawn("tgtd", &mut command, log)?;
        let admin = |arguments: &str| -> Result<process::Finished> {
            let mut command = ns.command(paths::tool("tgtadm")?)?;
            command.args("--lld iscsi".split(' ')).args(arguments.split(' '));
            process::finish(arguments, &mut command, START_LIMIT)
        };
        process::wait_until("tgtd answers", START_LIMIT, || {
            if !tgtd.is_running() {
                bail!("tgtd ended:\n{}", tgtd.log());
            }
            Ok(admin("--mode sys --op show")?.status.success().then_some(()))
        })?;
        let file = self.file.display();
        ns.sh(&format!("truncate --size={}M {file}", self.size_mib))?;
        for step in [
            format!("--mode target --op new --tid 1 --targetname {NAME}"),
            format!(
                "--mode logicalunit --op new --tid 1 --lun {} --backing-store {file}",
                self.kind.lun()
            ),
            "--mode target --op bind --tid 1 --initiator-address ALL".to_owned(),
        ] {
            let done = admin(&step)?;
            if !done.status.success() {
                bail!("tgtadm {step}: {}", done.output);
            }
        }
        Ok(tgtd)
    }
}

/// Name of farlun's configuration file in the namespace's folder.
pub const CONFIG: &str = "farlun.toml";

/// Start farlun in `ns` with the configuration `config`, and wait until it serves.
///
/// # Errors
/// It refuses the configuration or does not start.
pub fn serve(ns: &Namespace, config: &str) -> Result<Target> {
    let command = ns.command(paths::farlun()?)?;
    let log = ns.dir().join("farlun.log");
    Ok(Target {
        process: start_farlun(ns, command, &ns.dir().join(CONFIG), config, &log)?,
        kind: Kind::Farlun,
    })
}

fn start_farlun(ns: &Namespace, mut command: Command, file: &Path, config: &str, log: &Path) -> Result<Process> {
    fs::write(file, config)?;
    // What it keeps between runs is the namespace's, not the machine's.
    command.env("XDG_STATE_HOME", ns.dir().join("state"));
    let mut process = Process::spawn("farlun serve", command.arg("serve").arg(file), log)?;
    process.wait_for_line("ready", START_LIMIT)?;
    Ok(process)
}

/// A target that serves. Dropping it kills it.
#[derive(Debug)]
pub struct Target {
    /// The daemon.
    pub process: Process,
    kind: Kind,
}

impl Target {
    /// The URL of its LUN at `portal` as libiscsi writes it.
    pub fn url(&self, portal: &str) -> String {
        format!("iscsi://{portal}/{NAME}/{}", self.kind.lun())
    }

    /// Ask it to end, which must succeed: a crash before or at the end of a test shows here.
    ///
    /// # Errors
    /// It had ended, does not end in time, or ends with a failure.
    pub fn stop(mut self) -> Result<()> {
        // tgtd answers SIGTERM only when its targets have been removed: it is killed instead.
        if self.kind == Kind::Tgt {
            ensure!(self.process.is_running(), "tgtd had ended:\n{}", self.process.log());
            return Ok(());
        }
        let status = self.process.stop()?;
        ensure!(
            status.success(),
            "farlun serve ended with {status}:\n{}",
            self.process.log()
        );
        Ok(())
    }
}
