//! Run iscsi-test-cu over every kind of LUN and show what differs from the committed lists, or write the lists anew.

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Parser;
use integration::conformance::{self, Exceptions, KINDS, Results};

/// Run iscsi-test-cu against farlun and compare with the committed lists.
#[derive(Parser)]
struct Arguments {
    /// Write the lists anew; causes stay where the verdict has not changed, look at the others.
    #[arg(long)]
    write: bool,
}

const HEADER: &str = "\
# What iscsi-test-cu 1.19 -t ALL says of this kind of LUN: suite.test pass|fail|skip [cause].
# Written by `cargo run -p integration --bin conformance -- --write`, which keeps the causes that still hold.
";

fn read_or_nothing(path: &std::path::Path) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(e).context(path.display().to_string()),
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let results = conformance::run()?;
    let mut count = 0;
    for (kind, results) in KINDS.iter().zip(&results) {
        let path = conformance::list_path(kind);
        let expected = Results::from_list(&read_or_nothing(&path)?)?;
        let differences = results.differences(&expected);
        for line in &differences {
            println!("{}: {line}", kind.name);
        }
        println!("{}: {}", kind.name, results.summary());
        count += differences.len();
        if arguments.write {
            fs::write(&path, format!("{HEADER}{}", results.to_list(&expected)))?;
        }
    }
    // Reasons are for people to write.
    let exceptions = Exceptions::from_table(&read_or_nothing(&conformance::exceptions_path())?)?;
    let differences = exceptions.differences(&results);
    for line in &differences {
        println!("{line}");
    }
    if !arguments.write && count + differences.len() > 0 {
        bail!("{} differences from the lists", count + differences.len());
    }
    Ok(())
}
