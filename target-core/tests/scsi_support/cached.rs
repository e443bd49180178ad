//! A medium in memory that says it has a volatile write cache, and counts what is asked of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use target_core::lun::{Durability, Extent, Medium, MediumError, MemoryMedium, Properties, Wait, WriteCache};

#[derive(Debug)]
pub struct Cached {
    inner: MemoryMedium,
    stable_writes: AtomicUsize,
    cached_writes: AtomicUsize,
    flushes: AtomicUsize,
    fails: AtomicBool,
}

impl Cached {
    pub fn new(blocks: u64) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryMedium::new(blocks * 512, 512).unwrap(),
            stable_writes: AtomicUsize::new(0),
            cached_writes: AtomicUsize::new(0),
            flushes: AtomicUsize::new(0),
            fails: AtomicBool::new(false),
        })
    }

    /// Stable writes, other writes and flushes since the last call.
    pub fn counts(&self) -> (usize, usize, usize) {
        (
            self.stable_writes.swap(0, Ordering::SeqCst),
            self.cached_writes.swap(0, Ordering::SeqCst),
            self.flushes.swap(0, Ordering::SeqCst),
        )
    }

    /// From now on flushes fail, and with them what ends with one.
    pub fn fail(&self) {
        self.fails.store(true, Ordering::SeqCst);
    }

    fn count(&self, durability: Durability) {
        let counter = match durability {
            Durability::Stable => &self.stable_writes,
            Durability::Cached => &self.cached_writes,
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

impl Medium for Cached {
    fn properties(&self) -> Properties {
        Properties {
            write_cache: WriteCache::WriteBack,
            ..self.inner.properties()
        }
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read(&self, offset_bytes: u64, length_bytes: usize, out: &mut Vec<u8>, wait: Wait) -> Result<(), MediumError> {
        self.inner.read(offset_bytes, length_bytes, out, wait)
    }

    fn write(&self, offset_bytes: u64, data: &[u8], durability: Durability, wait: Wait) -> Result<(), MediumError> {
        self.count(durability);
        self.inner.write(offset_bytes, data, durability, wait)
    }

    fn flush(&self, wait: Wait) -> Result<(), MediumError> {
        if wait == Wait::Never {
            return Err(MediumError::WouldBlock);
        }
        self.flushes.fetch_add(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) {
            return Err(MediumError::Io(std::io::Error::other("the disk is gone")));
        }
        self.inner.flush(wait)
    }

    fn unmap(&self, offset_bytes: u64, length_bytes: u64, wait: Wait, cancel: &AtomicBool) -> Result<(), MediumError> {
        self.inner.unmap(offset_bytes, length_bytes, wait, cancel)
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
        self.count(durability);
        self.inner
            .write_zeroes(offset_bytes, length_bytes, may_unmap, durability, wait, cancel)
    }

    fn allocation(&self, offset_bytes: u64, wait: Wait) -> Result<Extent, MediumError> {
        self.inner.allocation(offset_bytes, wait)
    }

    fn resize(&self, new_size_bytes: u64) -> Result<(), MediumError> {
        self.inner.resize(new_size_bytes)?;
        self.flush(Wait::Allowed)
    }
}
