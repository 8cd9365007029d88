//! A server as a child process, which tells its counters when its standard input ends.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::process::{self, Stdio};
use std::thread;
use std::time::Duration;

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::layer::layered;
use serveloop::layer::tls::{ServerTls, Tls, TlsInfo};
use serveloop::protocols::Echo;
use serveloop::{
    Config, Factory, Limits, Peer, Protocol, ProtocolError, Server, Statistics, Transport,
};
use serveloop_measure::{Cores, Launched, Uninterrupted, descriptors, launch};

use socket2::{Domain, Socket, Type};

use crate::logger;
use crate::secure::certificate;

/// The longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The deadline of handshakes.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(20);

/// The addresses from which a crowd comes have ports for all.
const SOURCES: usize = 8;

/// A server, until it is dropped.
pub(crate) struct Running {
    /// What it logs, and at the end its counters, are its lines.
    process: Launched,
    pub(crate) address: SocketAddr,
}

impl Running {
    pub(crate) fn start(what: &str, cores: &Cores) -> io::Result<Self> {
        let mut command = launch::command(&[], None, &cores.servers)?;
        command.arg(env::current_exe()?).args(["--serve", what]);
        let process = Launched::spawn(command.stdin(Stdio::piped()))?;
        let addresses = process.addresses(1, &Uninterrupted)?;
        let address = addresses[0].socket_addr().ok_or(ErrorKind::InvalidData)?;
        Ok(Self { process, address })
    }

    pub(crate) fn process(&self) -> u32 {
        self.process.id()
    }

    /// A client that fails rather than waits without end.
    pub(crate) fn client(&self) -> io::Result<TcpStream> {
        connect(self.address)
    }

    pub(crate) fn cpu_time(&self) -> io::Result<Duration> {
        let time = self.process.family().processor_time();
        Ok(time.ok_or(ErrorKind::NotFound)?)
    }

    pub(crate) fn memory(&self) -> io::Result<u64> {
        Ok(self.process.family().memory().ok_or(ErrorKind::NotFound)?)
    }

    /// How many lines it has logged that were not asked for yet.
    pub(crate) fn take_lines(&self) -> usize {
        self.process.lines.try_iter().count()
    }

    /// Shuts it down. Returns its counters.
    pub(crate) fn end(mut self) -> io::Result<BTreeMap<String, u64>> {
        self.process.stdin = None;
        let mut counts = BTreeMap::new();
        for line in &self.process.lines {
            let count = line
                .strip_prefix("count ")
                .and_then(|it| it.split_once(' '));
            if let Some((name, number)) = count {
                counts.insert(name.to_owned(), number.parse().map_err(io::Error::other)?);
            }
        }
        Ok(counts)
    }
}

/// Sees to it that this process, and the servers that it starts, can have this many connections.
pub(crate) fn allow(connections: usize) -> io::Result<()> {
    descriptors::check(connections).map_err(io::Error::other)
}

pub(crate) fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The same from one of several addresses, of which each has ports for a part of a crowd.
pub(crate) fn connect_from(to: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let source = u8::try_from(number % SOURCES + 1).unwrap_or(1);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, source), 0).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// The server's process.
pub(crate) fn serve(what: &str) -> io::Result<()> {
    logger::install();
    match what {
        "echo" => run(Config::default(), |_: &Peer| Some(Echo)),
        // It runs into the limit of descriptors by itself.
        "scarce" => {
            let scarce = Config {
                reserved_descriptors: 0,
                ..Config::default()
            };
            run(scarce, |_: &Peer| Some(Echo))
        }
        "lines" => {
            let roomy = Config {
                max_connections: 15_000,
                ..Config::default()
            };
            let most = roomy.limits.max_line;
            run(roomy, move |_: &Peer| {
                Some(Framed::new(Lines::new(most), Back))
            })
        }
        "secure" => {
            // All of a crowd are there for a while before the first of them has to go.
            let roomy = Config {
                max_connections: 15_000,
                limits: Limits {
                    handshake_timeout: Some(HANDSHAKE),
                    ..Limits::default()
                },
                ..Config::default()
            };
            let tls = ServerTls::builder()
                .certificate(certificate("localhost.pem")?, certificate("localhost.key")?)
                .build()
                .map_err(io::Error::other)?;
            let begin = move |_: &Peer| Some(Tls::server(&tls));
            run(roomy, layered(begin, |_: &Peer, _: &TlsInfo| Some(Echo)))
        }
        // No deadline, so that what is measured is memory.
        "patient" => {
            let patient = Config {
                limits: Limits {
                    write_timeout: None,
                    ..Limits::default()
                },
                ..Config::default()
            };
            run(patient, |_: &Peer| Some(Echo))
        }
        "panicking" => {
            std::panic::set_hook(Box::new(|_| {}));
            let mut number = 0;
            run(Config::default(), move |_: &Peer| {
                number += 1;
                Some(Nervous(number % 4))
            })
        }
        _ => Err(ErrorKind::InvalidInput.into()),
    }
}

fn run<F: Factory>(config: Config, factory: F) -> io::Result<()> {
    let at = "tcp://127.0.0.1:0".parse().map_err(io::Error::other)?;
    let server = Server::bind(&[at], config)?;
    let handle = server.shutdown_handle();
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        handle.shutdown();
    });
    println!("listening on {}", server.addresses()[0]);
    let statistics: Statistics = server.with(factory).serve_forever()?;
    for (name, count) in statistics.iter() {
        println!("count {name} {count}");
    }
    process::exit(0)
}

/// Echoes lines.
struct Back;

impl FrameProtocol for Back {
    type Framing = Lines;

    fn frame_received(
        &mut self,
        line: &[u8],
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        frames.send(line)
    }
}

/// Echoes, and panics in one of four places when it is sent `!`.
struct Nervous(u32);

impl Nervous {
    fn panic_at(&self, place: u32) {
        assert!(self.0 != place, "on purpose");
    }
}

impl Protocol for Nervous {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        if data != b"!" {
            transport.write(data);
            self.0 = u32::MAX;
            return Ok(data.len());
        }
        self.panic_at(0);
        transport.waker().wake();
        Ok(data.len())
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.panic_at(1);
        transport.close();
    }

    fn connection_lost(&mut self, _: &serveloop::Ended<'_>) {
        self.panic_at(2);
    }
}

impl Drop for Nervous {
    fn drop(&mut self) {
        self.panic_at(3);
    }
}
