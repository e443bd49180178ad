//! What a session counts. The times of commands are taken down together, by one look at the clock for all that
//! were answered in a round of the shell.

use std::sync::Arc;
use std::time::Instant;

use iscsi_pdu::pdu::TaskFunction;

use crate::iscsi::stats::{LunStats, SessionStats};
use crate::iscsi::task::Task;

/// Times that wait to be taken down, at most.
const SAMPLES_MAX: usize = 1024;
/// SYNCHRONIZE CACHE (10) and (16) (SBC-4 5.36, 5.37).
const SYNCHRONIZE_CACHE: [u8; 2] = [0x35, 0x91];

/// The writer of a session's numbers.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) stats: Arc<SessionStats>,
    /// LUNs used so far, by number.
    luns: Vec<(u16, Arc<LunStats>)>,
    samples: Vec<Sample>,
    queue_depth: u64,
}

/// A command that was answered.
#[derive(Debug)]
struct Sample {
    arrived: Instant,
    /// Index in `luns`.
    lun: Option<usize>,
    is_flush: bool,
}

impl Counts {
    pub(super) fn new(stats: Arc<SessionStats>) -> Self {
        Self {
            stats,
            luns: Vec::new(),
            samples: Vec::new(),
            queue_depth: 0,
        }
    }

    /// A command was answered. `lun` is its LUN if there is such a LUN.
    pub(super) fn answered(&mut self, now: Instant, task: &Task, lun: Option<u16>, status: u8, sent_bytes: usize) {
        self.stats.commands.add(1);
        let index = lun.map(|lun| self.index_of(lun));
        if let Some(index) = index {
            let numbers = &self.luns[index].1;
            numbers.command(task.opcode, status);
            numbers.read_bytes.add(sent_bytes as u64);
            numbers.written_bytes.add(u64::from(task.data_out.received_bytes));
        }
        if self.samples.len() == SAMPLES_MAX {
            self.settle(now);
        }
        self.samples.push(Sample {
            arrived: task.arrived,
            lun: index,
            is_flush: SYNCHRONIZE_CACHE.contains(&task.opcode),
        });
    }

    /// Takes down the times of what was answered: it took until now.
    pub(super) fn settle(&mut self, now: Instant) {
        for sample in self.samples.drain(..) {
            let took = now.saturating_duration_since(sample.arrived);
            self.stats.latency.record(took);
            if let Some(index) = sample.lun {
                let numbers = &self.luns[index].1;
                numbers.latency.record(took);
                if sample.is_flush {
                    numbers.flush.record(took);
                }
            }
        }
    }

    /// Whether there are times to take down.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.samples.is_empty()
    }

    pub(super) fn queue_depth(&mut self, depth: usize) {
        let depth = depth as u64;
        if depth != self.queue_depth {
            self.queue_depth = depth;
            self.stats.queue_depth.set(depth);
            if depth > self.stats.queue_depth_max.get() {
                self.stats.queue_depth_max.set(depth);
            }
        }
    }

    pub(super) fn task_management(&self, function: TaskFunction) {
        if let Some(count) = self.stats.task_management.get(usize::from(function.code())) {
            count.add(1);
        }
    }

    fn index_of(&mut self, lun: u16) -> usize {
        let found = self.luns.iter().position(|(number, _)| *number == lun);
        found.unwrap_or_else(|| {
            self.luns.push((lun, self.stats.lun(lun)));
            self.luns.len() - 1
        })
    }
}
