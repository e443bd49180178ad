//! A LUN on a block device: a disk, a partition, an LVM volume, a loop device.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;

use super::descriptor::{Descriptor, medium_error};
use super::open::{OpenError, check_size};
use super::{Allocation, Durability, Extent, FileOptions, Medium, MediumError, Properties, Provisioning, Wait};

/// A LUN on a block device that nothing else on this machine uses meanwhile.
#[derive(Debug)]
pub struct BlockMedium {
    descriptor: Descriptor,
    properties: Properties,
    size_bytes: AtomicU64,
}

impl BlockMedium {
    /// Opens a device for exclusive use. What is left over beyond the last whole block is not served.
    pub fn open(path: &Path, options: FileOptions) -> Result<Self, OpenError> {
        options.check()?;
        let metadata = std::fs::metadata(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => OpenError::Missing { path: path.to_owned() },
            _ => OpenError::io("look at", path, e),
        })?;
        if !metadata.file_type().is_block_device() {
            return Err(OpenError::WrongKind {
                path: path.to_owned(),
                expected: "block device",
            });
        }
        // Without O_CREAT, O_EXCL fails on a device that is in use by the system (open(2)).
        let exclusive = OFlags::EXCL.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .write(!options.read_only)
            .custom_flags(exclusive)
            .open(path);
        let file = file.map_err(|e| match Errno::from_io_error(&e) {
            Some(Errno::BUSY) => OpenError::Busy { path: path.to_owned() },
            _ => OpenError::io("open", path, e),
        })?;

        let ioctl = |e: Errno| OpenError::io("ask for the sector size of", path, e.into());
        let sector_bytes = rustix::fs::ioctl_blksszget(&file).map_err(ioctl)?;
        let physical_bytes = rustix::fs::ioctl_blkpbszget(&file).map_err(ioctl)?;
        if sector_bytes > options.block_bytes {
            return Err(OpenError::SectorSize {
                path: path.to_owned(),
                sector_bytes,
                block_bytes: options.block_bytes,
            });
        }
        let end_bytes = rustix::fs::seek(&file, SeekFrom::End(0));
        let end_bytes = end_bytes.map_err(|e| OpenError::io("ask for the size of", path, e.into()))?;
        let size_bytes = whole_blocks(end_bytes, options.block_bytes);
        check_size(|| path.display().to_string(), size_bytes, options.block_bytes)?;

        let queue = Queue::of(metadata.rdev());
        // Opening such a device for writing succeeds, only writing does not.
        if !options.read_only && queue.as_ref().is_some_and(Queue::is_write_protected) {
            return Err(OpenError::WriteProtected { path: path.to_owned() });
        }
        let physical_block_bytes = options
            .physical_block_bytes
            .unwrap_or(physical_bytes)
            .max(options.block_bytes)
            .checked_next_power_of_two()
            .unwrap_or(options.block_bytes);
        let offered = options.allocation == Allocation::Thin && !options.read_only;
        let provisioning = queue.as_ref().and_then(|queue| queue.provisioning(options.block_bytes));
        Ok(Self {
            properties: Properties {
                block_bytes: options.block_bytes,
                physical_block_bytes,
                write_cache: options.write_cache,
                alignment_offset_bytes: queue.as_ref().map_or(0, |queue| {
                    queue.alignment_offset(physical_block_bytes, options.block_bytes)
                }),
                provisioning: provisioning.filter(|_| offered),
                zeroes_quickly: queue.as_ref().is_some_and(Queue::zeroes_quickly),
                overwrites_in_place: true,
                atomic: None,
                read_only: options.read_only,
            },
            size_bytes: AtomicU64::new(size_bytes),
            descriptor: Descriptor::new(file, options.write_cache, false),
        })
    }
}

fn whole_blocks(size_bytes: u64, block_bytes: u32) -> u64 {
    size_bytes / u64::from(block_bytes) * u64::from(block_bytes)
}

/// What sysfs says of a device. Queue limits are the disk's; partitions have an alignment of their own.
#[derive(Debug)]
struct Queue {
    device: PathBuf,
    queue: PathBuf,
}

