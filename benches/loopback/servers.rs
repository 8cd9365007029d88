//! The servers that are compared. All take their connections from the same kind of listener, so that
//! its backlog and its options give nobody an advantage.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::str::FromStr;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serveloop::protocols::Echo;
use serveloop::{Address, Config, Peer, Server};
use slab::Slab;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::logger;

/// The read buffer of the peers: what it takes to be good at bulk, too.
const READ_BUFFER: usize = 64 * 1024;
/// What one connection of the roomy server may move per turn.
const ROOM: usize = 256 * 1024;
const BACKLOG: i32 = 1_024;
const EVENTS: usize = 1_024;
const LISTENER: Token = Token(usize::MAX - 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mio,
    Serveloop,
    Tokio,
    /// Serveloop again, with budgets for large messages.
    Roomy,
    /// Serveloop again, for peers that stay though they say nothing.
    Patient,
    /// Serveloop again, which runs into the limit of descriptors, and says what it logs.
    Scarce,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mio => "mio",
            Self::Serveloop => "serveloop",
            Self::Tokio => "tokio",
            Self::Roomy => "roomy",
            Self::Patient => "patient",
            Self::Scarce => "scarce",
        }
    }

    /// The same server for connections that stand idle for long.
    pub(crate) fn without_deadlines(self) -> Self {
        if self == Self::Serveloop {
            return Self::Patient;
        }
        self
    }

    /// Serves until the process is killed. Says its port and its process on standard output first.
    pub(crate) fn serve(self) -> io::Result<()> {
        match self {
            Self::Mio => serve_mio(&listen()?),
            Self::Serveloop => serve_serveloop(defaults()),
            Self::Roomy => serve_serveloop(Config {
                read_per_turn: ROOM,
                write_per_turn: ROOM,
                high_water: ROOM,
                low_water: ROOM / 2,
                ..defaults()
            }),
            Self::Patient => serve_serveloop(Config {
                max_connections: 16_000,
                first_message_timeout: None,
                idle_timeout: None,
                ..Config::default()
            }),
            Self::Scarce => {
                logger::install();
                serve_serveloop(Config {
                    reserved_descriptors: 0,
                    ..defaults()
                })
            }
            Self::Tokio => serve_tokio(listen()?),
        }
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        [
            Self::Mio,
            Self::Serveloop,
            Self::Tokio,
            Self::Roomy,
            Self::Patient,
            Self::Scarce,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or(())
    }
}

/// Every limit and deadline is on.
fn defaults() -> Config {
    Config {
        max_connections: 20_000,
        ..Config::default()
    }
}

fn serve_serveloop(config: Config) -> io::Result<()> {
    let any = Address::Tcp((Ipv4Addr::LOCALHOST, 0).into());
    let server = Server::bind(&[any], config)?;
    if let Address::Tcp(address) = &server.addresses()[0] {
        announce(*address);
    }
    server.serve_forever(|_: &Peer| Some(Echo)).map(drop)
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    output: Vec<u8>,
}

/// A loop on mio as it is usually written: registered once for both directions, read until nothing
/// is left, a read buffer and an output buffer for every connection.
fn serve_mio(listener: &TcpListener) -> io::Result<()> {
    let mut listener = mio::net::TcpListener::from_std(listener.try_clone()?);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS);
    let mut connections = Slab::new();
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, &poll, &mut connections)?;
                continue;
            }
            let Some(connection) = connections.get_mut(event.token().0) else {
                continue;
            };
            if !connection.serve().unwrap_or(false) {
                connections.remove(event.token().0);
            }
        }
    }
}

fn accept_all(
    listener: &mio::net::TcpListener,
    poll: &Poll,
    connections: &mut Slab<Connection>,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let entry = connections.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut stream, Token(entry.key()), interest)?;
        entry.insert(Connection {
            stream,
            buffer: vec![0; READ_BUFFER],
            output: Vec::new(),
        });
    }
}

impl Connection {
    /// Moves what can be moved. False at the end of the stream.
    fn serve(&mut self) -> io::Result<bool> {
        let mut open = true;
        while open {
            match self.stream.read(&mut self.buffer) {
                Ok(0) => open = false,
                Ok(count) => self.output.extend_from_slice(&self.buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(open)
    }
}

/// A task for each connection on tokio's single-threaded runtime, as in its documentation.
fn serve_tokio(listener: TcpListener) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo(stream));
        }
    })
}

async fn echo(mut stream: tokio::net::TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
    }
}

/// The socket that this library would make: accepted connections inherit NODELAY from it.
fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    let listener: TcpListener = socket.into();
    announce(listener.local_addr()?);
    Ok(listener)
}

fn announce(address: SocketAddr) {
    println!("{} {}", address.port(), process::id());
}
