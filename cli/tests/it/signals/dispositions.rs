//! What each signal does to a server, and what it inherits of that from its parent.

use std::fs;
use std::ops::Range;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::signals::shutdown::TOGETHER;
use crate::support::outside::{require, skip};
use crate::support::served::{MODELS, PATIENCE, Served, by_shell, serveloop};
use crate::support::sockets::Directory;

/// Ends a server, replaces it, stops it, cannot be caught, or says that the program itself is broken.
const NOT_HARMLESS: [i32; 16] = [
    libc::SIGUSR2,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGXCPU,
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGCONT,
];

/// The C library reserves these; programs cannot ignore them.
const THE_LIBRARYS: Range<i32> = if cfg!(target_env = "musl") {
    32..35
} else {
    32..34
};

/// Sends a signal by its number; those for real time have no name.
#[track_caller]
fn send(process: u32, signal: i32) {
    let sent = Command::new("kill")
        .args([format!("-{signal}"), process.to_string()])
        .status();
    assert!(sent.expect("a program that is everywhere").success());
}

#[test]
fn no_other_signal_ends_a_server() {
    for model in MODELS {
        let directory = Directory::new();
        let uri = directory.uri("unix", "socket");
        let served = Served::new(&[&["echo", "--listen", &uri], model].concat());
        let harmless =
            (1..=64).filter(|it| !NOT_HARMLESS.contains(it) && !THE_LIBRARYS.contains(it));
        for signal in harmless {
            send(served.process_id(), signal);
        }
        assert!(served.connect().echoes(), "{model:?}");
        served.signal(Signal::TERM);
        let (status, log) = served.end();
        assert_eq!(status.code(), Some(0), "{model:?}");
        assert!(!directory.path("socket").exists(), "{model:?}");
        for name in ["SIGHUP", "SIGUSR1"] {
            let told = log.iter().filter(|line| line.contains(name)).count();
            assert_eq!(told, 1, "{model:?} {name} {log:?}");
        }
    }
}

#[test]
fn a_hangup_is_logged_at_once_and_only_once() {
    for model in MODELS {
        let served = Served::new(&[&["echo", "--listen", "tcp://127.0.0.1:0"], model].concat());
        served.signal(Signal::HUP);
        served.logged("SIGHUP is ignored");
        served.signal(Signal::HUP);
        assert!(served.connect().echoes(), "{model:?}");
        served.signal(Signal::TERM);
        let (status, log) = served.end();
        assert_eq!(status.code(), Some(0), "{model:?}");
        assert!(!log.iter().any(|line| line.contains("SIGHUP")), "{log:?}");
    }
}

