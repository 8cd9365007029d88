//! One kind of load on several servers that take turns.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::churn::Churn;
use crate::generator::{Done, Generator, Pattern};
use crate::machine::{Cores, Usage, allow_descriptors};
use crate::options::Options;
use crate::process::Running;
use crate::servers::Kind;
use crate::table::{Row, Sample};

/// Time for a server to settle before its memory is looked at.
const SETTLE: Duration = Duration::from_millis(100);
/// Time for each connection in a measurement: with very many, for several messages of each.
const EACH: Duration = Duration::from_micros(150);
/// Descriptors that a process needs beside its connections.
const OTHER_DESCRIPTORS: usize = 100;

/// What clients do, for how long it is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) size: usize,
    pub(crate) depth: usize,
    pub(crate) duration: Duration,
    pub(crate) clients: Clients,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    /// Stay, and sleep while there is nothing for them.
    Stay,
    /// Stay, and never sleep.
    Spin,
    /// Leave after one message.
    Leave,
}

impl Load {
    pub(crate) fn of(options: &Options, connections: usize) -> Self {
        Self {
            connections,
            size: options.size,
            depth: options.depth,
            duration: options
                .duration
                .max(EACH * connections.try_into().unwrap_or(u32::MAX)),
            clients: Clients::Stay,
        }
    }

    /// Measures every server once a round. Who begins changes, so that nobody always comes after
    /// the same neighbour.
    pub(crate) fn rounds(
        self,
        servers: &[Kind],
        cores: Cores,
        rounds: usize,
    ) -> io::Result<Vec<Row>> {
        allow_descriptors(self.connections + OTHER_DESCRIPTORS)?;
        let mut rows: Vec<Row> = servers.iter().map(|kind| Row::new(kind.name())).collect();
        for round in 0..rounds {
            for turn in 0..rows.len() {
                let place = (round + turn) % rows.len();
                let sample = self.once(servers[place], cores)?;
                rows[place].samples.push(sample);
            }
        }
        Ok(rows)
    }

    fn once(self, kind: Kind, cores: Cores) -> io::Result<Sample> {
        let server = Running::start(kind, cores)?;
        if self.clients == Clients::Leave {
            let mut churn = Churn::connect(server.address, self.connections, self.size)?;
            churn.run(self.duration / 5)?;
            return observe(&server, || churn.run(self.duration));
        }
        let pattern = Pattern::new(self.size, kind.shape());
        let mut generator = Generator::connect(server.address, self.connections, pattern)?;
        if self.clients == Clients::Spin {
            generator.spin();
        }
        generator.begin(self.depth)?;
        generator.run(self.duration / 5, true)?;
        observe(&server, || generator.run(self.duration, false))
    }
}

/// Resident bytes of a server for each of so many connections that were used once and stand idle.
pub(crate) fn memory(kind: Kind, cores: Cores, connections: usize) -> io::Result<u64> {
    allow_descriptors(connections + OTHER_DESCRIPTORS)?;
    let server = Running::start(kind, cores)?;
    let _first = visit(&server)?;
    thread::sleep(SETTLE);
    let before = server.resident()?;
    let _idle = (0..connections)
        .map(|_| visit(&server))
        .collect::<io::Result<Vec<_>>>()?;
    thread::sleep(SETTLE);
    let grown = server.resident()?.saturating_sub(before);
    Ok(grown / connections as u64)
}

fn visit(server: &Running) -> io::Result<TcpStream> {
    let mut message = [b'x'; 64];
    let mut stream = TcpStream::connect(server.address)?;
    stream.write_all(&message)?;
    stream.read_exact(&mut message)?;
    Ok(stream)
}

fn observe(server: &Running, work: impl FnOnce() -> io::Result<Done>) -> io::Result<Sample> {
    let before = server.usage()?;
    let done = work()?;
    let usage = server.usage()?.since(before);
    if done.messages == 0 {
        return Err(io::Error::other("the server has answered nothing"));
    }
    Ok(sample(done, usage))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nobody echoes 2^52 messages in a round"
)]
fn sample(done: Done, usage: Usage) -> Sample {
    let messages = done.messages as f64;
    Sample {
        rate: messages / done.elapsed.as_secs_f64(),
        cpu: usage.total.as_secs_f64() * 1e6 / messages,
        user_share: usage.user_share(),
    }
}
