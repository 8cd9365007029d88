//! What goes wrong with the servers of beginners' tutorials does not go wrong here. One test for each
//! fault that is not the theme of another module:
//!
//! | fault | shown not to be here by |
//! |---|---|
//! | one recv taken for one message | `protocols::hello_takes_lines_if_told_so`, `dispatch::actions_are_called_in_every_model` |
//! | UTF-8 decoded by pieces | here, `print::a_character_that_arrives_in_two_pieces_is_one_character` |
//! | `sleep(1)` in a handler | `protocols::hello_delays_nobody_else`, `crowd` |
//! | `send`'s short count ignored | `protocols::echo_of_more_than_all_buffers_hold` |
//! | the end of one client ends the server | `print::a_client_that_closes_ends_its_own_connection_only` |
//! | accepted sockets never closed | here |
//! | a backlog of 5 | here |
//! | no SO_REUSEADDR | here |
//! | a misspelt method that silently does nothing | does not compile: `docs/tutorials.md` |
//! | accept errors swallowed | the library's `reactor::limits::without_descriptors_accepting_pauses_and_goes_on_by_itself` |
//! | a refused socket left open | the library's `reactor::limits::a_factory_refuses_whom_it_likes` |
//! | `getattr` on names that the peer chose | here |
//! | no limit, no timeout anywhere | `limits`, `usage::limits_are_grouped_and_show_defaults` |

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::outside::{require_that, skip};
use crate::support::served::{PATIENCE, Served};

const TCP: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

#[test]
fn a_character_in_two_pieces_ends_no_connection() {
    for protocol in ["echo", "hello", "timestamp"] {
        let served = Served::new(&[protocol, TCP[0], TCP[1], "-q"]);
        let mut client = served.connect();
        for byte in "\u{20ac}".bytes() {
            client.send_bytes(&[byte]);
        }
        client.finish();
        // What comes back depends on how the system cut it; that it ends in order does not.
        let replies = client.receive_rest();
        let found: Vec<_> = replies.into_iter().filter(|byte| *byte >= 0x80).collect();
        assert_eq!(found, "\u{20ac}".as_bytes(), "{protocol}");
    }
}

#[test]
fn connections_that_ended_hold_no_descriptor() {
    let served = Served::new(&["echo", TCP[0], TCP[1]]);
    let directory = format!("/proc/{}/fd", served.process_id());
    if !Path::new(&directory).exists() {
        return skip("/proc");
    }
    let count = || fs::read_dir(&directory).expect("a process").count();
    let talk = || {
        let mut client = served.connect();
        client.send("hello");
        client.expect("hello");
        client.finish();
        client.expect_end();
    };
    talk();
    let begin = Instant::now();
    let before = count();
    (0..200).for_each(|_| talk());
    while count() > before {
        assert!(begin.elapsed() < PATIENCE, "{} for {before}", count());
    }
}

/// While the server does nothing at all, the system takes in clients for it.
#[test]
fn many_may_come_at_once() {
    let served = Served::new(&["echo", TCP[0], TCP[1]]);
    served.signal(Signal::STOP);
    let mut clients: Vec<_> = (0..100).map(|_| served.connect()).collect();
    served.signal(Signal::CONT);
    for client in &mut clients {
        client.send("hello");
        client.expect("hello");
    }
}

/// The server closes first, so its port is what the system keeps for late packets.
#[test]
fn a_server_that_ended_comes_back_at_once() {
    let first = Served::new(&["greet", TCP[0], TCP[1]]);
    let uri = first.uri(0).to_owned();
    for _ in 0..5 {
        let mut client = first.connect();
        client.expect("connected");
        client.expect_end();
    }
    first.signal(Signal::TERM);
    assert_eq!(first.exit_code(), Some(0));
    let second = Served::new(&["greet", "--listen", &uri]);
    assert_eq!(second.uri(0), uri);
    second.connect().expect("connected");
}

#[test]
fn names_that_mean_something_to_a_language_mean_nothing_here() {
    let served = Served::new(&["dispatch", TCP[0], TCP[1]]);
    let mut client = served.connect();
    let names = [
        "__init__",
        "__class__",
        "__globals__",
        "constructor",
        "register",
        "call",
        "exit",
        "eval",
        "sum ",
        "Sum",
        "echo\\u0000",
        "../echo",
        "",
    ];
    for name in names {
        client.send(&format!("{{\"action\":\"{name}\"}}"));
        let reply = client.receive_line();
        let expected = "{\"ok\":false,\"error\":{\"code\":\"unknown_action\",";
        assert!(reply.starts_with(expected), "{name}: {reply}");
    }
}

/// `serve` under strace, which has system calls fail as `inject` says.
fn injected(inject: &[&str], arguments: &[&str]) -> Option<Served> {
    let probe = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .status();
    if !require_that(probe.is_ok_and(|status| status.success()), "strace") {
        return None;
    }
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null"]);
    for inject in inject {
        command.args(["-e", &format!("inject={inject}")]);
    }
    command.args([env!("CARGO_BIN_EXE_serveloop"), "serve"]);
    command.args(arguments).args(TCP);
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(Served::spawn(command))
}

/// Has the server that strace started end.
#[track_caller]
fn end_injected(served: Served) -> Vec<String> {
    let strace = served.process_id();
    let children = format!("/proc/{strace}/task/{strace}/children");
    let children = fs::read_to_string(children).expect("a process");
    let server = children.trim().parse().ok().and_then(Pid::from_raw);
    kill_process(server.expect("a server"), Signal::TERM).expect("it runs");
    served.status_and_log()
}

/// As in a sandbox that does not allow to ask.
#[test]
fn a_limit_that_the_system_does_not_tell_is_no_limit() {
    for model in ["event-loop", "threaded"] {
        let inject = "prlimit64:error=EPERM:when=1+";
        let Some(served) = injected(&[inject], &["echo", "--model", model]) else {
            return;
        };
        let mut client = served.connect();
        client.send("hello");
        client.expect("hello");
        drop(client);
        end_injected(served);
    }
}

/// Each call is interrupted, as by some filters of system calls. That keeps no processor busy, and
/// the drain still ends.
#[test]
fn calls_that_are_always_interrupted_are_not_repeated_as_fast_as_can_be() {
    for model in ["sequential", "threaded", "forking"] {
        for call in ["recvfrom", "sendto"] {
            let inject = format!("{call}:error=EINTR:when=1+");
            let arguments = ["echo", "--model", model, "--drain-timeout", "1s"];
            let Some(served) = injected(&[&inject], &arguments) else {
                return;
            };
            let mut client = served.connect();
            client.send("hello");
            let began = Instant::now();
            let log = end_injected(served);
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "{model} {call}: {log:?}"
            );
        }
    }
}
