//! The servers that are simulated, each with its clients: one for each thing that a protocol can do.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Cursor, Read};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, LengthPrefix, Lines};
use serveloop::protocols::{Discard, Echo, Hello};
use serveloop::service::{Group, Lagging, PostError};
use serveloop::testing::{Exchange, Simulation};
use serveloop::{
    Actions, Config, Factory, Limits, Peer, Protocol, ProtocolError, Transport, Waker,
};

use super::{asking, http, proxy};

type Made = Box<dyn Protocol>;
type Outcome = Result<(), ProtocolError>;

type Build = dyn FnMut(&Peer) -> Option<Made>;
type Act = dyn FnMut(&mut Actions<'_, Made>);

/// Any server's factory.
pub(crate) struct Any {
    pub(crate) build: Box<Build>,
    pub(crate) actions: Box<Act>,
}

impl Any {
    pub(crate) fn of<P: Protocol + 'static>(mut build: impl FnMut() -> P + 'static) -> Self {
        Self {
            build: Box::new(move |_| Some(Box::new(build()))),
            actions: Box::new(|_| {}),
        }
    }
}

impl Factory for Any {
    type Protocol = Made;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Made> {
        (self.build)(peer)
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Made>) {
        (self.actions)(actions);
    }
}

pub(crate) type Simulated = Simulation<fn() -> Any>;

pub(crate) type System = (&'static str, fn() -> Simulated);

/// The systems of sessions of datagrams, which need the loop, and have no layers.
pub(crate) const OF_DATAGRAMS: [&str; 2] = ["echo of peers", "asking"];

pub(crate) const SYSTEMS: [System; 20] = [
    ("echo", echo),
    ("discard", discard),
    ("frames", frames),
    ("echo of peers", echo_of_peers),
    ("asking", asking::asking),
    ("hello", hello),
    ("producer", producer),
    ("streamer", streamer),
    ("posting", posting),
    ("crowded", crowded),
    ("greeter", greeter),
    ("late", late),
    ("pausing", pausing),
    ("rejecting", rejecting),
    ("panicking", panicking),
    ("alarmed", alarmed),
    ("keeping", keeping),
    ("finishing", finishing),
    ("proxy", proxy::proxy),
    ("http", http::http),
];

fn echo() -> Simulated {
    let long = text(200);
    Simulation::new((|| Any::of(|| Echo)) as fn() -> Any)
        .client(Exchange::new("good morning", "good morning"))
        .client(Exchange::new(&long, &long))
        .client(Exchange::default())
        .datagram("good morning", Some(b"good morning"))
        .datagram("", Some(b""))
}

/// Each of the three peers of these datagrams has a session.
fn echo_of_peers() -> Simulated {
    let long = text(200);
    let config = Config {
        sessions: true,
        ..Config::default()
    };
    Simulation::new((|| Any::of(|| Echo)) as fn() -> Any)
        .config(config)
        .client(Exchange::new("good morning", "good morning"))
        .datagram("good morning", Some(b"good morning"))
        .datagram(&long, Some(long.as_bytes()))
        .datagram("", Some(b""))
}

fn discard() -> Simulated {
    Simulation::new((|| Any::of(|| Discard)) as fn() -> Any)
        .client(Exchange::new(text(100), ""))
        .datagram("good morning", None)
}

fn frames() -> Simulated {
    struct Back;
    impl FrameProtocol for Back {
        type Framing = LengthPrefix;

        fn frame_received(
            &mut self,
            frame: &[u8],
            frames: &mut FrameTransport<'_, LengthPrefix>,
        ) -> Outcome {
            frames.send(frame)
        }
    }
    let make = || Any::of(|| Framed::new(LengthPrefix::u32(1 << 16), Back));
    let several = ["", "a", "bc", &text(30), &text(1), ""];
    let several = several
        .iter()
        .fold(Exchange::default(), |exchange, payload| {
            let frame = frame(payload);
            exchange.then(&frame, &frame)
        });
    Simulation::new(make as fn() -> Any)
        .client(several.clone())
        .client(several.in_turns())
        .client(Exchange::new(frame(&text(400)), frame(&text(400))))
}

/// Time, pauses, and a server that ends while its client still sends.
fn hello() -> Simulated {
    let make = || {
        let hello = || Hello::new(Duration::from_millis(700));
        Any::of(move || Framed::new(Lines::new(80), hello()))
    };
    let dialogue = Exchange::new("", "Welcome!\n")
        .then("bob\n", "Hello,bob\n")
        .then("an\r\n", "Hello,an\n");
    let talks_on = dialogue.clone().then(format!("exit\n{}", text(50)), "");
    Simulation::new(make as fn() -> Any)
        .client(dialogue.in_turns().stays_open())
        .client(talks_on)
}

/// More output than fits, produced as it is taken.
fn producer() -> Simulated {
    struct Producer(VecDeque<u8>);
    impl Protocol for Producer {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            let asked = usize::from(data[0]) * 100;
            self.0.extend(text(asked / 8 + 1).bytes().take(asked));
            self.resume_writing(transport);
            Ok(1)
        }

        fn eof_received(&mut self, _: &[u8], transport: &mut Transport<'_>) -> Outcome {
            if self.0.is_empty() {
                transport.close();
            }
            Ok(())
        }

        fn resume_writing(&mut self, transport: &mut Transport<'_>) {
            let sent = transport.write_some(self.0.make_contiguous());
            self.0.drain(..sent);
            if self.0.is_empty() {
                transport.resume_reading();
            } else {
                transport.pause_reading();
            }
        }
    }
    let asked = |count: usize| text(count * 100 / 8 + 1)[..count * 100].to_owned();
    Simulation::new((|| Any::of(|| Producer(VecDeque::new()))) as fn() -> Any)
        .client(Exchange::new([3], asked(3)).then([40], asked(40)))
        .client(Exchange::new([100], asked(100)).stays_open())
}

