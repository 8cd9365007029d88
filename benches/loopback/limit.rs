//! A server that has run out of descriptors while many clients wait.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serveloop_measure::{Cores, Load, Scenario};

use crate::measure::allow;
use crate::options::Options;
use crate::process::Running;
use crate::servers::Kind;
use crate::table::{figure, ratio};

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

pub(crate) fn limit(options: &Options, cores: &Cores) -> io::Result<()> {
    allow(2 * CLIENTS)?;
    let scenario = Scenario {
        connections: ESTABLISHED,
        size: options.size,
        ..Scenario::default()
    };
    let [calm, server] = [start(cores, &scenario)?, start(cores, &scenario)?];
    let mut loads = [calm.load(&scenario)?, server.load(&scenario)?];
    for load in &mut loads {
        load.settle(ESTABLISHED)?;
    }
    let mut crowd = Crowd::connect(server.socket_addr())?;
    while crowd.wait(QUIET)? {}
    println!(
        "\nlimit: {DESCRIPTORS} descriptors, {ESTABLISHED} connections established, {CLIENTS} \
         clients of which {} wait",
        CLIENTS - crowd.served.len()
    );

    let quiet = options.duration * 10;
    let time = || {
        server
            .process
            .family()
            .processor_time()
            .ok_or(ErrorKind::NotFound)
    };
    let logged = || server.process.lines.try_iter().count();
    let (before, _) = (time()?, logged());
    thread::sleep(quiet);
    let (usage, logged) = ((time()? - before).as_secs_f64(), logged());
    println!(
        "  nothing else to do for {quiet:?}: {:.2} % of a core, {logged} log lines",
        100.0 * usage / quiet.as_secs_f64(),
    );

    let (mut rates, mut slow) = ([vec![], vec![]], [vec![], vec![]]);
    for _ in 0..options.rounds {
        for (place, load) in loads.iter_mut().enumerate() {
            let (rate, time) = replies(load)?;
            rates[place].push(rate);
            slow[place].push(time);
        }
    }
    println!(
        "  the established, compared with a server without a crowd: messages/s {}, p99 {}",
        ratio(&rates[1], &rates[0]),
        ratio(&slow[1], &slow[0]),
    );

    let mut waits = Vec::new();
    for number in 0..LEAVERS {
        // Leaving at another moment of the server's pause each time.
        thread::sleep(Duration::from_millis(7 * number % 100));
        waits.push(crowd.replace_one()?);
    }
    let waits = figure(waits);
    println!(
        "  one leaves, one that waited is answered: after {:.0} ms, at most {:.0} ms",
        waits.median / 1e3,
        waits.most / 1e3
    );
    Ok(())
}

fn start(cores: &Cores, scenario: &Scenario) -> io::Result<Running> {
    let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    Running::start_by(&["prlimit", &limit], Kind::Scarce, cores, None, scenario)
}

/// Messages per second, and how many microseconds the 99th of 100 replies took.
#[expect(clippy::cast_precision_loss, reason = "the messages are few")]
fn replies(load: &mut Load<'_>) -> io::Result<(f64, f64)> {
    let elapsed = load.exchange_messages(MESSAGES)?;
    let rate = MESSAGES as f64 / elapsed.as_secs_f64();
    Ok((rate, load.latency().p99))
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
