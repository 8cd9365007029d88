//! Time as drivers hand it down: read once a turn, kept in eight bytes.

use std::time::{Duration, Instant};

/// How soon a deadline that was acted on can come again.
pub(crate) const REPEAT: Duration = Duration::from_millis(1);

/// A moment, in nanoseconds since a driver's [`Clock`] began. Half the size of an `Instant`, which
/// matters where every idle connection keeps several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

impl Tick {
    /// The moment at which the clock began.
    pub const ZERO: Self = Self(0);

    /// This long after `self`; a duration without end saturates and is never reached.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The time that a driver works with: an origin, and the moment of the last reading. It never
/// reads the system's clock itself, so that tests and simulations bring their own time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    now: Instant,
    tick: Tick,
}

impl Clock {
    /// A clock that begins at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            origin: now,
            now,
            tick: Tick::ZERO,
        }
    }

    /// Takes over a new reading. One that lies before the last is ignored: time does not go back.
    #[inline]
    pub fn set(&mut self, now: Instant) {
        if now > self.now {
            self.now = now;
            self.tick = self.tick_of(now);
        }
    }

    /// The last reading.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The last reading as a tick.
    #[must_use]
    #[inline]
    pub fn tick(&self) -> Tick {
        self.tick
    }

    /// The tick of an instant; what lies before the origin is the origin.
    #[must_use]
    pub fn tick_of(&self, instant: Instant) -> Tick {
        Tick(nanos(instant.saturating_duration_since(self.origin)))
    }
}

fn nanos(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(duration.subsec_nanos().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back_and_never_overflows() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        clock.set(start + Duration::from_secs(2));
        clock.set(start + Duration::from_secs(1));
        assert_eq!(clock.tick().since(Tick::ZERO), Duration::from_secs(2));
        assert_eq!(
            clock.tick().after(Duration::MAX).after(Duration::MAX),
            Tick(u64::MAX)
        );
        assert_eq!(Tick::ZERO.since(clock.tick()), Duration::ZERO);
    }
}
