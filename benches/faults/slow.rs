//! Ten thousand clients that send a byte of a line now and then, and never its end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serveloop_measure::Cores;

use crate::quiet::{self, p99};
use crate::server::{PATIENCE, Running, allow, connect_from};

const CLIENTS: usize = 10_000;
const HEALTHY: usize = 20;

struct Slow {
    stream: TcpStream,
    began: Instant,
    ended: Option<Duration>,
}

pub(crate) fn measure(cores: &Cores, shrink: usize) -> io::Result<()> {
    let count = CLIENTS / shrink;
    allow(count + 200)?;
    let server = Running::start("lines", cores)?;
    let mut healthy = quiet::connect(&server, HEALTHY)?;
    let stretch = Duration::from_secs(2);
    p99(&mut healthy, stretch)?;
    let calm = p99(&mut healthy, stretch)?;
    let before = server.memory()?;
    let begin = Instant::now();
    let mut slow = (0..count)
        .map(|number| begin_one(server.address, number))
        .collect::<io::Result<Vec<_>>>()?;
    let arrival = begin.elapsed();
    slow.iter_mut().for_each(Slow::trickle);
    let crowded = p99(&mut healthy, stretch)?;
    let memory = server.memory()?.saturating_sub(before) as usize / count;
    let mut rounds = 1;
    while slow.iter().any(|client| client.ended.is_none()) {
        slow.iter_mut().for_each(Slow::trickle);
        rounds += 1;
        healthy.exchange(Duration::from_millis(20))?;
        if begin.elapsed() > PATIENCE {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    let ends: Vec<_> = slow.iter().filter_map(|client| client.ended).collect();
    let first = ends.iter().min().copied().unwrap_or_default();
    let last = ends.iter().max().copied().unwrap_or_default();
    println!("  {count} clients came within {arrival:.1?}, and sent a byte {rounds} times each");
    println!("  {memory} bytes of memory each");
    println!(
        "  {HEALTHY} healthy: p99 {calm:.0} us before, {crowded:.0} us meanwhile, ratio {:.2}",
        crowded / calm
    );
    println!(
        "  each was gone between {first:.2?} and {last:.2?} after it came; the deadline is 10 s"
    );
    let counts = server.end()?;
    println!(
        "  closed_timeout_first_message {}",
        counts["closed_timeout_first_message"]
    );
    Ok(())
}

fn begin_one(to: SocketAddr, number: usize) -> io::Result<Slow> {
    let stream = connect_from(to, number)?;
    stream.set_nonblocking(true)?;
    Ok(Slow {
        stream,
        began: Instant::now(),
        ended: None,
    })
}

impl Slow {
    /// Sends one byte more, or notes that the server has ended the connection.
    fn trickle(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let is_open = match self.stream.read(&mut [0; 16]) {
            Ok(count) => count > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if !is_open || self.stream.write(b"x").is_err() {
            self.ended = Some(self.began.elapsed());
        }
    }
}
