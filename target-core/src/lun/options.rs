//! How a file or a device is served, and what of it can be refused before anything is opened.

use super::WriteCache;
use super::open::{OpenError, check_block_size};

/// Whether a LUN's space is taken when it is made or when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Allocation {
    /// Space is taken by the first write, and given back by UNMAP.
    #[default]
    Thin,
    /// All space is taken from the start and kept: no write ever fails for want of it. Nothing is deallocated.
    Thick,
}

/// How a file or a device is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOptions {
    /// Size of a logical block in bytes: 512 or 4096.
    pub block_bytes: u32,
    /// Size of a physical block to report, in bytes: 512 or 4096, no less than `block_bytes`. `None` is what the
    /// device says, and 4096 for a file.
    pub physical_block_bytes: Option<u32>,
    /// Whether completed writes may wait in the page cache for a flush.
    pub write_cache: WriteCache,
    /// Whether space is taken at once. A device has all of its own: there it says whether deallocation is offered.
    pub allocation: Allocation,
    /// Open the file or the device for reading only; then nothing need be writable.
    pub read_only: bool,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            block_bytes: 512,
            physical_block_bytes: None,
            write_cache: WriteCache::WriteBack,
            allocation: Allocation::Thin,
            read_only: false,
        }
    }
}

impl FileOptions {
    pub(super) fn check(&self) -> Result<(), OpenError> {
        check_block_size(self.block_bytes)?;
        check_physical_block_size(self.physical_block_bytes, self.block_bytes)
    }
}

pub(super) fn check_physical_block_size(physical_block_bytes: Option<u32>, block_bytes: u32) -> Result<(), OpenError> {
    match physical_block_bytes {
        Some(physical) if !matches!(physical, 512 | 4096) || physical < block_bytes => {
            Err(OpenError::PhysicalBlockSize {
                physical_block_bytes: physical,
                block_bytes,
            })
        }
        _ => Ok(()),
    }
}
