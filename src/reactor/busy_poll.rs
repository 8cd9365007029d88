//! Busy polling: asking the system again and again before waiting, for as long as that pays.

use std::io;
use std::time::{Duration, Instant};

use crate::net::{Event, Net};

/// How much longer a wait takes from its event to its end than asking does. Whether an event came
/// within the time is only seen from that far away.
const WAKING: u32 = 2;

/// Waits of a loop that may spin first.
///
/// Spinning is given up when it was in vain, and taken up again after a wait that ended about as
/// soon as spinning could have ended it. So an idle loop spins once and then sleeps.
#[derive(Debug)]
pub(super) struct BusyPoll {
    most: Option<Duration>,
    pays: bool,
}

impl BusyPoll {
    /// Spins for `most` before each wait; `None` never does.
    pub(super) fn new(most: Option<Duration>) -> Self {
        Self { most, pays: true }
    }

    /// As [`Net::poll`].
    pub(super) fn poll<N: Net>(
        &mut self,
        net: &mut N,
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let Some(most) = self.most.filter(|_| timeout != Some(Duration::ZERO)) else {
            return net.poll(events, timeout);
        };
        let begin = net.now();
        if !self.pays {
            net.poll(events, timeout)?;
            let soon = net.now() - begin <= most.saturating_mul(WAKING);
            self.pays = soon && !events.is_empty();
            return Ok(());
        }
        let most = timeout.map_or(most, |timeout| timeout.min(most));
        let spun = busy_poll(net, events, begin, most)?;
        self.pays = !events.is_empty();
        if self.pays {
            return Ok(());
        }
        net.poll(events, timeout.map(|timeout| timeout.saturating_sub(spun)))
    }
}

/// Asks until there are events or the time is over, and says how much of it was spent.
fn busy_poll<N: Net>(
    net: &mut N,
    events: &mut Vec<Event>,
    begin: Instant,
    most: Duration,
) -> io::Result<Duration> {
    let mut spent = Duration::ZERO;
    loop {
        net.poll(events, Some(Duration::ZERO))?;
        let before = spent;
        spent = net.now() - begin;
        // A clock that stands still is a simulated one, for which only waiting is time.
        if !events.is_empty() || spent >= most || spent == before {
            return Ok(spent);
        }
    }
}
