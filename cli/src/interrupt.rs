//! The end of commands that hold nothing but a file, from outside: it is removed, whatever happens.

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io, process, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::failure::Failure;
use crate::signals::{BY_SIGNAL, endings};
use crate::threads;

/// How much later than its limit a command is ended: the loop sees the limit too, and ends in order
/// unless something holds it up.
const GRACE: Duration = Duration::from_millis(250);

/// A file that must not outlive the command, whatever ends it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leftover(Arc<Mutex<Option<PathBuf>>>);

impl Leftover {
    /// Has every signal that would end the command remove the file first, whatever the other threads
    /// are waiting for. SIGINT, SIGTERM and SIGHUP give the status of the shell, the others end it as
    /// they would have. Those that were ignored when it began, as by `nohup`, still do nothing.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn watch() -> io::Result<Self> {
        let mut signals = Signals::new(endings()).map_err(|error| {
            let problem = format!("cannot listen for signals: {error}");
            io::Error::new(error.kind(), problem)
        })?;
        let leftover = Self::default();
        let watched = leftover.clone();
        let end = move || {
            if let Some(signal) = signals.forever().next() {
                watched.remove();
                if !matches!(signal, SIGINT | SIGTERM | SIGHUP) {
                    // It only returns where it does not know the signal.
                    let _ = emulate_default_handler(signal);
                }
                process::exit(BY_SIGNAL + signal);
            }
        };
        threads::spawn("signals", end)?;
        Ok(leftover)
    }

    /// Has the command fail with `problem` when it takes much longer than `limit`, even while it waits
    /// for the system: for whoever reads a pipe, or a name's address.
    ///
    /// # Errors
    /// The system has no thread.
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

    /// Removes it, and keeps all others from being made: the process is about to end.
    pub(crate) fn remove(&self) {
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
