//! `serve resp`: one store for all clients, in every model that can share it.

use std::fmt::Write;
use std::time::Instant;

use rustix::process::Signal;

use crate::support::served::{Outcome, PATIENCE, Served};
use crate::support::sockets::{Directory, Stream};

const TCP: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

fn serve(options: &[&str]) -> Served {
    Served::new(&[&["resp"], &TCP[..], options].concat())
}

/// Sends each line and expects its reply, in which spaces are line ends.
#[track_caller]
fn check(client: &mut Stream, talk: &[(&str, &str)]) {
    for (line, reply) in talk {
        client.send(&format!("{line}\r\n"));
        client.expect(&(reply.replace(' ', "\r\n") + "\r\n"));
    }
}

#[test]
fn all_clients_see_the_same_keys() {
    let models: [&[&str]; 3] = [&[], &["--workers", "2"], &["--model", "threaded"]];
    for model in models {
        let directory = Directory::new();
        let unix = directory.uri("unix", "socket");
        let served = serve(&[&["--listen", &unix], model].concat());
        // With two workers, one of this many clients is on the other loop.
        let mut clients: Vec<_> = (0..16)
            .map(|at| Stream::connect(served.uri(at % 2)))
            .collect();
        let mut sum = 0;
        for round in 0..3 {
            for client in &mut clients {
                sum += 1;
                check(client, &[("incr sum", &format!(":{sum}"))]);
            }
            check(
                &mut clients[round],
                &[("setnx once 1", &format!(":{}", u8::from(round == 0)))],
            );
        }
        // A key that expires some day does not keep the server.
        check(&mut clients[0], &[("set late 1 ex 100000", "+OK")]);
        drop(clients);
        served.signal(Signal::TERM);
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

#[test]
fn one_client_after_the_other_sees_the_same_keys() {
    let served = serve(&["--model", "sequential"]);
    let mut client = served.connect();
    check(&mut client, &[("set a 1", "+OK"), ("quit", "+OK")]);
    client.expect_end();
    check(&mut served.connect(), &[("get a", "$1 1")]);
}

#[test]
fn what_cannot_share_the_keys_is_refused() {
    for (options, problem) in [
        (
            &["--model", "forking"][..],
            "resp cannot be served with --model forking: processes do not share the keys",
        ),
        (
            &["--listen", "udp://127.0.0.1:0"],
            "resp cannot serve udp://127.0.0.1:0",
        ),
        (
            &["--max-memory", "much"],
            "expected a size, for example 4096, 64KiB",
        ),
        (
            &["--eviction", "some"],
            "invalid value 'some' for '--eviction <EVICTION>'",
        ),
        (
            &["--max-transaction", "1GiB", "--max-buffered", "256MiB"],
            "--max-buffered must be at least --max-transaction",
        ),
    ] {
        let outcome = Outcome::new(&[&["serve", "resp"], options].concat());
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(problem), "{}", outcome.stderr);
    }
}

/// Returns the number in a field of `INFO`.
#[track_caller]
fn figure(client: &mut Stream, field: &str) -> usize {
    client.send("info\r\n");
    let length = client.receive_line();
    let length: usize = length
        .trim()
        .trim_start_matches('$')
        .parse()
        .expect("a length");
    let text = client.receive(length + 2);
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.expect("the field").parse().expect("a number")
}

#[test]
fn memory_is_limited() {
    let served = serve(&["--max-memory", "1MiB"]);
    let mut client = served.connect();
    let value = "x".repeat(1_000);
    let mut lines = String::new();
    for number in 0..3_000 {
        writeln!(lines, "set key:{number} {value}").expect("memory");
    }
    client.send(&lines);
    client.expect(&"+OK\r\n".repeat(3_000));
    let (used, evicted) = (
        figure(&mut client, "used_memory"),
        figure(&mut client, "evicted_keys"),
    );
    assert!((900 << 10..=1 << 20).contains(&used), "{used}");
    assert!(evicted > 1_900, "{evicted}");

    let served = serve(&["--max-memory", "1KiB", "--eviction", "noeviction"]);
    let mut client = served.connect();
    client.send(&format!("set a {value}\r\n"));
    client.expect("-OOM command not allowed when used memory > 'maxmemory'.\r\n");
    check(
        &mut client,
        &[
            ("set a 1", "+OK"),
            ("config get maxmemory", "*2 $9 maxmemory $4 1024"),
        ],
    );
}

/// The memory of keys that have expired is freed although no client asks for them.
#[test]
fn expired_keys_are_freed() {
    for model in [&[][..], &["--workers", "2"], &["--model", "threaded"]] {
        let served = serve(model);
        let mut client = served.connect();
        for number in 0..10 {
            check(
                &mut client,
                &[(&format!("set key:{number} value px 50"), "+OK")],
            );
        }
        // INFO frees nothing itself.
        let began = Instant::now();
        while figure(&mut client, "used_memory") > 0 {
            assert!(began.elapsed() < PATIENCE, "the keys are still there");
        }
        assert_eq!(figure(&mut client, "expired_keys"), 10);
    }
}

#[test]
fn a_client_ends_another() {
    for model in [&[][..], &["--workers", "2"], &["--model", "threaded"]] {
        let served = serve(model);
        let (mut one, mut two) = (served.connect(), served.connect());
        two.send("client id\r\n");
        let id = two.receive_line();
        let id = id.trim().trim_start_matches(':');
        check(&mut one, &[(&format!("client kill id {id}"), ":1")]);
        two.expect_cut();
        assert_eq!(figure(&mut one, "connected_clients"), 1, "{model:?}");
    }
}

/// The longest value that is accepted can be read again, and a longer one is refused.
#[test]
fn values_fit_requests_and_replies() {
    for options in [
        &[][..],
        &["--max-frame", "4MiB"],
        &["--max-output", "128KiB", "--max-reply", "128KiB"],
        &["--max-frame", "100KiB"],
    ] {
        let served = serve(options);
        let mut client = served.connect();
        client.send("config get proto-max-bulk-len\r\n");
        let most: usize = (0..5)
            .map(|_| client.receive_line())
            .last()
            .and_then(|line| line.trim().parse().ok())
            .expect("a number");
        assert!(most > 60_000, "{most}");

        // The rest of the request has to fit in `max_frame` too.
        for (length, is_set) in [(most - 1_000, true), (most + 1, false)] {
            // A value that is refused by its length is not sent whole: the server stops reading it.
            let value = "x".repeat(if is_set { length } else { length.min(100_000) });
            client.send(&format!(
                "*3\r\n$3\r\nset\r\n$1\r\na\r\n${length}\r\n{value}\r\n"
            ));
            if is_set {
                client.expect("+OK\r\n");
                client.send("get a\r\n");
                client.expect(&format!("${length}\r\n{value}\r\n"));
            } else {
                let refused = client.receive_line();
                let is_known = [
                    "-ERR string exceeds maximum",
                    "-ERR Protocol error: invalid bulk length",
                ];
                assert!(
                    is_known.iter().any(|it| refused.starts_with(it)),
                    "{refused}"
                );
            }
        }
    }
}

#[test]
fn limits_of_connections_hold() {
    let served = serve(&[
        "--max-line",
        "100",
        "--max-connections",
        "2",
        "--idle-timeout",
        "300ms",
    ]);
    let mut client = served.connect();
    client.send(&"x".repeat(101));
    client.expect("-ERR Protocol error: too big inline request\r\n");
    client.expect_end();

    let mut client = served.connect();
    check(&mut client, &[("ping", "+PONG")]);
    client.expect_cut();
}

/// Whatever loop or thread serves those that listen, in the order in which it is published.
#[test]
fn what_is_published_is_heard_by_all() {
    for model in [&[][..], &["--workers", "2"], &["--model", "threaded"]] {
        let served = serve(&[&["--idle-timeout", "1s"], model].concat());
        let mut listeners: Vec<_> = (0..8).map(|_| served.connect()).collect();
        for listener in &mut listeners {
            check(
                listener,
                &[("subscribe news", "*3 $9 subscribe $4 news :1")],
            );
        }
        let mut publisher = served.connect();
        for number in 100..200 {
            check(&mut publisher, &[(&format!("publish news {number}"), ":8")]);
        }
        for listener in &mut listeners {
            for number in 100..200 {
                let message = format!("*3 $7 message $4 news $3 {number}");
                listener.expect(&(message.replace(' ', "\r\n") + "\r\n"));
            }
        }

        // Those that listen may be silent for longer than others.
        publisher.expect_cut();
        check(&mut listeners[0], &[("ping", "*2 $4 pong $0")]);
        drop(listeners);
        served.signal(Signal::TERM);
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

/// A transaction publishes all at once, before the one that listens can have read any of it.
#[test]
fn a_burst_reaches_those_that_read() {
    let text = "x".repeat(7_000);
    let burst = format!(
        "multi\r\n{}exec\r\n",
        format!("publish news {text}\r\n").repeat(90)
    );
    let message = format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$7000\r\n{text}\r\n");

    for model in [&[][..], &["--model", "threaded"]] {
        let served = serve(model);
        let (mut listener, mut publisher) = (served.connect(), served.connect());
        check(
            &mut listener,
            &[("subscribe news", "*3 $9 subscribe $4 news :1")],
        );
        publisher.send(&burst);
        for _ in 0..90 {
            listener.expect(&message);
        }
    }

    // Who sets a limit is told that it was met.
    let served = serve(&["--max-posted", "64KiB"]);
    let (mut listener, mut publisher) = (served.connect(), served.connect());
    check(
        &mut listener,
        &[("subscribe news", "*3 $9 subscribe $4 news :1")],
    );
    publisher.send(&burst);
    let line = served.logged("max_posted");
    assert!(line.contains("WARN"), "{line}");
}

/// Two clients on other loops or threads change what one watches, and each `EXEC` is one step.
#[test]
fn transactions_hold_in_every_model() {
    for model in [&[][..], &["--workers", "2"], &["--model", "threaded"]] {
        let served = serve(model);
        // With two workers, one of this many clients is on the other loop.
        let mut clients: Vec<_> = (0..8).map(|_| served.connect()).collect();
        for client in &mut clients {
            check(
                client,
                &[
                    ("watch sum", "+OK"),
                    ("multi", "+OK"),
                    ("incr sum", "+QUEUED"),
                ],
            );
        }
        let mut other = served.connect();
        for at in 0..8 {
            check(&mut other, &[("incr other", &format!(":{}", at + 1))]);
        }
        // Only the first finds the key as it was.
        for (at, client) in clients.iter_mut().enumerate() {
            let outcome = if at == 0 { "*1 :1" } else { "*-1" };
            check(client, &[("exec", outcome)]);
        }
        check(&mut clients[7], &[("mget sum other", "*2 $1 1 $1 8")]);
    }
}

#[test]
fn transactions_are_limited() {
    let served = serve(&["--max-transaction", "1KiB"]);
    let mut client = served.connect();
    check(&mut client, &[("multi", "+OK")]);
    let long = "x".repeat(1_000);
    client.send(&format!("set a {long}\r\n"));
    client.expect(
        "-ERR the transaction takes more memory than the server's max_transaction allows\r\n",
    );
    client.send("exec\r\n");
    client.expect("-EXECABORT Transaction discarded because of previous errors.\r\n");
    check(&mut client, &[("multi", "+OK"), ("exec", "*0")]);

    // A limit of all connections rises with it.
    let served = serve(&["--max-transaction", "1GiB"]);
    check(
        &mut served.connect(),
        &[("multi", "+OK"), ("ping", "+QUEUED"), ("exec", "*1 +PONG")],
    );
}
