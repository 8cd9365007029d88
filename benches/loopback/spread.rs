//! How evenly several loops of one server share their clients.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};

use serveloop::protocols::Echo;
use serveloop::{Address, Config, Peer, Server};

use crate::measure::allow;

/// How many clients come, one after the other, and stay.
const CLIENTS: usize = 400;
const LOOPS: [usize; 2] = [2, 4];

pub(crate) fn spread() -> io::Result<()> {
    println!("\nspread: {CLIENTS} connections over several loops");
    for loops in LOOPS {
        let counts = counts(loops)?;
        let off = 100.0 * deviation(&counts);
        println!("  {loops} loops: {counts:?}, {off:.1} % off");
    }
    Ok(())
}

/// Returns how far the loop that differs most is from the mean of `loops` loops, as a part of it.
pub(crate) fn unevenness(loops: usize) -> io::Result<f64> {
    Ok(deviation(&counts(loops)?))
}

fn deviation(counts: &[usize]) -> f64 {
    let mean = CLIENTS as f64 / counts.len() as f64;
    let off = counts
        .iter()
        .map(|count| (*count as f64 - mean).abs() / mean);
    off.fold(0.0, f64::max)
}

/// Serves the clients, in this process, and returns how many of them each loop has got.
fn counts(loops: usize) -> io::Result<Vec<usize>> {
    allow(2 * CLIENTS)?;
    let config = Config {
        reuse_port: true,
        ..Config::default()
    };
    let server = Server::bind(&[Address::Tcp((Ipv4Addr::LOCALHOST, 0).into())], config)?;
    let address = server.addresses()[0].socket_addr();
    let address = address.ok_or_else(|| io::Error::other("no address"))?;
    let handle = server.shutdown_handle();

    let seen = Arc::<Mutex<HashMap<ThreadId, usize>>>::default();
    let noted = Arc::clone(&seen);
    let build = move |_: &Peer| {
        let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
        *noted.entry(thread::current().id()).or_default() += 1;
        Some(Echo)
    };
    let serving = thread::spawn(move || server.serve_workers(loops, build));

    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = TcpStream::connect(address)?;
        client.write_all(b"x")?;
        client.read_exact(&mut [0])?;
        clients.push(client);
    }
    handle.shutdown();
    drop(clients);
    let ended = serving.join();
    ended.map_err(|_| io::Error::other("a loop panicked"))??;

    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let mut counts: Vec<_> = seen.values().copied().collect();
    counts.resize(loops, 0);
    Ok(counts)
}
