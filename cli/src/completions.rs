//! `serveloop completions`: what a shell needs to complete our command lines.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use crate::failure::Failure;

/// Prints what a shell needs to complete the command lines of serveloop.
///
///   $ serveloop completions bash > ~/.local/share/bash-completion/completions/serveloop
///   $ serveloop completions zsh > /usr/local/share/zsh/site-functions/_serveloop
///   $ serveloop completions fish > ~/.config/fish/completions/serveloop.fish
///
/// A new shell then completes commands, options and their values with the Tab key.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Completions {
    /// The shell
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

/// Prints a whole text. Who closes the other end before it is over has seen enough.
pub(crate) fn print(text: &[u8]) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
