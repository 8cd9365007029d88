//! The options of `serveloop bench`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::bench::contender::Model;
use crate::bench::spoken::ExchangeOptions;
use crate::outbound::TlsOptions;
use crate::units::{Size, Span};

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// A running server: tcp://HOST:PORT, tls://HOST:PORT or unix://PATH. It sends back what it
    /// receives, unless something else is exchanged. Can be given several times
    #[arg(long, value_name = "URI", help_heading = "What is measured")]
    pub(crate) target: Vec<String>,
    /// Servers to start and compare: event-loop, workers=NUMBER, threaded, forking, sequential
    /// [default without --target: event-loop,threaded,forking]
    #[arg(
        long,
        value_name = "MODELS",
        value_delimiter = ',',
        help_heading = "What is measured"
    )]
    pub(crate) compare: Vec<Model>,
    /// The process of the only --target, on this machine, whose processor time and memory are
    /// measured
    #[arg(long, value_name = "NUMBER", help_heading = "What is measured")]
    pub(crate) process: Option<u32>,

    #[command(flatten)]
    pub(crate) exchange: ExchangeOptions,

    /// How many connections are active at a time [default: 1,100]
    #[arg(
        long,
        value_name = "NUMBERS",
        value_delimiter = ',',
        help_heading = "Load"
    )]
    pub(crate) connections: Vec<usize>,
    /// The size of a message of echo, or of a text of websocket [default: 64]
    #[arg(
        long,
        value_name = "SIZES",
        value_delimiter = ',',
        help_heading = "Load"
    )]
    pub(crate) size: Vec<Size>,
    /// The most messages that are under way on each connection at a time
    #[arg(
        long,
        value_name = "NUMBERS",
        value_delimiter = ',',
        default_value = "1",
        help_heading = "Load"
    )]
    pub(crate) depth: Vec<usize>,
    /// Send this many messages a second, whether or not replies arrive. Times count from the moment at
    /// which a message was due
    #[arg(long, value_name = "NUMBER", help_heading = "Load")]
    pub(crate) rate: Option<u64>,
    /// Open a connection for each message, and close it after the reply
    #[arg(long, help_heading = "Load")]
    pub(crate) churn: bool,
    /// How many more connections to open, use once, and leave idle
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "0",
        help_heading = "Load"
    )]
    pub(crate) idle: usize,

    #[command(flatten, next_help_heading = "TLS")]
    pub(crate) tls: TlsOptions,
    /// Over TLS, let each connection resume an earlier session, as clients that come back do. Without
    /// this each has a full handshake
    #[arg(long, help_heading = "TLS")]
    pub(crate) resume: bool,

    /// How many times to measure each server; servers take turns
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "5",
        help_heading = "Method"
    )]
    pub(crate) rounds: usize,
    /// How long one measurement takes, after a warm-up of a fifth of this
    #[arg(
        long,
        value_name = "DURATION",
        default_value_t = Duration::from_secs(2).into(),
        help_heading = "Method"
    )]
    pub(crate) duration: Span,
    /// A server that sends nothing back for this long has failed
    #[arg(
        long,
        value_name = "DURATION",
        default_value_t = Duration::from_secs(10).into(),
        help_heading = "Method"
    )]
    pub(crate) timeout: Span,
    /// Count system calls per message in a separate short run, under strace if it is installed
    #[arg(long, help_heading = "Method")]
    pub(crate) syscalls: bool,

    /// Write the results as JSON to a file, or to standard output in place of the table
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        default_missing_value = "-",
        help_heading = "Results"
    )]
    pub(crate) json: Option<PathBuf>,
    /// Write the results as a self-contained HTML page with charts
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(crate) report: Option<PathBuf>,

    /// Compare the results with those in a file that --json wrote: earlier ones of the same servers under
    /// the same loads
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(crate) compare_with: Option<PathBuf>,
    /// Measure nothing, and show the results in a file that --json wrote
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Results",
        conflicts_with_all = [
            "target", "compare", "connections", "size", "depth", "rate", "churn", "idle", "resume",
            "rounds", "duration", "timeout", "syscalls",
        ]
    )]
    pub(crate) from: Option<PathBuf>,

    /// Become the server that follows, on these cores, and end with the process of that number
    #[arg(long, hide = true, value_names = ["PROCESS", "CORES"], num_args = 2)]
    pub(crate) launch: Option<Vec<String>>,
    #[arg(last = true, hide = true, requires = "launch")]
    pub(crate) server: Vec<OsString>,
}
