//! The servers that are compared. All take their connections from the same kind of listener, so that
//! its backlog and its options give no server an advantage.

use std::ffi::{OsStr, OsString};
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, io, process};

use serveloop::framing::{
    FrameProtocol, FrameTransport, Framed, Framing, LengthPrefix, Lines, Message,
};
use serveloop::protocols::Echo;
use serveloop::{Address, Config, Peer, Protocol, ProtocolError, Server, Transport};
use serveloop_measure::Shape;
use serveloop_measure::launch::{announce, listen};

use crate::epoll::{self, Trigger};
use crate::{logger, plain, tasks};

const BUSY: Duration = Duration::from_micros(100);
const MOST: usize = 21_000;
const FRAME_MOST: usize = 1 << 20;
const BACKLOG: i32 = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Written like a loop in C, level-triggered.
    Epoll,
    /// The same, edge-triggered; a short read ends the reading.
    Edge,
    Mio,
    Tokio,
    /// Tokio with two threads.
    Multi,
    Serveloop,
    /// This library with two loops.
    Workers,
    /// This library with a thread for each connection.
    Threads,
    /// An echo of frames with a length.
    Framed,
    /// An echo of lines.
    Lines,
    /// Asks before it sleeps.
    Busy,
    /// For peers that stay though they say nothing.
    Patient,
    /// Runs into the limit of descriptors, and says what it logs.
    Scarce,
    /// Closes a connection after its reply.
    Closing,
    /// What people run: the built command, `serve echo -q`, with all of its defaults.
    Command,
}

const NAMES: [(&str, Kind); 15] = [
    ("epoll", Kind::Epoll),
    ("edge", Kind::Edge),
    ("mio", Kind::Mio),
    ("tokio", Kind::Tokio),
    ("multi", Kind::Multi),
    ("serveloop", Kind::Serveloop),
    ("workers", Kind::Workers),
    ("threads", Kind::Threads),
    ("framed", Kind::Framed),
    ("lines", Kind::Lines),
    ("busy", Kind::Busy),
    ("patient", Kind::Patient),
    ("scarce", Kind::Scarce),
    ("closing", Kind::Closing),
    ("command", Kind::Command),
];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }

    /// What its messages look like.
    pub(crate) fn shape(self) -> Shape {
        match self {
            Self::Framed => Shape::Length,
            Self::Lines => Shape::Line,
            _ => Shape::Plain,
        }
    }

    /// The same server for connections that stay idle for long.
    pub(crate) fn without_deadlines(self) -> Self {
        if self == Self::Serveloop {
            return Self::Patient;
        }
        self
    }

    /// Returns the command line of a server that is a program of its own, and no part of this benchmark.
    pub(crate) fn program(self, host: Ipv4Addr) -> Option<io::Result<Vec<OsString>>> {
        let listen = format!("tcp://{host}:0");
        let words = ["serve", "echo", "-q", "--listen", &listen].map(OsString::from);
        (self == Self::Command).then(|| {
            Ok([built()?.into_os_string()]
                .into_iter()
                .chain(words)
                .collect())
        })
    }

    /// Serves at a port of `host` until the process is killed. Says its address on standard output
    /// first.
    pub(crate) fn serve(self, host: Ipv4Addr) -> io::Result<()> {
        match self {
            Self::Epoll => epoll::serve(&listen(host, BACKLOG)?, Trigger::Level),
            Self::Edge => epoll::serve(&listen(host, BACKLOG)?, Trigger::Edge),
            Self::Mio => plain::serve(&listen(host, BACKLOG)?),
            Self::Tokio => tasks::serve(listen(host, BACKLOG)?),
            Self::Multi => tasks::serve_on_threads(listen(host, BACKLOG)?, 2),
            _ => self.serve_here(host),
        }
    }

    /// The kinds of this library.
    fn serve_here(self, host: Ipv4Addr) -> io::Result<()> {
        if self == Self::Scarce {
            logger::install();
        }
        let any = Address::Tcp((host, 0).into());
        let server = Server::bind(&[any], self.config())?;
        announce(&server.addresses()[0]);
        let echo = |_: &Peer| Some(Echo);
        let end = match self {
            Self::Workers => server.serve_workers(2, echo),
            Self::Threads => server.serve_threading(echo),
            Self::Framed => server.serve_forever(|_: &Peer| {
                Some(Framed::new(
                    LengthPrefix::u32(FRAME_MOST),
                    Frame(PhantomData),
                ))
            }),
            Self::Lines => server.serve_forever(|_: &Peer| {
                Some(Framed::new(Lines::new(FRAME_MOST), Frame(PhantomData)))
            }),
            Self::Closing => server.serve_forever(|_: &Peer| Some(Closing)),
            _ => server.serve_forever(echo),
        };
        end.map(drop)
    }

    /// Every limit and deadline is on, but for the patient one's.
    fn config(self) -> Config {
        let mut config = Config {
            max_connections: MOST,
            ..Config::default()
        };
        match self {
            Self::Workers => config.reuse_port = true,
            Self::Busy => config.busy_poll = Some(BUSY),
            Self::Scarce => config.reserved_descriptors = 0,
            Self::Patient => {
                config.max_connections = 16_000;
                config.limits.first_message_timeout = None;
                config.limits.idle_timeout = None;
            }
            _ => {}
        }
        config
    }
}

/// Builds the command as users have it, and returns its path. Where this benchmark was not started by
/// cargo, the command must have been built before.
fn built() -> io::Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let outcome = BUILT.get_or_init(|| env::var_os("CARGO").map_or(Ok(()), |cargo| build(&cargo)));
    outcome.clone().map_err(io::Error::other)?;

    let deps = env::current_exe()?;
    let directory = deps.ancestors().nth(2).unwrap_or(Path::new("."));
    let path = directory.join("serveloop");
    if path.is_file() {
        return Ok(path);
    }
    let problem = format!(
        "{} is not built: cargo build --release -p serveloop-cli",
        path.display()
    );
    Err(io::Error::other(problem))
}

fn build(cargo: &OsStr) -> Result<(), String> {
    // Like a release, but for debug information. Most of what it needs is built already, for this benchmark.
    let words = [
        "build",
        "--profile=bench",
        "--locked",
        "--quiet",
        "--bin",
        "serveloop",
    ];
    let mut command = process::Command::new(cargo);
    command.args(words);
    // What cargo has told this benchmark of its own package would count as a change to the build of `ring`.
    for (name, _) in env::vars_os() {
        let of_package = |prefix: &str| name.to_str().is_some_and(|name| name.starts_with(prefix));
        if of_package("CARGO_PKG_") || of_package("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the command was not built: {status}")),
        Err(error) => Err(format!("{}: {error}", Path::new(cargo).display())),
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind).ok_or(())
    }
}

/// Echoes what comes, and closes.
struct Closing;

impl Protocol for Closing {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        transport.write(data);
        transport.close();
        Ok(data.len())
    }
}

/// Echoes whole messages.
struct Frame<F>(PhantomData<F>);

impl<F: Framing> FrameProtocol for Frame<F>
where
    for<'m> Message<'m, F>: AsRef<[u8]>,
{
    type Framing = F;

    fn frame_received(
        &mut self,
        frame: Message<'_, F>,
        frames: &mut FrameTransport<'_, F>,
    ) -> Result<(), ProtocolError> {
        frames.send(frame.as_ref())
    }
}
