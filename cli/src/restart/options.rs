//! The options of restarts.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::units::Span;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Restarts")]
pub(crate) struct RestartOptions {
    /// Write the number of the process to this file as soon as clients can connect. After a restart by
    /// SIGUSR2 it has the number of the new process. The file is removed at the end
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Let open connections go on in the new process too, where their protocol can: echo and hello without
    /// --framing, over TCP and Unix sockets, with --model event-loop. Others stay in the old process and
    /// are finished there
    #[arg(long, global = true)]
    pub(super) handover: bool,
    /// How long a new process may take until it serves, after SIGUSR2. One that takes longer is ended,
    /// and this one goes on
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "DURATION",
        default_value_t = Duration::from_secs(30).into()
    )]
    pub(super) restart_timeout: Span,
}

impl RestartOptions {
    /// Returns whether open connections move to the new process.
    pub(crate) fn hands_over(&self) -> bool {
        self.handover
    }
}
