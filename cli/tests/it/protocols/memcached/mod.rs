//! `serve memcached`: one store for all, and what it is refused for.

mod outside;
mod same;

use rustix::process::Signal;

use crate::support::served::{Outcome, Served};
use crate::support::sockets::{Directory, Stream};

const TCP: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

fn serve(options: &[&str]) -> Served {
    Served::new(&[&["memcached"], &TCP[..], options].concat())
}

#[track_caller]
fn talk(client: &mut Stream, sent: &str, expected: &str) {
    client.send(sent);
    client.expect(expected);
}

/// However connections are served, and by whichever loop: what one client stores, all others find.
#[test]
fn all_clients_share_one_store() {
    for model in [&[][..], &["--workers", "2"], &["--model", "threaded"]] {
        let served = serve(model);
        let mut clients: Vec<_> = (0..8).map(|_| served.connect()).collect();
        for number in 0..clients.len() {
            let stored = format!("set key{number} 0 0 1\r\n{number}\r\n");
            talk(&mut clients[number], &stored, "STORED\r\n");
            for client in &mut clients {
                let found = format!("VALUE key{number} 0 1\r\n{number}\r\nEND\r\n");
                talk(client, &format!("get key{number}\r\n"), &found);
            }
        }
        talk(&mut clients[0], "set counter 0 0 1\r\n0\r\n", "STORED\r\n");
        for (number, client) in clients.iter_mut().enumerate() {
            talk(client, "incr counter 1\r\n", &format!("{}\r\n", number + 1));
        }
    }
}

/// A counter that all clients raise at the same time loses nothing.
#[test]
fn changes_of_several_loops_are_all_made() {
    for model in [&["--workers", "2"][..], &["--model", "threaded"]] {
        let served = serve(model);
        talk(&mut served.connect(), "set n 0 0 1\r\n0\r\n", "STORED\r\n");
        std::thread::scope(|scope| {
            for _ in 0..6 {
                let mut client = served.connect();
                scope.spawn(move || {
                    client.send(&"incr n 1 noreply\r\n".repeat(500));
                    talk(&mut client, "mn\r\n", "MN\r\n");
                });
            }
        });
        let mut client = served.connect();
        talk(&mut client, "get n\r\n", "VALUE n 0 4\r\n3000\r\nEND\r\n");
    }
}

#[test]
fn one_client_after_the_other_is_served_too() {
    let directory = Directory::new();
    let at = directory.uri("unix", "socket");
    let served = Served::new(&["memcached", "--model", "sequential", "--listen", &at]);
    let mut client = served.connect();
    talk(&mut client, "set a 0 0 1\r\nx\r\n", "STORED\r\n");
    client.send("quit\r\n");
    client.expect_end();
    talk(
        &mut served.connect(),
        "get a\r\n",
        "VALUE a 0 1\r\nx\r\nEND\r\n",
    );
}

#[test]
fn what_cannot_be_served_is_refused() {
    let refused: [(&[&str], &str); 8] = [
        (
            &["--model", "forking"],
            "memcached cannot be served with --model forking",
        ),
        (
            &["--listen", "udp://127.0.0.1:0"],
            "udp://127.0.0.1:0: memcached is for streams",
        ),
        (
            &["--listen", "unixgram:///tmp/never-made"],
            "unixgram:///tmp/never-made: memcached is for streams",
        ),
        (&["--max-item", "1023"], "--max-item must be at least 1KiB"),
        (
            &["--max-item", "1025MiB"],
            "--max-item must be at least 1KiB and at most 1GiB",
        ),
        (
            &["--max-memory", "1MiB"],
            "--max-memory must be at least twice --max-item",
        ),
        (&["--max-memory", "many"], "--max-memory"),
        (
            &["--max-frame", "64KiB"],
            "--max-frame must be at least --max-item",
        ),
    ];
    for (arguments, expected) in refused {
        let outcome = Outcome::new(&[&["serve", "memcached"], arguments].concat());
        assert_eq!(outcome.code, Some(2), "{arguments:?} {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{arguments:?}");
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    }
}

