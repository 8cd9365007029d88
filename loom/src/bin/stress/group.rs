//! Outboxes and a group of members on several loops, which a monitor looks at, while other threads publish
//! and members come and go.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serveloop::service::monitor::{Monitor, Query};
use serveloop::service::{Group, Lagging, Outbox, Watch, Watcher};
use serveloop::{Config, Peer, Protocol, Result, Server, Transport};

use crate::Outcome;

const LOOPS: usize = 3;
const READERS: usize = 4;
const PUBLISHERS: u8 = 3;
/// Of each publisher.
const MESSAGES: u32 = 300;
/// A publisher's number, and that of its message.
const LENGTH: usize = 5;

/// Joins the group, says so, and answers what its peer writes through its own outbox.
struct Member {
    group: Group,
    watcher: Watcher,
    outbox: Option<Outbox>,
    watched: Option<Watch>,
    /// The other end is closed, so that watching it wakes the connection.
    closed: UnixStream,
}

impl Protocol for Member {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        let outbox = transport.outbox();
        self.group.join("all", &outbox);
        self.outbox = Some(outbox);
        self.watched = self.watcher.watch(&self.closed, transport.waker()).ok();
        transport.write(&[0; LENGTH]);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        if let Some(outbox) = &self.outbox {
            outbox.post(data).map_err(std::io::Error::other)?;
        }
        Ok(data.len())
    }
}

/// Reads messages until each publisher has said its last one. Those of one publisher come in their order.
fn read(at: SocketAddr, joined: &Barrier) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(at)?;
    let mut message = [0; LENGTH];
    stream.read_exact(&mut message)?;
    joined.wait();

    let mut next = [0; PUBLISHERS as usize + 1];
    while next[1..].iter().any(|number| *number < MESSAGES) {
        stream.read_exact(&mut message)?;
        let [publisher, number @ ..] = message;
        let expected = &mut next[usize::from(publisher)];
        assert_eq!(u32::from_be_bytes(number), *expected);
        *expected += 1;
    }
    Ok(())
}

/// Joins, has something echoed, and leaves, again and again.
fn come_and_go(at: SocketAddr, is_over: &AtomicBool) -> std::io::Result<()> {
    while !is_over.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(at)?;
        stream.write_all(&[9; LENGTH])?;
        let mut message = [1; LENGTH];
        while message != [9; LENGTH] {
            stream.read_exact(&mut message)?;
        }
    }
    Ok(())
}

fn look(monitor: &Monitor, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let listed = monitor.list(&Query::default());
        assert!(listed.connections.len() <= READERS + 2);
        assert!(monitor.snapshot().open <= READERS + 2);
    }
}

/// Every member that stays is sent everything, in the order of its publisher.
pub(crate) fn publish() -> Outcome {
    let config = Config {
        reuse_port: true,
        ..Config::default()
    };
    let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], config)?;
    let at = server.addresses()[0].socket_addr().ok_or("no TCP")?;
    let (monitor, handle) = (server.monitor(), server.shutdown_handle());
    let (group, watcher) = (Group::new(Lagging::Close), Watcher::new()?);
    let shared = group.clone();
    let serving = thread::spawn(move || {
        server.serve_workers(LOOPS, move |_: &Peer| {
            Some(Member {
                group: shared.clone(),
                watcher: watcher.clone(),
                outbox: None,
                watched: None,
                closed: UnixStream::pair().ok()?.0,
            })
        })
    });

    let (is_over, joined) = (AtomicBool::new(false), Barrier::new(READERS + 1));
    thread::scope(|scope| -> Outcome {
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| read(at, &joined)))
            .collect();
        let passing = scope.spawn(|| come_and_go(at, &is_over));
        let looking = scope.spawn(|| look(&monitor, &is_over));
        joined.wait();

        let publishers = (1..=PUBLISHERS).map(|publisher| {
            let group = &group;
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    let mut message = vec![publisher];
                    message.extend(number.to_be_bytes());
                    group.publish("all", message);
                }
            })
        });
        let publishers: Vec<_> = publishers.collect();
        let ends = publishers.into_iter().map(thread::ScopedJoinHandle::join);
        let published = ends.fold(true, |all, end| all & end.is_ok());
        let read: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        is_over.store(true, Ordering::Relaxed);

        assert!(published && looking.join().is_ok());
        for end in read.into_iter().chain([passing.join()]) {
            end.map_err(|_| "a client panicked")??;
        }
        Ok(())
    })?;

    handle.shutdown();
    serving.join().map_err(|_| "the server panicked")??;
    Ok(())
}
