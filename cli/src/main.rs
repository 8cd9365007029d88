//! The command `serveloop`: ready-made servers on one event loop.

mod bench;
mod check;
mod completions;
mod connect;
mod ctl;
mod destination;
mod escaped;
mod failure;
mod fetch;
mod interrupt;
mod limits_help;
mod logger;
mod manual;
mod monitoring;
mod outbound;
mod patient;
mod protocols;
mod regular_file;
mod restart;
mod serve;
mod serving;
mod settings;
mod signals;
mod sys;
mod threads;
mod top;
mod transcript;
mod unblocked;
mod units;
mod verbosity;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsString;
use std::fs::File;
use std::process::ExitCode;
use std::{env, io, panic, thread};

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use log::LevelFilter;
use rustix::stdio::{dup2_stderr, dup2_stdout};
use serveloop_command::become_program;

use crate::bench::Bench;
use crate::check::Check;
use crate::completions::{Completions, print};
use crate::connect::Connect;
use crate::ctl::Ctl;
use crate::escaped::on_one_line;
use crate::failure::Failure;
use crate::fetch::Fetch;
use crate::manual::Manual;
use crate::serve::{Manager, Reread, Serve};
use crate::settings::{Expanded, Problems, Settings};
use crate::signals::{survive_size_limit, was_closed};
use crate::top::Top;
use crate::transcript::Transcript;
use crate::unblocked::{LAST_WAIT, write_at_once, write_within};
use crate::verbosity::{Verbosity, has_colors};

/// Runs ready-made network servers, with clients and a benchmark for them.
///
/// Start a server:
///
///   $ serveloop serve echo
///   listening on tcp://127.0.0.1:9999
///
/// Talk to it from another terminal:
///
///   $ nc 127.0.0.1 9999
///   good morning
///   good morning
///
/// Or use the built-in client, which supports every kind of socket and several framings and protocols:
///
///   $ serveloop connect tcp://127.0.0.1:9999
///
/// Serve on several sockets at once, with your own limit:
///
///   $ serveloop serve hello --listen tcp://[::1]:7000 --listen unix:///tmp/hello.sock --idle-timeout 5m
///
/// Ctrl-C lets a server finish its open connections; a second Ctrl-C ends them. The exit status is 0
/// after an orderly end, 1 after a failure and 2 for an invalid command line. A client that is ended by
/// SIGHUP, SIGINT or SIGTERM exits with 129, 130 or 143. A server exits with 130, 131 or 143 if a second
/// SIGINT, SIGQUIT or SIGTERM cuts its shutdown short.
#[derive(Debug, Parser)]
#[command(name = "serveloop", version, verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    verbosity: Verbosity,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<Serve>),
    Check(Check),
    Connect(Connect),
    Fetch(Fetch),
    Bench(Box<Bench>),
    Transcript(Transcript),
    Ctl(Ctl),
    Top(Top),
    Completions(Completions),
    Man(Manual),
}

impl Command {
    /// Returns the default log level: a server reports what it does, a client only errors.
    fn usual_level(&self) -> LevelFilter {
        match self {
            Self::Serve(_) => LevelFilter::Info,
            _ => LevelFilter::Error,
        }
    }
}

fn main() -> ExitCode {
    if let Some(failed) = become_program() {
        return failed;
    }

    // Before anything else is opened, and before there are threads.
    let manager = Manager::take();

    tell_panics();
    survive_size_limit();

    if let Some(words) = limits_help::asked(env::args_os()) {
        refuse_closed_output();
        return limits_help::show(&Cli::command(), words).unwrap_or_else(Failure::report);
    }

    let typed: Vec<_> = env::args_os().collect();
    let settings = Settings::of(&typed, Cli::command);
    let expanded = match settings.as_ref().map(Settings::expand).transpose() {
        Ok(expanded) => expanded,
        Err(problems) => return refuse(&problems),
    };
    let arguments = expanded.as_ref().map_or(&typed, |it| &it.arguments);
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let problem = expanded.filter(|_| error.use_stderr());
            let problem = problem.and_then(|it| it.blame_a_place(&error.to_string()));
            if let Some(problem) = problem {
                return refuse(&problem.into());
            }
            refuse_closed_output();
            return answer(&quoting(list_commands(error)));
        }
    };

    cli.verbosity.start_logging(cli.command.usual_level());
    if !matches!(cli.command, Command::Serve(_)) {
        refuse_closed_output();
    }

    let outcome = match cli.command {
        Command::Serve(serve) => {
            let blamed = expanded.clone();
            let file = settings.map(|settings| Reread::new(settings, parse_served));
            let outcome = serve.run(manager, file.zip(expanded));
            outcome.map_err(|failure| blame(failure, blamed.as_ref()))
        }
        Command::Check(check) => check.run(Cli::command, parse_served),
        Command::Connect(connect) => connect.run(),
        Command::Fetch(fetch) => fetch.run(cli.verbosity.is_quiet()),
        Command::Bench(bench) => bench.run(),
        Command::Transcript(transcript) => transcript.run(),
        Command::Ctl(ctl) => ctl.run(),
        Command::Top(top) => top.run(),
        Command::Completions(completions) => {
            completions.run(limits_help::with_topic(Cli::command()))
        }
        Command::Man(manual) => manual.run(limits_help::with_hint(Cli::command())),
    };

    let status = outcome.unwrap_or_else(Failure::report);
    log::logger().flush();
    status
}

