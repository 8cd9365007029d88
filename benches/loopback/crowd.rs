//! A few active connections among very many that are idle, compared with the same few alone.

use std::io;
use std::time::Duration;

use serveloop_measure::{Cores, Figure, Load, Sample, Scenario, fill, line, sample, turns};

use crate::measure::allow;
use crate::options::Options;
use crate::process::Running;
use crate::servers::Kind;
use crate::table::{Row, figure, ratio};

const WIDTHS: [usize; 4] = [10, 12, 12, 22];

/// A server, connections that stand, and the few of them that are active.
struct Stage {
    server: Running,
    load: Load<'static>,
    /// Bytes per connection, if there was more than one.
    memory: Option<f64>,
}

pub(crate) fn crowd(options: &Options, cores: &Cores) -> io::Result<()> {
    let (few, all) = (options.few(), options.crowd.max(options.few()));
    println!(
        "\ncrowd: {few} active of {all} connections, compared with {few} alone; {} bytes",
        options.size
    );
    println!("{}", line(WIDTHS, ["", "alone", "crowd", "ratio"]));
    for &kind in &options.servers {
        let seen = Seen::of(kind, cores, options)?;
        println!("{}", kind.name());
        seen.report("p50 us", |sample| sample.latency.p50);
        seen.report("p99 us", |sample| sample.latency.p99);
        seen.report("messages/s", |sample| sample.rate);
        seen.report("CPU us", |sample| sample.processor.unwrap_or(f64::NAN));
        if let Some(each) = seen.memory {
            println!("{}", line([10, 25], ["B per idle", &format!("{each:.0}")]));
        }
    }
    Ok(())
}

/// How much longer the 99th of 100 replies takes in the crowd.
pub(crate) fn slowing(kind: Kind, cores: &Cores, options: &Options) -> io::Result<Figure> {
    Ok(Seen::of(kind, cores, options)?.ratio(|sample| sample.latency.p99))
}

/// What the few had alone and in the crowd, round by round.
struct Seen {
    alone: Row,
    crowd: Row,
    memory: Option<f64>,
}

impl Seen {
    fn of(kind: Kind, cores: &Cores, options: &Options) -> io::Result<Self> {
        let (few, all) = (options.few(), options.crowd.max(options.few()));
        allow(few + all)?;

        let mut stages = [
            Stage::build(kind.without_deadlines(), cores, 0, options)?,
            Stage::build(kind.without_deadlines(), cores, all - few, options)?,
        ];
        let mut rows = [Row::new("alone"), Row::new("crowd")];
        for place in turns(options.rounds, stages.len()) {
            let sample = stages[place].measure(options.duration, cores)?;
            rows[place].samples.push(sample);
        }

        let [alone, crowd] = rows;
        Ok(Self {
            alone,
            crowd,
            memory: stages[1].memory,
        })
    }

    fn ratio(&self, value: impl Fn(&Sample) -> f64) -> Figure {
        ratio(&self.crowd.of(&value), &self.alone.of(&value))
    }

    fn report(&self, name: &str, value: impl Fn(&Sample) -> f64) {
        let [alone, crowd] =
            [&self.alone, &self.crowd].map(|row| format!("{:.2}", figure(row.of(&value)).median));
        let ratio = self.ratio(value).to_string();
        println!("{}", line(WIDTHS, [name, &alone, &crowd, &ratio]));
    }
}

impl Stage {
    /// Opens all connections and uses each of them once.
    fn build(kind: Kind, cores: &Cores, idle: usize, options: &Options) -> io::Result<Self> {
        let scenario = Scenario {
            connections: options.few(),
            idle,
            size: options.size,
            depth: options.depth,
            shape: kind.shape(),
            ..Scenario::default()
        };
        let server = Running::start(kind, cores, &scenario)?;
        let mut load = server.load(&scenario)?;
        let memory = fill(&mut load, scenario.total(), Some(server.process.family()))?;
        Ok(Self {
            server,
            load,
            memory,
        })
    }

    /// Leaves nothing under way, since the other server comes next.
    fn measure(&mut self, duration: Duration, cores: &Cores) -> io::Result<Sample> {
        self.load.exchange(duration / 5)?;
        let family = self.server.process.family();
        sample(&mut self.load, Some(family), cores.servers.len(), |load| {
            load.exchange(duration)
        })
    }
}
