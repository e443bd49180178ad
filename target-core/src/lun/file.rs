//! A LUN in a sparse file.
//!
//! What can be done without blocking is learnt when the file is opened: on tmpfs everything, elsewhere what
//! the file system admits with `RWF_NOWAIT`. The rest answers [`MediumError::WouldBlock`] under
//! [`Wait::Never`].

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use super::open::{OpenError, check_block_size, check_size};
use super::{Durability, Extent, Medium, MediumError, Properties, Provisioning, Wait, WriteCache};

/// `f_type` of tmpfs (statfs(2), TMPFS_MAGIC).
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Range handed to one `fallocate`, in bytes; between two the cancel flag is looked at.
const FALLOCATE_STEP_BYTES: u64 = 1 << 30;
/// Longest range that counts as not blocking where `fallocate` never waits for a device, in bytes.
const INLINE_FALLOCATE_BYTES: u64 = 16 << 20;
/// Zeroes written at once where the file system cannot zero a range itself, in bytes.
const ZERO_STEP_BYTES: usize = 1 << 20;
/// Largest unit of deallocation reported, in bytes.
const MAX_GRANULARITY_BYTES: u64 = 1 << 20;

/// How a file is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOptions {
    /// Size of a logical block in bytes: 512 or 4096.
    pub block_bytes: u32,
    /// Whether completed writes may wait in the page cache for a flush.
    pub write_cache: WriteCache,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            block_bytes: 512,
            write_cache: WriteCache::WriteBack,
        }
    }
}

/// A LUN in a sparse file, locked for as long as it is open.
#[derive(Debug)]
pub struct FileMedium {
    file: File,
    properties: Properties,
    size_bytes: AtomicU64,
    never_blocks: bool,
    nowait_reads: bool,
    /// Starts out hopeful; cleared by the first refusal.
    nowait_writes: AtomicBool,
    zero_range: bool,
    /// Once a sync has failed the kernel forgets which pages were lost, so no later sync may claim success.
    sync_failed: AtomicBool,
}

