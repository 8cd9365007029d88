//! What each protocol does, on each kind of socket.

mod chat;
pub(crate) mod command;
mod dispatch;
mod foreign;
mod greet;
mod http;
mod memcached;
mod operator;
mod print;
mod resp;
mod timestamp;
mod websocket;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::outside::skip;
use crate::support::served::Served;
use crate::support::sockets::{Datagrams, Directory, Stream};

/// A server of `arguments` on every kind of socket that this machine has.
fn serve_everywhere(arguments: &[&str], directory: &Directory) -> Served {
    let mut uris = vec![
        "tcp://127.0.0.1:0".to_owned(),
        "udp://127.0.0.1:0".to_owned(),
        directory.uri("unix", "stream"),
        directory.uri("unixgram", "datagram"),
    ];
    if TcpListener::bind("[::1]:0").is_ok() {
        uris.extend(["tcp://[::1]:0".to_owned(), "udp://[::1]:0".to_owned()]);
    } else {
        skip("IPv6");
    }
    let listen = uris.iter().flat_map(|uri| ["--listen", uri]);
    let arguments: Vec<_> = arguments.iter().copied().chain(listen).collect();
    Served::new(&arguments)
}

fn is_datagram(uri: &str) -> bool {
    uri.starts_with("udp:") || uri.starts_with("unixgram:")
}

#[test]
fn echo_on_streams() {
    let directory = Directory::new();
    let served = serve_everywhere(&["echo"], &directory);
    for uri in served.uris().iter().filter(|uri| !is_datagram(uri)) {
        let mut client = Stream::connect(uri);
        client.send("good");
        client.expect("good");
        client.send(" morning\n");
        client.expect(" morning\n");
        client.finish();
        client.expect_end();
    }
}

#[test]
fn echo_of_more_than_all_buffers_hold() {
    let directory = Directory::new();
    let served = serve_everywhere(&["echo"], &directory);
    let much = "0123456789abcdef".repeat(256 * 1024);
    let mut reader = served.connect();
    let Stream::Tcp(writer) = &reader else {
        panic!("the first listener is TCP");
    };
    let mut writer = Stream::Tcp(writer.try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.send(&much);
            writer.finish();
        });
        reader.expect(&much);
        reader.expect_end();
    });
}

#[test]
fn echo_of_datagrams() {
    let directory = Directory::new();
    let served = serve_everywhere(&["echo"], &directory);
    for uri in served.uris().iter().filter(|uri| is_datagram(uri)) {
        let client = Datagrams::connect(uri, &directory);
        client.send("one");
        client.send("two");
        client.expect("one");
        client.expect("two");
        client.send("");
        client.expect("");
        client.send("still there");
        client.expect("still there");
    }
}

#[test]
fn discard_answers_nothing() {
    let directory = Directory::new();
    let served = serve_everywhere(&["discard"], &directory);
    for uri in served.uris().iter().filter(|uri| !is_datagram(uri)) {
        let mut client = Stream::connect(uri);
        client.send("good morning\n");
        client.finish();
        client.expect_end();
    }
}

#[test]
fn hello_answers_each_piece_after_a_delay() {
    let served = Served::new(&["hello", "--delay", "100ms", "--listen", "tcp://127.0.0.1:0"]);
    let mut client = served.connect();
    client.expect("Welcome!");
    let began = Instant::now();
    client.send("bob\n");
    client.expect("Hello,bob");
    assert!(began.elapsed() >= Duration::from_millis(100));
    client.send("ann");
    client.expect("Hello,ann");
    client.send("exit");
    client.expect_end();
}

#[test]
fn hello_delays_nobody_else() {
    let served = Served::new(&["hello", "--delay", "30s", "--listen", "tcp://127.0.0.1:0"]);
    let mut slow = served.connect();
    slow.expect("Welcome!");
    slow.send("bob");
    let mut quick = served.connect();
    quick.expect("Welcome!");
    quick.send("exit");
    quick.expect_end();
}

#[test]
fn hello_takes_lines_if_told_so() {
    let directory = Directory::new();
    let served = Served::new(&[
        "hello",
        "--delay",
        "10ms",
        "--framing",
        "line",
        "--listen",
        &directory.uri("unix", "socket"),
    ]);
    let mut client = served.connect();
    client.expect("Welcome!\n");
    client.send("bob\nann\r\nex");
    client.expect("Hello,bob\nHello,ann\n");
    client.send("it\n");
    client.expect_end();
}

#[test]
fn hello_answers_datagrams_at_once() {
    let directory = Directory::new();
    let served = serve_everywhere(&["hello", "--delay", "0"], &directory);
    for uri in served.uris().iter().filter(|uri| is_datagram(uri)) {
        let client = Datagrams::connect(uri, &directory);
        client.send("bob\n");
        client.expect("Hello,bob");
    }
}

#[test]
fn hello_logs_who_comes_and_goes() {
    let served = Served::new(&["hello", "--listen", "tcp://127.0.0.1:0"]);
    let mut client = served.connect();
    let name = client.name();
    assert!(served.logged("accepted").contains(&format!("{name}: ")));
    client.expect("Welcome!");
    client.send("exit");
    client.expect_end();
    assert!(served.logged("closed").contains(&format!("{name}: ")));
    let mut silent = served.connect();
    silent.expect("Welcome!");
    silent.finish();
    silent.expect_end();
    let line = served.logged("closed by the peer");
    assert!(line.contains(&silent.name()), "{line}");
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
}
