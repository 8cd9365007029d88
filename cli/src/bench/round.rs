//! One measurement of one server under one load.

use std::io;
use std::time::Duration;

use crate::bench::contender::{Contender, Model};
use crate::bench::cores::Cores;
use crate::bench::family::{Family, own_processor_time, own_waiting_time};
use crate::bench::interrupt::Interrupt;
use crate::bench::load::Load;
use crate::bench::plan::Plan;
use crate::bench::scenario::{Pace, Scenario};
use crate::bench::server::Server;
use crate::bench::tally::Latency;

/// How long a server may settle before its memory is read.
const REST: Duration = Duration::from_millis(50);

/// The figures of one measurement. A figure that the system does not report is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Messages per second, or with churn, connections per second.
    pub(crate) rate: f64,
    pub(crate) latency: Latency,
    /// The processor time of the server per message, in microseconds.
    pub(crate) processor: Option<f64>,
    /// The memory of the server per connection, in bytes.
    pub(crate) memory: Option<f64>,
    /// The fraction of its core's time that the generator used, from 0 to 1.
    pub(crate) generator_busy: f64,
    /// The fraction of the time that the generator waited for its core because of other processes.
    pub(crate) generator_waited: f64,
    /// The fraction that the server used of the time of all cores available to it.
    pub(crate) server_busy: Option<f64>,
}

/// What all measurements share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) cores: &'a Cores,
    pub(crate) interrupt: &'a Interrupt,
}

impl Ground<'_> {
    /// # Errors
    /// Fails if the server fails or does not echo, or after a signal.
    pub(crate) fn measure(self, contender: &Contender, scenario: &Scenario) -> io::Result<Sample> {
        match contender {
            Contender::Model(model) => self.measure_model(*model, scenario),
            Contender::Target(target) => {
                let named = |error: io::Error| match error.kind() {
                    io::ErrorKind::Interrupted => error,
                    kind => io::Error::new(kind, format!("{contender}: {error}")),
                };

                let address = target.address(self.plan.patience, self.interrupt);
                let addresses = [address.map_err(named)?.clone()];

                let load = Load::new(scenario, &addresses, self.plan.patience, self.interrupt)?;
                self.run(load, scenario, None, 1).map_err(named)
            }
        }
    }

    fn measure_model(self, model: Model, scenario: &Scenario) -> io::Result<Sample> {
        let server = Server::start(model, scenario, self.cores, &[], self.interrupt)?;
        let cores = model.cores_used(self.cores.servers.len());
        let load = Load::new(
            scenario,
            &server.addresses,
            self.plan.patience,
            self.interrupt,
        )?;
        let outcome = self.run(load, scenario, Some(server.family()), cores);
        outcome.map_err(|error| server.explain(error))
    }

    fn run(
        self,
        mut load: Load<'_>,
        scenario: &Scenario,
        family: Option<Family>,
        cores: usize,
    ) -> io::Result<Sample> {
        let memory = match scenario.pace {
            Pace::Churn => None,
            Pace::Closed | Pace::Open(_) => fill(&mut load, scenario.total(), family)?,
        };

        load.begin(scenario.connections, u64::MAX);
        load.run(self.plan.warm_up)?;

        let time = || family.and_then(Family::processor_time);
        let (before, own_before, waited_before) =
            (time(), own_processor_time(), own_waiting_time());
        let elapsed = load.measure(self.plan.duration)?.as_secs_f64();
        let (after, own_after, waited_after) = (time(), own_processor_time(), own_waiting_time());

        let messages = load.messages();
        let latency = load.finish()?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let (messages, cores) = (messages as f64, cores as f64);
        let used = seconds(before, after);
        Ok(Sample {
            rate: messages / elapsed,
            latency,
            processor: used.map(|used| used * 1e6 / messages),
            memory,
            generator_busy: seconds(own_before, own_after).unwrap_or(0.0) / elapsed,
            // The system adds a wait only when it ends, so the sum can exceed the elapsed time.
            generator_waited: (seconds(waited_before, waited_after).unwrap_or(0.0) / elapsed)
                .min(1.0),
            server_busy: used.map(|used| used / elapsed / cores),
        })
    }
}

fn seconds(before: Option<Duration>, after: Option<Duration>) -> Option<f64> {
    Some(after?.saturating_sub(before?).as_secs_f64())
}

/// Opens all connections. Returns the memory that each one after the first costs the server, in
/// bytes, or `None` if that is not known or there is only one.
#[expect(
    clippy::cast_precision_loss,
    reason = "no server has 2^52 bytes of memory"
)]
fn fill(load: &mut Load<'_>, total: usize, family: Option<Family>) -> io::Result<Option<f64>> {
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
