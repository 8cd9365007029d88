//! Configurations that make no sense: the error names the field, its value and what is wrong with it.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::protocols::Echo;
use serveloop::testing::MemorySession;
use serveloop::{Address, CloseReason, Config, ConfigError, Deadline, Peer, Reactor, Server};

use crate::support::{Serving, echoes};

type Change = fn(&mut Config);

/// What a user may set wrongly: the change, the field that is named, and what is said of it.
const NONSENSE: [(Change, &str, &str); 25] = [
    (
        |to| to.max_connections = 0,
        "max_connections",
        "must be at least 1, not 0",
    ),
    (
        |to| to.max_per_peer = 0,
        "max_per_peer",
        "must be at least 1, not 0",
    ),
    (
        |to| to.max_children = 0,
        "max_children",
        "must be at least 1, not 0",
    ),
    (
        |to| to.accepts_per_turn = 0,
        "accepts_per_turn",
        "must be at least 1, not 0",
    ),
    (
        |to| to.read_per_turn = 0,
        "read_per_turn",
        "must be at least 1, not 0",
    ),
    (
        |to| to.write_per_turn = 0,
        "write_per_turn",
        "must be at least 1, not 0",
    ),
    (
        |to| to.messages_per_turn = 0,
        "messages_per_turn",
        "must be at least 1, not 0",
    ),
    (
        |to| to.datagrams_per_turn = 0,
        "datagrams_per_turn",
        "must be at least 1, not 0",
    ),
    (
        |to| to.timeouts_per_turn = 0,
        "timeouts_per_turn",
        "must be at least 1, not 0",
    ),
    (
        |to| to.limits.high_water = 0,
        "high_water",
        "must be at least 1, not 0",
    ),
    (
        |to| to.reply_factor = 0,
        "reply_factor",
        "must be at least 1, not 0",
    ),
    (
        |to| to.replies_per_second = 0,
        "replies_per_second",
        "must be at least 1, not 0",
    ),
    (
        |to| to.read_per_turn = (1 << 30) + 1,
        "read_per_turn",
        "must be at most 1 GiB, not 1073741825",
    ),
    (
        |to| to.accept_pause = Duration::ZERO,
        "accept_pause",
        "must be more than 0, not 0ns",
    ),
    (|to| to.backlog = 0, "backlog", "must be at least 1, not 0"),
    (
        |to| to.backlog = -5,
        "backlog",
        "must be at least 1, not -5",
    ),
    (
        |to| to.send_buffer = Some(1 << 31),
        "send_buffer",
        "must be less than 2 GiB, not 2147483648",
    ),
    (
        |to| to.receive_buffer = Some(1 << 31),
        "receive_buffer",
        "must be less than 2 GiB, not 2147483648",
    ),
    (
        |to| to.keepalive = Some(Duration::ZERO),
        "keepalive",
        "must be more than 0 and at most 32767s, not 0ns",
    ),
    (
        |to| to.keepalive = Some(Duration::from_secs(32_768)),
        "keepalive",
        "must be more than 0 and at most 32767s, not 32768s",
    ),
    (
        |to| to.socket_mode = 0o1000,
        "socket_mode",
        "must be at most 0o777, not 0o1000",
    ),
    (
        |to| to.socket_group = Some(String::new()),
        "socket_group",
        "must be a name or a number, not \"\"",
    ),
    (
        |to| to.limits.low_water = to.limits.high_water,
        "low_water",
        "must be less than high_water (65536), not 65536",
    ),
    (
        |to| to.limits.max_output = to.limits.high_water - 1,
        "max_output",
        "must be at least high_water (65536), not 65535",
    ),
    (
        |to| to.max_buffered = to.limits.max_output - 1,
        "max_buffered",
        "must be at least max_output (1048576), not 1048575",
    ),
];

/// The largest and smallest values that still make sense.
const EXTREMES: [Change; 6] = [
    |_| (),
    |to| to.read_per_turn = 1 << 30,
    |to| to.accept_pause = Duration::from_nanos(1),
    |to| (to.send_buffer, to.receive_buffer) = (Some(i32::MAX as usize), Some(i32::MAX as usize)),
    |to| {
        (
            to.limits.low_water,
            to.limits.high_water,
            to.limits.max_output,
            to.max_buffered,
        ) = (0, 1, 1, 1)
    },
    |to| {
        (
            to.limits.max_frame,
            to.limits.max_line,
            to.reserved_descriptors,
            to.backlog,
        ) = (0, 0, usize::MAX, 1)
    },
];

