//! Limits on replies to datagrams, whose source address may be forged.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::address::Address;
use crate::config::Config;
use crate::net::Net;
use crate::reactor::peer_network::PeerNetwork;
use crate::session::Tick;

const SECOND: Duration = Duration::from_secs(1);

/// Ports below this belong to services, some of which answer everything, and not to clients.
const CLIENT_PORTS: u16 = 1_024;

/// The replies of the current second, and the sockets that they are sent from.
#[derive(Debug, Default)]
pub(crate) struct ReplyLimit {
    own: Vec<Address>,
    second_ends: Option<Tick>,
    /// Replies to each peer, for at most `max_connections` peers.
    counts: HashMap<PeerNetwork, usize>,
    /// Replies to all other peers of this second together.
    others: usize,
}

impl ReplyLimit {
    /// Adds a datagram socket of this server.
    pub(in crate::reactor) fn add_own(&mut self, address: Address) {
        self.own.push(address);
    }

    /// Returns whether an answer to `from` might be answered in turn, by this server or by a
    /// service.
    pub(in crate::reactor) fn is_reflected<N: Net>(&self, from: &Address, net: &mut N) -> bool {
        let Some(addr) = from.socket_addr() else {
            return self.own.contains(from);
        };
        let mut own = self.own.iter().filter_map(Address::socket_addr);
        addr.port() < CLIENT_PORTS || own.any(|own| is_same(own, addr, net))
    }

    /// Returns whether a peer may be answered once more in this second.
    pub(in crate::reactor) fn has_room(
        &mut self,
        to: &Address,
        now: Tick,
        config: &Config,
    ) -> bool {
        if self.second_ends.is_none_or(|end| end <= now) {
            self.second_ends = Some(now.after(SECOND));
            self.counts.clear();
            self.others = 0;
        }

        PeerNetwork::of(to, config)
            .is_none_or(|to| *self.count_of(to, config) < config.replies_per_second)
    }

    /// Counts a reply to a peer.
    pub(crate) fn count(&mut self, to: &Address, config: &Config) {
        if let Some(to) = PeerNetwork::of(to, config) {
            *self.count_of(to, config) += 1;
        }
    }

    fn count_of(&mut self, to: PeerNetwork, config: &Config) -> &mut usize {
        let is_full = self.counts.len() >= config.max_connections;
        if is_full && !self.counts.contains_key(&to) {
            return &mut self.others;
        }
        self.counts.entry(to).or_default()
    }
}

/// Returns whether `from` is our own socket, which may be bound to all addresses of this machine.
fn is_same<N: Net>(own: SocketAddr, from: SocketAddr, net: &mut N) -> bool {
    let (own_ip, ip) = (own.ip().to_canonical(), from.ip().to_canonical());
    let all = own_ip.is_unspecified();
    own.port() == from.port()
        && (own_ip == ip || (all && (ip.is_loopback() || net.is_local_in_scope(from))))
}
