//! Why the command ends without having done what it was asked to.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;

#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line makes no sense, in a way that only shows when it is taken as a whole.
    Usage(String),
    /// The system refused something.
    System(io::Error),
}

impl Failure {
    /// An error about what was typed: `InvalidInput` is the user's to mend, all else the system's.
    pub(crate) fn of_input(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidInput => Self::Usage(error.to_string()),
            _ => Self::System(error),
        }
    }

    /// Says why on standard error, and with which status to exit. Whether anybody reads it changes
    /// nothing.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Usage(problem) => {
                let error = clap::Error::raw(ErrorKind::ValueValidation, problem + "\n");
                let _ = error.print();
                ExitCode::from(2)
            }
            Self::System(error) => {
                let _ = writeln!(io::stderr(), "serveloop: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}
