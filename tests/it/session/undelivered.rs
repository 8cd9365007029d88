//! Every protocol around another one passes on that a datagram did not arrive.

use std::cell::RefCell;
use std::io::{Error, ErrorKind};
use std::rc::Rc;

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::layer::{Event, Observed, RateLimit, RateLimited, Upgradable, Upgrade};
use serveloop::net::DeliveryError;
use serveloop::service::recorder::{Happening, Recorder, RecorderOptions, Recording};
use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Protocol, ProtocolError, Result, Transport};

type Log = Rc<RefCell<Vec<String>>>;

/// Notes each error, and says it to the peer.
struct Noting(Log);

impl Protocol for Noting {
    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Ok(data.len())
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
        self.0.borrow_mut().push(error.to_string());
        transport.write(b"noted");
    }
}

impl FrameProtocol for Noting {
    type Framing = Lines;

    fn frame_received(
        &mut self,
        _: &[u8],
        _: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        Ok(())
    }

    fn datagram_undelivered(
        &mut self,
        error: &DeliveryError,
        transport: &mut FrameTransport<'_, Lines>,
    ) {
        self.0.borrow_mut().push(error.to_string());
        transport.transport().write(b"noted");
    }
}

/// Hands over with the first byte.
struct First(Log, Option<Noting>);

impl Protocol for First {
    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        self.1 = Some(Noting(Rc::clone(&self.0)));
        Ok(data.len())
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, _: &mut Transport<'_>) {
        self.0.borrow_mut().push(format!("first: {error}"));
    }
}

impl Upgrade for First {
    type Next = Noting;

    fn take_next(&mut self) -> Option<Noting> {
        self.1.take()
    }
}

fn refused() -> DeliveryError {
    DeliveryError::Reported(Error::from(ErrorKind::ConnectionRefused))
}

const TOLD: &str = "the network reports: connection refused";

/// Checks that `protocol`, which has a [`Noting`] with this log inside, passes an error on.
#[track_caller]
fn check(protocol: impl Protocol, log: &Log) {
    let mut session = MemorySession::datagrams(protocol);
    session.receive_datagram(b"hello\n");
    session.fail_datagram(refused());
    assert_eq!(session.take_datagrams(), [b"noted"]);
    assert_eq!(*log.borrow(), [TOLD]);
    log.borrow_mut().clear();
}

#[test]
fn every_wrapper_passes_it_on() {
    let log = Log::default();
    let noting = || Noting(Rc::clone(&log));
    check(noting(), &log);
    let boxed: Box<dyn Protocol> = Box::new(noting());
    check(boxed, &log);
    check(Framed::new(Lines::new(99), noting()), &log);
    check(Observed::new(noting(), |_: Event<'_>| ()), &log);
    check(RateLimited::new(noting(), RateLimit::default()), &log);
    check(Upgradable::new(First(Rc::clone(&log), None)), &log);
    check(
        Recorder::new(RecorderOptions::default()).protocol(noting()),
        &log,
    );
}

#[test]
fn what_comes_before_an_upgrade_is_told_to_the_first() {
    let log = Log::default();
    let mut session = MemorySession::datagrams(Upgradable::new(First(Rc::clone(&log), None)));
    session.fail_datagram(refused());
    assert_eq!(*log.borrow(), [format!("first: {TOLD}")]);
}

#[test]
fn an_observer_sees_it() {
    let log = Log::default();
    let seen = Rc::clone(&log);
    let observer = move |event: Event<'_>| {
        if let Event::DatagramUndelivered(error) = event {
            seen.borrow_mut().push(error.to_string());
        }
    };
    let mut session = MemorySession::datagrams(Observed::new(Noting(Log::default()), observer));
    session.fail_datagram(DeliveryError::TooLong { mtu: Some(1_280) });
    assert_eq!(
        *log.borrow(),
        ["too long for the path, whose packets have at most 1280 bytes"]
    );
}

#[test]
fn a_record_has_it_as_it_was() {
    let recorder = Recorder::new(RecorderOptions::default());
    let mut session = MemorySession::datagrams(recorder.protocol(Noting(Log::default())));
    let refused = || Error::from_raw_os_error(libc::ECONNREFUSED);
    session.receive_datagram(b"hello");
    session.fail_datagram(DeliveryError::Reported(refused()));
    session.fail_datagram(DeliveryError::TooLong { mtu: Some(1_280) });
    session.fail(CloseReason::Aborted);
    drop(session);

    let mut file = Vec::new();
    recorder.write(&mut file).unwrap();
    let recording = Recording::read(&*file).unwrap();
    let connection = &recording.connections()[0];
    let told: Vec<_> = connection
        .events()
        .filter_map(|event| match event.what {
            Happening::DatagramUndelivered(failure) => Some(failure.error().to_string()),
            _ => None,
        })
        .collect();
    let expected = [
        DeliveryError::Reported(refused()),
        DeliveryError::TooLong { mtu: Some(1_280) },
    ];
    assert_eq!(told, expected.map(|error| error.to_string()));
}

#[test]
fn nothing_happens_by_default_nor_after_the_end() {
    struct Plain;

    impl Protocol for Plain {
        fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
            Ok(data.len())
        }
    }

    let mut session = MemorySession::datagrams(Plain);
    session.fail_datagram(refused());
    assert!(session.reason().is_none());

    let log = Log::default();
    let mut session = MemorySession::datagrams(Noting(Rc::clone(&log)));
    session.fail(CloseReason::Aborted);
    session.fail_datagram(refused());
    assert!(log.borrow().is_empty());

    // A stream has no datagrams.
    let mut session = MemorySession::new(Noting(Rc::clone(&log)));
    session.fail_datagram(refused());
    assert!(log.borrow().is_empty());
}
