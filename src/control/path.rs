//! Where the control socket is.

use std::path::PathBuf;

/// The group that may open the socket of a daemon of root, if there is such a group.
pub(crate) const ADMIN_GROUP: &str = "farlun-admin";

/// Where a daemon of this user has its socket, unless told otherwise: beside the tunnels' for root, else in the user's
/// runtime directory (XDG Base Directory Specification), else where its LUNs are.
pub(crate) fn usual() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/run/farlun/control.sock"));
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime
        .filter(|path| path.is_absolute())
        .map(|path| path.join("farlun"));
    let directory = runtime.or_else(crate::state::directory)?;
    Some(directory.join("control.sock"))
}
