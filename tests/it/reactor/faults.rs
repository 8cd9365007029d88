//! A fault of a peer or a protocol affects only its own connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, LengthPrefix};
use serveloop::protocols::Echo;
use serveloop::{
    Actions, Config, Ended, Factory, Limits, Peer, Protocol, ProtocolError, Server, Transport,
};
use socket2::SockRef;

use crate::support::probe::{Log, Probe};
use crate::support::{
    PATIENCE, Serving, client, echoes, expect, millis, noise, panic_quietly, read_to_end, seconds,
    timeless,
};

/// Closes a connection with a reset.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(millis(0))).unwrap();
    drop(stream);
}

#[test]
fn resets_in_mid_transfer_leave_the_others_alone() {
    const RESETS: u64 = 200;
    let serving = Serving::tcp(Config::default(), |_: &Peer| Some(Echo));
    let mut steady: Vec<_> = (0..5).map(|_| serving.client()).collect();
    let bytes = noise(100_000);
    for number in 0..RESETS {
        let mut victim = serving.client();
        // Some have replies under way, some unread in their own buffers, some said nothing yet.
        let length = usize::try_from(number % 4).unwrap() * 25_000;
        victim.write_all(&bytes[..length]).unwrap();
        if number % 3 == 0 && length > 0 {
            expect(&mut victim, &bytes[..10]);
        }
        reset(victim);
        let stream = &mut steady[usize::try_from(number).unwrap() % 5];
        echoes(stream, &bytes[..3_000]);
    }
    let statistics = serving.wait(|statistics| statistics.closed() >= RESETS);
    assert_eq!(statistics.accepted, RESETS + 5);
    assert_eq!(
        statistics.accepted,
        statistics.closed() + 5,
        "{statistics:?}"
    );
    assert!(statistics.closed_io > RESETS / 2, "{statistics:?}");
    drop(steady);
    assert_eq!(serving.end().stale_events, 0);
}

/// Echoes, and notes how much output ever waited.
struct Measured(Arc<AtomicUsize>);

impl Protocol for Measured {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        transport.write(data);
        self.0.fetch_max(transport.waiting(), Ordering::Relaxed);
        Ok(data.len())
    }
}

#[test]
fn a_client_that_never_reads_costs_little_and_not_for_ever() {
    let config = Config {
        limits: Limits {
            write_timeout: Some(millis(300)),
            ..Limits::default()
        },
        ..Config::default()
    };
    let most = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&most);
    let serving = Serving::tcp(config, move |_: &Peer| Some(Measured(Arc::clone(&shared))));
    let mut bystander = serving.client();
    let mut glutton = serving.client();
    let writer = thread::spawn(move || {
        let block = [0; 100_000];
        while glutton.write_all(&block).is_ok() {}
    });
    while !writer.is_finished() {
        echoes(&mut bystander, b"still there?");
    }
    writer.join().unwrap();
    let statistics = serving.wait(|statistics| statistics.closed() == 1);
    assert_eq!(statistics.closed_timeout_write, 1, "{statistics:?}");
    // What waits below the high mark, and the answer to one read of 128 KiB.
    let allowed = (64 << 10) + (128 << 10);
    let waited = most.load(Ordering::Relaxed);
    assert!(waited > 0 && waited <= allowed, "{waited} bytes waited");
    let kept = statistics.bytes_read - statistics.bytes_written;
    assert!(
        kept <= allowed as u64,
        "{kept} bytes were read beyond what was written"
    );
    drop(bystander);
    serving.end();
}

