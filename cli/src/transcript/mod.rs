//! `serveloop transcript`: a record of connections, as a person reads it.
//!
//! The record is read one connection at a time, so its length does not matter. What peers have said is
//! escaped.

mod lines;

use std::fs::File;
use std::io::{self, BufReader, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serveloop::protocols::counted;
use serveloop::service::recorder::{RecordingError, RecordingReader};

use crate::escaped::on_one_line;
use crate::failure::Failure;
use crate::transcript::lines::{Style, head, told};
use crate::unblocked::print_in_full;

/// Shows what serve --record has written: each connection, what came and went, when, and how it ended.
///
///   $ serveloop serve echo --record echo.record
///   $ serveloop transcript echo.record
///   connection 1 from tcp://127.0.0.1:52744, listener 0, at 2026-03-01T09:30:07.120394Z
///     +0.000000   connection made
///     +1.204113   <- 13 bytes: "good morning\n"
///                 -> 13 bytes: "good morning\n"
///     +4.000210   end of the peer's stream
///                 closing
///     +4.000305   ended: closed by the peer (13 bytes received, 13 sent)
///
///   1 connection was recorded from 2026-03-01T09:30:00.000000Z on
///
/// Times are in seconds after the connection was opened, and <- is what came from the client. Of a long
/// chunk only the beginning is shown, unless --full is given. Whatever a client sent is escaped.
///
/// If the file is damaged, the connections before the damage are shown, and the status is 1. The library
/// replays the file through a protocol: see `testing::Simulation::replay`.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Transcript {
    /// The file that was written
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show only the connection with this number, which lines of the log have as id. Can be given several
    /// times
    #[arg(long, value_name = "ID")]
    connection: Vec<u64>,
    /// Show every byte, also of long chunks
    #[arg(long)]
    full: bool,
}

impl Transcript {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let about = |error: RecordingError| {
            let file = self.file.display();
            Failure::from(io::Error::new(
                ErrorKind::InvalidData,
                format!("{file}: {error}"),
            ))
        };
        let file = File::open(&self.file).map_err(|error| about(error.into()))?;
        let mut reader = RecordingReader::new(BufReader::new(file)).map_err(about)?;

        let style = Style {
            date: reader.date(),
            is_full: self.full,
        };
        let mut shown = 0_u64;
        let mut total = 0_u64;
        for connection in &mut reader {
            let connection = connection.map_err(about)?;
            total += 1;
            let is_wanted =
                self.connection.is_empty() || self.connection.contains(&connection.id());
            if !is_wanted {
                continue;
            }
            shown += 1;
            if !print_in_full(told(&connection, &style).as_bytes())? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        if shown == 0 && !self.connection.is_empty() {
            let ids: Vec<_> = self.connection.iter().map(u64::to_string).collect();
            let file = on_one_line(&self.file.display().to_string());
            let total = counted(total, "connection", "connections");
            let problem = format!("{file}: it has {total}, and none is {}", ids.join(" or "));
            return Err(io::Error::new(ErrorKind::NotFound, problem).into());
        }
        let summary = head(total, reader.evicted(), reader.has_content(), &style);
        print_in_full(summary.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}
