//! Opening the media of LUNs in two steps: first what exists, which locks it and changes nothing; then, when all else is
//! known to work, what has to be created.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustix::fs::{Access, FallocateFlags, FlockOperation};
use target_core::lun::{
    Allocation, BlockMedium, FileMedium, FileOptions, Medium, MemoryMedium, MemoryOptions, OpenError,
};
use target_core::scsi::{Identity, LogicalUnit, LogicalUnitOptions, MediumOptions};

use crate::config::{LunPlan, MediumPlan, Problems, Provisioning};
use crate::culprit;

/// T10 vendor identification.
const VENDOR: &str = "farlun";
/// Product identification.
const PRODUCT: &str = "disk";
/// Product revision: as much of the version as fits four bytes.
const REVISION: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// Opens what exists, and locks it.
#[derive(Debug, Default)]
pub(crate) struct Opener {
    /// What it has open.
    locked: Vec<(u64, u64)>,
}

impl Opener {
    /// Opens the medium of a LUN; `None` if it is still to be created. What does not open goes to `problems`.
    pub(crate) fn open(&mut self, lun: &LunPlan, problems: &mut Problems) -> Option<Arc<dyn Medium>> {
        let file = identity(lun);
        let medium = open(lun).unwrap_or_else(|error| {
            let named_twice = file.is_some_and(|file| self.locked.contains(&file));
            add_problem(lun, error, named_twice, problems);
            None
        })?;
        self.locked.extend(file);
        Some(medium)
    }
}

/// Device and inode of what a LUN is kept in.
fn identity(lun: &LunPlan) -> Option<(u64, u64)> {
    let found = std::fs::metadata(lun.medium.path()?).ok()?;
    Some((found.dev(), found.ino()))
}

/// Whether there is a file, and nothing in it.
fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == 0)
}

/// Gives a file that is there, and has nothing in it, its size.
fn fill(path: &Path, lun: &LunPlan, size_bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    // Another daemon may be making it just now.
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    if file.metadata()?.len() > 0 {
        return Err(io::Error::other("it is not empty any more"));
    }
    let filled = match allocation(lun) {
        Allocation::Thick => rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size_bytes).map_err(Into::into),
        Allocation::Thin => file.set_len(size_bytes),
    };
    filled.and_then(|()| file.sync_all()).inspect_err(|_| {
        // The first error is the one to report.
        let _ = file.set_len(0);
    })
}

/// Opens the medium of a LUN; `None` if it is a file that is not there, or empty and to be given a size.
pub(crate) fn open(lun: &LunPlan) -> Result<Option<Arc<dyn Medium>>, OpenError> {
    Ok(match &lun.medium {
        MediumPlan::File { path, size: Some(_) } if is_empty(path) => None,
        MediumPlan::File { path, .. } => match FileMedium::open(path, options(lun)) {
            Ok(medium) => Some(Arc::new(medium)),
            Err(OpenError::Missing { .. }) => None,
            Err(error) => return Err(error),
        },
        MediumPlan::Device { path } => Some(Arc::new(BlockMedium::open(path, options(lun))?)),
        MediumPlan::Memory { size } => {
            let options = MemoryOptions {
                block_bytes: lun.block_size_bytes,
                physical_block_bytes: lun.physical_block_size_bytes,
                allocation: allocation(lun),
                ..MemoryOptions::default()
            };
            Some(Arc::new(MemoryMedium::with_options(size.0, options)?))
        }
    })
}

/// An error of opening, unless the survey has said the same already.
fn add_problem(lun: &LunPlan, error: OpenError, named_twice: bool, problems: &mut Problems) {
    match &error {
        // The lock is our own, from the LUN that named the file first: the survey has said so.
        OpenError::InUse { .. } if named_twice => {}
        OpenError::InUse { path } => {
            let holder = culprit::lock_holder(path).map_or(String::new(), |holder| format!(", held by {holder}"));
            problems.add_passing(
                lun.line,
                format!(
                    "{} is already open as a LUN elsewhere{holder}: stop that program, or name another file",
                    path.display()
                ),
            );
        }
        _ if problems.knows_of(lun.line) => {}
        OpenError::Busy { .. } | OpenError::Io { .. } => problems.add_passing(lun.line, error.to_string()),
        _ => problems.add(lun.line, error.to_string()),
    }
}

fn allocation(lun: &LunPlan) -> Allocation {
    match lun.provisioning {
        Some(Provisioning::Thick) => Allocation::Thick,
        Some(Provisioning::Thin) | None => Allocation::Thin,
    }
}

fn options(lun: &LunPlan) -> FileOptions {
    // What is read-only for initiators is opened for reading alone only where it has to be: so it can become writable
    // while it is served.
    let path = lun.medium.path();
    let unwritable = path.is_some_and(|path| rustix::fs::access(path, Access::WRITE_OK).is_err());
    FileOptions {
        block_bytes: lun.block_size_bytes,
        physical_block_bytes: lun.physical_block_size_bytes,
        write_cache: lun.write_cache,
        allocation: allocation(lun),
        read_only: lun.read_only && unwritable,
    }
}

/// A medium under its name.
pub(crate) fn unit(lun: &LunPlan, medium: Arc<dyn Medium>) -> Arc<LogicalUnit> {
    let identity = Identity {
        vendor: VENDOR.to_owned(),
        product: PRODUCT.to_owned(),
        revision: REVISION.to_owned(),
        serial: lun.serial.clone(),
    };
    let options = LogicalUnitOptions {
        shared: lun.shared,
        read_only: lun.read_only,
        medium: MediumOptions {
            removable: lun.removable,
            copy_offload: lun.copy_offload,
            threshold_percent: lun.thin_threshold_percent,
            no_unmap_command: !lun.unmap_command,
            unmapped_reads_anything: lun.unmapped_reads_anything,
        },
    };
    LogicalUnit::with_options(medium, identity, options)
}

/// Files made for a change; removed again unless everything worked.
#[derive(Debug, Default)]
pub(crate) struct Created {
    paths: Vec<PathBuf>,
}

impl Created {
    /// Makes the file of a LUN.
    pub(crate) fn create(&mut self, lun: &LunPlan) -> anyhow::Result<Arc<dyn Medium>> {
        let MediumPlan::File { path, size: Some(size) } = &lun.medium else {
            anyhow::bail!("LUN {} has vanished since it was looked at", lun.lun);
        };
        if is_empty(path) {
            fill(path, lun, size.0).with_context(|| format!("cannot give {} its size", path.display()))?;
            tracing::info!(path = %path.display(), size = %size, "was empty, and has its size now");
            return Ok(Arc::new(FileMedium::open(path, options(lun))?));
        }
        let medium =
            FileMedium::create(path, size.0, options(lun)).with_context(|| format!("cannot create LUN {}", lun.lun))?;
        tracing::info!(path = %path.display(), size = %size, "created");
        self.paths.push(path.clone());
        Ok(Arc::new(medium))
    }

    /// They are here to stay.
    pub(crate) fn keep(&mut self) {
        self.paths.clear();
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        for path in &self.paths {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "an empty new file stays behind");
            }
        }
    }
}
