//! A million connections whose protocols panic, beside some that do not.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use crate::machine::Cores;
use crate::quiet::Quiet;
use crate::server::Running;

const PANICS: usize = 1_000_000;
const STEADY: usize = 10;
/// Connections between two looks at the steady ones.
const STRETCH: usize = 10_000;

pub(crate) fn measure(cores: Cores, shrink: usize) -> io::Result<()> {
    let count = PANICS / shrink;
    let server = Running::start("panicking", cores)?;
    let mut steady = Quiet::connect(server.address, STEADY)?;
    let mut exchanged = steady.exchange(Duration::from_millis(10))?.len();
    provoke(&server, STRETCH.min(count))?;
    let (before, begin) = (server.memory()?, Instant::now());
    for number in 0..count {
        provoke(&server, 1)?;
        if number % STRETCH == 0 {
            exchanged += steady.exchange(Duration::from_millis(10))?.len();
        }
    }
    exchanged += steady.exchange(Duration::from_millis(10))?.len();
    let grown = server.memory()?.saturating_sub(before);
    println!(
        "  {count} panics in {:.1?}, {exchanged} messages of {STEADY} steady clients answered, memory grew by {} KiB",
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

/// So many connections, each of which has the server's protocol panic.
fn provoke(server: &Running, count: usize) -> io::Result<()> {
    for _ in 0..count {
        let mut client = server.client()?;
        client.write_all(b"!")?;
        match client.read(&mut [0]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
