//! libiscsi's conformance suite over five kinds of LUN, every verdict as the committed lists have it: no failure in any
//! kind, and every test passed in one, but those in the table.

use std::fs;
use std::io::{self, Write as _};

use anyhow::{Context, Result};
use integration::conformance::{self, Exceptions, KINDS, Results, Verdict};

/// Tests of `-t ALL`.
const TESTS: usize = 230;
/// The table is for what would be untrue of any medium, not for what is missing.
const EXCEPTIONS_MAX: usize = 19;

#[test]
fn iscsi_test_cu_says_what_the_lists_say() -> Result<()> {
    let read = |path: std::path::PathBuf| fs::read_to_string(&path).with_context(|| path.display().to_string());
    let results = conformance::run()?;
    let listed_version = conformance::is_listed_version()?;
    let mut wrong = Vec::new();
    for (kind, results) in KINDS.iter().zip(&results) {
        // Past the harness, which keeps what a test that passes prints to itself.
        writeln!(io::stderr(), "iscsi-test-cu, {}: {}", kind.name, results.summary())?;
        let expected = Results::from_list(&read(conformance::list_path(kind))?)?;
        let differences = if listed_version {
            results.differences(&expected)
        } else {
            results.regressions(&expected)
        };
        wrong.extend(differences.into_iter().map(|line| format!("{}: {line}", kind.name)));
        let failed = results.named(Verdict::Fail);
        wrong.extend(failed.map(|name| format!("{}: {name} failed", kind.name)));
        if listed_version && results.names().count() != TESTS {
            wrong.push(format!("{}: {} tests, not {TESTS}", kind.name, results.names().count()));
        }
    }
    let exceptions = Exceptions::from_table(&read(conformance::exceptions_path())?)?;
    writeln!(
        io::stderr(),
        "iscsi-test-cu: {} tests pass in no kind",
        exceptions.count()
    )?;
    if listed_version {
        wrong.extend(exceptions.differences(&results));
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(
        exceptions.count() <= EXCEPTIONS_MAX,
        "too many exceptions: {}",
        exceptions.count()
    );
    Ok(())
}
