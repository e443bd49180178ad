//! Asking the user: is this the right host key, what is the passphrase.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// How often a nonsensical answer is asked again.
const ANSWERS_MAX: usize = 5;

/// A host key that nobody has seen yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKeyQuestion {
    /// The host as known_hosts would name it, `[host]:port` when the port is not 22.
    pub host: String,
    /// The key's type, `ssh-ed25519` for instance.
    pub key_type: String,
    /// `SHA256:` and base64, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// What else is to be known before answering, one line each.
    pub notes: Vec<String>,
}

/// Who answers questions. Calls may block; they are made off the async threads.
pub trait Prompt: Send + Sync {
    /// Whether the key is the right one; `None` when there is nobody to ask.
    fn accept_host_key(&self, question: &HostKeyQuestion) -> Option<bool>;

    /// The passphrase of an encrypted key file; `None` when there is nobody to ask.
    fn passphrase(&self, key: &Path) -> Option<String>;
}

/// Nobody to ask.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPrompt;

impl Prompt for NoPrompt {
    fn accept_host_key(&self, _question: &HostKeyQuestion) -> Option<bool> {
        None
    }

    fn passphrase(&self, _key: &Path) -> Option<String> {
        None
    }
}

/// The terminal this process was started from, even when its standard input is something else.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terminal;

impl Prompt for Terminal {
    fn accept_host_key(&self, question: &HostKeyQuestion) -> Option<bool> {
        let HostKeyQuestion {
            host,
            key_type,
            fingerprint,
            notes,
        } = question;
        let mut tty = Tty::open().ok()?;
        let mut text =
            format!("The host key of {host} is not known yet.\n{key_type} key fingerprint is {fingerprint}.\n");
        for note in notes {
            text.push_str(note);
            text.push('\n');
        }
        text.push_str("Is this the right one (yes/no/the fingerprint)? ");
        for _ in 0..ANSWERS_MAX {
            let answer = tty.ask(&text, true).ok()?;
            match answer.trim() {
                "yes" => return Some(true),
                "no" | "" => return Some(false),
                answer if answer == fingerprint => return Some(true),
                _ => text = "Please type yes, no or the fingerprint: ".to_owned(),
            }
        }
        Some(false)
    }

    fn passphrase(&self, key: &Path) -> Option<String> {
        let answer = Tty::open()
            .ok()?
            .ask(&format!("Passphrase for {}: ", key.display()), false)
            .ok()?;
        Some(answer.trim_end_matches(['\r', '\n']).to_owned())
    }
}

struct Tty {
    reader: BufReader<File>,
    writer: File,
}

impl Tty {
    fn open() -> io::Result<Self> {
        let writer = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        Ok(Self {
            reader: BufReader::new(writer.try_clone()?),
            writer,
        })
    }

    fn ask(&mut self, text: &str, echo: bool) -> io::Result<String> {
        self.writer.write_all(text.as_bytes())?;
        self.writer.flush()?;
        let before = tcgetattr(&self.writer)?;
        if !echo {
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            silent.local_modes.insert(LocalModes::ECHONL);
            tcsetattr(&self.writer, OptionalActions::Flush, &silent)?;
        }
        let mut answer = String::new();
        let read = self.reader.read_line(&mut answer);
        if !echo {
            tcsetattr(&self.writer, OptionalActions::Flush, &before)?;
        }
        if read? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer)
    }
}
