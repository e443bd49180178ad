//! The benchmark: the same load on several targets in turn, with the processor time each target needs for it.

mod cpu;
mod fio;
pub mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::netns::Namespace;
use crate::target::{Kind, Spec, Target};

pub use fio::Workload;
use report::{Row, Sample};

const PORTAL: &str = "127.0.0.1:3260";
const TARGET_CPU: usize = 0;
const FIO_CPU: usize = 1;

/// Where a LUN's file lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Medium {
    /// In a tmpfs of the target's own.
    Tmpfs,
    /// In this folder.
    Folder(PathBuf),
}

impl Medium {
    fn file(&self, number: usize) -> PathBuf {
        match self {
            Self::Tmpfs => "/dev/shm/lun.img".into(),
            Self::Folder(folder) => folder.join(format!("lun{number}.img")),
        }
    }

    /// What to call it: for a folder, its file system's name.
    fn label(&self, ns: &Namespace) -> Result<String> {
        let folder = match self {
            Self::Tmpfs => Path::new("/dev/shm"),
            Self::Folder(folder) => folder,
        };
        let name = ns.sh(&format!("stat --file-system --format=%T '{}'", folder.display()))?;
        // stat has one name for the three that share a magic number.
        Ok(name.trim().replace("ext2/ext3", "ext4"))
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The targets beside each other; the first is compared with the second. May be the same twice.
    pub kinds: [Kind; 2],
    /// Where the LUNs lie.
    pub media: Vec<Medium>,
    /// How often each measurement is taken.
    pub rounds: usize,
    /// How long one measurement takes.
    pub time: Duration,
    /// Size of each LUN in MiB.
    pub lun_mib: u64,
}

/// A target that stays up for all measurements on one medium.
struct Contender {
    // Before its namespace, so that it ends first.
    target: Target,
    ns: Namespace,
    file: PathBuf,
}

impl Contender {
    fn start(kind: Kind, medium: &Medium, number: usize, lun_mib: u64) -> Result<Self> {
        let ns = Namespace::new()?;
        let file = medium.file(number);
        // Written in full first: what is measured is I/O to blocks that are there.
        ns.sh_within(
            &format!(
                "dd if=/dev/zero of='{}' bs=1M count={lun_mib} conv=fsync 2>&1",
                file.display()
            ),
            Duration::from_secs(120),
        )?;
        let spec = Spec {
            file: file.clone(),
            size_mib: lun_mib,
            cpu: Some(TARGET_CPU),
            ..Spec::new(kind, PORTAL)
        };
        let target = spec.start(&ns)?;
        Ok(Self { target, ns, file })
    }

    fn measure(&self, workload: &Workload, time: Duration) -> Result<Sample> {
        let pid = self.target.process.pid();
        let before = cpu::used(pid)?;
        let done = fio::run(&self.ns, &self.target.url(PORTAL), workload, time, FIO_CPU)?;
        let cpu = cpu::used(pid)? - before;
        Ok(Sample::new(&done, cpu))
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // In tmpfs it goes with the namespace, where it cannot be seen from here.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Measure, telling each measurement to `progress` as it is taken.
///
/// # Errors
/// A target or fio fails.
pub fn run(plan: &Plan, mut progress: impl FnMut(&str)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for medium in &plan.media {
        let mut contenders = Vec::new();
        for (number, kind) in plan.kinds.into_iter().enumerate() {
            contenders.push(Contender::start(kind, medium, number, plan.lun_mib)?);
        }
        let label = medium.label(&contenders[0].ns)?;
        for workload in &Workload::ALL {
            let mut samples = [Vec::new(), Vec::new()];
            // Interleaved: what else the machine does meets both.
            for round in 1..=plan.rounds {
                for ((contender, kind), samples) in contenders.iter().zip(plan.kinds).zip(&mut samples) {
                    let sample = contender.measure(workload, plan.time)?;
                    let words = sample.words(workload);
                    progress(&format!(
                        "{label} {} round {round} {}: {words}",
                        workload.name,
                        kind.label()
                    ));
                    samples.push(sample);
                }
            }
            let names = plan.kinds.map(Kind::label);
            rows.push(Row {
                medium: label.clone(),
                workload: workload.clone(),
                names,
                samples,
            });
        }
    }
    Ok(rows)
}
