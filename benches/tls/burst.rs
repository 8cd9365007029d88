//! How long a client with an established connection waits while many others begin their handshakes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serveloop_measure::{Cores, Latency, Pace, Scenario, descriptors, line};

use crate::client::{Sessions, hello, secured};
use crate::options::Options;
use crate::process::Running;
use crate::servers::Kind;

/// Messages of the established connection per second.
const RATE: u64 = 500;
/// More messages than are ever late.
const DEPTH: usize = 1_024;
/// How long the server may settle before the burst, and after it.
const REST: Duration = Duration::from_millis(300);
/// How long a client waits for the server's reply to its first flight.
const PATIENCE: Duration = Duration::from_secs(20);

const WIDTHS: [usize; 7] = [12, 11, 11, 11, 9, 9, 9];

/// When the first flights come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// Each with its connection.
    Connecting,
    /// On connections that were accepted before.
    Accepted,
}

/// What a burst was for the server and for the other client.
#[derive(Debug)]
struct Outcome {
    /// How long it took until the last client had the server's reply.
    took: Duration,
    /// The server's processor time meanwhile.
    busy: Duration,
    /// How long the messages of the established connection took that were due meanwhile.
    waits: Latency,
}

/// Prints how long the burst took, and how long the other client's messages took meanwhile.
pub(crate) fn burst(options: &Options, cores: &Cores) -> io::Result<()> {
    descriptors::check(options.clients + 1).map_err(io::Error::other)?;
    let clients = options.clients;
    println!(
        "\nburst: {clients} clients send their first flight at once, another one has a connection"
    );
    let titles = [
        "",
        "clients",
        "served ms",
        "CPU ms",
        "p50 ms",
        "p99 ms",
        "max ms",
    ];
    println!("{}", line(WIDTHS, titles));

    for &kind in &options.servers {
        for arrival in [Arrival::Connecting, Arrival::Accepted] {
            if kind == Kind::Nginx {
                continue;
            }
            let Outcome { took, busy, waits } = measure(options, kind, cores, arrival)?;
            let millis = |micros: f64| format!("{:.1}", micros / 1e3);
            let whole = |time: Duration| format!("{:.0}", time.as_secs_f64() * 1e3);
            let name = match arrival {
                Arrival::Connecting => "connecting",
                Arrival::Accepted => "accepted",
            };
            let cells = [
                kind.name().to_owned(),
                name.to_owned(),
                whole(took),
                whole(busy),
                millis(waits.p50),
                millis(waits.p99),
                millis(waits.max),
            ];
            println!("{}", line(WIDTHS, cells));
        }
    }
    Ok(())
}

fn measure(options: &Options, kind: Kind, cores: &Cores, arrival: Arrival) -> io::Result<Outcome> {
    let scenario = Scenario {
        pace: Pace::Open(RATE),
        // No message waits for the one before it.
        depth: DEPTH,
        ..Scenario::default()
    };
    let secured = secured(Sessions::New)?;
    let server = Running::start(kind, cores, None, &scenario)?;
    let mut load = server.load(&scenario, &secured)?;
    load.settle(scenario.total())?;

    let addr = server.addresses[0].socket_addr();
    let addr = addr.ok_or_else(|| io::Error::other("the server has no port"))?;
    let (hello, clients) = (hello()?, options.clients);
    let connected = match arrival {
        Arrival::Connecting => Vec::new(),
        Arrival::Accepted => connect(addr, clients)?,
    };
    load.begin(u64::MAX);
    load.run(REST)?;

    let busy = || server.process.family().processor_time().unwrap_or_default();
    let before = busy();
    let crowd = thread::spawn(move || crowd(addr, clients, connected, &hello));
    load.measure(Duration::ZERO)?;
    while !crowd.is_finished() {
        load.run(Duration::from_millis(5))?;
    }
    let busy = busy().saturating_sub(before);
    let waits = load.finish()?;
    let took = crowd.join().map_err(|_| io::Error::other("a panic"))??;
    Ok(Outcome { took, busy, waits })
}

fn connect(addr: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    let each = |_| {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    (0..count).map(each).collect()
}

/// Sends the first flight on `clients` connections, and waits until the server has answered each.
fn crowd(
    addr: SocketAddr,
    clients: usize,
    mut streams: Vec<TcpStream>,
    hello: &[u8],
) -> io::Result<Duration> {
    let begun = Instant::now();
    if streams.is_empty() {
        for _ in 0..clients {
            let mut stream = connect(addr, 1)?.remove(0);
            stream.write_all(hello)?;
            streams.push(stream);
        }
    } else {
        for stream in &mut streams {
            stream.write_all(hello)?;
        }
    }
    for stream in &mut streams {
        stream.read_exact(&mut [0; 5])?;
    }
    Ok(begun.elapsed())
}
