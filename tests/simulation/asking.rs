//! A server that asks another one by datagrams what it tells its clients: in parts, and again until it
//! has them all.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serveloop::testing::{Exchange, Simulation};
use serveloop::{
    Address, CloseReason, Config, Ended, Limits, Protocol, ProtocolError, Transport, Waker,
};

use super::systems::{Any, Simulated};

type Outcome = Result<(), ProtocolError>;

const ANSWERS: [&str; 3] = ["part 1: in the beginning\n", "part 2: and\n", "part 3\n"];

/// When to ask again for what has not come.
const PATIENCE: Duration = Duration::from_millis(300);

/// What a client waits for, and how to wake it.
#[derive(Default)]
struct Order {
    parts: [Option<Vec<u8>>; ANSWERS.len()],
    waker: Option<Waker>,
    is_over: bool,
}

type Shared = Rc<RefCell<Order>>;
/// The orders that are to be asked for.
type Desk = Rc<RefCell<Vec<Shared>>>;

impl Order {
    fn is_complete(&self) -> bool {
        self.parts.iter().all(Option::is_some)
    }

    fn missing(&self) -> impl Iterator<Item = usize> {
        let parts = self.parts.iter().enumerate();
        parts.filter_map(|(number, part)| part.is_none().then_some(number))
    }
}

/// The session of a client.
struct Client(Shared, Desk);

impl Protocol for Client {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Outcome {
        self.0.borrow_mut().waker = Some(transport.waker());
        self.1.borrow_mut().push(Rc::clone(&self.0));
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        _: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        Ok(data.len())
    }

    fn eof_received(&mut self, _: &[u8], _: &mut Transport<'_>) -> Outcome {
        Ok(())
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        let order = self.0.borrow();
        if order.is_complete() {
            let parts = order.parts.iter().flatten();
            parts.for_each(|part| transport.write(part));
            transport.close();
        }
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.0.borrow_mut().is_over = true;
    }
}

/// The session with the server that is asked.
struct Asking(Shared, Desk, Option<Instant>);

impl Protocol for Asking {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Outcome {
        self.handle_timeout(transport);
        Ok(())
    }

    fn datagram_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let mut order = self.0.borrow_mut();
        let number = ANSWERS.iter().position(|it| it.as_bytes() == data);
        let Some(number) = number.filter(|_| !order.is_complete()) else {
            return Ok(data.len());
        };
        order.parts[number] = Some(data.to_vec());
        if order.is_complete() {
            order.waker.iter().for_each(Waker::wake);
            transport.close();
        }
        Ok(data.len())
    }

    fn data_received(&mut self, _: &[u8], _: &mut Transport<'_>) -> Result<usize, ProtocolError> {
        unreachable!("datagrams only")
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.2
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.2 = Some(transport.now() + PATIENCE);
        let order = self.0.borrow();
        if order.is_over {
            return transport.close();
        }
        for number in order.missing() {
            transport.write_datagram(question(number).as_bytes());
        }
    }

    /// Asks by another session if this one has failed.
    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let order = self.0.borrow();
        let is_done = order.is_over || order.is_complete();
        if !is_done && !matches!(ended.reason(), CloseReason::Shutdown) {
            self.1.borrow_mut().push(Rc::clone(&self.0));
            order.waker.iter().for_each(Waker::wake);
        }
    }
}

fn question(number: usize) -> String {
    format!("part {}?", number + 1)
}

/// Every client gets all parts, whatever the network does to the datagrams.
pub(crate) fn asking() -> Simulated {
    fn target() -> Address {
        "udp://10.0.2.2:53".parse().expect("an address")
    }

    fn make() -> Any {
        let desk = Desk::default();
        let orders = Rc::clone(&desk);
        Any {
            build: Box::new({
                let desk = Rc::clone(&desk);
                move |_| Some(Box::new(Client(Rc::default(), Rc::clone(&desk))))
            }),
            actions: Box::new(move |actions| {
                for order in orders.take() {
                    let asking = Asking(order, Rc::clone(&desk), None);
                    actions.connect(target(), Box::new(asking));
                }
            }),
        }
    }

    // Each client needs another session, which takes its time if most datagrams are lost.
    let config = Config {
        reserved_outbound: 8,
        limits: Limits {
            first_message_timeout: None,
            idle_timeout: Some(Duration::from_secs(3_600)),
            ..Limits::default()
        },
        ..Config::default()
    };
    let client = Exchange::new("", ANSWERS.concat());
    let simulation = Simulation::new(make as fn() -> Any);
    let simulation = simulation.config(config).client(client);
    let known = ANSWERS.iter().enumerate();
    known.fold(simulation, |simulation, (number, answer)| {
        simulation.remote_datagram(target(), question(number), Some(answer.as_bytes()))
    })
}
