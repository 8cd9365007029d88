//! Finds the session of a peer by the peer's address.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use crate::address::Peer;

/// The slots of sessions by the hashes of their peers. The addresses themselves are in the sessions.
/// The hash has a secret key, so no peer can choose addresses with the same one. Two peers with the
/// same hash, of which there is none among 10,000 in a million years, cannot both have a session.
#[derive(Debug, Default)]
pub(super) struct Index {
    key: RandomState,
    slots: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
}

impl Index {
    pub(super) fn hash(&self, peer: &Peer) -> u64 {
        self.key.hash_one((peer.listener(), peer.address()))
    }

    /// Returns where the session of a peer with this hash may be.
    pub(super) fn get(&self, hash: u64) -> Option<usize> {
        self.slots.get(&hash).map(|slot| *slot as usize)
    }

    /// Adds a session. Returns false if another one has the same hash.
    pub(super) fn insert(&mut self, hash: u64, slot: usize) -> bool {
        let slot = u32::try_from(slot).expect("fewer than 2^32 sessions");
        match self.slots.entry(hash) {
            Entry::Vacant(entry) => {
                entry.insert(slot);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    pub(super) fn remove(&mut self, hash: u64) {
        self.slots.remove(&hash);
        if self.slots.len() < self.slots.capacity() / 8 {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }
}

/// Hashes what is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers of 64 bits are keys");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uri: &str, listener: u16) -> Peer {
        Peer::new(uri.parse().unwrap(), Some(listener))
    }

    #[test]
    fn a_peer_is_an_address_at_a_listener() {
        let mut index = Index::default();
        let one = index.hash(&peer("udp://192.0.2.1:5", 0));
        assert_eq!(one, index.hash(&peer("udp://192.0.2.1:5", 0)));
        assert_ne!(one, index.hash(&peer("udp://192.0.2.1:6", 0)));
        assert_ne!(one, index.hash(&peer("udp://192.0.2.2:5", 0)));
        assert_ne!(one, index.hash(&peer("udp://192.0.2.1:5", 1)));

        assert!(index.insert(one, 7));
        assert!(!index.insert(one, 8));
        assert_eq!(index.get(one), Some(7));
        index.remove(one);
        assert_eq!(index.get(one), None);
    }

    #[test]
    fn two_servers_hash_differently() {
        let one = peer("udp://192.0.2.1:5", 0);
        assert_ne!(Index::default().hash(&one), Index::default().hash(&one));
    }
}
