//! The measurements, one function for each mode.

use std::env;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::churn::Churn;
use crate::counts;
use crate::crowd::crowd;
use crate::generator::{Done, Generator};
use crate::limit::limit;
use crate::machine::{Cores, Usage};
use crate::options::{Command, Mode, Options, USAGE, parse};
use crate::process::Running;
use crate::servers::Kind;
use crate::table::{Row, Sample, print};

const BULK_SIZE: usize = 64 * 1024;
const BULK_CONNECTIONS: usize = 10;
/// Time for a server to settle before its memory is looked at.
const SETTLE: Duration = Duration::from_millis(100);

/// One kind of load.
#[derive(Clone, Copy, Debug)]
struct Load {
    connections: usize,
    size: usize,
    depth: usize,
    duration: Duration,
}

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
    for mode in &options.modes {
        match mode {
            Mode::Echo => echo(options, cores)?,
            Mode::Churn => churn(options, cores)?,
            Mode::Bulk => bulk(options, cores)?,
            Mode::Memory => memory(options, cores)?,
            Mode::Crowd => crowd(options, cores)?,
            Mode::Limit => limit(options, cores)?,
            Mode::Counts => counts::count(options)?,
        }
    }
    Ok(())
}

fn echo(options: &Options, cores: Cores) -> io::Result<()> {
    for &connections in &options.connections {
        let Options { size, depth, .. } = *options;
        let load = Load {
            connections,
            size,
            depth,
            duration: options.duration,
        };
        let rows = rounds(options, |kind| echo_once(kind, cores, load))?;
        let title = format!("echo: {connections} connections, {size} bytes, depth {depth}");
        print(&title, "messages", &rows);
    }
    Ok(())
}

fn bulk(options: &Options, cores: Cores) -> io::Result<()> {
    let load = Load {
        connections: BULK_CONNECTIONS,
        size: BULK_SIZE,
        depth: 1,
        duration: options.duration,
    };
    let rows = rounds(options, |kind| echo_once(kind, cores, load))?;
    let title = format!("bulk: {BULK_CONNECTIONS} connections, {BULK_SIZE} bytes");
    print(&title, "messages", &rows);
    Ok(())
}

fn churn(options: &Options, cores: Cores) -> io::Result<()> {
    let load = Load {
        connections: options.few(),
        size: options.size,
        depth: 1,
        duration: options.duration,
    };
    let rows = rounds(options, |kind| churn_once(kind, cores, load))?;
    let title = format!(
        "churn: connect, one message of {} bytes, close; {} at a time",
        load.size, load.connections
    );
    print(&title, "connections", &rows);
    Ok(())
}

/// Memory is not a matter of luck, so it is looked at once.
fn memory(options: &Options, cores: Cores) -> io::Result<()> {
    println!("\nmemory: {} idle connections, used once", options.idle);
    println!("{:<10} {:>22}", "", "bytes per connection");
    for &kind in &options.servers {
        let server = Running::start(kind, cores)?;
        let _first = visit(&server)?;
        thread::sleep(SETTLE);
        let before = server.resident()?;
        let _idle = (0..options.idle)
            .map(|_| visit(&server))
            .collect::<io::Result<Vec<_>>>()?;
        thread::sleep(SETTLE);
        let grown = server.resident()?.saturating_sub(before);
        let each = grown / options.idle as u64;
        println!("{:<10} {each:>22}", kind.name());
    }
    Ok(())
}

fn visit(server: &Running) -> io::Result<TcpStream> {
    let mut message = [b'x'; 64];
    let mut stream = TcpStream::connect(server.address)?;
    stream.write_all(&message)?;
    stream.read_exact(&mut message)?;
    Ok(stream)
}

/// Measures every server once a round. Who begins changes, so that nobody always comes after the
/// same neighbour.
fn rounds(
    options: &Options,
    mut once: impl FnMut(Kind) -> io::Result<Sample>,
) -> io::Result<Vec<Row>> {
    let row = |kind: &Kind| Row {
        name: kind.name(),
        samples: Vec::new(),
    };
    let mut rows: Vec<Row> = options.servers.iter().map(row).collect();
    for round in 0..options.rounds {
        for turn in 0..rows.len() {
            let place = (round + turn) % rows.len();
            let sample = once(options.servers[place])?;
            rows[place].samples.push(sample);
        }
    }
    Ok(rows)
}

fn echo_once(kind: Kind, cores: Cores, load: Load) -> io::Result<Sample> {
    let server = Running::start(kind, cores)?;
    let mut generator = Generator::connect(server.address, load.connections, load.size)?;
    generator.begin(load.depth)?;
    generator.run(load.duration / 5, true)?;
    let before = server.usage()?;
    let done = generator.run(load.duration, false)?;
    Ok(sample(done, server.usage()?.since(before)))
}

fn churn_once(kind: Kind, cores: Cores, load: Load) -> io::Result<Sample> {
    let server = Running::start(kind, cores)?;
    let mut churn = Churn::connect(server.address, load.connections, load.size)?;
    churn.run(load.duration / 5)?;
    let before = server.usage()?;
    let done = churn.run(load.duration)?;
    Ok(sample(done, server.usage()?.since(before)))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nobody echoes 2^52 messages in a round"
)]
fn sample(done: Done, usage: Usage) -> Sample {
    let messages = done.messages as f64;
    Sample {
        rate: messages / done.elapsed.as_secs_f64(),
        cpu: usage.total.as_secs_f64() * 1e6 / messages,
        user_share: usage.user_share(),
    }
}
