//! Signals and time limits for commands that leave a file behind: the file is removed however the
//! command ends.

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use std::{fs, io, process, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::failure::Failure;
use crate::signals::{BY_SIGNAL, endings};
use crate::threads::{self, lock};

/// How long after its limit a command is forced to end. The loop sees the limit first and ends in
/// order, unless something holds it up.
const GRACE: Duration = Duration::from_millis(250);

/// A file that must not outlive the command, however it ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leftover(Arc<Mutex<Option<PathBuf>>>);

impl Leftover {
    /// Makes every signal that would end the command remove the file first, even while other
    /// threads wait. SIGINT, SIGTERM and SIGHUP then exit with the shell's status for that signal,
    /// and the others end the command as they would have. Signals that were ignored at the start,
    /// as by `nohup`, still do nothing.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub(crate) fn watch() -> io::Result<Self> {
        let mut signals = Signals::new(endings()).map_err(|error| {
            let problem = format!("cannot watch for signals: {error}");
            io::Error::new(error.kind(), problem)
        })?;

        let leftover = Self::default();
        let watched = leftover.clone();

        let end = move || {
            if let Some(signal) = signals.forever().next() {
                watched.remove();
                if !matches!(signal, SIGINT | SIGTERM | SIGHUP) {
                    // This returns only for a signal that it does not know.
                    let _ = emulate_default_handler(signal);
                }
                process::exit(BY_SIGNAL + signal);
            }
        };

        threads::spawn("signals", end)?;
        Ok(leftover)
    }

    /// Makes the command fail with `problem` when it takes much longer than `limit`, even while it
    /// waits for the system, such as for the reader of a pipe or for name resolution.
    ///
    /// # Errors
    /// Fails if the system has no thread left.
    pub(crate) fn end_after(&self, limit: Duration, problem: String) -> io::Result<()> {
        let leftover = self.clone();
        let end = move || {
            thread::sleep(limit.saturating_add(GRACE));
            leftover.remove();
            let _ = Failure::from(io::Error::other(problem)).report();
            process::exit(1);
        };

        threads::spawn("a time limit", end)?;
        Ok(())
    }

    /// Makes the file and records its path. A signal handler waits for the lock meanwhile, so it
    /// either finds the file or runs before it exists.
    ///
    /// # Errors
    /// Returns the error of `make`, which also returns the path.
    pub(crate) fn make<T>(&self, make: impl FnOnce() -> io::Result<(T, PathBuf)>) -> io::Result<T> {
        let mut path = self.path();
        let (made, at) = make()?;
        *path = Some(at);
        Ok(made)
    }

    /// Removes the file, and keeps any other from being made because the process is about to end.
    pub(crate) fn remove(&self) {
        // The lock is never released, so no other file can be made.
        let path = ManuallyDrop::new(self.path());
        if let Some(path) = path.as_ref() {
            // The file may have its final name by now, and then there is nothing to remove.
            let _ = fs::remove_file(path);
        }
    }

    fn path(&self) -> MutexGuard<'_, Option<PathBuf>> {
        lock(&self.0)
    }
}
