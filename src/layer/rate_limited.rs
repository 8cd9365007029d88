//! A protocol whose peer is slowed down to a maximum rate.

use std::mem;
use std::num::NonZero;
use std::time::{Duration, Instant};

use crate::error::{Deadline, DeliveryError, ProtocolError};
use crate::session::{Ended, Post, Protocol, Tick, Transport, take};

/// A second, in the unit that buckets count in.
const SECOND: u128 = 1_000_000_000;

/// A peer that waits goes on when this part of a burst is there again, or all that it needs if that
/// is less. So a long wait does not end for each byte.
const PORTIONS: u64 = 16;

/// The maximum rate at which one peer may send: bytes per second, messages per second, or both.
///
/// A peer that sent less for some time may send more afterwards, up to a *burst*: what the rate
/// gives in one second, unless [`with_burst`](Self::with_burst) says otherwise. A new connection
/// begins with a whole burst. A burst is at least one byte and one message.
///
/// ```
/// use serveloop::layer::RateLimit;
/// use std::time::Duration;
///
/// // 1 MB and 200 messages per second; up to 5 MB and 1000 messages after a pause of the peer.
/// let limit = RateLimit::new()
///     .with_bytes(1_000_000)
///     .with_messages(200)
///     .with_burst(Duration::from_secs(5));
/// assert!(!limit.is_unlimited());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    bytes: Option<NonZero<u64>>,
    messages: Option<NonZero<u64>>,
    burst: Duration,
}

impl RateLimit {
    /// Creates a limit that allows any rate.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: None,
            messages: None,
            burst: Duration::from_secs(1),
        }
    }

    /// Allows at most `per_second` bytes per second on average. 0 is no limit.
    #[must_use]
    pub const fn with_bytes(self, per_second: u64) -> Self {
        Self {
            bytes: NonZero::new(per_second),
            ..self
        }
    }

    /// Allows at most `per_second` messages per second on average. 0 is no limit. What the protocol takes
    /// in one call of [`data_received`](Protocol::data_received) counts as one message.
    #[must_use]
    pub const fn with_messages(self, per_second: u64) -> Self {
        Self {
            messages: NonZero::new(per_second),
            ..self
        }
    }

    /// Sets for how long a peer may save up a rate that it does not use, for a later burst. By default one
    /// second.
    #[must_use]
    pub const fn with_burst(self, burst: Duration) -> Self {
        Self { burst, ..self }
    }

    /// Returns whether any rate is allowed.
    #[must_use]
    pub const fn is_unlimited(&self) -> bool {
        self.bytes.is_none() && self.messages.is_none()
    }
}

impl Default for RateLimit {
    /// Returns the limit that allows any rate.
    fn default() -> Self {
        Self::new()
    }
}

/// A protocol that behaves like the one inside, and whose peer cannot send faster than a
/// [`RateLimit`] allows.
///
/// The protocol inside is shown no more bytes and messages than the rate allows so far. If the peer
/// has sent more, reading is [paused](Transport::pause_reading) until the rate allows more: nothing
/// is lost, the peer is slowed down, and no deadline blames it meanwhile. Such a wait of the peer is
/// no pause of the protocol inside, whose own pauses work as always. A connection that waits keeps
/// at most one read's bytes, which count towards [`max_buffered`](crate::Config::max_buffered). The
/// limit itself takes at most 112 bytes for each connection.
///
/// Each connection has its own rate, so a peer with several connections can send more; see
/// [`max_per_peer`](crate::Config::max_per_peer). In a [session](crate::Config::sessions) of a peer's
/// datagrams, those that come too fast are dropped. Single datagrams are not limited here, but
/// [`replies_per_second`](crate::Config::replies_per_second) limits their replies. Output is not
/// limited either. When the server shuts down, the limit ends: what this session has read is shown
/// at once, and then the protocol is told of the shutdown.
///
/// [`Statistics::rate_limited`](crate::Statistics::rate_limited) counts the connections that waited.
///
/// ```
/// use serveloop::layer::{RateLimit, RateLimited};
/// use serveloop::protocols::Echo;
/// use serveloop::testing::MemorySession;
/// use std::time::Duration;
///
/// // At most 5 bytes per second, and at most 5 at once.
/// let limit = RateLimit::new().with_bytes(5);
/// let mut session = MemorySession::new(RateLimited::new(Echo, limit));
/// session.receive(b"good morning");
/// assert_eq!(session.sent(), b"good ");
/// session.advance(Duration::from_secs(1));
/// assert_eq!(session.sent(), b"morni");
/// session.advance(Duration::from_secs(1));
/// assert_eq!(session.sent(), b"ng");
/// ```
#[derive(Clone, Debug)]
pub struct RateLimited<P> {
    protocol: P,
    bytes: Option<Bucket>,
    messages: Option<Bucket>,
    /// How many unread bytes the protocol was shown before. They have been paid for.
    shown: usize,
    /// When the peer's wait ends, if it waits.
    until: Option<Instant>,
    /// Whether the protocol inside has paused its input while the peer waits.
    is_paused: bool,
    /// Whether the protocol inside is told of a shutdown when it has been shown what has arrived.
    ends: bool,
}

