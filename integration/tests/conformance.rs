//! libiscsi's conformance suite, every verdict as the committed list has it.

use std::fs;
use std::io::{self, Write as _};

use anyhow::{Context, Result};
use integration::conformance::{self, Results, Verdict};
use integration::target::Kind;

/// The bar: skips do not count as passed.
const PASSED_MIN: usize = 140;
const FAILED_MAX: usize = 30;

#[test]
fn iscsi_test_cu_says_what_the_list_says() -> Result<()> {
    let path = conformance::list_path();
    let list = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let expected = Results::from_list(&list)?;
    let results = conformance::run(Kind::from_env()?)?;
    // Past the harness, which keeps what a test that passes prints to itself.
    writeln!(io::stderr(), "iscsi-test-cu: {}", results.summary())?;
    let wrong = if conformance::is_listed_version()? {
        results.differences(&expected)
    } else {
        results.regressions(&expected)
    };
    assert_eq!(wrong, Vec::<String>::new());
    assert!(
        results.count(Verdict::Pass) >= PASSED_MIN,
        "too few passed: {}",
        results.summary()
    );
    assert!(
        results.count(Verdict::Fail) <= FAILED_MAX,
        "too many failed: {}",
        results.summary()
    );
    Ok(())
}
