//! The directory that is served, and finding files that are really below it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};

/// How a directory on the way is opened, which takes no permission to list it where that is possible.
#[cfg(target_os = "linux")]
const ON_THE_WAY: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const ON_THE_WAY: OFlags = OFlags::RDONLY;

/// A directory.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
    /// Without symbolic links.
    path: PathBuf,
}

/// What is at a path.
pub(super) enum Found {
    File(File),
    Directory,
    /// A pipe, a device or a socket.
    Other,
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let directory = File::open(&path)?;
        if !directory.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self {
            directory: directory.into(),
            path,
        })
    }

    /// Opens what is at `path`, which has only names.
    ///
    /// Symbolic links are resolved first. Then each name is opened without following any, from the
    /// directory on, so that a link that is made meanwhile leads nowhere.
    pub(super) fn find(&self, path: &Path) -> io::Result<Found> {
        let resolved = fs::canonicalize(self.path.join(path))?;
        let inside = resolved.strip_prefix(&self.path);
        let inside = inside.map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;

        let mut names = inside.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        let Some(last) = names.next_back() else {
            return Ok(Found::Directory);
        };
        let mut directory: Option<OwnedFd> = None;
        for name in names {
            let at = directory
                .as_ref()
                .map_or(self.directory.as_fd(), OwnedFd::as_fd);
            directory = Some(open(at, name, ON_THE_WAY | OFlags::DIRECTORY)?);
        }

        let at = directory
            .as_ref()
            .map_or(self.directory.as_fd(), OwnedFd::as_fd);
        // A pipe is not to be waited for.
        let file = File::from(open(
            at,
            last,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
        )?);
        let kind = file.metadata()?.file_type();
        Ok(match (kind.is_file(), kind.is_dir()) {
            (true, _) => Found::File(file),
            (_, true) => Found::Directory,
            _ => Found::Other,
        })
    }
}

fn open(directory: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?)
}
