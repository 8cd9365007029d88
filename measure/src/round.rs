//! One measurement of one server under one load, and the order of several.

use std::io;
use std::time::Duration;

use crate::family::{Family, own_processor_time, own_waiting_time};
use crate::fan_out::{Deliveries, FanOut};
use crate::load::{Handshakes, Latency, Load, Moment};

/// How long a server may settle before its memory is read.
const REST: Duration = Duration::from_millis(50);

/// The figures of one measurement. A figure that the system does not report is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Messages per second, or with churn, connections per second.
    pub rate: f64,
    /// How long they took.
    pub latency: Latency,
    /// With churn over TLS, the handshakes of each kind per second.
    pub handshakes: Option<Rates>,
    /// The processor time of the server per message, in microseconds.
    pub processor: Option<f64>,
    /// The part of that time that was spent in user space, from 0 to 1.
    pub user_share: Option<f64>,
    /// The memory of the server per connection, in bytes.
    pub memory: Option<f64>,
    /// The fraction of its core's time that the generator used, from 0 to 1.
    pub generator_busy: f64,
    /// The fraction of the time that the generator waited for its core because of other processes.
    pub generator_waited: f64,
    /// The fraction that the server used of the time of all cores available to it.
    pub server_busy: Option<f64>,
    /// What came back in each slice of the measurement.
    pub timeline: Vec<Moment>,
    /// What became of messages for all, if there were any.
    pub deliveries: Option<Deliveries>,
}

/// A load, as far as [`sample`] needs it.
pub trait Counting {
    /// Returns how many messages have come back, or deliveries been made, in the measurement.
    fn count(&self) -> u64;

    /// Returns how long they took.
    fn latency(&self) -> Latency;

    /// Returns how many TLS handshakes were completed, if that is what is measured.
    fn handshakes(&self) -> Option<Handshakes> {
        None
    }

    /// Returns what came back in each slice of the measurement.
    fn timeline(&self) -> Vec<Moment> {
        Vec::new()
    }
}

impl Counting for Load<'_> {
    fn count(&self) -> u64 {
        self.messages()
    }

    fn latency(&self) -> Latency {
        Load::latency(self)
    }

    fn handshakes(&self) -> Option<Handshakes> {
        Load::handshakes(self).filter(|_| self.comes_and_goes())
    }

    fn timeline(&self) -> Vec<Moment> {
        Load::timeline(self).to_vec()
    }
}

impl Counting for FanOut<'_> {
    fn count(&self) -> u64 {
        self.deliveries()
    }

    fn latency(&self) -> Latency {
        FanOut::latency(self)
    }
}

/// How many TLS handshakes of each kind were completed per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Those with a certificate and its signature.
    pub full: f64,
    /// Those that continued an earlier session.
    pub resumed: f64,
}

/// Returns the places of `servers` servers in the order in which they are measured: each once per
/// round. The first server changes from round to round, so that no server always follows the same
/// neighbour.
///
/// ```
/// let order: Vec<_> = serveloop_measure::turns(2, 3).collect();
/// assert_eq!(order, [0, 1, 2, 1, 2, 0]);
/// ```
pub fn turns(rounds: usize, servers: usize) -> impl Iterator<Item = usize> {
    (0..rounds).flat_map(move |round| (0..servers).map(move |turn| (round + turn) % servers))
}

/// Observes the generator and the server, which has `cores` cores, during `work`: what resets the
/// count of messages, exchanges some and returns how long that took.
///
/// # Errors
/// Those of `work`.
pub fn sample<L: Counting>(
    load: &mut L,
    family: Option<Family>,
    cores: usize,
    work: impl FnOnce(&mut L) -> io::Result<Duration>,
) -> io::Result<Sample> {
    let time = || family.and_then(Family::processor_time);
    let ticks = || family.and_then(Family::ticks);
    let (before, own_before, waited_before) = (time(), own_processor_time(), own_waiting_time());
    let ticks_before = ticks();
    let elapsed = work(load)?.as_secs_f64();
    let (after, own_after, waited_after) = (time(), own_processor_time(), own_waiting_time());

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let (messages, cores) = (load.count() as f64, cores as f64);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let handshakes = load.handshakes().map(|count| Rates {
        full: count.full as f64 / elapsed,
        resumed: count.resumed as f64 / elapsed,
    });
    let used = seconds(before, after);
    Ok(Sample {
        rate: messages / elapsed,
        latency: load.latency(),
        handshakes,
        processor: used.map(|used| used * 1e6 / messages),
        user_share: ticks()
            .zip(ticks_before)
            .map(|(now, then)| now.user_share(then)),
        memory: None,
        generator_busy: seconds(own_before, own_after).unwrap_or(0.0) / elapsed,
        // The system adds a wait only when it ends, so the sum can exceed the elapsed time.
        generator_waited: (seconds(waited_before, waited_after).unwrap_or(0.0) / elapsed).min(1.0),
        server_busy: used.map(|used| used / elapsed / cores),
        timeline: load.timeline(),
        deliveries: None,
    })
}

fn seconds(before: Option<Duration>, after: Option<Duration>) -> Option<f64> {
    Some(after?.saturating_sub(before?).as_secs_f64())
}

/// Opens all `total` connections and uses each once. Returns the memory that each one after the
/// first costs the server, in bytes, or `None` if that is not known or there is only one.
///
/// # Errors
/// Those of the load.
#[expect(
    clippy::cast_precision_loss,
    reason = "no server has 2^52 bytes of memory"
)]
pub fn fill(load: &mut Load<'_>, total: usize, family: Option<Family>) -> io::Result<Option<f64>> {
    let memory = || family.and_then(Family::memory);
    load.settle(1)?;
    if total == 1 {
        return Ok(None);
    }
    load.run(REST)?;
    let before = memory();
    load.settle(total)?;
    load.run(REST)?;

    let grown = match (before, memory()) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => return Ok(None),
    };
    Ok(Some(grown as f64 / (total - 1) as f64))
}
