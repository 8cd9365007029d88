//! Open connections go on in the new process, and their clients notice nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::restart::{Over, Site};
use crate::serving::crowd::make_room;
use crate::support::outside::skip;
use crate::support::scripts::noise;
use crate::support::served::{Outcome, PATIENCE};
use crate::support::sockets::{Directory, Stream, path_of, socket_addr};

/// The connections that survive, and how many restarts.
const CLIENTS: usize = 1_000;
const RESTARTS: usize = 20;

trait Both: Read + Write + Send {}
impl<T: Read + Write + Send> Both for T {}

fn connect(uri: &str) -> Box<dyn Both> {
    if uri.starts_with("unix") {
        let stream = UnixStream::connect(path_of(uri)).expect("a listener");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Box::new(stream)
    } else {
        let stream = TcpStream::connect(socket_addr(uri)).expect("a listener");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Box::new(stream)
    }
}

/// Sends and receives until it is told to end. Each byte has to come back in order.
fn talk(clients: &mut [Box<dyn Both>], seed: usize, is_over: &AtomicBool, rounds: &AtomicUsize) {
    let bytes = noise(70_000);
    let mut round = seed;
    while !is_over.load(Ordering::SeqCst) {
        for (number, client) in clients.iter_mut().enumerate() {
            let from = (round * 31 + number * 7) % 60_000;
            let length = 1 + (round * 13 + number * 3) % 2_000;
            let said = &bytes[from..from + length];
            client.write_all(said).expect("an open connection");
            let mut heard = vec![0; length];
            client.read_exact(&mut heard).expect("all bytes");
            assert!(heard == said, "other bytes");
        }
        round += 1;
        rounds.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_thousand_connections_survive_twenty_restarts() {
    if !make_room(3 * CLIENTS as u64) {
        skip("room for the descriptors of a thousand connections");
        return;
    }
    for workers in ["1", "2"] {
        let mut site = Site::on_tcp_and_unix(&["echo", "--handover", "--workers", workers]);
        let uris = site.served.uris().to_vec();
        let mut clients: Vec<_> = (0..CLIENTS)
            .map(|number| connect(&uris[number % 2]))
            .collect();
        // Those that are not accepted yet would begin in the new process.
        for client in &mut clients {
            client.write_all(b"!").expect("an open connection");
            client.read_exact(&mut [0]).expect("an echo");
        }

        let (is_over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for (seed, part) in clients.chunks_mut(CLIENTS / 4).enumerate() {
                let (is_over, rounds) = (&is_over, &rounds);
                scope.spawn(move || talk(part, seed * 1_000, is_over, rounds));
            }
            let over = Over(&is_over);
            for number in 0..RESTARTS {
                site.restart();
                let line = site
                    .served
                    .logged("open connections go on in the new process");
                if !line.contains(&format!(" {CLIENTS} open")) {
                    let ends = site.served.logged("] accepted ");
                    panic!("{workers} workers, restart {number}: {line}\n{ends}");
                }
                if number == 0 {
                    assert_eq!(site.old_ends().code(), Some(0));
                }
            }
            drop(over);
        });
        assert!(rounds.load(Ordering::SeqCst) >= 4);
        drop(clients);
        site.end();
    }
}

/// A reader that takes nothing, so that output and input wait on all sides.
#[test]
fn what_waits_on_both_sides_goes_along() {
    for scheme in ["tcp://127.0.0.1:0", "unix"] {
        let directory = Directory::new();
        let uri = match scheme {
            "unix" => directory.uri("unix", "socket"),
            other => other.to_owned(),
        };
        let site = Site::in_directory(directory, "", &["echo", "--handover", "--listen", &uri]);
        let bytes = noise(8 << 20);
        let stream = Stream::connect(site.served.uri(0));
        let (mut reader, mut writer): (Box<dyn Both>, Box<dyn Both>) = match stream {
            Stream::Tcp(stream) => (Box::new(stream.try_clone().unwrap()), Box::new(stream)),
            Stream::Unix(stream) => (Box::new(stream.try_clone().unwrap()), Box::new(stream)),
        };
        thread::scope(|scope| {
            let sent = &bytes;
            scope.spawn(move || writer.write_all(sent).expect("an open connection"));
            let mut heard = vec![0; bytes.len()];
            let mut at = 0;
            for part in heard.chunks_mut(bytes.len() / 4) {
                // Until everything is full.
                thread::sleep(Duration::from_millis(100));
                site.restart();
                reader.read_exact(part).expect("all bytes");
                assert!(part == &bytes[at..at + part.len()], "other bytes");
                at += part.len();
            }
        });
        drop(reader);
        site.end();
    }
}

/// A reply that is due later comes from the new process, and only once.
#[test]
fn replies_that_are_due_go_along() {
    let listen = ["--listen", "tcp://127.0.0.1:0"];
    let arguments = [&["hello", "--handover", "--delay", "700ms"][..], &listen].concat();
    let mut site = Site::new(&arguments);
    let mut silent = site.served.connect();
    silent.expect("Welcome!");
    let mut client = site.served.connect();
    client.expect("Welcome!");
    client.send("bob");
    thread::sleep(Duration::from_millis(100));
    site.restart();
    assert_eq!(site.old_ends().code(), Some(0));
    client.expect("Hello,bob");
    for client in [&mut silent, &mut client] {
        client.send("eve");
        client.expect("Hello,eve");
    }
    client.send("exit");
    client.expect_end();
    drop(silent);
    site.end();
}

/// Lines go along, and half of one.
#[test]
fn framed_connections_go_along() {
    let listen = ["--listen", "tcp://127.0.0.1:0"];
    let framed = [
        "hello",
        "--framing",
        "line",
        "--handover",
        "--delay",
        "300ms",
    ];
    let mut site = Site::new(&[&framed[..], &listen].concat());
    let mut client = site.served.connect();
    client.expect("Welcome!\n");
    client.send("bob\nev");
    thread::sleep(Duration::from_millis(50));
    site.restart();
    assert_eq!(site.old_ends().code(), Some(0));
    client.send("e\n");
    client.expect("Hello,bob\nHello,eve\n");
    client.send("exit\n");
    client.expect_end();
    site.end();
}

/// A client that is behind a limit on its rate is finished where it is.
#[test]
fn connections_that_cannot_move_are_finished_in_the_old_process() {
    let arguments = [
        "hello",
        "--handover",
        "--delay",
        "0",
        "--max-bytes-per-second",
        "1MiB",
        "--listen",
        "tcp://127.0.0.1:0",
        "--drain-timeout",
        "2s",
    ];
    let mut site = Site::new(&arguments);
    let mut client = site.served.connect();
    client.expect("Welcome!");
    site.restart();
    client.send("bob");
    client.expect("Hello,bob");
    // It is asked to finish.
    client.expect_end();
    assert_eq!(site.old_ends().code(), Some(0));
    site.end();
}

/// Those that come from the old process have connected there, and not again.
#[test]
fn a_limit_on_connects_does_not_count_those_that_move() {
    let arguments = [
        "echo",
        "--handover",
        "--connects-per-second",
        "5",
        "--listen",
        "tcp://127.0.0.1:0",
    ];
    let mut site = Site::new(&arguments);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.extend([(); 5].map(|()| site.served.connect()));
        assert!(clients.iter_mut().all(Stream::echoes));
        thread::sleep(Duration::from_millis(1_100));
    }
    site.restart();
    assert_eq!(site.old_ends().code(), Some(0));
    assert!(clients.iter_mut().all(Stream::echoes));
    drop(clients);
    site.end();
}

