//! How the command ends: one code per kind of failure, the same in every subcommand.

use std::fmt;
use std::process::ExitCode;

/// Why the command ended as it did. The numbers are documented in README.md and in `--help`; scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Anything that has no code of its own.
    Failure = 1,
    /// The command line or the configuration is wrong (clap's own code too).
    Usage = 2,
    /// The other side cannot be reached.
    CannotConnect = 3,
    /// The other side was reached and does not let us in, or we do not trust it; or a change needs `--force`.
    Refused = 4,
    /// What was read back is not what was written.
    DataMismatch = 5,
}

/// The table for `--help`.
pub(crate) const HELP: &str = "Exit codes:
  0  done
  1  any failure that is not below
  2  the command line or the configuration is wrong
  3  the other side, or the daemon to control, cannot be reached
  4  the other side refuses the login, or its host key is not trusted; a change needs --force
  5  what was read back is not what was written";

/// An error and the code to end with.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    /// A failure with a code of its own.
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
        }
    }

    /// The code to end with.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Many errors say their source themselves, others leave it to the chain.
        let mut said = String::new();
        for error in self.error.chain() {
            let text = error.to_string();
            if said.contains(&text) {
                continue;
            }
            if !said.is_empty() {
                said += ": ";
            }
            said += &text;
        }
        f.write_str(&said)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(Exit::Failure, error)
    }
}

/// Gives an error its exit code.
pub(crate) trait OrExit<T> {
    /// Ends with `exit` if this is an error.
    fn or_exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(exit, error))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn nothing_is_said_twice() {
        let failure = |error: anyhow::Error| Failure::new(Exit::Failure, error).to_string();
        assert_eq!(failure(anyhow!("no room")), "no room");
        let chain = Err::<(), _>(anyhow!("no room"))
            .context("cannot write")
            .context("LUN 0");
        assert_eq!(failure(chain.unwrap_err()), "LUN 0: cannot write: no room");
        let told = Err::<(), _>(anyhow!("no room"))
            .context("cannot write: no room")
            .context("LUN 0");
        assert_eq!(failure(told.unwrap_err()), "LUN 0: cannot write: no room");
    }
}