impl FileMedium {
    /// Creates a sparse file of `size_bytes`. The file and its directory entry are on stable storage when this returns.
    pub fn create(path: &Path, size_bytes: u64, options: FileOptions) -> Result<Self, OpenError> {
        check_block_size(options.block_bytes)?;
        check_size(|| path.display().to_string(), size_bytes, options.block_bytes)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => OpenError::Exists { path: path.to_owned() },
                _ => io_error("create", path, e),
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
            _ => io_error("set the size of", path, e.into()),
        })?;
        file.sync_all().map_err(|e| io_error("sync", path, e))?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory)
            .and_then(|d| d.sync_all())
            .map_err(|e| io_error("sync the directory of", path, e))?;
        Self::with_file(file, path, options)
    }

    /// Opens an existing file and locks it.
    pub fn open(path: &Path, options: FileOptions) -> Result<Self, OpenError> {
        check_block_size(options.block_bytes)?;
        let metadata = std::fs::metadata(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => OpenError::Missing { path: path.to_owned() },
            _ => io_error("look at", path, e),
        })?;
        if !metadata.is_file() {
            return Err(OpenError::WrongKind {
                path: path.to_owned(),
                expected: "regular file",
            });
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| io_error("open", path, e))?;
        lock(&file, path)?;
        Self::with_file(file, path, options)
    }

    fn with_file(file: File, path: &Path, options: FileOptions) -> Result<Self, OpenError> {
        let size_bytes = file.metadata().map_err(|e| io_error("look at", path, e))?.len();
        check_size(|| path.display().to_string(), size_bytes, options.block_bytes)?;
        let statfs = rustix::fs::fstatfs(&file).map_err(|e| io_error("look at the file system of", path, e.into()))?;
        let fs_block_bytes = u64::try_from(statfs.f_bsize)
            .unwrap_or(4096)
            .clamp(512, MAX_GRANULARITY_BYTES);
        let fs_block_bytes = fs_block_bytes.next_power_of_two();
        let granularity_bytes = u32::try_from(fs_block_bytes).unwrap_or(4096).max(options.block_bytes);
        let never_blocks = u64::try_from(statfs.f_type).is_ok_and(|magic| magic == TMPFS_MAGIC);

        // Both are tried beyond the end, where they change nothing.
        let beyond_end = size_bytes.next_multiple_of(fs_block_bytes);
        let probe = |flags| rustix::fs::fallocate(&file, flags | FallocateFlags::KEEP_SIZE, beyond_end, fs_block_bytes);
        let punch_hole = probe(FallocateFlags::PUNCH_HOLE).is_ok();
        let nowait_reads = !never_blocks && nowait_read_supported(&file);

        Ok(Self {
            properties: Properties {
                block_bytes: options.block_bytes,
                physical_block_bytes: options.block_bytes.max(4096),
                write_cache: options.write_cache,
                provisioning: punch_hole.then_some(Provisioning {
                    granularity_bytes,
                    reads_zeroes: true,
                }),
            },
            size_bytes: AtomicU64::new(size_bytes),
            never_blocks,
            nowait_reads,
            nowait_writes: AtomicBool::new(!never_blocks),
            zero_range: true,
            sync_failed: AtomicBool::new(false),
            file,
        })
    }

    fn read_blocking(&self, offset_bytes: u64, length_bytes: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let start = out.len();
        if out.capacity() == start {
            out.reserve_exact(length_bytes);
        }
        let end = start + length_bytes;
        // Reading straight into spare capacity spares zeroing it first, but takes all there is of it.
        if out.capacity() == end {
            while out.len() < end {
                let at_bytes = offset_bytes + (out.len() - start) as u64;
                match rustix::io::pread(&self.file, spare_capacity(out), at_bytes) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            return Ok(());
        }
        out.resize(end, 0);
        std::os::unix::fs::FileExt::read_exact_at(&self.file, &mut out[start..], offset_bytes)
    }

    fn read_nowait(&self, offset_bytes: u64, length_bytes: usize, out: &mut Vec<u8>) -> Result<(), MediumError> {
        if !self.nowait_reads {
            return Err(MediumError::WouldBlock);
        }
        let start = out.len();
        out.resize(start + length_bytes, 0);
        let mut slices = [IoSliceMut::new(&mut out[start..])];
        match rustix::io::preadv2(&self.file, &mut slices, offset_bytes, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == length_bytes => Ok(()),
            // Partly cached, at the end of a truncated file, or not cached: the worker finds out which.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP) => Err(MediumError::WouldBlock),
            Err(e) => Err(MediumError::Io(e.into())),
        }
    }

    fn write_cached(&self, offset_bytes: u64, data: &[u8]) -> Result<(), MediumError> {
        self.write_all(offset_bytes, data, ReadWriteFlags::empty())
            .map_err(medium_error)
    }

    fn write_stable(&self, offset_bytes: u64, data: &[u8]) -> Result<(), MediumError> {
        match self.write_all(offset_bytes, data, ReadWriteFlags::DSYNC) {
            Ok(()) => Ok(()),
            // Either there was no room to take the data, which loses nothing, or the sync that followed found
            // none for data taken earlier, which does. The same write without the sync tells which.
            Err(Errno::NOSPC) if self.write_all(offset_bytes, data, ReadWriteFlags::empty()).is_err() => {
                Err(MediumError::NoSpace)
            }
            Err(e) => {
                self.sync_failed.store(true, Ordering::Release);
                Err(medium_error(e))
            }
        }
    }

    fn write_all(&self, offset_bytes: u64, data: &[u8], flags: ReadWriteFlags) -> Result<(), Errno> {
        let mut done = 0;
        while done < data.len() {
            let at_bytes = offset_bytes + done as u64;
            let written = if flags.is_empty() {
                rustix::io::pwrite(&self.file, &data[done..], at_bytes)
            } else {
                rustix::io::pwritev2(&self.file, &[IoSlice::new(&data[done..])], at_bytes, flags)
            };
            match written {
                Ok(0) => return Err(Errno::IO),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn write_nowait(&self, offset_bytes: u64, data: &[u8]) -> Result<(), MediumError> {
        if !self.nowait_writes.load(Ordering::Relaxed) {
            return Err(MediumError::WouldBlock);
        }
        match rustix::io::pwritev2(&self.file, &[IoSlice::new(data)], offset_bytes, ReadWriteFlags::NOWAIT) {
            Ok(written) if written == data.len() => Ok(()),
            Err(Errno::OPNOTSUPP) => {
                self.nowait_writes.store(false, Ordering::Relaxed);
                Err(MediumError::WouldBlock)
            }
            // A partial write is repeated whole by the worker.
            _ => Err(MediumError::WouldBlock),
        }
    }

    fn sync(&self) -> Result<(), MediumError> {
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(MediumError::Io(io::Error::other(
                "an earlier sync failed; reopen the LUN",
            )));
        }
        rustix::fs::fdatasync(&self.file).map_err(|e| {
            self.sync_failed.store(true, Ordering::Release);
            medium_error(e)
        })
    }

    fn must_be_stable(&self, durability: Durability) -> bool {
        durability == Durability::Stable || self.properties.write_cache == WriteCache::WriteThrough
    }

    /// Runs `fallocate` over a range in steps that look at `cancel`.
    fn fallocate(
        &self,
        flags: FallocateFlags,
        offset_bytes: u64,
        length_bytes: u64,
        cancel: &AtomicBool,
    ) -> Result<(), MediumError> {
        let end_bytes = offset_bytes + length_bytes;
        let mut at_bytes = offset_bytes;
        while at_bytes < end_bytes {
            if cancel.load(Ordering::Relaxed) {
                return Err(MediumError::Cancelled);
            }
            let step_bytes = (end_bytes - at_bytes).min(FALLOCATE_STEP_BYTES);
            match rustix::fs::fallocate(&self.file, flags | FallocateFlags::KEEP_SIZE, at_bytes, step_bytes) {
                Ok(()) => at_bytes += step_bytes,
                Err(Errno::INTR) => {}
                Err(e) => return Err(medium_error(e)),
            }
        }
        Ok(())
    }

    fn write_zeroes_by_hand(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        cancel: &AtomicBool,
    ) -> Result<(), MediumError> {
        let zeroes = vec![0; length_bytes.min(ZERO_STEP_BYTES as u64) as usize];
        let end_bytes = offset_bytes + length_bytes;
        let mut at_bytes = offset_bytes;
        while at_bytes < end_bytes {
            if cancel.load(Ordering::Relaxed) {
                return Err(MediumError::Cancelled);
            }
            let step = (end_bytes - at_bytes).min(zeroes.len() as u64) as usize;
            self.write_cached(at_bytes, &zeroes[..step])?;
            at_bytes += step as u64;
        }
        Ok(())
    }

    fn fallocate_may_block(&self, length_bytes: u64, wait: Wait) -> bool {
        wait == Wait::Never && !(self.never_blocks && length_bytes <= INLINE_FALLOCATE_BYTES)
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
        let start = out.len();
        let result = if wait == Wait::Allowed || self.never_blocks {
            self.read_blocking(offset_bytes, length_bytes, out)
                .map_err(MediumError::Io)
        } else {
            self.read_nowait(offset_bytes, length_bytes, out)
        };
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn write(&self, offset_bytes: u64, data: &[u8], durability: Durability, wait: Wait) -> Result<(), MediumError> {
        let may_wait = wait == Wait::Allowed || self.never_blocks;
        match (may_wait, self.must_be_stable(durability)) {
            (true, false) => self.write_cached(offset_bytes, data),
            (true, true) => self.write_stable(offset_bytes, data),
            (false, false) => self.write_nowait(offset_bytes, data),
            (false, true) => Err(MediumError::WouldBlock),
        }
    }

    fn flush(&self, wait: Wait) -> Result<(), MediumError> {
        if wait == Wait::Never && !self.never_blocks {
            return Err(MediumError::WouldBlock);
        }
        self.sync()
    }

    fn unmap(&self, offset_bytes: u64, length_bytes: u64, wait: Wait, cancel: &AtomicBool) -> Result<(), MediumError> {
        if self.properties.provisioning.is_none() {
            return Err(MediumError::Unsupported("deallocation"));
        }
        if self.fallocate_may_block(length_bytes, wait) {
            return Err(MediumError::WouldBlock);
        }
        self.fallocate(FallocateFlags::PUNCH_HOLE, offset_bytes, length_bytes, cancel)?;
        if self.properties.write_cache == WriteCache::WriteThrough {
            self.sync()
        } else {
            Ok(())
        }
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
        if self.fallocate_may_block(length_bytes, wait) {
            return Err(MediumError::WouldBlock);
        }
        if may_unmap && self.properties.provisioning.is_some() {
            self.fallocate(FallocateFlags::PUNCH_HOLE, offset_bytes, length_bytes, cancel)?;
        } else {
            let zeroed = if self.zero_range {
                self.fallocate(FallocateFlags::ZERO_RANGE, offset_bytes, length_bytes, cancel)
            } else {
                Err(MediumError::Unsupported("zeroing a range"))
            };
            match zeroed {
                Err(MediumError::Unsupported(_)) => self.write_zeroes_by_hand(offset_bytes, length_bytes, cancel)?,
                other => other?,
            }
        }
        if self.must_be_stable(durability) {
            self.sync()
        } else {
            Ok(())
        }
    }

    fn allocation(&self, offset_bytes: u64, wait: Wait) -> Result<Extent, MediumError> {
        if wait == Wait::Never && !self.never_blocks {
            return Err(MediumError::WouldBlock);
        }
        let size_bytes = self.size_bytes();
        let block_bytes = u64::from(self.properties.block_bytes);
        let seek = |to| match rustix::fs::seek(&self.file, to) {
            Ok(at_bytes) => Ok(at_bytes.min(size_bytes)),
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
        rustix::fs::ftruncate(&self.file, new_size_bytes).map_err(medium_error)?;
        self.size_bytes.store(new_size_bytes, Ordering::Release);
        self.sync()
    }
}

fn nowait_read_supported(file: &File) -> bool {
    let mut block = [0; 512];
    let mut slices = [IoSliceMut::new(&mut block)];
    matches!(
        rustix::io::preadv2(file, &mut slices, 0, ReadWriteFlags::NOWAIT),
        Ok(_) | Err(Errno::AGAIN)
    )
}

fn lock(file: &File, path: &Path) -> Result<(), OpenError> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
        Errno::WOULDBLOCK => OpenError::InUse { path: path.to_owned() },
        _ => io_error("lock", path, e.into()),
    })
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

fn medium_error(errno: Errno) -> MediumError {
    match errno {
        Errno::NOSPC | Errno::DQUOT => MediumError::NoSpace,
        Errno::OPNOTSUPP => MediumError::Unsupported("this operation"),
        _ => MediumError::Io(errno.into()),
    }
}