/// Deadlines run though input comes without a pause.
#[test]
fn a_flood_does_not_hold_up_a_protocols_timeout() {
    struct Meter(Option<Instant>, Arc<AtomicBool>);
    impl Protocol for Meter {
        fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
            self.0 = Some(transport.now() + millis(20));
            Ok(())
        }

        fn data_received(
            &mut self,
            data: &[u8],
            _: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            Ok(data.len())
        }

        fn poll_timeout(&self) -> Option<Instant> {
            self.0
        }

        fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
            self.1.store(true, Ordering::Relaxed);
            self.0 = None;
            transport.close();
        }
    }
    let config = Config {
        read_per_turn: 256,
        ..Config::default()
    };
    let fired = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&fired);
    let serving = Serving::tcp(config, move |_: &Peer| {
        Some(Meter(None, Arc::clone(&shared)))
    });
    let mut stream = serving.client();
    let block = [0; 64 << 10];
    let begin = Instant::now();
    while !fired.load(Ordering::Relaxed) && begin.elapsed() < seconds(3) {
        if stream.write_all(&block).is_err() {
            break;
        }
    }
    assert!(fired.load(Ordering::Relaxed), "no timeout during the flood");
}

/// Where a connection's protocol panics; its number is that of the connection.
const PLACES: [&str; 10] = [
    "made", "data", "eof", "resume", "timeout", "poll", "woken", "shutdown", "lost", "drop",
];

fn bomb(place: &'static str, log: &Log) -> Probe {
    let at = move |here: &str| {
        if here == place {
            panic_quietly()
        }
    };
    let due = Arc::new(Mutex::new(None));
    let shared = Arc::clone(&due);
    Probe::new(log)
        .made(move |_| {
            at("made");
            Ok(())
        })
        .data(move |data, transport| {
            at("data");
            transport.write(b"ok");
            if place == "woken" {
                transport.waker().wake();
            }
            if place == "poll" || place == "timeout" {
                *due.lock().unwrap() = Some(transport.now());
            }
            if place == "resume" {
                transport.write(&[0; 65_536]);
            }
            Ok(data.len())
        })
        .eof(move |_, transport| {
            at("eof");
            transport.close();
            Ok(())
        })
        .resume(move |_| at("resume"))
        .woken(move |_| at("woken"))
        .timeout(move |_| at("timeout"))
        .shutdown(move |transport| {
            at("shutdown");
            transport.close();
        })
        .poll(move || {
            let due = *shared.lock().unwrap();
            if due.is_some() {
                at("poll");
            }
            due
        })
        .lost(move || at("lost"))
        .dropped(move || at("drop"))
}

#[test]
fn a_panic_anywhere_ends_its_own_connection_only() {
    let log = Log::default();
    let shared = log.clone();
    let mut places = std::iter::once("nowhere").chain(PLACES).cycle();
    let serving = Serving::tcp(timeless(), move |_: &Peer| {
        Some(bomb(places.next()?, &shared))
    });
    let mut bystander = serving.client();
    let mut open = Vec::new();
    for (number, place) in (1..).zip(PLACES) {
        let mut stream = serving.client();
        if place == "shutdown" {
            open.push(stream);
            continue;
        }
        // A server that has panicked already resets what comes.
        let _ = stream.write_all(b"x");
        if matches!(place, "eof" | "lost" | "drop") {
            expect(&mut stream, b"ok");
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let mut rest = Vec::new();
        // An end or a reset, but no silence: a read that timed out would be WouldBlock.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{place}");
        }
        serving.wait(|statistics| statistics.closed() + open.len() as u64 == number);
        bystander.write_all(b"x").unwrap();
        expect(&mut bystander, b"ok");
    }
    serving.wait(|statistics| statistics.panics == PLACES.len() as u64 - 1);
    serving.handle.shutdown();
    let mut serving = serving;
    let statistics = serving.join();
    assert_eq!(statistics.panics, PLACES.len() as u64, "{statistics:?}");
    let all = PLACES.len() + 1;
    assert_eq!(statistics.accepted, all as u64);
    assert_eq!(statistics.closed(), all as u64, "{statistics:?}");
    assert_eq!(log.count("lost"), all, "{:?}", log.entries());
}

/// A factory whose hooks panic as long as they may.
struct Clumsy {
    builds: u32,
    actions: u32,
}

