//! Crews over a medium that takes as long as the test lets it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use super::*;
use crate::iscsi::budget::Memory;
use crate::iscsi::job::{Fence, TaskId};
use crate::lun::{Durability, Extent, MediumError, Properties};
use crate::scsi::{Device, Identity, Prepared};

/// A medium whose reads and writes take as long as the test lets them.
#[derive(Debug)]
struct Slow {
    inside: AtomicUsize,
    most: AtomicUsize,
    gate: Mutex<()>,
    /// Writes do not stop at the gate.
    writes_pass: AtomicBool,
}

impl Slow {
    fn pass(&self) {
        self.most.fetch_max(self.inside.fetch_add(1, SeqCst) + 1, SeqCst);
        drop(self.gate.lock());
        self.inside.fetch_sub(1, SeqCst);
    }
}

impl crate::lun::Medium for Slow {
    fn properties(&self) -> Properties {
        Properties::plain(512)
    }
    fn size_bytes(&self) -> u64 {
        1 << 20
    }
    fn read(&self, _: u64, length: usize, out: &mut Vec<u8>, _: Wait) -> Result<(), MediumError> {
        self.pass();
        out.resize(length, 0);
        Ok(())
    }
    fn write(&self, _: u64, _: &[u8], _: Durability, _: Wait) -> Result<(), MediumError> {
        if !self.writes_pass.load(SeqCst) {
            self.pass();
        }
        Ok(())
    }
    fn flush(&self, _: Wait) -> Result<(), MediumError> {
        Ok(())
    }
    fn unmap(&self, _: u64, _: u64, _: Wait, _: &AtomicBool) -> Result<(), MediumError> {
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool, _: Durability, _: Wait, _: &AtomicBool) -> Result<(), MediumError> {
        Ok(())
    }
    fn allocation(&self, _: u64, _: Wait) -> Result<Extent, MediumError> {
        Ok(Extent {
            length_bytes: 512,
            mapped: true,
        })
    }
    fn resize(&self, _: u64) -> Result<(), MediumError> {
        Ok(())
    }
}

struct Bench {
    slow: Arc<Slow>,
    nexus: crate::scsi::Nexus,
    crew: Arc<Crew>,
    mailbox: Arc<Mailbox>,
    next: u64,
}

impl Bench {
    fn new() -> Self {
        let slow = Arc::new(Slow {
            inside: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            gate: Mutex::new(()),
            writes_pass: AtomicBool::new(false),
        });
        let identity = Identity {
            vendor: "FARLUN".to_owned(),
            product: "TEST".to_owned(),
            revision: "1".to_owned(),
            serial: "slow".to_owned(),
        };
        let unit = LogicalUnit::shared(Arc::clone(&slow) as Arc<dyn crate::lun::Medium>, identity);
        let device = Device::new([(0, unit)].into());
        let nexus = device.attach("iqn.test", "iqn.test,i,0x1").expect("free");
        Self {
            slow,
            nexus,
            crew: Arc::default(),
            mailbox: Mailbox::new(),
            next: 0,
        }
    }

    fn submit(&mut self, opcode: u8) {
        let job = self.job(opcode);
        self.crew.submit(std::iter::once(job), &self.mailbox);
    }

    fn job(&mut self, opcode: u8) -> Job {
        let mut cdb = [0; 10];
        (cdb[0], cdb[8]) = (opcode, 1);
        if opcode == SELF_TEST {
            cdb[..2].copy_from_slice(&[opcode, 0x04]);
        }
        let Prepared::Run(execution) = self.nexus.prepare([0; 8], &cdb) else {
            panic!("not to be run")
        };
        self.next += 1;
        Job {
            id: TaskId(self.next),
            execution,
            data_out: vec![0; 512],
            cancel: Arc::default(),
            memory: Memory::default(),
            fence: Fence::default(),
        }
    }

    /// The names of those that have ended by now.
    fn ends(&self) -> Vec<u64> {
        let mut notices = Vec::new();
        self.mailbox.take(&mut notices);
        let name = |notice: &Notice| match notice {
            Notice::Finished(finished) => finished.id.0,
            other => panic!("{other:?}"),
        };
        notices.iter().map(name).collect()
    }

    /// Waits for `count` ends. A test that gets stuck here has found a job nobody does.
    fn wait_for(&self, count: usize) {
        let mut notices = Vec::new();
        while notices.len() < count {
            self.mailbox.take(&mut notices);
            std::thread::yield_now();
        }
    }

    fn wait_until_inside(&self, count: usize) {
        while self.slow.inside.load(SeqCst) < count {
            std::thread::yield_now();
        }
    }
}

const READ: u8 = 0x28;
const WRITE: u8 = 0x2a;
const VERIFY: u8 = 0x2f;
/// SEND DIAGNOSTIC: reads a block, and is about the unit.
const SELF_TEST: u8 = 0x1d;

