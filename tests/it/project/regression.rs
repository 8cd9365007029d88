//! Faults that were found and mended, each under its name.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serveloop::driver::{Mailbox, Wake, Wakers};
use serveloop::framing::{Delimited, FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::protocols::{Echo, Hello};
use serveloop::testing::MemorySession;
use serveloop::{
    Address, CloseReason, Config, Factory, Limits, Peer, Protocol, ProtocolError, Reactor, Server,
    ShutdownHandle, Statistics, Transport, Waker,
};
use socket2::{Domain, Socket, Type};

use crate::support::model_protocols::probe;
use crate::support::model_server::{
    End, Model, ModelServer, bind, connect, datagrams, finish, read_to,
};
use crate::support::probe::{Log, Probe};
use crate::support::scripted::{Act, Script, Scripted};
use crate::support::{PATIENCE, Scratch, echoes, millis, noise, panic_quietly, seconds, timeless};

const TCP: &str = "tcp://127.0.0.1:0";

/// What takes longer has waited for something that did not come in time.
const PROMPT: Duration = Duration::from_secs(5);

/// Closing while input waits has the system drop what the peer has not taken yet.
#[test]
fn a_reply_survives_more_input_than_a_lingering_connection_reads() {
    let reply = noise(200_000);
    for model in Model::ALL {
        let config = Config {
            send_buffer: Some(1 << 20),
            limits: Limits {
                linger_bytes: 1_000,
                max_output: 1 << 20,
                ..timeless().limits
            },
            ..timeless()
        };
        let shared = reply.clone();
        let factory = move |_: &Peer| {
            let reply = shared.clone();
            Some(probe().data(move |_, transport| {
                transport.write(&reply);
                transport.close();
                Ok(1)
            }))
        };
        let server = ModelServer::new(model, &[TCP], config, factory);
        let mut client = narrow(&server);
        let mut sender = client.try_clone().unwrap();
        // It may see a reset at the end, when all of the reply is there.
        let sender = thread::spawn(move || drop(sender.write_all(&noise(1 << 20))));
        assert!(read_to(&mut client).0 == reply, "{model:?}");
        sender.join().unwrap();
        assert_eq!(server.end().closed_by_protocol, 1, "{model:?}");
    }
}

/// What was counted as written before a shutdown arrives, if the peer reads at all.
#[test]
fn a_shutdown_destroys_no_reply_that_is_on_its_way() {
    for model in Model::ALL {
        let config = Config {
            drain_timeout: Some(PATIENCE),
            limits: Limits {
                linger_bytes: 1_000,
                ..timeless().limits
            },
            ..timeless()
        };
        let server = ModelServer::new(model, &[TCP], config, |_: &Peer| Some(Echo));
        let mut client = narrow(&server);
        // As much as fits into all buffers on the way, and is not read before the shutdown.
        client.set_nonblocking(true).unwrap();
        let bytes = noise(1 << 16);
        let mut refused = 0;
        while refused < 50_000 {
            match client.write(&bytes) {
                Ok(_) => refused = 0,
                Err(_) => refused += 1,
            }
            thread::yield_now();
        }
        client.set_nonblocking(false).unwrap();
        server.handle.shutdown();
        let got = read_to(&mut client).0.len() as u64;
        assert_eq!(got, server.end().bytes_written, "{model:?}");
    }
}

/// A client whose system takes little at a time.
fn narrow(server: &ModelServer) -> Socket {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(4_096).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    let to = server.addresses[0].socket_addr().unwrap();
    client.connect(&to.into()).unwrap();
    client
}

#[test]
fn an_unterminated_name_is_answered_after_its_delay() {
    let lines = Lines::new(100).accept_unterminated();
    let mut session = MemorySession::new(Framed::new(lines, Hello::new(seconds(1))));
    session.receive(b"bob");
    session.receive_eof();
    assert_eq!(session.sent(), b"Welcome!\n");
    session.advance(seconds(1));
    assert_eq!(session.sent(), b"Hello,bob\n");
    assert!(matches!(session.reason(), Some(CloseReason::PeerClosed)));
}

/// Logs what it is told, ends at `exit`, and waits for a shutdown at anything else.
struct Told(Log);

impl FrameProtocol for Told {
    type Framing = Lines;

    fn frame_received(
        &mut self,
        frame: &[u8],
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        self.0.push(frame.escape_ascii().to_string());
        match frame {
            b"exit" => frames.transport().close(),
            _ => frames.transport().pause_reading(),
        }
        Ok(())
    }

    fn eof_received(
        &mut self,
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        self.0.push("eof");
        frames.transport().close();
        Ok(())
    }

    fn shutdown_requested(&mut self, frames: &mut FrameTransport<'_, Lines>) {
        self.0.push("shutdown");
        frames.transport().resume_reading();
    }
}

fn told(log: &Log) -> MemorySession<impl Protocol> {
    let lines = Lines::new(100).accept_unterminated();
    MemorySession::new(Framed::new(lines, Told(log.clone())))
}

#[test]
fn no_end_is_told_after_a_close() {
    let log = Log::default();
    let mut session = told(&log);
    session.receive(b"exit");
    session.receive_eof();
    assert_eq!(log.entries(), ["exit"]);
    assert!(session.reason().is_some());
}

#[test]
fn an_end_during_a_pause_is_told_after_it_also_by_a_shutdown() {
    let log = Log::default();
    let mut session = told(&log);
    session.receive(b"wait");
    session.receive_eof();
    assert_eq!(log.entries(), ["wait"]);
    session.shutdown();
    assert_eq!(log.entries(), ["wait", "shutdown", "eof"]);
    assert!(session.reason().is_some());
}

fn abort_and_fail() -> Probe {
    probe().data(|_, transport| {
        transport.abort();
        Err(ProtocolError::malformed("on purpose"))
    })
}

#[test]
fn an_abort_stays_one_after_an_error() {
    let mut session = MemorySession::new(abort_and_fail());
    session.receive(b"x");
    assert!(matches!(session.reason(), Some(CloseReason::Aborted)));
    for model in Model::ALL {
        let server = ModelServer::new(model, &[TCP], timeless(), |_: &Peer| Some(abort_and_fail()));
        let mut client = server.client();
        client.write_all(b"x").unwrap();
        assert_eq!(read_to(&mut client).1, End::Reset, "{model:?}");
        assert_eq!(server.end().closed_aborted, 1, "{model:?}");
    }
}

/// What is not taken during a pause is not a message that has become too long.
#[test]
fn not_now_is_not_too_long() {
    let mut paused = false;
    let four = probe()
        .data(move |data, transport| {
            if data.len() >= 4 && !paused {
                paused = true;
                transport.pause_reading();
            }
            let taken = if transport.is_paused() {
                0
            } else {
                data.len() / 4 * 4
            };
            Ok(taken)
        })
        .shutdown(|transport| transport.resume_reading());
    let config = Config {
        limits: Limits {
            max_frame: 100,
            ..Limits::default()
        },
        ..Config::default()
    };
    let mut session = MemorySession::with_config(four, config);
    session.receive(b"ab");
    session.receive(&[0; 4_096]);
    assert!(session.reason().is_none(), "{:?}", session.reason());
    session.shutdown();
    session.receive(b"cd");
    assert!(session.reason().is_none(), "{:?}", session.reason());
}

struct Plus;

impl FrameProtocol for Plus {
    type Framing = Delimited;

    fn frame_received(
        &mut self,
        _: &[u8],
        frames: &mut FrameTransport<'_, Delimited>,
    ) -> Result<(), ProtocolError> {
        frames.transport().write(b"+");
        Ok(())
    }
}

#[test]
fn a_long_delimiter_at_the_limit_does_not_depend_on_the_cut() {
    const DELIMITER: &[u8; 16] = b"0123456789abcdef";
    for (length, reply, fails) in [(100, "+", false), (101, "", true)] {
        let stream = [&vec![b'-'; length], &DELIMITER[..]].concat();
        for cut in 0..=stream.len() {
            let config = Config {
                limits: Limits {
                    max_frame: 100,
                    ..Limits::default()
                },
                ..Config::default()
            };
            let framed = Framed::new(Delimited::new(*DELIMITER, 100), Plus);
            let mut session = MemorySession::with_config(framed, config);
            session.receive(&stream[..cut]);
            session.receive(&stream[cut..]);
            assert_eq!(session.sent(), reply.as_bytes(), "{length} cut at {cut}");
            assert_eq!(session.reason().is_some(), fails, "{length} cut at {cut}");
        }
    }
}

#[test]
fn a_unix_datagram_of_more_than_64_kib_is_dropped_and_counted() {
    for model in Model::ALL {
        let scratch = Scratch::new();
        let at = scratch.uri("unixgram", "socket");
        let config = Config {
            receive_buffer: Some(1 << 20),
            ..timeless()
        };
        let server = ModelServer::new(model, &[&at], config, |_: &Peer| Some(Echo));
        let mut client = datagrams(&server.addresses[0], &scratch.path("client"));
        client.set_send_buffer_size(1 << 20).unwrap();
        let bytes = noise(100_000);
        for length in [100_000, 65_537] {
            client.send(&bytes[..length]).unwrap();
        }
        echoes(&mut client, b"small");
        let statistics = server.end();
        let counts = (
            statistics.datagrams_received,
            statistics.datagrams_dropped,
            statistics.datagrams_sent,
        );
        assert_eq!(counts, (3, 2, 1), "{model:?}");
    }
}

/// A loop with two datagram sockets of which the test says what they bring.
fn scripted(script: &Script) -> Reactor<impl Factory<Protocol = Echo>, Scripted> {
    let net = Scripted::new(script);
    let mut reactor = Reactor::with_net(net, |_: &Peer| Some(Echo), timeless()).unwrap();
    for at in ["udp://127.0.0.1:1", "udp://127.0.0.1:2"] {
        reactor.listen(&at.parse().unwrap()).unwrap();
    }
    reactor
}

#[test]
fn a_datagram_socket_that_fails_is_closed_alone() {
    let script = Script::default();
    let mut reactor = scripted(&script);
    script.then(0, Act::Fails(libc::ENOTSOCK));
    script.then(1, Act::Datagram(b"one".to_vec()));
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(script.closed(), [0]);
    assert_eq!(script.sent(), [(1, b"one".to_vec())]);
    assert_eq!(reactor.timeout(), None, "nothing is tried again and again");
    assert!(!reactor.is_finished());
}

#[test]
fn the_last_datagram_socket_that_fails_ends_the_loop_with_its_error() {
    let script = Script::default();
    let mut reactor = scripted(&script);
    script.then(0, Act::Fails(libc::ENOTSOCK));
    script.then(1, Act::Fails(libc::EBADF));
    let error = reactor.run().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    assert_eq!(script.closed(), [0, 1]);
}

#[test]
fn without_memory_to_receive_a_datagram_socket_pauses() {
    let script = Script::default();
    let mut reactor = scripted(&script);
    script.then(0, Act::Fails(libc::ENOMEM));
    script.then(0, Act::Datagram(b"after".to_vec()));
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(reactor.timeout(), Some(timeless().accept_pause));
    assert_eq!((script.sent(), script.closed()), (vec![], vec![]));
    // The second turn waits for the end of the pause.
    reactor.turn(None).unwrap();
    assert_eq!(script.sent(), [(0, b"after".to_vec())]);
}

/// A server of threads whose one handler hangs; drop the sender to let it go.
struct Hung {
    server: thread::JoinHandle<std::io::Result<Statistics>>,
    handle: ShutdownHandle,
    client: Socket,
    release: mpsc::Sender<()>,
}

fn hung(drain_timeout: Option<Duration>) -> Hung {
    let (sender, begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let factory = move |_: &Peer| {
        let (sender, released) = (sender.clone(), Arc::clone(&released));
        Some(probe().data(move |data, _| {
            sender.send(()).unwrap();
            // Fails when the test is over.
            let _ = released.lock().unwrap().recv();
            Ok(data.len())
        }))
    };
    let config = Config {
        drain_timeout,
        ..timeless()
    };
    let server = bind(Model::Threading, &[TCP], config);
    let (mut client, handle) = (connect(&server.addresses()[0]), server.shutdown_handle());
    let server = thread::spawn(move || server.serve_threading(factory));
    client.write_all(b"x").unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    Hung {
        server,
        handle,
        client,
        release,
    }
}

#[test]
fn a_thread_that_hangs_is_given_up_without_a_spin() {
    // The drain ends by its time, or by the second request.
    for (drain_timeout, requests) in [(Some(millis(100)), 1), (None, 2)] {
        let mut hung = hung(drain_timeout);
        let began = Instant::now();
        (0..requests).for_each(|_| hung.handle.shutdown());
        let statistics = hung.server.join().unwrap().unwrap();
        assert!(began.elapsed() < PROMPT, "{requests} requests");
        assert_eq!(statistics.closed_timeout_drain, 1, "{requests} requests");
        // It looks again every ten milliseconds, for the drain and a second more.
        assert!(statistics.turns < 400, "{} turns", statistics.turns);
        drop(hung.release);
        assert_eq!(read_to(&mut hung.client).0, b"");
    }
}

#[test]
fn who_sends_without_end_is_cut_off_by_the_drain() {
    for model in Model::ALL {
        let config = Config {
            drain_timeout: Some(millis(100)),
            ..timeless()
        };
        let stubborn = |_: &Peer| Some(probe().shutdown(|_| ()));
        let server = ModelServer::new(model, &[TCP], config, stubborn);
        let mut client = server.client();
        client.write_all(b"x").unwrap();
        let sender = thread::spawn(move || while client.write(&[0; 1 << 16]).is_ok() {});
        let began = Instant::now();
        assert_eq!(server.end().closed_timeout_drain, 1, "{model:?}");
        sender.join().unwrap();
        assert!(began.elapsed() < PROMPT, "{model:?}");
    }
}

/// Each wake is asked for from inside the call that the last one was.
#[test]
fn a_wake_during_a_wake_is_not_lost_by_a_thread() {
    const WAKES: u32 = 20_000;
    let (sender, wakers) = mpsc::channel::<Waker>();
    let factory = move |_: &Peer| {
        let (first, next) = (sender.clone(), sender.clone());
        let made = move |transport: &mut Transport<'_>| {
            first.send(transport.waker()).unwrap();
            Ok(())
        };
        // Fails when the test has had enough.
        let woken = move |transport: &mut Transport<'_>| drop(next.send(transport.waker()));
        Some(probe().made(made).woken(woken))
    };
    let server = ModelServer::new(Model::Threading, &[TCP], timeless(), factory);
    let client = server.client();
    for wake in 0..WAKES {
        let waker = wakers.recv_timeout(PATIENCE).unwrap();
        (0..wake % 400).for_each(|_| std::hint::spin_loop());
        waker.wake();
    }
    finish(&client);
    server.end();
}

#[test]
fn a_drop_that_panics_spares_the_server() {
    for model in Model::ALL {
        let dropping = |_: &Peer| Some(probe().dropped(|| panic_quietly()));
        let server = ModelServer::new(model, &[TCP], timeless(), dropping);
        for _ in 0..3 {
            let mut client = server.client();
            finish(&client);
            assert_eq!(read_to(&mut client).1, End::Eof, "{model:?}");
        }
        let statistics = server.end();
        assert_eq!(
            (statistics.closed_by_peer, statistics.panics),
            (3, 3),
            "{model:?}"
        );
    }
}

/// Clients that wait in the queue share the rest of the drain's time.
#[test]
fn a_sequential_drain_has_one_deadline_for_all() {
    let config = Config {
        drain_timeout: Some(millis(500)),
        limits: Limits {
            linger_timeout: None,
            ..timeless().limits
        },
        ..timeless()
    };
    let stubborn = |_: &Peer| Some(probe().shutdown(|_| ()));
    let server = bind(Model::Sequential, &[TCP], config);
    let clients: Vec<_> = (0..12).map(|_| connect(&server.addresses()[0])).collect();
    let server = ModelServer::with(Model::Sequential, server, stubborn);
    let began = Instant::now();
    assert_eq!(server.end().closed_timeout_drain, 12);
    assert!(began.elapsed() < seconds(3), "{:?}", began.elapsed());
    drop(clients);
}

/// In time of its own: a deadline that is put off by what comes in would never be reached.
#[test]
fn a_flood_during_the_drain_does_not_put_off_the_write_deadline() {
    let script = Script::default();
    script.flood();
    let log = Log::default();
    let shared = log.clone();
    let factory = move |_: &Peer| {
        let made = |transport: &mut Transport<'_>| {
            transport.write(b"this is never read");
            Ok(())
        };
        Some(
            Probe::new(&shared)
                .made(made)
                .data(|data, _| Ok(data.len()))
                .shutdown(|_| ()),
        )
    };
    let config = Config {
        drain_timeout: Some(seconds(60)),
        limits: Limits {
            write_timeout: Some(seconds(1)),
            ..timeless().limits
        },
        ..timeless()
    };
    let mut reactor = Reactor::with_net(Scripted::new(&script), factory, config).unwrap();
    reactor.listen(&TCP.parse().unwrap()).unwrap();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    reactor.shutdown();
    reactor.run().unwrap();
    assert_eq!(log.count("shutdown"), 1);
    assert_eq!(reactor.statistics().closed_timeout_write, 1);
    // A turn takes a millisecond here.
    assert!(
        reactor.statistics().turns < 2_000,
        "{}",
        reactor.statistics().turns
    );
}