/// The second signal comes after the loop has looked for signals and before it waits, while it is
/// held up in writing the line about the first.
#[test]
fn a_signal_just_before_the_wait_is_logged_at_once() {
    if !require("strace") {
        return;
    }
    for model in MODELS {
        let mut command = Command::new("strace");
        command
            .args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=write"])
            .args(["-e", "inject=write:delay_exit=400000"])
            .arg(env!("CARGO_BIN_EXE_serveloop"))
            .args(["serve", "echo", "--listen", "tcp://127.0.0.1:0"])
            .args(model)
            .env_remove("RUST_LOG")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let served = Served::spawn(command);
        served.signal(Signal::HUP);
        served.logged("SIGHUP is ignored");
        served.signal(Signal::USR1);
        served.logged("SIGUSR1: open 0, accepted 0");
        served.signal(Signal::TERM);
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

/// `nohup`, and a shell that starts something in the background, ignore some of them.
#[test]
fn what_is_inherited_does_not_matter() {
    for ignored in ["HUP", "INT QUIT TERM", "CHLD PIPE URG"] {
        for model in MODELS {
            let prepare = format!("trap '' {ignored}");
            let listen = [
                "serve",
                "hello",
                "--delay",
                "50ms",
                "--listen",
                "tcp://127.0.0.1:0",
            ];
            let served = Served::spawn(by_shell(&prepare, &[&listen[..], model].concat()));
            served.signal(Signal::HUP);
            served.logged("SIGHUP is ignored");
            let mut client = served.connect();
            client.expect("Welcome!");
            client.send("bob");
            served.signal(Signal::INT);
            client.expect("Hello,bob");
            client.expect_end();
            let (status, log) = served.end();
            assert_eq!(status.code(), Some(0), "{ignored} {model:?}");
            let summary = log.last().expect("a summary");
            assert!(
                !summary.contains("closed_killed"),
                "{ignored} {model:?} {summary}"
            );
        }
    }
}

/// Blocked signals are inherited too.
#[test]
fn signals_that_were_blocked_are_heard() {
    let blocking = "import os, signal, sys; \
                    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); \
                    os.execv(sys.argv[1], sys.argv[1:])";
    let mut command = Command::new("python3");
    command
        .args(["-c", blocking, env!("CARGO_BIN_EXE_serveloop")])
        .args(["serve", "echo", "--listen", "tcp://127.0.0.1:0"])
        .env_remove("RUST_LOG")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    if Command::new("python3").arg("-V").output().is_err() {
        return skip("python3");
    }
    let served = Served::spawn(command);
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
}

#[test]
fn signals_within_half_a_second_are_one_in_every_model() {
    for model in MODELS {
        let hello = ["hello", "--delay", "200ms", "--listen", "tcp://127.0.0.1:0"];
        let served = Served::new(&[&hello[..], model].concat());
        let mut client = served.connect();
        client.expect("Welcome!");
        client.send("bob");
        for signal in [Signal::TERM, Signal::TERM, Signal::INT, Signal::QUIT] {
            served.signal(signal);
            thread::sleep(Duration::from_millis(5));
        }
        client.expect("Hello,bob");
        client.expect_end();
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

#[test]
fn a_later_signal_ends_everything_in_every_model() {
    for model in MODELS {
        let hello = ["hello", "--delay", "60s", "--listen", "tcp://127.0.0.1:0"];
        let served = Served::new(&[&hello[..], model].concat());
        let mut client = served.connect();
        client.expect("Welcome!");
        client.send("bob");
        served.signal(Signal::INT);
        thread::sleep(TOGETHER);
        served.signal(Signal::TERM);
        client.expect_cut();
        assert_eq!(served.exit_code(), Some(143), "{model:?}");
    }
}

/// A terminal's and a service manager's signals go to all processes of a server.
#[test]
fn signals_for_all_processes_leave_each_its_reply() {
    let hello = ["hello", "--delay", "300ms", "--listen", "tcp://127.0.0.1:0"];
    for signal in [Signal::TERM, Signal::QUIT, Signal::HUP, Signal::USR1] {
        let served = Served::new(&[&hello[..], &["--model", "forking"]].concat());
        let mut client = served.connect();
        client.expect("Welcome!");
        client.send("bob");
        let id = served.process_id();
        let Ok(children) = fs::read_to_string(format!("/proc/{id}/task/{id}/children")) else {
            return skip("list of child processes");
        };
        let child = children.trim().parse().ok().and_then(Pid::from_raw);
        kill_process(child.expect("one child"), signal).expect("it still runs");
        served.signal(signal);
        client.expect("Hello,bob");
        served.signal(Signal::TERM);
        client.expect_end();
        let (status, log) = served.end();
        assert_eq!(status.code(), Some(0), "{signal:?}");
        let summary = log.last().expect("a summary");
        assert!(!summary.contains("closed_killed"), "{signal:?} {summary}");
    }
}

/// In a container the server may be the first process, which a signal without a handler cannot end.
#[test]
fn the_first_process_of_a_container_ends_too() {
    let namespaces = ["-p", "-f", "--kill-child", "--mount-proc"];
    let works = Command::new("unshare")
        .args(namespaces)
        .arg("true")
        .output();
    if !works.is_ok_and(|output| output.status.success()) {
        return skip(&format!("unshare that can {namespaces:?}"));
    }
    for model in MODELS {
        let mut command = Command::new("unshare");
        command
            .args(namespaces)
            .args(serveloop(&[]).get_program().to_str())
            .args(["serve", "echo", "--listen", "tcp://127.0.0.1:0"])
            .args(model)
            .env_remove("RUST_LOG")
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let served = Served::spawn(command);
        assert!(served.connect().echoes());
        let id = served.process_id();
        let Ok(children) = fs::read_to_string(format!("/proc/{id}/task/{id}/children")) else {
            return skip("list of child processes");
        };
        send(children.trim().parse().expect("one child"), libc::SIGTERM);
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

/// A limit on processor time is a request to end, once: the system repeats it every second.
#[test]
fn spent_processor_time_drains() {
    let served = Served::new(&[
        "hello",
        "--delay",
        "1500ms",
        "--listen",
        "tcp://127.0.0.1:0",
    ]);
    let mut client = served.connect();
    client.expect("Welcome!");
    client.send("bob");
    let began = Instant::now();
    send(served.process_id(), libc::SIGXCPU);
    thread::sleep(TOGETHER);
    send(served.process_id(), libc::SIGXCPU);
    client.expect("Hello,bob");
    client.expect_end();
    assert_eq!(served.exit_code(), Some(0));
    assert!(began.elapsed() < PATIENCE);
}
