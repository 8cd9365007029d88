//! An incomplete file. It is next to the file that it will replace, or wherever there is room for
//! it.

use std::env;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::destination::platform;
use crate::interrupt::Leftover;

/// The mode of a new file, before the process's mask is applied.
const MODE: u32 = 0o666;

/// The mode of a part while it is to replace an existing file. That file may have a different owner
/// and group, so no other user may read the part yet.
const MODE_MEANWHILE: u32 = 0o600;

/// The places for a file without a name, if there is no room in the temporary directory.
const PLACES: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// The mode bits that are kept: the rights to read, write and execute. A file that we now own must
/// not run as its former owner.
const MODE_KEPT: u32 = 0o777;

/// The incomplete content of a file.
#[derive(Debug)]
pub(crate) struct Part {
    target: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// A temporary file in the target's directory, which can replace the target.
    Sibling(NamedTempFile),
    /// A file without a name in another place, whose content is copied to the target.
    Elsewhere(File),
}

impl Part {
    /// Makes an empty part of the file at `target`. Its temporary name is a `leftover`.
    ///
    /// # Errors
    /// Fails if there is no place for it.
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
            Ok(part) => Content::Sibling(part),
            // The existing file can be written, as was checked before, although no new file can be
            // created next to it.
            Err(_) if !is_new => Content::Elsewhere(without_name()?),
            Err(error) => return Err(error),
        };

        Ok(Self {
            target: target.to_owned(),
            content,
        })
    }

    /// Appends `content`.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub(super) fn write_all(&mut self, content: &[u8]) -> io::Result<()> {
        match &mut self.content {
            // The error of `NamedTempFile` would contain the temporary name, which means nothing to
            // the user.
            Content::Sibling(part) => part.as_file_mut().write_all(content),
            Content::Elsewhere(part) => part.write_all(content),
        }
    }

    /// Completes the file by moving the part to its target. If that would lose more than the
    /// target's old content, only the content of the target is replaced.
    ///
    /// # Errors
    /// Fails if the system refuses. Unless the error says otherwise, the old content is still
    /// there.
    pub(super) fn finish(self) -> io::Result<()> {
        let Self { target, content } = self;
        let part = match content {
            Content::Elsewhere(part) => return overwrite(&target, &part),
            Content::Sibling(part) => part,
        };

        match fs::metadata(&target) {
            Ok(old) if !resemble(part.as_file(), &old, &target) => {
                return overwrite(&target, part.as_file());
            }
            _ => {}
        }

        // After a crash, the new name must not be there without its content.
        part.as_file().sync_all()?;

        match part.persist(&target) {
            Ok(_) => Ok(()),
            // The target may be a mount point, or another user's file in a directory like /tmp.
            Err(failed) if is_refused(&failed.error) || is_busy(&failed.error) => {
                overwrite(&target, failed.file.as_file())
            }
            Err(failed) => Err(failed.error),
        }
    }
}

/// Gives `part` the owner, the group and the mode of `old`. Returns false if that is not possible,
/// or if `old` has more that would be lost.
fn resemble(part: &File, old: &Metadata, target: &Path) -> bool {
    let has_other_names = old.nlink() > 1;
    if has_other_names || platform::has_more(target, part) {
        return false;
    }
    // The list must go before the mode is set, which would give more rights to the users in it.
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

/// Replaces the content of the file at `target` with that of `part`. The bytes beyond the old
/// length are written first, since there may be no room for them. If that fails, they are cut off
/// again and nothing has changed.
fn overwrite(target: &Path, part: &File) -> io::Result<()> {
    let mut file = File::options().write(true).open(target)?;
    let old = file.metadata()?;
    if old.mode() & !MODE_KEPT & 0o7777 != 0 {
        // The system does this itself unless the writer is the owner or root.
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
            let problem = format!("{error}; the file is now incomplete");
            io::Error::new(error.kind(), problem)
        })
}

/// Flushes the file to the disk, if the file system supports that.
fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        outcome => outcome,
    }
}

/// Copies `count` bytes from offset `at` to the same offset.
fn copy(mut from: &File, to: &mut File, at: u64, count: u64) -> io::Result<()> {
    from.seek(SeekFrom::Start(at))?;
    to.seek(SeekFrom::Start(at))?;
    let copied = io::copy(&mut io::Read::take(from, count), to)?;
    if copied < count {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Makes a file without a name, which disappears when it is closed, wherever there is room for one.
fn without_name() -> io::Result<File> {
    let usual = env::temp_dir();
    let made = tempfile::tempfile_in(&usual).or_else(|error| {
        let others = PLACES.iter().map(tempfile::tempfile_in);
        others.flatten().next().ok_or(error)
    });

    made.map_err(|error| {
        let problem = format!(
            "cannot create a temporary file in {}: {error}",
            usual.display()
        );
        io::Error::new(error.kind(), problem)
    })
}

/// Creates a new file. The error does not contain its temporary name, which means nothing to the
/// user.
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

/// Returns whether something else is mounted at that name, or the name is on another file system.
fn is_busy(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ResourceBusy | ErrorKind::CrossesDevices
    )
}

/// Returns the directory of a file.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}
