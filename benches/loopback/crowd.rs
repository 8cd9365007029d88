//! A few active connections among very many that stand idle, beside the same few alone.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::generator::{Generator, Pattern, Shape};
use crate::machine::{Cores, allow_descriptors};
use crate::options::Options;
use crate::process::Running;
use crate::servers::Kind;
use crate::table::{Ratio, median, quantile};

/// So many source addresses have ports for all.
const SOURCES: usize = 16;
/// Descriptors that the generator needs beside its connections.
const OTHER_DESCRIPTORS: usize = 100;
/// Time for a server to settle before its memory is looked at.
const SETTLE: Duration = Duration::from_millis(100);

/// What one measurement gave; times in microseconds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    median: f64,
    /// The 99th of 100.
    slow: f64,
    rate: f64,
    cpu: f64,
}

/// A server, connections that stand, and the few of them that are active.
struct Stage {
    server: Running,
    active: Generator,
    idle: Vec<TcpStream>,
    resident: u64,
}

pub(crate) fn crowd(options: &Options, cores: Cores) -> io::Result<()> {
    let (few, all) = (options.few(), options.crowd.max(options.few()));
    allow_descriptors(few + all + OTHER_DESCRIPTORS)?;
    println!(
        "\ncrowd: {few} active of {all} connections, beside {few} alone; {} bytes",
        options.size
    );
    println!("{:<10} {:>12} {:>12} {:>22}", "", "alone", "crowd", "ratio");
    for &kind in &options.servers {
        let seen = Seen::of(kind, cores, options)?;
        println!("{}", kind.name());
        seen.report("p50 us", |sample| sample.median);
        seen.report("p99 us", |sample| sample.slow);
        seen.report("messages/s", |sample| sample.rate);
        seen.report("CPU us", |sample| sample.cpu);
        if let Some(each) = seen.resident {
            println!("{:<10} {each:>25}", "B per idle");
        }
    }
    Ok(())
}

/// How much longer the 99th of 100 replies takes in the crowd.
pub(crate) fn slowing(kind: Kind, cores: Cores, options: &Options) -> io::Result<Ratio> {
    let all = options.crowd.max(options.few());
    allow_descriptors(options.few() + all + OTHER_DESCRIPTORS)?;
    Ok(Seen::of(kind, cores, options)?.ratio(|sample| sample.slow))
}

/// What the few had alone and in the crowd, round by round.
struct Seen {
    alone: Vec<Sample>,
    crowd: Vec<Sample>,
    /// Bytes per idle connection, if there was one.
    resident: Option<u64>,
}

impl Seen {
    fn of(kind: Kind, cores: Cores, options: &Options) -> io::Result<Self> {
        let (few, all) = (options.few(), options.crowd.max(options.few()));
        let mut small = Stage::build(kind.without_deadlines(), cores, few, options)?;
        let mut large = Stage::build(kind.without_deadlines(), cores, all, options)?;
        let (mut alone, mut crowd) = (Vec::new(), Vec::new());
        for round in 0..options.rounds {
            if round % 2 == 0 {
                alone.push(small.measure(options.duration)?);
                crowd.push(large.measure(options.duration)?);
            } else {
                crowd.push(large.measure(options.duration)?);
                alone.push(small.measure(options.duration)?);
            }
        }
        let resident = large.resident.checked_div(large.idle.len() as u64);
        Ok(Self {
            alone,
            crowd,
            resident,
        })
    }

    fn ratio(&self, value: impl Fn(&Sample) -> f64) -> Ratio {
        let alone: Vec<f64> = self.alone.iter().map(&value).collect();
        let crowd: Vec<f64> = self.crowd.iter().map(&value).collect();
        Ratio::new(&crowd, &alone)
    }

    fn report(&self, name: &str, value: impl Fn(&Sample) -> f64) {
        let alone = median(self.alone.iter().map(&value).collect());
        let crowd = median(self.crowd.iter().map(&value).collect());
        let ratio = self.ratio(value);
        println!("{name:<10} {alone:>12.2} {crowd:>12.2} {ratio:>22}");
    }
}

impl Stage {
    /// Opens all connections and uses each of them once.
    fn build(kind: Kind, cores: Cores, connections: usize, options: &Options) -> io::Result<Self> {
        let server = Running::start(kind, cores)?;
        let _first = visit(&server, 0)?;
        thread::sleep(SETTLE);
        let before = server.resident()?;
        let all = (0..connections)
            .map(|number| visit(&server, number))
            .collect::<io::Result<Vec<_>>>()?;
        thread::sleep(SETTLE);
        let resident = server.resident()?.saturating_sub(before);
        // The active ones are spread out, as they would be in time: their neighbours are idle.
        let (mut active, mut idle) = (Vec::new(), Vec::new());
        for (number, stream) in all.into_iter().enumerate() {
            if number % (connections / options.few()) == 0 && active.len() < options.few() {
                active.push(stream);
            } else {
                idle.push(stream);
            }
        }
        let mut active = Generator::over(active, Pattern::new(options.size, Shape::Plain))?;
        active.begin(options.depth)?;
        Ok(Self {
            server,
            active,
            idle,
            resident,
        })
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "nobody echoes 2^52 messages in a round"
    )]
    fn measure(&mut self, duration: Duration) -> io::Result<Sample> {
        self.active.run(duration / 5, true)?;
        self.active.time_replies();
        let before = self.server.usage()?;
        let done = self.active.run(duration, false)?;
        let usage = self.server.usage()?.since(before);
        let times = self.active.reply_times();
        let messages = done.messages as f64;
        Ok(Sample {
            median: quantile(&times, 0.5),
            slow: quantile(&times, 0.99),
            rate: messages / done.elapsed.as_secs_f64(),
            cpu: usage.total.as_secs_f64() * 1e6 / messages,
        })
    }
}

/// Connects, from an address that `number` chooses, and has one message echoed.
fn visit(server: &Running, number: usize) -> io::Result<TcpStream> {
    let source = u8::try_from(number % SOURCES + 1).unwrap_or(1);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, source), 0).into())?;
    socket.connect(&SocketAddr::into(server.address))?;
    let mut stream = TcpStream::from(socket);
    let mut message = [b'x'; 64];
    stream.write_all(&message)?;
    stream.read_exact(&mut message)?;
    Ok(stream)
}
