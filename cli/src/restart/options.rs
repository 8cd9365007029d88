//! The options of restarts.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::failure::Failure;
use crate::restart::pid_file::PidFile;
use crate::units::Span;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Restarts")]
pub(crate) struct RestartOptions {
    /// Write the number of the process to this file as soon as clients can connect. After a restart by
    /// SIGUSR2 it has the number of the new process. The file is removed at the end
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Let open connections go on in the new process too, where their protocol can: those of echo, hello and
    /// chat, over TCP and Unix sockets without TLS, with --model event-loop. Others stay in the old process
    /// and are finished there
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
    /// Refuses to hand connections over that do not share a loop (`has_loops`), and a file for the number of
    /// the process that has no directory.
    pub(crate) fn check(&self, has_loops: bool) -> Result<(), Failure> {
        if self.handover && !has_loops {
            let problem = "--handover needs --model event-loop: elsewhere each connection belongs to a \
                           thread or a process";
            return Err(Failure::Usage(problem.to_owned()));
        }
        let file = self.pid_file.clone().map(PidFile::new);
        Ok(file.as_ref().map_or(Ok(()), PidFile::check)?)
    }
}
