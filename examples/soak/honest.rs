//! Honest clients, which check every byte.

use crate::connect::connect;
use crate::keyed::Keyed;
use crate::served::Served;
use crate::tally::Tally;
use serveloop::Address;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const STREAM_MOST: usize = 512 * 1024;
pub(crate) const PIECE_MOST: usize = 32 * 1024;
const DATAGRAM_MOST: usize = 60_000;

/// Sends keyed streams to one server after another until `over` is set.
pub(crate) fn honest(number: u64, servers: &[Served], tally: &Tally, over: &AtomicBool) {
    let mut keyed = Keyed::new(number + 1);
    while !over.load(Relaxed) {
        let server = &servers[keyed.below(servers.len())];
        // Skip the last socket, which ends the server, and the Unix datagram socket, whose clients
        // have no address to reply to.
        let at = &server.addresses[keyed.below(3)];
        let key = keyed.number();

        match exchange(at, key) {
            Ok(Some(bytes)) => tally.bytes.fetch_add(bytes, Relaxed),
            Ok(None) => {
                eprintln!("{}: {at}: key {key}: other bytes came back", server.model);
                tally.mismatches.fetch_add(1, Relaxed)
            }
            Err(error) if at.is_datagram() && error.kind() == ErrorKind::WouldBlock => {
                tally.lost.fetch_add(1, Relaxed)
            }
            Err(error) => {
                eprintln!("{}: {at}: key {key}: {error}", server.model);
                tally.failures.fetch_add(1, Relaxed)
            }
        };

        tally.exchanges.fetch_add(1, Relaxed);
    }
}

/// Tries each transport of each server once.
pub(crate) fn try_all(servers: &[Served]) -> io::Result<()> {
    let mut addresses = servers.iter().flat_map(|server| &server.addresses[..3]);
    addresses.try_for_each(|at| exchange(at, 1).map(drop))
}

/// Sends a stream and reads it back. Returns the number of bytes, or `None` if other bytes came
/// back.
fn exchange(to: &Address, key: u64) -> io::Result<Option<u64>> {
    let (mut socket, mut keyed) = (connect(to)?, Keyed::new(key));
    let length = 1 + keyed.below(STREAM_MOST) / (1 + keyed.below(100));
    let length = if to.is_datagram() {
        length.min(DATAGRAM_MOST)
    } else {
        length
    };

    let mut left = length;
    while left > 0 {
        let piece = 1 + keyed.below(PIECE_MOST);
        let sent = keyed.bytes(if to.is_datagram() {
            left
        } else {
            left.min(piece)
        });
        socket.write_all(&sent)?;

        let mut back = vec![0; sent.len()];
        socket.read_exact(&mut back)?;
        if back != sent {
            return Ok(None);
        }
        left -= sent.len();
    }
    if to.is_datagram() {
        return Ok(Some(length as u64));
    }

    socket.shutdown(Shutdown::Write)?;
    let silent = socket.read(&mut [0])? == 0;
    Ok(silent.then_some(length as u64))
}
