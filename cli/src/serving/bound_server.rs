//! The bound sockets of a server, and which of its listeners have proxies in front or TLS.

use std::sync::Arc;

use serveloop::layer::proxy::Proxy;
use serveloop::service::notify::Notifier;
use serveloop::{Address, Peer, Server};

use crate::serving::ListenerTls;

/// A server, and for each of its listeners the door that its clients come through, and its TLS.
#[derive(Debug)]
pub(crate) struct BoundServer {
    server: Server,
    /// In the order of the server's addresses.
    doors: Vec<Option<Proxy>>,
    /// In the same order.
    tls: Vec<Option<ListenerTls>>,
    notifier: Option<Notifier>,
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
    /// Returns `server` with the door and the TLS of each of its places.
    pub(crate) fn new(
        server: Server,
        doors: &[Option<Proxy>],
        tls: &[Option<ListenerTls>],
        notifier: Option<Notifier>,
    ) -> Self {
        let places = server.places();
        let doors = places.iter().map(|place| doors[*place].clone()).collect();
        let tls = places.iter().map(|place| tls[*place].clone()).collect();
        Self {
            server,
            doors,
            tls,
            notifier,
        }
    }

    /// Returns the URI of each address, with the scheme that its clients speak.
    pub(crate) fn uris(&self) -> impl Iterator<Item = String> {
        let all = self.addresses().iter().zip(&self.tls);
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

    /// Returns the longest line at each listener.
    pub(crate) fn max_line(&self) -> MaxLine {
        MaxLine(self.server.limits().map(|limits| limits.max_line).collect())
    }

    /// Returns the addresses at which every client counts as what it is on the network.
    pub(crate) fn addresses_without_proxy(&self) -> Vec<Address> {
        let all = self.addresses().iter().zip(&self.doors);
        all.filter(|(_, door)| door.is_none())
            .map(|(address, _)| address.clone())
            .collect()
    }

    /// Takes whom to notify of the server.
    pub(super) fn take_notifier(&mut self) -> Option<Notifier> {
        self.notifier.take()
    }

    /// Returns the server, with the doors and the TLS if there are any.
    pub(super) fn into_parts(self) -> (Server, Numbered<Proxy>, Numbered<ListenerTls>) {
        (self.server, numbered(self.doors), numbered(self.tls))
    }
}

fn numbered<T>(all: Vec<Option<T>>) -> Numbered<T> {
    let has_one = all.iter().any(Option::is_some);
    has_one.then(|| all.into())
}
