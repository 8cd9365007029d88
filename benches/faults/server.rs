//! A server as a child process, which tells its counters when its standard input ends.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{self, Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::protocols::Echo;
use serveloop::{Config, Factory, Peer, Protocol, ProtocolError, Server, Statistics, Transport};

use crate::logger;
use crate::machine::{Cores, Usage, resident};

/// What nobody waits for in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A server, until it is dropped.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) address: SocketAddr,
    /// What it logs, and at the end its counters.
    pub(crate) lines: Receiver<String>,
}

impl Running {
    pub(crate) fn start(what: &str, cores: Cores) -> io::Result<Self> {
        let itself = env::current_exe()?;
        let mut command = Command::new(&itself);
        if cores.pinned {
            command = Command::new("taskset");
            command.args(["-c", &cores.server.to_string()]).arg(&itself);
        }
        let mut child = command
            .args(["--serve", what])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or(ErrorKind::BrokenPipe)?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.all(|line| sender.send(line).is_ok())
        });
        let port = lines.recv_timeout(PATIENCE).map_err(io::Error::other)?;
        let port: u16 = port.parse().map_err(io::Error::other)?;
        Ok(Self {
            child,
            stdin,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            lines,
        })
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// A client that fails rather than waits for ever.
    pub(crate) fn client(&self) -> io::Result<TcpStream> {
        connect(self.address)
    }

    pub(crate) fn cpu_time(&self) -> io::Result<Duration> {
        Usage::of(self.process()).map(|usage| usage.total)
    }

    pub(crate) fn memory(&self) -> io::Result<u64> {
        resident(self.process())
    }

    /// How many lines it has logged that nobody has asked for yet.
    pub(crate) fn take_lines(&self) -> usize {
        self.lines.try_iter().count()
    }

    /// Shuts it down; gives its counters.
    pub(crate) fn end(mut self) -> io::Result<BTreeMap<String, u64>> {
        self.stdin = None;
        let mut counts = BTreeMap::new();
        for line in self.lines.iter() {
            let count = line
                .strip_prefix("count ")
                .and_then(|it| it.split_once(' '));
            if let Some((name, number)) = count {
                counts.insert(name.to_owned(), number.parse().map_err(io::Error::other)?);
            }
        }
        self.child.wait()?;
        Ok(counts)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a child that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
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
            let most = roomy.max_line;
            run(roomy, move |_: &Peer| {
                Some(Framed::new(Lines::new(most), Back))
            })
        }
        // No deadline, so that what is measured is memory.
        "patient" => {
            let patient = Config {
                write_timeout: None,
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
    let port = server.addresses()[0].socket_addr().map(|it| it.port());
    println!("{}", port.unwrap_or_default());
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
