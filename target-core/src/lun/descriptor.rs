//! Input and output on an open file or device, and the rule that a failed sync is never forgotten.
//!
//! What can be done without blocking is learnt: on tmpfs everything, elsewhere what the kernel admits with
//! `RWF_NOWAIT`. The rest answers [`MediumError::WouldBlock`] under [`Wait::Never`].

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::buffer::spare_capacity;
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags};

use super::syncs::{Fault, Syncs};
use super::{Durability, MediumError, Wait, WriteCache};

/// Range handed to one `fallocate`, in bytes; between two the cancel flag is looked at.
const FALLOCATE_STEP_BYTES: u64 = 1 << 30;
/// Longest range that counts as not blocking where `fallocate` never waits for a device, in bytes.
const INLINE_FALLOCATE_BYTES: u64 = 16 << 20;
/// Zeroes written at once where the kernel cannot zero a range itself, in bytes.
const ZERO_STEP_BYTES: usize = 1 << 20;

/// An open file or device.
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) file: File,
    write_cache: WriteCache,
    /// Everything is done in memory.
    pub(super) never_blocks: bool,
    nowait_reads: bool,
    /// Starts out hopeful; cleared by the first refusal.
    nowait_writes: AtomicBool,
    syncs: Syncs,
}

impl Descriptor {
    pub(super) fn new(file: File, write_cache: WriteCache, never_blocks: bool) -> Self {
        Self {
            write_cache,
            never_blocks,
            nowait_reads: !never_blocks && nowait_read_supported(&file),
            nowait_writes: AtomicBool::new(!never_blocks),
            syncs: Syncs::default(),
            file,
        }
    }

    pub(super) fn read(
        &self,
        offset_bytes: u64,
        length_bytes: usize,
        out: &mut Vec<u8>,
        wait: Wait,
    ) -> Result<(), MediumError> {
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

    pub(super) fn write(
        &self,
        offset_bytes: u64,
        data: &[u8],
        durability: Durability,
        wait: Wait,
    ) -> Result<(), MediumError> {
        let may_wait = wait == Wait::Allowed || self.never_blocks;
        match (may_wait, self.must_be_stable(durability)) {
            (true, false) => self.write_cached(offset_bytes, data),
            (true, true) => self.write_stable(offset_bytes, data),
            (false, false) => self.write_nowait(offset_bytes, data),
            (false, true) => Err(MediumError::WouldBlock),
        }
    }

    fn write_cached(&self, offset_bytes: u64, data: &[u8]) -> Result<(), MediumError> {
        self.write_all(offset_bytes, data, ReadWriteFlags::empty())
            .map_err(medium_error)
    }

    fn write_stable(&self, offset_bytes: u64, data: &[u8]) -> Result<(), MediumError> {
        self.syncs
            .write(|| match self.write_all(offset_bytes, data, ReadWriteFlags::DSYNC) {
                Ok(()) => Ok(()),
                // Either there was no room to take the data, which loses nothing, or the sync that followed found
                // none for data taken earlier, which does. The same write without the sync tells which.
                Err(Errno::NOSPC | Errno::DQUOT)
                    if self.write_all(offset_bytes, data, ReadWriteFlags::empty()).is_err() =>
                {
                    Err(Fault::Refused(MediumError::NoSpace))
                }
                Err(e) => Err(Fault::Lost(MediumError::Io(e.into()))),
            })
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
            // What was written of it the worker writes again.
            Ok(written) if written > 0 => Err(MediumError::PartlyWritten),
            _ => Err(MediumError::WouldBlock),
        }
    }

    pub(super) fn flush(&self, wait: Wait) -> Result<(), MediumError> {
        if wait == Wait::Never && !self.never_blocks {
            return Err(MediumError::WouldBlock);
        }
        self.sync()
    }

    /// Never ends in [`MediumError::NoSpace`]: what finds no room now was taken earlier, and is lost.
    pub(super) fn sync(&self) -> Result<(), MediumError> {
        self.syncs
            .sync(|| rustix::fs::fdatasync(&self.file).map_err(|e| MediumError::Io(e.into())))
    }

    /// Syncs if the caller, or the way the medium was opened, asks for it.
    pub(super) fn settle(&self, durability: Durability) -> Result<(), MediumError> {
        if self.must_be_stable(durability) {
            self.sync()
        } else {
            Ok(())
        }
    }

    fn must_be_stable(&self, durability: Durability) -> bool {
        durability == Durability::Stable || self.write_cache == WriteCache::WriteThrough
    }

    /// Whether `fallocate` on a range could keep the thread waiting although it must not.
    pub(super) fn fallocate_may_block(&self, length_bytes: u64, wait: Wait) -> bool {
        wait == Wait::Never && !(self.never_blocks && length_bytes <= INLINE_FALLOCATE_BYTES)
    }

    /// Runs `fallocate` over a range in steps that look at `cancel`.
    pub(super) fn fallocate(
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
            // Steps end where a file system's blocks do: one that is cut in two stays allocated.
            let step_end_bytes = (at_bytes / FALLOCATE_STEP_BYTES + 1) * FALLOCATE_STEP_BYTES;
            let step_bytes = step_end_bytes.min(end_bytes) - at_bytes;
            match rustix::fs::fallocate(&self.file, flags | FallocateFlags::KEEP_SIZE, at_bytes, step_bytes) {
                Ok(()) => at_bytes += step_bytes,
                Err(Errno::INTR) => {}
                Err(e) => return Err(medium_error(e)),
            }
        }
        Ok(())
    }

    /// Zeroes a range that stays allocated: by the kernel if it can, else by writing zeroes.
    pub(super) fn zero(&self, offset_bytes: u64, length_bytes: u64, cancel: &AtomicBool) -> Result<(), MediumError> {
        match self.fallocate(FallocateFlags::ZERO_RANGE, offset_bytes, length_bytes, cancel) {
            Err(MediumError::Unsupported(_)) => {}
            other => return other,
        }
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
}

fn nowait_read_supported(file: &File) -> bool {
    let mut block = [0; 512];
    let mut slices = [IoSliceMut::new(&mut block)];
    matches!(
        rustix::io::preadv2(file, &mut slices, 0, ReadWriteFlags::NOWAIT),
        Ok(_) | Err(Errno::AGAIN)
    )
}

pub(super) fn medium_error(errno: Errno) -> MediumError {
    match errno {
        Errno::NOSPC | Errno::DQUOT => MediumError::NoSpace,
        Errno::OPNOTSUPP => MediumError::Unsupported("this operation"),
        _ => MediumError::Io(errno.into()),
    }
}
