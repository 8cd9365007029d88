//! Busy polling: polling without a wait before each real wait, as long as that pays.

use std::io;
use std::time::{Duration, Instant};

use crate::net::{Event, Net};

/// How many times longer than the spinning time a wait may last for spinning to count as
/// worthwhile. Waking up takes time too, so an event that came within the spinning time is seen
/// later.
const WAKING: u32 = 2;

/// Waits that may spin first.
///
/// Spinning stops after it was in vain, and starts again after a wait that ended about as soon as
/// spinning could have ended it. So an idle loop spins once and then sleeps.
#[derive(Debug)]
pub(super) struct BusyPoll {
    most: Option<Duration>,
    pays: bool,
}

impl BusyPoll {
    /// Creates a poller that spins for `most` before each wait, or never (`None`).
    pub(super) fn new(most: Option<Duration>) -> Self {
        Self { most, pays: true }
    }

    /// Waits as [`Net::poll`] does.
    #[inline]
    pub(super) fn poll<N: Net>(
        &mut self,
        net: &mut N,
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        match self.most {
            None => net.poll(events, timeout),
            Some(_) if timeout == Some(Duration::ZERO) => net.poll(events, timeout),
            Some(most) => self.spin(net, events, timeout, most),
        }
    }

    /// Polls without a wait for up to `most`, if that pays, and then waits.
    fn spin<N: Net>(
        &mut self,
        net: &mut N,
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
        most: Duration,
    ) -> io::Result<()> {
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

/// Polls without waiting until there are events or `most` is over. Returns the time spent.
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
        // Time does not pass for a simulated clock while polling; only a real wait moves it.
        if !events.is_empty() || spent >= most || spent == before {
            return Ok(spent);
        }
    }
}
