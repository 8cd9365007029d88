//! The factory under test: it wraps each protocol that it builds in a witness.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use crate::address::Peer;
use crate::session::{Actions, Clock, Connect, Factory, Requests, catch};
use crate::statistics::Statistics;
use crate::testing::simulation::hooks::pass_on_hooks;
use crate::testing::simulation::ledger::{Place, SharedLedger};
use crate::testing::simulation::witness::Witness;
use crate::waker::Mailbox;

/// The factory under test, which wraps each protocol that it builds in a witness.
pub(super) struct Witnessed<F: Factory> {
    shared: Shared<F>,
    ledger: SharedLedger,
}

impl<F: Factory> Witnessed<F> {
    pub(super) fn new(factory: F, ledger: &SharedLedger) -> Self {
        let ledger = Rc::clone(ledger);
        Self {
            shared: Shared::new(factory),
            ledger,
        }
    }
}

/// The factory, which the server calls also while a blocking driver serves a connection.
pub(super) struct Shared<F: Factory>(Rc<RefCell<Inside<F>>>);

struct Inside<F: Factory> {
    factory: F,
    /// What was asked for meanwhile.
    connects: Vec<Connect<F::Protocol>>,
    shutdown: bool,
}

impl<F: Factory> Shared<F> {
    fn new(factory: F) -> Self {
        Self(Rc::new(RefCell::new(Inside {
            factory,
            connects: Vec::new(),
            shutdown: false,
        })))
    }

    /// Calls the factory as a turn of the server's loop does, on a thread of its own.
    pub(super) fn act(&self, now: Instant) {
        let Inside {
            factory,
            connects,
            shutdown,
        } = &mut *self.0.borrow_mut();
        let mut requests = Requests::new();
        let mut actions = Actions {
            clock: Clock::new(now),
            statistics: &Statistics::default(),
            requests: &mut requests,
            open: &(),
            mailbox: &Mailbox::silent(),
        };
        catch(|| {
            if factory.poll_timeout().is_some_and(|at| at <= now) {
                factory.handle_timeout(&mut actions);
            }
            factory.service_actions(&mut actions);
        });
        connects.append(&mut requests.connects);
        *shutdown |= requests.urgent.is_some_and(|urgent| urgent.shutdown);
    }
}

impl<F: Factory> Clone for Shared<F> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<F: Factory> Factory for Witnessed<F> {
    type Protocol = Witness<F::Protocol, Shared<F>>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        let protocol = self.shared.0.borrow_mut().factory.build_protocol(peer)?;

        let number = self.ledger.borrow().number(peer.address());
        let shared = self.shared.clone();
        Some(Witness::new(
            protocol,
            number,
            (&self.ledger, shared),
            Place::Wire,
        ))
    }

    fn needs_stream(&self, listener: usize) -> bool {
        self.shared.0.borrow().factory.needs_stream(listener)
    }

    pass_on_hooks!(self, self.shared.0.borrow_mut().factory);
}

impl<F: Factory> Witnessed<F> {
    fn act(
        &self,
        actions: &mut Actions<'_, Witness<F::Protocol, Shared<F>>>,
        hook: fn(&mut F, &mut Actions<'_, F::Protocol>),
    ) {
        let inside = &mut *self.shared.0.borrow_mut();
        let meanwhile = std::mem::take(&mut inside.connects);
        let asked = actions.inside(&mut inside.factory, hook);
        if inside.shutdown {
            actions.shutdown();
        }

        let is_ending = actions
            .requests
            .urgent
            .as_ref()
            .is_some_and(|it| it.shutdown);
        self.ledger.borrow_mut().may_close |= is_ending;
        for connect in meanwhile.into_iter().chain(asked) {
            let around = (&self.ledger, self.shared.clone());
            let connect = connect.map(|protocol| Witness::new(protocol, None, around, Place::Wire));
            let number = connect.protocol.number();
            self.ledger.borrow_mut().connecting.push_back(number);
            actions.ask(connect);
        }
    }
}