#[test]
fn everything_submitted_is_done() {
    let mut bench = Bench::new();
    for round in 0..2000 {
        bench.submit(if round % 3 == 0 { READ } else { WRITE });
        if round % 50 == 0 {
            std::thread::yield_now();
        }
    }
    bench.wait_for(2000);
}

#[test]
fn reads_that_block_are_done_side_by_side() {
    let mut bench = Bench::new();
    let slow = Arc::clone(&bench.slow);
    let gate = slow.gate.lock().expect("not poisoned");
    for _ in 0..8 {
        bench.submit(READ);
    }
    bench.wait_until_inside(8);
    drop(gate);
    bench.wait_for(8);
}

#[test]
fn a_write_that_hangs_does_not_keep_others_waiting() {
    let mut bench = Bench::new();
    let slow = Arc::clone(&bench.slow);
    let gate = slow.gate.lock().expect("not poisoned");
    bench.submit(WRITE);
    bench.wait_until_inside(1);
    // It hangs; these come within the time in which nobody can know that.
    bench.submit(WRITE);
    bench.submit(WRITE);
    bench.wait_until_inside(3);
    drop(gate);
    bench.wait_for(3);
}

#[test]
fn what_is_done_is_told_before_a_read_that_blocks_begins() {
    let mut bench = Bench::new();
    let slow = Arc::clone(&bench.slow);
    let gate = slow.gate.lock().expect("not poisoned");
    slow.writes_pass.store(true, SeqCst);
    let orders = [WRITE, WRITE, READ].map(|opcode| Order {
        job: bench.job(opcode),
        mailbox: Arc::downgrade(&bench.mailbox),
    });
    std::thread::scope(|scope| {
        // A member that does one after the other, and nobody who watches.
        let crew = &bench.crew;
        scope.spawn(move || orders.into_iter().for_each(|order| crew.carry_out(order)));
        bench.wait_until_inside(1);
        assert_eq!(bench.ends(), [1, 2], "and the read stands at the gate");
        drop(gate);
    });
}

#[test]
fn what_is_done_is_told_although_a_write_hangs_behind_it() {
    let mut bench = Bench::new();
    let slow = Arc::clone(&bench.slow);
    slow.writes_pass.store(true, SeqCst);
    // As a member that does one after the other; another one watches.
    let done = [bench.job(WRITE), bench.job(WRITE)];
    let hangs = bench.job(WRITE);
    let mailbox = Arc::downgrade(&bench.mailbox);
    for job in done {
        let mailbox = mailbox.clone();
        bench.crew.carry_out(Order { job, mailbox });
    }
    slow.writes_pass.store(false, SeqCst);
    let gate = slow.gate.lock().expect("not poisoned");
    bench.crew.submit(std::iter::once(hangs), &bench.mailbox);
    bench.wait_until_inside(1);
    let mut ends = bench.ends();
    let patience = Instant::now() + Duration::from_secs(5);
    while ends.len() < 2 && Instant::now() < patience {
        std::thread::yield_now();
        ends.extend(bench.ends());
    }
    assert_eq!(ends, [1, 2], "and the third hangs");
    drop(gate);
    bench.wait_for(1);
}

#[test]
fn ends_are_told_to_the_connection_they_belong_to() {
    let mut bench = Bench::new();
    let other = Mailbox::new();
    for round in 0..6 {
        let job = bench.job(WRITE);
        let mailbox = Arc::downgrade(if round % 3 == 0 { &other } else { &bench.mailbox });
        bench.crew.carry_out(Order { job, mailbox });
    }
    bench.crew.done().post();
    assert_eq!(bench.ends(), [2, 3, 5, 6]);
    bench.mailbox = other;
    assert_eq!(bench.ends(), [1, 4]);
}

#[test]
fn long_commands_leave_threads_to_the_others() {
    let mut bench = Bench::new();
    bench.slow.writes_pass.store(true, SeqCst);
    let slow = Arc::clone(&bench.slow);
    let gate = slow.gate.lock().expect("not poisoned");
    for _ in 0..2 * CREW_MAX {
        bench.submit(VERIFY);
    }
    bench.wait_until_inside(LONG_MAX);
    // The others, if there were any, would come soon.
    std::thread::sleep(Duration::from_millis(100));
    for other in [WRITE, SELF_TEST] {
        bench.submit(other);
    }
    let (mut ends, began) = (Vec::new(), Instant::now());
    bench.wait_until_inside(LONG_MAX + 1);
    while ends.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(5), "the write is behind them all");
        ends = bench.ends();
        std::thread::yield_now();
    }
    assert_eq!(ends, [bench.next - 1]);
    drop(gate);
    bench.wait_for(2 * CREW_MAX + 1);
    assert_eq!(slow.most.load(SeqCst), LONG_MAX + 1);
}
