//! The story itself: what is started where, what is done with it, and how it ends.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use tempfile::TempDir;

use super::child::{Child, output, tool};
use super::exercise::{CHUNK_BYTES, Outcome, checksum, rate};
use super::lab::{Lab, Side};
use super::sshd::{self, Sshd};
use super::{Extent, Story, kernel};
use crate::config::ISCSI_PORT;
use crate::exit::{Exit, Failure};

/// The target of the demo.
const TARGET: &str = "iqn.2026-11.net.farlun:demo";
/// The smallest disk that is exported, in MiB.
const DISK_MIN_MIB: u64 = 256;
/// How long server and tunnel may take to be ready, in milliseconds.
const READY_MS: u64 = 20_000;

/// A place that a private `/run` does not hide.
fn temporary_directory() -> Result<TempDir> {
    let usual = std::env::temp_dir();
    let place = if usual.starts_with("/run") || usual.starts_with("/var/run") {
        PathBuf::from("/tmp")
    } else {
        usual
    };
    let directory = tempfile::Builder::new().prefix("farlun-demo-").tempdir_in(place);
    directory.context("a temporary directory")
}

/// Everything that exists for the demo. The order is that in which it goes: programs before the hosts they run on,
/// those before the files they use.
pub(super) struct Stage {
    connect: Option<Child>,
    serve: Option<Child>,
    sshd: Option<Sshd>,
    lab: Lab,
    directory: TempDir,
    farlun: PathBuf,
    mib: u64,
}

impl Stage {
    /// A stage on which nothing runs yet.
    pub(super) fn new(lab: Lab, mib: u64) -> Result<Self> {
        Ok(Self {
            connect: None,
            serve: None,
            sshd: None,
            lab,
            directory: temporary_directory()?,
            farlun: std::env::current_exe().context("this program's own file")?,
            mib,
        })
    }

    /// Plays the whole story, and tells each step.
    pub(super) async fn play(
        &mut self,
        extent: Extent,
        kernel: bool,
        story: &mut Story,
        left_out: &mut Vec<String>,
    ) -> Result<String, Failure> {
        if extent == Extent::Tunnel {
            let home = if kernel { "this machine" } else { "\"home\"" };
            story.tell(&format!(
                "two hosts with a cable between them: {home} {} and \"cloud\" {}",
                self.lab.address(Side::Home),
                self.lab.address(Side::Cloud)
            ));
        }
        let direct = self.serve(extent).await?;
        story.tell(&format!(
            "cloud: farlun serve exports {} MiB as {TARGET}",
            self.disk_mib()
        ));
        let (extent, portal) = match self.reach(extent, direct, story).await {
            Ok(portal) => (extent, portal),
            // An sshd that does not run as root may not let its own user in, as when the account is locked.
            Err(error) if extent == Extent::Forward => {
                let reason = format!("{error:#}");
                let reason: Vec<&str> = reason.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                left_out.push(format!(
                    "SSH: an sshd of this user's own does not work here ({})",
                    reason.join(" ")
                ));
                (self.connect, self.sshd) = (None, None);
                (Extent::Plain, direct)
            }
            Err(error) => return Err(error.into()),
        };

        let seed = u64::from(std::process::id()) << 32 | u64::from(story.since.elapsed().subsec_nanos());
        let inside = self.exercise(portal, seed).await?;
        let through = if extent == Extent::Plain {
            "over TCP"
        } else {
            "through SSH"
        };
        story.tell(&format!(
            "home: discovery, login, {} MiB written {through}, synced, read back\n{}",
            self.mib,
            self.figures(&inside)
        ));
        self.compare(&inside)?;
        story.tell(&format!(
            "the checksums agree: {}…",
            &inside.read[..16.min(inside.read.len())]
        ));
        self.look_into_file(&inside)?;
        story.tell("cloud: and the file behind the LUN holds the same");
        if extent != Extent::Plain {
            let outside = self.exercise(direct, seed.wrapping_add(1)).await?;
            self.compare(&outside)?;
            story.tell(&format!(
                "for comparison the same without SSH\n{}",
                self.figures(&outside)
            ));
        }
        if kernel {
            self.kernel(portal, seed.wrapping_add(2), story).await?;
        }
        self.end(extent).await?;
        story.tell(match extent {
            Extent::Tunnel => "logged out, tunnel down, LUN flushed; no device and no socket is left",
            Extent::Forward => "logged out, forwarding ended, LUN flushed",
            Extent::Plain => "logged out, LUN flushed",
        });
        let rate = |seconds| rate(self.mib, seconds);
        Ok(format!(
            "{} MiB {through}: {:.0} MiB/s written, {:.0} MiB/s read, every byte right",
            self.mib,
            rate(inside.write_s),
            rate(inside.read_s)
        ))
    }

