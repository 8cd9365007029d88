//! The errors that end the command, and the exit status of each.

use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::escaped::on_one_line;
use crate::unblocked::{LAST_WAIT, write_within};

#[derive(Debug)]
pub(crate) enum Failure {
    /// The options make no sense together, which clap alone cannot see.
    Usage(String),
    /// The system refused a request.
    System(io::Error),
}

impl Failure {
    /// Sorts an error about typed input: `InvalidInput` is a usage error, and any other kind is the
    /// system's.
    pub(crate) fn of_input(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidInput => Self::Usage(error.to_string()),
            _ => Self::System(error),
        }
    }

    /// Returns what is wrong, without the command's name.
    pub(crate) fn problem(&self) -> String {
        match self {
            Self::Usage(problem) => problem.clone(),
            Self::System(error) => error.to_string(),
        }
    }

    /// Prints the error on standard error and returns the exit status. Waits at most [`LAST_WAIT`]
    /// for a slow reader: signals are caught by now, so nothing else would end a longer wait.
    pub(crate) fn report(self) -> ExitCode {
        let (text, status) = match self {
            Self::Usage(problem) => {
                let problem = on_one_line(&problem);
                let error = clap::Error::raw(ErrorKind::ValueValidation, problem + "\n");
                (error.render().to_string(), ExitCode::from(2))
            }
            Self::System(error) => {
                let problem = on_one_line(&error.to_string());
                (format!("serveloop: {problem}\n"), ExitCode::FAILURE)
            }
        };

        let _ = write_within(io::stderr(), text.as_bytes(), LAST_WAIT);
        status
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}
