//! What drivers tell a session of their reads and writes.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serveloop::driver::{Clock, Context, End, Mailbox, Session};
use serveloop::{Address, CloseReason, Config, Deadline, Limits, Peer};

use crate::support::probe::{Log, Probe};
use crate::support::{millis, seconds, timeless};

/// A session, what a driver lends it, and what its protocol was called with.
struct Driven {
    session: Session<Probe>,
    clock: Clock,
    config: Config,
    mailbox: Arc<Mailbox>,
    log: Log,
}

impl Driven {
    /// The protocol answers everything with five bytes.
    fn new(config: Config) -> Self {
        let log = Log::default();
        let protocol = Probe::new(&log).data(|data, transport| {
            transport.write(b"reply");
            Ok(data.len())
        });
        let peer = Peer::new(Address::Tcp(([127, 0, 0, 1], 1).into()), Some(0));
        let clock = Clock::new(Instant::now());
        let mut this = Self {
            session: Session::new(protocol, peer, clock.tick()),
            clock,
            config,
            mailbox: Mailbox::new(Box::new(|| ())),
            log,
        };
        this.tell(Session::handle_open);
        this
    }

    fn tell(&mut self, event: impl FnOnce(&mut Session<Probe>, &Context<'_>)) {
        let context = Context::new(&self.clock, &self.config, &self.mailbox, 0);
        event(&mut self.session, &context);
    }

    fn read(&mut self, outcome: io::Result<&[u8]>) {
        self.tell(|session, context| session.handle_read(outcome, context));
    }

    fn written(&mut self, outcome: io::Result<usize>) {
        self.tell(|session, context| session.handle_written(outcome, context));
    }

    fn pass(&mut self, time: Duration) {
        self.clock.set(self.clock.now() + time);
        self.tell(Session::handle_timeout);
    }

    /// Ends the session, and returns the reason, which the protocol was told once.
    #[track_caller]
    fn end(mut self) -> End {
        assert!(self.session.is_closing());
        let mut end = None;
        self.tell(|session, context| end = session.handle_lost(context));
        assert_eq!(self.log.count("lost"), 1);
        end.unwrap()
    }
}

#[test]
fn a_read_brings_bytes_nothing_the_end_or_an_error() {
    let mut driven = Driven::new(timeless());
    for kind in [ErrorKind::WouldBlock, ErrorKind::Interrupted] {
        driven.read(Err(kind.into()));
    }
    assert_eq!(driven.log.entries(), ["made"]);
    driven.read(Ok(b"hello"));
    assert_eq!(driven.session.output(), b"reply");
    driven.read(Ok(b""));
    assert!(driven.session.is_eof());
    assert!(matches!(driven.end().reason(), CloseReason::PeerClosed));

    // A connection that the system gave up is no wait that ended without news.
    for number in [libc::ECONNRESET, libc::ETIMEDOUT] {
        let mut driven = Driven::new(timeless());
        driven.read(Ok(b"hello"));
        driven.read(Err(io::Error::from_raw_os_error(number)));
        assert_eq!(driven.session.output(), b"", "nobody is there to take it");
        let end = driven.end();
        let CloseReason::Io(error) = end.reason() else {
            panic!("no error of the connection");
        };
        assert_eq!(error.raw_os_error(), Some(number));
    }
}

#[test]
fn a_write_takes_all_some_none_or_fails() {
    let mut driven = Driven::new(timeless());
    driven.read(Ok(b"hello"));
    driven.written(Ok(2));
    assert_eq!(driven.session.output(), b"ply");
    for outcome in [
        Ok(0),
        Err(ErrorKind::WouldBlock),
        Err(ErrorKind::Interrupted),
    ] {
        driven.written(outcome.map_err(io::Error::from));
        assert_eq!(driven.session.output(), b"ply");
    }
    driven.written(Ok(3));
    assert!(driven.session.output().is_empty() && !driven.session.is_closing());

    driven.read(Ok(b"hello"));
    driven.written(Err(io::Error::from_raw_os_error(libc::EPIPE)));
    assert!(driven.session.output().is_empty());
    let end = driven.end();
    let CloseReason::Io(error) = end.reason() else {
        panic!("no error of the connection");
    };
    assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
}

#[test]
fn a_peer_that_takes_nothing_runs_out_of_time() {
    for outcome in [Ok(0), Err(ErrorKind::WouldBlock)] {
        let config = Config {
            limits: Limits {
                write_timeout: Some(seconds(3)),
                ..timeless().limits
            },
            ..timeless()
        };
        let mut driven = Driven::new(config);
        driven.read(Ok(b"hello"));
        driven.written(outcome.map_err(io::Error::from));
        driven.pass(seconds(2));
        driven.written(Ok(1));
        driven.pass(seconds(2));
        assert!(!driven.session.is_closing(), "it took a byte meanwhile");
        driven.written(outcome.map_err(io::Error::from));
        driven.pass(seconds(1));
        let end = driven.end();
        let is_write = matches!(end.reason(), CloseReason::TimedOut(Deadline::Write));
        assert!(is_write, "{end:?}");
    }
}

/// A write of nothing is no activity.
#[test]
fn a_write_of_nothing_keeps_no_connection_open() {
    let config = Config {
        limits: Limits {
            idle_timeout: Some(seconds(3)),
            ..timeless().limits
        },
        ..timeless()
    };
    let mut driven = Driven::new(config);
    for _ in 0..3 {
        assert!(!driven.session.is_closing());
        driven.pass(seconds(1));
        driven.written(Ok(0));
        driven.read(Err(ErrorKind::WouldBlock.into()));
    }
    assert!(driven.session.is_closing());
}

#[test]
fn a_wait_is_never_too_short_to_be_asked_for() {
    let mut clock = Clock::new(Instant::now());
    let begin = clock.tick();
    let at = begin.after(seconds(1));
    assert_eq!(clock.until(at), seconds(1));
    clock.set(clock.now() + seconds(1) - Duration::from_nanos(1));
    assert_eq!(clock.until(at), millis(1));
    clock.set(clock.now() + seconds(9));
    assert_eq!(
        (clock.until(at), clock.until(begin)),
        (millis(1), millis(1))
    );
}
