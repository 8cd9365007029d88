//! One measurement of one server under one load, and one count of its system calls.

use std::{env, io, process};

use serveloop::Address;
use serveloop_measure::{
    Audience, Calls, Cores, Exchange, Family, FanOut, Load, Pace, Room, Sample, Scenario, Secured,
    Terms, Tool, Tracer, fill, per_message, sample,
};

use crate::bench::contender::{Contender, Model};
use crate::bench::interrupt::Interrupt;
use crate::bench::plan::Plan;
use crate::bench::server::Server;
use crate::bench::trouble::{explained, told};

/// The fewest messages of the shorter run that system calls are counted in. The longer run has
/// twice as many as the shorter.
const MESSAGES: u64 = 1_000;

/// What all measurements share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) cores: &'a Cores,
    pub(crate) interrupt: &'a Interrupt,
}

impl<'a> Ground<'a> {
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

                let spoken = &self.plan.spoken;
                if let Some(room) = spoken.room_at(contender.uri()) {
                    let family = target.process;
                    let sample = self.fan_out(&room, scenario, &addresses, family, 1);
                    return sample.map_err(named);
                }
                let exchange = spoken.exchange_with(contender.uri(), scenario.size)?;
                let secured = target.secured.as_ref();
                let load = self.load(scenario, &addresses, secured, exchange.as_ref())?;
                self.run(load, scenario, target.process, 1).map_err(named)
            }
        }
    }

    fn measure_model(self, model: Model, scenario: &Scenario) -> io::Result<Sample> {
        let server = self.start(model, scenario, None)?;
        let cores = model.cores_used(self.cores.servers.len());
        if let Some(room) = self.plan.spoken.room_at("") {
            let family = Some(server.family());
            let sample = self.fan_out(&room, scenario, &server.addresses, family, cores);
            return sample.map_err(|error| server.explain(error));
        }
        let exchange = self.plan.spoken.exchange_with("", scenario.size)?;
        let load = self.load(scenario, &server.addresses, None, exchange.as_ref())?;
        let outcome = self.run(load, scenario, Some(server.family()), cores);
        outcome.map_err(|error| server.explain(error))
    }

    /// Measures how one message reaches many.
    fn fan_out(
        self,
        room: &Room,
        scenario: &Scenario,
        addresses: &[Address],
        family: Option<Family>,
        cores: usize,
    ) -> io::Result<Sample> {
        let terms = Terms {
            patience: self.plan.patience,
            interrupt: self.interrupt,
            explain: told,
            ..Terms::default()
        };
        let load = FanOut::new(room, scenario, addresses.to_vec(), terms);
        let mut load = load.map_err(explained)?;
        load.settle()?;
        load.run(self.plan.warm_up)?;
        let sample = sample(&mut load, family, cores, |load| {
            load.measure(self.plan.duration)
        })?;
        Ok(Sample {
            deliveries: Some(load.finish()?),
            ..sample
        })
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

        load.gather_tickets()?;
        load.begin(u64::MAX);
        load.run(self.plan.warm_up)?;
        let sample = sample(&mut load, family, cores, |load| {
            load.measure(self.plan.duration)
        })?;
        load.await_replies()?;
        Ok(Sample {
            // With the messages that are still missing.
            latency: load.finish()?,
            memory,
            ..sample
        })
    }

    /// Counts the system calls per message. Returns `None` for an open loop, which would not keep
    /// its rate under strace.
    ///
    /// # Errors
    /// Fails if the server fails under strace, or after a signal.
    pub(crate) fn count_calls(self, model: Model, scenario: &Scenario) -> io::Result<Option<f64>> {
        if matches!(scenario.pace, Pace::Open(_)) || scenario.audience == Audience::All {
            return Ok(None);
        }

        let under_way = scenario.connections as u64 * scenario.depth as u64;
        let run = |messages| self.count(model, scenario, messages).map(<[u64; 4]>::from);
        let each = per_message(MESSAGES.max(4 * under_way), run)?;
        Ok(Some(Calls::from(each).all))
    }

    /// Counts the system calls of a server that answers `messages` messages.
    fn count(self, model: Model, scenario: &Scenario, messages: u64) -> io::Result<Calls<u64>> {
        let name = format!("serveloop-bench-{}.strace", process::id());
        let tracer = Tracer::new(Tool::Strace, &env::temp_dir(), &name);
        let server = self.start(model, scenario, Some(&tracer))?;

        let exchange = self.plan.spoken.exchange_with("", scenario.size)?;
        let load = self.load(scenario, &server.addresses, None, exchange.as_ref());
        let exchanged = load.and_then(|mut load| {
            load.exchange_messages(messages)?;
            Ok(load)
        });
        match exchanged {
            // The connections are still open, so that they end in the same way in both runs.
            Ok(_load) => server.end_traced()?,
            Err(error) => return Err(server.explain(error)),
        }
        tracer.calls()
    }

    fn start(
        self,
        model: Model,
        scenario: &Scenario,
        tracer: Option<&Tracer>,
    ) -> io::Result<Server> {
        Server::start(
            model,
            &self.plan.spoken,
            scenario,
            self.cores,
            tracer,
            self.interrupt,
        )
    }

    fn load<'b>(
        self,
        scenario: &Scenario,
        addresses: &[Address],
        secured: Option<&'b Secured>,
        exchange: Option<&'b Exchange>,
    ) -> io::Result<Load<'b>>
    where
        'a: 'b,
    {
        let terms = Terms {
            patience: self.plan.patience,
            interrupt: self.interrupt,
            explain: told,
            secured,
            exchange,
        };
        Load::new(scenario, addresses.to_vec(), terms).map_err(explained)
    }
}
