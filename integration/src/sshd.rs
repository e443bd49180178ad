//! A stock `sshd` in a namespace, with host key, configuration and authorized key of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::netns::Namespace;
use crate::paths;
use crate::process::{Process, mortal, run};

const START_LIMIT: Duration = Duration::from_secs(10);

/// A running `sshd`. Every account takes [`Sshd::identity`].
#[derive(Debug)]
pub struct Sshd {
    process: Process,
    dir: PathBuf,
    listen: SocketAddr,
}

impl Sshd {
    /// Start one in `ns`, with further lines of `sshd_config` in `options`.
    ///
    /// # Errors
    /// The server is missing, refuses the options or cannot listen.
    pub fn start(ns: &Namespace, listen: SocketAddr, options: &[&str]) -> Result<Self> {
        let dir = ns.dir().join("ssh");
        fs::create_dir(&dir)?;
        for key in ["host_key", "identity"] {
            let mut keygen = mortal(paths::tool("ssh-keygen")?)?;
            run(
                "ssh-keygen",
                keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key)),
                START_LIMIT,
            )?;
        }
        fs::copy(dir.join("identity.pub"), dir.join("authorized_keys"))?;
        let host_key = fs::read_to_string(dir.join("host_key.pub"))?;
        fs::write(
            dir.join("known_hosts"),
            format!("{} {host_key}", known_hosts_name(listen)),
        )?;
        let config = dir.join("sshd_config");
        fs::write(&config, configuration(&dir, listen, options))?;
        let mut command = ns.command(paths::tool("sshd")?)?;
        command.args(["-D", "-e", "-f"]).arg(&config);
        let mut process = Process::spawn("sshd", &mut command, &dir.join("sshd.log"))?;
        process.wait_for_line("Server listening", START_LIMIT)?;
        Ok(Self { process, dir, listen })
    }

    /// Where it listens.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The private key that every account lets in.
    pub fn identity(&self) -> PathBuf {
        self.dir.join("identity")
    }

    /// A known_hosts file with the server's key.
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// How known_hosts names a server (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).
fn known_hosts_name(listen: SocketAddr) -> String {
    if listen.port() == 22 {
        listen.ip().to_string()
    } else {
        format!("[{}]:{}", listen.ip(), listen.port())
    }
}

fn configuration(dir: &Path, listen: SocketAddr, options: &[&str]) -> String {
    let dir = dir.display();
    let mut text = format!(
        "ListenAddress {listen}\nHostKey {dir}/host_key\nAuthorizedKeysFile {dir}/authorized_keys\nPidFile none\n\
         StrictModes no\nUsePAM no\nUseDNS no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\nLogLevel VERBOSE\n"
    );
    for option in options {
        text += option;
        text.push('\n');
    }
    text
}
