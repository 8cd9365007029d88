//! The limit on connections for each peer.

use std::collections::HashMap;

use crate::address::Peer;
use crate::config::Config;
use crate::reactor::peer_network::PeerNetwork;

/// The number of connections of each limited peer that has any. There are never more entries than
/// `max_connections`.
#[derive(Debug, Default)]
pub(in crate::reactor) struct PeerLimit(HashMap<PeerNetwork, usize>);

impl PeerLimit {
    /// Returns whether the peer may open one more connection.
    pub(in crate::reactor) fn has_room(&self, peer: &Peer, config: &Config) -> bool {
        let Some(peer_network) = counted(peer, config) else {
            return true;
        };
        self.0
            .get(&peer_network)
            .is_none_or(|count| *count < config.max_per_peer)
    }

    /// Counts a connection that begins.
    pub(in crate::reactor) fn enter(&mut self, peer: &Peer, config: &Config) {
        if let Some(peer_network) = counted(peer, config) {
            *self.0.entry(peer_network).or_default() += 1;
        }
    }

    /// Counts a connection that has ended.
    pub(in crate::reactor) fn leave(&mut self, peer: &Peer, config: &Config) {
        let Some(peer_network) = counted(peer, config) else {
            return;
        };

        let count = self
            .0
            .get_mut(&peer_network)
            .expect("a connection is counted before it ends");

        *count -= 1;

        if *count == 0 {
            self.0.remove(&peer_network);
        }
    }

    pub(in crate::reactor) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns the peer to count, if any: connections that we opened do not count, nor those of trusted
/// proxies, and datagrams have their own limit. A client that a proxy named counts even if its
/// address is among those of the proxies, which may be the whole of a private network.
fn counted(peer: &Peer, config: &Config) -> Option<PeerNetwork> {
    let is_proxy = peer.via().is_none() && config.trusted_proxies.contains(peer.address());
    let counts = peer.listener().is_some() && !peer.is_datagram() && !is_proxy;
    counts
        .then(|| PeerNetwork::of(peer.address(), config))
        .flatten()
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
            trusted_proxies: "10.0.0.0/8".parse().unwrap(),
            ..Config::default()
        };
        let mut peer_limit = PeerLimit::default();
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