/// Output in all ways at once: copied, shared, and made as there is room.
fn streamer() -> Simulated {
    struct Streamer;
    impl Protocol for Streamer {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            let length = usize::from(data[0]) * 200;
            let all = text(length / 8 + 1).into_bytes();
            transport.write(&all[..length / 2]);
            transport.send(Cursor::new(all.clone()).take(length as u64));
            transport.write_owned(all[..length].to_vec());
            transport.write(&all[..length / 4]);
            Ok(1)
        }
    }
    let asked = |count: usize| {
        let length = count * 200;
        let all = text(length / 8 + 1);
        [
            &all[..length / 2],
            &all[..length],
            &all[..length],
            &all[..length / 4],
        ]
        .concat()
    };
    Simulation::new((|| Any::of(|| Streamer)) as fn() -> Any)
        .client(Exchange::new([1], asked(1)).then([30], asked(30)))
        .client(Exchange::new([100], asked(100)).stays_open())
}

/// What arrives is posted: to the outbox of the connection, or to a group with this one member.
fn posting() -> Simulated {
    struct Posting(Group);
    impl Protocol for Posting {
        fn connection_made(&mut self, transport: &mut Transport<'_>) -> Outcome {
            let outbox = transport.outbox();
            self.0.join(outbox.id().to_be_bytes(), &outbox);
            Ok(())
        }

        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            let outbox = transport.outbox();
            if transport.peer().is_datagram() {
                assert_eq!(outbox.post(data), Err(PostError::Closed));
                transport.write(data);
            } else if outbox.id() % 2 == 0 {
                outbox.post(data).expect("room");
            } else {
                // A driver that could make no waker ends the connection after this.
                let published = self.0.publish(outbox.id().to_be_bytes(), data);
                assert!(published.sent <= 1 && published.lagging == 0);
            }
            Ok(data.len())
        }

        fn eof_received(&mut self, _: &[u8], transport: &mut Transport<'_>) -> Outcome {
            transport.outbox().close();
            Ok(())
        }

        fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
            // Nothing can be posted after this.
            transport.pause_reading();
            transport.outbox().close();
        }
    }
    let make = || {
        let group = Group::new(Lagging::Close);
        Any::of(move || Posting(group.clone()))
    };
    let long = text(2_000);
    Simulation::new(make as fn() -> Any)
        .client(Exchange::new("good morning", "good morning"))
        .client(Exchange::new(&long, &long))
        .client(
            Exchange::new("a", "a")
                .then("b", "b")
                .in_turns()
                .stays_open(),
        )
        .datagram("good morning", Some(b"good morning"))
}

