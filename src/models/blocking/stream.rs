//! What the blocking driver asks of its connection and of the system, in one trait, so that a
//! simulation can answer instead.

use std::io;
use std::time::{Duration, Instant};

use crate::session::Driver;

/// A connected stream as the blocking driver uses it, with the time and with all that can end a wait.
///
/// One implementation is a socket, and another one simulates it. Errors have the system's number.
pub(crate) trait BlockingStream: Driver {
    /// Returns the time, from a clock that never goes back.
    fn now(&mut self) -> Instant;

    /// Waits, and nothing ends the wait early.
    fn sleep(&mut self, duration: Duration);

    /// Sets how long each [`read`](Self::read) from now on may wait: without limit if it is `None`. A
    /// duration of zero is an error.
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// Waits for input, and reads some. 0 bytes mean the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` after the read timeout, `Interrupted` after a signal, and those of the
    /// connection.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Reads what is there, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, `Interrupted`, and those of the connection.
    fn read_at_once(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends as much as there is room for, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room, `Interrupted`, and those of the connection.
    fn send(&mut self, data: &[u8]) -> io::Result<usize>;

    /// Waits until poll(2) would report one of `events`, a failure or a hang-up of the stream, which
    /// are returned; until the session is woken; until a shutdown is requested of which the session
    /// does not know yet; or for `timeout`. Without `events` it does not look at the stream.
    ///
    /// # Errors
    /// `Interrupted` after a signal, or the system cannot wait.
    fn wait(
        &mut self,
        events: Option<libc::c_short>,
        timeout: Option<Duration>,
    ) -> io::Result<libc::c_short>;

    /// Returns whether a read would return something at once.
    fn has_input(&mut self) -> bool;

    /// Returns the failure of the connection, once, if there is one.
    fn take_error(&mut self) -> Option<io::Error>;

    /// Returns how many bytes the peer's system has not taken yet, or 0 where that is unknown.
    fn unsent(&mut self) -> usize;

    /// Ends our side of the stream, after what was sent.
    fn finish(&mut self) -> io::Result<()>;

    /// Makes the close reset the connection. If this fails, the result is a plain close, which is as
    /// final.
    fn reset(&mut self);

    /// Returns whether a waker of the session exists, so that only [`wait`](Self::wait) may wait.
    fn has_waker(&self) -> bool;

    /// Returns whether the session was woken since the last call.
    fn take_woken(&mut self) -> bool;

    /// Returns, once, why a waker could not be made. The session holds one that does nothing.
    fn take_waker_failure(&mut self) -> Option<io::Error>;

    /// Returns whether a shutdown is requested, as far as that can be told without asking the system
    /// each time.
    fn hears_shutdown(&mut self) -> bool;

    /// Returns whether a shutdown is requested.
    fn is_shutdown(&mut self) -> bool;

    /// Returns how many shutdowns were requested in this process.
    fn requests(&mut self) -> usize;
}
