//! Ten thousand connections are looked at without a slow turn.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::monitoring::{Monitored, get};
use crate::support::outside::skip;
use crate::support::served::Outcome;
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
