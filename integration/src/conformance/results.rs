//! What `iscsi-test-cu` says, test by test, and lists of it to compare with.
//!
//! The suite counts a test that skips itself as passed, so its own summary is not used.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use anyhow::{Context, Result, bail, ensure};

/// What the suite says where it leaves out a command that would destroy data. Some tests then fail for want of it.
const DATALOSS: &str = "--dataloss flag is not set";

/// How one test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it ran and was as it should be.
    Pass,
    /// An assertion failed.
    Fail,
    /// The test, or a part of it, was left out for want of something.
    Skip,
}

impl Verdict {
    const ALL: [(Self, &str); 3] = [(Self::Pass, "pass"), (Self::Fail, "fail"), (Self::Skip, "skip")];

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|(_, name)| *name == word)
            .map(|(verdict, _)| verdict)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, word) = Self::ALL
            .into_iter()
            .find(|(verdict, _)| verdict == self)
            .expect("all are listed");
        f.write_str(word)
    }
}

/// A verdict and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    verdict: Verdict,
    /// Why it failed or was skipped: in a run the suite's words, in a list ours.
    cause: String,
}

/// Verdicts by `suite.test`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results(BTreeMap<String, Entry>);

impl Results {
    /// Read what `iscsi-test-cu -v` printed.
    ///
    /// # Errors
    /// A test has no verdict (the suite crashed or was killed in it), or there is none at all.
    pub fn from_output(output: &str) -> Result<Self> {
        let mut results = Self::default();
        let mut suite = "";
        let mut open: Option<OpenTest<'_>> = None;
        for line in output.lines() {
            if let Some(name) = line.strip_prefix("Suite: ") {
                results.close(open.take())?;
                suite = name.trim();
            } else if let Some((name, rest)) = line.strip_prefix("  Test: ").and_then(|test| test.split_once(" ...")) {
                results.close(open.take())?;
                let mut test = OpenTest {
                    name: format!("{suite}.{name}"),
                    verdict: None,
                    skipped: None,
                    failure: None,
                };
                test.read(rest);
                open = Some(test);
            } else if line.starts_with("Run Summary:") {
                results.close(open.take())?;
            } else if let Some(test) = &mut open {
                test.read(line);
            }
        }
        results.close(open)?;
        ensure!(!results.0.is_empty(), "no test was run:\n{output}");
        Ok(results)
    }

    /// Read a list of lines `suite.test pass|fail|skip [cause]`; `#` starts a comment line.
    ///
    /// # Errors
    /// A line is not like that, a name is there twice, or a failure has no cause.
    pub fn from_list(list: &str) -> Result<Self> {
        let mut results = Self::default();
        for line in list
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        {
            let (name, rest) = line.split_once(' ').with_context(|| format!("no verdict: {line}"))?;
            let (word, cause) = rest.split_once(' ').unwrap_or((rest, ""));
            let verdict = Verdict::from_word(word).with_context(|| format!("unknown verdict: {line}"))?;
            ensure!(
                verdict != Verdict::Fail || !cause.is_empty(),
                "a failure without its cause: {line}"
            );
            let entry = Entry {
                verdict,
                cause: cause.to_owned(),
            };
            ensure!(
                results.0.insert(name.to_owned(), entry).is_none(),
                "listed twice: {name}"
            );
        }
        Ok(results)
    }

