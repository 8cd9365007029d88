//! A server that connects: it forwards its client's input to another server, and returns the reply.

use std::cell::RefCell;
use std::rc::Rc;

use serveloop::testing::{Exchange, Simulation};
use serveloop::{Address, Ended, Protocol, ProtocolError, Transport, Waker};

use super::systems::{Any, Simulated, text};

type Outcome = Result<(), ProtocolError>;

/// What two ends of a relay share: what each has to send, and how to wake it.
#[derive(Default)]
struct Side {
    pipe: Vec<u8>,
    ended: bool,
    broken: bool,
    waker: Option<Waker>,
}

/// What a proxy does with the end of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtEnd {
    /// It passes it on, and the other direction goes on.
    PassesOn,
    /// It ends the other direction too, with what waits there.
    EndsBoth,
    /// It passes it on before what waits.
    Overtakes,
}

struct End {
    own: Rc<RefCell<Side>>,
    other: Rc<RefCell<Side>>,
    at_end: AtEnd,
}

impl End {
    fn pair(at_end: AtEnd) -> (Self, Self) {
        let (one, two) = <(Rc<RefCell<Side>>, Rc<RefCell<Side>>)>::default();
        let end = |own, other| Self {
            own: Rc::clone(own),
            other: Rc::clone(other),
            at_end,
        };
        (end(&one, &two), end(&two, &one))
    }

    fn wake_other(&self) {
        if let Some(waker) = &self.other.borrow().waker {
            waker.wake();
        }
    }
}

impl Protocol for End {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Outcome {
        self.own.borrow_mut().waker = Some(transport.waker());
        self.woken(transport);
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.other.borrow_mut().pipe.extend_from_slice(data);
        self.wake_other();
        self.woken(transport);
        Ok(data.len())
    }

    fn eof_received(&mut self, _: &[u8], transport: &mut Transport<'_>) -> Outcome {
        let (mut own, mut other) = (self.own.borrow_mut(), self.other.borrow_mut());
        other.ended = true;
        match self.at_end {
            AtEnd::PassesOn => {}
            AtEnd::EndsBoth => own.ended = true,
            AtEnd::Overtakes => other.pipe.clear(),
        }
        drop((own, other));
        self.wake_other();
        self.woken(transport);
        Ok(())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.woken(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        let sent = {
            let mut own = self.own.borrow_mut();
            let sent = transport.write_some(&own.pipe);
            own.pipe.drain(..sent);
            sent
        };
        if sent > 0 {
            self.wake_other();
        }
        let (own, other) = (self.own.borrow(), self.other.borrow());
        if other.pipe.len() < transport.config().limits.high_water {
            transport.resume_reading();
        } else {
            transport.pause_reading();
        }
        let is_through = own.ended && own.pipe.is_empty();
        if other.broken {
            transport.abort();
        } else if is_through && other.ended {
            transport.close();
        } else if is_through {
            transport.finish();
        }
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        {
            let (mut own, other) = (self.own.borrow_mut(), self.other.borrow());
            own.broken = !(own.ended && own.pipe.is_empty() && other.ended);
        }
        self.wake_other();
    }
}

/// What happens to one side excuses the other, and nothing else does.
pub(crate) fn proxy() -> Simulated {
    between(|| factory(AtEnd::PassesOn))
}

/// Puts a proxy between a client and a server, each of which has something to say to the other.
fn between(make: fn() -> Any) -> Simulated {
    let (there, back) = (text(40), text(70));
    Simulation::new(make)
        .client(Exchange::new(&there, &back).relayed())
        .remote(target(), Exchange::new(&back, &there).relayed())
}

fn target() -> Address {
    "tcp://10.0.2.1:80".parse().expect("an address")
}

fn factory(at_end: AtEnd) -> Any {
    let begun = Rc::new(RefCell::new(Vec::new()));
    let to_begin = Rc::clone(&begun);
    Any {
        build: Box::new(move |_| {
            let (inner, outer) = End::pair(at_end);
            to_begin.borrow_mut().push(outer);
            Some(Box::new(inner))
        }),
        actions: Box::new(move |actions| {
            for end in begun.take() {
                actions.connect(target(), Box::new(end));
            }
        }),
    }
}

/// Where nothing happens to either side, a proxy has to pass everything on: those that do not are found,
/// and a peer that stops at the end of our stream would hide them.
pub(crate) fn a_proxy_that_loses_a_direction_is_found() {
    let found = |make: fn() -> Any| {
        let mut simulation = between(make);
        (0..300)
            .filter(|seed| simulation.check(*seed).is_err())
            .count()
    };
    assert_eq!(found(|| factory(AtEnd::PassesOn)), 0);
    let (both, overtaken) = (
        found(|| factory(AtEnd::EndsBoth)),
        found(|| factory(AtEnd::Overtakes)),
    );
    println!("  of 300 runs, {both} and {overtaken} show it");
    assert!(both > 10 && overtaken > 10, "{both} {overtaken}");
}
