//! A medium in memory whose writes stop at a gate for as long as it is shut.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use target_core::lun::{Durability, Extent, Medium, MediumError, MemoryMedium, Properties, Wait};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct State {
    shut: bool,
    waiting: usize,
}

#[derive(Debug)]
pub struct Gate {
    inner: MemoryMedium,
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    pub fn new(blocks: u64) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryMedium::new(blocks * 512, 512).unwrap(),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    pub fn shut(&self) {
        self.state.lock().unwrap().shut = true;
    }

    pub fn open(&self) {
        self.state.lock().unwrap().shut = false;
        self.changed.notify_all();
    }

    /// Writes that stand at the gate.
    pub fn waiting(&self) -> usize {
        self.state.lock().unwrap().waiting
    }

    /// Returns once so many writes stand at the gate.
    pub fn wait_for(&self, writes: usize) {
        let state = self.state.lock().unwrap();
        let arrived = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.waiting < writes);
        assert!(!arrived.unwrap().1.timed_out(), "the writes never came");
    }
}

impl Medium for Gate {
    fn properties(&self) -> Properties {
        self.inner.properties()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read(&self, offset_bytes: u64, length_bytes: usize, out: &mut Vec<u8>, wait: Wait) -> Result<(), MediumError> {
        self.inner.read(offset_bytes, length_bytes, out, wait)?;
        // What is read is old by the time it is used.
        std::thread::yield_now();
        Ok(())
    }

    fn write(&self, offset_bytes: u64, data: &[u8], durability: Durability, wait: Wait) -> Result<(), MediumError> {
        let mut state = self.state.lock().unwrap();
        if state.shut && wait == Wait::Never {
            // Like a write with RWF_NOWAIT that finds memory for its first part only.
            drop(state);
            self.inner
                .write(offset_bytes, &data[..data.len() / 2], durability, wait)?;
            return Err(MediumError::PartlyWritten);
        }
        if state.shut {
            state.waiting += 1;
            self.changed.notify_all();
            // Bounded, so that a test that fails with the gate shut does end.
            let opened = self.changed.wait_timeout_while(state, PATIENCE, |state| state.shut);
            state = opened.unwrap().0;
            state.waiting -= 1;
        }
        drop(state);
        self.inner.write(offset_bytes, data, durability, wait)
    }

    fn flush(&self, wait: Wait) -> Result<(), MediumError> {
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
        self.inner
            .write_zeroes(offset_bytes, length_bytes, may_unmap, durability, wait, cancel)
    }

    fn allocation(&self, offset_bytes: u64, wait: Wait) -> Result<Extent, MediumError> {
        self.inner.allocation(offset_bytes, wait)
    }

    fn resize(&self, new_size_bytes: u64) -> Result<(), MediumError> {
        self.inner.resize(new_size_bytes)
    }
}