    /// How many have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.0.values().filter(|entry| entry.verdict == verdict).count()
    }

    /// Names of the tests that ended like this.
    pub fn named(&self, verdict: Verdict) -> impl Iterator<Item = &str> {
        let ended = self.0.iter().filter(move |(_, entry)| entry.verdict == verdict);
        ended.map(|(name, _)| name.as_str())
    }

    /// Names of all tests.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Take over what a later run says of the tests that it ran.
    pub fn replace(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// `N passed, N failed, N skipped`.
    pub fn summary(&self) -> String {
        let [passed, failed, skipped] =
            [Verdict::Pass, Verdict::Fail, Verdict::Skip].map(|verdict| self.count(verdict));
        format!("{passed} passed, {failed} failed, {skipped} skipped")
    }

    /// What differs from `expected`, a line per test.
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, entry) in &self.0 {
            match expected.0.get(name) {
                Some(wanted) if wanted.verdict == entry.verdict => {}
                Some(wanted) => lines.push(format!(
                    "{name}: {} ({}), not {}",
                    entry.verdict, entry.cause, wanted.verdict
                )),
                None => lines.push(format!("{name}: {} ({}), not listed", entry.verdict, entry.cause)),
            }
        }
        let missing = expected.0.keys().filter(|name| !self.0.contains_key(*name));
        lines.extend(missing.map(|name| format!("{name}: listed, but was not run")));
        lines
    }

    /// What passes in `expected` and fails here, a line per test: all that can be said when the suite is another version.
    pub fn regressions(&self, expected: &Self) -> Vec<String> {
        let passes = |name: &String| expected.0.get(name).is_some_and(|entry| entry.verdict == Verdict::Pass);
        let failed = self
            .0
            .iter()
            .filter(|(name, entry)| entry.verdict == Verdict::Fail && passes(name));
        failed
            .map(|(name, entry)| format!("{name}: fail ({}), not pass", entry.cause))
            .collect()
    }

    /// These results as a list, with the causes of `old` where its verdict still holds.
    pub fn to_list(&self, old: &Self) -> String {
        let mut list = String::new();
        for (name, entry) in &self.0 {
            let kept = old
                .0
                .get(name)
                .filter(|known| known.verdict == entry.verdict && !known.cause.is_empty());
            let line = format!("{name} {} {}", entry.verdict, kept.unwrap_or(entry).cause);
            writeln!(list, "{}", line.trim_end()).expect("a String takes all");
        }
        list
    }

    fn close(&mut self, test: Option<OpenTest<'_>>) -> Result<()> {
        let Some(test) = test else { return Ok(()) };
        let Some(passed) = test.verdict else {
            bail!("{}: the suite ended in it", test.name)
        };
        let (verdict, cause) = match (passed, test.skipped) {
            (false, Some(DATALOSS)) => (Verdict::Skip, DATALOSS),
            (false, _) => (Verdict::Fail, test.failure.unwrap_or("no assertion is named")),
            (true, Some(why)) => (Verdict::Skip, why),
            (true, None) => (Verdict::Pass, ""),
        };
        let entry = Entry {
            verdict,
            cause: cause.to_owned(),
        };
        ensure!(
            self.0.insert(test.name.clone(), entry).is_none(),
            "{} ran twice",
            test.name
        );
        Ok(())
    }
}

/// A test whose lines are being read.
struct OpenTest<'a> {
    name: String,
    verdict: Option<bool>,
    skipped: Option<&'a str>,
    failure: Option<&'a str>,
}

