//! A file as long as it is incomplete: beside the one that it will be, or where there is room for it.

use std::env;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::destination::platform;
use crate::interrupt::Leftover;

/// What a new file may be, less what the process's mask takes away.
const MODE: u32 = 0o666;

/// What a part may be of a file that is there: its owner and group may be other than ours, so that
/// nobody else may read it yet.
const MODE_MEANWHILE: u32 = 0o600;

/// Where what has no name may be, if not where the environment says.
const PLACES: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Rights to read, write and run. A file that is ours now does not run as its former owner.
const MODE_KEPT: u32 = 0o777;

/// What is missing for a file to be complete, or all of it.
#[derive(Debug)]
pub(crate) struct Part {
    target: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// A file with a name of its own in the target's directory, which can take the target's place.
    Beside(NamedTempFile),
    /// A file without a name somewhere else, which is copied.
    Elsewhere(File),
}

impl Part {
    /// An empty part of the file at `target`. Its name is a `leftover`.
    ///
    /// # Errors
    /// There is no place for it.
    pub(super) fn make(target: &Path, leftover: &Leftover) -> io::Result<Self> {
        let is_new = !target.exists();
        let beside = leftover.make(|| {
            let part = tempfile::Builder::new()
                .prefix(".serveloop-")
                .suffix(".part")
                .make_in(directory_of(target), |path| create(path, is_new))?;
            let at = part.path().to_owned();
            Ok((part, at))
        });
        let content = match beside {
            Ok(part) => Content::Beside(part),
            // What is there may be written, as was seen before, though nothing new can be made.
            Err(_) if !is_new => Content::Elsewhere(without_name()?),
            Err(error) => return Err(error),
        };
        Ok(Self {
            target: target.to_owned(),
            content,
        })
    }

    /// Adds to its end.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn write_all(&mut self, content: &[u8]) -> io::Result<()> {
        match &mut self.content {
            // Its own error would have the name, which nobody knows.
            Content::Beside(part) => part.as_file_mut().write_all(content),
            Content::Elsewhere(part) => part.write_all(content),
        }
    }

    /// It is complete, and takes the place of its target; if that is not possible without the loss of
    /// more than the target's content, that alone is replaced.
    ///
    /// # Errors
    /// The system refuses. What was there before is still there, unless the error says otherwise.
    pub(super) fn finish(self) -> io::Result<()> {
        let Self { target, content } = self;
        let part = match content {
            Content::Elsewhere(part) => return overwrite(&target, &part),
            Content::Beside(part) => part,
        };
        match fs::metadata(&target) {
            Ok(old) if !resemble(part.as_file(), &old, &target) => {
                return overwrite(&target, part.as_file());
            }
            _ => {}
        }
        // A name must not outlive a crash that its content does not.
        part.as_file().sync_all()?;
        match part.persist(&target) {
            Ok(_) => Ok(()),
            // A mount point, or somebody else's file in a directory like /tmp.
            Err(failed) if is_refused(&failed.error) || is_busy(&failed.error) => {
                overwrite(&target, failed.file.as_file())
            }
            Err(failed) => Err(failed.error),
        }
    }
}

/// Gives `part` what makes `old` more than its content. False if that is not possible.
fn resemble(part: &File, old: &Metadata, target: &Path) -> bool {
    let has_other_names = old.nlink() > 1;
    if has_other_names || platform::has_more(target, part) {
        return false;
    }
    // Before the mode, which would give more rights to those in the list.
    if platform::remove_access_list(part).is_err() {
        return false;
    }
    let is_ours = part
        .metadata()
        .is_ok_and(|ours| (ours.uid(), ours.gid()) == (old.uid(), old.gid()));
    if !is_ours && fchown(part, Some(old.uid()), Some(old.gid())).is_err() {
        return false;
    }
    let mode = Permissions::from_mode(old.mode() & MODE_KEPT);
    part.set_permissions(mode).is_ok()
}

/// Gives the file at `target` the content of `part`. What makes it longer is written first, since there
/// may be no room for it: then it is cut off again, and nothing has changed.
fn overwrite(target: &Path, part: &File) -> io::Result<()> {
    let mut file = File::options().write(true).open(target)?;
    let old = file.metadata()?;
    if old.mode() & !MODE_KEPT & 0o7777 != 0 {
        // The system does this itself for whoever is neither the owner nor root.
        let _ = file.set_permissions(Permissions::from_mode(old.mode() & MODE_KEPT));
    }

    let (was, is) = (old.len(), part.metadata()?.len());
    if is > was {
        let grown = copy(part, &mut file, was, is - was).and_then(|()| sync(&file));
        if let Err(error) = grown {
            let _ = file.set_len(was);
            return Err(error);
        }
    }
    copy(part, &mut file, 0, is.min(was))
        .and_then(|()| {
            if is < was {
                file.set_len(is)?;
            }
            sync(&file)
        })
        .map_err(|error| {
            let problem = format!("{error}; it is written in part now");
            io::Error::new(error.kind(), problem)
        })
}

/// Has the system write it down, where it writes down anything.
fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        outcome => outcome,
    }
}

/// Copies `count` bytes to the place that they came from, `at`.
fn copy(mut from: &File, to: &mut File, at: u64, count: u64) -> io::Result<()> {
    from.seek(SeekFrom::Start(at))?;
    to.seek(SeekFrom::Start(at))?;
    let copied = io::copy(&mut io::Read::take(from, count), to)?;
    if copied < count {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// A file that is gone when it is closed, where there is room for one.
fn without_name() -> io::Result<File> {
    let usual = env::temp_dir();
    let made = tempfile::tempfile_in(&usual).or_else(|error| {
        let others = PLACES.iter().map(tempfile::tempfile_in);
        others.flatten().next().ok_or(error)
    });
    made.map_err(|error| {
        let problem = format!("{error} (for what is incomplete, in {})", usual.display());
        io::Error::new(error.kind(), problem)
    })
}

/// A new file. Its error does not have the name, which nobody knows.
fn create(path: &Path, is_new: bool) -> io::Result<File> {
    let mode = if is_new { MODE } else { MODE_MEANWHILE };
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
}

fn is_refused(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    )
}

/// Something else is at that name, or on another file system.
fn is_busy(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ResourceBusy | ErrorKind::CrossesDevices
    )
}

/// Where a file is.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}