/// The new program does not listen where the client came in.
#[test]
fn connections_of_a_listener_that_is_gone_stay() {
    let directory = Directory::new();
    let gone = directory.uri("unix", "gone");
    let listens = ["--listen", &gone, "--listen", "tcp://127.0.0.1:0"];
    let arguments = [&["echo", "--handover"][..], &listens].concat();
    let mut site = Site::in_directory(directory, "", &arguments);
    let mut stays = Stream::connect(&gone);
    let mut moves = Stream::connect(site.served.uri(1));
    assert!(stays.echoes() && moves.echoes());
    site.change("echo --handover --listen tcp://127.0.0.1:0");
    site.restart();
    site.served
        .logged("1 open connection goes on in the new process");
    assert!(stays.echoes() && moves.echoes());
    drop(stays);
    assert_eq!(site.old_ends().code(), Some(0));
    assert!(moves.echoes());
    drop(moves);
    site.end();
}

/// What a client has begun with one protocol is nothing for another, nor for one that waits for the header
/// of a proxy, nor for a process without a loop.
#[test]
fn connections_that_would_be_served_in_another_way_stay() {
    let listen = ["--listen", "tcp://127.0.0.1:0"];
    let others = [
        "discard --handover",
        "echo --proxy required --trust 127.0.0.1",
        "echo --model threaded",
    ];
    for other in others {
        let mut site = Site::new(&[&["echo", "--handover"][..], &listen].concat());
        let mut client = site.served.connect();
        assert!(client.echoes());
        site.change(&format!("{other} --listen tcp://127.0.0.1:0"));
        site.restart();
        site.served
            .logged("0 open connections go on in the new process");
        assert!(client.echoes(), "{other}");
        drop(client);
        assert_eq!(site.old_ends().code(), Some(0), "{other}");
        site.signal(Signal::TERM);
    }
}

#[test]
fn other_models_refuse_it_at_the_start() {
    for model in ["threaded", "forking", "sequential"] {
        let outcome = Outcome::new(&["serve", "echo", "--handover", "--model", model]);
        assert_eq!(outcome.code, Some(2), "{model}");
        let said = &outcome.stderr;
        assert!(
            said.contains("--handover needs --model event-loop"),
            "{said}"
        );
    }
}
