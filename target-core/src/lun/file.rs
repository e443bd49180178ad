//! A LUN in a file, sparse or with all of its space.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom};
use rustix::io::Errno;

use super::descriptor::{Descriptor, medium_error};
use super::open::{OpenError, check_size};
use super::options::{Allocation, FileOptions};
use super::{Durability, Extent, Medium, MediumError, Properties, Provisioning, Space, Wait};

/// `f_type` of tmpfs (statfs(2), TMPFS_MAGIC).
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// `f_type` of ext2, ext3 and ext4 (EXT4_SUPER_MAGIC).
const EXT4_MAGIC: u64 = 0xEF53;
/// `f_type` of XFS (XFS_SUPER_MAGIC).
const XFS_MAGIC: u64 = 0x5846_5342;
/// Largest unit of deallocation reported, in bytes.
const MAX_GRANULARITY_BYTES: u64 = 1 << 20;
/// Physical block reported, in bytes: what file systems allocate and disks write.
const PHYSICAL_BLOCK_BYTES: u32 = 4096;
/// What `st_blocks` counts in (stat(2)), in bytes.
const STAT_BLOCK_BYTES: u64 = 512;

/// A LUN in a file, locked for as long as it is open.
#[derive(Debug)]
pub struct FileMedium {
    descriptor: Descriptor,
    properties: Properties,
    allocation: Allocation,
    size_bytes: AtomicU64,
    /// Held while the file itself changes its size.
    resizing: Mutex<()>,
}

