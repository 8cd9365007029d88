//! The servers that are compared. All take their connections from the same kind of listener, so that
//! its backlog and its options give no server an advantage.

use std::io;
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use serveloop::framing::{
    FrameProtocol, FrameTransport, Framed, Framing, LengthPrefix, Lines, Message,
};
use serveloop::protocols::Echo;
use serveloop::{Address, Config, Peer, ProtocolError, Server};
use serveloop_measure::Shape;
use serveloop_measure::launch::{announce, listen};

use crate::epoll::{self, Trigger};
use crate::{logger, plain, tasks};

const BUSY: Duration = Duration::from_micros(100);
const MOST: usize = 20_000;
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
}

const NAMES: [(&str, Kind); 13] = [
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

impl FromStr for Kind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind).ok_or(())
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
