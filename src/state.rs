//! Where things are kept that outlive the daemon: LUNs without configuration, reservations.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

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

/// Where the persistent reservations of a disk are kept; `None` where there is no place to keep anything, which is told:
/// initiators are then not promised that reservations survive a restart.
pub(crate) fn reservations_file(serial: &str) -> Option<PathBuf> {
    let directory = directory()?.join("reservations");
    if let Err(error) = make_directory(&directory) {
        tracing::warn!("{error:#}: persistent reservations do not survive a restart");
        return None;
    }
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
    Some(directory.join(format!("{name}.json")))
}

/// A disk that is made anew has no reservations, whatever one of the same serial number had.
pub(crate) fn forget_reservations(serial: &str) {
    let Some(file) = reservations_file(serial) else { return };
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(file = %file.display(), %error, "reservations of an earlier disk stay");
        }
        _ => {}
    }
}