/// More output than all connections together may keep: some have to go, and none keeps the others from
/// being served.
fn crowded() -> Simulated {
    struct Generous;
    impl Protocol for Generous {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            transport
                .write(&text(usize::from(data[0]) * 4).as_bytes()[..usize::from(data[0]) * 40]);
            Ok(1)
        }
    }
    let asked = |count: usize| text(count * 4)[..count * 40].to_owned();
    let config = Config {
        max_buffered: 24 << 10,
        limits: Limits {
            high_water: 2 << 10,
            low_water: 1 << 10,
            max_output: 12 << 10,
            ..Limits::default()
        },
        ..Config::default()
    };
    Simulation::new((|| Any::of(|| Generous)) as fn() -> Any)
        .config(config)
        .at_most(12)
        .client(Exchange::new([200], asked(200)).may_be_cut())
        .client(Exchange::new([80], asked(80)).may_be_cut())
        .client(Exchange::new([1], asked(1)).may_be_cut())
}

/// Speaks and closes at once, whatever the client sends.
fn greeter() -> Simulated {
    struct Greeter;
    impl Protocol for Greeter {
        fn connection_made(&mut self, transport: &mut Transport<'_>) -> Outcome {
            transport.write(b"connected");
            transport.close();
            Ok(())
        }

        fn data_received(
            &mut self,
            _: &[u8],
            _: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            unreachable!("it has closed")
        }
    }
    Simulation::new((|| Any::of(|| Greeter)) as fn() -> Any)
        .client(Exchange::new("", "connected"))
        .client(Exchange::new(text(100), "connected"))
}

/// Replies come from elsewhere, by wakers.
fn late() -> Simulated {
    type Desk = Rc<RefCell<Vec<(Rc<RefCell<Vec<u8>>>, Waker)>>>;
    struct Late(Rc<RefCell<Vec<u8>>>, Desk, bool);
    impl Protocol for Late {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            self.0.borrow_mut().extend_from_slice(data);
            let order = (Rc::clone(&self.0), transport.waker());
            self.1.borrow_mut().push(order);
            transport.pause_reading();
            Ok(data.len())
        }

        fn eof_received(&mut self, _: &[u8], transport: &mut Transport<'_>) -> Outcome {
            self.2 = true;
            self.woken(transport);
            Ok(())
        }

        fn woken(&mut self, transport: &mut Transport<'_>) {
            transport.write(&self.0.take());
            transport.resume_reading();
            if self.2 {
                transport.close();
            }
        }
    }
    fn make() -> Any {
        let desk = Desk::default();
        let orders = Rc::clone(&desk);
        Any {
            actions: Box::new(move |_| orders.take().iter().for_each(|(_, waker)| waker.wake())),
            ..Any::of(move || Late(Rc::default(), Rc::clone(&desk), false))
        }
    }
    Simulation::new(make as fn() -> Any)
        .client(Exchange::new(text(60), text(60)))
        .client(Exchange::new("a", "a").then("b", "b").in_turns())
}

/// Reads nothing for a while after each piece, in which it must be noticed if the client is gone.
fn pausing() -> Simulated {
    struct Pausing(Option<Instant>);
    impl Protocol for Pausing {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            transport.write(data);
            transport.pause_reading();
            self.0 = Some(transport.now() + Duration::from_secs(20));
            Ok(data.len())
        }

        fn poll_timeout(&self) -> Option<Instant> {
            self.0
        }

        fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
            self.0 = None;
            transport.resume_reading();
        }
    }
    Simulation::new((|| Any::of(|| Pausing(None))) as fn() -> Any)
        .client(Exchange::new("abc", "abc"))
        .client(Exchange::new("a", "a").then("b", "b").in_turns())
}

