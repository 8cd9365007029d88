//! When a server counts as stuck, and what is said of one.

use std::time::Duration;

use serveloop::protocols::counted;

/// A server whose loop does not turn for this long is not healthy.
pub(super) const STUCK: Duration = Duration::from_secs(10);

/// Says how many of a server's loops do not answer, and for how long one has not.
pub(super) fn stuck(unanswered: usize, loops: usize, age: Duration) -> String {
    let (loops, seconds) = (counted(loops, "loop", "loops"), age.as_secs());
    format!("{unanswered} of {loops} without an answer, one for {seconds} s")
}
