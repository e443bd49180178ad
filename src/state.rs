//! Where things are kept that outlive the daemon: LUNs without configuration, reservations.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use target_core::scsi::{FileStore, ReservationStore, Saved};

use crate::culprit;

/// The state directory (XDG Base Directory Specification; systemd.exec(5) for services; file-hierarchy(7) for root).
pub(crate) fn directory() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    // systemd's StateDirectory=, which may name several: the first.
    if let Some(state) = std::env::var_os("STATE_DIRECTORY") {
        let first = state.to_string_lossy().split(':').next().map(PathBuf::from);
        if let Some(state) = first.filter(|path| path.is_absolute()) {
            return Some(state);
        }
    }
    if let Some(state) = absolute("XDG_STATE_HOME") {
        return Some(state.join("farlun"));
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/farlun"));
    }
    Some(absolute("HOME")?.join(".local/state/farlun"))
}

/// Makes a directory that is nobody else's business.
pub(crate) fn make_directory(path: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Where the persistent reservations of one disk are kept, for this daemon alone: serial numbers are taken from names
/// of targets, and another daemon of this user may well have the same.
#[derive(Debug)]
pub(crate) struct Reservations {
    store: FileStore,
    file: PathBuf,
    _lock: Arc<File>,
}

/// Locks this daemon has. A disk that is opened anew may meet what is left of the one before, which has the lock.
static HELD: Mutex<BTreeMap<PathBuf, Weak<File>>> = Mutex::new(BTreeMap::new());

impl Reservations {
    /// The file they are in.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }
}

impl ReservationStore for Reservations {
    fn load(&self) -> io::Result<Option<Saved>> {
        self.store.load()
    }

    fn save(&self, saved: &Saved) -> io::Result<()> {
        self.store.save(saved)
    }
}

/// Where the persistent reservations of a disk are kept; `None` where there is no place to keep anything, which is told:
/// initiators are then not promised that reservations survive a restart.
///
/// # Errors
/// Another daemon keeps those of a disk of this serial number.
pub(crate) fn reservations(serial: &str) -> anyhow::Result<Option<Reservations>> {
    let Some(directory) = reservations_directory() else {
        return Ok(None);
    };
    if let Err(error) = make_directory(&directory) {
        tracing::warn!("{error:#}: persistent reservations do not survive a restart");
        return Ok(None);
    }
    reservations_in(&directory, serial)
}

fn reservations_in(directory: &Path, serial: &str) -> anyhow::Result<Option<Reservations>> {
    let (file, lock) = paths(directory, serial);
    match hold(&lock) {
        Ok(Some(held)) => Ok(Some(Reservations {
            store: FileStore::new(file.clone()),
            file,
            _lock: held,
        })),
        Ok(None) => anyhow::bail!(by_another(serial, &lock)),
        Err(error) => {
            tracing::warn!(file = %lock.display(), %error, "persistent reservations do not survive a restart");
            Ok(None)
        }
    }
}

/// Why the reservations of a disk cannot be kept by this daemon, if so. Nothing is made.
pub(crate) fn reservations_in_the_way(serial: &str) -> Option<String> {
    let (_, lock) = paths(&reservations_directory()?, serial);
    if held(&lock).is_some() {
        return None;
    }
    let file = File::open(&lock).ok()?;
    let locked = flock(&file, FlockOperation::NonBlockingLockShared);
    (locked == Err(Errno::WOULDBLOCK)).then(|| by_another(serial, &lock))
}

/// A disk that is made anew has no reservations, whatever one of the same serial number had.
///
/// # Errors
/// Another daemon keeps those of a disk of this serial number.
pub(crate) fn forget_reservations(serial: &str) -> anyhow::Result<()> {
    let Some(kept) = reservations(serial)? else {
        return Ok(());
    };
    match std::fs::remove_file(&kept.file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %kept.file.display(), %error, "reservations of an earlier disk stay");
        }
        _ => {}
    }
    Ok(())
}

fn reservations_directory() -> Option<PathBuf> {
    Some(directory()?.join("reservations"))
}

/// The file with the reservations of a disk, and the one that is locked: the first is replaced at every change.
fn paths(directory: &Path, serial: &str) -> (PathBuf, PathBuf) {
    // A serial number may have any printable character in it.
    let name: String = serial
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c.to_string()
            } else {
                format!("%{:02x}", u32::from(c))
            }
        })
        .collect();
    (
        directory.join(format!("{name}.json")),
        directory.join(format!("{name}.lock")),
    )
}

fn held(lock: &Path) -> Option<Arc<File>> {
    let all = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    all.get(lock).and_then(Weak::upgrade)
}

/// Takes a lock, or shares in it when it is ours; `None` if another process has it.
fn hold(lock: &Path) -> io::Result<Option<Arc<File>>> {
    let mut all = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(held) = all.get(lock).and_then(Weak::upgrade) {
        return Ok(Some(held));
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = Arc::new(file.open(lock)?);
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    all.retain(|_, held| held.strong_count() > 0);
    all.insert(lock.to_owned(), Arc::downgrade(&file));
    Ok(Some(file))
}

fn by_another(serial: &str, lock: &Path) -> String {
    let holder = culprit::lock_holder(lock).unwrap_or_else(|| "another farlun".to_owned());
    format!(
        "{holder} serves a disk with the serial number {serial}, and initiators would take the two for one: \
         set another serial here"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_one_daemons_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let (json, lock) = paths(home.path(), "a/b-1");
        assert_eq!(json, home.path().join("a%2fb-1.json"));
        // As another process would have it: an open file of its own.
        let other = File::create(&lock).unwrap();
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
        let said = reservations_in(home.path(), "a/b-1").unwrap_err().to_string();
        assert!(
            said.contains("serial number a/b-1") && said.contains("set another serial"),
            "{said}"
        );
        assert!(reservations_in(home.path(), "c").unwrap().is_some());
        drop(other);
        let first = reservations_in(home.path(), "a/b-1").unwrap().unwrap();
        // Opened anew while what is left of it is still there.
        let second = reservations_in(home.path(), "a/b-1").unwrap().unwrap();
        drop(first);
        let other = File::open(&lock).unwrap();
        assert_eq!(
            flock(&other, FlockOperation::NonBlockingLockShared),
            Err(Errno::WOULDBLOCK)
        );
        assert_eq!(second.load().unwrap(), None);
        second.save(&Saved::default()).unwrap();
        assert!(json.exists());
        drop(second);
        flock(&other, FlockOperation::NonBlockingLockShared).unwrap();
    }
}
