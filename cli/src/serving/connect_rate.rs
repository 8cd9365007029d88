//! How often one peer may connect: the option `--connects-per-second`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serveloop::Address;

use crate::threads::lock;

/// The most peers that are counted one by one. All others share one count.
const PEERS_MOST: usize = 16_384;

/// How often the table is searched for peers that need not be counted any more, at most.
const CLEAN_AGAIN: Duration = Duration::from_millis(100);

/// The bits of an IPv6 address that one peer has for itself.
const OWN_BITS: u32 = 64;

/// The most connections per second that can be told apart from no limit.
pub(crate) const RATE_MOST: u32 = 1_000_000;

/// A limit on the connections that each peer begins in a second. An IPv6 network of 64 bits is one
/// peer. All clones share one table.
///
/// A peer that begins none for a second may then begin a whole second's at once.
#[derive(Clone, Debug)]
pub(crate) struct ConnectRate {
    /// The time that one connection takes of a peer's second.
    interval: Duration,
    /// How far ahead of the time a peer may be.
    ahead: Duration,
    table: Arc<Mutex<Table>>,
}

/// What counts as one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Peer {
    /// An address, or a network of IPv6, by its first address.
    Network(IpAddr),
    /// A virtual machine, or its host.
    Machine(u32),
}

/// Until when the connections of each peer have used up its time.
#[derive(Debug, Default)]
struct Table {
    peers: HashMap<Peer, Instant>,
    others: Option<Instant>,
    cleaned: Option<Instant>,
}

impl ConnectRate {
    /// Creates a limit of `most` connections per second. Without a limit (0) there is none.
    pub(crate) fn new(most: u32) -> Option<Self> {
        let interval = Duration::from_secs(1).checked_div(most)?;
        Some(Self {
            interval,
            ahead: interval * (most - 1),
            table: Arc::default(),
        })
    }

    /// Counts a connection from `address` that begins `now`. Returns whether it may. A peer on a
    /// Unix socket always may.
    pub(super) fn admits(&self, address: &Address, now: Instant) -> bool {
        let peer = match address {
            Address::Tcp(addr) | Address::Udp(addr) => Peer::Network(network(addr.ip())),
            Address::Vsock(addr) => Peer::Machine(addr.cid),
            Address::Unix(_) | Address::Unixgram(_) => return true,
        };
        let mut table = lock(&self.table);
        let used_until = table.entry(peer, now);
        let from = (*used_until).max(now);
        if from.saturating_duration_since(now) > self.ahead {
            return false;
        }
        *used_until = from + self.interval;
        true
    }
}

impl Table {
    /// Returns the entry of a peer, or that of all others if there is no room for it.
    fn entry(&mut self, peer: Peer, now: Instant) -> &mut Instant {
        let is_full = self.peers.len() >= PEERS_MOST && !self.peers.contains_key(&peer);
        if is_full {
            self.clean(now);
        }
        if self.peers.len() >= PEERS_MOST && !self.peers.contains_key(&peer) {
            return self.others.get_or_insert(now);
        }
        self.peers.entry(peer).or_insert(now)
    }

    /// Forgets the peers whose second is over.
    fn clean(&mut self, now: Instant) {
        let is_early = |at: Instant| now.saturating_duration_since(at) < CLEAN_AGAIN;
        if !self.cleaned.is_some_and(is_early) {
            self.cleaned = Some(now);
            self.peers.retain(|_, used_until| *used_until > now);
        }
    }
}

/// Returns the network that counts as one peer, by its first address.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let own = u128::MAX >> OWN_BITS;
            IpAddr::V6((ip.to_bits() & !own).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(rate: &ConnectRate, uri: &str, now: Instant, tries: usize) -> usize {
        let address = uri.parse().unwrap();
        (0..tries).filter(|_| rate.admits(&address, now)).count()
    }

    #[test]
    fn each_peer_has_its_own_second() {
        let rate = ConnectRate::new(5).unwrap();
        let now = Instant::now();
        assert_eq!(admitted(&rate, "tcp://192.0.2.1:1", now, 9), 5);
        assert_eq!(admitted(&rate, "tcp://192.0.2.1:2", now, 9), 0);
        assert_eq!(admitted(&rate, "tcp://192.0.2.2:1", now, 9), 5);
        assert_eq!(admitted(&rate, "unix:///x", now, 9), 9);

        let later = now + Duration::from_millis(400);
        assert_eq!(admitted(&rate, "tcp://192.0.2.1:1", later, 9), 2);
        let much_later = now + Duration::from_secs(60);
        assert_eq!(admitted(&rate, "tcp://192.0.2.1:1", much_later, 9), 5);
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_an_ipv4_address_is_one_however_it_is_written() {
        let rate = ConnectRate::new(1).unwrap();
        let now = Instant::now();
        assert_eq!(admitted(&rate, "tcp://[2001:db8::1]:1", now, 1), 1);
        assert_eq!(admitted(&rate, "tcp://[2001:db8::ffff:1]:1", now, 1), 0);
        assert_eq!(admitted(&rate, "tcp://[2001:db8:0:1::1]:1", now, 1), 1);
        assert_eq!(admitted(&rate, "tcp://192.0.2.1:1", now, 1), 1);
        assert_eq!(admitted(&rate, "tcp://[::ffff:192.0.2.1]:1", now, 1), 0);
    }

    #[test]
    fn the_table_has_a_limit_and_forgets() {
        let rate = ConnectRate::new(1).unwrap();
        let now = Instant::now();
        let from = |number: u32, now| {
            let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
            rate.admits(&Address::Tcp((ip, 1).into()), now)
        };
        let many = u32::try_from(PEERS_MOST).unwrap();
        assert!((0..many).all(|number| from(number, now)));
        // Those without a place share one.
        let late = (many..2 * many).filter(|number| from(*number, now)).count();
        assert_eq!(late, 1);
        assert_eq!(rate.table.lock().unwrap().peers.len(), PEERS_MOST);

        let later = now + Duration::from_secs(2);
        assert!((many..2 * many).all(|number| from(number, later)));
    }

    #[test]
    fn no_limit_is_none_and_the_highest_is_one() {
        assert!(ConnectRate::new(0).is_none());
        let rate = ConnectRate::new(RATE_MOST).unwrap();
        assert!(!rate.interval.is_zero());
    }
}
