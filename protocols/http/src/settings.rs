//! Limits and choices of the protocol itself.

use std::time::Duration;

use serveloop::Limits;

/// Limits of HTTP, in addition to those of the connection.
///
/// The connection's own [`Limits`](serveloop::Limits) have a meaning here too: `max_line` is the
/// longest line of a head (a longer request line is answered with 414, another line with 431),
/// `max_frame` the longest body unless `max_body` is set, and `message_timeout` how long a head may
/// take from its first byte to its last (408).
///
/// ```
/// use serveloop_http::{Http, Request, Response, Settings};
/// use std::sync::Arc;
///
/// let settings = Arc::new(Settings { max_fields: 30, ..Settings::default() });
/// let http = Http::new(|_: &Request<'_>| Response::text("hello\n")).with_settings(&settings);
/// # let _ = http;
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most bytes of a head. More is answered with 431. The trailers of a chunked body may have
    /// `max_line` bytes together. Default 64 KiB.
    pub max_head: usize,
    /// The most header fields of a request, up to 100. More are answered with 431. Default 100.
    pub max_fields: usize,
    /// The most bytes of a request's body. More is answered with 413, before the handler is asked if
    /// the length is known. Default `None`, which is the connection's `max_frame`.
    pub max_body: Option<u64>,
    /// How many bytes of a body that the handler does not want are read so that the connection can
    /// go on. If more are left, the connection ends after the response. Default 64 KiB.
    pub max_discard: u64,
    /// How many bytes of a body, or its rest, have to arrive in each `message_timeout`. A slower
    /// client is answered with 408. Default 4 KiB.
    pub body_pace: u64,
    /// How long a handler may take to answer later. After that the client is answered with 503.
    /// Default 60 s.
    pub reply_timeout: Option<Duration>,
    /// Whether responses say when they were made. Default [`Dates::Sent`].
    pub dates: Dates,
}

/// Whether responses have the field `Date`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dates {
    /// They have it, as a server with a clock must.
    Sent,
    /// They do not, so that two runs of a test give the same bytes.
    Omitted,
}

impl Settings {
    pub(crate) const DEFAULT: Self = Self {
        max_head: 64 * 1024,
        max_fields: FIELDS_MOST,
        max_body: None,
        max_discard: 64 * 1024,
        body_pace: 4 * 1024,
        reply_timeout: Some(Duration::from_secs(60)),
        dates: Dates::Sent,
    };

    /// Returns the most bytes of a head. A session keeps no more than `max_frame` and this room of an
    /// incomplete message.
    pub(crate) fn max_head_within(&self, limits: &Limits) -> usize {
        self.max_head.min(limits.max_frame.saturating_add(1024))
    }

    /// Returns the most bytes of a body.
    pub(crate) fn max_body_within(&self, limits: &Limits) -> u64 {
        self.max_body.unwrap_or(limits.max_frame as u64)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The most header fields that a head can have, whatever the settings say.
pub(crate) const FIELDS_MOST: usize = 100;
