//! Media: where the blocks of a LUN are kept, behind one trait.
//!
//! A medium knows nothing of SCSI. Offsets and lengths are in bytes; callers keep them inside the medium and
//! aligned to its logical block. Every call is synchronous. With [`Wait::Never`] a medium must either carry
//! the whole call out without blocking the thread or change nothing and return [`MediumError::WouldBlock`];
//! the caller then repeats the call on a worker thread with [`Wait::Allowed`].

mod block;
mod descriptor;
mod file;
mod memory;
mod open;
mod options;
mod syncs;

pub use block::BlockMedium;
pub use file::FileMedium;
pub use memory::{MemoryMedium, MemoryOptions};
pub use open::OpenError;
pub use options::{Allocation, FileOptions};

use std::sync::atomic::AtomicBool;

/// Whether a call may block the thread it is made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Do it now or not at all: return [`MediumError::WouldBlock`] rather than block.
    Never,
    /// The caller is a worker and can wait for the medium.
    Allowed,
}

/// What has to be true when a write returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The data can be read back; it may still sit in a volatile cache if the medium has one.
    Cached,
    /// The data is on stable storage (SBC-4 4.15, FUA).
    Stable,
}

/// Whether writes stay in a volatile cache until a flush (SBC-4 6.5.6, the WCE bit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteCache {
    /// WCE=1: a completed write may be lost with the power until it is flushed.
    WriteBack,
    /// WCE=0: a completed write is on stable storage.
    WriteThrough,
}

/// What does not change while a medium is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Properties {
    /// Size of a logical block in bytes: 512 or 4096.
    pub block_bytes: u32,
    /// Size of a physical block in bytes, a power of two of at least `block_bytes`.
    pub physical_block_bytes: u32,
    /// How writes are cached, as the medium was really opened.
    pub write_cache: WriteCache,
    /// Distance from the start to the first logical block that begins a physical one, in bytes.
    pub alignment_offset_bytes: u32,
    /// `Some` when blocks can be deallocated.
    pub provisioning: Option<Provisioning>,
    /// Whether zeroes take no writing, so that a range of any length is zeroed in a moment.
    pub zeroes_quickly: bool,
    /// Whether a block is written where it was before, so that overwriting it destroys what it held, as far as
    /// software can see: not so on file systems that copy on write.
    pub overwrites_in_place: bool,
    /// Longest write that is done whole or not at all whatever happens to this machine, in bytes, and the unit it is
    /// made of. `None` where that cannot be had.
    pub atomic: Option<AtomicWrites>,
    /// Whether the medium was opened for reading only.
    pub read_only: bool,
}

impl Properties {
    /// A writable medium with a cache and nothing special about it.
    pub const fn plain(block_bytes: u32) -> Self {
        Self {
            block_bytes,
            physical_block_bytes: block_bytes,
            write_cache: WriteCache::WriteBack,
            alignment_offset_bytes: 0,
            provisioning: None,
            zeroes_quickly: false,
            overwrites_in_place: false,
            atomic: None,
            read_only: false,
        }
    }
}

/// What a medium promises of atomic writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtomicWrites {
    /// Lengths and offsets are multiples of this, in bytes.
    pub unit_bytes: u32,
    /// Longest write, in bytes.
    pub max_bytes: u32,
}

/// How a medium that can deallocate blocks does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provisioning {
    /// Unit in which space is given back, in bytes.
    pub granularity_bytes: u32,
    /// Where the first whole unit begins, in bytes from the start.
    pub alignment_bytes: u32,
    /// Whether deallocated blocks read as zeroes (SBC-4 6.6.4, LBPRZ).
    pub reads_zeroes: bool,
}

/// A run of blocks in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Length of the run from the offset asked about, in bytes.
    pub length_bytes: u64,
    /// Whether the run is backed by storage.
    pub mapped: bool,
}

/// The storage underneath a LUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Taken by this LUN now, in bytes.
    pub used_bytes: u64,
    /// What may still be taken, by this LUN and all others on the same storage, in bytes.
    pub available_bytes: u64,
    /// All there is of that storage, in bytes.
    pub total_bytes: u64,
}

/// Why a medium did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum MediumError {
    /// The call was made with [`Wait::Never`] and would have blocked; nothing was changed.
    #[error("the medium would block")]
    WouldBlock,
    /// The same, but part of the data of a write has been written already. Until the write has been made again,
    /// whole, its blocks are neither as they were nor as they will be.
    #[error("the medium would block in the middle of a write")]
    PartlyWritten,
    /// The file system or device underneath is full: what was to be written has not been taken. Nothing that was
    /// taken before is lost.
    #[error("no space left on the medium")]
    NoSpace,
    /// The medium cannot do this at all.
    #[error("the medium does not support {0}")]
    Unsupported(&'static str),
    /// The caller's cancel flag was raised; part of the work may be done.
    #[error("cancelled")]
    Cancelled,
    /// The medium failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Where the blocks of a LUN are kept.
pub trait Medium: Send + Sync + std::fmt::Debug + 'static {
    /// What does not change while the medium is open.
    fn properties(&self) -> Properties;

    /// Present size in bytes, a multiple of the logical block.
    fn size_bytes(&self) -> u64;

    /// Appends exactly `length_bytes` read at `offset_bytes` to `out`; on an error `out` is as it was.
    fn read(&self, offset_bytes: u64, length_bytes: usize, out: &mut Vec<u8>, wait: Wait) -> Result<(), MediumError>;

    /// Writes all of `data` at `offset_bytes`.
    fn write(&self, offset_bytes: u64, data: &[u8], durability: Durability, wait: Wait) -> Result<(), MediumError>;

    /// Returns once everything written before is on stable storage. A failure sticks: it is reported again
    /// by every later flush until the medium is reopened.
    fn flush(&self, wait: Wait) -> Result<(), MediumError>;

    /// Deallocates what it can of the range. Long ranges look at `cancel` now and then.
    fn unmap(&self, offset_bytes: u64, length_bytes: u64, wait: Wait, cancel: &AtomicBool) -> Result<(), MediumError>;

    /// Makes the range read as zeroes, giving the space back if `may_unmap` and the medium can.
    fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        may_unmap: bool,
        durability: Durability,
        wait: Wait,
        cancel: &AtomicBool,
    ) -> Result<(), MediumError>;

    /// The state of the run of blocks that starts at `offset_bytes`.
    fn allocation(&self, offset_bytes: u64, wait: Wait) -> Result<Extent, MediumError>;

    /// Changes the size. Shrinking discards what lies beyond the new end.
    fn resize(&self, new_size_bytes: u64) -> Result<(), MediumError>;

    /// The size that the storage underneath has now, in bytes, which a [`resize`](Self::resize) would take: more
    /// than [`size_bytes`](Self::size_bytes) once a device has been enlarged.
    fn storage_bytes(&self) -> Result<u64, MediumError> {
        Ok(self.size_bytes())
    }

    /// How full the storage underneath is; `None` where that is not known.
    fn space(&self) -> Option<Space> {
        None
    }

    /// Writes all of `data` or, whatever happens to this machine, nothing of it. Offset and length are as
    /// [`Properties::atomic`] asks; without that it is never called.
    fn write_atomic(
        &self,
        _offset_bytes: u64,
        _data: &[u8],
        _durability: Durability,
        _wait: Wait,
    ) -> Result<(), MediumError> {
        Err(MediumError::Unsupported("atomic writes"))
    }
}
