//! Threads of the command, each with a name for debuggers and for the error when there is none.

use std::io;
use std::thread::{self, JoinHandle};

/// Starts a thread that does `work`, named for `what` it is about.
///
/// # Errors
/// The system has no thread; the message says for what.
pub(crate) fn spawn<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let thread = thread::Builder::new().name(what.to_owned());
    thread.spawn(work).map_err(|error| {
        let problem = format!("cannot make a thread for {what}: {error}");
        io::Error::new(error.kind(), problem)
    })
}
