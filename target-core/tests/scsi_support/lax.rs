//! A medium that takes every write, as a device does that serves a part of itself: only the unit keeps commands from
//! what is beyond the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use target_core::lun::{Durability, Extent, Medium, MediumError, Properties, Wait};

use super::gate::Gate;

#[derive(Debug)]
pub struct Lax {
    gate: Arc<Gate>,
    size_bytes: AtomicU64,
    /// So much smaller is it each time that somebody looks.
    pub melts_by_bytes: AtomicU64,
}

impl Lax {
    pub fn new(gate: &Arc<Gate>) -> Arc<Self> {
        Arc::new(Self {
            size_bytes: AtomicU64::new(gate.size_bytes()),
            gate: Arc::clone(gate),
            melts_by_bytes: AtomicU64::new(0),
        })
    }
}

impl Medium for Lax {
    fn properties(&self) -> Properties {
        self.gate.properties()
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
            .fetch_sub(self.melts_by_bytes.load(Ordering::SeqCst), Ordering::SeqCst)
    }

    fn read(&self, offset_bytes: u64, length_bytes: usize, out: &mut Vec<u8>, wait: Wait) -> Result<(), MediumError> {
        self.gate.read(offset_bytes, length_bytes, out, wait)
    }

    fn write(&self, offset_bytes: u64, data: &[u8], durability: Durability, wait: Wait) -> Result<(), MediumError> {
        self.gate.write(offset_bytes, data, durability, wait)
    }

    fn flush(&self, wait: Wait) -> Result<(), MediumError> {
        self.gate.flush(wait)
    }

    fn unmap(&self, offset_bytes: u64, length_bytes: u64, wait: Wait, cancel: &AtomicBool) -> Result<(), MediumError> {
        self.gate.unmap(offset_bytes, length_bytes, wait, cancel)
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
        self.gate
            .write_zeroes(offset_bytes, length_bytes, may_unmap, durability, wait, cancel)
    }

    fn allocation(&self, offset_bytes: u64, wait: Wait) -> Result<Extent, MediumError> {
        self.gate.allocation(offset_bytes, wait)
    }

    fn resize(&self, new_size_bytes: u64) -> Result<(), MediumError> {
        self.size_bytes.store(new_size_bytes, Ordering::SeqCst);
        Ok(())
    }
}