impl<P: Protocol> RateLimited<P> {
    /// Wraps `protocol` so that its peer cannot send faster than `limit` allows.
    #[must_use]
    pub fn new(protocol: P, limit: RateLimit) -> Self {
        let bucket = |rate| Bucket::new(rate, limit.burst);
        Self {
            protocol,
            bytes: limit.bytes.map(bucket),
            messages: limit.messages.map(bucket),
            shown: 0,
            until: None,
            is_paused: false,
            ends: false,
        }
    }

    /// Returns the protocol inside.
    #[must_use]
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// Returns how many of `unread` bytes the protocol may be shown now.
    fn allowed(&self, unread: usize, now: Instant) -> usize {
        if self.messages.is_some_and(|bucket| bucket.held(now) == 0) {
            return 0;
        }
        let held = self.bytes.map_or(u64::MAX, |bucket| bucket.held(now));
        let held = usize::try_from(held).unwrap_or(usize::MAX);
        self.shown.saturating_add(held).min(unread)
    }

    /// Makes the peer wait until the protocol may be shown more of `unread` bytes.
    #[cold]
    fn wait(&mut self, unread: usize, transport: &mut Transport<'_>) {
        let now = transport.now();
        let fresh = unread.saturating_sub(self.shown) as u64;
        let bytes = self.bytes.map(|bucket| bucket.wait_for(fresh, now));
        let messages = self.messages.map(|bucket| bucket.wait_for(1, now));

        let wait = bytes.max(messages).unwrap_or_default();
        self.until = Some(now.checked_add(wait).unwrap_or(now));
        transport.pause_reading();
        transport.note_rate_limited();
    }

    /// Ends the peer's wait.
    fn resume(&mut self, transport: &mut Transport<'_>) {
        if self.until.take().is_some() && !mem::take(&mut self.is_paused) {
            transport.resume_reading();
        }
    }

    /// Calls the protocol inside, which sees only its own pauses.
    fn tell(
        &mut self,
        transport: &mut Transport<'_>,
        event: impl FnOnce(&mut P, &mut Transport<'_>),
    ) {
        if self.until.is_none() {
            return event(&mut self.protocol, transport);
        }

        if !self.is_paused {
            transport.resume_reading();
        }
        event(&mut self.protocol, transport);
        self.is_paused = transport.is_paused();
        transport.pause_reading();
    }

    /// Shows `data` to the protocol inside, whatever the rate.
    fn show(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize, ProtocolError> {
        let taken = self.protocol.data_received(data, transport)?;

        let rests = taken == 0 || taken >= data.len() || transport.is_paused();
        if rests && mem::take(&mut self.ends) && !transport.is_closing() {
            self.protocol.shutdown_requested(transport);
        }
        Ok(taken)
    }
}

impl<P: Protocol> Protocol for RateLimited<P> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        if transport.is_one_shot() {
            (self.bytes, self.messages) = (None, None);
        }
        self.protocol.connection_made(transport)
    }

    fn datagram_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        // A datagram cannot wait: what is sent too fast is dropped, as a network does.
        let now = transport.now();
        if self.allowed(data.len(), now) < data.len() || self.allowed(1, now) == 0 {
            transport.note_rate_limited();
            return Ok(data.len());
        }

        let taken = self.protocol.datagram_received(data, transport)?;
        if let Some(bucket) = &mut self.bytes {
            bucket.spend(taken as u64, now);
        }
        if let Some(bucket) = &mut self.messages {
            bucket.spend(u64::from(taken > 0 || data.is_empty()), now);
        }
        Ok(taken)
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        if self.bytes.is_none() && self.messages.is_none() {
            return self.show(data, transport);
        }