impl Queue {
    fn of(device: u64) -> Option<Self> {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        let queue = [device.join("queue"), device.join("../queue")]
            .into_iter()
            .find(|queue| queue.is_dir())?;
        Some(Self { device, queue })
    }

    fn limit(&self, name: &str) -> Option<u64> {
        number(&self.queue.join(name))
    }

    fn is_write_protected(&self) -> bool {
        number(&self.device.join("ro")) == Some(1)
    }

    fn zeroes_quickly(&self) -> bool {
        self.limit("write_zeroes_max_bytes").is_some_and(|bytes| bytes > 0)
    }

    /// Deallocation is offered where the device both discards and writes zeroes itself: only then does the kernel
    /// turn punching a hole into a command that leaves zeroes behind.
    fn provisioning(&self, block_bytes: u32) -> Option<Provisioning> {
        if self.limit("discard_max_bytes")? == 0 || !self.zeroes_quickly() {
            return None;
        }
        let granularity_bytes = self
            .limit("discard_granularity")
            .and_then(|bytes| u32::try_from(bytes).ok())
            .unwrap_or(0)
            .max(block_bytes);
        // -1 says that the device does not know.
        let alignment_bytes = number(&self.device.join("discard_alignment")).unwrap_or(0);
        Some(Provisioning {
            granularity_bytes,
            alignment_bytes: u32::try_from(alignment_bytes).unwrap_or(0) % granularity_bytes,
            reads_zeroes: true,
        })
    }

    /// Where the first physical block begins, if that is where a logical one does.
    fn alignment_offset(&self, physical_block_bytes: u32, block_bytes: u32) -> u32 {
        let offset_bytes = number(&self.device.join("alignment_offset")).unwrap_or(0);
        let offset_bytes = u32::try_from(offset_bytes).unwrap_or(0) % physical_block_bytes;
        if offset_bytes.is_multiple_of(block_bytes) {
            offset_bytes
        } else {
            0
        }
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl Medium for BlockMedium {
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
        self.descriptor.write(offset_bytes, data, durability, wait)
    }

    fn flush(&self, wait: Wait) -> Result<(), MediumError> {
        self.descriptor.flush(wait)
    }

    fn unmap(&self, offset_bytes: u64, length_bytes: u64, wait: Wait, cancel: &AtomicBool) -> Result<(), MediumError> {
        if self.properties.provisioning.is_none() {
            return Err(MediumError::Unsupported("deallocation"));
        }
        self.write_zeroes(offset_bytes, length_bytes, true, Durability::Cached, wait, cancel)
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
        let punched = if may_unmap {
            self.descriptor
                .fallocate(FallocateFlags::PUNCH_HOLE, offset_bytes, length_bytes, cancel)
        } else {
            Err(MediumError::Unsupported("deallocation"))
        };
        match punched {
            // The device cannot after all; zeroes it shall be.
            Err(MediumError::Unsupported(_)) => self.descriptor.zero(offset_bytes, length_bytes, cancel)?,
            other => other?,
        }
        self.descriptor.settle(durability)
    }

    fn allocation(&self, offset_bytes: u64, _: Wait) -> Result<Extent, MediumError> {
        // Devices do not say; what may be mapped counts as mapped.
        match self.size_bytes().checked_sub(offset_bytes) {
            Some(length_bytes) if length_bytes > 0 => Ok(Extent {
                length_bytes,
                mapped: true,
            }),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// A device is resized by other means; this takes a new size up to what it has now.
    fn resize(&self, new_size_bytes: u64) -> Result<(), MediumError> {
        let end_bytes = self.storage_bytes()?;
        let fits = new_size_bytes <= end_bytes && new_size_bytes > 0;
        if !fits || new_size_bytes != whole_blocks(new_size_bytes, self.properties.block_bytes) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        }
        self.size_bytes.store(new_size_bytes, Ordering::Release);
        Ok(())
    }

    fn storage_bytes(&self) -> Result<u64, MediumError> {
        let end_bytes = rustix::fs::seek(&self.descriptor.file, SeekFrom::End(0)).map_err(medium_error)?;
        Ok(whole_blocks(end_bytes, self.properties.block_bytes))
    }
}
