//! `iscsi-test-cu`, libiscsi's conformance suite, over five kinds of LUN: run it, read its verdicts, compare them test by
//! test with committed lists, and with the table of what no kind can pass.

mod kinds;
mod results;
mod run;

pub use kinds::{KINDS, LunKind};
pub use results::{Results, Verdict};
pub use run::{is_listed_version, run};

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::paths;

/// The version of the suite that the lists were written with.
pub const LISTED_VERSION: &str = "1.19";

/// The committed list of a kind.
pub fn list_path(kind: &LunKind) -> PathBuf {
    paths::here().join(format!("expected/iscsi-test-cu-{}.txt", kind.name))
}

/// The committed table of tests that pass in no kind: `suite.test reason`, a line each.
pub fn exceptions_path() -> PathBuf {
    paths::here().join("expected/iscsi-test-cu-exceptions.txt")
}

/// What passes nowhere, by name, with the reason.
#[derive(Debug, Default)]
pub struct Exceptions(BTreeMap<String, String>);

impl Exceptions {
    /// Read the table; `#` starts a comment line.
    ///
    /// # Errors
    /// A row has no reason, or a name is there twice.
    pub fn from_table(table: &str) -> Result<Self> {
        let mut rows = BTreeMap::new();
        let is_row = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
        for line in table.lines().filter(is_row) {
            let (name, reason) = line
                .split_once(' ')
                .with_context(|| format!("without a reason: {line}"))?;
            let before = rows.insert(name.to_owned(), reason.to_owned());
            ensure!(before.is_none(), "listed twice: {name}");
        }
        Ok(Self(rows))
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What is wrong with the table, a line each: tests that pass in none of `kinds` and have no row, and rows that are
    /// not needed.
    pub fn differences(&self, kinds: &[Results]) -> Vec<String> {
        let passes = |name: &str| {
            kinds
                .iter()
                .any(|kind| kind.named(Verdict::Pass).any(|passed| passed == name))
        };
        let mut names: Vec<&str> = kinds.iter().flat_map(Results::names).collect();
        names.sort_unstable();
        names.dedup();
        let missing = names
            .iter()
            .filter(|name| !passes(name) && !self.0.contains_key(**name));
        let mut lines: Vec<String> = missing
            .map(|name| format!("{name}: passed in no kind, and has no row"))
            .collect();
        let needless = self
            .0
            .keys()
            .filter(|name| passes(name) || !names.contains(&name.as_str()));
        lines.extend(needless.map(|name| format!("{name}: has a row that is not needed")));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_rows_that_are_needed_and_no_others() {
        let thick = Results::from_list("A.one pass\nA.two skip why\nA.three skip why\n").unwrap();
        let thin = Results::from_list("A.one skip why\nA.two pass\nA.three skip why\n").unwrap();
        let kinds = [thick, thin];
        let good = Exceptions::from_table("# words\n\nA.three because\n").unwrap();
        assert_eq!(good.differences(&kinds), Vec::<String>::new());
        let bad = Exceptions::from_table("A.two because\nB.four because\n").unwrap();
        assert_eq!(
            bad.differences(&kinds),
            [
                "A.three: passed in no kind, and has no row",
                "A.two: has a row that is not needed",
                "B.four: has a row that is not needed"
            ]
        );
        assert!(Exceptions::from_table("A.two").is_err());
        assert!(Exceptions::from_table("A.two a\nA.two b").is_err());
    }
}
