//! The counters of a loop.

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

            /// Returns the same items as `iter`.
            fn into_iter(self) -> Self::IntoIter {
                vec![$((stringify!($field), self.$field),)*].into_iter()
            }
        }

        impl fmt::Display for $name {
            /// Writes the counters that are not zero as `name count, name count`.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut counted = self.iter().filter(|(_, count)| *count > 0);
                if let Some((name, count)) = counted.next() {
                    write!(f, "{name} {count}")?;
                }
                counted.try_for_each(|(name, count)| write!(f, ", {name} {count}"))
            }
        }

        impl $name {
            /// Adds the counters of another loop.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// Returns every counter, for writing.
            pub(crate) fn counters(&mut self) -> impl Iterator<Item = &mut u64> {
                [$(&mut self.$field,)*].into_iter()
            }

            /// Returns every counter with its name, in the order of declaration.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }
        }
    };
}

counters! {
    /// The counters of a loop since it began.
    ///
    /// Between two turns, `accepted + connected` always equals the number of live sessions plus the
    /// sum of all `closed_*` and `handed_over`. A refused connection does not count as accepted. A session has ended
    /// when its protocol has been told so, although its socket may still wait for the peer to
    /// close.
    ///
    /// ```
    /// use serveloop::Statistics;
    ///
    /// let mut sum = Statistics::default();
    /// let mut loops = [Statistics::default(); 2];
    /// loops[0].accepted = 2;
    /// loops[1].accepted = 1;
    /// loops.iter().for_each(|one| sum += one);
    /// assert_eq!(sum.to_string(), "accepted 3");
    /// ```
    Statistics {
        /// Incoming connections that got a protocol.
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
        /// Connections refused because the system could not create a thread or a process for them.
        refused_by_system,
        /// Accepted connections that the system would not let the loop watch. Each counts in
        /// `closed_io` too.
        register_errors,
        /// Connections that were gone or had failed before they could be accepted.
        accept_aborted,
        /// How often accepting paused for lack of descriptors or memory.
        accept_exhausted,
        /// Bytes read from streams.
        bytes_read,
        /// Bytes written to streams.
        bytes_written,
        /// Datagrams received.
        datagrams_received,
        /// Datagrams sent, in reply or at other times.
        datagrams_sent,
        /// Datagrams refused by the factory or longer than 64 KiB, or that came for a session that
        /// paused or from a new peer during a shutdown, and replies that could not be sent.
        datagrams_dropped,
        /// Datagrams dropped because they may be replies: from a socket of this server, or from a
        /// port below 1024.
        datagrams_reflected,
        /// Replies dropped because they were longer than `reply_factor` allows, or more than an
        /// [unconfirmed](crate::Transport::confirm_address) address may get.
        datagrams_amplified,
        /// Datagrams dropped because their peer had reached `replies_per_second`.
        datagrams_over_rate,
        /// Datagrams of sessions that did not arrive, as the network has
        /// [reported](crate::Protocol::datagram_undelivered).
        datagrams_undelivered,
        /// Datagrams whose session ended with an error.
        datagrams_failed,
        /// Sessions of a peer's datagrams that have begun. The difference to `datagram_sessions_ended`
        /// is how many there are.
        datagram_sessions,
        /// Sessions of a peer's datagrams that have ended.
        datagram_sessions_ended,
        /// Datagrams of new peers for whom there was no room for a session.
        datagram_sessions_refused,
        /// Connections that go on in another process: [`Actions::hand_over`](crate::Actions::hand_over).
        handed_over,
        /// Connections that the protocol closed: [`CloseReason::Closed`].
        closed_by_protocol,
        /// Connections that the peer closed: [`CloseReason::PeerClosed`].
        closed_by_peer,
        /// Connections that the protocol aborted: [`CloseReason::Aborted`].
        closed_aborted,
        /// Connections that ended without the end mark of their layer: [`CloseReason::Truncated`].
        closed_unterminated,
        /// Connections refused after they were accepted: [`CloseReason::Refused`].
        closed_refused,
        /// Connections closed by a shutdown: [`CloseReason::Shutdown`].
        closed_by_shutdown,
        /// Connections ended by `connect_timeout`.
        closed_timeout_connect,
        /// Connections ended by `handshake_timeout`.
        closed_timeout_handshake,
        /// Connections ended by `first_message_timeout`.
        closed_timeout_first_message,
        /// Connections ended by `message_timeout`.
        closed_timeout_message,
        /// Connections ended by `idle_timeout`.
        closed_timeout_idle,
        /// Connections ended by `write_timeout`.
        closed_timeout_write,
        /// Connections ended by `drain_timeout`.
        closed_timeout_drain,
        /// Connections with too much waiting output: [`CloseReason::Overflow`], [`CloseReason::Lagging`].
        closed_overflow,
        /// Connections ended to save memory: [`CloseReason::Shed`].
        closed_shed,
        /// Connections ended by [`ProtocolError::Malformed`].
        closed_malformed,
        /// Connections ended by [`ProtocolError::TooLong`].
        closed_too_long,
        /// Connections ended by [`ProtocolError::Truncated`].
        closed_truncated,
        /// Connections ended by [`ProtocolError::Other`].
        closed_protocol_error,
        /// Connections whose socket failed: [`CloseReason::Io`].
        closed_io,
        /// Outbound connections that could not be made: [`CloseReason::ConnectFailed`].
        closed_connect_failed,
        /// Connections that were to send what could not be read: [`CloseReason::SourceFailed`].
        closed_source_failed,
        /// Connections whose protocol panicked: [`CloseReason::Panicked`].
        closed_panicked,
        /// Connections whose process ended with an error or was killed: [`CloseReason::Process`].
        closed_killed,
        /// Connections that the peer or the network reset or lost, or that the system gave up. Each counts
        /// in `closed_io` too.
        peer_resets,
        /// Incoming connections that the peer ended or reset before a byte of it had come, as health
        /// checks of load balancers and port scans do. Each counts in the counter of its end too.
        probes,
        /// Connections that ended and that a [`RateLimit`](crate::layer::RateLimit) had made wait.
        rate_limited,
        /// Connections that their protocol closed although
        /// [`write_some`](crate::Transport::write_some) had no room for all of its data, which was lost.
        /// Debug builds log each as a warning.
        cut_short,
        /// Panics in handlers, in `build_protocol` and in the other hooks.
        panics,
        /// Events dropped because they were meant for an earlier connection in the same slot.
        stale_events,
        /// Turns that took longer than `slow_turn`.
        slow_turns,
        /// Turns of the loop.
        turns,
    }
}

