//! Named threads. The name shows in debuggers, and in the error when the system has no thread left.

use std::io;
use std::thread::{self, JoinHandle};

/// Starts a thread named `what` that runs `work`.
///
/// # Errors
/// Fails if the system has no thread left. The message includes `what`.
pub(crate) fn spawn<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let thread = thread::Builder::new().name(what.to_owned());
    thread.spawn(work).map_err(|error| {
        let problem = format!("cannot start a thread for {what}: {error}");
        io::Error::new(error.kind(), problem)
    })
}
