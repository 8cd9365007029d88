//! One client that sends without end, and a hundred that exchange short messages.

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serveloop_measure::{Cores, Figure};

use crate::quiet::{self, p99};
use crate::server::{Running, connect};

const QUIET: usize = 100;
const ROUNDS: usize = 9;

pub(crate) fn measure(cores: &Cores, shrink: usize) -> io::Result<()> {
    let server = Running::start("echo", cores)?;
    let mut quiet = quiet::connect(&server, QUIET)?;
    let stretch = Duration::from_millis(if shrink > 10 { 100 } else { 1_000 });
    p99(&mut quiet, stretch)?;
    let (mut calm, mut flooded, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS / shrink.min(3) {
        let alone = p99(&mut quiet, stretch)?;
        let flooding = Flooding::start(server.address.port())?;
        let among = p99(&mut quiet, stretch)?;
        drop(flooding);
        ratios.push(among / alone);
        calm.push(alone);
        flooded.push(among);
    }
    println!(
        "  {QUIET} quiet: p99 {:.0} us alone, {:.0} us beside one who floods, ratio {:.2}",
        median(calm)?,
        median(flooded)?,
        median(ratios)?
    );
    drop(quiet);
    let counts = server.end()?;
    println!(
        "  {} MiB were echoed meanwhile",
        counts["bytes_written"] >> 20
    );
    Ok(())
}

fn median(values: Vec<f64>) -> io::Result<f64> {
    let figure = Figure::of(values).ok_or(ErrorKind::InvalidInput)?;
    Ok(figure.median)
}

/// Who floods is a process that has a core only while no other process wants it: what is measured is the
/// server, not the competition for the core of those who measure.
struct Flooding(std::process::Child);

impl Flooding {
    fn start(port: u16) -> io::Result<Self> {
        let itself = env::current_exe()?;
        let has_idle = Command::new("chrt").args(["--idle", "0", "true"]).status();
        let mut command = Command::new(&itself);
        if has_idle.is_ok_and(|status| status.success()) {
            command = Command::new("chrt");
            command.args(["--idle", "0"]).arg(&itself);
        }
        let child = command.args(["--flood", &port.to_string()]).spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Flooding {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process that floods, until it is killed.
pub(crate) fn flood(port: &str) -> io::Result<()> {
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let mut stream = connect((Ipv4Addr::LOCALHOST, port).into())?;
    let mut replies = stream.try_clone()?;
    thread::spawn(move || {
        let mut room = vec![0; 256 << 10];
        while replies.read(&mut room).is_ok_and(|count| count > 0) {}
    });
    let block = vec![b'.'; 256 << 10];
    loop {
        match stream.write(&block) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