    /// The way from home to the target, and where the portal is there.
    async fn reach(&mut self, extent: Extent, direct: SocketAddr, story: &mut Story) -> Result<SocketAddr> {
        if extent == Extent::Plain {
            return Ok(direct);
        }
        let sshd = sshd::start(&self.lab, self.directory.path()).await?;
        story.tell(&format!(
            "cloud: a stock sshd at {}, with keys of its own",
            sshd.address
        ));
        let portal = self.connect(&sshd, extent, direct).await?;
        self.sshd = Some(sshd);
        story.tell(&format!("home: farlun connect, {}", self.way(extent, portal)));
        Ok(portal)
    }

    fn disk_mib(&self) -> u64 {
        self.mib.max(DISK_MIN_MIB)
    }

    fn lun_file(&self) -> PathBuf {
        self.directory.path().join("lun0.img")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("tunnel.sock")
    }

    /// Starts the server in the cloud; the portal outside any tunnel.
    async fn serve(&mut self, extent: Extent) -> Result<SocketAddr> {
        let port = if self.lab.is_one_host() {
            sshd::free_port()?
        } else {
            ISCSI_PORT
        };
        let portal = SocketAddr::new(self.lab.address(Side::Cloud).into(), port);
        let mut config = format!(
            "[[target]]\nname = \"{TARGET}\"\n[[target.lun]]\nlun = 0\nfile = {:?}\nsize = \"{}MiB\"\n\
             [[portal]]\nlisten = \"{portal}\"\nallow_public = true\n",
            self.lun_file(),
            self.disk_mib()
        );
        if extent == Extent::Tunnel {
            config += &format!("[tunnel]\nenable = true\nsocket = {:?}\n", self.socket());
        }
        let file = self.directory.path().join("farlun.toml");
        fs::write(&file, config)?;
        let mut command = self.lab.command(Side::Cloud, &self.farlun);
        command.env_remove("STATE_DIRECTORY");
        command.env("XDG_STATE_HOME", self.directory.path());
        command.arg("serve").arg(&file);
        // Its own, beside that of a daemon which this machine may have.
        command.arg("--control").arg(self.directory.path().join("control.sock"));
        command.env_remove("STATE_DIRECTORY");
        command.env("XDG_STATE_HOME", self.directory.path());
        let mut serve = Child::spawn("farlun serve", command, self.directory.path())?;
        serve.line("ready", Duration::from_millis(READY_MS)).await?;
        self.serve = Some(serve);
        Ok(portal)
    }

    /// Connects from home; where the portal is then.
    async fn connect(&mut self, sshd: &Sshd, extent: Extent, direct: SocketAddr) -> Result<SocketAddr> {
        let mut command = self.lab.command(Side::Home, &self.farlun);
        command.arg("connect");
        if extent == Extent::Tunnel {
            command
                .arg(format!("root@{}", sshd.address.ip()))
                .args(["--via", "socket", "--socket"])
                .arg(self.socket());
        } else {
            let local = SocketAddr::new(direct.ip(), sshd::free_port()?);
            command
                .arg(sshd.address.ip().to_string())
                .args(["--via", "forward", "--listen", &local.to_string()]);
            command.args(["--target-port", &direct.port().to_string()]);
        }
        command
            .args(["-p", &sshd.address.port().to_string(), "-i"])
            .arg(&sshd.identity);
        command.arg("--known-hosts").arg(&sshd.known_hosts);
        // Nothing of whoever runs the demo: no agent, no keys, no known hosts.
        command.env_remove("SSH_AUTH_SOCK").env("HOME", self.directory.path());
        for name in ["SUDO_USER", "SUDO_UID", "SUDO_GID"] {
            command.env_remove(name);
        }
        let mut connect = Child::spawn("farlun connect", command, self.directory.path())?;
        connect.line("ready", Duration::from_millis(READY_MS)).await?;
        let portal = if extent == Extent::Tunnel {
            let line = connect.line("discovery:", Duration::ZERO).await?;
            let portal = line.rsplit(' ').next().unwrap_or_default();
            portal.parse().with_context(|| format!("no portal in {line:?}"))?
        } else {
            let said = connect.said();
            let mut words = said
                .lines()
                .filter_map(|line| line.trim_start().split(' ').next()?.parse().ok());
            words.next().with_context(|| format!("no listener in:\n{said}"))?
        };
        self.connect = Some(connect);
        Ok(portal)
    }

    fn way(&self, extent: Extent, portal: SocketAddr) -> String {
        if extent == Extent::Tunnel {
            format!("a tunnel through sshd to {portal}")
        } else {
            format!("port {portal} forwarded through sshd")
        }
    }

