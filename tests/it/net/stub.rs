//! Networks that have only a part of what a network can have: the loop works with that part, and says
//! that there is no more.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serveloop::driver::{Mailbox, Wake, Wakers};
use serveloop::net::{Event, Net};
use serveloop::protocols::Echo;
use serveloop::{Address, CloseReason, Config, Limits, Peer, Reactor, ShutdownHandle};

use crate::support::probe::{Log, Probe};

fn address(uri: &str) -> Address {
    uri.parse().unwrap()
}

/// A network that has nothing but time.
#[derive(Default)]
struct Nothing;

impl Net for Nothing {
    type Stream = ();
    type Listener = ();
    type Datagram = ();

    fn now(&mut self) -> Instant {
        Instant::now()
    }

    fn poll(&mut self, _: &mut Vec<Event>, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }

    fn waker(&mut self, _: usize) -> io::Result<Box<dyn Wake>> {
        Ok(Box::new(|| ()))
    }
}

#[test]
fn what_a_network_has_not_is_unsupported() {
    let factory = |_: &Peer| Some(Echo);
    let mut reactor = Reactor::with_net(Nothing, factory, Config::default()).unwrap();
    for uri in [
        "tcp://127.0.0.1:1",
        "unix:///x",
        "udp://127.0.0.1:1",
        "unixgram:///x",
    ] {
        let error = reactor.listen(&address(uri)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{uri}");
    }
    let handle = ShutdownHandle::new().unwrap();
    let error = reactor.obey(handle.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    // It does not obey what it cannot watch.
    handle.shutdown();
    reactor.turn(None).unwrap();
    assert!(reactor.is_finished(), "there is nothing to serve");
    assert_eq!(reactor.addresses().count(), 0);
}

#[test]
fn a_connection_to_nowhere_ends_with_the_reason() {
    let log = Log::default();
    let factory = |_: &Peer| -> Option<Probe> { None };
    let mut reactor = Reactor::with_net(Nothing, factory, Config::default()).unwrap();
    reactor.connect(address("tcp://192.0.2.1:1"), Probe::new(&log));
    reactor.turn(None).unwrap();
    let unsupported = io::Error::from(ErrorKind::Unsupported);
    let reason = CloseReason::ConnectFailed(unsupported).to_string();
    assert_eq!(log.entries(), [format!("lost {reason}")]);
    assert!(reactor.is_finished());
}

/// Outbound connections only: each is established at once and echoes what it is sent.
#[derive(Default)]
struct Mirror {
    token: Option<usize>,
    held: Vec<u8>,
}

impl Net for Mirror {
    type Stream = ();
    type Listener = ();
    type Datagram = ();

    fn now(&mut self) -> Instant {
        Instant::now()
    }

    fn poll(&mut self, events: &mut Vec<Event>, _: Option<Duration>) -> io::Result<()> {
        events.extend(self.token.map(|token| Event {
            token,
            readable: true,
            writable: true,
            ..Event::default()
        }));
        Ok(())
    }

    fn waker(&mut self, _: usize) -> io::Result<Box<dyn Wake>> {
        Ok(Box::new(|| ()))
    }

    fn connect(&mut self, _: &Address, _: &Config) -> io::Result<()> {
        Ok(())
    }

    fn register(&mut self, (): &mut (), token: usize) -> io::Result<()> {
        self.token = Some(token);
        Ok(())
    }

    fn read(&mut self, (): &mut (), buffer: &mut [u8]) -> io::Result<usize> {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        buffer[..held.len()].copy_from_slice(&held);
        Ok(held.len())
    }

    fn write(&mut self, (): &mut (), data: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(data);
        Ok(data.len())
    }
}

#[test]
fn a_network_of_outbound_connections_needs_no_more() {
    let log = Log::default();
    let config = Config {
        limits: Limits {
            linger_timeout: None,
            ..Limits::default()
        },
        ..Config::default()
    };
    let factory = |_: &Peer| -> Option<Probe> { None };
    let mut reactor = Reactor::with_net(Mirror::default(), factory, config).unwrap();
    let protocol = Probe::new(&log)
        .made(|transport| {
            transport.write(b"mirror");
            Ok(())
        })
        .data(|data, transport| {
            assert_eq!(data, b"mirror");
            transport.close();
            Ok(data.len())
        });
    reactor.connect(address("tcp://192.0.2.1:1"), protocol);
    for _ in 0..10 {
        reactor.turn(None).unwrap();
    }
    assert!(reactor.is_finished(), "{:?}", log.entries());
    let statistics = reactor.statistics();
    let moved = (statistics.bytes_written, statistics.bytes_read);
    assert_eq!((statistics.connected, moved), (1, (6, 6)));
}

#[test]
fn a_function_ends_waits() {
    let count = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&count);
    let wake = move || {
        theirs.fetch_add(1, Ordering::SeqCst);
    };
    let mailbox = Mailbox::new(Box::new(wake));
    mailbox.waker(7).wake();
    mailbox.waker(8).wake();
    // Once for each time that the mailbox stops being empty.
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(mailbox.take().collect::<Vec<_>>(), [7, 8]);
    mailbox.waker(7).wake();
    assert_eq!(count.load(Ordering::SeqCst), 2);
}
