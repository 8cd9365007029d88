//! Time as drivers pass it down: read once per turn, stored in eight bytes. Deadlines are computed in
//! `state`.

use std::time::{Duration, Instant};

/// The shortest time after which a deadline that was acted on can pass again.
pub(crate) const REPEAT: Duration = Duration::from_millis(1);

/// The shortest time that sockets and pollers can be asked to wait for.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// A moment, in nanoseconds since a driver's [`Clock`] began. It has half the size of an `Instant`,
/// which matters because every idle connection stores several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

impl Tick {
    /// The moment at which the clock began.
    pub const ZERO: Self = Self(0);

    /// Returns the moment `duration` after `self`. The sum saturates, and a saturated moment is
    /// never reached.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// Returns the moment `nanos` nanoseconds after a clock began.
    #[inline]
    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns how many nanoseconds after `earlier` this moment is, or zero if it is not later.
    #[inline]
    pub(crate) fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns how long after `earlier` this moment is, or zero if it is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A driver's time: an origin and the last reading. It never reads the system's clock itself, so
/// that tests and simulations can provide their own time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// The last reading. As an instant it is made when it is asked for, which few messages do.
    tick: Tick,
}

impl Clock {
    /// Creates a clock that begins at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            origin: now,
            tick: Tick::ZERO,
        }
    }

    /// Sets a new reading. A reading earlier than the last one is ignored, so time never goes back.
    #[inline]
    pub fn set(&mut self, now: Instant) {
        self.advance(self.tick_of(now));
    }

    /// Sets a new reading like [`set`](Self::set).
    #[inline]
    pub(crate) fn advance(&mut self, now: Tick) {
        self.tick = self.tick.max(now);
    }

    /// Returns the last reading.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Instant {
        // The sum was an instant when it was read.
        self.instant_of(self.tick).unwrap_or(self.origin)
    }

    /// Returns the last reading as a tick.
    #[must_use]
    #[inline]
    pub fn tick(&self) -> Tick {
        self.tick
    }

    /// Returns how long a driver may wait from the last reading until `at`. It is at least a
    /// millisecond, because many waits take zero for no limit.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use serveloop::driver::Clock;
    ///
    /// let clock = Clock::new(Instant::now());
    /// let second = Duration::from_secs(1);
    /// assert_eq!(clock.until(clock.tick().after(second)), second);
    /// assert_eq!(clock.until(clock.tick()), Duration::from_millis(1));
    /// ```
    #[must_use]
    pub fn until(&self, at: Tick) -> Duration {
        at.since(self.tick).max(SHORTEST_WAIT)
    }

    /// Returns the tick of an instant. An instant before the origin becomes the origin.
    #[must_use]
    pub fn tick_of(&self, instant: Instant) -> Tick {
        Tick(nanos(instant.saturating_duration_since(self.origin)))
    }

    /// Returns the instant of a tick, or `None` if the system cannot represent it.
    pub(crate) fn instant_of(&self, tick: Tick) -> Option<Instant> {
        self.origin.checked_add(Duration::from_nanos(tick.0))
    }
}

/// Returns a duration in nanoseconds, or the most that there can be.
pub(crate) fn nanos(duration: Duration) -> u64 {
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
        assert_eq!(clock.now(), start + Duration::from_secs(2));
        clock.advance(Tick::from_nanos(7));
        assert_eq!(clock.now(), start + Duration::from_secs(2));
        clock.set(start + Duration::new(3, 1));
        assert_eq!(clock.now(), start + Duration::new(3, 1));
        assert_eq!(
            clock.tick().after(Duration::MAX).after(Duration::MAX),
            Tick(u64::MAX)
        );
        assert_eq!(Tick::ZERO.since(clock.tick()), Duration::ZERO);
    }
}
