//! How much is logged, and where it goes.

use std::env;
use std::io::{self, IsTerminal};

use clap::{ArgAction, Args};
use env_logger::{Builder, Target, WriteStyle};
use log::LevelFilter;

use crate::unblocked::Unblocked;

#[derive(Args, Debug)]
pub(crate) struct Verbosity {
    /// Log more: every connection, and twice (-vv) everything. Overrides RUST_LOG.
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Log nothing but errors. Overrides RUST_LOG.
    #[arg(short, long, global = true)]
    quiet: bool,
}

impl Verbosity {
    /// Logs to standard error from now on, at `usual` unless somebody asks for more or less.
    pub(crate) fn start_logging(&self, usual: LevelFilter) {
        let mut builder = Builder::new();
        builder
            .filter_level(usual)
            .write_style(write_style())
            .parse_default_env()
            .target(Target::Pipe(Box::new(Unblocked::new(io::stderr()))));
        if let Some(level) = self.level() {
            builder.filter(None, level);
        }
        builder.init();
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// The level that the command line asks for, if it does.
    fn level(&self) -> Option<LevelFilter> {
        match (self.quiet, self.verbose) {
            (true, _) => Some(LevelFilter::Error),
            (false, 0) => None,
            (false, 1) => Some(LevelFilter::Debug),
            (false, _) => Some(LevelFilter::Trace),
        }
    }
}

/// The logger sees a pipe where we see a terminal, so the choice is ours.
fn write_style() -> WriteStyle {
    let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && io::stderr().is_terminal() {
        WriteStyle::Always
    } else {
        WriteStyle::Never
    }
}
