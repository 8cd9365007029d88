//! `serveloop completions`: scripts that let a shell complete our command lines.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use crate::failure::Failure;
use crate::unblocked::print_in_full;

/// Prints a script with which a shell completes the command lines of serveloop.
///
///   $ serveloop completions bash > ~/.local/share/bash-completion/completions/serveloop
///   $ serveloop completions zsh > /usr/local/share/zsh/site-functions/_serveloop
///   $ serveloop completions fish > ~/.config/fish/completions/serveloop.fish
///
/// In a new shell, the Tab key then completes commands, options and their values.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Completions {
    /// The shell to print the script for
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, mut command: clap::Command) -> Result<ExitCode, Failure> {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        print(&script)
    }
}

/// Prints a whole text. A reader that closes the pipe early has seen enough, so that is a success.
pub(crate) fn print(text: &[u8]) -> Result<ExitCode, Failure> {
    print_in_full(text)?;
    Ok(ExitCode::SUCCESS)
}
