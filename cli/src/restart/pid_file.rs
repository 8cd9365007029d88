//! The file that holds the number of the server's process.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io, process};

use rustix::io::Errno;

/// A file with the number of this process, once it is written.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    is_own: AtomicBool,
}

impl PidFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            is_own: AtomicBool::new(false),
        }
    }

    /// Returns what the file is called, to tell whether two processes have the same.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Fails if there is no directory where the file could be.
    ///
    /// # Errors
    /// The message names the file.
    pub(super) fn check(&self) -> io::Result<()> {
        let directory = self.path.parent().filter(|it| !it.as_os_str().is_empty());
        let found = fs::metadata(directory.unwrap_or(Path::new(".")));
        match found {
            Ok(found) if !found.is_dir() => Err(self.about(&Errno::NOTDIR.into())),
            Ok(_) if self.path.is_dir() => Err(self.about(&Errno::ISDIR.into())),
            Ok(_) => Ok(()),
            Err(error) => Err(self.about(&error)),
        }
    }

    /// Writes the file. A reader sees the former number or this one, and nothing in between.
    ///
    /// # Errors
    /// The message names the file.
    pub(super) fn write(&self) -> io::Result<()> {
        let text = format!("{}\n", process::id());
        let written = match replace(&self.path, &text) {
            // The directory may not be ours to change, or the file may be a device.
            Err(_) => overwrite(&self.path, &text),
            Ok(()) => Ok(()),
        };
        written.map_err(|error| self.about(&error))?;
        self.is_own.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn about(&self, error: &io::Error) -> io::Error {
        let problem = format!("cannot write the file {}: {error}", self.path.display());
        io::Error::new(error.kind(), problem)
    }

    /// Leaves the file to the process that writes its own number next.
    pub(super) fn leave(&self) {
        self.is_own.store(false, Ordering::SeqCst);
    }

    /// Removes the file if it still has the number of this process.
    pub(super) fn remove(&self) {
        let is_own = self.is_own.swap(false, Ordering::SeqCst);
        let found = is_own.then(|| fs::read_to_string(&self.path));
        let number = found.and_then(|text| text.ok()?.trim().parse::<u32>().ok());
        if number == Some(process::id()) {
            // It may have vanished meanwhile.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes a file where it is. One that is new is there as a whole, or not at all.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let is_new = !path.exists();
    // Opening a pipe would wait for a reader.
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let opened = options.custom_flags(libc::O_NONBLOCK).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    if written.is_err() && is_new {
        let _ = fs::remove_file(path);
    }
    written
}

/// Replaces a file as a whole.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // A device, or a link, such as that of /dev/stdout, which is to stay one.
    let is_other = fs::symlink_metadata(path).is_ok_and(|found| !found.is_file());
    let (false, Some(name)) = (is_other, path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut new = OsString::from(".");
    new.push(name);
    new.push(format!(".{}", process::id()));
    let new = path.with_file_name(new);

    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_another_process_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let file = PidFile::new(path.clone());
        file.remove();
        file.write().unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{}\n", process::id())
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

        fs::write(&path, "1\n").unwrap();
        file.remove();
        assert!(path.exists());

        file.write().unwrap();
        file.leave();
        file.remove();
        assert!(path.exists());

        file.write().unwrap();
        file.remove();
        assert!(!path.exists());

        let nowhere = PidFile::new(directory.path().join("no/pid"));
        for error in [nowhere.write(), nowhere.check()].map(Result::unwrap_err) {
            assert!(error.to_string().contains("no/pid"), "{error}");
        }

        // A directory is no file, and nothing is in a file.
        fs::write(&path, "").unwrap();
        let inside = PidFile::new(path.join("pid"));
        let directory = PidFile::new(directory.path().to_owned());
        for file in [inside, directory] {
            assert_eq!(
                file.write().unwrap_err().to_string(),
                file.check().unwrap_err().to_string()
            );
        }
        PidFile::new("pid".into()).check().unwrap();
    }
}
