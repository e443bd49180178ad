//! A daemon of the command, and what it is told. Each test file uses a part of this.
#![allow(dead_code, unreachable_pub)]

pub mod place;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Time for anything to happen.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The command, at home in `state`.
pub fn farlun(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farlun"));
    command
        .env("XDG_STATE_HOME", state)
        .env("HOME", state)
        .env("FARLUN_CONTROL", state.join("control.sock"))
        .env_remove("RUST_LOG")
        .env_remove("SSH_AUTH_SOCK");
    command.env_remove("JOURNAL_STREAM").stdin(Stdio::null());
    command
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command said that has ended with this code.
pub fn ended(output: &Output, code: i32) -> String {
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

/// A server that is ready.
pub struct Server {
    pub child: Child,
    /// What it said until then.
    pub said: String,
}

impl Server {
    /// Starts one, and waits until it is ready.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        loop {
            let Some(line) = lines.next() else {
                let mut why = String::new();
                child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
                panic!("not ready: {said}{why}");
            };
            let line = line.unwrap();
            said += &line;
            said.push('\n');
            if line.starts_with("ready") {
                break;
            }
        }
        Self { child, said }
    }

    /// The first word after `word` in what it said.
    pub fn after(&self, word: &str) -> &str {
        let (_, rest) = self
            .said
            .split_once(word)
            .unwrap_or_else(|| panic!("{word:?} is not in {}", self.said));
        rest.split_whitespace().next().unwrap().trim_end_matches(',')
    }

    /// Ends it; its code and its log.
    pub fn stop(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < LIMIT, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (status.code(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
