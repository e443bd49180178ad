//! Answers for people and for programs: lines, tables, JSON.

use std::fmt::Write;

use anyhow::Context;
use serde::Serialize;

use crate::control::protocol::Applied;
use crate::exit::Failure;
use crate::say::say;

/// Prints an answer as JSON.
pub(super) fn json(answer: &impl Serialize) -> Result<(), Failure> {
    say!("{}", serde_json::to_string_pretty(answer).context("JSON")?);
    Ok(())
}

/// Prints what was changed.
pub(super) fn applied(applied: &Applied, as_json: bool, dry_run: bool) -> Result<(), Failure> {
    if as_json {
        return json(applied);
    }
    if applied.changes.is_empty() {
        say!("nothing {}", if dry_run { "would change" } else { "has changed" });
    }
    for change in &applied.changes {
        say!("{change}");
    }
    for note in &applied.notes {
        say!("{note}");
    }
    Ok(())
}

/// Prints rows below their headings, each column as wide as it has to be.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) {
    for line in lines(headings, rows) {
        say!("{line}");
    }
}

fn lines<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let headings = headings.map(str::to_owned);
    let all = || std::iter::once(&headings).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        line.trim_end().to_owned()
    };
    all().map(line).collect()
}

/// Seconds as people say them.
pub(super) fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Bytes, to three digits.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while value >= 1024.0
        && let Some(next) = units.next()
    {
        value /= 1024.0;
        unit = Some(next);
    }
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {}", unit.unwrap_or(&""))
}

/// A time in microseconds, as a bound.
pub(super) fn at_most(us: Option<u64>) -> String {
    match us {
        None => "-".to_owned(),
        Some(us @ 0..1000) => format!("{us} us"),
        Some(us @ 1000..1_000_000) => format!("{:.1} ms", us as f64 / 1e3),
        Some(us) => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// `yes` or `no`.
pub(super) fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let rows = [["a".to_owned(), "bb".to_owned()], ["cccc".to_owned(), String::new()]];
        assert_eq!(lines(["X", "Y"], &rows), ["X     Y", "a     bb", "cccc"]);
    }

    #[test]
    fn numbers_are_said_as_people_would() {
        assert_eq!(
            [5, 65, 3700, 90_000].map(age),
            ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]
        );
        assert_eq!(
            [0, 1023, 1024, 15_728_640, 1 << 40, u64::MAX].map(bytes),
            ["0 B", "1023 B", "1.00 KiB", "15.0 MiB", "1.00 TiB", "16.0 EiB"]
        );
        assert_eq!(
            [None, Some(16), Some(2048), Some(3_000_000)].map(at_most),
            ["-", "16 us", "2.0 ms", "3.0 s"]
        );
    }
}
