//! Destinations of output: standard output, a file that is replaced once its content is complete,
//! or a pipe or device that is written as the output comes.

mod part;
#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "other_systems.rs")]
mod platform;
mod special;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};

use crate::destination::part::{Part, directory_of};
use crate::destination::special::{is_descriptor, own_descriptor};
use crate::escaped::for_terminal;
use crate::interrupt::Leftover;
use crate::patient::Patient;

/// The most symbolic links that are followed in a row, as on Linux.
const LINKS_MOST: usize = 40;

/// A destination of output.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Stdout,
    Stderr,
    /// A file that gets all of the output at once.
    File(PathBuf),
    /// A pipe, a device or the name of a descriptor, which is written as the output comes.
    Special(PathBuf),
}

impl Target {
    /// Returns the target that `path` names. `-` is standard output. A symbolic link means the file
    /// that it leads to, even if that does not exist yet. Creates and changes nothing.
    ///
    /// # Errors
    /// Fails if nothing can be written there.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
            Ok(found) if found.is_file() && !is_descriptor(path) => Self::old_file(path),
            Ok(found) => Self::special(path, found.file_type().is_socket()),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::new_file(path),
            Err(error) => Err(error),
        }
    }

    /// Returns whether both are the same file, by one name or by two.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        let (Self::File(one), Self::File(other)) = (self, other) else {
            return false;
        };
        let number = |path: &Path| fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
        match (number(one), number(other)) {
            (None, None) => place(one) == place(other),
            (one, other) => one == other,
        }
    }

    /// Returns a target for a special file. The names of our own standard output and error are not
    /// opened again, since that would write from the start of the file.
    fn special(path: &Path, is_socket: bool) -> io::Result<Self> {
        match own_descriptor(path).as_deref().and_then(Path::to_str) {
            Some("1") => return Ok(Self::Stdout),
            Some("2") => return Ok(Self::Stderr),
            _ => {}
        }
        if is_socket {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a socket"));
        }
        // This does not open the file, since opening a pipe waits for its reader.
        access(path, Access::WRITE_OK)?;
        Ok(Self::Special(path.to_owned()))
    }

    fn old_file(path: &Path) -> io::Result<Self> {
        // A file that may not be written is not replaced either.
        match File::options().write(true).open(path) {
            // A running program can be replaced, but not written.
            Err(error) if error.kind() != ErrorKind::ExecutableFileBusy => Err(error),
            _ => Ok(Self::File(fs::canonicalize(path)?)),
        }
    }

    /// Returns a target for a file that does not exist yet. The system has already followed the
    /// links without an error other than that nothing is at their end.
    fn new_file(path: &Path) -> io::Result<Self> {
        let mut file = path.to_owned();
        for _ in 0..LINKS_MOST {
            let Ok(next) = fs::read_link(&file) else {
                break;
            };
            file = directory_of(&file).join(next);
        }

        let problem = if is_descriptor(&file) {
            "there is no such open descriptor"
        } else if file.as_os_str().as_bytes().ends_with(b"/") || file.file_name().is_none() {
            "there is no such directory"
        } else {
            let directory = directory_of(&file);
            access(directory, Access::WRITE_OK | Access::EXEC_OK)?;
            // In some directories, such as those below /proc, no file can be created in spite of
            // the right to write.
            tempfile::tempfile_in(directory)?;
            return Ok(Self::File(file));
        };

        Err(io::Error::new(ErrorKind::NotFound, problem))
    }

    /// Opens the target for output. A temporary file that it makes is a `leftover`. For a named
    /// pipe, waits for a reader for up to `patience`.
    ///
    /// # Errors
    /// Fails if the system refuses, or if `patience` has run out.
    pub(crate) fn open(&self, leftover: &Leftover, patience: Option<Duration>) -> io::Result<Out> {
        let file = match self {
            Self::Stdout => Patient::new(io::stdout())?,
            Self::Stderr => Patient::new(io::stderr())?,
            Self::Special(path) => special::open(path, patience)?.into(),
            Self::File(path) => return Part::make(path, leftover).map(Out::Part),
        };
        Ok(Out::Open(file))
    }

    /// Writes `content` as the whole output.
    ///
    /// # Errors
    /// Fails if the system refuses. Unless the error says otherwise, the old content is still
    /// there.
    pub(crate) fn write(&self, content: &[u8], leftover: &Leftover) -> io::Result<()> {
        let mut out = self.open(leftover, None)?;
        out.write_all(content)?;
        out.finish()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::Stderr => f.write_str("standard error"),
            Self::File(path) | Self::Special(path) => path.display().fmt(f),
        }
    }
}

/// An open target.
#[derive(Debug)]
pub(crate) enum Out {
    Open(Patient),
    Part(Part),
}

impl Out {
    /// Writes a piece of the output. For a terminal, it is escaped so that it cannot control it.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub(crate) fn write_all(&mut self, content: &[u8]) -> io::Result<()> {
        match self {
            Self::Open(file) if file.is_terminal() => file.write_all(&for_terminal(content)),
            Self::Open(file) => file.write_all(content),
            Self::Part(part) => part.write_all(content),
        }
    }

    /// Completes the output.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Self::Open(_) => Ok(()),
            Self::Part(part) => part.finish(),
        }
    }
}

/// Returns the path at which a file that does not exist yet will be.
fn place(path: &Path) -> PathBuf {
    let directory = fs::canonicalize(directory_of(path));
    directory.map_or_else(
        |_| path.to_owned(),
        |directory| directory.join(path.file_name().unwrap_or_default()),
    )
}
