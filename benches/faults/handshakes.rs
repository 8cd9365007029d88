//! Ten thousand clients that stop within the handshake of TLS: after a half of their first message, and
//! after all of it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::os::fd::AsRawFd;

use serveloop_measure::Cores;

use crate::secure::Secure;
use crate::server::{HANDSHAKE, PATIENCE, Running, allow, connect_from};

const CLIENTS: usize = 10_000;
const HEALTHY: usize = 20;
const STRETCH: Duration = Duration::from_secs(2);

pub(crate) fn measure(cores: &Cores, shrink: usize) -> io::Result<()> {
    let hello = Secure::hello()?;
    for (what, stop) in [
        (
            "half of their first message",
            Stop::Within(&hello[..hello.len() / 2]),
        ),
        (
            "their first message, and see the answer",
            Stop::Behind(&hello),
        ),
    ] {
        println!("  {} clients send {what}", CLIENTS / shrink);
        stall(cores, CLIENTS / shrink, stop)?;
    }
    Ok(())
}

/// What a client sends.
#[derive(Clone, Copy)]
enum Stop<'a> {
    /// It is not answered.
    Within(&'a [u8]),
    /// It is answered. The next client comes only then, so that none waits for others to be accepted: its
    /// deadline would begin later than it came.
    Behind(&'a [u8]),
}

fn stall(cores: &Cores, count: usize, stop: Stop<'_>) -> io::Result<()> {
    allow(count + 200)?;
    let server = Running::start("secure", cores)?;
    let mut healthy = Secure::connect(&server, HEALTHY)?;
    healthy.p99(STRETCH / 2)?;
    let calm = healthy.p99(STRETCH)?;

    let before = server.memory()?;
    let begun = Instant::now();
    let (crowd, coming) = gather(&server, &mut healthy, count, stop)?;
    let arrival = begun.elapsed();
    settle(&server)?;
    let memory = server.memory()?.saturating_sub(before) as usize / count;
    let crowded = healthy.p99(STRETCH)?;
    let (first, last) = until_ended(crowd)?;
    let after = healthy.p99(STRETCH)?;

    println!("    came within {arrival:.1?}, {memory} bytes of memory each");
    println!(
        "    gone between {first:.2?} and {last:.2?} after they came; the deadline is {HANDSHAKE:?}"
    );
    let alone = f64::midpoint(calm, after);
    println!(
        "    {HEALTHY} healthy: p99 {calm:.0} us before, {after:.0} us after; {coming:.0} us while they came, \
         ratio {:.2}; {crowded:.0} us while they were there, ratio {:.2}",
        coming / alone,
        crowded / alone
    );
    drop(healthy);
    let counts = server.end()?;
    println!(
        "    closed_timeout_handshake {}",
        counts["closed_timeout_handshake"]
    );
    Ok(())
}

/// A client that has stopped, and when it came.
struct Stopped {
    stream: TcpStream,
    began: Instant,
}

/// Lets all of them come. Returns them, and the 99th of 100 replies to the others meanwhile.
fn gather(
    server: &Running,
    healthy: &mut Secure,
    count: usize,
    stop: Stop<'_>,
) -> io::Result<(Vec<Stopped>, f64)> {
    let are_there = AtomicBool::new(false);
    thread::scope(|scope| {
        let exchange = scope.spawn(|| healthy.p99_until(&are_there));
        let crowd = (0..count).map(|number| Stopped::new(server, number, stop));
        let crowd: io::Result<Vec<_>> = crowd.collect();
        are_there.store(true, Ordering::SeqCst);
        let coming = exchange.join().map_err(|_| ErrorKind::Other)??;
        Ok((crowd?, coming))
    })
}

/// Waits until the server computes nothing any more.
fn settle(server: &Running) -> io::Result<()> {
    let begun = Instant::now();
    let mut before = server.cpu_time()?;
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = server.cpu_time()?;
        if now - before < Duration::from_millis(10) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(ErrorKind::TimedOut.into());
        }
        before = now;
    }
}

/// Waits until the server has ended all of them. Returns how long after they came the first and the last
/// were ended.
fn until_ended(crowd: Vec<Stopped>) -> io::Result<(Duration, Duration)> {
    let mut poll = Poll::new()?;
    for (number, client) in crowd.iter().enumerate() {
        let fd = client.stream.as_raw_fd();
        let registry = poll.registry();
        registry.register(&mut SourceFd(&fd), Token(number), Interest::READABLE)?;
    }

    let mut crowd: Vec<_> = crowd.into_iter().map(Some).collect();
    let (mut events, mut ends) = (Events::with_capacity(1_024), Vec::new());
    while ends.len() < crowd.len() {
        poll.poll(&mut events, Some(PATIENCE))?;
        if events.is_empty() {
            return Err(ErrorKind::TimedOut.into());
        }
        for event in &events {
            let place = &mut crowd[event.token().0];
            if place.as_mut().is_some_and(Stopped::has_ended) {
                ends.extend(place.take().map(|client| client.began.elapsed()));
            }
        }
    }
    let first = ends.iter().min().copied().unwrap_or_default();
    let last = ends.iter().max().copied().unwrap_or_default();
    Ok((first, last))
}

impl Stopped {
    fn new(server: &Running, number: usize, stop: Stop<'_>) -> io::Result<Self> {
        let mut stream = connect_from(server.address, number)?;
        // Not before: where many come at the same moment, the system lets some try again after a second.
        let began = Instant::now();
        match stop {
            Stop::Within(sent) => stream.write_all(sent)?,
            Stop::Behind(sent) => {
                stream.write_all(sent)?;
                stream.read_exact(&mut [0])?;
            }
        }
        stream.set_nonblocking(true)?;
        Ok(Self { stream, began })
    }

    /// Takes what the server has sent, and returns whether that was all.
    fn has_ended(&mut self) -> bool {
        loop {
            match self.stream.read(&mut [0; 4_096]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }
}
