//! Hostile clients.

use crate::connect::connect;
use crate::honest::PIECE_MOST;
use crate::keyed::Keyed;
use crate::served::Served;
use crate::tally::Tally;
use serveloop::Address;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Attacks servers with resets, stalls, floods and dribbles until `over` is set.
pub(crate) fn hostile(number: u64, servers: &[Served], tally: &Tally, over: &AtomicBool) {
    let mut keyed = Keyed::new(number + 1_000);
    while !over.load(Relaxed) {
        // Skip the sequential server, which one stalled client could block.
        let server = &servers[keyed.below(servers.len() - 1)];
        // The outcome does not matter to the attacker.
        let _ = attack(&server.addresses[keyed.below(2)], &mut keyed);
        tally.attacks.fetch_add(1, Relaxed);
    }
}

fn attack(to: &Address, keyed: &mut Keyed) -> io::Result<()> {
    let mut socket = connect(to)?;
    socket.set_write_timeout(Some(Duration::from_millis(300)))?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;

    let junk = keyed.bytes(PIECE_MOST);
    match keyed.below(5) {
        0 => {
            socket.write_all(&junk)?;
            socket.set_linger(Some(Duration::ZERO))
        }
        // Never reads, so that the server stops reading too.
        1 => {
            let mut flood = (0..200).map(|_| socket.write_all(&junk));
            flood.find(Result::is_err).unwrap_or(Ok(()))
        }
        2 => (0..30).try_for_each(|at| socket.write_all(&junk[at..=at])),
        3 => socket.read(&mut [0]).map(drop),
        _ => {
            socket.write_all(&junk)?;
            socket.shutdown(Shutdown::Write)
        }
    }
}
