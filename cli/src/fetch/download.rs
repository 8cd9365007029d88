//! What becomes of a response: its head is shown, its body goes where it was meant to go.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serveloop::ProtocolError;

use crate::destination::{Out, Target};
use crate::fetch::head::Head;
use crate::fetch::http::Recipient;
use crate::interrupt::Leftover;

/// How a download is shown while it goes on, with and without a known length.
const BAR: &str = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const SPINNER: &str = "{spinner} {bytes} {bytes_per_sec}";

/// The body that is being received.
#[derive(Debug)]
pub(crate) struct Download {
    target: Target,
    leftover: Leftover,
    /// The longest body, in bytes.
    max_size: Option<u64>,
    /// How long a named pipe may be without a reader.
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

    /// Refuses bodies of more than `bytes`.
    pub(crate) fn limit(mut self, bytes: Option<u64>) -> Self {
        self.max_size = bytes;
        self
    }

    /// Fails when a named pipe has had no reader for so long.
    pub(crate) fn await_reader(mut self, patience: Option<Duration>) -> Self {
        self.patience = patience;
        self
    }

    /// Shows the head, and how the download goes on, on standard error.
    pub(crate) fn show(mut self, head: bool, progress: bool) -> Self {
        (self.shows_head, self.shows_progress) = (head, progress);
        self
    }

    /// Where else to ask; told once.
    pub(crate) fn take_redirect(&mut self) -> Option<String> {
        self.redirect.take()
    }

    /// Whether nobody reads standard output any more.
    pub(crate) fn has_lost_reader(&self) -> bool {
        self.reader_gone
    }

    /// The body is complete: gives the file its name, or its content.
    ///
    /// # Errors
    /// The system refuses; unless it says otherwise, what was there before is still there.
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

    /// Names what could not be written, for the user.
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
                // Who does not see the head gets the body all the same.
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
