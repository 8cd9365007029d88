//! The measurements, one function for each mode.

use std::io;

use serveloop_measure::{Cores, Machine, line};

use crate::counts;
use crate::crowd::crowd;
use crate::departed::departed;
use crate::guard::guard;
use crate::limit::limit;
use crate::measure::{BULK, Trial, memory};
use crate::options::{Mode, Options};
use crate::servers::Kind;
use crate::spread::spread;
use crate::table::print;
use crate::targets::targets;

pub(crate) fn measure(options: &Options) -> io::Result<()> {
    let all = Cores::divide()?;
    let cores = &match options.same_core {
        true => all.join()?,
        false => all.with_one_for_servers(),
    };
    println!(
        "echo over loopback TCP, {cores}, {} rounds of {:?}",
        options.rounds, options.duration
    );
    println!("{}", Machine::of_this(all.count()));

    let few = Trial::of(options, options.few());
    let one = Trial::of(options, 1);
    for mode in &options.modes {
        match mode {
            Mode::Echo => {
                for &connections in &options.connections {
                    compare("echo", Trial::of(options, connections), options, cores)?;
                }
            }
            Mode::Pipelined => compare("pipelined", few.deep(), options, cores)?,
            Mode::Bulk => {
                for (_, size, connections) in BULK {
                    compare("bulk", few.long(size, connections), options, cores)?;
                }
            }
            Mode::Departed => departed(options, cores)?,
            Mode::Spread => spread()?,
            Mode::Churn => compare("churn", few.churn(), options, cores)?,
            Mode::Busy => {
                let servers = [Kind::Serveloop, Kind::Busy];
                show("busy", one.spinning(), &servers, options, cores)?;
            }
            Mode::Framing => {
                let servers = [Kind::Serveloop, Kind::Framed, Kind::Lines];
                show("framing", few, &servers, options, cores)?;
            }
            Mode::Workers => {
                let servers = [Kind::Serveloop, Kind::Workers, Kind::Tokio, Kind::Multi];
                show(
                    "workers",
                    few,
                    &servers,
                    options,
                    &all.with_all_for_servers(),
                )?;
            }
            Mode::Memory => idle(options, cores)?,
            Mode::Crowd => crowd(options, cores)?,
            Mode::Limit => limit(options, cores)?,
            Mode::Counts => counts::count(options, cores)?,
            Mode::Guard => guard(options, cores)?,
            Mode::Targets => targets(options, cores)?,
        }
    }
    Ok(())
}

fn compare(name: &str, trial: Trial, options: &Options, cores: &Cores) -> io::Result<()> {
    show(name, trial, &options.servers, options, cores)
}

fn show(
    name: &str,
    trial: Trial,
    servers: &[Kind],
    options: &Options,
    cores: &Cores,
) -> io::Result<()> {
    let rows = trial.rounds(servers, cores, options.rounds)?;
    let scenario = trial.scenario;
    print(&format!("{name}: {scenario}"), scenario.unit(), &rows);
    Ok(())
}

/// Memory is not a matter of luck, so it is looked at once.
fn idle(options: &Options, cores: &Cores) -> io::Result<()> {
    println!("\nmemory: {} idle connections, used once", options.idle);
    println!("{}", line([10, 22], ["", "bytes per connection"]));
    for &kind in &options.servers {
        let each = memory(kind, cores, options.idle)?;
        println!("{}", line([10, 22], [kind.name(), &format!("{each:.0}")]));
    }
    Ok(())
}
