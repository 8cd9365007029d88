//! What can go wrong, and how often.

use std::fmt;

use crate::testing::simulation::random::Random;

macro_rules! faults {
    ($($(#[$doc:meta])* $field:ident: $usual:literal,)*) => {
        /// How often each kind of fault happens: in so many of 1,000 occasions. 0 is never.
        ///
        /// A run does not have them all: its seed switches each kind off or on, and makes it rarer or
        /// more frequent (swarm testing; Groce et al., ISSTA 2012), since some bugs show only where
        /// other faults do not end the connection first.
        ///
        /// ```
        /// use serveloop::testing::Faults;
        /// let faults = Faults { clock_jumps: 0, ..Faults::all() };
        /// assert_eq!(Faults::none().client_resets, 0);
        /// # let _ = faults;
        /// ```
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Faults { $($(#[$doc])* pub $field: u16,)* }

        impl Faults {
            /// Every kind, at its usual rate.
            #[must_use]
            pub fn all() -> Self {
                Self { $($field: $usual,)* }
            }

            /// None: a network without faults, which still cuts and delays what it carries.
            #[must_use]
            pub fn none() -> Self {
                Self { $($field: 0,)* }
            }

            fn rates(&self) -> impl Iterator<Item = (&'static str, u16)> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }

            fn rates_mut(&mut self) -> impl Iterator<Item = &mut u16> {
                [$(&mut self.$field,)*].into_iter()
            }
        }
    };
}

faults! {
    /// A read brings fewer bytes than have arrived.
    short_reads: 200,
    /// A write takes fewer bytes than there is room for.
    short_writes: 200,
    /// A call says `WouldBlock` though it could do something; readiness is announced again later.
    would_block: 100,
    /// A call is interrupted by a signal.
    interrupted: 100,
    /// A wait is ended by a signal, without events.
    interrupted_waits: 50,
    /// An event comes later than what it tells.
    delayed_events: 200,
    /// An event tells of a readiness that is not there.
    spurious_events: 100,
    /// An event comes twice.
    duplicate_events: 100,
    /// An event comes for a connection that is closed.
    stale_events: 100,
    /// Events come in another order than they happened, once per wait.
    shuffled_events: 500,
    /// A wait brings one or two events only.
    small_batches: 300,
    /// A connection's buffers in the system hold a few bytes only.
    tiny_buffers: 500,
    /// A client resets its connection somewhere on the way.
    client_resets: 100,
    /// A client stops for good without a word.
    client_vanishes: 60,
    /// A client takes its time: it may miss every deadline.
    slow_clients: 100,
    /// The process is stopped for up to a hundred seconds, once per wait.
    clock_jumps: 2,
    /// Accepting fails, for want of descriptors or memory, or because the client is gone.
    accept_errors: 100,
    /// There are fewer descriptors than clients, once per run.
    out_of_descriptors: 300,
    /// A new connection cannot be registered.
    register_errors: 40,
    /// A read fails.
    read_errors: 5,
    /// A write fails.
    write_errors: 5,
    /// A write fails for want of memory, or takes nothing, and succeeds later.
    out_of_memory: 50,
    /// Our end of the stream cannot be sent.
    finish_errors: 50,
    /// An outbound connection is refused or never answered.
    connect_errors: 200,
    /// A datagram or the reply to it is lost.
    lost_datagrams: 50,
    /// A call on a datagram socket fails.
    datagram_errors: 50,
    /// Budgets, marks and the number of connections are small, once per run.
    small_limits: 500,
    /// The server is shut down on the way, once per run.
    shutdowns: 200,
    /// A client comes over a Unix socket and passes descriptors: a read ends behind each of them though
    /// more waits, and no event tells.
    passed_descriptors: 200,
    /// For up to three seconds nothing can be accepted, or received, whatever is tried, once per run.
    stuck_calls: 150,
    /// A method of the protocol computes for up to half a second.
    slow_handlers: 10,
}

impl Faults {
    /// Those of one run.
    pub(super) fn swarm(&self, random: &mut Random) -> Self {
        let mut faults = self.clone();
        for rate in faults.rates_mut() {
            *rate = match random.below(6) {
                0..3 => 0,
                3 => *rate / 4,
                4 => *rate,
                _ => rate.saturating_mul(2).min(1_000),
            };
        }
        faults
    }
}

impl fmt::Display for Faults {
    /// The kinds that happen, with their rates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<_> = self
            .rates()
            .filter(|(_, rate)| *rate > 0)
            .map(|(name, rate)| format!("{name} {rate}"))
            .collect();
        match &on[..] {
            [] => f.write_str("none"),
            on => f.write_str(&on.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_switches_each_kind() {
        let swarms: Vec<_> = (0..100)
            .map(|seed| Faults::all().swarm(&mut Random::new(seed)))
            .collect();
        assert!(swarms.iter().any(|it| it.short_reads == 0));
        assert!(swarms.iter().any(|it| it.short_reads > 200));
        assert_eq!(Faults::none().swarm(&mut Random::new(1)), Faults::none());
    }

    #[test]
    fn what_is_on_is_shown() {
        assert_eq!(Faults::none().to_string(), "none");
        let two = Faults {
            client_resets: 7,
            clock_jumps: 1,
            ..Faults::none()
        };
        assert_eq!(two.to_string(), "client_resets 7, clock_jumps 1");
    }
}
