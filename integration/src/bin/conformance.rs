//! Run iscsi-test-cu and show what differs from the committed list, or write the list anew.

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Parser;
use integration::conformance::{self, Results};
use integration::target::Kind;

/// Run iscsi-test-cu against farlun (or FARLUN_TEST_TARGET=tgt) and compare with the committed list.
#[derive(Parser)]
struct Arguments {
    /// Write the list anew; causes stay where the verdict has not changed, look at the others.
    #[arg(long)]
    write: bool,
}

const HEADER: &str = "\
# What iscsi-test-cu 1.19 -t ALL -d says of farlun: suite.test pass|fail|skip [cause].
# Written by `cargo run -p integration --bin conformance -- --write`, which keeps the causes that still hold.
";

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let path = conformance::list_path();
    let expected = match fs::read_to_string(&path) {
        Ok(list) => Results::from_list(&list)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Results::default(),
        Err(e) => return Err(e).context(path.display().to_string()),
    };
    let results = conformance::run(Kind::from_env()?)?;
    let differences = results.differences(&expected);
    for line in &differences {
        println!("{line}");
    }
    println!("{}", results.summary());
    if arguments.write {
        fs::write(&path, format!("{HEADER}{}", results.to_list(&expected)))?;
    } else if !differences.is_empty() {
        bail!("{} differences from {}", differences.len(), path.display());
    }
    Ok(())
}