impl FileMedium {
    /// Creates a file of `size_bytes`, sparse or with all of its space. The file and its directory entry are on
    /// stable storage when this returns; on an error there is no file. It is open for writing, whatever
    /// [`FileOptions::read_only`] says.
    pub fn create(path: &Path, size_bytes: u64, options: FileOptions) -> Result<Self, OpenError> {
        let options = FileOptions {
            read_only: false,
            ..options
        };
        options.check()?;
        check_size(|| path.display().to_string(), size_bytes, options.block_bytes)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let file = file.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => OpenError::Exists { path: path.to_owned() },
            _ => OpenError::io("create", path, e),
        })?;
        Self::fill_new(file, path, size_bytes, options).inspect_err(|_| {
            // The file is ours and empty: leave nothing behind. The first error is the one to report.
            let _ = std::fs::remove_file(path);
        })
    }

    fn fill_new(file: File, path: &Path, size_bytes: u64, options: FileOptions) -> Result<Self, OpenError> {
        lock(&file, path)?;
        rustix::fs::ftruncate(&file, size_bytes).map_err(|e| match e {
            Errno::FBIG | Errno::INVAL => OpenError::TooLarge {
                path: path.to_owned(),
                size_bytes,
            },
            _ => OpenError::io("set the size of", path, e.into()),
        })?;
        if options.allocation == Allocation::Thick {
            preallocate(&file, path, size_bytes)?;
        }
        file.sync_all().map_err(|e| OpenError::io("sync", path, e))?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|e| OpenError::io("sync the directory of", path, e))?;
        Self::with_file(file, path, options)
    }

    /// Opens an existing file and locks it. Its size is the LUN's. A thick one must have all of its space.
    pub fn open(path: &Path, options: FileOptions) -> Result<Self, OpenError> {
        options.check()?;
        let metadata = std::fs::metadata(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => OpenError::Missing { path: path.to_owned() },
            _ => OpenError::io("look at", path, e),
        })?;
        if !metadata.is_file() {
            return Err(OpenError::WrongKind {
                path: path.to_owned(),
                expected: "regular file",
            });
        }
        let file = OpenOptions::new().read(true).write(!options.read_only).open(path);
        let file = file.map_err(|e| OpenError::io("open", path, e))?;
        lock(&file, path)?;
        if options.allocation == Allocation::Thick {
            check_allocated(&file, path, options.read_only)?;
        }
        Self::with_file(file, path, options)
    }

    fn with_file(file: File, path: &Path, options: FileOptions) -> Result<Self, OpenError> {
        let size_bytes = file.metadata().map_err(|e| OpenError::io("look at", path, e))?.len();
        check_size(|| path.display().to_string(), size_bytes, options.block_bytes)?;
        let statfs = rustix::fs::fstatfs(&file);
        let statfs = statfs.map_err(|e| OpenError::io("look at the file system of", path, e.into()))?;
        let fs_block_bytes = u64::try_from(statfs.f_bsize)
            .unwrap_or(4096)
            .clamp(512, MAX_GRANULARITY_BYTES);
        let granularity_bytes = u32::try_from(fs_block_bytes.next_power_of_two()).unwrap_or(4096);
        let magic = u64::try_from(statfs.f_type).unwrap_or(0);
        let never_blocks = magic == TMPFS_MAGIC;

        // Tried beyond the end, where it changes nothing.
        let punch_hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let beyond_end_bytes = size_bytes.next_multiple_of(fs_block_bytes);
        let sparse = options.allocation == Allocation::Thin
            && !options.read_only
            && rustix::fs::fallocate(&file, punch_hole, beyond_end_bytes, fs_block_bytes).is_ok();
        let granularity_bytes = granularity_bytes.max(options.block_bytes);

        Ok(Self {
            properties: Properties {
                block_bytes: options.block_bytes,
                physical_block_bytes: options
                    .physical_block_bytes
                    .unwrap_or(options.block_bytes.max(PHYSICAL_BLOCK_BYTES)),
                write_cache: options.write_cache,
                alignment_offset_bytes: 0,
                provisioning: sparse.then_some(Provisioning {
                    granularity_bytes,
                    alignment_bytes: 0,
                    reads_zeroes: true,
                }),
                // A hole, or (FALLOC_FL_ZERO_RANGE) a range that is marked as zero; few other file systems can do that.
                zeroes_quickly: sparse || matches!(magic, EXT4_MAGIC | XFS_MAGIC),
                overwrites_in_place: matches!(magic, EXT4_MAGIC | XFS_MAGIC | TMPFS_MAGIC),
                atomic: None,
                read_only: options.read_only,
            },
            allocation: options.allocation,
            size_bytes: AtomicU64::new(size_bytes),
            resizing: Mutex::new(()),
            descriptor: Descriptor::new(file, options.write_cache, never_blocks),
        })
    }

    /// Whether a range is inside the file as it is now. Callers have checked that against the size of a moment ago.
    fn check_range(&self, offset_bytes: u64, length_bytes: u64) -> Result<(), MediumError> {
        match offset_bytes.checked_add(length_bytes) {
            Some(end_bytes) if end_bytes <= self.size_bytes() => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// After writing: if the file was cut short meanwhile, the write has made it longer again.
    fn trim(&self, end_bytes: u64) -> Result<(), MediumError> {
        if end_bytes <= self.size_bytes() {
            return Ok(());
        }
        let _alone = self.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::ftruncate(&self.descriptor.file, self.size_bytes()).map_err(medium_error)?;
        Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
    }

    /// Whether everything on this file is done in memory and so never blocks (tmpfs).
    pub fn never_blocks(&self) -> bool {
        self.descriptor.never_blocks
    }
}

impl Medium for FileMedium {
    fn properties(&self) -> Properties {
        self.properties
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn read(&self, offset_bytes: u64, length_bytes: usize, out: &mut Vec<u8>, wait: Wait) -> Result<(), MediumError> {
        self.descriptor.read(offset_bytes, length_bytes, out, wait)
    }

    fn write(&self, offset_bytes: u64, data: &[u8], durability: Durability, wait: Wait) -> Result<(), MediumError> {
        let end_bytes = offset_bytes.saturating_add(data.len() as u64);
        self.check_range(offset_bytes, data.len() as u64)?;
        let result = self.descriptor.write(offset_bytes, data, durability, wait);
        self.trim(end_bytes)?;
        result
    }

    fn flush(&self, wait: Wait) -> Result<(), MediumError> {
        self.descriptor.flush(wait)
    }

    fn unmap(&self, offset_bytes: u64, length_bytes: u64, wait: Wait, cancel: &AtomicBool) -> Result<(), MediumError> {
        if self.properties.provisioning.is_none() {
            return Err(MediumError::Unsupported("deallocation"));
        }
        if self.descriptor.fallocate_may_block(length_bytes, wait) {
            return Err(MediumError::WouldBlock);
        }
        self.descriptor
            .fallocate(FallocateFlags::PUNCH_HOLE, offset_bytes, length_bytes, cancel)?;
        self.descriptor.settle(Durability::Cached)
    }

    fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        may_unmap: bool,
        durability: Durability,
        wait: Wait,
        cancel: &AtomicBool,
    ) -> Result<(), MediumError> {
        if self.descriptor.fallocate_may_block(length_bytes, wait) {
            return Err(MediumError::WouldBlock);
        }
        if may_unmap && self.properties.provisioning.is_some() {
            self.descriptor
                .fallocate(FallocateFlags::PUNCH_HOLE, offset_bytes, length_bytes, cancel)?;
        } else {
            self.descriptor.zero(offset_bytes, length_bytes, cancel)?;
        }
        self.descriptor.settle(durability)
    }

    fn allocation(&self, offset_bytes: u64, wait: Wait) -> Result<Extent, MediumError> {
        if wait == Wait::Never && !self.descriptor.never_blocks {
            return Err(MediumError::WouldBlock);
        }
        let size_bytes = self.size_bytes();
        self.check_range(offset_bytes, 1)?;
        if self.allocation == Allocation::Thick {
            // What is allocated and never was written looks like a hole, and is none.
            return Ok(Extent {
                length_bytes: size_bytes.saturating_sub(offset_bytes),
                mapped: true,
            });
        }
        let block_bytes = u64::from(self.properties.block_bytes);
        let seek = |to| match rustix::fs::seek(&self.descriptor.file, to) {
            Ok(at_bytes) => Ok(at_bytes.clamp(offset_bytes, size_bytes)),
            // No data, or no hole, from here to the end.
            Err(Errno::NXIO) => Ok(size_bytes),
            Err(e) => Err(medium_error(e)),
        };
        let data_bytes = seek(SeekFrom::Data(offset_bytes))?;
        // A block that is partly data is mapped.
        let hole_length_bytes = (data_bytes - offset_bytes) / block_bytes * block_bytes;
        if hole_length_bytes > 0 {
            return Ok(Extent {
                length_bytes: hole_length_bytes,
                mapped: false,
            });
        }
        let hole_bytes = seek(SeekFrom::Hole(data_bytes))?;
        let length_bytes = (hole_bytes - offset_bytes)
            .next_multiple_of(block_bytes)
            .max(block_bytes);
        Ok(Extent {
            length_bytes: length_bytes.min(size_bytes - offset_bytes),
            mapped: true,
        })
    }

    fn resize(&self, new_size_bytes: u64) -> Result<(), MediumError> {
        if new_size_bytes == 0 || !new_size_bytes.is_multiple_of(u64::from(self.properties.block_bytes)) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        }
        if self.properties.read_only {
            return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem).into());
        }
        let _alone = self.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        // The smaller size holds first, so that nobody writes where the file is about to end.
        let old_size_bytes = self.size_bytes.fetch_min(new_size_bytes, Ordering::AcqRel);
        self.set_length(old_size_bytes, new_size_bytes)
            .inspect_err(|_| self.size_bytes.store(old_size_bytes, Ordering::Release))?;
        self.size_bytes.store(new_size_bytes, Ordering::Release);
        self.descriptor.sync()
    }

    fn space(&self) -> Option<Space> {
        let file = &self.descriptor.file;
        let underneath = rustix::fs::fstatvfs(file).ok()?;
        let used_bytes = file.metadata().ok()?.blocks().saturating_mul(STAT_BLOCK_BYTES);
        Some(Space {
            used_bytes,
            available_bytes: underneath.f_bavail.saturating_mul(underneath.f_frsize),
            total_bytes: underneath.f_blocks.saturating_mul(underneath.f_frsize),
        })
    }
}

