//! Property tests: the table behaves like a map from tokens to connections.
#![cfg(test)]

mod sockets;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;

use self::sockets::Sockets;
use super::Connections;
use crate::address::{Address, Peer};
use crate::config::{Config, Limits};
use crate::error::{CloseReason, ProtocolError};
use crate::net::{Event, Net};
use crate::reactor::hub::{Effects, Env, Hub};
use crate::reactor::token::{FIRST_TOKEN, SLOT_BITS};
use crate::session::{Ended, Input, Protocol, Session, Transport};
use crate::waker::{Mailbox, Wakers};

#[derive(Clone, Debug)]
enum Step {
    /// A connection arrives, and ends by itself after this many milliseconds.
    Accept(Option<u64>),
    /// A byte, or the end of the stream, for any connection so far.
    Data(Index),
    End(Index),
    Wake(Index),
    /// An event for the slot of one, with a generation this much later.
    Stray(Index, usize),
    Wait(u64),
    Turn,
    EndAll,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let any = any::<Index>;
    let step = prop_oneof![
        6 => prop::option::of(1..20_u64).prop_map(Step::Accept),
        4 => any().prop_map(Step::Data),
        3 => any().prop_map(Step::End),
        3 => any().prop_map(Step::Wake),
        2 => (any(), 1..4_usize).prop_map(|(index, later)| Step::Stray(index, later)),
        2 => (0..8_u64).prop_map(Step::Wait),
        6 => Just(Step::Turn),
        1 => Just(Step::EndAll),
    ];
    vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::with_cases(150)
    })]

    /// Runs across the wrap-around of the generation too.
    #[test]
    fn a_token_finds_its_connection_and_no_other(
        steps in steps(), generation in prop_oneof![Just(0), FIRST_TOKEN - 20..FIRST_TOKEN],
    ) {
        let mut run = Run::new(generation);
        for step in steps {
            run.perform(&step);
            run.check();
        }
    }
}

