//! A thousand clients that send as much as they can and never read a reply.

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serveloop::Config;

use serveloop_measure::Cores;

use crate::quiet::{self, p99};
use crate::server::{Running, allow};

const CLIENTS: usize = 1_000;
const HEALTHY: usize = 20;
const STRETCH: Duration = Duration::from_secs(2);

pub(crate) fn measure(cores: &Cores, shrink: usize) -> io::Result<()> {
    let count = CLIENTS / shrink;
    allow(count + 200)?;
    let server = Running::start("patient", cores)?;
    let mut healthy = quiet::connect(&server, HEALTHY)?;
    p99(&mut healthy, STRETCH)?;
    let calm = p99(&mut healthy, STRETCH)?;
    let before = server.memory()?;
    let mut clients = Vec::new();
    for _ in 0..count {
        let client = server.client()?;
        client.set_nonblocking(true)?;
        clients.push(client);
    }
    let (sent, peak) = fill(&clients, &server)?;
    let crowded = p99(&mut healthy, STRETCH)?;
    let memory = peak.max(server.memory()?).saturating_sub(before);
    println!(
        "  {count} clients sent {} MiB, all that buffers take",
        sent >> 20
    );
    println!(
        "  memory grew by {} MiB at most, {} KiB each",
        memory >> 20,
        (memory / count as u64) >> 10
    );
    let budget = Config::default().max_buffered;
    println!("  (the budget for all is {} MiB)", budget >> 20);
    println!(
        "  {HEALTHY} healthy: p99 {calm:.0} us before, {crowded:.0} us meanwhile, ratio {:.2}",
        crowded / calm
    );
    let cpu = server.cpu_time()?;
    std::thread::sleep(STRETCH);
    let cpu = (server.cpu_time()? - cpu).as_secs_f64() / STRETCH.as_secs_f64();
    println!("  when nothing moves: {:.2} % of a core", 100.0 * cpu);
    drop((clients, healthy));
    let counts = server.end()?;
    println!(
        "  accepted {}, shed {}",
        counts["accepted"],
        counts.get("closed_shed").unwrap_or(&0)
    );
    Ok(())
}

/// Sends until nothing is taken for half a second. Returns how much was sent, and the most memory
/// that the server had meanwhile.
fn fill(clients: &[TcpStream], server: &Running) -> io::Result<(usize, u64)> {
    let block = vec![b'.'; 256 << 10];
    let (mut sent, mut peak) = (0, 0);
    let mut moved = Instant::now();
    while moved.elapsed() < Duration::from_millis(500) {
        for mut client in clients {
            match client.write(&block) {
                Ok(count) => {
                    sent += count;
                    moved = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        peak = peak.max(server.memory()?);
    }
    Ok((sent, peak))
}