        let now = transport.now();
        let allowed = self.allowed(data.len(), now);
        if allowed == 0 {
            self.wait(data.len(), transport);
            return Ok(0);
        }

        let taken = take(&mut self.protocol, &data[..allowed], transport)?;
        // What is expected would be read at any rate.
        transport.expect_nothing();
        if let Some(bucket) = &mut self.bytes {
            bucket.spend((allowed - self.shown.min(allowed)) as u64, now);
        }
        if let Some(bucket) = &mut self.messages {
            bucket.spend(u64::from(taken > 0), now);
        }
        self.shown = allowed - taken;

        // The message may be complete, but the rest of it is not paid for yet.
        if taken == 0 && allowed < data.len() && !transport.is_paused() {
            self.wait(data.len(), transport);
        }
        Ok(taken)
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.protocol.eof_received(unread, transport)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.tell(transport, P::resume_writing);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let own = self.protocol.poll_timeout();
        self.until.into_iter().chain(own).min()
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        let now = transport.now();
        if self.until.is_some_and(|until| until <= now) {
            self.resume(transport);
            if self.protocol.poll_timeout().is_none_or(|at| at > now) {
                return;
            }
        }
        self.tell(transport, P::handle_timeout);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.tell(transport, P::woken);
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
        self.tell(transport, |protocol, transport| {
            protocol.datagram_undelivered(error, transport);
        });
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        self.protocol.deadline_passed(deadline, transport);
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        self.protocol.input_rejected(error, transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        (self.bytes, self.messages) = (None, None);
        let is_shown_more = self.until.is_some() && !self.is_paused;
        self.resume(transport);

        if is_shown_more {
            self.ends = true;
        } else {
            self.protocol.shutdown_requested(transport);
        }
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.protocol.connection_lost(ended);
    }

    fn owes_first(&self, outside: bool) -> bool {
        self.protocol.owes_first(outside)
    }

    fn catch_up(&mut self, from: Tick, to: Tick) {
        self.protocol.catch_up(from, to);
    }

    fn needs_stream() -> bool {
        P::needs_stream()
    }

    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        self.tell(transport, |protocol, transport| {
            protocol.posted(post, transport);
        });
    }

    fn write_end_mark(&mut self, transport: &mut Transport<'_>) {
        self.protocol.write_end_mark(transport);
    }
}

/// A token bucket: holds what the rate has given and was not spent, up to a burst. It is stored as
/// the moment when it is full again, so that nothing has to fill it.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What flows in per second.
    rate: NonZero<u64>,
    /// How long an empty bucket takes to be full.
    span: Duration,
    /// `None` if nothing was spent yet.
    full_at: Option<Instant>,
}

impl Bucket {
    /// Creates a full bucket that holds what flows in during `burst`, and at least one unit.
    fn new(rate: NonZero<u64>, burst: Duration) -> Self {
        Self {
            rate,
            span: burst.max(time_for(1, rate)),
            full_at: None,
        }
    }

    /// Returns how long the bucket takes until it is full.
    fn missing(&self, now: Instant) -> Duration {
        let full_at = self.full_at;
        full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// Returns how many whole units the bucket holds.
    fn held(&self, now: Instant) -> u64 {
        self.units(self.span.saturating_sub(self.missing(now)))
    }

    fn units(&self, time: Duration) -> u64 {
        let units = time.as_nanos().saturating_mul(self.rate.get().into()) / SECOND;
        u64::try_from(units).unwrap_or(u64::MAX)
    }

    /// Removes `count` units.
    fn spend(&mut self, count: u64, now: Instant) {
        let missing = self.missing(now).saturating_add(time_for(count, self.rate));
        self.full_at = now.checked_add(missing).or(self.full_at);
    }

    /// Returns how long it takes until the bucket holds `count` units, or a portion of a burst if
    /// that is less.
    fn wait_for(&self, count: u64, now: Instant) -> Duration {
        let portion = (self.units(self.span) / PORTIONS).max(1);
        let needed = time_for(count.clamp(1, portion), self.rate);
        self.missing(now)
            .saturating_add(needed)
            .saturating_sub(self.span)
    }
}

/// Returns the time in which `count` units flow in, rounded up.
fn time_for(count: u64, rate: NonZero<u64>) -> Duration {
    let nanos = (u128::from(count) * SECOND).div_ceil(rate.get().into());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
