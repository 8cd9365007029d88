//! The measurements, one function for each mode.

use std::env;
use std::io;

use crate::counts;
use crate::crowd::crowd;
use crate::guard::guard;
use crate::limit::limit;
use crate::machine::Cores;
use crate::measure::{Clients, Load, memory};
use crate::options::{Command, Mode, Options, USAGE, parse};
use crate::servers::Kind;
use crate::table::print;
use crate::targets::targets;

pub(crate) const BULK_SIZE: usize = 64 * 1024;
pub(crate) const BULK_CONNECTIONS: usize = 10;
pub(crate) const DEPTH: usize = 16;

pub(crate) fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match parse(&arguments)? {
        Command::Serve(kind) => kind.serve(),
        Command::Measure(options) => measure(&options),
        Command::Help => {
            println!("{USAGE}");
            Ok(())
        }
        Command::Nothing => Ok(()),
    }
}

fn measure(options: &Options) -> io::Result<()> {
    let cores = Cores::assign(options.same_core);
    println!(
        "echo over loopback TCP, {}, {} rounds of {:?}",
        cores.describe(),
        options.rounds,
        options.duration
    );
    let few = Load::of(options, options.few());
    let one = Load::of(options, 1);
    for mode in &options.modes {
        match mode {
            Mode::Echo => {
                for &connections in &options.connections {
                    compare("echo", Load::of(options, connections), options, cores)?;
                }
            }
            Mode::Pipelined => compare("pipelined", few.deep(), options, cores)?,
            Mode::Bulk => compare("bulk", few.bulk(), options, cores)?,
            Mode::Churn => compare("churn", few.with(Clients::Leave), options, cores)?,
            Mode::Busy => {
                let load = one.with(Clients::Spin);
                show("busy", load, &[Kind::Serveloop, Kind::Busy], options, cores)?;
            }
            Mode::Framing => {
                let servers = [Kind::Serveloop, Kind::Framed, Kind::Lines];
                show("framing", few, &servers, options, cores)?;
            }
            Mode::Workers => {
                let servers = [Kind::Serveloop, Kind::Workers, Kind::Tokio, Kind::Multi];
                show("workers", few, &servers, options, cores.all())?;
            }
            Mode::Memory => idle(options, cores)?,
            Mode::Crowd => crowd(options, cores)?,
            Mode::Limit => limit(options, cores)?,
            Mode::Counts => counts::count(options)?,
            Mode::Guard => guard(options)?,
            Mode::Targets => targets(options, cores)?,
        }
    }
    Ok(())
}

impl Load {
    pub(crate) fn deep(self) -> Self {
        Self {
            depth: DEPTH,
            ..self
        }
    }

    pub(crate) fn bulk(self) -> Self {
        Self {
            connections: BULK_CONNECTIONS,
            size: BULK_SIZE,
            depth: 1,
            ..self
        }
    }

    pub(crate) fn with(self, clients: Clients) -> Self {
        Self { clients, ..self }
    }
}

fn compare(name: &str, load: Load, options: &Options, cores: Cores) -> io::Result<()> {
    show(name, load, &options.servers, options, cores)
}

fn show(
    name: &str,
    load: Load,
    servers: &[Kind],
    options: &Options,
    cores: Cores,
) -> io::Result<()> {
    let rows = load.rounds(servers, cores, options.rounds)?;
    let unit = match load.clients {
        Clients::Leave => "connections",
        Clients::Stay | Clients::Spin => "messages",
    };
    let Load {
        connections,
        size,
        depth,
        ..
    } = load;
    let title = format!("{name}: {connections} connections, {size} bytes, depth {depth}");
    print(&title, unit, &rows);
    Ok(())
}

/// Memory is not a matter of luck, so it is looked at once.
fn idle(options: &Options, cores: Cores) -> io::Result<()> {
    println!("\nmemory: {} idle connections, used once", options.idle);
    println!("{:<10} {:>22}", "", "bytes per connection");
    for &kind in &options.servers {
        let each = memory(kind, cores, options.idle)?;
        println!("{:<10} {each:>22}", kind.name());
    }
    Ok(())
}
