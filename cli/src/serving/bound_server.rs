//! The bound sockets of a server, and which of its listeners have proxies in front or TLS.

use std::sync::Arc;

use serveloop::layer::proxy::Proxy;
use serveloop::service::notify::Notifier;
use serveloop::service::recorder::Recorder;
use serveloop::{Address, Peer, Server};

use crate::restart::Restarts;
use crate::serving::{Access, ConnectRate, Lifetime, ListenerTls};

/// What belongs to the places of a server, by their order, and to all of its connections.
#[derive(Debug, Default)]
pub(crate) struct OfPlaces {
    pub(crate) doors: Vec<Option<Proxy>>,
    pub(crate) tls: Vec<Option<ListenerTls>>,
    pub(crate) access: Vec<Option<Access>>,
    pub(crate) rate: Option<ConnectRate>,
    pub(crate) lifetime: Option<Lifetime>,
    pub(crate) notifier: Option<Notifier>,
    pub(crate) restarts: Option<Restarts>,
    pub(crate) recorder: Option<Recorder>,
}

/// A server, and for each of its listeners the door that its clients come through, its TLS and its
/// lists.
#[derive(Debug)]
pub(crate) struct BoundServer {
    server: Server,
    /// By the server's listeners.
    of: OfPlaces,
}

/// The longest line at each listener, in the order of a server's addresses.
#[derive(Clone, Debug)]
pub(crate) struct MaxLine(Arc<[usize]>);

impl MaxLine {
    /// Returns the longest line of the peer's listener, in bytes.
    pub(crate) fn of(&self, peer: &Peer) -> usize {
        let listener = peer.listener().map_or(0, usize::from);
        self.0[listener]
    }
}

/// What belongs to the listeners of a server by their numbers, unless all have none.
pub(super) type Numbered<T> = Option<Arc<[Option<T>]>>;

impl BoundServer {
    /// Returns `server` with what belongs to each of its places.
    pub(crate) fn new(server: Server, of: OfPlaces) -> Self {
        let places = server.places();
        let of = OfPlaces {
            doors: by_listener(&of.doors, places),
            tls: by_listener(&of.tls, places),
            access: by_listener(&of.access, places),
            ..of
        };
        Self { server, of }
    }

    /// Returns the URI of each address, with the scheme that its clients speak.
    pub(crate) fn uris(&self) -> impl Iterator<Item = String> {
        let all = self.addresses().iter().zip(&self.of.tls);
        all.map(|(address, tls)| match tls {
            Some(_) => match address {
                Address::Tcp(addr) => format!("tls://{addr}"),
                other => other.to_string(),
            },
            None => address.to_string(),
        })
    }

    pub(crate) fn addresses(&self) -> &[Address] {
        self.server.addresses()
    }

    /// Returns what tells when connections move to or from another process.
    pub(crate) fn restarts(&self) -> Option<&Restarts> {
        self.of.restarts.as_ref()
    }

    /// Returns the longest line at each listener.
    pub(crate) fn max_line(&self) -> MaxLine {
        MaxLine(self.server.limits().map(|limits| limits.max_line).collect())
    }

    /// Returns the addresses at which every client counts as what it is on the network.
    pub(crate) fn addresses_without_proxy(&self) -> Vec<Address> {
        let all = self.addresses().iter().zip(&self.of.doors);
        all.filter(|(_, door)| door.is_none())
            .map(|(address, _)| address.clone())
            .collect()
    }

    /// Returns the server, and what its factory has to be wrapped in.
    pub(super) fn into_parts(self) -> (Server, Around) {
        let of = self.of;
        let around = Around {
            doors: numbered(of.doors),
            tls: numbered(of.tls),
            access: numbered(of.access),
            rate: of.rate,
            lifetime: of.lifetime,
            notifier: of.notifier,
            restarts: of.restarts,
            recorder: of.recorder,
        };
        (self.server, around)
    }
}

/// What is around the protocols of a server, where there is any of it.
#[derive(Debug)]
pub(super) struct Around {
    pub(super) doors: Numbered<Proxy>,
    pub(super) tls: Numbered<ListenerTls>,
    pub(super) access: Numbered<Access>,
    pub(super) rate: Option<ConnectRate>,
    pub(super) lifetime: Option<Lifetime>,
    pub(super) notifier: Option<Notifier>,
    pub(super) restarts: Option<Restarts>,
    pub(super) recorder: Option<Recorder>,
}

impl Around {
    /// Returns whether the factory has to be wrapped in something.
    pub(super) fn wraps(&self) -> bool {
        let at_listeners = self.doors.is_some() || self.tls.is_some() || self.access.is_some();
        at_listeners || self.rate.is_some() || self.lifetime.is_some() || self.recorder.is_some()
    }
}

/// Returns what belongs to the place of each listener.
fn by_listener<T: Clone>(of_places: &[Option<T>], places: &[usize]) -> Vec<Option<T>> {
    let of = |place: &usize| of_places.get(*place).cloned().flatten();
    places.iter().map(of).collect()
}

fn numbered<T>(all: Vec<Option<T>>) -> Numbered<T> {
    let has_one = all.iter().any(Option::is_some);
    has_one.then(|| all.into())
}