/// Reads the command line. Its help says where the limits are.
fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = limits_help::with_hint(Cli::command());
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Parses a command line that serves something.
fn parse_served(arguments: &[OsString]) -> Result<(Serve, Verbosity), clap::Error> {
    let cli = parse(arguments)?;
    match cli.command {
        Command::Serve(serve) => Ok((*serve, cli.verbosity)),
        _ => Err(clap::Error::new(ErrorKind::InvalidSubcommand)),
    }
}

/// Says what is wrong with a file of options.
fn refuse(problems: &Problems) -> ExitCode {
    refuse_closed_output();
    let text = format!("{problems}\n");
    let _ = write_within(io::stderr(), text.as_bytes(), LAST_WAIT);
    ExitCode::from(if problems.is_unread { 1 } else { 2 })
}

/// Adds the place in a file of options that a failure is about.
fn blame(failure: Failure, expanded: Option<&Expanded>) -> Failure {
    match (failure, expanded) {
        (Failure::Usage(problem), Some(expanded)) => {
            let placed = expanded.blame_a_place(&problem);
            Failure::Usage(placed.map_or(problem, |placed| placed.to_string()))
        }
        (failure, _) => failure,
    }
}

/// Makes writes to standard output or standard error fail if they were closed when we began, as in
/// other programs. Otherwise the output would be lost in the /dev/null that Rust's runtime opens.
fn refuse_closed_output() {
    // A descriptor that is open only for reading refuses writes.
    let Ok(refusing) = File::open("/dev/null") else {
        return;
    };

    // Both arguments are open descriptors, so these calls do not fail.
    if was_closed(1) {
        let _ = dup2_stdout(&refusing);
    }
    if was_closed(2) {
        let _ = dup2_stderr(&refusing);
    }
}

/// Reports panics without waiting for a reader. A panic may happen in a loop that serves others
/// while standard error is a stopped terminal.
fn tell_panics() {
    panic::set_hook(Box::new(|panic| {
        let current = thread::current();
        let name = current.name().unwrap_or("<unnamed>");
        let mut text = format!("\nthread '{name}' {panic}\n");

        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            text += &format!("stack backtrace:\n{trace}");
        }

        let _ = write_at_once(io::stderr(), text.as_bytes());
    }));
}

/// Prints the requested help, or explains why a command line makes no sense.
fn answer(error: &clap::Error) -> ExitCode {
    let shown = |has_colors: bool| {
        let text = error.render();
        if has_colors {
            text.ansi().to_string()
        } else {
            text.to_string()
        }
    };

    if !error.use_stderr() {
        let text = shown(has_colors(&io::stdout()));
        return print(text.as_bytes()).unwrap_or_else(Failure::report);
    }

    let text = shown(has_colors(&io::stderr()));
    let _ = write_within(io::stderr(), text.as_bytes(), LAST_WAIT);
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
}

/// Escapes the typed parts of an error, so that they can neither control the terminal nor look like
/// another line.
fn quoting(mut error: clap::Error) -> clap::Error {
    let named = [
        ContextKind::InvalidArg,
        ContextKind::InvalidValue,
        ContextKind::InvalidSubcommand,
    ];

    for kind in named {
        if let Some(ContextValue::String(typed)) = error.get(kind) {
            let shown = ContextValue::String(on_one_line(typed));
            error.insert(kind, shown);
        }
    }
    error
}

/// Adds the list of valid names to the error about an unknown command or protocol.
fn list_commands(mut error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::InvalidSubcommand {
        let tip = StyledStr::from(format!("use one of: {}", known_commands(env::args_os())));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

/// Returns the commands that can follow `arguments`, separated by commas.
fn known_commands(arguments: impl Iterator<Item = OsString>) -> String {
    let mut command = Cli::command();
    command.build();

    let mut level = &command;
    for argument in arguments.skip(1) {
        level = level.find_subcommand(argument).unwrap_or(level);
    }

    let names: Vec<_> = level
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_known_by_their_level() {
        let arguments = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(
            known_commands(arguments("serveloop nonsense").into_iter()),
            "serve, check, connect, fetch, bench, transcript, ctl, top, completions, man, help"
        );
        assert_eq!(
            known_commands(arguments("serveloop -v serve nonsense").into_iter()),
            "echo, discard, hello, greet, print, timestamp, dispatch, operator, command, http, websocket, resp, memcached, chat, help"
        );
    }
}