/// The calls that each connection received, by its number.
type Told = Rc<RefCell<Vec<(usize, &'static str)>>>;

struct Telltale {
    number: usize,
    told: Told,
    deadline: Option<Instant>,
}

impl Telltale {
    fn tell(&self, what: &'static str) {
        self.told.borrow_mut().push((self.number, what));
    }
}

impl Protocol for Telltale {
    fn data_received(
        &mut self,
        data: &[u8],
        _: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.tell("data");
        Ok(data.len())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    fn woken(&mut self, _: &mut Transport<'_>) {
        self.tell("woken");
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.tell("lost");
    }
}

/// What the model knows of a live connection.
#[derive(Default)]
struct Known {
    number: usize,
    deadline: Option<Instant>,
    data: bool,
    end: bool,
    woken: bool,
}

struct Run {
    table: Connections<usize, Telltale>,
    env: Env,
    effects: Effects,
    input: Input,
    sockets: Sockets,
    told: Told,
    model: HashMap<usize, Known>,
    /// All tokens so far.
    tokens: Vec<usize>,
}

impl Run {
    fn new(generation: usize) -> Self {
        let config = Config {
            limits: Limits {
                first_message_timeout: None,
                idle_timeout: None,
                linger_timeout: None,
                ..Limits::default()
            },
            ..Config::default()
        };

        let mut table = Connections::new(4);
        table.generation = generation;
        let sockets = Sockets::default();
        let unknown = Net::sockets(&sockets);
        let env = Env::new(config, Instant::now(), Mailbox::silent(), unknown);

        Self {
            table,
            input: env.input(),
            effects: Effects::new(),
            env,
            sockets,
            told: Told::default(),
            model: HashMap::new(),
            tokens: Vec::new(),
        }
    }

    fn perform(&mut self, step: &Step) {
        match step {
            Step::Accept(millis) => self.accept(*millis),
            Step::Data(index) => self.event(index, false),
            Step::End(index) => self.event(index, true),
            Step::Wake(index) => self.wake(index),
            Step::Stray(index, later) => self.stray(index, *later),
            Step::Wait(millis) => {
                let now = self.env.clock.now() + Duration::from_millis(*millis);
                self.env.clock.set(now);
            }
            Step::Turn => self.turn(),
            Step::EndAll => self.end_all(),
        }
    }

    fn accept(&mut self, millis: Option<u64>) {
        let token = self.table.next_token();
        assert!(token >= FIRST_TOKEN, "a token without an owner");
        assert!(!self.tokens.contains(&token), "a token comes again");
        let number = self.tokens.len();
        let deadline = millis.map(|millis| self.env.clock.now() + Duration::from_millis(millis));

        let protocol = Telltale {
            number,
            told: Rc::clone(&self.told),
            deadline,
        };
        let peer = Peer::new(Address::Unix("".into()), Some(0));
        let session = Session::new(protocol, peer, self.env.clock.tick());
        let mut hub = Hub::new(
            &mut self.sockets,
            &self.env,
            &mut self.effects,
            &mut self.input,
            false,
        );

        self.table.accept(number, session, None, token, &mut hub);
        self.tokens.push(token);
        let known = Known {
            number,
            deadline,
            ..Known::default()
        };
        self.model.insert(token, known);
    }

    fn token(&self, index: &Index) -> usize {
        let known = self.tokens.len();
        // Before the first connection, a token that no connection has.
        *self.tokens.get(index.index(known.max(1))).unwrap_or(&0)
    }

    fn event(&mut self, index: &Index, end: bool) {
        let token = self.token(index);
        let known = self.model.get_mut(&token);
        assert_eq!(self.table.note(&event(token, end)), known.is_some());
        let Some(known) = known else {
            return;
        };

        let waiting = if end {
            known.end = true;
            &mut self.sockets.ended
        } else {
            known.data = true;
            &mut self.sockets.readable
        };

        waiting.insert(known.number);
    }

    fn wake(&mut self, index: &Index) {
        let token = self.token(index);
        self.env.mailbox.waker(token).wake();
        for woken in self.env.mailbox.take_woken() {
            self.table.note_woken(woken);
        }
        if let Some(known) = self.model.get_mut(&token) {
            known.woken = true;
        }
    }

    fn stray(&mut self, index: &Index, later: usize) {
        let token = self.token(index).wrapping_add(later << SLOT_BITS);
        let is_known = self.model.contains_key(&token);
        assert_eq!(self.table.note(&event(token, false)), is_known);
    }

    /// A turn of the loop, with enough rounds to handle everything that has arrived.
    fn turn(&mut self) {
        let now = self.env.clock.tick();
        let expired = self.env.clock.now();
        self.table.expire(now, usize::MAX);
        for _ in 0..3 {
            let mut hub = Hub::new(
                &mut self.sockets,
                &self.env,
                &mut self.effects,
                &mut self.input,
                false,
            );
            self.table.drive(&mut hub);
            self.table.reap(&mut hub);
        }

        let mut expected = HashSet::new();
        self.model.retain(|_, known| {
            let due = known.deadline.is_some_and(|at| at <= expired);
            let ends = known.end || due;
            let calls = [(known.woken, "woken"), (known.data, "data"), (ends, "lost")];
            let calls = calls.into_iter().filter(|(told, _)| *told);
            expected.extend(calls.map(|(_, what)| (known.number, what)));
            (known.data, known.woken) = (false, false);
            !ends
        });

        self.compare(&expected);
    }

    fn end_all(&mut self) {
        let mut hub = Hub::new(
            &mut self.sockets,
            &self.env,
            &mut self.effects,
            &mut self.input,
            false,
        );
        self.table.end_all(&mut hub, |connection, hub| {
            connection.end(CloseReason::Shutdown, hub);
        });
        self.table.reap(&mut hub);

        let expected = self.model.drain().map(|(_, known)| (known.number, "lost"));
        let expected = expected.collect();
        self.compare(&expected);
    }

    /// Each connection received exactly one call for each thing that happened to it.
    fn compare(&self, expected: &HashSet<(usize, &'static str)>) {
        let told = self.told.take();
        assert_eq!(told.len(), expected.len(), "{told:?} and not {expected:?}");
        assert_eq!(&told.into_iter().collect::<HashSet<_>>(), expected);
    }

    fn check(&self) {
        assert_eq!(self.table.len(), self.model.len());
        assert_eq!(self.table.is_empty(), self.model.is_empty());
        let queued: HashSet<_> = self.table.ready.iter().collect();
        assert_eq!(queued.len(), self.table.ready.len(), "queued twice");
        let open = self.tokens.len() - self.sockets.closed.len();
        assert_eq!(open, self.model.len(), "each socket is closed once");
        let deadlines = self.model.values().filter_map(|known| known.deadline);
        let ticks = deadlines.map(|at| self.env.clock.tick_of(at));
        assert_eq!(self.table.deadline(), ticks.min());
    }
}

fn event(token: usize, closed: bool) -> Event {
    Event {
        token,
        readable: true,
        closed,
        ..Event::default()
    }
}
