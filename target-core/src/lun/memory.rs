//! A LUN in memory: sparse, bounded, and gone with the process.
//!
//! It reports WCE=0. There is no cache in front of the medium that a flush could empty: what a write has
//! stored is in the only place it will ever be. That place does not outlive the process, and no SCSI bit says
//! so; whoever exports such a LUN chooses it for tests and scratch data.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::open::{OpenError, check_block_size, check_size};
use super::options::check_physical_block_size;
use super::{
    Allocation, AtomicWrites, Durability, Extent, Medium, MediumError, Properties, Provisioning, Space, Wait,
    WriteCache,
};

/// Unit of allocation in bytes.
const CHUNK_BYTES: u64 = 64 * 1024;
/// Longest range handled on a thread that must not wait, in bytes.
const INLINE_BYTES: u64 = 16 << 20;
/// Locks the chunks are spread over, so that commands to different places seldom meet.
const SHARDS: usize = 64;

type Shard = RwLock<HashMap<u64, Box<[u8]>>>;

/// Longest atomic write in bytes.
const MAX_ATOMIC_BYTES: u32 = 1 << 20;
/// A range with more chunks than this is cleared by going through those that there are.
const MANY_CHUNKS: u64 = 4096;

/// How a LUN in memory is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryOptions {
    /// Size of a logical block in bytes: 512 or 4096.
    pub block_bytes: u32,
    /// Size of a physical block to report, in bytes: 512 or 4096, no less than `block_bytes`. `None` is 4096.
    pub physical_block_bytes: Option<u32>,
    /// Memory to take at most, in bytes; `None` is what the size stands for. Writes beyond it end in
    /// [`MediumError::NoSpace`].
    pub limit_bytes: Option<u64>,
    /// Thick: every block counts as mapped and nothing is given back. The pages themselves come from the kernel
    /// when they are first written, as all memory does.
    pub allocation: Allocation,
    /// Serve it for reading only.
    pub read_only: bool,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            block_bytes: 512,
            physical_block_bytes: None,
            limit_bytes: None,
            allocation: Allocation::Thin,
            read_only: false,
        }
    }
}

/// A LUN in memory.
#[derive(Debug)]
pub struct MemoryMedium {
    block_bytes: u32,
    physical_block_bytes: u32,
    allocation: Allocation,
    read_only: bool,
    size_bytes: AtomicU64,
    limit_bytes: AtomicU64,
    /// Whether a larger LUN may take more memory.
    limit_follows_size: bool,
    allocated_bytes: AtomicU64,
    shards: Vec<Shard>,
}

impl MemoryMedium {
    /// A medium of `size_bytes` in blocks of `block_bytes` that may take all the memory its size stands for.
    pub fn new(size_bytes: u64, block_bytes: u32) -> Result<Self, OpenError> {
        let options = MemoryOptions {
            block_bytes,
            ..MemoryOptions::default()
        };
        Self::with_options(size_bytes, options)
    }

    /// The same, taking at most `limit_bytes` of memory: writes beyond it end in [`MediumError::NoSpace`].
    pub fn with_limit(size_bytes: u64, block_bytes: u32, limit_bytes: u64) -> Result<Self, OpenError> {
        let options = MemoryOptions {
            block_bytes,
            limit_bytes: Some(limit_bytes),
            ..MemoryOptions::default()
        };
        Self::with_options(size_bytes, options)
    }

    /// A medium of `size_bytes` as `options` say.
    pub fn with_options(size_bytes: u64, options: MemoryOptions) -> Result<Self, OpenError> {
        check_block_size(options.block_bytes)?;
        check_physical_block_size(options.physical_block_bytes, options.block_bytes)?;
        check_size(|| "the memory LUN".to_owned(), size_bytes, options.block_bytes)?;
        let all_bytes = size_bytes.checked_next_multiple_of(CHUNK_BYTES).unwrap_or(u64::MAX);
        Ok(Self {
            block_bytes: options.block_bytes,
            physical_block_bytes: options.physical_block_bytes.unwrap_or(4096),
            allocation: options.allocation,
            read_only: options.read_only,
            size_bytes: AtomicU64::new(size_bytes),
            limit_bytes: AtomicU64::new(options.limit_bytes.unwrap_or(all_bytes)),
            limit_follows_size: options.limit_bytes.is_none(),
            allocated_bytes: AtomicU64::new(0),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
        })
    }

