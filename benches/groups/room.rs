//! A server as a child process, its members, and the one that publishes.

use std::env;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serveloop_measure::{Cores, Launched, Tracer, Uninterrupted, descriptors, launch};
use socket2::{Domain, Socket, Type};

use crate::message::{GREETING, message};
use crate::servers::Kind;

/// How many connect before the first of them is waited for, which is less than a server's queue holds.
const CONNECTING_MOST: usize = 64;
/// How long the server may take for one message.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the system may keep of what a member does not read.
const NARROW: usize = 4 * 1024;

pub(crate) struct Room {
    pub(crate) process: Launched,
    address: SocketAddr,
    members: Vec<TcpStream>,
    /// The last of all.
    publisher: Option<TcpStream>,
    /// How many messages were published.
    count: u64,
    size: usize,
}

impl Room {
    /// Starts a server for messages of `size` bytes.
    pub(crate) fn start(
        kind: Kind,
        cores: &Cores,
        tracer: Option<&Tracer>,
        size: usize,
    ) -> io::Result<Self> {
        let mut command = launch::command(&[], tracer, &cores.servers)?;
        command.arg(env::current_exe()?);
        command.args(["--serve", kind.name(), &Ipv4Addr::LOCALHOST.to_string()]);

        let process = Launched::spawn(&mut command)?;
        let address = process.addresses(1, &Uninterrupted)?[0].socket_addr();
        Ok(Self {
            process,
            address: address.ok_or(io::ErrorKind::AddrNotAvailable)?,
            members: Vec::new(),
            publisher: None,
            count: 0,
            size,
        })
    }

    /// Lets `count` members join, and then, if there is none yet, the one that publishes.
    pub(crate) fn join(&mut self, count: usize) -> io::Result<()> {
        self.join_by(count, TcpStream::connect)
    }

    /// Works like `join`, for members that will never read, with small buffers.
    pub(crate) fn join_narrow(&mut self, count: usize) -> io::Result<()> {
        self.join_by(count, |address| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_recv_buffer_size(NARROW)?;
            socket.connect(&address.into())?;
            Ok(socket.into())
        })
    }

    fn join_by(
        &mut self,
        count: usize,
        connect: impl Fn(SocketAddr) -> io::Result<TcpStream>,
    ) -> io::Result<()> {
        let all = self.members.len() + count;
        descriptors::check(all + 1).map_err(io::Error::other)?;
        while self.members.len() < all {
            let few = CONNECTING_MOST.min(all - self.members.len());
            let new: Vec<_> = (0..few)
                .map(|_| connect(self.address))
                .collect::<io::Result<_>>()?;
            for member in new {
                self.members.push(greeted(member)?);
            }
        }

        if self.publisher.is_none() {
            let publisher = greeted(TcpStream::connect(self.address)?)?;
            publisher.set_nodelay(true)?;
            self.publisher = Some(publisher);
        }
        Ok(())
    }

    /// Publishes a message, and waits until it has come back to the one that published it. Returns how
    /// long that took.
    pub(crate) fn publish(&mut self) -> io::Result<Duration> {
        let publisher = self.publisher.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        self.count += 1;
        let sent = message(self.size, self.count);
        let began = Instant::now();
        publisher.write_all(&sent)?;

        let mut received = vec![0; sent.len()];
        publisher.read_exact(&mut received)?;
        let took = began.elapsed();
        check(&received, &sent)?;
        Ok(took)
    }

    /// Waits until every member has received the last message.
    pub(crate) fn receive(&mut self) -> io::Result<()> {
        let sent = message(self.size, self.count);
        let mut received = vec![0; sent.len()];
        for member in &mut self.members {
            member.read_exact(&mut received)?;
            check(&received, &sent)?;
        }
        Ok(())
    }

    /// Ends the server so that a tracer still writes down what it has counted. The members stay until
    /// then, so that their ends are in no count.
    pub(crate) fn end_traced(self) -> io::Result<()> {
        self.process.end_traced()
    }
}

/// Waits until the server knows a new member.
fn greeted(mut member: TcpStream) -> io::Result<TcpStream> {
    member.set_read_timeout(Some(PATIENCE))?;
    let mut greeting = vec![0; GREETING.len()];
    member.read_exact(&mut greeting)?;
    check(&greeting, GREETING)?;
    Ok(member)
}

fn check(received: &[u8], sent: &[u8]) -> io::Result<()> {
    match received == sent {
        true => Ok(()),
        false => Err(io::Error::other(
            "a member received something else than was published",
        )),
    }
}
