//! What a loop has counted.

use std::ops::AddAssign;
use std::{fmt, vec};

use crate::error::{CloseReason, Deadline, ProtocolError};

macro_rules! counters {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name { $($(#[$doc])* pub $field: u64,)* }

        impl AddAssign<&$name> for $name {
            fn add_assign(&mut self, other: &$name) {
                self.add(other);
            }
        }

        impl IntoIterator for &$name {
            type Item = (&'static str, u64);
            type IntoIter = vec::IntoIter<Self::Item>;

            /// As `iter`.
            fn into_iter(self) -> Self::IntoIter {
                vec![$((stringify!($field), self.$field),)*].into_iter()
            }
        }

        impl fmt::Display for $name {
            /// What happened, as `name count, name count`; what did not happen is left out.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut counted = self.iter().filter(|(_, count)| *count > 0);
                if let Some((name, count)) = counted.next() {
                    write!(f, "{name} {count}")?;
                }
                counted.try_for_each(|(name, count)| write!(f, ", {name} {count}"))
            }
        }

        impl $name {
            /// Adds the counts of another loop.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// Every counter, to be set from elsewhere.
            pub(crate) fn counters(&mut self) -> impl Iterator<Item = &mut u64> {
                [$(&mut self.$field,)*].into_iter()
            }

            /// Every counter with its name, in the order of declaration.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Plain counters, since the loop's beginning.
    ///
    /// At any time between two turns `accepted + connected` is the number of live sessions plus the
    /// sum of all `closed_*`; a connection that was refused was not accepted. A session has ended
    /// when its protocol knows, though its socket may still wait for the peer's end.
    Statistics {
        /// Connections that came in and got a protocol.
        accepted,
        /// Outbound connections that were begun.
        connected,
        /// Peers that the factory refused.
        refused_by_factory,
        /// Connections refused because `max_connections` were open.
        refused_max_connections,
        /// Connections refused because `max_per_peer` were open from the same peer.
        refused_max_per_peer,
        /// Connections refused because `build_protocol` panicked.
        refused_by_panic,
        /// Connections refused because the system had no thread or process for them.
        refused_by_system,
        /// Accepted connections that the system would not let us watch; each is among `closed_io` too.
        register_errors,
        /// Connections that were gone, or in error, before they could be accepted.
        accept_aborted,
        /// Times that accepting had to pause for want of descriptors or memory.
        accept_exhausted,
        /// Bytes read from streams.
        bytes_read,
        /// Bytes written to streams.
        bytes_written,
        /// Datagrams that came in.
        datagrams_received,
        /// Datagrams sent in reply.
        datagrams_sent,
        /// Datagrams refused by the factory or longer than 64 KiB, and replies that could not be sent.
        datagrams_dropped,
        /// Datagrams that may be somebody's reply, dropped: from a socket of our own, or a port below 1024.
        datagrams_reflected,
        /// Replies dropped because they were longer than `reply_factor` allows.
        datagrams_amplified,
        /// Datagrams dropped because their peer had `replies_per_second` already.
        datagrams_over_rate,
        /// Datagrams whose session ended with an error.
        datagrams_failed,
        /// Ends by the protocol: [`CloseReason::Closed`].
        closed_by_protocol,
        /// Ends by the peer: [`CloseReason::PeerClosed`].
        closed_by_peer,
        /// [`CloseReason::Aborted`].
        closed_aborted,
        /// [`CloseReason::Shutdown`].
        closed_by_shutdown,
        /// Deadline `connect_timeout`.
        closed_timeout_connect,
        /// Deadline `first_message_timeout`.
        closed_timeout_first_message,
        /// Deadline `message_timeout`.
        closed_timeout_message,
        /// Deadline `idle_timeout`.
        closed_timeout_idle,
        /// Deadline `write_timeout`.
        closed_timeout_write,
        /// Deadline `drain_timeout`.
        closed_timeout_drain,
        /// [`CloseReason::Overflow`].
        closed_overflow,
        /// [`CloseReason::Shed`].
        closed_shed,
        /// [`ProtocolError::Malformed`].
        closed_malformed,
        /// [`ProtocolError::TooLong`].
        closed_too_long,
        /// [`ProtocolError::Truncated`].
        closed_truncated,
        /// [`ProtocolError::Other`].
        closed_protocol_error,
        /// [`CloseReason::Io`].
        closed_io,
        /// [`CloseReason::ConnectFailed`].
        closed_connect_failed,
        /// [`CloseReason::Panicked`].
        closed_panicked,
        /// Connections whose own process was killed.
        closed_killed,
        /// Panics in handlers, `build_protocol` and the other hooks included.
        panics,
        /// Events for an earlier owner of a slot, dropped.
        stale_events,
        /// Turns that took longer than `slow_turn`.
        slow_turns,
        /// Turns of the loop.
        turns,
    }
}

impl Statistics {
    /// Counts an end.
    pub(crate) fn count_close(&mut self, reason: &CloseReason) {
        *self.closed_by(reason) += 1;
        if matches!(reason, CloseReason::Panicked) {
            self.panics += 1;
        }
    }

    /// All connections that have ended.
    #[must_use]
    pub fn closed(&self) -> u64 {
        self.iter()
            .filter(|(name, _)| name.starts_with("closed_"))
            .map(|(_, count)| count)
            .sum()
    }

    fn closed_by(&mut self, reason: &CloseReason) -> &mut u64 {
        match reason {
            CloseReason::Closed => &mut self.closed_by_protocol,
            CloseReason::PeerClosed => &mut self.closed_by_peer,
            CloseReason::Aborted => &mut self.closed_aborted,
            CloseReason::Shutdown => &mut self.closed_by_shutdown,
            CloseReason::TimedOut(deadline) => match deadline {
                Deadline::Connect => &mut self.closed_timeout_connect,
                Deadline::FirstMessage => &mut self.closed_timeout_first_message,
                Deadline::Message => &mut self.closed_timeout_message,
                Deadline::Idle => &mut self.closed_timeout_idle,
                Deadline::Write => &mut self.closed_timeout_write,
                Deadline::Drain => &mut self.closed_timeout_drain,
            },
            CloseReason::Overflow => &mut self.closed_overflow,
            CloseReason::Shed => &mut self.closed_shed,
            CloseReason::Protocol(error) => match error {
                ProtocolError::Malformed(_) => &mut self.closed_malformed,
                ProtocolError::TooLong { .. } => &mut self.closed_too_long,
                ProtocolError::Truncated { .. } => &mut self.closed_truncated,
                ProtocolError::Other(_) => &mut self.closed_protocol_error,
            },
            CloseReason::Io(_) => &mut self.closed_io,
            CloseReason::ConnectFailed(_) => &mut self.closed_connect_failed,
            CloseReason::Panicked => &mut self.closed_panicked,
            CloseReason::Process(_) => &mut self.closed_killed,
        }
    }
}
