//! What is wrong with a configuration: everything at once, each with its line and what to do about it.

use std::fmt;
use std::ops::Range;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Line in the file, from 1, if it stands in one.
    pub(crate) line: Option<usize>,
    /// What is wrong and what to do next.
    pub(crate) text: String,
    /// The file is right, but something is in the way now: it may be gone later.
    pub(crate) passing: bool,
}

/// Something to think about. Two are the same wherever they stand.
#[derive(Debug, Clone)]
pub(crate) struct Warning {
    place: String,
    text: String,
}

impl PartialEq for Warning {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}warning: {}", self.place, self.text)
    }
}

/// All that is wrong, and the file it stands in.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    file: Option<String>,
    /// Byte offsets of the line starts after the first.
    line_starts: Vec<usize>,
    list: Vec<Problem>,
    warnings: Vec<(Option<usize>, String)>,
}

impl Problems {
    /// For a configuration that stands nowhere.
    pub(crate) fn without_file() -> Self {
        Self::default()
    }

    /// For the file called `name` with this text.
    pub(crate) fn of_file(name: &str, text: &str) -> Self {
        Self {
            file: Some(name.to_owned()),
            line_starts: text.match_indices('\n').map(|(at, _)| at + 1).collect(),
            ..Self::default()
        }
    }

    /// The line a byte offset is in.
    pub(crate) fn line_of(&self, span: &Range<usize>) -> Option<usize> {
        self.file.as_ref()?;
        Some(self.line_starts.partition_point(|start| *start <= span.start) + 1)
    }

    /// Something to be put right in the file.
    pub(crate) fn add(&mut self, line: Option<usize>, text: impl Into<String>) {
        self.push(line, text.into(), false);
    }

    /// Something that is in the way now.
    pub(crate) fn add_passing(&mut self, line: Option<usize>, text: impl Into<String>) {
        self.push(line, text.into(), true);
    }

    fn push(&mut self, line: Option<usize>, text: String, passing: bool) {
        self.list.push(Problem { line, text, passing });
    }

    /// Something that works, and mostly is not what somebody wants.
    pub(crate) fn warn(&mut self, line: Option<usize>, text: impl Into<String>) {
        self.warnings.push((line, text.into()));
    }

    /// All warnings, each with its place and by itself.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = Warning> {
        self.warnings.iter().map(|(line, text)| Warning {
            place: match (&self.file, line) {
                (Some(file), Some(line)) => format!("{file}:{line}: "),
                (Some(file), None) => format!("{file}: "),
                (None, _) => String::new(),
            },
            text: text.clone(),
        })
    }

    /// Whether something is known to be wrong with what stands in this line.
    pub(crate) fn knows_of(&self, line: Option<usize>) -> bool {
        line.is_some() && self.list.iter().any(|known| known.line == line)
    }

    /// What was found.
    pub(crate) fn list(&self) -> &[Problem] {
        &self.list
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether the file itself needs no change.
    pub(crate) fn are_all_passing(&self) -> bool {
        self.list.iter().all(|problem| problem.passing)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list: Vec<&Problem> = self.list.iter().collect();
        list.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        for (index, Problem { line, text, .. }) in list.into_iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match (&self.file, line) {
                (Some(file), Some(line)) => write!(f, "{file}:{line}: {text}")?,
                (Some(file), None) => write!(f, "{file}: {text}")?,
                (None, _) => write!(f, "{text}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
