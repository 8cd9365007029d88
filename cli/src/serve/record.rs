//! The flight recorder: options, and the moments at which the record is written.

use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serveloop::service::recorder::{Content, Recorder, RecorderOptions};

use crate::failure::Failure;
use crate::serving::Execution;
use crate::signals::at_dump;
use crate::units::Size;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Flight recorder")]
pub(crate) struct RecordOptions {
    /// Record what comes and goes on each connection, with its timing, and write it to this file when a
    /// handler panics, at SIGUSR1, and at the end. The file holds what was said, and only its owner may
    /// read it; `serveloop transcript` shows it. Not with --model forking
    #[arg(long, global = true, value_name = "FILE")]
    record: Option<PathBuf>,
    /// The most bytes of memory for what is recorded. Beyond that whole connections are dropped, those
    /// that have ended before others; a single one has at most a quarter. 16MiB if it is not given
    #[arg(long, global = true, hide_short_help = true, value_name = "SIZE")]
    record_size: Option<Size>,
    /// Record only how many bytes come and go, and not which. Texts of errors may still quote a client
    #[arg(long, global = true, hide_short_help = true)]
    record_sizes: bool,
}

impl RecordOptions {
    /// Returns the recorder, if connections are to be recorded. The options were [checked](Self::check)
    /// before.
    pub(super) fn recorder(&self) -> Option<Recorder> {
        let recorder = self.record.clone().map(|file| self.writing(file));
        if let Some(recorder) = recorder.clone() {
            at_dump(move || recorder.save_in_background());
        }
        recorder
    }

    fn writing(&self, file: PathBuf) -> Recorder {
        let content = match self.record_sizes {
            true => Content::Sizes,
            false => Content::Full,
        };
        let usual = RecorderOptions::default();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        Recorder::new(RecorderOptions {
            max_bytes: self.record_size.map_or(usual.max_bytes, usize::from),
            content,
            file: Some(file),
            date: since.map(|since| (Instant::now(), since)),
        })
    }

    /// Refuses what makes no sense, and a file that cannot be written.
    pub(super) fn check(&self, execution: Execution) -> Result<(), Failure> {
        let Some(file) = &self.record else {
            return self.check_unused();
        };
        if execution.is_forking() {
            let problem = "--record needs another model than forking: a process for each connection would \
                           keep its record to itself";
            return Err(Failure::Usage(problem.to_owned()));
        }
        self.writing(file.clone()).check()?;
        Ok(())
    }

    /// Refuses options that have no effect.
    fn check_unused(&self) -> Result<(), Failure> {
        let unused = [
            (self.record_size.is_some(), "--record-size"),
            (self.record_sizes, "--record-sizes"),
        ];
        match unused.iter().find(|(is_given, _)| *is_given) {
            Some((_, option)) => Err(Failure::Usage(format!("{option} needs --record FILE"))),
            None => Ok(()),
        }
    }
}
