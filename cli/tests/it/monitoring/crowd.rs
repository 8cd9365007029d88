//! Ten thousand connections are looked at without a slow turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::monitoring::{Monitored, get};
use crate::restart::Over;
use crate::support::outside::skip;
use crate::support::served::{Outcome, by_script};
use crate::support::sockets::Stream;

const CROWD: usize = 10_000;

#[test]
fn ten_thousand_connections_are_listed_without_a_slow_turn() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.current.is_some_and(|most| most < CROWD as u64 + 500) {
        return skip("10,500 descriptors");
    }
    let server = Monitored::echo(&["--max-connections", "11000", "--first-message-timeout", "0"]);
    let mut clients: Vec<_> = (0..CROWD).map(|_| server.served.connect()).collect();
    let begin = Instant::now();
    while server.get("/metrics").value("serveloop_connections_open") < CROWD as u64 {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "not all are accepted"
        );
    }
    let before = server.get("/metrics").value("serveloop_slow_turns_total");

    let (mut longest, mut other) = (Duration::ZERO, Stream::connect(server.served.uri(0)));
    for round in 0..10 {
        let listed = Outcome::new(&["ctl", "--admin", &server.admin, "--json", "ls"]);
        assert_eq!(listed.code, Some(0), "{}", listed.stderr);
        let listed: serde_json::Value = serde_json::from_str(&listed.stdout).expect("JSON");
        assert_eq!(listed["found"], CROWD + 1);
        assert_eq!(listed["unanswered"], 0);
        let begin = Instant::now();
        let page = get(&server.metrics, "/metrics");
        longest = longest.max(begin.elapsed());
        assert_eq!(page.value("serveloop_loops_unanswered"), 0);
        for stream in [&mut other, &mut clients[round * 7]] {
            stream.send("hello");
            stream.expect("hello");
        }
    }
    assert!(
        longest < Duration::from_secs(2),
        "a scrape took {longest:?}"
    );
    let after = server.get("/metrics").value("serveloop_slow_turns_total");
    assert_eq!(after, before, "slow turns");
    drop(clients);
    server.served.signal(Signal::TERM);
    server.served.status();
}

/// Whoever only holds connections to the pages keeps neither administrators nor probes out.
#[test]
fn a_crowd_at_the_pages_keeps_nobody_out() {
    for model in crate::support::served::MODELS {
        let server = Monitored::echo(model);
        let held: Vec<_> = (0..100)
            .map(|_| {
                let mut client = Stream::connect(&server.metrics);
                client.send_if_wanted("GET / HTTP/1.1\r\nHost: localhost\r\n");
                client
            })
            .collect();
        let begin = Instant::now();
        let stats = Outcome::new(&["ctl", "--admin", &server.admin, "stats"]);
        assert_eq!(stats.code, Some(0), "{model:?}: {}", stats.stderr);
        assert_eq!(server.get("/healthz").status, 200, "{model:?}");
        assert!(begin.elapsed() < Duration::from_secs(8), "{model:?}");
        drop(held);
        server.served.signal(Signal::TERM);
        server.served.status();
    }
}

/// Live pages beyond a share of the places are refused, and come again later.
#[test]
fn live_pages_leave_places_to_probes() {
    let upgrade = "GET /live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let server = Monitored::echo(&[]);
    let mut live = Vec::new();
    let refused = loop {
        let mut client = Stream::connect(&server.metrics);
        client.send(upgrade);
        let status = client.receive_line();
        if !status.starts_with("HTTP/1.1 101 ") {
            break status;
        }
        live.push(client);
        assert!(live.len() < 64, "all of them are live");
    };
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert_eq!(server.get("/healthz").status, 200);
    drop(live);
    server.end();
}

/// The thread of the pages has a lower priority than the loop's, which need not wait for it.
#[test]
#[cfg(target_os = "linux")]
fn the_pages_give_way_to_the_loop() {
    let server = Monitored::echo(&[]);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.served.process_id()))
        .expect("its threads");
    let mut niceness = std::collections::BTreeMap::new();
    for task in tasks.flatten() {
        let stat = std::fs::read_to_string(task.path().join("stat")).expect("a thread's state");
        // The name, which is in brackets, may have spaces. The 17th word after it is the niceness.
        let (name, numbers) = stat.rsplit_once(')').expect("a name");
        let nice: i32 = numbers
            .split_whitespace()
            .nth(16)
            .expect("a niceness")
            .parse()
            .expect("a number");
        let name = name.split_once('(').expect("a name").1.to_owned();
        niceness.insert(name, nice);
    }
    let of_loop = niceness["serveloop"];
    assert_eq!(
        niceness["monitoring"],
        (of_loop + 10).min(19),
        "{niceness:?}"
    );
    server.end();
}

/// A list of all connections and a scrape each second: how long messages take with and without.
///
/// Run it with `--ignored` on a machine that has nothing else to do, or it says nothing.
#[test]
#[ignore = "takes a minute and a quiet machine"]
fn looking_costs_ten_thousand_connections_little() {
    let server = Monitored::echo(&["--max-connections", "11000", "--first-message-timeout", "0"]);
    let target = server.served.uri(0).to_owned();
    let mut measured: [Vec<f64>; 2] = Default::default();
    // Alternately, so that both have the same machine.
    for round in 0..10 {
        let is_over = AtomicBool::new(round % 2 == 0);
        let latency = thread::scope(|scope| {
            let (is_over, admin, metrics) = (&is_over, &server.admin, &server.metrics);
            scope.spawn(move || look_each_second(admin, metrics, is_over));
            let _over = Over(is_over);
            latency(&target)
        });
        measured[round % 2].push(latency);
    }

    let [without, with] = measured.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    println!(
        "measured: p99 of 10,000 connections {with:.0} us with a list and a scrape each second, {without:.0} us \
         without"
    );
    assert!(
        with <= 1.25 * without,
        "{with} us, and {without} us without"
    );
}

/// `ctl` has a core only while no other process wants it: what is measured is the server, not the competition
/// for two cores of those who measure.
fn look_each_second(admin: &str, metrics: &str, is_over: &AtomicBool) {
    let script = format!("exec chrt --idle 0 \"$0\" ctl --admin '{admin}' --json ls > /dev/null");
    while !is_over.load(Ordering::SeqCst) {
        let listed = Outcome::of(by_script(&script));
        assert_eq!(listed.code, Some(0), "{}", listed.stderr);
        get(metrics, "/metrics");
        thread::sleep(Duration::from_secs(1));
    }
}

/// The 99th percentile of the time of a message, in microseconds.
fn latency(target: &str) -> f64 {
    let bench = ["bench", "--target", target, "--rounds", "1", "--json"];
    let load = [
        "--connections",
        "100",
        "--idle",
        "9900",
        "--rate",
        "5000",
        "--duration",
        "6s",
    ];
    let outcome = Outcome::new(&[&bench[..5], &load, &bench[5..]].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let figures: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let latency = &figures["results"][0]["measured"]["latency_microseconds"];
    latency["p99"]["median"].as_f64().expect("a figure")
}
