//! What a command asks of the medium, and what a failing medium means for the command: seen from a medium that
//! writes down what it is asked and fails as it is told.

mod scsi_support;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use scsi_support::*;
use target_core::lun::{Durability, Extent, Medium, MediumError, MemoryMedium, Properties, Wait, WriteCache};
use target_core::scsi::{Response, Status, WouldBlock};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    Write(Durability),
    Flush,
    Unmap,
    Zero { may_unmap: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Io,
    Full,
}

#[derive(Debug)]
struct Recorder {
    inner: MemoryMedium,
    calls: Mutex<Vec<Call>>,
    fault: Mutex<Option<Fault>>,
    blocks: AtomicBool,
    longest_read_bytes: AtomicUsize,
    /// Raised by the first read.
    raised: AtomicBool,
}

impl Recorder {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryMedium::new(64 << 20, 512).unwrap(),
            calls: Mutex::default(),
            fault: Mutex::default(),
            blocks: AtomicBool::new(false),
            longest_read_bytes: AtomicUsize::new(0),
            raised: AtomicBool::new(false),
        })
    }

    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn fail(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    fn enter(&self, call: Call, wait: Wait) -> Result<(), MediumError> {
        if wait == Wait::Never && self.blocks.load(Ordering::Relaxed) {
            return Err(MediumError::WouldBlock);
        }
        self.calls.lock().unwrap().push(call);
        match *self.fault.lock().unwrap() {
            None => Ok(()),
            Some(Fault::Io) => Err(io::Error::other("broken").into()),
            Some(Fault::Full) => Err(MediumError::NoSpace),
        }
    }
}

impl Medium for Recorder {
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
        self.enter(Call::Read, wait)?;
        self.longest_read_bytes.fetch_max(length_bytes, Ordering::Relaxed);
        self.raised.store(true, Ordering::Relaxed);
        self.inner.read(offset_bytes, length_bytes, out, wait)
    }

    fn write(&self, offset_bytes: u64, data: &[u8], durability: Durability, wait: Wait) -> Result<(), MediumError> {
        self.enter(Call::Write(durability), wait)?;
        self.inner.write(offset_bytes, data, durability, wait)
    }

    fn flush(&self, wait: Wait) -> Result<(), MediumError> {
        self.enter(Call::Flush, wait)
    }

    fn unmap(&self, offset_bytes: u64, length_bytes: u64, wait: Wait, cancel: &AtomicBool) -> Result<(), MediumError> {
        self.enter(Call::Unmap, wait)?;
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
        self.enter(Call::Zero { may_unmap }, wait)?;
        self.inner
            .write_zeroes(offset_bytes, length_bytes, may_unmap, durability, wait, cancel)
    }

    fn allocation(&self, offset_bytes: u64, wait: Wait) -> Result<Extent, MediumError> {
        self.enter(Call::Read, wait)?;
        self.inner.allocation(offset_bytes, wait)
    }

    fn resize(&self, new_size_bytes: u64) -> Result<(), MediumError> {
        self.inner.resize(new_size_bytes)
    }
}

const CACHED: Call = Call::Write(Durability::Cached);
const STABLE: Call = Call::Write(Durability::Stable);

#[test]
fn what_reaches_the_medium() {
    let medium = Recorder::new();
    let disk = nexus(Arc::clone(&medium) as Arc<dyn Medium>);
    let block = [7; 512];
    let expected: [(&[u8], &[u8], &[Call]); 22] = [
        (&[0x0A, 0, 0, 0, 1, 0], &block, &[CACHED]),
        (&cdb_10(0x2A, 0x00, 0, 1), &block, &[CACHED]),
        (&cdb_10(0x2A, 0x10, 0, 1), &block, &[CACHED]),
        (&cdb_10(0x2A, 0x08, 0, 1), &block, &[STABLE]),
        (&cdb_12(0xAA, 0x08, 0, 1), &block, &[STABLE]),
        (&cdb_16(0x8A, 0x08, 0, 1), &block, &[STABLE]),
        (&cdb_16(0x8B, 0x08, 0, 1), &block, &[Call::Read, STABLE]),
        (&cdb_10(0x2E, 0x00, 0, 1), &block, &[STABLE, Call::Read]),
        (&cdb_10(0x28, 0x00, 0, 1), &[], &[Call::Read]),
        (&cdb_10(0x28, 0x08, 0, 1), &[], &[Call::Flush, Call::Read]),
        (&cdb_10(0x2F, 0x00, 0, 1), &[], &[Call::Flush, Call::Read]),
        (&cdb_10(0x35, 0x00, 0, 0), &[], &[Call::Flush]),
        (&cdb_10(0x35, 0x02, 0, 0), &[], &[Call::Flush]),
        (&cdb_16(0x91, 0x02, 5, 9), &[], &[Call::Flush]),
        (&[0x1B, 0, 0, 0, 0, 0], &[], &[Call::Flush]),
        (&[0x1B, 0, 0, 0, 4, 0], &[], &[]),
        (&cdb_10(0x41, 0x00, 0, 1), &[0; 512], &[Call::Zero { may_unmap: false }]),
        (&cdb_16(0x93, 0x08, 0, 1), &[0; 512], &[Call::Zero { may_unmap: true }]),
        (&cdb_16(0x93, 0x09, 0, 1), &[], &[Call::Zero { may_unmap: true }]),
        (&cdb_16(0x93, 0x08, 0, 1), &block, &[CACHED]),
        (
            &unmap_cdb(&unmap_list(&[(0, 9), (20, 0)])),
            &unmap_list(&[(0, 9), (20, 0)]),
            &[Call::Unmap],
        ),
        (&cdb_10(0x2A, 0x08, 0, 0), &[], &[]),
    ];
    for (cdb, data, calls) in expected {
        good(&disk, cdb, data);
        assert_eq!(medium.take(), calls, "{cdb:02x?}");
    }
}

