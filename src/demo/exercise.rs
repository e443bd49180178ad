//! The initiator's part of the demo: discovery, login, write, read back, compare. It runs in a process of its own, so
//! that it can run in another network namespace, and reports in JSON.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use initiator::{Error, Lun, SendTargets, Session, Url};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::exit::{Exit, Failure};
use crate::probe::{RoundTrip, failed, log_in, ping};
use crate::say::say;

/// Bytes in one command.
pub(super) const CHUNK_BYTES: u64 = 1 << 20;
/// Sessions that write or read at a time: what keeps the line busy.
const SESSIONS: u64 = 4;
/// Pings for the round trip.
const PINGS: u32 = 100;
/// How long to wait for an answer, in milliseconds.
const TIMEOUT_MS: u64 = 30_000;
/// The name to log in with.
const INITIATOR: &str = "iqn.2026-11.net.farlun:demo";

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// The target that discovery found.
    pub(super) target: String,
    /// Size of its LUN in bytes.
    pub(super) size_bytes: u64,
    /// Round trips.
    pub(super) round_trip: RoundTrip,
    /// Time to write everything and have it on stable storage, in seconds.
    pub(super) write_s: f64,
    /// Time to read it back, in seconds.
    pub(super) read_s: f64,
    /// SHA-256 of what was written, in hex.
    pub(super) written: String,
    /// SHA-256 of what was read back, in hex.
    pub(super) read: String,
}

/// Runs, and prints the outcome as one line of JSON.
pub(super) async fn run(portal: &Url, mib: u64, seed: u64) -> Result<(), Failure> {
    let outcome = exercise(portal, mib, seed).await?;
    say!("{}", serde_json::to_string(&outcome).context("JSON")?);
    if outcome.written != outcome.read {
        return Err(Failure::new(
            Exit::DataMismatch,
            anyhow!("what was read back is not what was written"),
        ));
    }
    Ok(())
}

async fn exercise(portal: &Url, mib: u64, seed: u64) -> Result<Outcome, Failure> {
    let at = |what: &'static str| move |error: Error| failed(error, what);
    let mut discovery = log_in(portal, INITIATOR, None, None, TIMEOUT_MS)
        .await
        .map_err(at("discovery"))?;
    let found = discovery
        .send_targets(&SendTargets::All)
        .await
        .map_err(at("discovery"))?;
    discovery.logout().await.map_err(at("logout from discovery"))?;
    let target = found
        .into_iter()
        .next()
        .ok_or_else(|| anyhow!("discovery found no target"))?
        .name;

    let mut session = log_in(portal, INITIATOR, Some(&target), None, TIMEOUT_MS)
        .await
        .map_err(at("login"))?;
    let lun = session
        .report_luns()
        .await
        .map_err(at("REPORT LUNS"))?
        .into_iter()
        .next();
    let lun = lun.ok_or_else(|| anyhow!("the target has no LUN"))?;
    let capacity = session.read_capacity16(lun).await.map_err(at("READ CAPACITY"))?;
    let size_bytes = capacity.blocks * u64::from(capacity.block_bytes);
    if size_bytes < mib * CHUNK_BYTES {
        return Err(anyhow!("the LUN has {size_bytes} bytes, too few for {mib} MiB").into());
    }
    let round_trip = ping(&mut session, PINGS).await.map_err(at("ping"))?;

    let place = Place {
        portal: portal.clone(),
        target: target.clone(),
        lun,
        block_bytes: capacity.block_bytes,
        chunks: mib,
    };
    let start = Instant::now();
    place.all(Work::Write { seed }).await.map_err(at("write"))?;
    session.synchronize_cache(lun).await.map_err(at("SYNCHRONIZE CACHE"))?;
    let write = start.elapsed();
    session.logout().await.map_err(at("logout"))?;
    let start = Instant::now();
    let chunks = place.all(Work::Read).await.map_err(at("read"))?;
    let read = start.elapsed();
    Ok(Outcome {
        target,
        size_bytes,
        round_trip,
        write_s: write.as_secs_f64(),
        read_s: read.as_secs_f64(),
        written: checksum((0..mib).map(|index| chunk(seed, index))),
        read: checksum(chunks.into_iter()),
    })
}

