//! `serveloop check`: says what is wrong with a file for `serve --config`, and serves nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{fmt, io};

use clap::{Args, Command};

use crate::failure::Failure;
use crate::serve::{Parse, Reread};
use crate::settings::Settings;
use crate::unblocked::{LAST_WAIT, print_in_full, write_within};

/// Checks a file for `serve --config`, as far as that is possible without serving.
///
///   $ serveloop check echo.toml
///   echo.toml: ok
///
/// Everything that is wrong has a line on standard error, with the file, the line and the column, and the
/// exit status is 1: what is no TOML, an unknown key, a value that the option does not take, options that
/// contradict each other, an address that is none, and a certificate or a list that cannot be read. What
/// `serve` refuses before it listens is refused here too. Whether an address is free, a socket is passed,
/// and a group or an interface is there, shows only when it is served.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Check {
    /// The file in TOML; see serve --help
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Check {
    /// Returns the exit status.
    pub(crate) fn run(self, command: fn() -> Command, parse: Parse) -> Result<ExitCode, Failure> {
        let reread = Reread::new(Settings::alone(&self.file, command), parse);
        let file = self.file.display();
        match reread.check() {
            Ok(()) => {
                let line = format!("{file}: ok\n");
                print_in_full(line.as_bytes())?;
                Ok(ExitCode::SUCCESS)
            }
            Err(problems) => Ok(tell(&problems)),
        }
    }
}

/// Says what is wrong. Returns the exit status.
fn tell(problems: &impl fmt::Display) -> ExitCode {
    let lines = format!("{problems}\n");
    let _ = write_within(io::stderr(), lines.as_bytes(), LAST_WAIT);
    ExitCode::FAILURE
}
