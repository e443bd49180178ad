//! Numbers of a session: counted by its connection alone, read by anybody.
//!
//! Each session counts for itself, so counting is a plain load and a plain store: no locked instruction and no
//! line of memory shared between connections. A session that ends is added up into its target's
//! [`Snapshot`], which is also what is shown to people.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Buckets of a [`Histogram`].
pub const LATENCY_BUCKETS: usize = 32;
/// Task management functions that are counted by their code (RFC 7143 §11.5.1 has 1 to 8, RFC 7144 §4.1 9 to
/// 12).
pub const FUNCTION_CODES: usize = 13;
/// Status codes that are told apart (SAM-5 5.3.1); any other is counted as the last.
const STATUSES: [u8; 8] = [0x00, 0x02, 0x04, 0x08, 0x18, 0x28, 0x40, 0xff];

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`. Only the connection that owns the counter may.
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Sets it anew. Only the connection that owns the counter may.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How often something took how long, in powers of two of a microsecond: bucket 0 counts what took less than
/// 1 us, bucket n what took from 2^(n-1) to less than 2^n us, the last whatever is longer.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; LATENCY_BUCKETS],
    sum_us: Counter,
}

impl Histogram {
    pub(crate) fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(us)].add(1);
        self.sum_us.add(us);
    }

    fn snapshot(&self) -> Times {
        Times {
            buckets: std::array::from_fn(|index| self.buckets[index].get()),
            sum_us: self.sum_us.get(),
        }
    }
}

fn bucket_of(us: u64) -> usize {
    let bits = (u64::BITS - us.leading_zeros()) as usize;
    bits.min(LATENCY_BUCKETS - 1)
}

/// What one session does at one LUN.
#[derive(Debug)]
pub struct LunStats {
    /// Data-In sent for its commands, in bytes.
    pub read_bytes: Counter,
    /// Data taken for its commands, in bytes.
    pub written_bytes: Counter,
    /// From the arrival of a command to its status being queued.
    pub latency: Histogram,
    /// The same, of SYNCHRONIZE CACHE alone.
    pub flush: Histogram,
    /// By operation code, made when the first such command ends; then by [`STATUSES`].
    commands: Box<[OnceLock<Box<[Counter; STATUSES.len()]>>]>,
}

impl Default for LunStats {
    fn default() -> Self {
        Self {
            read_bytes: Counter::default(),
            written_bytes: Counter::default(),
            latency: Histogram::default(),
            flush: Histogram::default(),
            commands: (0..256).map(|_| OnceLock::new()).collect(),
        }
    }
}

impl LunStats {
    /// Counts a command that was answered.
    pub(crate) fn command(&self, opcode: u8, status: u8) {
        let by_status = self.commands[usize::from(opcode)].get_or_init(Box::default);
        let index = STATUSES.iter().position(|known| *known == status);
        by_status[index.unwrap_or(STATUSES.len() - 1)].add(1);
    }

    /// The numbers as they are now.
    pub fn snapshot(&self) -> LunSnapshot {
        let mut commands = BTreeMap::new();
        for (opcode, by_status) in (0..=u8::MAX).zip(&self.commands) {
            for (status, count) in STATUSES
                .iter()
                .zip(by_status.get().into_iter().flat_map(|all| all.iter()))
            {
                if count.get() > 0 {
                    commands.insert((opcode, *status), count.get());
                }
            }
        }
        LunSnapshot {
            commands,
            read_bytes: self.read_bytes.get(),
            written_bytes: self.written_bytes.get(),
            latency: self.latency.snapshot(),
            flush: self.flush.snapshot(),
        }
    }
}

/// What one session does.
#[derive(Debug, Default)]
pub struct SessionStats {
    /// Bytes received in the full-feature phase, headers and digests included.
    pub bytes_in: Counter,
    /// Bytes sent in the full-feature phase, headers and digests included.
    pub bytes_out: Counter,
    /// SCSI commands answered.
    pub commands: Counter,
    /// SCSI commands at work now.
    pub queue_depth: Counter,
    /// The most SCSI commands that were at work at one time.
    pub queue_depth_max: Counter,
    /// From the arrival of a command to its status being queued, over all LUNs.
    pub latency: Histogram,
    /// Headers whose digest was wrong. Each ended a connection.
    pub header_digest_errors: Counter,
    /// Data segments whose digest was wrong.
    pub data_digest_errors: Counter,
    /// PDUs answered with a Reject.
    pub rejects: Counter,
    /// NOP-Ins that asked whether the initiator is still there.
    pub pings: Counter,
    /// Task management requests, by function code.
    pub task_management: [Counter; FUNCTION_CODES],
    luns: Mutex<BTreeMap<u16, Arc<LunStats>>>,
}

impl SessionStats {
    /// The numbers of a LUN, made when they are first asked for. Not for the data path: whoever counts keeps
    /// the `Arc`.
    pub(crate) fn lun(&self, lun: u16) -> Arc<LunStats> {
        Arc::clone(self.luns().entry(lun).or_default())
    }

    /// The numbers as they are now.
    pub fn snapshot(&self) -> Snapshot {
        let luns = self
            .luns()
            .iter()
            .map(|(lun, stats)| (*lun, stats.snapshot()))
            .collect();
        Snapshot {
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            commands: self.commands.get(),
            queue_depth: self.queue_depth.get(),
            queue_depth_max: self.queue_depth_max.get(),
            latency: self.latency.snapshot(),
            header_digest_errors: self.header_digest_errors.get(),
            data_digest_errors: self.data_digest_errors.get(),
            rejects: self.rejects.get(),
            pings: self.pings.get(),
            task_management: std::array::from_fn(|code| self.task_management[code].get()),
            luns,
        }
    }

    fn luns(&self) -> MutexGuard<'_, BTreeMap<u16, Arc<LunStats>>> {
        self.luns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers of a session, or of several together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// See [`SessionStats::bytes_in`].
    pub bytes_in: u64,
    /// See [`SessionStats::bytes_out`].
    pub bytes_out: u64,
    /// See [`SessionStats::commands`].
    pub commands: u64,
    /// See [`SessionStats::queue_depth`]; nothing of a session that has ended.
    pub queue_depth: u64,
    /// See [`SessionStats::queue_depth_max`]; of several sessions the largest.
    pub queue_depth_max: u64,
    /// See [`SessionStats::latency`].
    pub latency: Times,
    /// See [`SessionStats::header_digest_errors`].
    pub header_digest_errors: u64,
    /// See [`SessionStats::data_digest_errors`].
    pub data_digest_errors: u64,
    /// See [`SessionStats::rejects`].
    pub rejects: u64,
    /// See [`SessionStats::pings`].
    pub pings: u64,
    /// See [`SessionStats::task_management`].
    pub task_management: [u64; FUNCTION_CODES],
    /// By LUN.
    pub luns: BTreeMap<u16, LunSnapshot>,
}

impl Snapshot {
    /// Adds the numbers of another session.
    pub fn add(&mut self, other: &Self) {
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.commands += other.commands;
        self.queue_depth += other.queue_depth;
        self.queue_depth_max = self.queue_depth_max.max(other.queue_depth_max);
        self.latency.add(&other.latency);
        self.header_digest_errors += other.header_digest_errors;
        self.data_digest_errors += other.data_digest_errors;
        self.rejects += other.rejects;
        self.pings += other.pings;
        for (sum, count) in self.task_management.iter_mut().zip(other.task_management) {
            *sum += count;
        }
        for (lun, numbers) in &other.luns {
            self.luns.entry(*lun).or_default().add(numbers);
        }
    }
}

/// The numbers of a LUN, as seen by a session, or by several together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LunSnapshot {
    /// Commands answered, by operation code and status; status 0xff stands for any that SAM-5 does not name.
    pub commands: BTreeMap<(u8, u8), u64>,
    /// See [`LunStats::read_bytes`].
    pub read_bytes: u64,
    /// See [`LunStats::written_bytes`].
    pub written_bytes: u64,
    /// See [`LunStats::latency`].
    pub latency: Times,
    /// See [`LunStats::flush`].
    pub flush: Times,
}

impl LunSnapshot {
    /// Adds the numbers of another session.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.commands {
            *self.commands.entry(*key).or_default() += count;
        }
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
        self.latency.add(&other.latency);
        self.flush.add(&other.flush);
    }
}

/// What a [`Histogram`] has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// How often, by bucket: see [`Histogram`].
    pub buckets: [u64; LATENCY_BUCKETS],
    /// All times together, in microseconds.
    pub sum_us: u64,
}

impl Times {
    /// What takes less than this, in microseconds, is in this bucket or in one before it. The last bucket has
    /// no such bound.
    pub fn upper_bound_us(bucket: usize) -> Option<u64> {
        (bucket + 1 < LATENCY_BUCKETS).then(|| 1 << bucket)
    }

    /// How many times there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// A time, in microseconds, that so many parts in a thousand did not reach: the bound of their bucket, so
    /// at most twice too long. `None` without any times.
    pub fn permille_us(&self, permille: u64) -> Option<u64> {
        let count = self.count();
        let rank = (count * permille.min(1000)).div_ceil(1000).max(1);
        let mut below = 0;
        let bucket = self.buckets.iter().position(|times| {
            below += times;
            below >= rank
        })?;
        Some(Self::upper_bound_us(bucket).unwrap_or(1 << bucket))
    }

    /// Adds other times.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += count;
        }
        self.sum_us += other.sum_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_the_bucket_that_is_just_above_them() {
        for (us, bucket) in [
            (0, 0),
            (1, 1),
            (2, 2),
            (3, 2),
            (4, 3),
            (1023, 10),
            (1024, 11),
            (u64::MAX, 31),
        ] {
            assert_eq!(bucket_of(us), bucket, "{us} us");
            if let Some(bound) = Times::upper_bound_us(bucket) {
                assert!(us < bound);
            }
        }
    }

    #[test]
    fn percentiles_are_bounds_of_buckets() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().permille_us(500), None);
        for us in [10, 10, 10, 10, 10, 10, 10, 10, 10, 5000] {
            histogram.record(Duration::from_micros(us));
        }
        let times = histogram.snapshot();
        assert_eq!((times.count(), times.sum_us), (10, 5090));
        assert_eq!(
            [0, 500, 900, 901, 1000].map(|permille| times.permille_us(permille)),
            [Some(16), Some(16), Some(16), Some(8192), Some(8192)]
        );
    }

    #[test]
    fn what_sessions_counted_adds_up() {
        let session = SessionStats::default();
        session.commands.add(3);
        session.queue_depth_max.set(7);
        session.task_management[5].add(1);
        let lun = session.lun(2);
        lun.command(0x28, 0x00);
        lun.command(0x28, 0x00);
        lun.command(0x28, 0x30);
        lun.latency.record(Duration::from_micros(3));
        let mut total = session.snapshot();
        total.add(&session.snapshot());
        assert_eq!(
            (total.commands, total.queue_depth_max, total.task_management[5]),
            (6, 7, 2)
        );
        let lun = &total.luns[&2];
        assert_eq!(lun.commands, BTreeMap::from([((0x28, 0x00), 4), ((0x28, 0xff), 2)]));
        assert_eq!((lun.latency.count(), lun.latency.sum_us), (2, 6));
    }
}
