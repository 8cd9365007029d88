//! `serve timestamp`: the echo that says when.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;

use crate::support::served::{Served, serveloop};
use crate::support::sockets::{Datagrams, Directory, Stream};

/// A server that lives in the time zone `zone`.
fn serve(zone: &str, arguments: &[&str]) -> Served {
    let mut command = serveloop(&["serve", "timestamp"]);
    command.args(arguments).env("TZ", zone);
    Served::spawn(command)
}

/// Checks a reply, less `data`, to have been made just now, `hours` ahead of Greenwich.
#[track_caller]
fn check(reply: &str, data: &str, hours: i8) {
    let stamp = reply.strip_suffix(data).expect("the data");
    let time = stamp
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix("] "));
    let time = time.expect("a time in brackets");
    assert_eq!(time.len(), 24, "{time}");
    let civil = DateTime::strptime("%a %b %e %H:%M:%S %Y", time).expect("ctime's form");
    let zone = TimeZone::fixed(jiff::tz::offset(hours));
    let at = civil.to_zoned(zone).expect("a moment").timestamp();
    let ago = Timestamp::now().duration_since(at);
    let least = SignedDuration::from_secs(-1);
    let most = SignedDuration::try_from(Duration::from_secs(60)).expect("a minute");
    assert!(ago > least && ago < most, "{time} is {ago} ago");
}

/// Reads one reply to `data`.
#[track_caller]
fn reply(client: &mut Stream, data: &str) -> String {
    client.receive(27 + data.len())
}

#[test]
fn pieces_are_answered_until_the_client_ends() {
    let models: [&[&str]; 5] = [
        &[],
        &["--workers", "2"],
        &["--model", "sequential"],
        &["--model", "threaded"],
        &["--model", "forking"],
    ];
    for model in models {
        let arguments = [&["--listen", "tcp://127.0.0.1:0"], model].concat();
        let served = serve("UTC0", &arguments);
        let mut client = served.connect();
        for data in ["data", "more data", "\u{20ac}"] {
            client.send(data);
            check(&reply(&mut client, data), data, 0);
        }
        client.send("typed\n");
        check(&reply(&mut client, "typed"), "typed", 0);
        client.finish();
        client.expect_end();
        served.signal(Signal::TERM);
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

#[test]
fn the_time_is_the_local_one() {
    let served = serve("EAST-7", &["--listen", "tcp://127.0.0.1:0"]);
    let mut client = served.connect();
    client.send("data");
    check(&reply(&mut client, "data"), "data", 7);
}

#[test]
fn clients_are_served_at_the_same_time() {
    let served = serve("UTC0", &["--listen", "tcp://127.0.0.1:0"]);
    let mut clients: Vec<_> = (0..20).map(|_| served.connect()).collect();
    for client in clients.iter_mut().rev() {
        client.send("data");
        check(&reply(client, "data"), "data", 0);
    }
}

#[test]
fn lines_have_their_answers_in_lines() {
    let directory = Directory::new();
    let at = directory.uri("unix", "socket");
    let served = serve("UTC0", &["--framing", "line", "--listen", &at]);
    let mut client = served.connect();
    client.send("one\ntwo\r\nthr");
    check(&reply(&mut client, "one\n"), "one\n", 0);
    check(&reply(&mut client, "two\n"), "two\n", 0);
    client.send("ee\n");
    check(&reply(&mut client, "three\n"), "three\n", 0);
    client.finish();
    client.expect_end();
}

#[test]
fn a_datagram_is_a_message() {
    let directory = Directory::new();
    let served = serve("UTC0", &["--listen", "udp://127.0.0.1:0"]);
    let client = Datagrams::connect(served.uri(0), &directory);
    let Datagrams::Udp(socket) = &client else {
        panic!("a UDP client");
    };
    for data in ["data", "", "more data"] {
        client.send(data);
        let mut found = [0; 100];
        let count = socket.recv(&mut found).expect("a reply");
        check(&String::from_utf8_lossy(&found[..count]), data, 0);
    }
}

#[test]
fn a_time_zone_that_is_none_is_told() {
    let served = serve("Nowhere/At-All", &["--listen", "tcp://127.0.0.1:0"]);
    served.logged("no local time zone: times are in UTC");
    let mut client = served.connect();
    client.send("data");
    check(&reply(&mut client, "data"), "data", 0);
}
