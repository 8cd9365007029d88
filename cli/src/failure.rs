//! Why the command ends without having done what it was asked to.

use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::escaped::on_one_line;
use crate::unblocked::{LAST_WAIT, write_within};

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
    /// nothing but the moment of the end: the signals are caught by now, so nothing else would free us
    /// from waiting.
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
