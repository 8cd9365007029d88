//! The blocking driver on the simulated network: a model that serves each connection to its end before
//! the next, and the stream that it is served on.

use std::cell::{Cell, OnceCell};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::models::{Blocking, BlockingStream, Interrupt};
use crate::net::Net;
use crate::reactor::{Hub, Model, answer_on_loop};
use crate::session::{Admitted, Driver, Factory, Tick};
use crate::testing::simulation::ledger::Slip;
use crate::testing::simulation::network::{
    Blocked, BlockingCall, Network, Refusing, Unblocked, Wakeup,
};
use crate::testing::simulation::witness::Witness;
use crate::testing::simulation::witnessed::Shared;
use crate::waker::{Mailbox, Waker, Wakers};

/// Serves one connection at a time with the blocking driver, as the sequential model does. What threads
/// and processes do with the driver is the same, apart from what depends on the system's scheduler.
pub(super) struct OneByOne;

impl<N, F> Model<N, Witness<F::Protocol, Shared<F>>> for OneByOne
where
    N: Net + AsMut<Network>,
    F: Factory,
{
    fn process(
        &mut self,
        mut stream: N::Stream,
        admitted: Admitted<Witness<F::Protocol, Shared<F>>>,
        hub: &mut Hub<'_, N>,
    ) -> bool {
        let network = hub.net.as_mut();
        let wire = network.accepted();
        if !network.begin_blocking(wire) {
            hub.net.as_mut().note_refusing(Refusing::Begins);
            hub.drop_caught(admitted);
            hub.net.as_mut().note_refusing(Refusing::Ends);
            hub.net.close(stream, false);
            return false;
        }

        let name = admitted.peer.clone();
        let others = network.held_by_others(wire);
        let held = Arc::new(AtomicUsize::new(others));
        let interrupt = Interrupt::beside(&held);
        let is_reset = Cell::new(false);

        let beside = admitted.protocol.shared().clone();
        let simulated = Simulated {
            is_able_to_wake: network.has_descriptor(),
            slip: network.slipping(),
            local_address: network.sockets().local_address(number_of(wire)),
            net: &mut *hub.net,
            stream: &mut stream,
            wire,
            interrupt: &interrupt,
            beside,
            bell: OnceCell::new(),
            wants_waker: Cell::new(false),
            read_timeout: None,
            is_finished: false,
            is_reset: &is_reset,
        };

        let statistics = &mut hub.effects.statistics;
        let around = (&hub.env.config, &interrupt);
        let failure = Blocking::new(simulated, admitted, around, statistics).serve();
        hub.effects.failures.extend(failure);

        hub.leave(&name);
        if held.load(Ordering::Relaxed) != others {
            let network = hub.net.as_mut();
            network.object("what a connection kept is still counted after its end");
        }
        hub.net.close(stream, is_reset.get());
        true
    }

    fn answer(
        &mut self,
        socket: &mut N::Datagram,
        count: usize,
        admitted: Admitted<Witness<F::Protocol, Shared<F>>>,
        hub: &mut Hub<'_, N>,
    ) -> bool {
        answer_on_loop(socket, count, admitted, hub);
        true
    }

    fn len(&self) -> usize {
        0
    }

    fn reap(&mut self, _: &mut Hub<'_, N>, _: &mut dyn FnMut(&mut N)) {}

    fn end(&mut self, _: Tick, _: bool) {}
}

fn number_of(wire: usize) -> i32 {
    i32::try_from(wire).unwrap_or(-1)
}

/// A wire as the blocking driver uses it.
struct Simulated<'a, N: Net, F: Factory> {
    net: &'a mut N,
    stream: &'a mut N::Stream,
    wire: usize,
    local_address: Option<Address>,
    interrupt: &'a Interrupt,
    /// The factory, which the server's own thread calls meanwhile.
    beside: Shared<F>,
    bell: OnceCell<(Arc<Wakeup>, Arc<Mailbox>)>,
    is_able_to_wake: bool,
    /// A waker was requested that could not be made.
    wants_waker: Cell<bool>,
    read_timeout: Option<Duration>,
    is_finished: bool,
    is_reset: &'a Cell<bool>,
    slip: Option<Slip>,
}

impl<N: Net + AsMut<Network>, F: Factory> Simulated<'_, N, F> {
    fn slips(&self, slip: Slip) -> bool {
        self.slip == Some(slip)
    }

    /// Blocks in a call until the wire has one of `events`, or something else ends the wait.
    fn block(
        &mut self,
        call: BlockingCall,
        events: Option<libc::c_short>,
        timeout: Option<Duration>,
    ) -> Unblocked {
        let blocked = Blocked {
            wire: self.wire,
            events,
            timeout,
            bell: self.bell.get().map(|(bell, _)| &**bell),
            interrupt: self.interrupt,
            call,
        };
        let beside = &mut |now| self.beside.act(now);
        self.net.as_mut().block(&blocked, beside)
    }
}

