//! A server without descriptors while a thousand clients wait, for a minute.

use std::fs;
use std::io::{self, Read, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serveloop_measure::Cores;

use crate::quiet::{self, p99};
use crate::server::{Running, allow};

const WAITING: usize = 1_000;
const ESTABLISHED: usize = 20;
/// How often descriptors run out and come back.
const REPEATS: usize = 200;

pub(crate) fn measure(cores: &Cores, shrink: usize) -> io::Result<()> {
    allow(2 * WAITING)?;
    let seconds = u64::try_from(60 / shrink.min(20)).unwrap_or(1);
    let server = Running::start("scarce", cores)?;
    let mut established = quiet::connect(&server, ESTABLISHED)?;
    let stretch = Duration::from_secs(5).min(Duration::from_secs(seconds));
    p99(&mut established, stretch / 2)?;
    let calm = p99(&mut established, stretch)?;

    let full = exhaust(&server)?;
    let mut waiting = Vec::new();
    for _ in 0..WAITING / shrink {
        let mut client = server.client()?;
        client.write_all(b"x")?;
        waiting.push(client);
    }
    let crowded = p99(&mut established, stretch)?;
    server.take_lines();
    let (cpu, begin) = (server.cpu_time()?, Instant::now());
    thread::sleep(Duration::from_secs(seconds));
    let cpu = (server.cpu_time()? - cpu).as_secs_f64() / begin.elapsed().as_secs_f64();
    let lines = server.take_lines();
    println!(
        "  {} clients wait {seconds} s for one of {full} descriptors: {:.2} % of a core, {lines} log lines",
        waiting.len(),
        100.0 * cpu
    );
    println!(
        "  {ESTABLISHED} established: p99 {calm:.0} us before, {crowded:.0} us meanwhile, ratio {:.2}",
        crowded / calm
    );
    let begin = Instant::now();
    relieve(&server)?;
    for client in &mut waiting {
        client.read_exact(&mut [0])?;
    }
    println!(
        "  descriptors are free again: all {} served after {:.0} ms",
        waiting.len(),
        begin.elapsed().as_secs_f64() * 1e3
    );
    drop(waiting);
    lone_clients(&server, REPEATS / shrink.min(50))
}

/// One client and no descriptor for it, over and over: no other client wakes the listener.
fn lone_clients(server: &Running, repeats: usize) -> io::Result<()> {
    let mut worst = Duration::ZERO;
    for number in 0..repeats {
        exhaust(server)?;
        let mut alone = server.client()?;
        alone.write_all(b"x")?;
        // Descriptors come back at another moment of the pause each time.
        thread::sleep(Duration::from_millis(number as u64 * 7 % 50));
        relieve(server)?;
        let begin = Instant::now();
        alone.read_exact(&mut [0])?;
        worst = worst.max(begin.elapsed());
    }
    println!(
        "  a client for whom there was none, {repeats} times: served at most {:.0} ms after there was one",
        worst.as_secs_f64() * 1e3
    );
    Ok(())
}

/// Leaves the server the descriptors that it has and no other. Returns how many these are.
fn exhaust(server: &Running) -> io::Result<usize> {
    let open = fs::read_dir(format!("/proc/{}/fd", server.process()))?.count();
    set_limit(server, &open.to_string())?;
    Ok(open)
}

/// As many descriptors as there may be.
fn relieve(server: &Running) -> io::Result<()> {
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.process()))?;
    let mut lines = limits.lines();
    let files = lines.find_map(|line| line.strip_prefix("Max open files"));
    let hard = files.and_then(|line| line.split_whitespace().nth(1));
    set_limit(server, hard.ok_or(io::ErrorKind::InvalidData)?)
}

fn set_limit(server: &Running, soft: &str) -> io::Result<()> {
    let status = Command::new("prlimit")
        .arg(format!("--pid={}", server.process()))
        .arg(format!("--nofile={soft}:"))
        .status()?;
    if !status.success() {
        return Err(io::Error::other("prlimit failed"));
    }
    Ok(())
}