    /// Runs the initiator at home.
    async fn exercise(&self, portal: SocketAddr, seed: u64) -> Result<Outcome, Failure> {
        let mut command = self.lab.command(Side::Home, &self.farlun);
        command.args(["demo", "--exercise", &format!("iscsi://{portal}")]);
        command.args(["--mib", &self.mib.to_string(), "--seed", &seed.to_string()]);
        let mut command = tokio::process::Command::from(command);
        let done = command
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        let done = done.context("cannot start the initiator")?;
        let said = String::from_utf8_lossy(&done.stdout);
        match serde_json::from_str(said.trim()) {
            // A mismatch is told by the checksums in it.
            Ok(outcome) => Ok(outcome),
            Err(_) => {
                let why = String::from_utf8_lossy(&done.stderr);
                let why = why.trim().trim_start_matches("farlun: ");
                Err(anyhow!("the initiator ended with {}: {why}\n{}", done.status, self.logs()).into())
            }
        }
    }

    /// What the programs of the story said, for whoever has to find out why it failed.
    fn logs(&self) -> String {
        let children = [("farlun serve", &self.serve), ("farlun connect", &self.connect)];
        let said = children
            .iter()
            .filter_map(|(name, child)| Some(format!("{name} said:\n{}", child.as_ref()?.said())));
        said.collect()
    }

    fn figures(&self, outcome: &Outcome) -> String {
        format!(
            "write {:.0} MiB/s, read {:.0} MiB/s, round trip {}",
            rate(self.mib, outcome.write_s),
            rate(self.mib, outcome.read_s),
            outcome.round_trip
        )
    }

    fn compare(&self, outcome: &Outcome) -> Result<(), Failure> {
        if outcome.target != TARGET || outcome.size_bytes != self.disk_mib() << 20 {
            return Err(anyhow!(
                "another disk was found: {} with {} bytes",
                outcome.target,
                outcome.size_bytes
            )
            .into());
        }
        same(&outcome.written, &outcome.read, "what was read back")
    }

    /// The data as it lies in the cloud, without any initiator.
    fn look_into_file(&self, outcome: &Outcome) -> Result<(), Failure> {
        let mut file = fs::File::open(self.lun_file())?;
        let mut chunks = Vec::new();
        for _ in 0..self.mib {
            let mut bytes = vec![0; CHUNK_BYTES as usize];
            file.read_exact(&mut bytes)?;
            chunks.push(Bytes::from(bytes));
        }
        same(&outcome.written, &checksum(chunks.into_iter()), "what lies in the file")
    }

    async fn kernel(&self, portal: SocketAddr, seed: u64, story: &mut Story) -> Result<(), Failure> {
        let outcome = kernel::run(TARGET, &portal.to_string(), self.mib, seed).await?;
        same(&outcome.sums.0, &outcome.sums.1, "what the kernel read back")?;
        story.tell(&format!(
            "home: the same with the kernel's initiator: {} appeared, checksums agree\nwrite {:.0} MiB/s, read {:.0} MiB/s",
            outcome.disk.display(),
            rate(self.mib, outcome.write_s),
            rate(self.mib, outcome.read_s)
        ));
        Ok(())
    }

    /// Ends everything in order; nothing may be left, and nothing may fail.
    async fn end(&mut self, extent: Extent) -> Result<()> {
        for child in [self.connect.take(), self.serve.take()] {
            let Some(mut child) = child else { continue };
            let status = child.stop().await?;
            if !status.success() {
                return Err(anyhow!("{status}:\n{}", child.said()));
            }
        }
        if extent == Extent::Tunnel {
            for side in [Side::Home, Side::Cloud] {
                let ip = tool("ip").context("ip is missing")?;
                let mut command = self.lab.command(side, &ip);
                command.args(["-o", "link", "show", "type", "tun"]);
                let left = output(command).await?;
                if left.lines().any(|line| line.contains("farlun")) {
                    return Err(anyhow!("a tun device is left behind:\n{left}"));
                }
            }
        }
        if self.socket_is_left() {
            return Err(anyhow!("the tunnel's socket is left behind"));
        }
        Ok(())
    }

    fn socket_is_left(&self) -> bool {
        self.socket().exists()
    }
}

fn same(written: &str, read: &str, what: &str) -> Result<(), Failure> {
    if written == read {
        return Ok(());
    }
    let text = format!("{what} is not what was written (checksum {read}, not {written})");
    Err(Failure::new(Exit::DataMismatch, anyhow!(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_an_exit_code_of_its_own() {
        assert!(same("abc", "abc", "what was read back").is_ok());
        let failure = same("abc", "abd", "what was read back").unwrap_err();
        let expected = std::process::ExitCode::from(Exit::DataMismatch as u8);
        assert_eq!(format!("{:?}", failure.code()), format!("{expected:?}"));
        assert!(
            failure
                .to_string()
                .contains("what was read back is not what was written"),
            "{failure}"
        );
    }
}
