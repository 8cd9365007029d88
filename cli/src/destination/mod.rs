//! Where a body goes: to standard output, or to a file that has it when it is complete.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::escaped::for_terminal;
use crate::fetch::part::{Part, directory_of};
use crate::interrupt::Leftover;
use crate::patient::Patient;

/// The descriptors that a process has open, as files of Linux and of others.
const OPEN_FILES: [&str; 2] = ["/proc/self/fd", "/dev/fd"];

/// Where a body is to go.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Stdout,
    Stderr,
    /// A file that gets the whole body at once.
    File(PathBuf),
    /// What is written as the body comes: a pipe, a device, a descriptor by its name.
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
            Ok(found) if found.is_file() && !is_descriptor(path) => Self::old_file(path),
            Ok(_) => Ok(Self::special(path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::new_file(path),
            Err(error) => Err(error),
        }
    }

    /// A name of something that is open already is not opened anew, which would begin at its front.
    fn special(path: &Path) -> Self {
        let open_file = descriptor(path);
        match open_file.as_deref().and_then(Path::to_str) {
            Some("1") => Self::Stdout,
            Some("2") => Self::Stderr,
            _ => Self::Special(path.to_owned()),
        }
    }

    fn old_file(path: &Path) -> io::Result<Self> {
        // One that may not be written is not replaced either.
        match File::options().write(true).open(path) {
            // A program that runs can be replaced, if not written.
            Err(error) if error.kind() != ErrorKind::ExecutableFileBusy => Err(error),
            _ => Ok(Self::File(fs::canonicalize(path)?)),
        }
    }

    fn new_file(path: &Path) -> io::Result<Self> {
        let problem = if path.as_os_str().as_bytes().ends_with(b"/") {
            "no such directory"
        } else if path.is_symlink() {
            "a link to a file that is not there"
        } else {
            access(directory_of(path), Access::WRITE_OK | Access::EXEC_OK)?;
            return Ok(Self::File(path.to_owned()));
        };
        Err(io::Error::new(ErrorKind::NotFound, problem))
    }

    /// Opens it for a body that comes now. A file that is made meanwhile is a `leftover`.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn open(&self, leftover: &Leftover) -> io::Result<Out> {
        let file = match self {
            Self::Stdout => Patient::new(io::stdout())?,
            Self::Stderr => Patient::new(io::stderr())?,
            // What is no file knows no truncation.
            Self::Special(path) => {
                let mut options = File::options();
                options.write(true).truncate(true).open(path)?.into()
            }
            Self::File(path) => return Part::make(path, leftover).map(Out::Part),
        };
        Ok(Out::Open(file))
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

/// A target that was opened.
#[derive(Debug)]
pub(crate) enum Out {
    Open(Patient),
    Part(Part),
}

impl Out {
    /// Writes a piece of the body. A terminal gets nothing that could command it.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn write_all(&mut self, content: &[u8]) -> io::Result<()> {
        match self {
            Self::Open(file) if file.is_terminal() => file.write_all(&for_terminal(content)),
            Self::Open(file) => file.write_all(content),
            Self::Part(part) => part.write_all(content),
        }
    }

    /// The body is complete.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Self::Open(_) => Ok(()),
            Self::Part(part) => part.finish(),
        }
    }
}

fn is_descriptor(path: &Path) -> bool {
    descriptor(path).is_some()
}

/// The number of the open descriptor that `path` is a name of, also by way of links: `/dev/stdout`.
fn descriptor(path: &Path) -> Option<PathBuf> {
    let files = OPEN_FILES.map(|directory| fs::canonicalize(directory).ok());
    let mut path = path.to_owned();
    for _ in 0..8 {
        let directory = fs::canonicalize(directory_of(&path)).ok()?;
        if files.contains(&Some(directory.clone())) {
            return path.file_name().map(PathBuf::from);
        }
        path = directory.join(fs::read_link(&path).ok()?);
    }
    None
}