/// Items as long as they may be, through buffers that are shorter, and one byte more.
#[test]
fn items_have_the_length_that_is_given() {
    for (options, most) in [
        (&[][..], (1 << 20) - 60),
        (&["--max-item", "4KiB"], 4_096 - 60),
        (
            &["--max-item", "8MiB", "--max-memory", "32MiB"],
            (8 << 20) - 60,
        ),
        (
            &[
                "--high-water",
                "4KiB",
                "--max-output",
                "8KiB",
                "--low-water",
                "1KiB",
            ],
            (1 << 20) - 60,
        ),
    ] {
        let served = serve(options);
        let mut client = served.connect();
        let value = "v".repeat(most);
        talk(
            &mut client,
            &format!("set k 0 0 {most}\r\n{value}\r\n"),
            "STORED\r\n",
        );
        let found = format!("VALUE k 0 {most}\r\n{value}\r\n");
        talk(
            &mut client,
            "get k k\r\n",
            &format!("{found}{found}END\r\n"),
        );

        let too_large = "SERVER_ERROR object too large for cache\r\nEND\r\n";
        client.send(&format!("set k 0 0 {}\r\nv{value}\r\nget k\r\n", most + 1));
        client.expect(too_large);
    }
}

#[test]
fn memory_has_the_limit_that_is_given() {
    let served = serve(&["--max-memory", "64KiB", "--max-item", "4KiB"]);
    let mut client = served.connect();
    let value = "v".repeat(1_000);
    for number in 0..200 {
        let stored = format!("set key{number} 0 0 1000\r\n{value}\r\n");
        talk(&mut client, &stored, "STORED\r\n");
    }
    talk(
        &mut client,
        "get key0\r\nmg key199 s\r\nstats\r\n",
        "END\r\nHD s1000\r\n",
    );
    let statistics = client_statistics(&mut client);
    let number = |name: &str| {
        let prefix = format!("STAT {name} ");
        let line = statistics
            .iter()
            .find_map(|line| line.strip_prefix(&prefix));
        line.and_then(|number| number.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("{name} in {statistics:?}"))
    };
    assert_eq!(number("limit_maxbytes"), 64 << 10);
    assert!((50 << 10..=64 << 10).contains(&number("bytes")));
    assert_eq!(number("curr_items") + number("evictions"), 200);
    assert_eq!(
        (number("cmd_get"), number("get_hits"), number("get_misses")),
        (2, 1, 1)
    );
}

fn client_statistics(client: &mut Stream) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let line = client.receive_line();
        let line = line.trim_end().to_owned();
        if line == "END" {
            return lines;
        }
        lines.push(line);
    }
}

/// What a browser can be made to send is seen before anything is done.
#[test]
fn a_web_page_stores_nothing() {
    let served = serve(&["-v"]);
    let mut page = served.connect();
    page.send("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nset a 0 0 1\r\nx\r\n");
    page.receive_rest();
    served.logged("an HTTP request");
    talk(&mut served.connect(), "get a\r\n", "END\r\n");
}

#[test]
fn a_shutdown_sends_the_answer_that_has_begun() {
    let served = serve(&[]);
    let mut client = served.connect();
    let value = "v".repeat(1_000_000);
    talk(
        &mut client,
        &format!("set k 0 0 1000000\r\n{value}\r\n"),
        "STORED\r\n",
    );
    let answer = format!("VALUE k 0 1000000\r\n{value}\r\n");
    client.send(&format!("get{}\r\n", " k".repeat(20)));
    client.expect(&answer);
    served.signal(Signal::TERM);
    for _ in 1..20 {
        client.expect(&answer);
    }
    client.expect("END\r\n");
    client.expect_end();
    assert_eq!(served.exit_code(), Some(0));
}