impl FileMedium {
    fn set_length(&self, old_size_bytes: u64, new_size_bytes: u64) -> Result<(), MediumError> {
        let file = &self.descriptor.file;
        rustix::fs::ftruncate(file, new_size_bytes).map_err(medium_error)?;
        if self.allocation == Allocation::Thick && new_size_bytes > old_size_bytes {
            let added_bytes = new_size_bytes - old_size_bytes;
            let filled = rustix::fs::fallocate(file, FallocateFlags::empty(), old_size_bytes, added_bytes);
            filled.map_err(medium_error).inspect_err(|_| {
                // The first error is the one to report; a file that stays too long does no harm.
                let _ = rustix::fs::ftruncate(file, old_size_bytes);
            })?;
        }
        Ok(())
    }
}

impl Drop for FileMedium {
    /// A child process that is being started at this moment may still have the descriptor, and the lock with it:
    /// closing ours would not release it.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.descriptor.file, FlockOperation::Unlock);
    }
}

/// Takes all the space of a new file.
fn preallocate(file: &File, path: &Path, size_bytes: u64) -> Result<(), OpenError> {
    rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size_bytes).map_err(|e| match e {
        Errno::NOSPC | Errno::DQUOT => OpenError::NoRoom {
            path: path.to_owned(),
            size_bytes,
        },
        Errno::OPNOTSUPP => OpenError::NoPreallocation { path: path.to_owned() },
        _ => OpenError::io("allocate the space of", path, e.into()),
    })
}

/// Refuses a file with holes. What is allocated may include blocks in which the file system keeps book of the
/// file; so, unless nothing may be written, what is missing after all is allocated now.
fn check_allocated(file: &File, path: &Path, read_only: bool) -> Result<(), OpenError> {
    let metadata = file.metadata().map_err(|e| OpenError::io("look at", path, e))?;
    let (size_bytes, allocated_bytes) = (metadata.len(), metadata.blocks().saturating_mul(STAT_BLOCK_BYTES));
    if allocated_bytes < size_bytes {
        return Err(OpenError::Sparse {
            path: path.to_owned(),
            allocated_bytes,
            size_bytes,
        });
    }
    if read_only || size_bytes == 0 {
        return Ok(());
    }
    preallocate(file, path, size_bytes)
}

fn lock(file: &File, path: &Path) -> Result<(), OpenError> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
        Errno::WOULDBLOCK => OpenError::InUse { path: path.to_owned() },
        _ => OpenError::io("lock", path, e.into()),
    })
}
