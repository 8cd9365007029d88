//! What counts as one peer, for the limits per peer.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::address::{Address, VsockAddr};
use crate::config::Config;

/// The network that one machine or one household sends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PeerNetwork {
    /// An IPv4 address.
    V4(u32),
    /// A /64 network of IPv6 addresses, by its upper half.
    V6(u64),
    /// All clients on this machine that use Unix sockets.
    Unix,
    /// A virtual machine, or the host of this one.
    Vsock(u32),
}

impl PeerNetwork {
    /// Returns the network of `address`. `None` for clients on this machine, unless they are
    /// limited too.
    pub(super) fn of(address: &Address, config: &Config) -> Option<Self> {
        let (network, is_here) = match address {
            Address::Tcp(addr) | Address::Udp(addr) => {
                let ip = addr.ip().to_canonical();
                (Self::of_ip(ip), ip.is_loopback())
            }
            Address::Unix(_) | Address::Unixgram(_) => (Self::Unix, true),
            Address::Vsock(addr) => (Self::Vsock(addr.cid), addr.cid == VsockAddr::LOCAL),
        };
        (!is_here || config.limit_loopback).then_some(network)
    }

    fn of_ip(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => Self::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

/// How many connections or sessions each network has. A network without any has no entry.
#[derive(Debug, Default)]
pub(super) struct NetworkCounts(HashMap<PeerNetwork, usize>);

impl NetworkCounts {
    /// Returns whether a network has fewer than `most`.
    pub(super) fn has_room(&self, network: PeerNetwork, most: usize) -> bool {
        self.0.get(&network).is_none_or(|count| *count < most)
    }

    pub(super) fn enter(&mut self, network: PeerNetwork) {
        *self.0.entry(network).or_default() += 1;
    }

    pub(super) fn leave(&mut self, network: PeerNetwork) {
        let count = self
            .0
            .get_mut(&network)
            .expect("it was counted before it ends");
        *count -= 1;
        if *count == 0 {
            self.0.remove(&network);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives back what no entry needs.
    pub(super) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer_network(uri: &str, limit_loopback: bool) -> Option<PeerNetwork> {
        let config = Config {
            limit_loopback,
            ..Config::default()
        };
        PeerNetwork::of(&uri.parse().unwrap(), &config)
    }

    #[test]
    fn a_peer_is_an_address_or_a_network_and_not_a_port() {
        let one = peer_network("tcp://192.0.2.1:5000", false);
        assert!(one.is_some());
        assert_eq!(one, peer_network("udp://192.0.2.1:7", false));
        assert_eq!(one, peer_network("tcp://[::ffff:192.0.2.1]:7", false));
        assert_ne!(one, peer_network("tcp://192.0.2.2:5000", false));
        let network = peer_network("tcp://[2001:db8::1]:1", false);
        assert!(network.is_some());
        assert_eq!(network, peer_network("tcp://[2001:db8::ffff:0:2]:1", false));
        assert_ne!(network, peer_network("tcp://[2001:db8:0:1::1]:1", false));
        let machine = peer_network("vsock://3:5000", false);
        assert!(machine.is_some());
        assert_eq!(machine, peer_network("vsock://3:5001", false));
        assert_ne!(machine, peer_network("vsock://2:5000", false));
    }

    #[test]
    fn this_machine_counts_only_if_it_shall() {
        let here = [
            "tcp://127.9.9.9:1",
            "tcp://[::1]:1",
            "tcp://[::ffff:127.0.0.1]:1",
            "unix:///run/some",
            "unixgram:///run/other",
            "vsock://1:5000",
        ];

        for uri in here {
            assert_eq!(peer_network(uri, false), None, "{uri}");
            assert!(peer_network(uri, true).is_some(), "{uri}");
        }

        assert_eq!(peer_network(here[3], true), peer_network(here[4], true));
        assert_ne!(
            peer_network("tcp://127.0.0.2:1", true),
            peer_network("tcp://127.0.0.3:1", true)
        );
    }
}
