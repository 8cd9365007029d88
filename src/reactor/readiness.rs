//! The reasons to look at a connection, as flags.

use std::ops::{Deref, DerefMut};

use crate::net::Event;
use crate::session::Flags;

/// The socket may have something to read.
pub(super) const READABLE: Flags = Flags::bit(0);
/// The socket may have room to write.
pub(super) const WRITABLE: Flags = Flags::bit(1);
/// A short read does not mean that nothing is left, because the peer has ended its stream or sent
/// an urgent byte, or because it is a Unix socket.
pub(super) const HANGUP: Flags = Flags::bit(2);
/// An event announced that the socket has failed.
pub(super) const ERROR: Flags = Flags::bit(3);
/// The connection is in the ready queue.
pub(super) const QUEUED: Flags = Flags::bit(4);
/// An outbound connection is not established yet.
pub(super) const CONNECTING: Flags = Flags::bit(5);
/// A deadline may have passed.
pub(super) const DUE: Flags = Flags::bit(6);
/// The session's waker was used.
pub(super) const WOKEN: Flags = Flags::bit(7);
/// The session is to be told of the shutdown, once it has taken what had already arrived.
pub(super) const DRAINING: Flags = Flags::bit(8);
/// The session has ended, and the socket waits for the peer to close.
pub(super) const LINGERING: Flags = Flags::bit(9);
/// The socket is to be closed with a reset.
pub(super) const ABORT: Flags = Flags::bit(10);
/// A deadline may have become earlier.
pub(super) const RETIME: Flags = Flags::bit(11);
/// The connection is to be reaped.
pub(super) const ENDED: Flags = Flags::bit(12);
/// The system had no memory to send. A deadline, not an event, says when to try again.
pub(super) const RETRY: Flags = Flags::bit(13);
/// Our side of the stream is closed, while the connection goes on.
pub(super) const FINISHED: Flags = Flags::bit(14);

/// What the session holds is included in the total of all connections.
pub(super) const HOLDING: Flags = Flags::bit(15);

/// A call was interrupted and is to be tried again after a moment, at a deadline. Trying again at
/// once would keep the loop busy if every call is interrupted.
pub(super) const SOON: Flags = Flags::bit(16);

/// A layer is not open yet, so that serving the connection may take long.
pub(super) const HANDSHAKE: Flags = Flags::bit(17);

/// The turn's handshakes are used up.
pub(super) const DEFERRED: Flags = Flags::bit(18);

/// The session is to be told of the shutdown when its first message was served, or did not come in time.
pub(super) const AWAITED: Flags = Flags::bit(19);

/// Flags to act on before reading.
pub(super) const BEFORE: Flags = ERROR
    .or(HANDSHAKE)
    .or(CONNECTING)
    .or(WOKEN)
    .or(LINGERING)
    .or(ENDED)
    .or(HOLDING);
/// Flags to act on between reading and writing.
pub(super) const AFTER: Flags = DUE.or(DRAINING).or(AWAITED);

/// Flags with which a connection does not just wait for the next message.
pub(super) const STIRRED: Flags = READABLE.or(DRAINING).or(RETIME).or(DUE).or(CONNECTING);

/// Flags with which a connection may have something else to do than to send what is posted.
pub(super) const ENGAGED: Flags = BEFORE
    .or(AFTER)
    .or(READABLE)
    .or(QUEUED)
    .or(RETRY)
    .or(SOON)
    .or(DEFERRED);

/// What a connection needs after it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for an event or a deadline.
    Wait,
    /// Wait like most connections do: no deadline has become earlier, unless the protocol has one.
    Rest,
    /// Serve it again in another turn: its budget is spent, its work is not done.
    Again,
    /// Serve it again in this turn or the next: there is more to read, and nothing left to send.
    More,
    /// Serve it again in another turn, but first end other connections: all together hold too much.
    Crowded,
    /// Reap it.
    Reap,
}

/// What has happened to a connection since it was last served.
#[derive(Debug)]
pub(super) struct Readiness(Flags);

impl Readiness {
    pub(super) fn new(flags: Flags) -> Self {
        Self(flags)
    }

    /// Records an event. Returns true if the connection is to be queued for it.
    #[inline]
    pub(super) fn note(&mut self, event: &Event) -> bool {
        self.note_now(event);
        self.queue()
    }

    /// Records an event of a connection that is served at once. Returns false if it has ended.
    #[inline]
    pub(super) fn note_now(&mut self, event: &Event) -> bool {
        let mut news = READABLE.when(event.readable) | WRITABLE.when(event.writable);
        if event.closed | event.error {
            news = news | READABLE | HANGUP.when(event.closed) | ERROR.when(event.error);
        }
        self.0.set(news);
        !self.0.any(ENDED)
    }

    pub(super) fn note_woken(&mut self) -> bool {
        self.0.set(WOKEN);
        self.queue()
    }

    /// Records that a deadline may have passed. Before a peer is cut off, its socket is tried once
    /// more.
    pub(super) fn note_due(&mut self) -> bool {
        self.0.clear(SOON);
        self.0.set(DUE | READABLE | WRITABLE);
        self.queue()
    }

    /// Records that the server is shutting down. What has already arrived is still served.
    pub(super) fn note_shutdown(&mut self) -> bool {
        self.0.set(DRAINING | READABLE | RETIME);
        self.queue()
    }

    /// Records that its deadline may have become earlier, for a reason outside of it.
    pub(super) fn note_retime(&mut self) -> bool {
        self.0.set(RETIME);
        self.queue()
    }

    /// Marks the connection as queued. Returns true if it was not, and now has to be put in the
    /// queue.
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