fn changed(change: Change) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

/// Checks that an I/O error is about the field, and returns what it says.
#[track_caller]
fn inner<T: std::fmt::Debug>(result: io::Result<T>) -> ConfigError {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let inner = error.get_ref().unwrap().downcast_ref::<ConfigError>();
    inner.unwrap().clone()
}

#[test]
fn nonsense_is_named_by_its_field() {
    for (change, field, problem) in NONSENSE {
        let error = changed(change).validate().unwrap_err();
        assert_eq!((error.field, &*error.problem), (field, problem));
        assert_eq!(error.to_string(), format!("{field} {problem}"));
        assert!(error.source().is_none());
    }
}

#[test]
fn whatever_takes_a_configuration_refuses_nonsense() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(taken.local_addr().unwrap());
    for (change, field, problem) in NONSENSE {
        let config = changed(change);
        // The configuration is looked at before any address is bound.
        let place = std::slice::from_ref(&address);
        let bound = Server::bind(place, config.clone());
        assert_eq!(inner(bound).field, field);
        assert_eq!(inner(Server::bind_only(place, config.clone())).field, field);
        let bound = Server::bind_places(&[place.to_vec()], config.clone());
        assert_eq!(inner(bound).field, field);
        assert_eq!(
            inner(Reactor::new(|_: &Peer| Some(Echo), config.clone())).problem,
            problem
        );

        let session = || MemorySession::with_config(Echo, config);
        let panic = catch_unwind(AssertUnwindSafe(session)).unwrap_err();
        let said = panic.downcast_ref::<String>().unwrap();
        assert_eq!(*said, format!("{field} {problem}"));
    }
}

#[test]
fn extremes_are_valid() {
    for (number, change) in EXTREMES.into_iter().enumerate() {
        let result = changed(change).validate();
        assert_eq!(result, Ok(()), "number {number}");
    }
}

/// Trusted clients may be silent, and one address may have all connections. All else is as by default.
#[test]
fn trusted_clients_may_be_silent_and_many() {
    let (trusted, usual) = (Config::trusted(), Config::default());
    trusted.validate().unwrap();
    let mut expected = usual.clone();
    expected.limits.first_message_timeout = None;
    expected.limits.idle_timeout = None;
    expected.max_per_peer = usual.max_connections;
    expected.keepalive = Some(Duration::from_secs(60));
    assert_eq!(trusted, expected);

    let most = usual.max_per_peer + 5;
    let server = Serving::tcp(
        Config {
            limit_loopback: true,
            ..trusted
        },
        |_: &Peer| Some(Echo),
    );
    let mut clients: Vec<_> = (0..most).map(|_| server.client()).collect();
    for client in &mut clients {
        echoes(client, b"ping");
    }
    assert_eq!(server.end().refused_max_per_peer, 0);
}

/// A client that may be silent still has to go on with what it has begun, its first message included.
#[test]
fn a_trusted_client_completes_what_it_has_begun() {
    let framed = || Framed::new(Lines::new(80), Upper);
    let day = Duration::from_secs(86_400);
    let message = Config::default().limits.message_timeout.unwrap();
    for messages in [&b""[..], b"one\n"] {
        let mut session = MemorySession::with_config(framed(), Config::trusted());
        session.receive(messages);
        session.advance(day);
        session.receive(b"be");
        session.advance(message - Duration::from_millis(1));
        assert!(session.reason().is_none(), "{messages:?}");
        session.receive(b"gun");
        session.advance(Duration::from_millis(1));
        let reason = session.reason().expect("it has ended");
        assert!(
            matches!(reason, CloseReason::TimedOut(Deadline::Message)),
            "{reason}"
        );
    }

    let mut session = MemorySession::with_config(framed(), Config::trusted());
    session.receive(b"be");
    session.receive(b"gun\n");
    session.advance(day);
    assert_eq!(session.sent(), b"BEGUN\n");
    assert!(session.reason().is_none());
}

struct Upper;

impl FrameProtocol for Upper {
    type Framing = Lines;

    fn frame_received(
        &mut self,
        line: &[u8],
        frames: &mut FrameTransport<'_, Lines>,
    ) -> serveloop::Result {
        frames.send(&line.to_ascii_uppercase())
    }
}
