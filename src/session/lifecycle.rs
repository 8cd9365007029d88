//! The life of a connection after its session, and before: the drain that a shutdown begins, the
//! account of the end, and the wait for the peer to close too.
//!
//! A connection is connecting, open, draining, lingering or ended. While it is connecting there is
//! nothing but a deadline. While it is open it is a [`Session`], also if one side of the stream has
//! ended. What comes after that is here, once, for the event loop and for the drivers that block. They
//! only read, write and wait.

use std::time::Duration;

use log::Level;

use crate::config::{Config, Limits};
use crate::error::CloseReason;
use crate::session::state::{CLOSING, EOF, FIRST, MARKED};
use crate::session::{Context, End, Protocol, Session, Tick, catch, log_end};
use crate::statistics::Statistics;

/// How many turns a connection may still take input after the shutdown has begun.
const DRAINING_TURNS: u8 = 16;

/// The turns that are left for input that has already arrived, before the session is told of the
/// shutdown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain(u8);

impl Drain {
    /// Creates the drain of a connection, of which no turn is used up.
    pub(crate) fn new() -> Self {
        Self(DRAINING_TURNS)
    }

    /// Uses up a turn. Returns whether to tell the session now: no more input is there (`dry`) and
    /// the session has shown all that it has, or this was the last turn. Whether to wait longer because
    /// the session [is fresh](Session::is_fresh) is for the driver to ask.
    pub(crate) fn is_over<P: Protocol>(&mut self, dry: bool, session: &Session<P>) -> bool {
        self.0 = self.0.saturating_sub(1);
        (dry && !session.has_more()) || self.0 == 0
    }
}

impl<P: Protocol> Session<P> {
    /// Returns whether a shutdown is to wait, because the connection was accepted so recently that its
    /// first message may still be on its way.
    pub(crate) fn is_fresh(&self, context: &Context<'_>) -> bool {
        let until = self.fresh_until(context.config);
        until.is_some_and(|until| context.clock.tick() < until)
    }

    /// Returns until when the session [is fresh](Self::is_fresh), unless it has got its first message or
    /// the end of the stream.
    pub(crate) fn fresh_until(&self, config: &Config) -> Option<Tick> {
        let flags = self.state.flags;
        if flags.any(EOF.or(CLOSING)) || self.peer().listener().is_none() {
            return None;
        }
        let owes = catch(|| self.protocol.0.owes_first(flags.any(FIRST)));
        (owes == Some(true)).then(|| self.began().after(config.drain_grace))
    }

    /// Returns whether the session is over and everything that it owes was sent or dropped.
    pub(crate) fn is_over(&self) -> bool {
        self.is_closing() && (self.is_aborted() || !self.has_output())
    }

    /// Ends the connection for `reason`, which is no failure of the connection: a deadline, or a lack
    /// of memory or room. Waiting output is dropped, as by [`fail`](Self::fail).
    ///
    /// If none waits, a layer writes its end mark, such as TLS's `close_notify`, so that the peer does
    /// not take the end for a truncation. The mark becomes the output of a session that
    /// [is aborted](Self::is_aborted): the driver makes one attempt to send it, and waits for
    /// nothing.
    pub fn dismiss(&mut self, reason: CloseReason, context: &Context<'_>) {
        if self.has_output() {
            return self.fail(reason);
        }
        self.handle_end_mark(context);
        self.state.dismiss(reason);
    }

    /// Returns whether the peer has got an end mark of a [dismissed](Self::dismiss) session. It is
    /// not to see a reset then.
    pub(crate) fn is_end_marked(&self) -> bool {
        self.state.flags.any(MARKED) && self.output().is_empty()
    }

    /// Returns whether a session that is over waits for the peer to close too. It does not if the
    /// peer closed first, or if the peer is to see a reset.
    pub(crate) fn lingers(&self, config: &Config) -> bool {
        self.limits(config).linger_timeout.is_some() && !self.is_aborted() && !self.is_eof()
    }

    /// Tells the protocol that its connection is lost, counts and logs the end. Returns it once,
    /// and `None` on later calls. An end with an error is for the caller to report.
    pub(crate) fn conclude(
        &mut self,
        context: &Context<'_>,
        statistics: &mut Statistics,
    ) -> Option<End> {
        let end = self.handle_lost(context)?;
        let reason = end.reason();

        statistics.count_end(
            reason,
            end.peer().listener().is_some(),
            end.traffic.received,
        );
        statistics.panics += u64::from(self.has_panicked_last());
        statistics.rate_limited += u64::from(self.was_rate_limited());
        statistics.cut_short += u64::from(self.was_cut_short());
        if !reason.is_error() {
            log_end(Level::Debug, &end.ended(), 0);
        }
        Some(end)
    }
}

/// How soon to check again whether the peer has taken everything, which no event announces.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The end of our stream counts as one byte until the peer has acknowledged it.
const OUR_END: usize = 1;

/// The wait for the peer to close after us. If we closed while input is unread or on its way, the
/// system would send a reset and drop what the peer has not taken yet, such as the last reply.
#[derive(Debug)]
pub(crate) struct Linger {
    since: Tick,
    heard: Tick,
    bytes_left: usize,
}

impl Linger {
    pub(crate) fn new(now: Tick, limits: &Limits) -> Self {
        Self {
            since: now,
            heard: now,
            bytes_left: limits.linger_bytes,
        }
    }

    /// Moves times that were noted at `from`, the start of a long turn, to its end `to`.
    pub(crate) fn catch_up(&mut self, from: Tick, to: Tick) {
        for stamp in [&mut self.since, &mut self.heard] {
            if *stamp == from {
                *stamp = to;
            }
        }
    }

    /// Returns whether to go on discarding input. After too much of it, it is left unread.
    pub(crate) fn reads(&self) -> bool {
        self.bytes_left > 0
    }

    /// Records that input arrived and was discarded.
    pub(crate) fn hear(&mut self, count: usize, now: Tick) {
        self.heard = now;
        self.bytes_left = self.bytes_left.saturating_sub(count);
    }

    /// Returns whether to close. The peer must have taken all of our `unsent` bytes, and have been
    /// quiet for long enough or sent too much. After `linger_limit` the wait ends in any case. The system
    /// is asked for `unsent` only if nothing else keeps the connection.
    pub(crate) fn is_over(
        &self,
        unsent: impl FnOnce() -> usize,
        now: Tick,
        limits: &Limits,
        draining: bool,
    ) -> bool {
        let enough = !self.reads() || now >= self.quiet_end(limits, draining);
        now >= self.since.after(limits.linger_limit) || (enough && unsent() <= OUR_END)
    }

    /// Returns when to check again, if nothing arrives before.
    pub(crate) fn deadline(&self, now: Tick, limits: &Limits, draining: bool) -> Tick {
        let quiet_end = self.quiet_end(limits, draining);
        let waits = !self.reads() || now >= quiet_end;
        let next = if waits {
            now.after(LOOK_AGAIN)
        } else {
            quiet_end
        };
        next.min(self.since.after(limits.linger_limit))
    }

    fn quiet_end(&self, limits: &Limits, draining: bool) -> Tick {
        let quiet = limits.linger_timeout.unwrap_or_default();
        let most = if draining {
            limits.linger_draining
        } else {
            quiet
        };
        self.heard.after(quiet.min(most))
    }
}
