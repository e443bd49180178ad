//! Load by fio's libiscsi engine, an initiator without a kernel.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::netns::Namespace;
use crate::paths;
use crate::process;

/// A kind of load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// What to call it.
    pub name: &'static str,
    /// fio's `rw`.
    pub pattern: &'static str,
    /// Bytes per command.
    pub block_bytes: u32,
    /// Commands in flight.
    pub depth: u32,
}

impl Workload {
    /// What is measured.
    pub const ALL: [Self; 4] = [
        Self {
            name: "4k random read",
            pattern: "randread",
            block_bytes: 4 << 10,
            depth: 32,
        },
        Self {
            name: "4k random write",
            pattern: "randwrite",
            block_bytes: 4 << 10,
            depth: 32,
        },
        Self {
            name: "1M seq read",
            pattern: "read",
            block_bytes: 1 << 20,
            depth: 8,
        },
        Self {
            name: "1M seq write",
            pattern: "write",
            block_bytes: 1 << 20,
            depth: 8,
        },
    ];

    /// Whether operations or bytes per second are what people ask for.
    pub fn is_small(&self) -> bool {
        self.block_bytes < 1 << 16
    }
}

/// What fio did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Done {
    /// Commands completed.
    pub(super) commands: u64,
    /// Bytes moved.
    pub(super) bytes: u64,
    /// Commands per second.
    pub(super) iops: f64,
    /// Bytes per second.
    pub(super) bytes_per_s: f64,
}

#[derive(Deserialize)]
struct Output {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    error: i64,
    read: Side,
    write: Side,
}

#[derive(Deserialize)]
struct Side {
    total_ios: u64,
    io_bytes: u64,
    iops: f64,
    bw_bytes: f64,
}

pub(super) fn run(ns: &Namespace, url: &str, workload: &Workload, time: Duration, cpu: usize) -> Result<Done> {
    let mut command = ns.command(paths::fio()?)?;
    command.args([
        "--name=bench",
        "--ioengine=libiscsi",
        "--thread",
        "--output-format=json",
        "--time_based",
    ]);
    command
        .args(["--norandommap", "--randrepeat=0"])
        .arg(format!("--runtime={}ms", time.as_millis()));
    command
        .arg(format!("--cpus_allowed={cpu}"))
        .arg(format!("--rw={}", workload.pattern));
    command
        .arg(format!("--bs={}", workload.block_bytes))
        .arg(format!("--iodepth={}", workload.depth));
    // fio takes a colon for the end of a file name.
    command.arg(format!("--filename={}", url.replace(':', r"\:")));
    let output = process::run("fio", &mut command, time + Duration::from_secs(30))?;
    parse(&output).with_context(|| format!("fio said:\n{output}"))
}

fn parse(output: &str) -> Result<Done> {
    // Words of warning come before the braces.
    let json = &output[output.find('{').context("no result")?..];
    let result: Output = serde_json::from_str(json)?;
    let job = result.jobs.first().context("no job")?;
    anyhow::ensure!(job.error == 0, "error {}", job.error);
    let side = if job.read.total_ios > 0 { &job.read } else { &job.write };
    anyhow::ensure!(side.total_ios > 0, "nothing was read or written");
    Ok(Done {
        commands: side.total_ios,
        bytes: side.io_bytes,
        iops: side.iops,
        bytes_per_s: side.bw_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_and_an_error_is_one() {
        let json = |error: i32, ios: u32| {
            format!(
                r#"fio: a warning
                {{"jobs": [{{"error": {error},
                  "read": {{"total_ios": 0, "io_bytes": 0, "iops": 0.0, "bw_bytes": 0}},
                  "write": {{"total_ios": {ios}, "io_bytes": 4096000, "iops": 500.5, "bw_bytes": 2048000}}}}]}}"#
            )
        };
        let done = Done {
            commands: 1000,
            bytes: 4_096_000,
            iops: 500.5,
            bytes_per_s: 2_048_000.0,
        };
        assert_eq!(parse(&json(0, 1000)).unwrap(), done);
        assert!(parse(&json(5, 1000)).is_err());
        assert!(parse(&json(0, 0)).is_err());
        assert!(parse("fio: failed to log in").is_err());
    }
}