impl Factory for Clumsy {
    type Protocol = Echo;

    fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
        self.builds += 1;
        match self.builds {
            1 => panic_quietly(),
            2 => None,
            _ => Some(Echo),
        }
    }

    fn handle_error(&mut self, _: &Ended<'_>) {
        panic_quietly()
    }

    fn service_actions(&mut self, _: &mut Actions<'_, Echo>) {
        self.actions += 1;
        if self.actions <= 3 {
            panic_quietly()
        }
    }
}

#[test]
fn panics_and_refusals_of_the_factory_are_contained() {
    let factory = Clumsy {
        builds: 0,
        actions: 0,
    };
    let serving = Serving::tcp_with_factory(Config::default(), factory);
    assert_eq!(
        read_to_end(&mut serving.client()),
        b"",
        "refused by a panic"
    );
    assert_eq!(read_to_end(&mut serving.client()), b"", "refused by None");
    let mut stream = serving.client();
    echoes(&mut stream, b"the third gets in");
    reset(stream);
    let statistics = serving.wait(|statistics| statistics.closed_io == 1);
    assert_eq!(statistics.refused_by_panic, 1);
    assert_eq!(statistics.refused_by_factory, 1);
    echoes(&mut serving.client(), b"and the next");
    // One in build_protocol, one in handle_error, three in service_actions.
    assert_eq!(serving.end().panics, 5);
}

#[test]
fn the_factory_hears_of_errors_but_not_of_orderly_ends() {
    let serving = Serving::tcp(Config::default(), |_: &Peer| {
        Some(Probe::new(&Log::default()).data(|data, _| match data {
            b"bad" => Err(ProtocolError::malformed("on purpose")),
            data => Ok(data.len()),
        }))
    });
    serving.client().shutdown(Shutdown::Write).unwrap();
    let mut bad = serving.client();
    bad.write_all(b"bad").unwrap();
    assert_eq!(read_to_end(&mut bad), b"");
    let errors = serving.errors.clone();
    drop(bad);
    serving.end();
    assert_eq!(errors.entries(), ["protocol error: malformed: on purpose"]);
}

/// Unread input must not destroy the reply that is on its way.
#[test]
fn the_last_reply_arrives_though_more_was_sent_than_was_read() {
    const EXTRA: usize = 1 << 20;
    let config = Config {
        limits: Limits {
            linger_bytes: 2 * EXTRA,
            ..Limits::default()
        },
        ..Config::default()
    };
    let reply = noise(50_000);
    let expected = reply.clone();
    let serving = Serving::tcp(config, move |_: &Peer| {
        let reply = reply.clone();
        Some(Probe::new(&Log::default()).data(move |_, transport| {
            transport.write(&reply);
            transport.close();
            Ok(1)
        }))
    });
    let request = noise(EXTRA + 1);
    for _ in 0..100 {
        let mut stream = serving.client();
        stream.write_all(&request).unwrap();
        assert!(read_to_end(&mut stream) == expected);
    }
    assert_eq!(serving.end().closed_by_protocol, 100);
}

#[test]
fn nobody_lingers_beyond_the_limits() {
    let config = Config {
        limits: Limits {
            linger_bytes: 100_000,
            linger_timeout: Some(millis(100)),
            ..Limits::default()
        },
        ..Config::default()
    };
    let serving = Serving::tcp(config, |_: &Peer| {
        Some(Probe::new(&Log::default()).data(|_, transport| {
            transport.close();
            Ok(1)
        }))
    });
    // One client sends nothing more and never ends its side: the server does not wait without end.
    let mut silent = serving.client();
    silent.write_all(b"x").unwrap();
    assert_eq!(read_to_end(&mut silent), b"");
    // Another one never stops sending.
    let mut flooding = serving.client();
    let begin = Instant::now();
    while flooding.write_all(&[0; 10_000]).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "the server still takes it");
    }
    let statistics = serving.wait(|statistics| statistics.closed() == 2);
    assert_eq!(statistics.closed_by_protocol, 2);
    while silent.write_all(&[0; 1_000]).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "the server still takes it");
    }
}

