//! Where a response goes: to standard output, or to a file that is there when it is complete.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serveloop::ProtocolError;
use tempfile::NamedTempFile;

use super::head::Head;
use super::http::Recipient;
use crate::interrupt::Leftover;

/// What a new file may be, less what the process's mask takes away.
const MODE: u32 = 0o666;

/// How a download is shown while it goes on, with and without a known length.
const BAR: &str = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const SPINNER: &str = "{spinner} {bytes} {bytes_per_sec}";

/// Where a body is to go.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Stdout,
    /// A file that is replaced as a whole.
    File(PathBuf),
    /// What is no file, and is written as it is: a pipe, a device.
    Special(PathBuf),
}

impl Target {
    /// What `path` stands for; `-` is standard output. A link stands for its file.
    ///
    /// # Errors
    /// Nothing can be written there.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
            Ok(found) if found.is_file() => Ok(Self::File(fs::canonicalize(path)?)),
            Ok(_) => Ok(Self::Special(path.to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::File(path.to_owned())),
            Err(error) => Err(error),
        }
    }
}

/// The body that is being received.
#[derive(Debug)]
pub(crate) struct Download {
    target: Target,
    leftover: Leftover,
    /// The longest body, in bytes.
    max_size: Option<u64>,
    shows_head: bool,
    shows_progress: bool,
    received: u64,
    out: Option<Out>,
    progress: ProgressBar,
    redirect: Option<String>,
    reader_gone: bool,
}

#[derive(Debug)]
enum Out {
    Open(File),
    /// The file under a name of its own, until it is complete.
    Part(NamedTempFile),
}

impl Download {
    pub(crate) fn new(target: Target, leftover: Leftover) -> Self {
        Self {
            target,
            leftover,
            max_size: None,
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

    /// The body is complete: gives the file its name.
    ///
    /// # Errors
    /// The system refuses; what was there before is still there.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.progress.finish_and_clear();
        match self.out.take() {
            Some(Out::Part(part)) => self.replace(part),
            Some(Out::Open(_)) | None => Ok(()),
        }
    }

    fn replace(&self, part: NamedTempFile) -> io::Result<()> {
        let Target::File(path) = &self.target else {
            return Ok(());
        };
        if let Ok(old) = fs::metadata(path) {
            part.as_file().set_permissions(old.permissions())?;
        }
        // A name must not outlive a crash that its content does not.
        part.as_file().sync_all()?;
        part.persist(path)?;
        Ok(())
    }

    fn open(&self) -> io::Result<Out> {
        match &self.target {
            // Past the library's buffer, which is written line by line.
            Target::Stdout => Ok(Out::Open(io::stdout().as_fd().try_clone_to_owned()?.into())),
            Target::Special(path) => File::options().write(true).open(path).map(Out::Open),
            Target::File(path) => self.leftover.make(|| {
                let part = tempfile::Builder::new()
                    .prefix(".serveloop-")
                    .suffix(".part")
                    .permissions(Permissions::from_mode(MODE))
                    .tempfile_in(directory_of(path))?;
                let at = part.path().to_owned();
                Ok((Out::Part(part), at))
            }),
        }
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
            Target::File(path) | Target::Special(path) => {
                ProtocolError::other(format!("{}: {error}", path.display()))
            }
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
        self.out = Some(self.open().map_err(|error| self.failed(error))?);
        self.start_progress(head.length);
        Ok(true)
    }

    fn body_received(&mut self, content: &[u8]) -> Result<(), ProtocolError> {
        self.received += content.len() as u64;
        self.check_size(self.received)?;
        self.progress.inc(content.len() as u64);
        let outcome = match &mut self.out {
            Some(Out::Open(file)) => file.write_all(content),
            Some(Out::Part(part)) => part.write_all(content),
            None => Ok(()),
        };
        outcome.map_err(|error| self.failed(error))
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}
