//! Writing a configuration file back: the old one or the new one is there at any moment, never half of one.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Replaces the content of a file; mode and owner stay, and a link to it stays a link. On stable storage when this
/// returns.
///
/// # Errors
/// What the system says; the file is as it was then.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = path.canonicalize()?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let old = std::fs::metadata(&path)?;
    // Readable by nobody else until it has the rights of the old one.
    let mut new = tempfile::Builder::new().prefix(".farlun-").tempfile_in(directory)?;
    new.write_all(text.as_bytes())?;
    let now = new.as_file().metadata()?;
    if (now.uid(), now.gid()) != (old.uid(), old.gid()) {
        std::os::unix::fs::fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
    }
    new.as_file()
        .set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o7777))?;
    new.as_file().sync_all()?;
    new.persist(&path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_and_link_stay_and_nothing_is_left_beside() {
        let home = tempfile::tempdir().unwrap();
        let (file, link) = (home.path().join("real.toml"), home.path().join("link.toml"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.toml", &link).unwrap();
        replace(&link, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2);
        assert!(replace(&home.path().join("none"), "").is_err());
    }
}
