//! A store in a file of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ReservationStore, Saved};

/// Format of the file.
const VERSION: u32 = 1;
/// Longest file that is read, in bytes; what is written is far shorter.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    /// Of the JSON of `saved`, so that a file that was damaged is not taken for another reservation.
    crc32c: u32,
    saved: Saved,
}

/// Keeps reservations in a JSON file, which is replaced as a whole.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// A store in this file, in a directory that exists. The file is made when there is something to keep.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn damaged(&self, what: &str) -> io::Error {
        let path = self.path.display();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path}: {what}; it holds who has reserved the LUN. Remove it to begin without reservations"),
        )
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }
}

impl ReservationStore for FileStore {
    fn load(&self) -> io::Result<Option<Saved>> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(error)),
        };
        let mut text = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(named)?;
        let contents: Contents =
            serde_json::from_slice(&text).map_err(|error| self.damaged(&format!("not understood: {error}")))?;
        if contents.version != VERSION {
            return Err(self.damaged(&format!("format {}, not {VERSION}", contents.version)));
        }
        if checksum(&contents.saved)? != contents.crc32c {
            return Err(self.damaged("the checksum is wrong"));
        }
        Ok(Some(contents.saved))
    }

    fn save(&self, saved: &Saved) -> io::Result<()> {
        let contents = Contents {
            version: VERSION,
            crc32c: checksum(saved)?,
            saved: saved.clone(),
        };
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = self.path.with_file_name(name);
        // Left over from an end without warning.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let mut text = serde_json::to_vec_pretty(&contents)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&new, &self.path)?;
        File::open(self.directory())?.sync_all()
    }
}

fn checksum(saved: &Saved) -> io::Result<u32> {
    Ok(crc32c::crc32c(&serde_json::to_vec(saved)?))
}