/// A peer that breaks the protocol gets its error reply, though it sends on.
fn rejecting() -> Simulated {
    struct Strict;
    impl FrameProtocol for Strict {
        type Framing = Lines;

        fn frame_received(
            &mut self,
            frame: &[u8],
            frames: &mut FrameTransport<'_, Lines>,
        ) -> Outcome {
            frames.send(frame)
        }

        fn input_rejected(&mut self, _: &ProtocolError, frames: &mut FrameTransport<'_, Lines>) {
            frames.transport().write(b"no\n");
        }
    }
    let long = "x".repeat(500);
    Simulation::new((|| Any::of(|| Framed::new(Lines::new(20), Strict))) as fn() -> Any)
        .client(Exchange::new("fine\n", "fine\n").then(&long, "no\n"))
        .client(Exchange::new("fine\ncut", "fine\nno\n").ends_first())
        .datagram("fine\n", Some(b"fine\n"))
        .datagram("cut", Some(b"no\n"))
}

fn panicking() -> Simulated {
    struct Nervous;
    impl Protocol for Nervous {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            if data[0] == b'!' {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            transport.write(&data[..1]);
            Ok(1)
        }

        fn connection_lost(&mut self, _: &serveloop::Ended<'_>) {
            std::panic::resume_unwind(Box::new("again"));
        }
    }
    Simulation::new((|| Any::of(|| Nervous)) as fn() -> Any)
        .client(Exchange::new("ab!cd", "ab").may_be_cut())
        .client(Exchange::new("calm", "calm"))
}

/// Panics when it is asked for its deadline, while output waits.
fn alarmed() -> Simulated {
    struct Alarmed(bool);
    impl Protocol for Alarmed {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            self.0 = data[0] == b'!';
            if self.0 {
                transport.write(text(100).as_bytes());
            } else {
                transport.write(&data[..1]);
            }
            Ok(1)
        }

        fn poll_timeout(&self) -> Option<Instant> {
            if self.0 {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            None
        }
    }
    Simulation::new((|| Any::of(|| Alarmed(false))) as fn() -> Any)
        .client(Exchange::new("ab!", format!("ab{}", text(100))).may_be_cut())
        .client(Exchange::new("calm", "calm"))
}

/// Keeps what it gets in memory of its own, which counts, until it is told to send it.
fn keeping() -> Simulated {
    struct Keeping(Vec<u8>);
    impl Protocol for Keeping {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            let end = data.iter().position(|byte| *byte == b'.');
            self.0.extend_from_slice(&data[..end.unwrap_or(data.len())]);
            if end.is_some() {
                transport.write(&std::mem::take(&mut self.0));
            }
            transport.charge(self.0.len() * 64);
            Ok(end.map_or(data.len(), |end| end + 1))
        }
    }
    let config = Config {
        max_buffered: 24 << 10,
        limits: Limits {
            high_water: 2 << 10,
            low_water: 1 << 10,
            max_output: 12 << 10,
            ..Limits::default()
        },
        ..Config::default()
    };
    let long = text(25);
    Simulation::new((|| Any::of(|| Keeping(Vec::new()))) as fn() -> Any)
        .config(config)
        .at_most(12)
        .client(Exchange::new(format!("{long}."), &long).may_be_cut())
        .client(Exchange::new("ab.", "ab").then("c.d.", "cd").may_be_cut())
}

/// Ends its side first, and goes on reading.
pub(crate) fn finishing() -> Simulated {
    struct Finishing;
    impl Protocol for Finishing {
        fn connection_made(&mut self, transport: &mut Transport<'_>) -> Outcome {
            transport.write(text(20).as_bytes());
            transport.finish();
            Ok(())
        }

        fn data_received(
            &mut self,
            data: &[u8],
            _: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            Ok(data.len())
        }
    }
    Simulation::new((|| Any::of(|| Finishing)) as fn() -> Any)
        .client(Exchange::new(text(30), text(20)))
}

/// Text in which every place can be told from every other.
pub(crate) fn text(lines: usize) -> String {
    (0..lines).map(|line| format!("line {line:04}\n")).collect()
}

fn frame(payload: &str) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    [&length.to_be_bytes(), payload.as_bytes()].concat()
}