/// Rings a bell that looks at the mailbox.
#[derive(Default)]
struct Nosy {
    mailbox: Mutex<Weak<Mailbox>>,
    seen: AtomicUsize,
}

struct Ring(Arc<Nosy>);

impl Wake for Ring {
    fn wake(&self) {
        if let Some(mailbox) = self.0.mailbox.lock().unwrap().upgrade() {
            let woken = mailbox.take().count();
            self.0.seen.fetch_add(woken, Ordering::SeqCst);
        }
    }
}

#[test]
fn a_mailbox_that_is_half_emptied_takes_wakes_again() {
    let nosy = Arc::<Nosy>::default();
    let mailbox = Mailbox::new(Box::new(Ring(Arc::clone(&nosy))));
    let wakers = [mailbox.waker(1), mailbox.waker(2)];
    for _ in 0..3 {
        wakers.iter().for_each(Waker::wake);
        assert_eq!(mailbox.take().next(), Some(1));
    }
    wakers.iter().for_each(Waker::wake);
    assert_eq!(mailbox.take().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn who_ends_a_wait_may_look_into_the_mailbox() {
    let nosy = Arc::<Nosy>::default();
    let mailbox = Mailbox::new(Box::new(Ring(Arc::clone(&nosy))));
    *nosy.mailbox.lock().unwrap() = Arc::downgrade(&mailbox);
    let (done, finished) = mpsc::channel();
    let waker = mailbox.waker(7);
    let waking = thread::spawn(move || {
        (0..3).for_each(|_| waker.wake());
        done.send(()).unwrap();
    });
    finished.recv_timeout(PATIENCE).unwrap();
    waking.join().unwrap();
    assert_eq!(nosy.seen.load(Ordering::SeqCst), 3);
}

#[test]
fn one_path_is_bound_once() {
    let scratch = Scratch::new();
    for kind in ["unix", "unixgram"] {
        let uri = scratch.uri(kind, "socket");
        let at: Address = uri.parse().unwrap();
        // Twice for one server, of which nothing stays, and once more next to one that does not listen.
        let twice = Server::bind(&[at.clone(), at.clone()], Config::default()).unwrap_err();
        let first = Server::bind_only(std::slice::from_ref(&at), timeless()).unwrap();
        let second = Server::bind_only(std::slice::from_ref(&at), timeless()).unwrap_err();
        for error in [twice, second] {
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{kind}");
            assert!(error.to_string().contains(&uri), "{error}");
        }
        first.activate().unwrap();
        let server = ModelServer::with(Model::EventLoop, first, |_: &Peer| Some(Echo));
        if kind == "unix" {
            echoes(&mut server.client(), b"still mine");
        } else {
            echoes(&mut datagrams(&at, &scratch.path("client")), b"still mine");
        }
        server.end();
        assert!(!scratch.path("socket").exists(), "{kind}");
        // What is given back can be bound again.
        drop(Server::bind(&[at], Config::default()).unwrap());
    }
}

#[test]
fn what_a_peer_had_a_part_in_is_short_and_on_one_line() {
    let nasty = format!("\u{1b}[2J\r\n\u{202e}{}", "\u{e9}\0".repeat(10_000));
    let reasons = [
        CloseReason::Protocol(ProtocolError::other(nasty.clone())),
        CloseReason::Protocol(ProtocolError::malformed(nasty.clone())),
        CloseReason::Io(std::io::Error::other(nasty.clone())),
        CloseReason::ConnectFailed(std::io::Error::other(nasty.clone())),
        CloseReason::Process(nasty),
    ];
    for reason in reasons {
        let line = reason.to_string();
        assert!(
            line.contains("\\u{1b}[2J\\r\\n\\u{202e}\u{e9}\\0"),
            "{line}"
        );
        assert!(line.ends_with("..."), "{line}");
        assert!(!line.contains(|c: char| c.is_control()), "{line}");
        assert!(line.len() <= 256 + 40, "{} bytes: {line}", line.len());
    }
    for length in [0, 255, 256] {
        let whole = "x".repeat(length);
        assert_eq!(ProtocolError::other(whole.clone()).to_string(), whole);
    }
    let cut = ProtocolError::other("x".repeat(257)).to_string();
    assert_eq!(cut, format!("{}...", "x".repeat(253)));
    let text = "isn't \"it\"";
    assert_eq!(ProtocolError::other(text).to_string(), text);
}

/// The first message was not owed while the greeting waited; that it was owed again went unnoticed.
#[test]
fn a_greeting_as_long_as_the_high_mark_does_not_switch_the_first_deadline_off() {
    for model in Model::ALL {
        let config = Config {
            limits: Limits {
                first_message_timeout: Some(millis(50)),
                high_water: 8,
                low_water: 4,
                ..timeless().limits
            },
            ..timeless()
        };
        let greet = |transport: &mut Transport<'_>| {
            transport.write(b"a long greeting");
            Ok(())
        };
        let server = ModelServer::new(model, &[TCP], config, move |_: &Peer| {
            Some(probe().made(greet))
        });
        let (got, end) = read_to(&mut server.client());
        assert_eq!((&got[..], end), (&b"a long greeting"[..], End::Eof));
        assert_eq!(server.end().closed_timeout_first_message, 1, "{model:?}");
    }
}
