//! One kind of load on several servers that take turns.

use std::io;
use std::time::Duration;

use serveloop_measure::{Cores, Pace, Sample, Scenario, Waiting, descriptors, fill, sample, turns};

use crate::options::Options;
use crate::process::Running;
use crate::servers::Kind;
use crate::table::Row;

/// Time for each connection in a measurement: with very many, for several messages of each.
const EACH: Duration = Duration::from_micros(150);
/// Long messages: their name, their bytes, and on how many connections.
pub(crate) const BULK: [(&str, usize, usize); 4] = [
    ("4 KiB", 4 * 1024, 10),
    ("16 KiB", 16 * 1024, 10),
    ("64 KiB", 64 * 1024, 10),
    ("1 MiB", 1024 * 1024, 4),
];
const DEPTH: usize = 16;

/// What clients do, and for how long it is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    pub(crate) scenario: Scenario,
    pub(crate) duration: Duration,
}

impl Trial {
    pub(crate) fn of(options: &Options, connections: usize) -> Self {
        Self {
            scenario: Scenario {
                connections,
                size: options.size,
                depth: options.depth,
                ..Scenario::default()
            },
            duration: options
                .duration
                .max(EACH * connections.try_into().unwrap_or(u32::MAX)),
        }
    }

    /// With more messages under way.
    pub(crate) fn deep(self) -> Self {
        self.with(Scenario {
            depth: DEPTH,
            ..self.scenario
        })
    }

    /// With long messages on few connections.
    pub(crate) fn bulk(self) -> Self {
        let (_, size, connections) = BULK[2];
        self.long(size, connections)
    }

    /// With messages of `size` bytes on a number of connections.
    pub(crate) fn long(self, size: usize, connections: usize) -> Self {
        self.with(Scenario {
            connections,
            size,
            depth: 1,
            ..self.scenario
        })
    }

    /// With clients that leave after one message.
    pub(crate) fn churn(self) -> Self {
        self.with(Scenario {
            pace: Pace::Churn,
            depth: 1,
            ..self.scenario
        })
    }

    /// With clients that never sleep.
    pub(crate) fn spinning(self) -> Self {
        self.with(Scenario {
            waiting: Waiting::Spin,
            ..self.scenario
        })
    }

    fn with(self, scenario: Scenario) -> Self {
        Self { scenario, ..self }
    }

    /// Measures every server once a round.
    pub(crate) fn rounds(
        self,
        servers: &[Kind],
        cores: &Cores,
        rounds: usize,
    ) -> io::Result<Vec<Row>> {
        allow(self.scenario.total())?;
        let mut rows: Vec<Row> = servers.iter().map(|kind| Row::new(kind.name())).collect();
        for place in turns(rounds, rows.len()) {
            let sample = self.once(servers[place], cores)?;
            rows[place].samples.push(sample);
        }
        Ok(rows)
    }

    fn once(self, kind: Kind, cores: &Cores) -> io::Result<Sample> {
        let scenario = Scenario {
            shape: kind.shape(),
            ..self.scenario
        };
        let server = Running::start(kind, cores, &scenario)?;
        let mut load = server.load(&scenario)?;
        if scenario.pace != Pace::Churn {
            load.settle(scenario.total())?;
        }

        load.begin(u64::MAX);
        load.run(self.duration / 5)?;
        let family = server.process.family();
        sample(&mut load, Some(family), cores.servers.len(), |load| {
            load.measure(self.duration)
        })
    }
}

/// Resident bytes of a server for each of `idle` connections that were used once.
pub(crate) fn memory(kind: Kind, cores: &Cores, idle: usize) -> io::Result<f64> {
    let scenario = Scenario {
        idle,
        shape: kind.shape(),
        ..Scenario::default()
    };
    allow(scenario.total())?;

    let server = Running::start(kind, cores, &scenario)?;
    let mut load = server.load(&scenario)?;
    let each = fill(&mut load, scenario.total(), Some(server.process.family()))?;
    each.ok_or_else(|| io::Error::other("the system does not tell the memory of a process"))
}

/// Raises the limit on descriptors so that this process, and the servers that it starts, can have
/// `connections` connections.
pub(crate) fn allow(connections: usize) -> io::Result<()> {
    descriptors::check(connections).map_err(io::Error::other)
}
