//! `serveloop ctl`: asks a running server, and steers it, through its `--admin`.
//!
//! This room imports `monitoring`, for what can be asked, and single files.

mod client;
mod table;

pub(crate) use self::client::Client;
pub(crate) use self::table::{bytes, span, text_of};

use std::io;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use log::LevelFilter;
use serde_json::Value;

use crate::completions::print;
use crate::ctl::table::{connection, connections, stats};
use crate::failure::Failure;
use crate::monitoring::{Answer, By, Question, Selection};
use crate::units::Span;

/// Looks into a running server, and steers it.
///
/// The server is one that `serveloop serve` started with --admin:
///
///   $ serveloop serve echo --admin unix:///tmp/echo-admin.sock
///   $ serveloop ctl --admin unix:///tmp/echo-admin.sock ls
///   ID  PEER                   LISTENING ON          AGE  IDLE  IN  OUT  HELD  STATE
///    1  tcp://127.0.0.1:54982  tcp://127.0.0.1:9999  13s    2s  29   29     0  open
///   $ serveloop ctl --admin unix:///tmp/echo-admin.sock end 1
///
/// The exit status is 0 if the server did what was asked, 1 if it did not or no server listens there, and 2
/// for an invalid command line. With --json the server's answer is printed as one line of JSON. Where it has
/// none, that is {"unknown":"..."} for an id that is not open, or {"error":"..."}.
///
/// The socket speaks a line of JSON for each question and each answer, so other programs can ask too:
///
///   $ echo '{"do":"stats"}' | nc -N -U /tmp/echo-admin.sock
#[derive(Args, Debug)]
#[command(verbatim_doc_comment, subcommand_required = true)]
pub(crate) struct Ctl {
    /// The address that the server has as --admin: unix:///PATH or tcp://HOST:PORT
    #[arg(long, value_name = "URI")]
    admin: String,
    /// Print the answer as JSON, on one line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: CtlCommand,
}

#[derive(Debug, Subcommand)]
enum CtlCommand {
    /// List the open connections
    ///
    ///   $ serveloop ctl --admin unix:///tmp/echo-admin.sock ls --by traffic --first 10
    #[command(verbatim_doc_comment)]
    Ls(ListOptions),
    /// Show one connection
    ///
    ///   $ serveloop ctl --admin unix:///tmp/echo-admin.sock show 7
    #[command(verbatim_doc_comment)]
    Show {
        /// Its number, as `ls` and the log have it
        id: u64,
    },
    /// End one connection: its protocol is asked to finish
    ///
    ///   $ serveloop ctl --admin unix:///tmp/echo-admin.sock end 7
    #[command(verbatim_doc_comment)]
    End {
        /// Its number, as `ls` and the log have it
        id: u64,
        /// End it at once, and drop what it is owed
        #[arg(long)]
        abort: bool,
    },
    /// Shut the server down, as SIGTERM does
    ///
    ///   $ serveloop ctl --admin unix:///tmp/echo-admin.sock drain
    #[command(verbatim_doc_comment)]
    Drain,
    /// Show counters and times
    ///
    ///   $ serveloop ctl --admin unix:///tmp/echo-admin.sock stats
    #[command(verbatim_doc_comment)]
    Stats,
    /// Change the level of the log until the server ends, or the file of --config gets another one; replaces
    /// -v, -q and RUST_LOG
    ///
    ///   $ serveloop ctl --admin unix:///tmp/echo-admin.sock log debug
    #[command(verbatim_doc_comment)]
    Log {
        /// off, error, warn, info, debug or trace
        level: LevelFilter,
    },
    /// Read certificates and lists again, as SIGHUP does
    ///
    ///   $ serveloop ctl --admin unix:///tmp/echo-admin.sock reload
    #[command(verbatim_doc_comment)]
    Reload,
}

#[derive(Args, Debug)]
struct ListOptions {
    /// Only peers in these networks, such as 10.0.0.0/8,2001:db8::/32, or unix
    #[arg(long, value_name = "NETWORKS")]
    from: Option<String>,
    /// Only connections of the listener with this number, counted from 0
    #[arg(long, value_name = "NUMBER")]
    listener: Option<u16>,
    /// Only connections that are at least so old
    #[arg(long, value_name = "DURATION")]
    older_than: Option<Span>,
    /// Only connections of which no byte has moved for so long
    #[arg(long, value_name = "DURATION")]
    idle_for: Option<Span>,
    /// What comes first
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = By::Age)]
    by: By,
    /// Only the first ones
    #[arg(long, value_name = "NUMBER")]
    first: Option<usize>,
}

impl Ctl {
    /// Asks, and prints the answer.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let question = self.command.question();
        let answer = Client::connect(&self.admin)?.answer(&question)?;

        // Why there is no value is an answer, too.
        if self.json && !matches!(answer, Answer::Ok(_)) {
            let line = serde_json::to_string(&answer).map_err(io::Error::from)? + "\n";
            print(line.as_bytes())?;
        }
        let value = answer.into_result()?;
        let text = match self.json {
            true => format!("{value}\n"),
            false => self.command.text(&value),
        };
        print(text.as_bytes())
    }
}

impl CtlCommand {
    fn question(&self) -> Question {
        match self {
            Self::Ls(options) => Question::Ls(options.selection()),
            Self::Show { id } => Question::Show { id: *id },
            Self::End { id, abort } => Question::End {
                id: *id,
                abort: *abort,
            },
            Self::Drain => Question::Drain,
            Self::Stats => Question::Stats,
            Self::Log { level } => Question::Log {
                level: level.to_string().to_lowercase(),
            },
            Self::Reload => Question::Reload,
        }
    }

    /// Returns an answer as people read it. What was only to be done needs no words.
    fn text(&self, answer: &Value) -> String {
        match self {
            Self::Ls(_) => connections(answer),
            Self::Show { .. } => connection(answer),
            Self::Stats => stats(answer),
            Self::End { .. } | Self::Drain | Self::Log { .. } | Self::Reload => String::new(),
        }
    }
}

impl ListOptions {
    fn selection(&self) -> Selection {
        let text = |span: Option<Span>| span.map(|span| span.to_string());
        Selection {
            from: self.from.clone(),
            listener: self.listener,
            age: text(self.older_than),
            idle: text(self.idle_for),
            by: self.by,
            first: self.first,
        }
    }
}
