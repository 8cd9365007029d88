//! How long to wait before trying again.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Delays between attempts that fail: each is about twice as long as the one before, up to a limit,
/// with jitter, so that many who have lost the same peer do not all come back at once.
///
/// A delay is between half of the nominal one and all of it.
///
/// ```
/// use serveloop::service::Backoff;
/// use std::time::Duration;
///
/// let millis = Duration::from_millis;
/// let mut backoff = Backoff::new(millis(100), millis(1_000));
/// for nominal in [100, 200, 400, 800, 1_000, 1_000] {
///     let delay = backoff.next_delay();
///     assert!(delay >= millis(nominal / 2) && delay <= millis(nominal));
/// }
///
/// // It has worked.
/// backoff.reset();
/// assert!(backoff.next_delay() <= millis(100));
/// ```
#[derive(Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
    random: u64,
}

impl Backoff {
    /// Creates delays from `first` to `most`, with random jitter.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        let seed = RandomState::new().build_hasher().finish();
        Self::with_seed(first, most, seed)
    }

    /// Creates delays like [`new`](Self::new), whose jitter depends on `seed` alone, for tests that are
    /// the same in every run.
    #[must_use]
    pub fn with_seed(first: Duration, most: Duration, seed: u64) -> Self {
        Self {
            first,
            most,
            next: first.min(most),
            random: seed,
        }
    }

    /// Returns how long to wait after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let half = self.next / 2;
        // A share of the other half, in 65,536 parts.
        let share = u32::try_from(self.draw() >> 48).unwrap_or_default();
        let delay = half + half.saturating_mul(share) / 65_536;
        self.next = self.next.saturating_mul(2).min(self.most);
        delay
    }

    /// Begins again with the first delay.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.most);
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl fmt::Debug for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backoff")
            .field("first", &self.first)
            .field("most", &self.most)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
