//! What is measured of one server, or of several that take turns.

use std::io;
use std::path::Path;

use serveloop_measure::{
    Cores, Pace, Sample, Scenario, Tool, Tracer, descriptors, fill, per_message, sample, turns,
};

use crate::client::{Sessions, secured};
use crate::options::Options;
use crate::process::Running;
use crate::servers::Kind;

/// Connections of an echo of short messages.
pub(crate) const MANY: usize = 100;
/// Connections that make handshakes, so that the server always has some to do.
pub(crate) const HANDSHAKING: usize = 16;
const BULK_CONNECTIONS: usize = 4;
const BULK_SIZE: usize = 64 * 1024;
/// How many messages of bulk are a MiB.
pub(crate) const BULK_PER_MIB: f64 = 16.0;

/// Short messages on established connections.
pub(crate) fn echo() -> Scenario {
    Scenario {
        connections: MANY,
        ..Scenario::default()
    }
}

pub(crate) fn bulk() -> Scenario {
    Scenario {
        connections: BULK_CONNECTIONS,
        size: BULK_SIZE,
        ..Scenario::default()
    }
}

/// Connections that end after their handshake.
pub(crate) fn handshakes() -> Scenario {
    Scenario {
        pace: Pace::Churn,
        connections: HANDSHAKING,
        size: 0,
        ..Scenario::default()
    }
}

/// Private bytes of a server for each of `idle` connections that were used once.
pub(crate) fn memory(kind: Kind, cores: &Cores, idle: usize) -> io::Result<f64> {
    let scenario = Scenario {
        idle,
        ..Scenario::default()
    };
    descriptors::check(scenario.total()).map_err(io::Error::other)?;

    let secured = secured(Sessions::New)?;
    let server = Running::start(kind, cores, None, &scenario)?;
    let mut load = server.load(&scenario, &secured)?;
    let each = fill(&mut load, scenario.total(), Some(server.process.family()))?;
    each.ok_or_else(|| io::Error::other("the system does not tell the memory of a process"))
}

/// Instructions in user space for each message, or for each handshake.
pub(crate) fn instructions(
    options: &Options,
    kind: Kind,
    cores: &Cores,
    scenario: &Scenario,
    sessions: Sessions,
    messages: u64,
) -> io::Result<f64> {
    // On one core either side does all that it can before the other runs, so that all connections are
    // ready in every turn, however busy the machine is.
    let cores = Cores {
        servers: vec![cores.generator],
        generator: cores.generator,
    };

    let run = |messages| {
        let name = format!("callgrind.out.tls.{}.{messages}", kind.name());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let tracer = Tracer::new(Tool::Callgrind, directory, &name);
        let secured = secured(sessions)?;
        let server = Running::start(kind, &cores, Some(&tracer), scenario)?;
        let mut load = server.load(scenario, &secured)?;
        load.gather_tickets()?;
        load.exchange_messages(messages)?;
        server.end_traced()?;

        let counted = tracer.instructions()?;
        if options.keep {
            println!("{:<10} {}", "", tracer.keep().display());
        }
        Ok([counted])
    };
    Ok(per_message((messages / 2).max(1), run)?[0])
}

/// Measures every server once a round.
pub(crate) fn rounds(
    options: &Options,
    servers: &[Kind],
    cores: &Cores,
    scenario: &Scenario,
    sessions: Sessions,
) -> io::Result<Vec<Vec<Sample>>> {
    let mut samples = vec![Vec::new(); servers.len()];
    for place in turns(options.rounds, servers.len()) {
        let secured = secured(sessions)?;
        let server = Running::start(servers[place], cores, None, scenario)?;
        let mut load = server.load(scenario, &secured)?;
        match scenario.pace {
            Pace::Churn => load.gather_tickets()?,
            Pace::Closed | Pace::Open(_) => load.settle(scenario.total())?,
        }

        load.begin(u64::MAX);
        load.run(options.duration / 5)?;
        let family = Some(server.process.family());
        samples[place].push(sample(&mut load, family, cores.servers.len(), |load| {
            load.measure(options.duration)
        })?);
    }
    Ok(samples)
}
