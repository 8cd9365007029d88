//! What a crowd leaves behind in the server's memory when it has left, with some that stay.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serveloop_measure::{Cores, Scenario, line};

use crate::measure::allow;
use crate::options::Options;
use crate::process::Running;
use crate::servers::Kind;

/// How many connections come and, but for the survivors, leave.
const CROWD: usize = 20_000;
const SURVIVORS: usize = 10;
/// Before the first figure, so that what a server allocates once is not counted.
const FIRST: usize = 10;
const WIDTHS: [usize; 5] = [10, 12, 12, 12, 12];
/// How long a server may take to give memory back.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a server's memory was, in bytes.
pub(crate) struct Departed {
    before: u64,
    most: u64,
    after: u64,
}

impl Departed {
    /// Returns which part of what the crowd took is still there.
    pub(crate) fn left(&self) -> f64 {
        let grown = self.most.saturating_sub(self.before).max(1);
        self.after.saturating_sub(self.before) as f64 / grown as f64
    }
}

pub(crate) fn departed(options: &Options, cores: &Cores) -> io::Result<()> {
    println!("\ndeparted: {CROWD} connections come, and all but {SURVIVORS} of them leave; KiB");
    println!(
        "{}",
        line(WIDTHS, ["", "before", "at most", "after", "left"])
    );
    for &kind in &options.servers {
        let seen = depart(kind, cores)?;
        let kib = |bytes: u64| (bytes / 1024).to_string();
        let left = format!("{:.1} %", 100.0 * seen.left());
        let cells = [&kib(seen.before), &kib(seen.most), &kib(seen.after), &left];
        let [before, most, after, left] = cells;
        println!("{}", line(WIDTHS, [kind.name(), before, most, after, left]));
    }
    Ok(())
}

/// Measures a server before a crowd comes, while it is there, and after it has left.
pub(crate) fn depart(kind: Kind, cores: &Cores) -> io::Result<Departed> {
    allow(2 * CROWD)?;
    let scenario = Scenario {
        connections: 1,
        idle: CROWD,
        ..Scenario::default()
    };
    let server = Running::start(kind, cores, &scenario)?;
    let family = server.process.family();
    let memory = || {
        let told = family.memory();
        told.ok_or_else(|| io::Error::other("the system does not tell the memory of a process"))
    };

    let mut clients: Vec<TcpStream> = Vec::new();
    let enter = |clients: &mut Vec<TcpStream>, count: usize| {
        for _ in 0..count {
            let mut client = TcpStream::connect(server.socket_addr())?;
            client.write_all(b"hello")?;
            client.read_exact(&mut [0; 5])?;
            clients.push(client);
        }
        io::Result::Ok(())
    };
    enter(&mut clients, FIRST)?;
    let before = memory()?;
    enter(&mut clients, CROWD)?;
    let most = memory()?;

    let mut number = 0;
    clients.retain(|_| {
        number += 1;
        number % (CROWD / SURVIVORS) == 0
    });
    let begun = Instant::now();
    let mut after = memory()?;
    while begun.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(200));
        let now = memory()?;
        if now == after && begun.elapsed() > PATIENCE / 2 {
            break;
        }
        after = now;
    }
    for client in &mut clients {
        client.write_all(b"still")?;
        client.read_exact(&mut [0; 5])?;
    }
    Ok(Departed {
        before,
        most,
        after,
    })
}