impl Statistics {
    /// Counts the end of one connection.
    pub(crate) fn count_close(&mut self, reason: &CloseReason) {
        *self.closed_by(reason) += 1;
        if matches!(reason, CloseReason::Panicked) {
            self.panics += 1;
        }
    }

    /// Counts the end of one connection, and whether it was a peer's reset or a mere probe.
    pub(crate) fn count_end(&mut self, reason: &CloseReason, is_inbound: bool, received: u64) {
        self.count_close(reason);
        let is_reset = matches!(reason, CloseReason::Io(_)) && reason.is_ordinary();
        let by_peer =
            is_reset || matches!(reason, CloseReason::PeerClosed | CloseReason::Truncated);
        self.peer_resets += u64::from(is_reset);
        self.probes += u64::from(by_peer && is_inbound && received == 0);
    }

    /// Returns the number of connections that have ended.
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
            CloseReason::Truncated => &mut self.closed_unterminated,
            CloseReason::Refused => &mut self.closed_refused,
            CloseReason::Shutdown => &mut self.closed_by_shutdown,
            CloseReason::TimedOut(deadline) => match deadline {
                Deadline::Connect => &mut self.closed_timeout_connect,
                Deadline::Handshake => &mut self.closed_timeout_handshake,
                Deadline::FirstMessage => &mut self.closed_timeout_first_message,
                Deadline::Message => &mut self.closed_timeout_message,
                Deadline::Idle => &mut self.closed_timeout_idle,
                Deadline::Write => &mut self.closed_timeout_write,
                Deadline::Drain => &mut self.closed_timeout_drain,
            },
            CloseReason::Overflow | CloseReason::Lagging => &mut self.closed_overflow,
            CloseReason::Shed => &mut self.closed_shed,
            CloseReason::Protocol(error) => match error {
                ProtocolError::Malformed(_) => &mut self.closed_malformed,
                ProtocolError::TooLong { .. } => &mut self.closed_too_long,
                ProtocolError::Truncated { .. } => &mut self.closed_truncated,
                ProtocolError::Other(_) => &mut self.closed_protocol_error,
            },
            CloseReason::Io(_) => &mut self.closed_io,
            CloseReason::ConnectFailed(_) => &mut self.closed_connect_failed,
            CloseReason::SourceFailed(_) => &mut self.closed_source_failed,
            CloseReason::Panicked => &mut self.closed_panicked,
            CloseReason::Process(_) => &mut self.closed_killed,
        }
    }
}