    /// Memory taken by blocks now, in bytes.
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes.load(Ordering::Relaxed)
    }

    fn shard(&self, chunk: u64) -> &Shard {
        &self.shards[chunk as usize % SHARDS]
    }

    fn reserve_chunk(&self) -> Result<(), MediumError> {
        let limit_bytes = self.limit_bytes.load(Ordering::Relaxed);
        self.allocated_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                taken.checked_add(CHUNK_BYTES).filter(|&total| total <= limit_bytes)
            })
            .map(|_| ())
            .map_err(|_| MediumError::NoSpace)
    }

    fn put(&self, piece: &Piece, data: &[u8]) -> Result<(), MediumError> {
        let mut chunks = self.shard(piece.chunk).write().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: a LUN that is being cut short cleans up behind those who came before.
        self.check_range(piece.chunk * CHUNK_BYTES, piece.end as u64)?;
        let chunk = match chunks.entry(piece.chunk) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                self.reserve_chunk()?;
                entry.insert(vec![0; CHUNK_BYTES as usize].into_boxed_slice())
            }
        };
        chunk[piece.start..piece.end].copy_from_slice(data);
        Ok(())
    }

    fn make_room(&self, piece: &Piece) -> Result<(), MediumError> {
        let mut chunks = self.shard(piece.chunk).write().unwrap_or_else(PoisonError::into_inner);
        if let std::collections::hash_map::Entry::Vacant(entry) = chunks.entry(piece.chunk) {
            self.reserve_chunk()?;
            entry.insert(vec![0; CHUNK_BYTES as usize].into_boxed_slice());
        }
        Ok(())
    }

    /// Zeroes a piece; a chunk that is covered whole is given back.
    fn clear(&self, piece: &Piece) {
        let mut chunks = self.shard(piece.chunk).write().unwrap_or_else(PoisonError::into_inner);
        if piece.is_whole() {
            if chunks.remove(&piece.chunk).is_some() {
                self.allocated_bytes.fetch_sub(CHUNK_BYTES, Ordering::Relaxed);
            }
        } else if let Some(chunk) = chunks.get_mut(&piece.chunk) {
            chunk[piece.start..piece.end].fill(0);
        }
    }

    /// Zeroes many whole chunks by looking at those there are.
    fn clear_many(&self, chunks: std::ops::Range<u64>, cancel: &AtomicBool) -> Result<(), MediumError> {
        for shard in &self.shards {
            if cancel.load(Ordering::Relaxed) {
                return Err(MediumError::Cancelled);
            }
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let before = shard.len();
            shard.retain(|chunk, _| !chunks.contains(chunk));
            let freed = (before - shard.len()) as u64;
            self.allocated_bytes.fetch_sub(freed * CHUNK_BYTES, Ordering::Relaxed);
        }
        Ok(())
    }

    fn is_mapped(&self, chunk: u64) -> bool {
        self.shard(chunk)
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&chunk)
    }

    /// Memory takes its time too: a gibibyte of zeroes is not for a thread that must not wait.
    fn check_wait(length_bytes: u64, wait: Wait) -> Result<(), MediumError> {
        if wait == Wait::Never && length_bytes > INLINE_BYTES {
            return Err(MediumError::WouldBlock);
        }
        Ok(())
    }

    fn check_range(&self, offset_bytes: u64, length_bytes: u64) -> Result<(), MediumError> {
        match offset_bytes.checked_add(length_bytes) {
            Some(end) if end <= self.size_bytes() => Ok(()),
            _ => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// The part of one chunk that a range covers.
struct Piece {
    chunk: u64,
    start: usize,
    end: usize,
}

impl Piece {
    fn is_whole(&self) -> bool {
        self.start == 0 && self.end as u64 == CHUNK_BYTES
    }
}

/// Cuts a range at chunk boundaries.
fn pieces(offset_bytes: u64, length_bytes: u64) -> impl Iterator<Item = Piece> {
    let end_bytes = offset_bytes + length_bytes;
    let mut at_bytes = offset_bytes;
    std::iter::from_fn(move || {
        (at_bytes < end_bytes).then(|| {
            let chunk = at_bytes / CHUNK_BYTES;
            let base_bytes = chunk * CHUNK_BYTES;
            let piece = Piece {
                chunk,
                start: (at_bytes - base_bytes) as usize,
                end: (end_bytes - base_bytes).min(CHUNK_BYTES) as usize,
            };
            at_bytes = base_bytes + CHUNK_BYTES;
            piece
        })
    })
}

impl Medium for MemoryMedium {
    fn properties(&self) -> Properties {
        let thin = self.allocation == Allocation::Thin;
        Properties {
            block_bytes: self.block_bytes,
            physical_block_bytes: self.physical_block_bytes,
            write_cache: WriteCache::WriteThrough,
            alignment_offset_bytes: 0,
            provisioning: thin.then_some(Provisioning {
                granularity_bytes: CHUNK_BYTES as u32,
                alignment_bytes: 0,
                reads_zeroes: true,
            }),
            zeroes_quickly: thin,
            overwrites_in_place: true,
            // What this promises is kept: whatever happens to this machine, nobody will ever see half of a write.
            // That is because nobody will see the LUN again.
            atomic: Some(AtomicWrites {
                unit_bytes: self.block_bytes,
                max_bytes: MAX_ATOMIC_BYTES,
            }),
            read_only: self.read_only,
        }
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn read(&self, offset_bytes: u64, length_bytes: usize, out: &mut Vec<u8>, wait: Wait) -> Result<(), MediumError> {
        self.check_range(offset_bytes, length_bytes as u64)?;
        Self::check_wait(length_bytes as u64, wait)?;
        out.reserve(length_bytes);
        for piece in pieces(offset_bytes, length_bytes as u64) {
            let chunks = self.shard(piece.chunk).read().unwrap_or_else(PoisonError::into_inner);
            match chunks.get(&piece.chunk) {
                Some(chunk) => out.extend_from_slice(&chunk[piece.start..piece.end]),
                None => out.resize(out.len() + (piece.end - piece.start), 0),
            }
        }
        Ok(())
    }

    fn write(&self, offset_bytes: u64, data: &[u8], _: Durability, wait: Wait) -> Result<(), MediumError> {
        self.check_range(offset_bytes, data.len() as u64)?;
        Self::check_wait(data.len() as u64, wait)?;
        let mut rest = data;
        for piece in pieces(offset_bytes, data.len() as u64) {
            let (head, tail) = rest.split_at(piece.end - piece.start);
            self.put(&piece, head)?;
            rest = tail;
        }
        Ok(())
    }

    fn flush(&self, _: Wait) -> Result<(), MediumError> {
        Ok(())
    }

    fn unmap(&self, offset_bytes: u64, length_bytes: u64, wait: Wait, cancel: &AtomicBool) -> Result<(), MediumError> {
        self.check_range(offset_bytes, length_bytes)?;
        Self::check_wait(length_bytes, wait)?;
        let end_bytes = offset_bytes + length_bytes;
        let whole = offset_bytes.div_ceil(CHUNK_BYTES)..end_bytes / CHUNK_BYTES;
        if whole.end.saturating_sub(whole.start) > MANY_CHUNKS {
            for piece in pieces(offset_bytes, whole.start * CHUNK_BYTES - offset_bytes) {
                self.clear(&piece);
            }
            self.clear_many(whole.clone(), cancel)?;
            for piece in pieces(whole.end * CHUNK_BYTES, end_bytes - whole.end * CHUNK_BYTES) {
                self.clear(&piece);
            }
            return Ok(());
        }
        for piece in pieces(offset_bytes, length_bytes) {
            if cancel.load(Ordering::Relaxed) {
                return Err(MediumError::Cancelled);
            }
            self.clear(&piece);
        }
        Ok(())
    }

    fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        may_unmap: bool,
        _: Durability,
        wait: Wait,
        cancel: &AtomicBool,
    ) -> Result<(), MediumError> {
        if may_unmap && self.allocation == Allocation::Thin {
            return self.unmap(offset_bytes, length_bytes, wait, cancel);
        }
        self.check_range(offset_bytes, length_bytes)?;
        Self::check_wait(length_bytes, wait)?;
        let zeroes = vec![0; CHUNK_BYTES as usize];
        for piece in pieces(offset_bytes, length_bytes) {
            if cancel.load(Ordering::Relaxed) {
                return Err(MediumError::Cancelled);
            }
            self.put(&piece, &zeroes[piece.start..piece.end])?;
        }
        Ok(())
    }

    fn allocation(&self, offset_bytes: u64, _: Wait) -> Result<Extent, MediumError> {
        /// Chunks looked at by one call, so that it stays short on a huge empty LUN.
        const LOOKED_AT: u64 = 4096;
        self.check_range(offset_bytes, 1)?;
        if self.allocation == Allocation::Thick {
            return Ok(Extent {
                length_bytes: self.size_bytes().saturating_sub(offset_bytes),
                mapped: true,
            });
        }
        let first = offset_bytes / CHUNK_BYTES;
        let mapped = self.is_mapped(first);
        let mut next = first + 1;
        while next < first + LOOKED_AT && next * CHUNK_BYTES < self.size_bytes() && self.is_mapped(next) == mapped {
            next += 1;
        }
        let end_bytes = (next * CHUNK_BYTES).min(self.size_bytes());
        Ok(Extent {
            length_bytes: end_bytes - offset_bytes,
            mapped,
        })
    }

    fn resize(&self, new_size_bytes: u64) -> Result<(), MediumError> {
        if new_size_bytes == 0 || !new_size_bytes.is_multiple_of(u64::from(self.block_bytes)) {
            return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput).into());
        }
        if self.limit_follows_size {
            let all_bytes = new_size_bytes.checked_next_multiple_of(CHUNK_BYTES).unwrap_or(u64::MAX);
            self.limit_bytes.store(all_bytes, Ordering::Relaxed);
        }
        let old_size_bytes = self.size_bytes.swap(new_size_bytes, Ordering::AcqRel);
        if new_size_bytes >= old_size_bytes {
            return Ok(());
        }
        for shard in &self.shards {
            let mut chunks = shard.write().unwrap_or_else(PoisonError::into_inner);
            let before = chunks.len();
            chunks.retain(|&chunk, _| chunk * CHUNK_BYTES < new_size_bytes);
            let freed = (before - chunks.len()) as u64;
            self.allocated_bytes.fetch_sub(freed * CHUNK_BYTES, Ordering::Relaxed);
        }
        // What is left of the last chunk must read as zeroes if the LUN grows again.
        let boundary_bytes = new_size_bytes.next_multiple_of(CHUNK_BYTES);
        for piece in pieces(new_size_bytes, boundary_bytes - new_size_bytes) {
            self.clear(&piece);
        }
        Ok(())
    }

    fn space(&self) -> Option<Space> {
        let total_bytes = self.limit_bytes.load(Ordering::Relaxed);
        let used_bytes = self.allocated_bytes();
        Some(Space {
            used_bytes,
            available_bytes: total_bytes.saturating_sub(used_bytes),
            total_bytes,
        })
    }

    /// Room for all of it is made first; after that nothing can go wrong in between.
    fn write_atomic(
        &self,
        offset_bytes: u64,
        data: &[u8],
        durability: Durability,
        wait: Wait,
    ) -> Result<(), MediumError> {
        self.check_range(offset_bytes, data.len() as u64)?;
        for piece in pieces(offset_bytes, data.len() as u64) {
            self.make_room(&piece)?;
        }
        self.write(offset_bytes, data, durability, wait)
    }
}
