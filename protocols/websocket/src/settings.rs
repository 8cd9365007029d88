//! What a server decides for all its WebSockets.

use std::time::Duration;

/// What a server decides for all its WebSockets. The other limits are those of the connection, its
/// [`Limits`](serveloop::Limits):
///
/// - `max_frame` is the longest message, whether in one frame or in fragments. A longer one ends the
///   connection with the code 1009, as soon as a header shows that it is longer.
/// - `first_message_timeout` is the time for the request, `message_timeout` the time from the first
///   byte of a message to its last.
/// - `max_output` is the most that may wait for a client, and `max_posted` the most that others may have
///   for it.
///
/// ```
/// use serveloop_websocket::Settings;
/// use std::time::Duration;
///
/// let settings = Settings { ping_interval: Some(Duration::from_secs(10)), ..Settings::default() };
/// assert_eq!(settings.max_head, 16 << 10);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most bytes of a request, from its first line to the empty line at its end. A longer one is
    /// answered with 431. Default 16 KiB.
    pub max_head: usize,
    /// How long a client may take to answer our close frame before the connection is closed without
    /// its answer. Default 5 s.
    pub close_timeout: Duration,
    /// After how much silence a client is sent a ping. If it has sent nothing when the same time has
    /// passed again, the connection is closed with the code 1011. `None` for never; then
    /// `idle_timeout` ends the connections of silent clients. Default 30 s.
    pub ping_interval: Option<Duration>,
    /// Whether messages are compressed for clients that offer it. Default [`Compression::Off`].
    pub compression: Compression,
}

/// Whether messages are compressed for clients that offer it.
///
/// ```
/// use serveloop_websocket::{Compression, Settings};
///
/// let settings = Settings { compression: Compression::Deflate, ..Settings::default() };
/// # let _ = settings;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// They are not.
    #[default]
    Off,
    /// By permessage-deflate (RFC 7692). Each message is compressed for itself, so that a connection
    /// needs no memory for that between messages. A message counts with its length before compression
    /// towards `max_frame`. One that is shorter than 64 bytes, or would not become shorter, is sent as it
    /// is.
    ///
    /// What a [`MessageOutbox`](crate::MessageOutbox) sends is compressed where it is posted. What a
    /// [`MessageGroup`](crate::MessageGroup) sends is compressed once for all its members, and not for those
    /// that ask for a window of less than 32 KiB (`server_max_window_bits`). A thread that posts or publishes
    /// has a compressor of 300 KiB.
    ///
    /// Do not compress secrets together with what an attacker chooses: the length tells about both.
    Deflate,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_head: 16 << 10,
            close_timeout: Duration::from_secs(5),
            ping_interval: Some(Duration::from_secs(30)),
            compression: Compression::Off,
        }
    }
}
