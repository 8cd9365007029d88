//! The measurements, one function for each mode.

use std::io;

use serveloop_measure::{Cores, Machine, Sample, Tool};

use crate::burst::burst;
use crate::client::Sessions;
use crate::goals::{Comparison, Goal};
use crate::measure::{BULK_PER_MIB, MANY, bulk, echo, handshakes, instructions, memory, rounds};
use crate::nginx;
use crate::options::{Mode, Options};
use crate::servers::Kind;

/// The ratios to tokio-rustls that are to be kept: memory, instructions of a message, bulk.
const MEMORY: Goal = Goal::AtMost(0.45);
const MESSAGE: Goal = Goal::AtMost(0.90);
const BULK: Goal = Goal::AtMost(1.0);
/// The ratio of a handshake's processor time to nginx's: 0.95 of its handshakes per second.
const HANDSHAKE: Goal = Goal::AtMost(1.0 / 0.95);

/// Handshakes that are counted, for one message each.
const MESSAGES_PER_HANDSHAKE: u64 = 50;

pub(crate) fn measure(mut options: Options) -> io::Result<()> {
    let cores = &Cores::divide()?.with_one_for_servers();
    let (rounds, duration) = (options.rounds, options.duration);
    println!("TLS echo over loopback TCP, {cores}, {rounds} rounds of {duration:?}");
    println!("{}", Machine::of_this(cores.count()));
    if options.servers.contains(&Kind::Nginx) {
        match nginx::version() {
            Some(version) => println!("nginx {version}"),
            None => {
                println!("skipped: nginx is not installed");
                options.servers.retain(|kind| *kind != Kind::Nginx);
            }
        }
    }

    for mode in &options.modes {
        match mode {
            Mode::Memory => idle(&options, cores)?,
            Mode::Counts => counts(&options, cores)?,
            Mode::Handshakes => {
                for sessions in [Sessions::New, Sessions::Resumed] {
                    compare_handshakes(&options, cores, sessions)?;
                }
            }
            Mode::Bulk => compare_bulk(&options, cores)?,
            Mode::Burst => burst(&options, cores)?,
        }
    }
    Ok(())
}

/// The servers that echo.
fn echoing(options: &Options) -> Vec<Kind> {
    let servers = options.servers.iter().copied();
    servers.filter(|kind| *kind != Kind::Nginx).collect()
}

/// Memory is not a matter of luck, so it is looked at once.
fn idle(options: &Options, cores: &Cores) -> io::Result<()> {
    let mut rows = Vec::new();
    for kind in echoing(options) {
        let kind = match kind {
            Kind::Tokio => Kind::Little,
            kind => kind,
        };
        rows.push((
            kind.name(),
            vec![memory(kind, cores, options.idle)?],
            MEMORY,
        ));
    }
    Comparison {
        title: format!("memory: {} idle connections, used once", options.idle),
        unit: "bytes each",
        rows,
    }
    .print();
    Ok(())
}

fn counts(options: &Options, cores: &Cores) -> io::Result<()> {
    if !Tool::Callgrind.works() {
        println!("skipped: valgrind is missing, or may not trace a process here");
        return Ok(());
    }

    let mut rows = Vec::new();
    for kind in echoing(options) {
        let (scenario, count) = (echo(), options.messages);
        let each = instructions(options, kind, cores, &scenario, Sessions::New, count)?;
        rows.push((kind.name(), vec![each], MESSAGE));
    }
    Comparison {
        title: format!("user-space instructions: a message of 64 bytes, {MANY} connections"),
        unit: "instructions",
        rows,
    }
    .print();

    for sessions in [Sessions::New, Sessions::Resumed] {
        let mut rows = Vec::new();
        let count = (options.messages / MESSAGES_PER_HANDSHAKE).max(2);
        // callgrind runs programs on a processor without the newest instructions, and what another
        // library of cryptography makes of that says nothing, so nginx is left out.
        for kind in echoing(options) {
            let each = instructions(options, kind, cores, &handshakes(), sessions, count)?;
            rows.push((kind.name(), vec![each], Goal::Stated));
        }
        let name = sessions.name();
        Comparison {
            title: format!("user-space instructions: a connection with a {name} handshake"),
            unit: "instructions",
            rows,
        }
        .print();
    }
    Ok(())
}

fn compare_handshakes(options: &Options, cores: &Cores, sessions: Sessions) -> io::Result<()> {
    let servers = &options.servers;
    let samples = rounds(options, servers, cores, &handshakes(), sessions)?;
    let goal = |kind: Kind| match (kind, sessions) {
        (Kind::Nginx, Sessions::New) => HANDSHAKE,
        _ => Goal::Stated,
    };

    let name = sessions.name();
    Comparison {
        title: format!("{name} handshakes: connect, handshake, close"),
        unit: "CPU us each",
        rows: rows(servers, &samples, 1.0, goal),
    }
    .print();
    println!("{}", reached(servers, &samples));
    Ok(())
}

fn compare_bulk(options: &Options, cores: &Cores) -> io::Result<()> {
    let servers = echoing(options);
    let samples = rounds(options, &servers, cores, &bulk(), Sessions::New)?;
    Comparison {
        title: "bulk: messages of 64 KiB, 4 connections".to_owned(),
        unit: "CPU us per MiB",
        rows: rows(&servers, &samples, BULK_PER_MIB, |_| BULK),
    }
    .print();
    Ok(())
}

/// The processor time of the servers, times `factor`.
fn rows(
    servers: &[Kind],
    samples: &[Vec<Sample>],
    factor: f64,
    goal: impl Fn(Kind) -> Goal,
) -> Vec<(&'static str, Vec<f64>, Goal)> {
    let times = |samples: &Vec<Sample>| {
        let times = samples.iter().map(|sample| sample.processor);
        times
            .map(|time| time.unwrap_or(f64::NAN) * factor)
            .collect()
    };
    let pairs = servers.iter().zip(samples);
    pairs
        .map(|(kind, samples)| (kind.name(), times(samples), goal(*kind)))
        .collect()
}

/// Says how many handshakes of each kind there were.
fn reached(servers: &[Kind], samples: &[Vec<Sample>]) -> String {
    let each = servers.iter().zip(samples).map(|(kind, samples)| {
        let rates = samples.iter().filter_map(|sample| sample.handshakes);
        let (full, resumed) = rates.fold((0.0, 0.0), |(full, resumed), rates| {
            (full + rates.full, resumed + rates.resumed)
        });
        #[expect(clippy::cast_precision_loss, reason = "there are few rounds")]
        let rounds = samples.len().max(1) as f64;
        let [full, resumed] = [full, resumed].map(|sum| sum / rounds);
        format!("{} {full:.0} full, {resumed:.0} resumed", kind.name())
    });
    format!(
        "reached per second: {}",
        each.collect::<Vec<_>>().join("; ")
    )
}
