//! Clients come and go while the server is replaced again and again, and none fails.

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::restart::{Over, Site};
use crate::serving::proxied::Balancer;
use crate::support::outside::require;
use crate::support::served::serveloop;
use crate::support::sockets::socket_addr;

/// How long the load goes on, and how often the server is replaced. In full: 60 s and 3 s.
fn times() -> (u64, Duration) {
    match env::var_os("SERVELOOP_FULL") {
        Some(_) => (60, Duration::from_secs(3)),
        None => (4, Duration::from_millis(700)),
    }
}

/// Measures connections to `target` while the server is replaced, and its certificates and lists are
/// read again.
#[track_caller]
fn churn(site: &Site, target: &str) {
    let (seconds, interval) = times();
    let is_over = AtomicBool::new(false);
    let duration = format!("{seconds}s");
    let arguments = [
        "bench",
        "--churn",
        "--connections",
        "100",
        "--rounds",
        "1",
        "--duration",
        &duration,
        "--target",
        target,
        "--json",
    ];
    let restarts = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let _over = Over(&is_over);
            let output = serveloop(&arguments).output();
            output.expect("the built command")
        });
        let (mut restarts, begun) = (0, Instant::now());
        while !is_over.load(Ordering::SeqCst) {
            thread::sleep(interval / 3);
            site.signal(Signal::HUP);
            if begun.elapsed() > interval * (restarts + 1) {
                site.restart();
                restarts += 1;
            }
        }
        let output = load.join().expect("a client");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let figure = &figures["results"][0]["measured"]["per_second"]["median"];
        println!(
            "measured: {figure} connections a second for {seconds} s, {restarts} restarts, none failed"
        );
        restarts
    });
    assert!(restarts > 2, "{restarts}");
}

#[test]
fn no_connection_fails_while_the_server_is_replaced() {
    for model in [
        &[][..],
        &["--workers", "2"],
        &["--model", "threaded"],
        &["--model", "forking"],
    ] {
        let arguments = ["echo", "--listen", "tcp://127.0.0.1:0", "--backlog", "1024"];
        let site = Site::new(&[&arguments[..], model].concat());
        churn(&site, site.served.uri(0));
        site.end();
    }
}

#[test]
fn no_connection_fails_behind_a_balancer() {
    if !require("haproxy") {
        return;
    }
    for model in [&[][..], &["--workers", "2"]] {
        let arguments = [
            "echo",
            "--listen",
            "tcp://127.0.0.1:0",
            "--proxy",
            "required",
            "--trust",
            "127.0.0.0/8",
        ];
        let site = Site::new(&[&arguments[..], model].concat());
        let balancer = Balancer::haproxy(socket_addr(site.served.uri(0)), "send-proxy-v2");
        churn(&site, &balancer.uri());
        site.end();
    }
}
