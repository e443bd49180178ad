//! Which host keys are known: our own matcher over `ssh_key`'s parser of known_hosts lines.
//!
//! Names, `[host]:port`, wildcards, negation and hashed names match as in sshd(8). A line marked `@revoked` refuses
//! its key; `@cert-authority` lines say nothing about plain keys.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::{Algorithm, PublicKey};
use rustix::fs::{Dir, Gid, Mode, OFlags, Uid};

use super::Invoker;

/// The most of one file that is read, in bytes.
const FILE_MAX_BYTES: u64 = 0x100_0000;

/// The port that known_hosts leaves out.
const SSH_PORT: u16 = 22;

/// Where a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What the files say about a host's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the known one.
    Known(Place),
    /// It is listed as revoked.
    Revoked(Place),
    /// Another key of the same type is known.
    Changed(Place),
    /// Nothing is known, or only keys of other types (`other`), or authorities for certificates (`authority`).
    Unknown {
        /// A line with a key of another type.
        other: Option<Place>,
        /// A line with a certificate authority.
        authority: Option<Place>,
    },
}

/// The lines of some files.
#[derive(Debug, Default)]
pub struct KnownHosts {
    lines: Vec<(Place, Entry)>,
}

impl KnownHosts {
    /// Reads the files; one that is not there is empty.
    ///
    /// # Errors
    /// When a file is there but cannot be read, with its path.
    pub fn read(files: &[PathBuf]) -> Result<Self, (PathBuf, io::Error)> {
        let mut known = Self::default();
        for file in files {
            let failed = |error| (file.clone(), error);
            let mut text = Vec::new();
            match File::open(file) {
                Ok(open) => open.take(FILE_MAX_BYTES).read_to_end(&mut text).map_err(failed)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            known.add(file, &String::from_utf8_lossy(&text));
        }
        Ok(known)
    }

    /// Adds the lines of one file. Those that cannot be read are skipped with a warning, as OpenSSH does.
    pub fn add(&mut self, file: &Path, text: &str) {
        for (index, line) in text.lines().enumerate() {
            let place = Place {
                file: file.to_owned(),
                line: index + 1,
            };
            if line.trim_start().starts_with('#') || line.trim().is_empty() {
                continue;
            }
            // Any white space may stand between the fields; the parser wants single blanks.
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            match line.parse::<Entry>() {
                Ok(entry) => self.lines.push((place, entry)),
                Err(error) => tracing::warn!(%place, %error, "line of known_hosts skipped"),
            }
        }
    }

    /// Judges the key that a host has shown.
    pub fn check(&self, host: &str, port: u16, key: &PublicKey) -> Verdict {
        let name = host_name(host, port);
        let revoked = |entry: &Entry| entry.marker() == Some(&Marker::Revoked);
        for name in [&name, &host_name(host, SSH_PORT)] {
            let mut lines = self.lines.iter().filter(|(_, entry)| revoked(entry));
            if let Some((place, _)) = lines.find(|(_, entry)| same_key(entry, key) && matches(entry, name)) {
                return Verdict::Revoked(place.clone());
            }
        }
        match self.check_plain(&name, key) {
            // A host that is known without its port is the same host (as in OpenSSH), but only when the key agrees.
            unknown @ Verdict::Unknown { .. } if port != SSH_PORT => {
                match self.check_plain(&host_name(host, SSH_PORT), key) {
                    known @ Verdict::Known(_) => known,
                    _ => unknown,
                }
            }
            verdict => verdict,
        }
    }

    fn check_plain(&self, name: &str, key: &PublicKey) -> Verdict {
        let (mut changed, mut other, mut authority) = (None, None, None);
        for (place, entry) in self.lines.iter().filter(|(_, entry)| matches(entry, name)) {
            match entry.marker() {
                None if same_key(entry, key) => return Verdict::Known(place.clone()),
                None if entry.public_key().algorithm() == key.algorithm() => {
                    changed.get_or_insert_with(|| place.clone());
                }
                None => {
                    other.get_or_insert_with(|| place.clone());
                }
                Some(Marker::CertAuthority) => {
                    authority.get_or_insert_with(|| place.clone());
                }
                Some(Marker::Revoked) => {}
            }
        }
        changed.map_or(Verdict::Unknown { other, authority }, Verdict::Changed)
    }

    /// The types of the keys known for a host, so that the server is asked for one of these.
    pub fn key_types(&self, host: &str, port: u16) -> Vec<Algorithm> {
        let names = [host_name(host, port), host_name(host, SSH_PORT)];
        let known = |name: &String| {
            let plain = self.lines.iter().filter(|(_, entry)| entry.marker().is_none());
            plain
                .filter(|(_, entry)| matches(entry, name))
                .map(|(_, entry)| entry.public_key().algorithm())
                .collect()
        };
        let types: Vec<_> = known(&names[0]);
        if types.is_empty() { known(&names[1]) } else { types }
    }
}

/// A host as known_hosts names it.
pub fn host_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == SSH_PORT {
        host
    } else {
        format!("[{host}]:{port}")
    }
}