#[test]
fn what_a_failing_medium_means() {
    let medium = Recorder::new();
    let disk = nexus(Arc::clone(&medium) as Arc<dyn Medium>);
    let read_error = (0x3, 0x11, 0x00);
    let write_error = (0x3, 0x0C, 0x00);
    medium.fail(Some(Fault::Io));
    let response = run(&disk, &read_10(70, 1), &[]);
    assert_eq!(sense(&response), read_error);
    assert_eq!(
        (response.sense[0], &response.sense[3..7]),
        (0xF0, &[0, 0, 0, 70][..]),
        "the block it began at"
    );
    assert_eq!(refused(&disk, &write_10(0, 1), &[0; 512]), write_error);
    assert_eq!(refused(&disk, &cdb_10(0x35, 0, 0, 0), &[]), write_error);
    assert_eq!(refused(&disk, &cdb_10(0x41, 0, 0, 1), &[0; 512]), write_error);
    let list = unmap_list(&[(0, 1)]);
    assert_eq!(refused(&disk, &unmap_cdb(&list), &list), write_error);
    assert_eq!(refused(&disk, &cdb_16(0x9E, 0x12, 0, 24), &[]), read_error);
    medium.fail(Some(Fault::Full));
    assert_eq!(refused(&disk, &write_10(0, 1), &[0; 512]), (0x7, 0x27, 0x07));
    assert_eq!(refused(&disk, &cdb_10(0x41, 0, 0, 1), &[1; 512]), (0x7, 0x27, 0x07));
    assert_eq!(
        refused(&disk, &cdb_10(0x35, 0, 0, 0), &[]),
        write_error,
        "what was taken is lost, which is no write protection"
    );
    medium.fail(None);
    good(&disk, &write_10(0, 1), &[0; 512]);
}

#[test]
fn no_space_is_space_allocation_failed() {
    let medium = MemoryMedium::with_limit(1 << 20, 512, 64 * 1024).unwrap();
    let disk = nexus(Arc::new(medium));
    good(&disk, &write_10(0, 128), &[1; 65536]);
    assert_eq!(refused(&disk, &write_10(128, 1), &[1; 512]), (0x7, 0x27, 0x07));
    let list = unmap_list(&[(0, 128)]);
    good(&disk, &unmap_cdb(&list), &list);
    good(&disk, &write_10(128, 1), &[1; 512]);
}

#[test]
fn what_may_not_wait_does_not() {
    let medium = Recorder::new();
    let disk = nexus(Arc::clone(&medium) as Arc<dyn Medium>);
    medium.blocks.store(true, Ordering::Relaxed);
    let cancel = AtomicBool::new(false);
    let list = unmap_list(&[(0, 1)]);
    let commands: [(&[u8], &[u8]); 6] = [
        (&read_10(0, 1), &[]),
        (&write_10(0, 1), &[1; 512]),
        (&cdb_10(0x35, 0, 0, 0), &[]),
        (&cdb_16(0x8B, 0, 0, 1), &[1; 512]),
        (&cdb_10(0x41, 0, 0, 1), &[1; 512]),
        (&unmap_cdb(&list), &list),
    ];
    for (cdb, data) in commands {
        let execution = execution(&disk, cdb);
        assert_eq!(execution.run(data, Wait::Never, &cancel), Err(WouldBlock), "{cdb:02x?}");
        assert_eq!(medium.take(), [], "{cdb:02x?}");
        assert_eq!(
            execution.run(data, Wait::Allowed, &cancel).map(|r| r.status),
            Ok(Status::Good),
            "{cdb:02x?}"
        );
        assert_ne!(medium.take(), [], "{cdb:02x?}");
    }
}

