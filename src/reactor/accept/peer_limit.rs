//! The limit on connections for each peer.

use crate::address::{NetworkList, Peer};
use crate::config::Config;
use crate::reactor::peer_network::{NetworkCounts, PeerNetwork};

/// The number of connections of each limited peer that has any, and the proxies that are not limited.
#[derive(Debug, Default)]
pub(in crate::reactor) struct PeerLimit {
    /// There are never more entries than `max_connections`.
    counts: NetworkCounts,
    /// The trusted proxies of each listener, by its number.
    proxies: Vec<NetworkList>,
}

impl PeerLimit {
    /// Exempts the trusted proxies of the next listener. Its number is how many there were before.
    pub(in crate::reactor) fn add_listener(&mut self, proxies: NetworkList) {
        self.proxies.push(proxies);
    }

    /// Returns whether the peer may open one more connection.
    pub(in crate::reactor) fn has_room(&self, peer: &Peer, config: &Config) -> bool {
        self.counted(peer, config)
            .is_none_or(|network| self.counts.has_room(network, config.max_per_peer))
    }

    /// Counts a connection that begins.
    pub(in crate::reactor) fn enter(&mut self, peer: &Peer, config: &Config) {
        if let Some(peer_network) = self.counted(peer, config) {
            self.counts.enter(peer_network);
        }
    }

    /// Counts a connection that has ended.
    pub(in crate::reactor) fn leave(&mut self, peer: &Peer, config: &Config) {
        if let Some(peer_network) = self.counted(peer, config) {
            self.counts.leave(peer_network);
        }
    }

    pub(in crate::reactor) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns the peer to count, if any: connections that we opened do not count, nor those of
    /// trusted proxies, and datagrams have their own limit. A client that a proxy named counts even
    /// if its address is among those of the proxies, which may be the whole of a private network.
    fn counted(&self, peer: &Peer, config: &Config) -> Option<PeerNetwork> {
        let listener = peer.listener()?;
        let proxies = self.proxies.get(listener);
        let is_trusted = proxies.is_some_and(|list| list.contains(peer.address()));
        let is_proxy = is_trusted && peer.via().is_none();
        if peer.is_datagram() || is_proxy {
            return None;
        }
        PeerNetwork::of(peer.address(), config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_end_with_their_last_connection() {
        let config = Config {
            max_per_peer: 2,
            ..Config::default()
        };

        let peer = |uri: &str| Peer::new(uri.parse().unwrap(), Some(0));
        let (one, again) = (peer("tcp://192.0.2.1:5"), peer("tcp://192.0.2.1:6"));

        let mut peer_limit = PeerLimit::default();
        peer_limit.enter(&one, &config);
        assert!(peer_limit.has_room(&again, &config));
        peer_limit.enter(&again, &config);
        assert!(!peer_limit.has_room(&one, &config));
        assert!(peer_limit.has_room(&peer("tcp://192.0.2.9:5"), &config));

        peer_limit.leave(&one, &config);
        assert!(peer_limit.has_room(&one, &config));
        peer_limit.leave(&again, &config);
        assert!(peer_limit.is_empty());
    }

    #[test]
    fn a_client_in_the_network_of_the_proxies_counts() {
        let config = Config {
            max_per_peer: 1,
            ..Config::default()
        };
        let mut peer_limit = PeerLimit::default();
        peer_limit.add_listener("10.0.0.0/8".parse().unwrap());
        let mut peer = Peer::new("tcp://10.0.0.1:5".parse().unwrap(), Some(0));
        peer_limit.enter(&peer, &config);
        assert!(peer_limit.is_empty());

        peer.stand_for("tcp://10.0.0.2:5".parse().unwrap(), true);
        peer_limit.enter(&peer, &config);
        assert!(!peer_limit.has_room(&peer, &config));
        peer_limit.leave(&peer, &config);
        assert!(peer_limit.is_empty());
    }

    #[test]
    fn each_listener_has_proxies_of_its_own() {
        let config = Config {
            max_per_peer: 1,
            ..Config::default()
        };
        let mut peer_limit = PeerLimit::default();
        peer_limit.add_listener(NetworkList::default());
        peer_limit.add_listener("10.0.0.0/8".parse().unwrap());
        for (listener, counts) in [(0, true), (1, false), (2, true)] {
            let peer = Peer::new("tcp://10.0.0.1:5".parse().unwrap(), Some(listener));
            peer_limit.enter(&peer, &config);
            assert_eq!(!peer_limit.is_empty(), counts, "{listener}");
            peer_limit.leave(&peer, &config);
            assert!(peer_limit.is_empty());
        }
    }

    #[test]
    fn who_is_not_limited_leaves_no_trace() {
        let config = Config::default();
        let mut peer_limit = PeerLimit::default();
        let address = |uri: &str| uri.parse().unwrap();

        for peer in [
            Peer::new(address("tcp://192.0.2.1:5"), None),
            Peer::new(address("udp://192.0.2.1:5"), Some(0)),
            Peer::new(address("tcp://127.0.0.1:5"), Some(0)),
            Peer::new(address("unix:///run/some"), Some(0)),
        ] {
            peer_limit.enter(&peer, &config);
            assert!(peer_limit.is_empty(), "{peer}");
            peer_limit.leave(&peer, &config);
        }
    }
}
