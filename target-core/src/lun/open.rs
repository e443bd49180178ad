//! Why a medium could not be opened, in words that say what to do next.

use std::path::{Path, PathBuf};

/// Why a medium could not be opened or created. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another LUN of this one, has it open.
    #[error("{path} is already open as a LUN elsewhere; stop the process that serves it, or name another file")]
    InUse {
        /// The file or device.
        path: PathBuf,
    },
    /// The device is mounted or otherwise claimed, by the kernel or by a LUN.
    #[error("{path} is in use: mounted, swap, part of md, LVM or dm, or a LUN already; release it, then try again")]
    Busy {
        /// The device.
        path: PathBuf,
    },
    /// The file system cannot hold a file of this size.
    #[error(
        "the file system of {path} cannot hold a file of {size_bytes} bytes; choose a smaller size, or a file system with larger files (XFS for instance)"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The size asked for, in bytes.
        size_bytes: u64,
    },
    /// A file to be created is there already.
    #[error("{path} exists already; open it as it is, or name another file")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file to be opened is not there.
    #[error("{path} does not exist; create it first, or correct the path")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The path is of the wrong kind.
    #[error("{path} is not a {expected}; name one, or choose the other kind of medium")]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// The logical block size is not one we serve.
    #[error("a block size of {block_bytes} bytes is not supported; choose 512 or 4096")]
    BlockSize {
        /// The block size asked for, in bytes.
        block_bytes: u32,
    },
    /// The physical block size is not one we serve over such logical blocks.
    #[error(
        "a physical block size of {physical_block_bytes} bytes under blocks of {block_bytes} is not supported; choose 512 or 4096, and no less than the block size"
    )]
    PhysicalBlockSize {
        /// The physical block size asked for, in bytes.
        physical_block_bytes: u32,
        /// The logical block size, in bytes.
        block_bytes: u32,
    },
    /// There is no room for a file that takes all of its space at once.
    #[error(
        "the file system of {path} has no room for {size_bytes} bytes; free some, choose a smaller size, or a thin LUN"
    )]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// The size asked for, in bytes.
        size_bytes: u64,
    },
    /// A file to be served as thick has holes.
    #[error(
        "{path} has only {allocated_bytes} of its {size_bytes} bytes allocated; allocate the rest (fallocate --length {size_bytes} {path}), or serve it as thin"
    )]
    Sparse {
        /// The file.
        path: PathBuf,
        /// Space it has, in bytes.
        allocated_bytes: u64,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// The file system cannot allocate space in advance.
    #[error("the file system of {path} cannot allocate space in advance; put the file elsewhere, or serve it as thin")]
    NoPreallocation {
        /// The file.
        path: PathBuf,
    },
    /// The device takes no writes.
    #[error("{path} is write protected; serve it read-only, or make it writable (blockdev --setrw {path})")]
    WriteProtected {
        /// The device.
        path: PathBuf,
    },
    /// The device's sectors are larger than the LUN's blocks.
    #[error(
        "{path} has sectors of {sector_bytes} bytes, so it cannot be served in blocks of {block_bytes}; set the LUN's block size to {sector_bytes}"
    )]
    SectorSize {
        /// The device.
        path: PathBuf,
        /// The device's logical sector, in bytes.
        sector_bytes: u32,
        /// The block size asked for, in bytes.
        block_bytes: u32,
    },
    /// The size is zero or no whole number of blocks.
    #[error(
        "{what} is {size_bytes} bytes long, which is not a whole number of {block_bytes}-byte blocks (and at least one); choose a size that is"
    )]
    Size {
        /// What has that size.
        what: String,
        /// Its size in bytes.
        size_bytes: u64,
        /// The block size in bytes.
        block_bytes: u32,
    },
    /// Anything else the system says.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
}

impl OpenError {
    pub(super) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Refuses block sizes the command core does not serve.
pub(super) fn check_block_size(block_bytes: u32) -> Result<(), OpenError> {
    match block_bytes {
        512 | 4096 => Ok(()),
        _ => Err(OpenError::BlockSize { block_bytes }),
    }
}

/// Refuses sizes that are no whole number of blocks, none at all included.
pub(super) fn check_size(what: impl FnOnce() -> String, size_bytes: u64, block_bytes: u32) -> Result<(), OpenError> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(u64::from(block_bytes)) {
        return Err(OpenError::Size {
            what: what(),
            size_bytes,
            block_bytes,
        });
    }
    Ok(())
}