/// Where to write and read.
#[derive(Debug, Clone)]
struct Place {
    portal: Url,
    target: String,
    lun: Lun,
    block_bytes: u32,
    chunks: u64,
}

#[derive(Debug, Clone, Copy)]
enum Work {
    Write { seed: u64 },
    Read,
}

impl Place {
    /// All chunks over several sessions; what was read, in order.
    async fn all(&self, work: Work) -> Result<Vec<Bytes>, Error> {
        let mut sessions = JoinSet::new();
        for first in 0..SESSIONS.min(self.chunks) {
            let place = self.clone();
            sessions.spawn(async move { place.every_nth(first, work).await });
        }
        let mut chunks = vec![Bytes::new(); usize::try_from(self.chunks).unwrap_or(0)];
        while let Some(done) = sessions.join_next().await {
            let done = done.map_err(|_| Error::Misuse("a session of the demo panicked"))??;
            for (index, bytes) in done {
                chunks[index] = bytes;
            }
        }
        Ok(chunks)
    }

    async fn every_nth(&self, first: u64, work: Work) -> Result<Vec<(usize, Bytes)>, Error> {
        let mut session: Session<TcpStream> =
            log_in(&self.portal, INITIATOR, Some(&self.target), None, TIMEOUT_MS).await?;
        let mut done = Vec::new();
        let blocks = (CHUNK_BYTES / u64::from(self.block_bytes)) as u32;
        for index in (first..self.chunks).step_by(SESSIONS as usize) {
            let lba = index * u64::from(blocks);
            match work {
                Work::Write { seed } => {
                    let data = chunk(seed, index);
                    session.write16(self.lun, lba, self.block_bytes, data, false).await?;
                }
                Work::Read => {
                    let data = session.read16(self.lun, lba, blocks, self.block_bytes).await?;
                    done.push((usize::try_from(index).unwrap_or(0), data));
                }
            }
        }
        session.logout().await?;
        Ok(done)
    }
}

/// One chunk of what is written: nothing that compresses or repeats, and the same again for the same seed (splitmix64).
pub(super) fn chunk(seed: u64, index: u64) -> Bytes {
    let mut state = seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(CHUNK_BYTES as usize);
    while (bytes.len() as u64) < CHUNK_BYTES {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.into()
}

/// SHA-256 over the SHA-256 of each chunk, in hex: chunks need not be held in one piece.
pub(super) fn checksum(chunks: impl Iterator<Item = Bytes>) -> String {
    let mut sums = Vec::new();
    for chunk in chunks {
        sums.extend_from_slice(digest(&SHA256, &chunk).as_ref());
    }
    digest(&SHA256, &sums)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// MiB per second.
pub(super) fn rate(mib: u64, seconds: f64) -> f64 {
    mib as f64 / seconds.max(Duration::from_micros(1).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_differ_and_come_again() {
        assert_eq!(chunk(1, 2), chunk(1, 2));
        assert_eq!(chunk(1, 2).len() as u64, CHUNK_BYTES);
        assert_ne!(chunk(1, 2), chunk(1, 3));
        assert_ne!(chunk(1, 2), chunk(2, 2));
    }

    #[test]
    fn one_wrong_bit_changes_the_checksum() {
        let right: Vec<Bytes> = (0..3).map(|index| chunk(7, index)).collect();
        let mut wrong = right.clone();
        let mut bytes = wrong[1].to_vec();
        bytes[CHUNK_BYTES as usize / 2] ^= 1;
        wrong[1] = bytes.into();
        assert_eq!(checksum(right.iter().cloned()), checksum(right.clone().into_iter()));
        assert_ne!(checksum(right.into_iter()), checksum(wrong.into_iter()));
    }
}
