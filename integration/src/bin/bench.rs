//! farlun beside another target: throughput, and the processor time it takes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use integration::bench::report::table;
use integration::bench::{self, Medium, Plan};
use integration::paths;
use integration::target::Kind;

/// Measure two targets beside each other, in turn, each pinned to one processor and fio to another.
#[derive(Parser)]
struct Arguments {
    /// How often each measurement is taken.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long one measurement takes, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Size of each LUN in MiB.
    #[arg(long, default_value_t = 512)]
    lun_mib: u64,
    /// A folder on the file system to measure besides tmpfs.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The two targets.
    #[arg(long, value_delimiter = ',', default_value = "farlun,tgt", value_parser = kind)]
    targets: Vec<Kind>,
    /// Write all samples here, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn kind(name: &str) -> Result<Kind, String> {
    [Kind::Farlun, Kind::Tgt]
        .into_iter()
        .find(|kind| kind.label() == name)
        .ok_or_else(|| "farlun or tgt".to_owned())
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Ok(kinds) = <[Kind; 2]>::try_from(arguments.targets) else {
        bail!("two targets are compared")
    };
    if std::thread::available_parallelism()?.get() < 2 {
        bail!("two processors are needed: one for the target, one for the load");
    }
    let folder = arguments.folder.unwrap_or_else(|| paths::here().join(".cache/bench"));
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let plan = Plan {
        kinds,
        media: vec![Medium::Tmpfs, Medium::Folder(folder.canonicalize()?)],
        rounds: arguments.rounds.max(1),
        time: Duration::from_secs_f64(arguments.seconds),
        lun_mib: arguments.lun_mib,
    };
    let rows = bench::run(&plan, |line| eprintln!("{line}"))?;
    print!("{}", table(&rows));
    if let Some(path) = arguments.json {
        fs::write(&path, serde_json::to_vec_pretty(&rows)?).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
