//! Problems of a file, with the place of each.

use std::{error, fmt, io};

use crate::escaped::on_one_line;

/// What is wrong, and where: `FILE:LINE:COLUMN: TEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    file: String,
    /// The line and the column, each counted from 1. Without them all of the file is meant.
    place: Option<(usize, usize)>,
    text: String,
}

/// Everything that is wrong with a file, in the order of its lines.
#[derive(Clone, Debug)]
pub(crate) struct Problems {
    all: Vec<Problem>,
    /// Whether the file could not even be read.
    pub(crate) is_unread: bool,
}

impl Problem {
    /// Creates a problem of the byte `at` of the text of a file.
    pub(super) fn new(file: &str, text: &str, at: usize, problem: &str) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let column = before[start..].chars().count() + 1;
        Self {
            file: file.to_owned(),
            place: Some((line, column)),
            text: problem.to_owned(),
        }
    }

    pub(super) fn of_all(file: &str, problem: &str) -> Self {
        Self {
            file: file.to_owned(),
            place: None,
            text: problem.to_owned(),
        }
    }
}

impl Problems {
    pub(super) fn new(mut all: Vec<Problem>) -> Self {
        all.sort_by_key(|problem| problem.place);
        Self {
            all,
            is_unread: false,
        }
    }

    pub(super) fn unread(file: &str, error: &io::Error) -> Self {
        Self {
            all: vec![Problem::of_all(file, &error.to_string())],
            is_unread: true,
        }
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self::new(vec![problem])
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, text) = (on_one_line(&self.file), on_one_line(&self.text));
        match self.place {
            Some((line, column)) => write!(f, "{file}:{line}:{column}: {text}"),
            None => write!(f, "{file}: {text}"),
        }
    }
}

/// Writes a line for each problem.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.all.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl error::Error for Problem {}
impl error::Error for Problems {}
