//! The schedule of an open loop: when messages are to be sent, whatever the server does.

use std::time::{Duration, Instant};

/// Messages at even intervals, dealt to the connections in turn.
///
/// Latency is measured from the intended moment. A server that stalls also delays the messages
/// after the one that it is processing. A generator that waits and measures from the actual sending
/// would leave out that delay (coordinated omission).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start: Instant,
    /// The rate, in messages per second.
    rate: u64,
    connections: u64,
}

impl Schedule {
    pub(crate) fn new(start: Instant, rate: u64, connections: u64) -> Self {
        Self {
            start,
            rate,
            connections,
        }
    }

    /// Returns when message `number`, counted over all connections, is to be sent.
    #[inline]
    pub(crate) fn moment(&self, number: u64) -> Instant {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.rate);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Returns when `connection` is to send its message `number`.
    #[inline]
    pub(crate) fn intended(&self, connection: u64, number: u64) -> Instant {
        self.moment(number * self.connections + connection)
    }

    /// Returns how many messages all connections together should have sent by now.
    #[inline]
    pub(crate) fn due(&self, now: Instant) -> u64 {
        let Some(elapsed) = now.checked_duration_since(self.start) else {
            return 0;
        };
        let number = elapsed.as_nanos() * u128::from(self.rate) / 1_000_000_000;
        u64::try_from(number).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Returns how many messages `connection` should have sent by now.
    #[inline]
    pub(crate) fn due_of(&self, connection: u64, now: Instant) -> u64 {
        let due = self.due(now);
        due.saturating_sub(connection).div_ceil(self.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_dealt_in_turn_at_even_distances() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 1_000, 4);
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(schedule.intended(0, 0), start);
        assert_eq!(schedule.intended(3, 0), after(3));
        assert_eq!(schedule.intended(0, 1), after(4));
        assert_eq!(schedule.intended(2, 250), after(1_002));

        assert_eq!(schedule.due(start), 1);
        assert_eq!(schedule.due(after(9)), 10);

        let dealt = |millis| [0, 1, 2, 3].map(|of| schedule.due_of(of, after(millis)));
        assert_eq!(dealt(0), [1, 0, 0, 0]);
        assert_eq!(dealt(5), [2, 2, 1, 1]);
        assert_eq!(dealt(1_000), [251, 250, 250, 250]);
    }

    #[test]
    fn a_message_is_due_from_its_moment_on_and_not_before() {
        let start = Instant::now();
        for rate in [1, 7, 50_000, 3_333_333] {
            let schedule = Schedule::new(start, rate, 3);
            for number in [1, 2, 10, 12_345, 9_999_999] {
                let moment = schedule.moment(number);
                assert!(schedule.due(moment + Duration::from_nanos(1)) > number);
                assert!(schedule.due(moment - Duration::from_nanos(1)) <= number);
            }
        }
    }

    #[test]
    fn nothing_is_due_before_the_start() {
        let start = Instant::now() + Duration::from_secs(1);
        let schedule = Schedule::new(start, 10, 1);
        assert_eq!(schedule.due(start - Duration::from_millis(1)), 0);
        assert_eq!(schedule.due_of(0, start - Duration::from_millis(1)), 0);
    }
}