fn same_key(entry: &Entry, key: &PublicKey) -> bool {
    entry.public_key().key_data() == key.key_data()
}

fn matches(entry: &Entry, name: &str) -> bool {
    match entry.host_patterns() {
        HostPatterns::HashedName { salt, hash } => {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            ring::hmac::sign(&key, name.as_bytes()).as_ref() == hash
        }
        HostPatterns::Patterns(patterns) => {
            let mut found = false;
            for pattern in patterns {
                let pattern = pattern.to_ascii_lowercase();
                match pattern.strip_prefix('!') {
                    Some(pattern) if wildcard(pattern.as_bytes(), name.as_bytes()) => return false,
                    Some(_) => {}
                    None => found |= wildcard(pattern.as_bytes(), name.as_bytes()),
                }
            }
            found
        }
    }
}

/// `*` is any run of characters, `?` any one.
fn wildcard(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match &mut retry {
                Some((after, from)) => {
                    *from += 1;
                    (p, n) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// Appends a host's key to a file, which is made when missing (0600, its directory 0700). Under sudo the file stays
/// the invoking user's, and nothing is written that this user could not have written.
///
/// # Errors
/// When the file cannot be made or written, or is not the user's.
pub fn append(file: &Path, host: &str, port: u16, key: &PublicKey, invoker: &Invoker) -> io::Result<()> {
    let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = directory(parent(file)?, invoker)?;

    let mut flags = OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NONBLOCK;
    if invoker.through_sudo {
        flags |= OFlags::NOFOLLOW;
    }
    let mode = Mode::RUSR | Mode::WUSR;
    let created = rustix::fs::openat(&directory, name, flags | OFlags::CREATE | OFlags::EXCL, mode);
    let mut open = match created {
        Ok(open) => {
            let open = File::from(open);
            open.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            give(&open, invoker)?;
            open
        }
        Err(rustix::io::Errno::EXIST) => File::from(rustix::fs::openat(&directory, name, flags, mode)?),
        Err(error) => return Err(error.into()),
    };
    theirs(&open, invoker)?;

    let key = PublicKey::new(key.key_data().clone(), "");
    let key = key.to_openssh().map_err(io::Error::other)?;
    let mut line = format!("{} {}\n", host_name(host, port), key.trim_end());
    if !ends_with_newline(&open)? {
        line.insert(0, '\n');
    }
    open.write_all(line.as_bytes())
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn parent(path: &Path) -> io::Result<&Path> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    })
}

/// Opens a directory of the user's, or makes it within another of theirs.
fn directory(path: &Path, invoker: &Invoker) -> io::Result<File> {
    match rustix::fs::open(path, DIRECTORY, Mode::empty()) {
        Ok(open) => {
            let open = File::from(open);
            theirs(&open, invoker)?;
            return Ok(open);
        }
        Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let above = File::from(rustix::fs::open(parent(path)?, DIRECTORY, Mode::empty())?);
    theirs(&above, invoker)?;
    rustix::fs::mkdirat(&above, name, Mode::RWXU)?;
    hand_over(&above, name, invoker)
}

/// Opens the directory just made, and under sudo makes it the user's. They may have put something else in its place
/// meanwhile, so it is theirs only if it looks as it was made: a directory of our own, for us alone, with nothing in it.
pub(super) fn hand_over(above: &File, name: &OsStr, invoker: &Invoker) -> io::Result<File> {
    let made = rustix::fs::openat(above, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    let made = File::from(made);
    if invoker.through_sudo {
        let metadata = made.metadata()?;
        let ours = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 == 0;
        let mut entries = Dir::read_from(&made)?;
        let empty = entries.all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")));
        if !ours || !empty {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "somebody put another directory where this one was made",
            ));
        }
        give(&made, invoker)?;
    }
    theirs(&made, invoker)?;
    Ok(made)
}

/// Makes what was made here the invoking user's.
fn give(made: &File, invoker: &Invoker) -> io::Result<()> {
    if invoker.through_sudo {
        let (uid, gid) = (Uid::from_raw(invoker.uid), Gid::from_raw(invoker.gid));
        rustix::fs::fchown(made, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Under sudo only what belongs to the invoking user is touched: root must not write where they could not.
fn theirs(open: &File, invoker: &Invoker) -> io::Result<()> {
    let metadata = open.metadata()?;
    if invoker.through_sudo && metadata.uid() != invoker.uid {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it does not belong to the user who called sudo",
        ));
    }
    Ok(())
}

fn ends_with_newline(open: &File) -> io::Result<bool> {
    let metadata = open.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut last = [b'\n'];
    if metadata.len() > 0 {
        rustix::io::pread(open, &mut last, metadata.len() - 1)?;
    }
    Ok(last == [b'\n'])
}

/// The files OpenSSH reads, in its order.
pub fn usual_files(invoker: &Invoker) -> Vec<PathBuf> {
    vec![
        invoker.ssh_file("known_hosts"),
        invoker.ssh_file("known_hosts2"),
        PathBuf::from("/etc/ssh/ssh_known_hosts"),
        PathBuf::from("/etc/ssh/ssh_known_hosts2"),
    ]
}
