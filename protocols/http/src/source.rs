//! Bodies of responses that are made while they are sent.

use std::fmt;
use std::io::{self, BufRead};
use std::task::Poll;

/// The body of a response that is produced piece by piece, no faster than the client takes it.
///
/// It works like [`BufRead`], except that it may have nothing *yet*. A source that has something
/// again uses a [`Waker`](serveloop::Waker), which [`Request::waker`](crate::Request::waker) returns.
///
/// ```
/// use serveloop::testing::MemorySession;
/// use serveloop_http::{Dates, Http, Request, Response, Settings, Source};
/// use std::io;
/// use std::sync::Arc;
/// use std::task::Poll;
///
/// /// The numbers down to 1, a line each.
/// struct Countdown(u32, String);
///
/// impl Source for Countdown {
///     fn fill(&mut self) -> Poll<io::Result<&[u8]>> {
///         if self.1.is_empty() && self.0 > 0 {
///             self.1 = format!("{}\n", self.0);
///             self.0 -= 1;
///         }
///         Poll::Ready(Ok(self.1.as_bytes()))
///     }
///
///     fn consume(&mut self, count: usize) {
///         self.1.drain(..count);
///     }
/// }
///
/// let settings = Arc::new(Settings { dates: Dates::Omitted, ..Settings::default() });
/// let handler = |_: &Request<'_>| Response::new(200).stream(Countdown(2, String::new()));
/// let mut session = MemorySession::new(Http::new(handler).with_settings(&settings));
/// session.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
/// assert!(session.sent().ends_with(b"\r\n\r\n2\r\n2\n\r\n2\r\n1\n\r\n0\r\n\r\n"));
/// ```
pub trait Source: Send {
    /// Returns bytes that come next: more than none, or none at the end. Until they are
    /// [consumed](Self::consume), the same bytes are returned again, possibly with more after them.
    ///
    /// # Errors
    /// An error resets the connection, because nothing else tells the client that the body is not
    /// complete.
    fn fill(&mut self) -> Poll<io::Result<&[u8]>>;

    /// Drops the first `count` bytes, which were sent.
    fn consume(&mut self, count: usize);

    /// Returns how many bytes of memory the source keeps. They count towards
    /// [`max_buffered`](serveloop::Config::max_buffered). By default 0.
    fn held(&self) -> usize {
        0
    }
}

/// A source that reads, and waits while it reads: for memory, and for models where a connection has
/// its own thread or process. On a loop, a slow reader holds up all connections.
pub(crate) struct Reading<R>(pub(crate) R);

impl<R: BufRead + Send> Source for Reading<R> {
    fn fill(&mut self) -> Poll<io::Result<&[u8]>> {
        Poll::Ready(self.0.fill_buf())
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }
}

impl fmt::Debug for dyn Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}
