//! Files that a server reads again while it runs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens a file for reading. A pipe would keep the loop that reads it again waiting for a writer, and is empty
/// the second time.
///
/// # Errors
/// Those of open(2), or `InvalidInput` for a pipe.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Without the flag this would wait for a writer already.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        let problem = "is a pipe; a file is needed, which SIGHUP can read again";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_pipe_is_refused_without_a_wait() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let error = open(&pipe).unwrap_err();
        assert!(error.to_string().starts_with("is a pipe"), "{error}");
        assert!(open(Path::new("/dev/null")).is_ok());
    }
}
