//! farlun's tunnel between two hosts: a cloud with stock `sshd` and a target that nothing but tunnels reach, and
//! `farlun connect` on the other end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::netns::Namespace;
use crate::paths;
use crate::process::Process;
use crate::sshd::Sshd;
use crate::target::{Spec, Target};

const UP_LIMIT: Duration = Duration::from_secs(20);
const DOWN_LIMIT: Duration = Duration::from_secs(10);

/// What `farlun connect` says when the tunnel is up; the portal follows `-p`.
pub const UP: &str = "discovery:";

/// The server's side.
#[derive(Debug)]
pub struct Cloud {
    /// The target with its end of the tunnels.
    pub target: Target,
    /// How people get in.
    pub sshd: Sshd,
    /// The host.
    pub ns: Namespace,
}

impl Cloud {
    /// Start `sshd` at `ssh` and the target in `ns`.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start(ns: Namespace, ssh: SocketAddr) -> Result<Self> {
        let sshd = Sshd::start(&ns, ssh, &[])?;
        let target = Spec::tunnelled().start(&ns)?;
        Ok(Self { target, sshd, ns })
    }
}

/// The command and arguments of `farlun connect` to `sshd` as `user`, through the socket or not at all.
///
/// # Errors
/// farlun is missing.
pub fn connect_words(sshd: &Sshd, user: &str) -> Result<Vec<String>> {
    let text = |path: PathBuf| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
    let (address, port) = (sshd.listen().ip(), sshd.listen().port());
    Ok(vec![
        text(paths::farlun()?)?,
        "connect".to_owned(),
        format!("{user}@{address}"),
        format!("--port={port}"),
        "--via=socket".to_owned(),
        format!("--identity={}", text(sshd.identity())?),
        format!("--known-hosts={}", text(sshd.known_hosts())?),
    ])
}

/// `farlun connect` to `sshd` as `user`, ready to be started in `home`.
///
/// # Errors
/// farlun or a tool is missing.
pub fn connect(home: &Namespace, sshd: &Sshd, user: &str) -> Result<Command> {
    let words = connect_words(sshd, user)?;
    let mut command = home.command(&words[0])?;
    // Nothing of whoever runs the tests: no keys, no agent, no known hosts.
    command.args(&words[1..]).env("HOME", home.dir());
    for name in ["SSH_AUTH_SOCK", "SUDO_USER", "SUDO_UID", "SUDO_GID"] {
        command.env_remove(name);
    }
    Ok(command)
}

/// A tunnel that is up.
#[derive(Debug)]
pub struct Tunnel {
    connect: Process,
    /// Address and port of the target in the tunnel.
    pub portal: String,
}

impl Tunnel {
    /// Connect from `home` to `sshd` as `user`, and wait until the tunnel is up.
    ///
    /// # Errors
    /// It does not come up.
    pub fn up(home: &Namespace, sshd: &Sshd, user: &str) -> Result<Self> {
        let log = home.dir().join("connect.log");
        let mut process = Process::spawn("farlun connect", &mut connect(home, sshd, user)?, &log)?;
        let line = process.wait_for_line(UP, UP_LIMIT)?;
        let (_, portal) = line
            .rsplit_once("-p ")
            .with_context(|| format!("no portal is named: {line}"))?;
        Ok(Self {
            connect: process,
            portal: portal.trim().to_owned(),
        })
    }

    /// End it with `signal`.
    ///
    /// # Errors
    /// It had ended by itself, or does not end in time.
    pub fn down(mut self, signal: Signal) -> Result<ExitStatus> {
        self.connect.signal(signal)?;
        self.connect.wait(DOWN_LIMIT)
    }

    /// What `farlun connect` has said.
    pub fn log(&self) -> String {
        self.connect.log()
    }
}