impl<N: Net, F: Factory> Wakers for Simulated<'_, N, F> {
    fn waker(&self, id: usize) -> Waker {
        if !self.is_able_to_wake {
            self.wants_waker.set(true);
            return Mailbox::silent().waker(id);
        }
        let make = || {
            let bell = Arc::<Wakeup>::default();
            let mailbox = Mailbox::new(Box::new(Arc::clone(&bell)));
            (bell, mailbox)
        };
        self.bell.get_or_init(make).1.waker(id)
    }
}

impl<N: Net, F: Factory> Driver for Simulated<'_, N, F> {
    fn local_address(&self, _: usize) -> Option<Address> {
        self.local_address.clone()
    }
}

impl<N: Net + AsMut<Network>, F: Factory> BlockingStream for Simulated<'_, N, F> {
    fn now(&mut self) -> Instant {
        self.net.as_mut().note_reading(self.interrupt);
        self.net.now()
    }

    fn sleep(&mut self, duration: Duration) {
        self.net.as_mut().sleep(duration);
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let is_set = self.read_timeout.is_some();
        if !(is_set && self.slips(Slip::KeepsReadTimeout)) {
            self.read_timeout = timeout;
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.net.as_mut().begin_call();
        if self.is_finished && self.slips(Slip::LingersBriefly) {
            return Ok(0);
        }

        let mut timeout = self.read_timeout;
        loop {
            match self.net.read(self.stream, buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }

            let began = self.net.as_mut().elapsed();
            match self.block(BlockingCall::Read, Some(libc::POLLIN), timeout) {
                Unblocked::Ready => {}
                Unblocked::Interrupted => return Err(ErrorKind::Interrupted.into()),
                Unblocked::TimedOut if self.slips(Slip::TakesTimeoutForFailure) => {
                    return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
                }
                Unblocked::TimedOut => return Err(ErrorKind::WouldBlock.into()),
            }
            let passed = self.net.as_mut().elapsed() - began;
            timeout = timeout.map(|timeout| timeout.saturating_sub(passed));
        }
    }

    fn read_at_once(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.net.as_mut().begin_call();
        self.net.read(self.stream, buffer)
    }

    fn send(&mut self, data: &[u8]) -> io::Result<usize> {
        self.net.as_mut().begin_call();
        self.net.write(self.stream, data)
    }

    fn wait(
        &mut self,
        events: Option<libc::c_short>,
        timeout: Option<Duration>,
    ) -> io::Result<libc::c_short> {
        let network = self.net.as_mut();
        network.begin_call();
        if network.is_interrupted() {
            return Err(ErrorKind::Interrupted.into());
        }

        let sends = events.is_some_and(|events| events & libc::POLLOUT != 0);
        let call = if sends && self.slips(Slip::IsDeafWhileSending) {
            BlockingCall::DeafPoll
        } else {
            BlockingCall::Poll
        };
        let events = match events {
            None if self.slips(Slip::SpinsOnHangUp) => Some(0),
            Some(events) if self.slips(Slip::NeverWaitsForRoom) => Some(events & !libc::POLLOUT),
            events => events,
        };

        match self.block(call, events, timeout) {
            Unblocked::Interrupted => Err(ErrorKind::Interrupted.into()),
            _ => Ok(events.map_or(0, |events| self.net.as_mut().polled(self.wire, events))),
        }
    }

    fn has_input(&mut self) -> bool {
        self.net.as_mut().begin_call();
        self.net.as_mut().polled(self.wire, libc::POLLIN) != 0
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.net.error(self.stream)
    }

    fn unsent(&mut self) -> usize {
        self.net.unsent(self.stream)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.is_finished = true;
        self.net.finish(self.stream)
    }

    fn reset(&mut self) {
        self.is_reset.set(true);
    }

    fn has_waker(&self) -> bool {
        self.bell.get().is_some()
    }

    fn take_woken(&mut self) -> bool {
        if self.slips(Slip::TellsOfShutdownTwice) {
            self.interrupt.forget_told();
        }
        let Some((bell, mailbox)) = self.bell.get() else {
            return false;
        };
        bell.take();
        mailbox.take().count() > 0
    }

    fn take_waker_failure(&mut self) -> Option<io::Error> {
        if !self.wants_waker.take() {
            return None;
        }
        self.net.as_mut().note_no_waker(self.wire);
        Some(io::Error::from_raw_os_error(libc::EMFILE))
    }

    fn hears_shutdown(&mut self) -> bool {
        self.is_shutdown() && !self.slips(Slip::NeverTellsOfShutdown)
    }

    fn is_shutdown(&mut self) -> bool {
        self.net.as_mut().catch_up();
        self.net.as_mut().is_shutdown()
    }

    fn requests(&mut self) -> usize {
        self.net.as_mut().requests()
    }
}
