//! Why a connection has to be looked at.

use std::ops::{Deref, DerefMut};

use crate::net::Event;
use crate::session::Flags;

/// The socket may have something to read.
pub(super) const READABLE: Flags = Flags::bit(0);
/// The socket may have room to write.
pub(super) const WRITABLE: Flags = Flags::bit(1);
/// A short read does not mean that nothing is left: the peer has ended its stream or sent an urgent
/// byte, or the socket is a Unix socket.
pub(super) const HANGUP: Flags = Flags::bit(2);
/// An event announced that the socket has failed.
pub(super) const ERROR: Flags = Flags::bit(3);
/// Waits in the ready queue.
pub(super) const QUEUED: Flags = Flags::bit(4);
/// An outbound connection that does not stand yet.
pub(super) const CONNECTING: Flags = Flags::bit(5);
/// A deadline may have come.
pub(super) const DUE: Flags = Flags::bit(6);
/// The session's waker was used.
pub(super) const WOKEN: Flags = Flags::bit(7);
/// The session is to be told of the shutdown once it has taken what had arrived.
pub(super) const DRAINING: Flags = Flags::bit(8);
/// The session has ended; we wait for the peer's end.
pub(super) const LINGERING: Flags = Flags::bit(9);
/// Close with a reset.
pub(super) const ABORT: Flags = Flags::bit(10);
/// A deadline may have become earlier.
pub(super) const RETIME: Flags = Flags::bit(11);
/// The connection is to be reaped.
pub(super) const ENDED: Flags = Flags::bit(12);
/// The system had no memory to send; a deadline, not an event, says when to try again.
pub(super) const RETRY: Flags = Flags::bit(13);
/// Our side of the stream has been ended, before the connection.
pub(super) const FINISHED: Flags = Flags::bit(14);

/// What the session holds is part of what all connections hold.
pub(super) const HOLDING: Flags = Flags::bit(15);

/// A call was interrupted and is to be tried again after a moment, by a deadline and not at once: what
/// interrupts every call must not keep the loop busy.
pub(super) const SOON: Flags = Flags::bit(16);

/// What is seen to before reading.
pub(super) const BEFORE: Flags = ERROR
    .or(CONNECTING)
    .or(WOKEN)
    .or(LINGERING)
    .or(ENDED)
    .or(HOLDING);
/// What is seen to between reading and writing.
pub(super) const AFTER: Flags = DUE.or(DRAINING);

/// What a connection needs after it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An event or a deadline.
    Wait,
    /// Another turn: its budget was spent before its work.
    Again,
    /// The same, or another round in this turn: there is more to read, and nothing left to send.
    More,
    /// Another turn, and first of all that others end: all connections hold too much.
    Crowded,
    /// To be reaped.
    Reap,
}

/// What has happened to a connection since it was last served.
#[derive(Debug)]
pub(super) struct Readiness(Flags);

impl Readiness {
    pub(super) fn new(flags: Flags) -> Self {
        Self(flags)
    }

    /// Notes an event. True if the connection is to be queued for it.
    #[inline]
    pub(super) fn note(&mut self, event: &Event) -> bool {
        let mut news = READABLE.when(event.readable) | WRITABLE.when(event.writable);
        if event.closed | event.error {
            news = news | READABLE | HANGUP.when(event.closed) | ERROR.when(event.error);
        }
        self.0.set(news);
        self.queue()
    }

    pub(super) fn note_woken(&mut self) -> bool {
        self.0.set(WOKEN);
        self.queue()
    }

    /// A deadline may have come. Before anybody is cut off, one look at whether they moved.
    pub(super) fn note_due(&mut self) -> bool {
        self.0.clear(SOON);
        self.0.set(DUE | READABLE | WRITABLE);
        self.queue()
    }

    /// The server is shutting down. What has arrived already is still served.
    pub(super) fn note_shutdown(&mut self) -> bool {
        self.0.set(DRAINING | READABLE | RETIME);
        self.queue()
    }

    /// True if the connection was not in the ready queue and now has to be put there.
    #[inline]
    pub(super) fn queue(&mut self) -> bool {
        let rests = !self.0.any(QUEUED | ENDED);
        self.0.set(QUEUED);
        rests
    }
}

impl Deref for Readiness {
    type Target = Flags;

    fn deref(&self) -> &Flags {
        &self.0
    }
}

impl DerefMut for Readiness {
    fn deref_mut(&mut self) -> &mut Flags {
        &mut self.0
    }
}