#[test]
fn cancelled_commands_stop() {
    let medium = Recorder::new();
    let disk = nexus(Arc::clone(&medium) as Arc<dyn Medium>);
    let cancelled = AtomicBool::new(true);
    let aborted = Ok(Response {
        status: Status::TaskAborted,
        sense: Vec::new(),
        data_in: Vec::new(),
    });
    let list = unmap_list(&[(0, 1)]);
    let pattern = execution(&disk, &cdb_16(0x93, 0, 0, 1 << 17));
    assert_eq!(pattern.run(&[9; 512], Wait::Allowed, &cancelled), aborted);
    assert_eq!(
        execution(&disk, &unmap_cdb(&list)).run(&list, Wait::Allowed, &cancelled),
        aborted
    );
    assert_eq!(medium.take(), []);
    let zeroes = execution(&disk, &cdb_16(0x93, 0x01, 0, 1 << 17));
    assert_eq!(zeroes.run(&[], Wait::Allowed, &cancelled), aborted);
}

#[test]
fn read_modify_write_commands_exclude_each_other() {
    let disk = nexus(memory(8));
    std::thread::scope(|scope| {
        for bit in 0..8 {
            let disk = &disk;
            scope.spawn(move || good(disk, &cdb_16(0x8B, 0, 0, 8), &[1 << bit; 4096]));
        }
    });
    assert_eq!(good(&disk, &read_10(0, 8), &[]), [0xFF; 4096]);

    // Eight threads count to 100 each by COMPARE AND WRITE; no count is lost.
    let mut cdb = cdb_16(0x89, 0, 0, 0);
    cdb[13] = 1;
    good(&disk, &write_10(0, 1), &[0; 512]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut counted = 0;
                while counted < 100 {
                    let old = good(&disk, &read_10(0, 1), &[]);
                    let mut new = old.clone();
                    let count = u32::from_be_bytes(old[..4].try_into().unwrap()) + 1;
                    new[..4].copy_from_slice(&count.to_be_bytes());
                    counted += u32::from(run(&disk, &cdb, &[old, new].concat()).status == Status::Good);
                }
            });
        }
    });
    assert_eq!(good(&disk, &read_10(0, 1), &[])[..4], 800_u32.to_be_bytes());
}

/// What VERIFY, WRITE AND VERIFY and ORWRITE read is in nobody's budget: they take it in small pieces, and look
/// between them whether they are still wanted.
#[test]
fn what_is_looked_at_is_read_in_steps() {
    const BLOCKS: u32 = 6145;
    const STEP_BYTES: usize = 1 << 20;
    let medium = Recorder::new();
    let disk = nexus(Arc::clone(&medium) as Arc<dyn Medium>);
    let calm = AtomicBool::new(false);
    let data = vec![0x21; BLOCKS as usize * 512];
    let verify = |flags| cdb_16(0x8F, flags, 3, BLOCKS);
    let commands: [([u8; 16], &[u8]); 6] = [
        (cdb_16(0x8B, 0, 3, BLOCKS), &data),
        (verify(0x00), &[]),
        (verify(0x02), &data),
        (verify(0x06), &data[..512]),
        (cdb_16(0x8E, 0x00, 3, BLOCKS), &data),
        (cdb_16(0x8E, 0x02, 3, BLOCKS), &data),
    ];
    for (cdb, data) in commands {
        let execution = execution(&disk, &cdb);
        medium.take();
        assert_eq!(
            execution.run(data, Wait::Never, &calm),
            Err(WouldBlock),
            "{cdb:02x?} is for a worker"
        );
        assert_eq!(medium.take(), []);
        let response = execution.run(data, Wait::Allowed, &calm).unwrap();
        assert_eq!(response.status, Status::Good, "{cdb:02x?}: {:02x?}", response.sense);
        assert_eq!(medium.longest_read_bytes.load(Ordering::Relaxed), STEP_BYTES);
        let reads = |calls: &[Call]| calls.iter().filter(|call| **call == Call::Read).count();
        assert_eq!(reads(&medium.take()), 4);
        // Cancelled during the first step, it does not take the second.
        medium.raised.store(false, Ordering::Relaxed);
        let response = execution.run(data, Wait::Allowed, &medium.raised).unwrap();
        assert_eq!(response.status, Status::TaskAborted, "{cdb:02x?}");
        assert_eq!(reads(&medium.take()), 1, "{cdb:02x?}");
    }
    // The offset of a difference counts from the first block, not from the step.
    good(&disk, &write_10(3 + 6000, 1), &[0; 512]);
    for (flags, sent) in [(0x02, &data[..]), (0x06, &data[..512])] {
        let response = run(&disk, &verify(flags), sent);
        assert_eq!(sense(&response), (0xE, 0x1D, 0x00));
        assert_eq!(response.sense[3..7], (6000 * 512_u32).to_be_bytes());
    }
}
