//! The faults of a simulation and their rates.

use std::fmt;

use crate::testing::simulation::random::Random;

macro_rules! faults {
    ($($(#[$doc:meta])* $field:ident: $usual:literal,)*) => {
        /// The rate of each kind of fault, per 1,000 occasions. A rate of 0 turns it off.
        ///
        /// A run does not have all faults. Its seed turns each kind off or on, and makes it rarer
        /// or more frequent (swarm testing; Groce et al., ISSTA 2012), since some bugs show only
        /// where other faults do not end the connection first.
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
            /// Returns every kind of fault at its usual rate.
            #[must_use]
            pub fn all() -> Self {
                Self { $($field: $usual,)* }
            }

            /// Returns rates of 0 for all faults. The network still cuts and delays what it
            /// carries.
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
    /// A read returns fewer bytes than have arrived.
    short_reads: 200,
    /// A write accepts fewer bytes than there is room for.
    short_writes: 200,
    /// A call returns `WouldBlock` although it could do something. Readiness is announced again
    /// later.
    would_block: 100,
    /// A call is interrupted by a signal.
    interrupted: 100,
    /// A signal ends a wait without events.
    interrupted_waits: 50,
    /// An event comes later than the change it announces.
    delayed_events: 200,
    /// An event announces readiness that does not exist.
    spurious_events: 100,
    /// An event comes twice.
    duplicate_events: 100,
    /// An event comes for a connection that is already closed.
    stale_events: 100,
    /// Events come out of order. Drawn once per wait.
    shuffled_events: 500,
    /// A wait returns only one or two events.
    small_batches: 300,
    /// A connection's system buffers hold only a few bytes.
    tiny_buffers: 500,
    /// A client resets its connection at some point.
    client_resets: 100,
    /// A client vanishes without closing its connection.
    client_vanishes: 60,
    /// A client is so slow that it may miss every deadline.
    slow_clients: 100,
    /// The process is stopped for up to 100 seconds. Drawn once per wait.
    clock_jumps: 2,
    /// Accepting fails because descriptors or memory ran out, or because the client is gone.
    accept_errors: 100,
    /// There are fewer descriptors than clients. Drawn once per run.
    out_of_descriptors: 300,
    /// A new connection cannot be registered.
    register_errors: 40,
    /// A read fails.
    read_errors: 5,
    /// A write fails.
    write_errors: 5,
    /// A write fails because memory ran out, and succeeds later.
    out_of_memory: 50,
    /// Closing our side of the stream fails.
    finish_errors: 50,
    /// An outbound connection is refused or never answered.
    connect_errors: 200,
    /// A datagram or its reply is lost.
    lost_datagrams: 50,
    /// A datagram of a session arrives twice.
    doubled_datagrams: 50,
    /// An outbound session gets a datagram that its peer has not sent, from the peer's address or from
    /// another one. What comes from the peer's address is noise, or something that the peer says at
    /// another occasion. A protocol that cannot tell that from an answer needs a rate of 0.
    forged_datagrams: 50,
    /// A call on a datagram socket fails.
    datagram_errors: 50,
    /// The network reports that a datagram to a peer did not arrive, truly or forged by a third party, also
    /// to peers that the server has sent nothing.
    datagram_reports: 100,
    /// Budgets, water marks and connection limits are small. Drawn once per run.
    small_limits: 500,
    /// The server is shut down during the run. Drawn once per run.
    shutdowns: 200,
    /// A client connects over a Unix socket and passes descriptors. A read stops after each of them
    /// although more bytes wait, and no event announces the rest.
    passed_descriptors: 200,
    /// Every accept, or every receive, fails for up to three seconds. Drawn once per run.
    stuck_calls: 150,
    /// A protocol method computes for up to half a second.
    slow_handlers: 10,
    /// A client [inside a layer](crate::testing::Simulation::within) ends its stream without the
    /// layer's end mark.
    truncations: 100,
}

impl Faults {
    /// Draws the rates of one run.
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
    /// Writes the kinds that can happen, with their rates.
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
