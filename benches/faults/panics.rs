//! A million connections whose protocols panic, next to some that do not.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use serveloop_measure::Cores;

use crate::quiet;
use crate::server::Running;

const PANICS: usize = 1_000_000;
const STEADY: usize = 10;
/// Connections at a time.
const BATCH: usize = 50;
/// Batches between two looks at the steady ones.
const STRETCH: usize = 200;
/// On a machine that is busy with other things there are fewer panics.
const TIME_MOST: Duration = Duration::from_secs(150);

pub(crate) fn measure(cores: &Cores, shrink: usize) -> io::Result<()> {
    let count = PANICS / shrink;
    let server = Running::start("panicking", cores)?;
    let mut steady = quiet::connect(&server, STEADY)?;
    steady.exchange(Duration::from_millis(10))?;
    let mut exchanged = steady.messages();
    provoke(&server)?;
    let (before, begin) = (server.memory()?, Instant::now());
    let mut provoked = 0;
    while provoked < count && begin.elapsed() < TIME_MOST {
        for _ in 0..STRETCH.min(count / BATCH) {
            provoked += provoke(&server)?;
        }
        steady.exchange(Duration::from_millis(10))?;
        exchanged += steady.messages();
    }
    let grown = server.memory()?.saturating_sub(before);
    println!(
        "  {provoked} panics in {:.1?}, {exchanged} messages of {STEADY} steady clients answered, memory grew by {} KiB",
        begin.elapsed(),
        grown >> 10
    );
    drop(steady);
    let counts = server.end()?;
    let closed: u64 = counts
        .iter()
        .filter(|(name, _)| name.starts_with("closed_"))
        .map(|(_, count)| count)
        .sum();
    println!(
        "  panics {}, accepted {}, closed {closed}",
        counts["panics"], counts["accepted"]
    );
    Ok(())
}

/// A batch of connections, each of which has the server's protocol panic. Returns how many.
fn provoke(server: &Running) -> io::Result<usize> {
    let mut clients = Vec::with_capacity(BATCH);
    for _ in 0..BATCH {
        let mut client = server.client()?;
        client.write_all(b"!")?;
        clients.push(client);
    }
    for client in &mut clients {
        match client.read(&mut [0]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error),
        }
    }
    Ok(BATCH)
}
