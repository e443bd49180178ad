//! A medium in memory at which everything stops for as long as it is shut.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use target_core::lun::{Durability, Extent, Medium, MediumError, MemoryMedium, Properties, Wait};

/// Longest wait for anything, so that a test that fails does end.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct State {
    is_shut: bool,
    inside: usize,
}

#[derive(Debug)]
pub(super) struct Hung {
    inner: MemoryMedium,
    state: Mutex<State>,
    changed: Condvar,
}

impl Hung {
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryMedium::new(bytes, 512).expect("small enough"),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    pub(super) fn shut(&self) {
        self.state.lock().expect("not poisoned").is_shut = true;
    }

    pub(super) fn open(&self) {
        self.state.lock().expect("not poisoned").is_shut = false;
        self.changed.notify_all();
    }

    /// Returns once so many commands hang.
    pub(super) fn wait_for(&self, count: usize) {
        let state = self.state.lock().expect("not poisoned");
        let arrived = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.inside < count);
        assert!(!arrived.expect("not poisoned").1.timed_out(), "they never came");
    }

    /// A byte as it is now, gate or no gate.
    pub(super) fn peek(&self, offset_bytes: u64) -> u8 {
        let mut out = Vec::new();
        self.inner
            .read(offset_bytes / 512 * 512, 512, &mut out, Wait::Allowed)
            .expect("within");
        out[(offset_bytes % 512) as usize]
    }

    fn pass(&self) {
        let mut state = self.state.lock().expect("not poisoned");
        state.inside += 1;
        self.changed.notify_all();
        let opened = self.changed.wait_timeout_while(state, PATIENCE, |state| state.is_shut);
        opened.expect("not poisoned").0.inside -= 1;
    }
}

impl Medium for Hung {
    fn properties(&self) -> Properties {
        self.inner.properties()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read(&self, offset_bytes: u64, length_bytes: usize, out: &mut Vec<u8>, wait: Wait) -> Result<(), MediumError> {
        self.pass();
        self.inner.read(offset_bytes, length_bytes, out, wait)
    }

    fn write(&self, offset_bytes: u64, data: &[u8], durability: Durability, wait: Wait) -> Result<(), MediumError> {
        self.pass();
        self.inner.write(offset_bytes, data, durability, wait)
    }

    fn flush(&self, wait: Wait) -> Result<(), MediumError> {
        self.pass();
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
