//! Ctrl-C for commands that hold nothing but a file: it is removed, and the command ends.

use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::signals::BY_SIGNAL;

/// A file that must not outlive the command, whatever ends it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leftover(Arc<Mutex<Option<PathBuf>>>);

impl Leftover {
    /// Has SIGINT and SIGTERM end the command from now on: with the status of the shell,
    /// whatever the other threads are waiting for.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn watch() -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let leftover = Self::default();
        let watched = leftover.clone();
        let end = move || {
            if let Some(signal) = signals.forever().next() {
                watched.remove();
                process::exit(BY_SIGNAL + signal);
            }
        };
        thread::Builder::new().spawn(end)?;
        Ok(leftover)
    }

    /// Makes the file. A signal waits meanwhile, so that it finds the file or comes before it.
    ///
    /// # Errors
    /// What `make` says, which also gives the path.
    pub(crate) fn make<T>(&self, make: impl FnOnce() -> io::Result<(T, PathBuf)>) -> io::Result<T> {
        let mut path = self.path();
        let (made, at) = make()?;
        *path = Some(at);
        Ok(made)
    }

    fn remove(&self) {
        // It stays locked: nobody may make another one now.
        let path = ManuallyDrop::new(self.path());
        if let Some(path) = path.as_ref() {
            // It may have its final name by now.
            let _ = fs::remove_file(path);
        }
    }

    fn path(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
