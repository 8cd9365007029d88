//! The bound sockets of a server, and which of its listeners have proxies in front.

use std::sync::Arc;

use serveloop::{Address, Server};

use crate::serving::Door;

/// A server, and for each of its listeners the door that its clients come through.
#[derive(Debug)]
pub(crate) struct BoundServer {
    server: Server,
    /// In the order of the server's addresses.
    doors: Vec<Option<Door>>,
}

impl BoundServer {
    /// Returns `server` with a door for each of its places.
    pub(crate) fn new(server: Server, of_places: &[Option<Door>]) -> Self {
        let doors = server.places().iter();
        let doors = doors.map(|place| of_places[*place].clone()).collect();
        Self { server, doors }
    }

    pub(crate) fn addresses(&self) -> &[Address] {
        self.server.addresses()
    }

    /// Returns the addresses at which every client counts as what it is on the network.
    pub(crate) fn addresses_without_proxy(&self) -> Vec<Address> {
        let all = self.addresses().iter().zip(&self.doors);
        all.filter(|(_, door)| door.is_none())
            .map(|(address, _)| address.clone())
            .collect()
    }

    /// Returns the server, and the doors if there is one.
    pub(super) fn into_parts(self) -> (Server, Option<Arc<[Option<Door>]>>) {
        let has_door = self.doors.iter().any(Option::is_some);
        (self.server, has_door.then(|| self.doors.into()))
    }
}
