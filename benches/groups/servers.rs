//! The servers that are compared. Each sends every message to all of its connections, the one that it
//! came from included.

use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::str::FromStr;

use serveloop::service::{Group, Lagging};
use serveloop::{Address, Config, Peer, Protocol, Server};
use serveloop_measure::launch::{announce, listen};

use crate::protocols::{InGroup, Room, Seated};
use crate::{broadcast, epoll};

const BACKLOG: i32 = 1_024;
const MOST: usize = 18_000;

/// What the system may keep for a member that does not read, in bytes.
const SEND_BUFFER: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A loop in C: `send` to each of the sockets in a vector.
    Epoll,
    /// A queue and a waker for each member.
    Queues,
    /// Tokio's broadcast channel.
    Broadcast,
    /// A group of this library.
    Group,
    /// The same, with small buffers in the system.
    Narrow,
}

const NAMES: [(&str, Kind); 5] = [
    ("epoll", Kind::Epoll),
    ("queues", Kind::Queues),
    ("broadcast", Kind::Broadcast),
    ("group", Kind::Group),
    ("narrow", Kind::Narrow),
];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        let mut names = NAMES.iter();
        let found = names.find(|(_, kind)| *kind == self);
        found.map_or("", |(name, _)| name)
    }

    /// Serves at a port of `host` until the process is killed. Says its address on standard output
    /// first.
    pub(crate) fn serve(self, host: Ipv4Addr) -> io::Result<()> {
        match self {
            Self::Epoll => epoll::serve(&listen(host, BACKLOG)?),
            Self::Broadcast => broadcast::serve(listen(host, BACKLOG)?),
            Self::Queues => {
                let room = Rc::new(Room::default());
                let mut number = 0;
                serve(host, None, move |_: &Peer| {
                    number += 1;
                    Some(Seated::new(number, &room))
                })
            }
            Self::Group => serve_group(host, None),
            Self::Narrow => serve_group(host, Some(SEND_BUFFER)),
        }
    }
}

fn serve_group(host: Ipv4Addr, send_buffer: Option<usize>) -> io::Result<()> {
    let group = Group::new(Lagging::DropOldest);
    serve(host, send_buffer, move |_: &Peer| {
        Some(InGroup(group.clone()))
    })
}

/// Serves with every limit but those that would end a member that only listens.
fn serve<P: Protocol + 'static>(
    host: Ipv4Addr,
    send_buffer: Option<usize>,
    make: impl FnMut(&Peer) -> Option<P>,
) -> io::Result<()> {
    let mut config = Config {
        max_connections: MOST,
        max_per_peer: MOST,
        send_buffer,
        ..Config::default()
    };
    config.limits.first_message_timeout = None;
    config.limits.idle_timeout = None;

    let server = Server::bind(&[Address::Tcp((host, 0).into())], config)?;
    announce(&server.addresses()[0]);
    server.serve_forever(make).map(drop)
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind).ok_or(())
    }
}