impl<'a> OpenTest<'a> {
    fn read(&mut self, line: &'a str) {
        // CUnit's verdict is at the start of a line, or follows the dots; the tests' own words are indented.
        if self.verdict.is_none() && (line.starts_with("passed") || line.starts_with("FAILED")) {
            self.verdict = Some(line.starts_with("passed"));
        }
        if let Some((_, why)) = line.split_once("[SKIPPED]") {
            self.skipped = self.skipped.or(Some(why.trim()));
        }
        if line.contains(DATALOSS) {
            self.skipped = Some(DATALOSS);
        }
        if let Some((_, why)) = line.split_once("[FAILED]") {
            self.failure = self.failure.or(Some(why.trim()));
        }
        // `    1. test_x.c:98  - CU_ASSERT_...`
        if let Some((number, assertion)) = line.trim_start().split_once(". ")
            && number.parse::<u32>().is_ok()
        {
            self.failure = self.failure.or(Some(assertion.trim()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut from real runs.
    const OUTPUT: &str = "\
     CUnit - A unit testing framework for C - Version 2.1-3

Suite: CompareAndWrite
  Test: Simple ...    [SKIPPED] COMPAREANDWRITE is not implemented.
    [SKIPPED] COMPAREANDWRITE is not implemented.
passed
Suite: GetLBAStatus
  Test: Simple ...passed
  Test: BeyondEol ...    [FAILED] GET_LBA_STATUS successful but should have failed with ILLEGAL_REQUEST
FAILED
    1. test_get_lba_status_beyond_eol.c:38  - CU_ASSERT_EQUAL(_r,0)
Suite: ProutReserve
  Test: LUNReset ...passed    [FAILED] PRIN command: failed with sense.

Suite: iSCSIdatasn
  Test: iSCSIDataSnInvalid ...FAILED
    1. test_iscsi_datasn_invalid.c:98  - CU_ASSERT_NOT_EQUAL(ret,0)
    2. test_iscsi_datasn_invalid.c:116  - CU_ASSERT_NOT_EQUAL(ret,0)

Run Summary:    Type  Total    Ran Passed Failed Inactive
              suites     51     51    n/a      0        0
";
    const LIST: &str = "\
CompareAndWrite.Simple skip COMPAREANDWRITE is not implemented.
GetLBAStatus.BeyondEol fail GET_LBA_STATUS successful but should have failed with ILLEGAL_REQUEST
GetLBAStatus.Simple pass
ProutReserve.LUNReset pass
iSCSIdatasn.iSCSIDataSnInvalid fail test_iscsi_datasn_invalid.c:98  - CU_ASSERT_NOT_EQUAL(ret,0)
";

    #[test]
    fn a_skip_is_not_a_pass() {
        let results = Results::from_output(OUTPUT).unwrap();
        assert_eq!(results.summary(), "2 passed, 2 failed, 1 skipped");
        assert_eq!(results.to_list(&Results::default()), LIST);
    }

    #[test]
    fn a_test_that_fails_for_want_of_permission_was_left_out() {
        let output = "Suite: A\n  Test: one ...--dataloss flag is not set in. Skipping write\nFAILED\n    1. a.c:1  - CU_ASSERT_EQUAL(_r,0)\n";
        let results = Results::from_output(output).unwrap();
        assert_eq!(
            results.to_list(&Results::default()),
            "A.one skip --dataloss flag is not set\n"
        );
    }

    #[test]
    fn a_list_survives_being_written_and_read() {
        let results = Results::from_list(&format!("# comment\n\n{LIST}")).unwrap();
        assert_eq!(results, Results::from_output(OUTPUT).unwrap());
        for bad in ["A.b", "A.b maybe", "A.b fail", "A.b pass\nA.b skip"] {
            assert!(Results::from_list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_difference_is_named() {
        let results = Results::from_output(OUTPUT).unwrap();
        assert_eq!(results.differences(&results), Vec::<String>::new());
        let other = LIST
            .replace("GetLBAStatus.Simple pass", "GetLBAStatus.Simple fail why")
            .replace("ProutReserve", "P");
        let differences = results.differences(&Results::from_list(&other).unwrap());
        assert_eq!(
            differences,
            [
                "GetLBAStatus.Simple: pass (), not fail",
                "ProutReserve.LUNReset: pass (), not listed",
                "P.LUNReset: listed, but was not run"
            ]
        );
    }

    #[test]
    fn of_another_version_only_what_fails_and_did_pass_is_named() {
        let results = Results::from_output(OUTPUT).unwrap();
        let list = "CompareAndWrite.Simple pass\nGetLBAStatus.BeyondEol pass\nGetLBAStatus.Simple skip\n";
        let regressions = results.regressions(&Results::from_list(list).unwrap());
        assert_eq!(regressions.len(), 1);
        assert!(
            regressions[0].starts_with("GetLBAStatus.BeyondEol: fail"),
            "{regressions:?}"
        );
    }

    #[test]
    fn our_own_words_for_a_cause_are_kept_while_the_verdict_holds() {
        let results = Results::from_output(OUTPUT).unwrap();
        let old = Results::from_list(
            "GetLBAStatus.BeyondEol fail tgt does not look at the end\nCompareAndWrite.Simple fail old cause\n",
        );
        let list = results.to_list(&old.unwrap());
        assert!(list.contains("GetLBAStatus.BeyondEol fail tgt does not look at the end\n"));
        assert!(list.contains("CompareAndWrite.Simple skip COMPAREANDWRITE is not implemented.\n"));
    }

    #[test]
    fn a_suite_that_ends_in_the_middle_is_an_error() {
        let cut = OUTPUT.split("FAILED\n    1. test_iscsi").next().unwrap();
        assert!(
            Results::from_output(cut)
                .unwrap_err()
                .to_string()
                .contains("iSCSIDataSnInvalid"),
            "{cut}"
        );
        assert!(Results::from_output("Failed to log in").is_err());
    }
}
