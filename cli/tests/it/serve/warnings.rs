//! What a server warns of when it starts.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::served::{Outcome, Served, by_shell};
use crate::support::sockets::Directory;

/// All that is logged at the default level without a client.
fn log_of(arguments: &[&str]) -> Vec<String> {
    let served = Served::new(arguments);
    served.signal(Signal::TERM);
    served.status_and_log()
}

fn warns(log: &[String], of: &str) -> bool {
    log.iter()
        .any(|line| line.contains("WARN") && line.contains(of))
}

#[test]
fn who_listens_to_others_hears_of_the_limit_of_one_address() {
    let any = ["echo", "--listen", "tcp://0.0.0.0:0"];
    assert!(warns(&log_of(&any), "--max-per-peer"));
    let log = log_of(&[&any[..], &["--max-per-peer", "256"]].concat());
    assert!(!warns(&log, "--max-per-peer"), "{log:?}");
    let log = log_of(&["--max-per-peer=256", "echo", "--listen", "tcp://0.0.0.0:0"]);
    assert!(!warns(&log, "--max-per-peer"), "{log:?}");
    let directory = Directory::new();
    let unix = directory.uri("unix", "socket");
    let near = ["echo", "--listen", "tcp://127.0.0.2:0", "--listen", &unix];
    let log = log_of(&near);
    assert!(!warns(&log, "--max-per-peer"), "{log:?}");
}

/// Starts a server that is passed `descriptor` as number 3, as far as the variables say.
fn served_with(descriptor: impl Into<OwnedFd>, process: &str) -> Served {
    let variables = format!("exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID={process}");
    let listen = ["serve", "echo", "--listen", "tcp://127.0.0.1:0"];
    let mut command = by_shell(&variables, &listen);
    command.stdin(Stdio::from(descriptor.into()));
    Served::spawn(command)
}

#[test]
fn descriptors_that_were_passed_and_are_not_served_are_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let uri = format!("3 is tcp://{}", listener.local_addr().expect("a port"));
    let served = served_with(listener, "$$");
    let line = served.logged("LISTEN_FDS");
    assert!(line.contains("WARN") && line.contains(&uri), "{line}");
    assert!(served.connect().echoes());
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));

    let directory = Directory::new();
    let socket = UnixDatagram::bind(directory.path("socket")).expect("a free path");
    let line = served_with(socket, "$$").logged("LISTEN_FDS");
    let uri = directory.uri("unixgram", "socket");
    assert!(line.contains(&format!("3 is {uri}")), "{line}");
}

#[test]
fn descriptors_of_another_process_are_no_news() {
    for process in ["1", "", "x", "-1"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let served = served_with(listener, process);
        served.signal(Signal::TERM);
        let log = served.status_and_log();
        assert!(!warns(&log, "LISTEN_FDS"), "{log:?}");
    }
}

#[test]
fn variables_that_make_no_sense_do_no_harm() {
    for count in ["0", "-1", "x", "", "99999999999999999999"] {
        let variables = format!("export LISTEN_FDS={count} LISTEN_PID=$$");
        let listen = ["serve", "echo", "--listen", "tcp://127.0.0.1:0"];
        let served = Served::spawn(by_shell(&variables, &listen));
        assert!(served.connect().echoes());
        served.signal(Signal::TERM);
        let log = served.status_and_log();
        assert!(!warns(&log, "LISTEN_FDS"), "{count} {log:?}");
    }
    let variables = "export LISTEN_FDS=1000000 LISTEN_PID=$$";
    let listen = ["serve", "echo", "--listen", "tcp://127.0.0.1:0"];
    let served = Served::spawn(by_shell(variables, &listen));
    let line = served.logged("LISTEN_FDS");
    assert!(
        line.contains("to 1000002 are not open") && line.len() < 1_000,
        "{line}"
    );
}

#[test]
fn few_descriptors_are_told_with_what_helps() {
    let listen = ["serve", "echo", "--listen", "tcp://127.0.0.1:0"];
    let served = Served::spawn(by_shell("ulimit -n 36", &listen));
    let helps = |line: &str, most: &str| {
        let parts = [most, "ulimit -n", "LimitNOFILE="];
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    };
    let start = served.logged("max_connections is lowered from 10000 to 4");
    assert!(start.contains("WARN"), "{start}");
    helps(&start, "may have 36 open descriptors");

    let mut clients: Vec<_> = (0..4).map(|_| served.connect()).collect();
    assert!(clients.iter_mut().all(|client| client.echoes()));
    served.connect().expect_cut();
    let refused = served.logged("refused: 4 connections are open, as many as descriptors allow");
    helps(&refused, "may have 36 open descriptors");
    drop(clients);
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));

    let said = Outcome::of(by_shell("ulimit -n 6", &listen)).stderr;
    helps(
        said.lines().last().expect("a reason"),
        "may have 6 open descriptors",
    );
}
