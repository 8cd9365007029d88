//! Where a response goes: its head to standard error, its body to the target.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serveloop::ProtocolError;

use crate::destination::{Out, Target};
use crate::fetch::head::Head;
use crate::fetch::http::Recipient;
use crate::interrupt::Leftover;

/// Templates of the progress bar, with and without a known length.
const BAR: &str = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const SPINNER: &str = "{spinner} {bytes} {bytes_per_sec}";

/// The download of one body.
#[derive(Debug)]
pub(crate) struct Download {
    target: Target,
    leftover: Leftover,
    /// The size limit of the body, in bytes.
    max_size: Option<u64>,
    /// How long to wait for a reader if the target is a named pipe.
    patience: Option<Duration>,
    shows_head: bool,
    shows_progress: bool,
    received: u64,
    out: Option<Out>,
    progress: ProgressBar,
    redirect: Option<String>,
    reader_gone: bool,
}

impl Download {
    pub(crate) fn new(target: Target, leftover: Leftover) -> Self {
        Self {
            target,
            leftover,
            max_size: None,
            patience: None,
            shows_head: false,
            shows_progress: false,
            received: 0,
            out: None,
            progress: ProgressBar::hidden(),
            redirect: None,
            reader_gone: false,
        }
    }

    /// Refuses a body of more than `bytes`, or accepts any size if it is `None`.
    pub(crate) fn limit(mut self, bytes: Option<u64>) -> Self {
        self.max_size = bytes;
        self
    }

    /// Sets how long to wait for a reader of a named pipe, before the download fails.
    pub(crate) fn await_reader(mut self, patience: Option<Duration>) -> Self {
        self.patience = patience;
        self
    }

    /// Shows the head and the progress on standard error.
    pub(crate) fn show(mut self, head: bool, progress: bool) -> Self {
        (self.shows_head, self.shows_progress) = (head, progress);
        self
    }

    /// Returns the location of a redirection once, and then `None`.
    pub(crate) fn take_redirect(&mut self) -> Option<String> {
        self.redirect.take()
    }

    /// Returns whether standard output has lost its reader.
    pub(crate) fn has_lost_reader(&self) -> bool {
        self.reader_gone
    }

    /// Completes the file: gives it its name, or its content. Call this once the body is complete.
    ///
    /// # Errors
    /// Fails if the system refuses. Unless the error says otherwise, the old content is still
    /// there.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.progress.finish_and_clear();
        self.out.take().map_or(Ok(()), Out::finish)
    }

    fn check_size(&self, size: u64) -> Result<(), ProtocolError> {
        match self.max_size {
            Some(limit) if size > limit => Err(ProtocolError::TooLong {
                length: size,
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
            }),
            _ => Ok(()),
        }
    }

    fn start_progress(&mut self, length: Option<u64>) {
        if !self.shows_progress {
            return;
        }
        let (bar, template) = match length {
            Some(length) => (ProgressBar::new(length), BAR),
            None => (ProgressBar::new_spinner(), SPINNER),
        };

        let style = ProgressStyle::with_template(template);
        self.progress = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    }

    /// Adds the name of the target to an error.
    fn failed(&mut self, error: io::Error) -> ProtocolError {
        match &self.target {
            Target::Stdout => {
                self.reader_gone = error.kind() == ErrorKind::BrokenPipe;
                ProtocolError::other(format!("standard output: {error}"))
            }
            target => ProtocolError::other(format!("{target}: {error}")),
        }
    }
}

impl Recipient for Download {
    fn head_received(&mut self, head: Head) -> Result<bool, ProtocolError> {
        if self.shows_head {
            for line in head.lines() {
                // Not being able to show the head does not stop the download.
                let _ = writeln!(io::stderr(), "{line}");
            }
        }

        if head.is_redirect() {
            self.redirect = head.location;
            return Ok(false);
        }
        if !head.is_success() {
            return Err(ProtocolError::other(head.to_string()));
        }

        self.check_size(head.length.unwrap_or(0))?;
        let out = self.target.open(&self.leftover, self.patience);
        self.out = Some(out.map_err(|error| self.failed(error))?);
        self.start_progress(head.length);
        Ok(true)
    }

    fn body_received(&mut self, content: &[u8]) -> Result<(), ProtocolError> {
        self.received += content.len() as u64;
        self.check_size(self.received)?;
        self.progress.inc(content.len() as u64);

        let outcome = self
            .out
            .as_mut()
            .map_or(Ok(()), |out| out.write_all(content));
        outcome.map_err(|error| self.failed(error))
    }
}