/// Says what was wrong before the connection ends.
struct Polite;

impl FrameProtocol for Polite {
    type Framing = LengthPrefix;

    fn frame_received(
        &mut self,
        frame: &[u8],
        frames: &mut FrameTransport<'_, LengthPrefix>,
    ) -> Result<(), ProtocolError> {
        frames.send(frame)
    }

    fn input_rejected(
        &mut self,
        error: &ProtocolError,
        frames: &mut FrameTransport<'_, LengthPrefix>,
    ) {
        let kind = match error {
            ProtocolError::TooLong { .. } => "too long",
            ProtocolError::Truncated { .. } => "truncated",
            _ => "malformed",
        };
        let _ = frames.send(kind.as_bytes());
    }
}

#[test]
fn lengths_that_cannot_be_are_answered_and_then_the_connection_ends() {
    let serving = Serving::tcp(Config::default(), |_: &Peer| {
        Some(Framed::new(LengthPrefix::u32(1_024), Polite))
    });
    let lengths = [u32::MAX, 1 << 31, (1 << 31) + 5, 1_025];
    for length in lengths {
        let mut stream = serving.client();
        stream.write_all(b"\0\0\0\x02ok").unwrap();
        stream.write_all(&length.to_be_bytes()).unwrap();
        stream.write_all(&noise(5_000)).unwrap();
        let reply = b"\0\0\0\x02ok\0\0\0\x08too long";
        assert_eq!(read_to_end(&mut stream), reply, "{length:#x}");
    }
    let mut cut = serving.client();
    cut.write_all(b"\0\0\0\x02o").unwrap();
    cut.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut cut), b"\0\0\0\x09truncated");
    let statistics = serving.end();
    assert_eq!(statistics.closed_too_long, lengths.len() as u64);
    assert_eq!(statistics.closed_truncated, 1);
}

#[test]
fn an_abort_is_a_reset_and_a_close_is_not() {
    let serving = Serving::tcp(Config::default(), |_: &Peer| {
        Some(Probe::new(&Log::default()).data(|data, transport| {
            transport.write(b"bye");
            match data {
                b"abort" => transport.abort(),
                _ => transport.close(),
            }
            Ok(data.len())
        }))
    });
    let mut aborted = serving.client();
    aborted.write_all(b"abort").unwrap();
    let error = aborted.read(&mut [0; 9]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let mut closed = serving.client();
    closed.write_all(b"close").unwrap();
    assert_eq!(read_to_end(&mut closed), b"bye");
    drop(closed);
    let statistics = serving.end();
    let ends = (statistics.closed_aborted, statistics.closed_by_protocol);
    assert_eq!(ends, (1, 1));
}

/// A read ends at an urgent byte, which the system keeps out of the stream, as if nothing followed.
#[test]
fn an_urgent_byte_stops_nothing() {
    let at = ["tcp://127.0.0.1:0".parse().unwrap()];
    let server = Server::bind(&at, timeless()).unwrap();
    let mut stream = client(&server.addresses()[0]);
    let send = |stream: &mut TcpStream| {
        stream.write_all(b"before").unwrap();
        SockRef::from(&*stream).send_out_of_band(b"!").unwrap();
        stream.write_all(b"after").unwrap();
    };
    // All of it is there when the connection is accepted: no other event comes.
    send(&mut stream);
    let serving = Serving::with(server, |_: &Peer| Some(Echo));
    expect(&mut stream, b"beforeafter");
    for _ in 0..50 {
        send(&mut stream);
        expect(&mut stream, b"beforeafter");
    }
    drop(stream);
    let statistics = serving.end();
    assert!(statistics.turns < 1_000, "{statistics:?}");
}
