//! Many reports that datagrams of an outbound session did not arrive, as an impostor could make them, and
//! a moment in which nothing can be received.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serveloop::driver::Wake;
use serveloop::net::{DeliveryError, Event, Net, Undelivered};
use serveloop::{Address, CloseReason, Config, Ended, Peer, Protocol, Reactor, Result, Transport};

/// A network whose sockets of datagrams have nothing but errors at first, and then one datagram.
struct Failing {
    now: Instant,
    /// What each call fails with, and how many are left.
    error: i32,
    left: usize,
    /// Whether the errors are those of reports.
    reports: bool,
    is_told: bool,
}

impl Net for Failing {
    type Stream = ();
    type Listener = ();
    type Datagram = Address;

    fn now(&mut self) -> Instant {
        self.now
    }

    fn poll(&mut self, _: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        self.now += timeout.expect("there is a deadline");
        Ok(())
    }

    fn waker(&mut self, _: usize) -> io::Result<Box<dyn Wake>> {
        Ok(Box::new(|| ()))
    }

    fn connect_datagram(&mut self, to: &Address, _: &Config, _: usize) -> io::Result<Address> {
        Ok(to.clone())
    }

    fn receive(&mut self, socket: &mut Address, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        if self.left > 0 {
            self.left -= 1;
            return Err(io::Error::from_raw_os_error(self.error));
        }
        if std::mem::replace(&mut self.is_told, true) {
            return Err(ErrorKind::WouldBlock.into());
        }
        buffer[..3].copy_from_slice(b"bye");
        Ok((3, socket.clone()))
    }

    fn undelivered(&mut self, socket: &mut Address) -> Option<Undelivered> {
        let error = DeliveryError::Reported(io::Error::from_raw_os_error(self.error));
        self.reports.then(|| Undelivered {
            to: socket.clone(),
            error,
        })
    }
}

/// Counts reports, and closes when it is told something.
struct Patient(Rc<Cell<usize>>);

impl Protocol for Patient {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        transport.close();
        Ok(data.len())
    }

    fn datagram_undelivered(&mut self, _: &DeliveryError, _: &mut Transport<'_>) {
        self.0.set(self.0.get() + 1);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        assert!(matches!(ended.reason(), CloseReason::Closed), "{ended:?}");
    }
}

/// Serves one session until it has ended, and returns how many reports it has heard of, and how long that
/// took.
fn served(error: i32, count: usize, reports: bool) -> (usize, Duration) {
    let begin = Instant::now();
    let net = Failing {
        now: begin,
        error,
        left: count,
        reports,
        is_told: false,
    };
    let heard = Rc::new(Cell::new(0));
    let factory = |_: &Peer| None::<Patient>;
    let mut reactor = Reactor::with_net(net, factory, Config::default()).unwrap();
    let to: Address = "udp://192.0.2.1:5".parse().unwrap();
    reactor.connect(to, Patient(Rc::clone(&heard)));
    while reactor.statistics().closed() == 0 {
        reactor.turn(None).unwrap();
    }
    assert_eq!(reactor.statistics().closed_by_protocol, 1);
    (heard.get(), reactor.net().now - begin)
}

/// Each of them is told, without a pause.
#[test]
fn any_number_of_reports_ends_nothing() {
    assert_eq!(served(libc::ECONNREFUSED, 500, true), (500, Duration::ZERO));
}

/// A lack of memory, and errors that stay for a while, are waited out as a listener does.
#[test]
fn a_moment_in_which_nothing_can_be_received_is_waited_out() {
    let pause = Config::default().accept_pause;
    assert_eq!(served(libc::ENOMEM, 3, false), (0, 3 * pause));
    // Sixteen in a row may each be of one datagram, and are told.
    let permitted = served(libc::EPERM, 40, false);
    assert_eq!(permitted, (16, 24 * pause));
}
