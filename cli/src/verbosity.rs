//! Log levels and filters, from the command line or `RUST_LOG`.

use std::env;
use std::io::{self, IsTerminal};

use clap::{ArgAction, Args, ValueEnum};
use env_filter::Builder as FilterBuilder;
use env_logger::{Builder, Target, WriteStyle};
use log::LevelFilter;

use crate::logger::{Logger, TARGET, configure_level, dropped_line, format_as_json};
use crate::unblocked::Unblocked;

#[derive(Args, Debug)]
pub(crate) struct Verbosity {
    /// Log more: -v logs every connection, -vv everything. Overrides RUST_LOG.
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Log only errors. Overrides RUST_LOG.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// The least important lines that are logged. Overrides RUST_LOG
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_enum,
        value_name = "LEVEL",
        conflicts_with_all = ["verbose", "quiet"]
    )]
    log_level: Option<Level>,
    /// How to write the log: as text for people, or as one JSON object on each line, with the fields
    /// time, level and message, and for connections event, id, peer, listener, protocol, and at their
    /// end reason, seconds, read and written
    #[arg(long, global = true, hide_short_help = true, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for people
    Text,
    /// Objects for programs
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// What has failed, as with -q
    Error,
    /// What may need a change
    Warn,
    /// What a server does, with at most 100 lines a second about connections
    Info,
    /// Every connection, and everyday ends such as resets, as with -v
    Debug,
    /// Everything, as with -vv
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

impl Verbosity {
    /// Starts logging to standard error, at level `usual` unless `-v`, `-q` or `RUST_LOG` says
    /// otherwise.
    pub(crate) fn start_logging(&self, usual: LevelFilter) {
        let mut filter = FilterBuilder::new();
        filter.filter_level(usual);
        let mut mistakes = add_directives(&mut filter);
        if self.level().is_some() {
            // They have no effect, unless the level is given up later.
            mistakes.clear();
        }

        let is_json = self.log_format == Format::Json;
        let out = match is_json {
            true => Unblocked::new(io::stderr()).with_report(dropped_line),
            false => Unblocked::new(io::stderr()),
        };

        let mut lines = Builder::new();
        // The filter decides what is written. This logger only formats lines, so it takes all of
        // them.
        lines
            .filter_level(LevelFilter::Trace)
            .write_style(write_style())
            .target(Target::Pipe(Box::new(out.clone())));

        if is_json {
            format_as_json(&mut lines);
        }
        if let Ok(style) = env::var("RUST_LOG_STYLE") {
            lines.parse_write_style(&style);
        }

        Logger::new(filter.build(), lines.build(), out).start();
        configure_level(self.level());
        for mistake in mistakes {
            log::warn!(target: TARGET, "RUST_LOG: {mistake}: it is ignored");
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Returns the level that the command line asks for, if any.
    pub(crate) fn level(&self) -> Option<LevelFilter> {
        if let Some(level) = self.log_level {
            return Some(level.into());
        }
        match (self.quiet, self.verbose) {
            (true, _) => Some(LevelFilter::Error),
            (false, 0) => None,
            (false, 1) => Some(LevelFilter::Debug),
            (false, _) => Some(LevelFilter::Trace),
        }
    }
}

/// Adds the directives of `RUST_LOG` and returns what is wrong with them. The filter itself would
/// print mistakes, which waits for a reader and panics where there is none.
fn add_directives(filter: &mut FilterBuilder) -> Vec<String> {
    let Some(given) = env::var_os("RUST_LOG") else {
        return Vec::new();
    };

    let given = given.to_string_lossy();
    let (directives, pattern) = match given.split_once('/') {
        Some((directives, pattern)) => (directives, format!("/{pattern}")),
        None => (&*given, String::new()),
    };

    let is_wrong = |directive: &&str| FilterBuilder::new().try_parse(directive).is_err();
    let (wrong, mut right): (Vec<_>, Vec<_>) = directives.split(',').partition(is_wrong);

    let mut mistakes: Vec<_> = wrong
        .iter()
        .map(|directive| format!("cannot understand {directive:?}"))
        .collect();

    if right.iter().all(|directive| directive.is_empty()) {
        right.clear();
    }

    let right = right.join(",");
    if filter.try_parse(&format!("{right}{pattern}")).is_err() {
        mistakes.push(format!("cannot understand {pattern:?}"));
        // Each directive parsed on its own above.
        let _ = filter.try_parse(&right);
    }

    mistakes
}

/// Chooses whether to colour lines. The logger writes to a pipe of ours, so it cannot detect the
/// terminal itself.
fn write_style() -> WriteStyle {
    if has_colors(&io::stderr()) {
        WriteStyle::Always
    } else {
        WriteStyle::Never
    }
}

/// Returns whether `out` is a terminal that can show colours and whose user has not refused them.
pub(crate) fn has_colors(out: &impl IsTerminal) -> bool {
    let is_refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_none_or(|value| value == "dumb");
    !is_refused && !is_dumb && out.is_terminal()
}
