//! The files that results are written into: checked before anything is measured, and replaced as a
//! whole, so that no reader ever sees a part.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use tempfile::{NamedTempFile, PersistError};

/// The rights of a new file, less what the process's mask takes away.
const MODE: u32 = 0o666;
/// Names of descriptors and devices, which are written as they are, even where they lead to a file.
const DEVICES: [&str; 2] = ["/dev/", "/proc/"];

/// Checks that `path` can be written. Makes nothing, and changes nothing.
///
/// # Errors
/// It cannot be written; the text names it.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    try_out(path).map_err(|error| named(path, &error))
}

/// Writes `text`. A file is replaced by a complete one; what is no file, a pipe or a device, is
/// written as it is.
///
/// # Errors
/// It cannot be written; the text names it. The file that was there before is still there, unless
/// its directory took no other.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let written = match is_regular(path) {
        true => replace(path, text.as_bytes()),
        // Opened at its end, in case that it is a descriptor of a file.
        false => OpenOptions::new()
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes())),
    };
    written.map_err(|error| named(path, &error))
}

/// Whether `path` is a file, or nothing yet.
pub(crate) fn is_regular(path: &Path) -> bool {
    let is_below = |of: &&str| path.as_os_str().as_bytes().starts_with(of.as_bytes());
    let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file());
    !is_special && !DEVICES.iter().any(is_below)
}

/// Whether both paths lead to one file.
pub(crate) fn are_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| match fs::canonicalize(path) {
        Ok(path) => path,
        Err(_) => {
            let directory = fs::canonicalize(directory_of(path));
            directory.map_or_else(
                |_| path.to_owned(),
                |at| at.join(path.file_name().unwrap_or_default()),
            )
        }
    };
    is_regular(one) && place(one) == place(other)
}

fn try_out(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(found) if found.is_file() => OpenOptions::new().append(true).open(path).map(drop),
        Ok(found) if found.file_type().is_socket() => {
            Err(io::Error::new(ErrorKind::InvalidInput, "a socket"))
        }
        // Opening a pipe would wait for its reader.
        Ok(_) => Ok(access(path, Access::WRITE_OK)?),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Err(_) if path.is_symlink() => {
            let problem = "a link to a file that is not there";
            Err(io::Error::new(ErrorKind::NotFound, problem))
        }
        Err(_) if path.as_os_str().as_bytes().ends_with(b"/") => {
            Err(io::Error::new(ErrorKind::NotFound, "no such directory"))
        }
        Err(_) => part(path).map(drop),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link stays, and leads to the new file.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut part = match part(&path) {
        Ok(part) => part,
        // The file itself may be writable where its directory is not.
        Err(error) if path.exists() && is_refusal(&error) => return overwrite(&path, bytes),
        Err(error) => return Err(error),
    };
    if let Ok(old) = fs::metadata(&path) {
        let mode = Permissions::from_mode(old.permissions().mode() & 0o777);
        part.as_file().set_permissions(mode)?;
    }
    part.write_all(bytes)?;
    part.as_file().sync_all()?;
    match part.persist(&path) {
        Ok(_) => Ok(()),
        // A file that is mounted on its own can be written, but not replaced.
        Err(PersistError { .. }) if path.exists() => overwrite(&path, bytes),
        Err(PersistError { error, .. }) => Err(error),
    }
}

fn is_refusal(error: &io::Error) -> bool {
    let kinds = [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem];
    kinds.contains(&error.kind())
}

fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A new file beside `path`, which goes away unless it is given that name.
fn part(path: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".serveloop-")
        .suffix(".part")
        .make_in(directory_of(path), create)
}

/// A new file. Its error does not have the name, which nobody knows.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(MODE).open(path)
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
