//! A daemon with a configuration file, in a directory of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use initiator::{Error, LoginOptions, Session};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{LIMIT, Server, ended, farlun};

/// The first target.
pub const DISK: &str = "iqn.2026-11.com.example:disk";
/// The second.
pub const OTHER: &str = "iqn.2026-11.com.example:other";
/// An initiator.
pub const HOME: &str = "iqn.2026-11.com.example:home";

/// A daemon with a configuration file, in a directory of its own.
pub struct Place {
    pub home: TempDir,
    pub server: Option<Server>,
    pub portal: SocketAddr,
}

pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

impl Place {
    /// A disk of two LUNs and another of one; `more` at the end of the file.
    pub fn new(more: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let portal = free_address();
        let place = Self {
            home,
            server: None,
            portal,
        };
        place.write(&format!(
            "# disks of the house\n[[target]]\nname = \"{DISK}\"   # the first\n  [[target.lun]]\n  lun = 0\n  \
             file = \"a.img\"   # sparse\n  size = \"8MiB\"\n\n[[target]]\nname = \"{OTHER}\"\n  [[target.lun]]\n  \
             lun = 0\n  memory = \"1MiB\"\n\n[[portal]]\nlisten = \"{portal}\"\n{more}"
        ));
        place.started()
    }

    pub fn started(mut self) -> Self {
        let server = Server::start(farlun(self.home.path()).arg("serve").arg(self.file()));
        self.server = Some(server);
        self
    }

    pub fn file(&self) -> PathBuf {
        self.home.path().join("farlun.toml")
    }

    pub fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    pub fn write(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// What a command says that ends with this code.
    #[track_caller]
    pub fn says(&self, code: i32, words: &[&str]) -> String {
        let mut command = farlun(self.home.path());
        ended(
            &command.current_dir(self.home.path()).args(words).output().unwrap(),
            code,
        )
    }

    #[track_caller]
    pub fn json(&self, words: &[&str]) -> serde_json::Value {
        let said = self.says(0, &[words, &["--json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.server.as_ref().unwrap().child), signal).unwrap();
    }

    pub async fn log_in(&self, target: &str, who: &str) -> Result<Session<TcpStream>, Error> {
        let stream = initiator::connect("127.0.0.1", self.portal.port(), 5_000).await?;
        Session::login(stream, &LoginOptions::new(who, Some(target))).await
    }
}

#[track_caller]
pub fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

/// Tries again until it is true.
#[track_caller]
pub fn soon(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < LIMIT, "not so in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Place {
    pub fn stopped(mut self) -> (Option<i32>, String) {
        let stopped = self.server.take().unwrap().stop(Signal::TERM);
        let said = self.says(0, &["serve", "--check", self.file().to_str().unwrap()]);
        has(&said, &["the configuration is right"]);
        stopped
    }
}
