//! Clients that stop within the handshake. `cargo bench --bench faults -- handshakes` has ten thousand of
//! them, and tells what they cost the others.

use std::net::SocketAddr;
use std::thread;

use rustix::process::Signal;

use crate::serving::crowd::make_room;
use crate::serving::judges::client::Client;
use crate::serving::judges::{MODELS, closed, is_full, listener};
use crate::support::memory::kib;
use crate::support::outside::skip;
use crate::support::secure::certificate;
use crate::support::served::Served;
use crate::support::sockets::{Stream, socket_addr};

/// The most memory that one of them may cost an event loop.
const KIB_EACH: usize = 12;

/// How far a client comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// After a byte of its hello.
    FirstByte,
    /// After a half of its hello.
    Half,
    /// After its hello: the server has answered with its certificate.
    Hello,
}

const STOPS: [Stop; 3] = [Stop::FirstByte, Stop::Half, Stop::Hello];

#[test]
fn a_crowd_that_stops_within_the_handshake_ends_at_the_deadline() {
    let most = if is_full() { 1_500 } else { 150 };
    if !make_room(4 * most) {
        skip("room for the descriptors of a crowd in each model");
        return;
    }
    thread::scope(|scope| {
        for model in MODELS {
            // A process for each client is too much for more.
            let is_forking = model.last() == Some(&"forking");
            let count = if is_forking { 150 } else { most };
            scope.spawn(move || stall(model, count as usize));
        }
    });
}

/// Has `count` clients stop, while others come and go.
#[track_caller]
fn stall(model: &[&str], count: usize) {
    let listen = ["echo", "--listen", &listener(""), "-v"];
    let limits = ["--handshake-timeout", "5s", "--max-children"];
    let children = [&*(count + 10).to_string()];
    let limits: &[&[&str]] = match model.last() {
        Some(&"forking") => &[&limits, &children],
        _ => &[&limits[..2]],
    };
    let served = Served::new(&[&listen, model, &limits.concat()].concat());
    let to = socket_addr(served.uri(0));
    let client = Client::new(certificate("authority.pem"));
    client.visit(to).expect("a server");
    let before = kib(served.process_id(), "VmRSS");

    let hello = client.hello();
    let stops = || STOPS.into_iter().cycle().take(count);
    let mut stopped: Vec<_> = stops().map(|stop| begin(to, &hello, stop)).collect();
    for _ in 0..10 {
        client.visit(to).expect("a place next to the crowd");
    }
    let after = kib(served.process_id(), "VmRSS");

    for (stream, stop) in stopped.iter_mut().zip(stops()) {
        let rest = stream.receive_rest();
        // What the server had to say before it waited.
        assert_eq!(rest.is_empty(), stop != Stop::Hello, "{stop:?}");
    }
    client.visit(to).expect("a place after the crowd");

    served.signal(Signal::TERM);
    let log = served.status_and_log();
    let late = "timed out: the handshake was not completed in time";
    let late = log.iter().filter(|line| line.contains(late)).count();
    assert_eq!(late, count, "{model:?}");
    let last = log.last().expect("its counters");
    let timed_out = format!("closed_timeout_handshake {count}");
    assert_eq!(closed(last), ["closed_by_peer 12", &timed_out], "{model:?}");
    if let (true, Some(before), Some(after)) = (model.is_empty(), before, after) {
        let grown = after.saturating_sub(before);
        println!("{count} clients: {grown} KiB");
        assert!(grown <= KIB_EACH * count, "{grown} KiB for {count}");
    }
}

/// Connects, and sends as much of `hello` as this client ever sends.
#[track_caller]
fn begin(to: SocketAddr, hello: &[u8], stop: Stop) -> Stream {
    let count = match stop {
        Stop::FirstByte => 1,
        Stop::Half => hello.len() / 2,
        Stop::Hello => hello.len(),
    };
    let mut stream = Stream::connect(&format!("tcp://{to}"));
    stream.send_bytes(&hello[..count]);
    stream
}
