//! The server's Unix socket: taken safely, with the right rights from its first moment, and removed at the end.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, Gid, Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};

use super::ServerError;

/// Who may open the socket: the owner, and the group if there is one.
const fn socket_mode(group: Option<u32>) -> u32 {
    if group.is_some() { 0o660 } else { 0o600 }
}
/// Everybody may look into a directory made for it; the socket's own mode decides.
const DIRECTORY_MODE: u32 = 0o755;

/// A socket that goes with this value.
#[derive(Debug)]
pub struct ServerSocket {
    listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
    /// Locked as long as this server lives; the file stays, since removing a lock file is a race.
    _lock: File,
}

/// Whether a server could take this path now. Nothing is made or removed.
///
/// # Errors
/// What [`TunnelServer::bind`](super::TunnelServer::bind) would run into, as far as that can be seen.
pub fn check_socket(path: &Path) -> Result<(), ServerError> {
    not_in_the_way(path)?;
    let failed = |what, path: &Path, error: io::Error| {
        let path = path.to_owned();
        Err(ServerError::Socket { what, path, error })
    };
    let lock_path = beside(path, ".lock");
    match rustix::fs::open(
        &lock_path,
        OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    ) {
        Ok(lock) => match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ServerError::AlreadyRunning(path.to_owned())),
            Err(error) => return failed("lock", &lock_path, error.into()),
        },
        Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return failed("open the lock", &lock_path, error.into()),
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ServerError::AlreadyRunning(path.to_owned()));
    }
    // Directories that are missing will be made.
    let directory = directory_of(path);
    let Some(there) = directory
        .ancestors()
        .find(|ancestor| ancestor.symlink_metadata().is_ok())
    else {
        return Ok(());
    };
    match rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(()),
        Err(error) => failed("make the socket in", there, error.into()),
    }
}

fn not_in_the_way(path: &Path) -> Result<(), ServerError> {
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.file_type().is_socket() => Err(ServerError::InTheWay(path.to_owned())),
        _ => Ok(()),
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

impl ServerSocket {
    /// Takes the path, which a stale socket may have; its directory is made when missing. Only the owner may open the
    /// socket, and the group if one is given by its id. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`ServerError`]; nothing has been changed then, but for a directory that was made.
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Self, ServerError> {
        let at = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| ServerError::Socket { what, path, error }
        };
        not_in_the_way(path)?;
        let directory = directory_of(path);
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .map_err(at("make the directory", directory))?;

        let lock_path = beside(path, ".lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::open(&lock_path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| at("open the lock", &lock_path)(error.into()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ServerError::AlreadyRunning(path.to_owned())),
            Err(error) => return Err(at("lock", &lock_path)(error.into())),
        }
        not_in_the_way(path)?;
        // Somebody answers there without our lock.
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ServerError::AlreadyRunning(path.to_owned()));
        }

        // Bound and given its rights under a name nobody knows, then moved over a stale one.
        let hidden = tempdir_in(directory).map_err(at("make a directory in", directory))?;
        let bound = hidden.join("socket");
        let made = (|| {
            let listener = StdListener::bind(&bound)?;
            std::fs::set_permissions(&bound, std::os::unix::fs::PermissionsExt::from_mode(socket_mode(group)))?;
            if let Some(group) = group {
                rustix::fs::chown(&bound, None, Some(Gid::from_raw(group)))?;
            }
            let metadata = bound.symlink_metadata()?;
            std::fs::rename(&bound, path)?;
            listener.set_nonblocking(true)?;
            Ok((UnixListener::from_std(listener)?, (metadata.dev(), metadata.ino())))
        })();
        if made.is_err() {
            let _may_not_be_there = std::fs::remove_file(&bound);
        }
        if let Err(error) = std::fs::remove_dir(&hidden) {
            tracing::debug!(path = %hidden.display(), %error, "directory stays");
        }
        let (listener, identity) = made.map_err(at("make the socket", path))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity,
            _lock: lock.into(),
        })
    }

    /// The next client.
    ///
    /// # Errors
    /// What accept(2) says.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for ServerSocket {
    fn drop(&mut self) {
        let ours = self
            .path
            .symlink_metadata()
            .is_ok_and(|now| (now.dev(), now.ino()) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "socket stays behind");
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn tempdir_in(directory: &Path) -> io::Result<PathBuf> {
    let random = getrandom::u64().map_err(io::Error::other)?;
    let path = directory.join(format!(".{random:016x}"));
    DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

/// The id of a group by name or number, from `/etc/group`.
pub fn group_id(name: &str) -> Option<u32> {
    if let Ok(id) = name.parse() {
        return Some(id);
    }
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let mut lines = groups.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        if fields.next() == Some(name) {
            fields.nth(1)?.parse().ok()
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn taken_once_and_removed_at_the_end() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run/tunnel.sock");
        let first = ServerSocket::bind(&path, None).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(matches!(
            ServerSocket::bind(&path, None),
            Err(ServerError::AlreadyRunning(_))
        ));
        let (connected, accepted) = tokio::join!(UnixStream::connect(&path), first.accept());
        assert!(connected.is_ok() && accepted.is_ok());
        drop(first);
        assert!(!path.exists());
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["tunnel.sock.lock"]);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_stranger_is_not() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tunnel.sock");
        let stranger = StdListener::bind(&path).unwrap();
        assert!(matches!(
            ServerSocket::bind(&path, None),
            Err(ServerError::AlreadyRunning(_))
        ));
        drop(stranger);
        assert!(path.exists(), "stale");
        let ours = ServerSocket::bind(&path, None).unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
        // Somebody replaces it: their socket stays.
        std::fs::remove_file(&path).unwrap();
        let _theirs = StdListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_way_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tunnel.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(ServerSocket::bind(&path, None), Err(ServerError::InTheWay(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        assert!(!beside(&path, ".lock").exists());
        assert!(matches!(check_socket(&path), Err(ServerError::InTheWay(_))));
    }

    #[tokio::test]
    async fn checking_tells_and_touches_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run/tunnel.sock");
        check_socket(&path).unwrap();
        assert!(!home.path().join("run").exists());
        let socket = ServerSocket::bind(&path, None).unwrap();
        assert!(matches!(check_socket(&path), Err(ServerError::AlreadyRunning(_))));
        drop(socket);
        check_socket(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn groups() {
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("1234"), Some(1234));
        assert_eq!(group_id("no such group"), None);
    }
}
