//! A server that has run out of descriptors while many clients wait.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::generator::{Generator, Pattern, Shape};
use crate::machine::{Cores, allow_descriptors};
use crate::options::Options;
use crate::process::Running;
use crate::servers::Kind;
use crate::table::{Ratio, median, quantile};

const DESCRIPTORS: usize = 256;
/// Fewer than the listener's queue takes, so that all of them connect.
const CLIENTS: usize = 1_000;
const ESTABLISHED: usize = 5;
/// For each measurement of the established.
const MESSAGES: u64 = 10_000;
const LEAVERS: u64 = 20;
/// How long nobody is answered any more when the server is full.
const QUIET: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(5);

/// Clients that have connected and said something; the server took some of them in.
struct Crowd {
    poll: Poll,
    events: Events,
    clients: Vec<Option<TcpStream>>,
    served: Vec<usize>,
}

pub(crate) fn limit(options: &Options, cores: Cores) -> io::Result<()> {
    allow_descriptors(2 * CLIENTS)?;
    let calm = start(cores)?;
    let pattern = || Pattern::new(options.size, Shape::Plain);
    let mut alone = Generator::connect(calm.address, ESTABLISHED, pattern())?;
    let mut server = start(cores)?;
    let lines = count_lines(&mut server);
    let mut established = Generator::connect(server.address, ESTABLISHED, pattern())?;
    let mut crowd = Crowd::connect(server.address)?;
    while crowd.wait(QUIET)? {}
    println!(
        "\nlimit: {DESCRIPTORS} descriptors, {ESTABLISHED} connections established, {CLIENTS} \
         clients of which {} wait",
        CLIENTS - crowd.served.len()
    );

    let quiet = options.duration * 10;
    let (usage, logged) = (server.usage()?, lines.load(Ordering::Relaxed));
    thread::sleep(quiet);
    let usage = server.usage()?.since(usage).total.as_secs_f64();
    let logged = lines.load(Ordering::Relaxed) - logged;
    println!(
        "  nothing else to do for {quiet:?}: {:.2} % of a core, {logged} log lines",
        100.0 * usage / quiet.as_secs_f64(),
    );

    let (mut rates, mut slow) = ([vec![], vec![]], [vec![], vec![]]);
    for _ in 0..options.rounds {
        for (place, generator) in [&mut alone, &mut established].into_iter().enumerate() {
            let (rate, time) = replies(generator)?;
            rates[place].push(rate);
            slow[place].push(time);
        }
    }
    println!(
        "  the established, beside a server without a crowd: messages/s {}, p99 {}",
        Ratio::new(&rates[1], &rates[0]),
        Ratio::new(&slow[1], &slow[0]),
    );

    let mut waits = Vec::new();
    for number in 0..LEAVERS {
        // Leaving at another moment of the server's pause each time.
        thread::sleep(Duration::from_millis(7 * number % 100));
        waits.push(crowd.replace_one()?);
    }
    println!(
        "  one leaves, one that waited is answered: after {:.0} ms, at most {:.0} ms",
        median(waits.clone()) / 1e3,
        quantile(&waits, 1.0) / 1e3
    );
    Ok(())
}

fn start(cores: Cores) -> io::Result<Running> {
    let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    let list = cores.list();
    let before = ["taskset", "-c", &list, "prlimit", &limit];
    let unpinned = &before[3..];
    let before = if cores.pinned { &before } else { unpinned };
    Running::start_under(before, Kind::Scarce)
}

/// Counts the lines that the server logs, from now on.
fn count_lines(server: &mut Running) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    if let Some(output) = server.take_output() {
        let count = Arc::clone(&count);
        thread::spawn(move || {
            for _ in output.lines().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    count
}

/// Messages per second, and how many microseconds the 99th of 100 replies took.
#[expect(clippy::cast_precision_loss, reason = "the messages are few")]
fn replies(generator: &mut Generator) -> io::Result<(f64, f64)> {
    let start = Instant::now();
    generator.time_replies();
    generator.run_messages(MESSAGES)?;
    let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
    Ok((rate, quantile(&generator.reply_times(), 0.99)))
}

impl Crowd {
    fn connect(to: SocketAddr) -> io::Result<Self> {
        let poll = Poll::new()?;
        let clients = (0..CLIENTS)
            .map(|number| {
                let mut stream = std::net::TcpStream::connect(to)?;
                stream.write_all(b"x")?;
                stream.set_nonblocking(true)?;
                let mut stream = TcpStream::from_std(stream);
                poll.registry()
                    .register(&mut stream, Token(number), Interest::READABLE)?;
                Ok(Some(stream))
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            poll,
            events: Events::with_capacity(CLIENTS),
            clients,
            served: Vec::new(),
        })
    }

    /// Waits for replies. False if none came in that time.
    fn wait(&mut self, most: Duration) -> io::Result<bool> {
        self.poll.poll(&mut self.events, Some(most))?;
        for event in &self.events {
            let number = event.token().0;
            let Some(client) = &mut self.clients[number] else {
                continue;
            };
            if client.read(&mut [0])? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.served.push(number);
        }
        Ok(!self.events.is_empty())
    }

    /// Has one that is served leave. Returns how many microseconds later another is answered.
    fn replace_one(&mut self) -> io::Result<f64> {
        let leaver = self.served.pop().ok_or(ErrorKind::NotFound)?;
        let start = Instant::now();
        self.clients[leaver] = None;
        if !self.wait(PATIENCE)? {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(start.elapsed().as_secs_f64() * 1e6)
    }
}
