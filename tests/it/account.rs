//! The account of what connections keep: what is added is what is subtracted.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serveloop::{Address, Config, Factory, Peer, Reactor};

use crate::probe::{Log, Probe};
use crate::support::{PATIENCE, client, millis, noise, panic_quietly, timeless};

fn listening<F: Factory>(config: Config, factory: F) -> (Reactor<F>, Address) {
    let mut reactor = Reactor::new(factory, config).unwrap();
    let at = "tcp://127.0.0.1:0".parse().unwrap();
    let address = reactor.listen(&at).unwrap();
    (reactor, address)
}

#[track_caller]
fn turn_until<F: Factory>(reactor: &mut Reactor<F>, done: impl Fn(&Reactor<F>) -> bool) {
    let begin = Instant::now();
    while !done(reactor) {
        assert!(begin.elapsed() < PATIENCE, "{:?}", reactor.statistics());
        reactor.turn(Some(millis(20))).unwrap();
    }
}

/// "big" is answered by 900 kB, and then the next question about time is answered by a panic.
fn nervous() -> Probe {
    let alarmed = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&alarmed);
    let reply = noise(900_000);
    Probe::new(&Log::default())
        .data(move |data, transport| match data {
            b"big" => {
                transport.write(&reply);
                alarmed.store(true, Ordering::SeqCst);
                Ok(3)
            }
            b"whole" => {
                transport.write(b"fine");
                Ok(5)
            }
            _ => Ok(0),
        })
        .poll(move || {
            if asked.load(Ordering::SeqCst) {
                panic_quietly();
            }
            None
        })
}

#[test]
fn a_panic_while_output_waits_leaves_nothing_in_the_account() {
    let config = Config {
        send_buffer: Some(20_000),
        max_output: 1 << 20,
        max_buffered: 4 << 20,
        high_water: 1 << 20,
        low_water: 1,
        ..timeless()
    };
    let (mut reactor, address) = listening(config, |_: &Peer| Some(nervous()));
    for count in 1..=9 {
        let mut stream = client(&address);
        stream.write_all(b"big").unwrap();
        turn_until(&mut reactor, |it| it.statistics().closed_panicked == count);
        assert_eq!(reactor.buffered(), 0, "after {count}");
        drop(stream);
    }
    // An innocent client keeps the beginning of a message, and pays for nobody.
    let mut innocent: TcpStream = client(&address);
    innocent.write_all(b"who").unwrap();
    turn_until(&mut reactor, |it| it.buffered() > 0);
    let held = reactor.buffered();
    assert!(held < 1_000, "{held} bytes");
    innocent
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    innocent.write_all(b"le").unwrap();
    turn_until(&mut reactor, |it| it.statistics().bytes_read == 9 * 3 + 5);
    turn_until(&mut reactor, |it| it.buffered() == 0);
    let mut reply = [0; 4];
    innocent.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"fine");
    assert_eq!(reactor.statistics().closed_shed, 0);
}

/// Every way for a connection to end while it keeps something.
#[test]
fn nothing_is_left_in_the_account_however_a_connection_ends() {
    let config = Config {
        send_buffer: Some(20_000),
        high_water: 1 << 20,
        max_output: 1 << 20,
        low_water: 1,
        linger_timeout: None,
        ..timeless()
    };
    let factory = |_: &Peer| {
        let reply = noise(900_000);
        Some(Probe::new(&Log::default()).data(move |data, transport| {
            match data {
                b"panic" => panic_quietly(),
                b"abort" => transport.abort(),
                b"close" => transport.close(),
                b"finish" => transport.finish(),
                b"write" => transport.write(&reply),
                b"too much" => {
                    transport.write(&reply);
                    transport.write(&reply);
                }
                _ => return Ok(0),
            }
            Ok(data.len())
        }))
    };
    let (mut reactor, address) = listening(config, factory);
    let ways: [&[u8]; 6] = [
        b"panic",
        b"abort",
        b"close",
        b"finish",
        b"too much",
        b"part",
    ];
    for (count, way) in (1..).zip(ways) {
        let mut stream = client(&address);
        stream.write_all(b"write").unwrap();
        turn_until(&mut reactor, |it| it.buffered() > 0);
        stream.write_all(way).unwrap();
        let read = reactor.statistics().bytes_read;
        if way != b"too much" {
            turn_until(&mut reactor, |it| it.statistics().bytes_read > read);
        }
        drop(stream);
        turn_until(&mut reactor, |it| it.statistics().closed() == count);
        turn_until(&mut reactor, |it| it.connections() == 0);
        let way = way.escape_ascii();
        assert_eq!(reactor.buffered(), 0, "{way}");
    }
}
