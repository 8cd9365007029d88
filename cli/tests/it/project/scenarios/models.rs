//! What goes wrong around threads and processes: there is none to be had, one fails, its parent is
//! told too late, or the server's parent left it odd signals.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};

use super::calls::{Tampered, is_possible};
use crate::project::scenarios::{Counts, Subject, TCP, can, connect, echoes, run_by};
use crate::support::outside::skip;
use crate::support::served::{Outcome, PATIENCE, Served, serveloop};
use crate::support::sockets::{Directory, path_of};

const MODELS: [&[&str]; 5] = [
    &["--model", "event-loop"],
    &["--workers", "3"],
    &["--model", "sequential"],
    &["--model", "threaded"],
    &["--model", "forking"],
];

/// Less than the default time that a drain may take.
const PROMPT: Duration = Duration::from_secs(8);

/// The call that a C library makes a thread with.
const THREAD: &str = if cfg!(target_env = "musl") {
    "clone"
} else {
    "clone3"
};

/// The command under `strace`, which makes calls fail, and the server our child.
fn strace(what: &str, arguments: &[&str]) -> Command {
    let (trace, inject) = (
        what.split(':').next().unwrap_or(what),
        format!("inject={what}"),
    );
    let trace = format!("trace={trace}");
    let before = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-e",
        &trace,
        "-e",
        &inject,
        "-o",
        "/dev/null",
    ];
    run_by(&before, arguments)
}

/// Ends a forking, threading or other server and returns its counters.
#[track_caller]
fn end(served: Served) -> Counts {
    served.signal(Signal::TERM);
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
    let counts = Counts::of(&log);
    assert_eq!(counts.number("accepted"), counts.closed(), "{log:?}");
    counts
}

fn client_of(served: &Served) -> TcpStream {
    connect(crate::support::sockets::socket_addr(served.uri(0)))
}

/// The numbers of a process's children.
fn children(process: u32) -> Vec<Pid> {
    let path = format!("/proc/{process}/task/{process}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    let numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    numbers.filter_map(Pid::from_raw).collect()
}

/// The number of the listener that failed is the next client's: a child that closed it by number
/// would close its own connection.
#[test]
fn children_of_a_server_that_lost_a_listener_are_served() {
    if !is_possible() {
        return;
    }
    let directory = Directory::new();
    let unix = directory.uri("unix", "socket");
    let arguments = [
        "echo", TCP[0], TCP[1], "--listen", &unix, "--model", "forking",
    ];
    let tampered = Tampered::new("accept4:error=EBADF:when=3", &arguments);
    tampered.settle(2);
    let first = tampered.subject.client();
    tampered.subject.served.logged("stopped listening");
    drop(first);
    for _ in 0..5 {
        let mut other = UnixStream::connect(path_of(&unix)).expect("the other listener");
        other.set_read_timeout(Some(PATIENCE)).expect("a socket");
        other.write_all(b"hello").expect("an open connection");
        other.read_exact(&mut [0; 5]).expect("an echo");
    }
    let counts = end(tampered.subject.served);
    assert_eq!(counts.number("accepted"), 5, "{counts:?}");
    assert_eq!(counts.number("closed_killed"), 0, "{counts:?}");
}

/// The listeners are closed when the queue is served, and their numbers are the reports' of children.
#[test]
fn children_that_begin_after_the_listeners_closed_are_served() {
    let directory = Directory::new();
    let unix = directory.uri("unix", "socket");
    let served = Served::new(&[
        "echo",
        TCP[0],
        TCP[1],
        "--listen",
        &unix,
        "--model",
        "forking",
        "--max-children",
        "1",
    ]);
    let mut first = client_of(&served);
    echoes(&mut first, b"first");
    let mut queued: Vec<_> = (0..4).map(|_| client_of(&served)).collect();
    for client in &mut queued {
        client.write_all(b"queued").expect("an open connection");
    }
    served.logged("clients wait");
    served.signal(Signal::TERM);
    for mut client in queued {
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).expect("an orderly end");
        assert_eq!(reply, b"queued");
    }
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
    let counts = Counts::of(&log);
    assert_eq!(counts.number("accepted"), 5, "{log:?}");
    assert_eq!(counts.number("closed_by_shutdown"), 5, "{log:?}");
}

/// Something that every server needs cannot be had: one line, and the status 1.
#[test]
fn a_server_that_cannot_begin_says_why_in_one_line() {
    if !is_possible() {
        return;
    }
    let first = format!("{THREAD}:error=EAGAIN:when=1");
    let third = format!("{THREAD}:error=EAGAIN:when=3");
    let calls = [
        ("epoll_create1:error=EMFILE", "event loop"),
        ("socketpair:error=EMFILE", "cannot create"),
        ("eventfd2:error=ENFILE", "event loop"),
        (&*first, "cannot start"),
        (&*third, "cannot start worker 3 of 3"),
        ("epoll_ctl:error=ENOSPC:when=2", "cannot watch a listener"),
    ];
    for (what, why) in calls {
        for model in MODELS {
            let workers = model[0] == "--workers";
            let threads = workers || model[1] == "sequential";
            if what.starts_with(THREAD) && (!threads || (why.contains("of 3") && !workers)) {
                continue;
            }
            let began = Instant::now();
            let arguments = [&["echo", TCP[0], TCP[1]], model].concat();
            let outcome = Outcome::of(strace(what, &arguments));
            assert_eq!(outcome.code, Some(1), "{what} {model:?} {}", outcome.stderr);
            assert_eq!(
                outcome.stderr.lines().count(),
                1,
                "{what} {model:?} {}",
                outcome.stderr
            );
            let said = outcome.stderr;
            assert!(said.starts_with("serveloop: "), "{what} {model:?} {said}");
            assert!(said.contains(why), "{what} {model:?} {said}");
            assert!(began.elapsed() < PROMPT, "{what} {model:?}");
        }
    }
}

/// The poller of one loop fails while clients are served: the whole server ends, with one reason.
#[test]
fn a_loop_that_fails_ends_the_whole_server() {
    if !is_possible() {
        return;
    }
    for model in MODELS {
        let arguments = [&["echo", TCP[0], TCP[1], "--drain-timeout", "1s"], model].concat();
        let calls = "?epoll_wait,?epoll_pwait,?epoll_pwait2";
        let served = Served::spawn(strace(&format!("{calls}:error=EBADF:when=3+"), &arguments));
        let addr = crate::support::sockets::socket_addr(served.uri(0));
        let began = Instant::now();
        // Clients wake a loop until it fails.
        let mut clients = Vec::new();
        while let Ok(mut client) = TcpStream::connect(addr) {
            let _ = client.write_all(b"hello");
            let _ = client.shutdown(Shutdown::Write);
            clients.push(client);
            assert!(began.elapsed() < PROMPT, "{model:?}");
            std::thread::yield_now();
        }
        let (status, log) = served.end();
        assert_eq!(status.code(), Some(1), "{model:?} {log:?}");
        let reasons = log.iter().filter(|line| line.starts_with("serveloop: "));
        assert_eq!(reasons.count(), 1, "{model:?} {log:?}");
        assert!(!log.iter().any(|line| line.contains("panicked")), "{log:?}");
    }
}

/// Two descriptors for each client, where the limit has room for one: those that fit are served.
#[test]
fn wakers_count_as_descriptors_of_threads() {
    let operator = ["operator", TCP[0], TCP[1], "--model", "threaded"];
    let script = "ulimit -n 64 && exec \"$@\"";
    let served = Served::spawn(run_by(&["sh", "-c", script, "sh"], &operator));
    // One after the other: each that fits has its waker before the next one comes.
    let clients = (0..30).map(|number| {
        let mut client = client_of(&served);
        if number < 16 {
            client.write_all(b"me").unwrap();
            assert!(served.printed().ends_with("me"));
        }
        client
    });
    let mut clients: Vec<_> = clients.collect();
    let refused = served.logged("refused");
    assert!(refused.contains("descriptors"), "{refused}");
    let ended = clients
        .iter_mut()
        .skip(20)
        .map(|client| client.read(&mut [0]).unwrap_or(0));
    assert_eq!(
        ended.collect::<Vec<_>>(),
        [0; 10],
        "the last ones are refused"
    );
    drop(clients);
    served.signal(Signal::TERM);
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:?}");
    let counts = Counts::of(&log);
    let (accepted, refused) = (
        counts.number("accepted"),
        counts.number("refused_max_connections"),
    );
    assert_eq!((accepted, refused), (16, 14), "{log:?}");
    assert_eq!(accepted, counts.closed(), "{log:?}");
}

/// The limit falls below what the server counts on, so that the system has none for a waker.
#[test]
fn a_waker_without_a_descriptor_ends_its_own_connection() {
    let mut command = serveloop(&["serve", "operator", "--model", "threaded"]);
    // While a person may still type, each connection needs a waker.
    command.args(TCP).stdin(Stdio::piped());
    let subject = Subject::of(Served::spawn(command));
    let process = Pid::from_raw(i32::try_from(subject.served.process_id()).expect("a number"));
    let usual = getrlimit(Resource::Nofile);
    // The connection has the last one.
    let directory = format!("/proc/{}/fd", subject.served.process_id());
    let taken = |number: &u64| fs::symlink_metadata(format!("{directory}/{number}")).is_ok();
    let next = (0..).find(|number| !taken(number)).expect("a free number");
    let tight = Rlimit {
        current: Some(next + 1),
        maximum: usual.maximum,
    };
    prlimit(process, Resource::Nofile, tight).expect("our child");
    let mut client = subject.client();
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    subject.served.logged("cannot create a waker");
    let roomy = Rlimit {
        current: usual.current,
        maximum: usual.maximum,
    };
    prlimit(process, Resource::Nofile, roomy).expect("our child");
    let counts = end(subject.served);
    assert_eq!(counts.number("closed_io"), 1, "{counts:?}");
    assert_eq!(counts.number("panics"), 0, "{counts:?}");
}

/// A child that waits for its own delay in the drain knows of it, and needs no further signal.
#[test]
fn a_child_that_knows_of_the_drain_is_left_alone() {
    if !is_possible() {
        return;
    }
    let directory = Directory::new();
    let file = directory.path("trace");
    let before = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-e",
        "trace=none",
        "-e",
        "signal=SIGURG",
        "-o",
        file.to_str().expect("a path in ASCII"),
    ];
    let hello = [
        "hello", TCP[0], TCP[1], "--model", "forking", "--delay", "1s",
    ];
    let served = Served::spawn(run_by(&before, &hello));
    let mut client = served.connect();
    client.expect("Welcome!");
    client.send("bob");
    served.signal(Signal::TERM);
    client.expect("Hello,bob");
    client.expect_end();
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
    let text = fs::read_to_string(file).expect("a trace");
    let signals = text.matches("SIGURG").count();
    assert!((1..=20).contains(&signals), "{signals} signals");
}

/// They are told of, and what they wait for a process is not what they have for their first message.
#[test]
fn clients_that_wait_for_a_process_are_told_of_and_have_all_their_time() {
    let served = Served::new(&[
        "echo",
        TCP[0],
        TCP[1],
        "--model",
        "forking",
        "--max-children",
        "1",
        "--first-message-timeout",
        "1s",
    ]);
    let began = Instant::now();
    let mut silent = client_of(&served);
    let mut waiting = client_of(&served);
    let line = served.logged("clients wait");
    assert!(
        line.contains("WARN") && line.contains(served.uri(0)),
        "{line}"
    );
    assert!(line.contains("max_children"), "{line}");
    assert_eq!(silent.read(&mut [0]).expect("an end"), 0);
    assert_eq!(waiting.read(&mut [0]).expect("an end"), 0);
    assert!(began.elapsed() >= Duration::from_secs(2));
    served.signal(Signal::TERM);
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0));
    let warnings = log.iter().filter(|line| line.contains("clients wait"));
    assert!(warnings.count() <= 4, "{log:?}");
}

#[test]
fn nobody_is_said_to_wait_who_does_not() {
    let served = Served::new(&[
        "echo",
        TCP[0],
        TCP[1],
        "--model",
        "forking",
        "--max-children",
        "2",
    ]);
    let mut clients = [client_of(&served), client_of(&served)];
    for client in &mut clients {
        echoes(client, b"hello");
    }
    drop(clients);
    served.signal(Signal::TERM);
    let (_, log) = served.end();
    assert!(!log.iter().any(|line| line.contains("WARN")), "{log:?}");
}

#[test]
fn the_number_of_open_connections_is_said_in_every_model() {
    for model in MODELS {
        let served = Served::new(&[&["echo", TCP[0], TCP[1]], model].concat());
        let count = if model[1] == "sequential" { 1 } else { 7 };
        let mut clients: Vec<_> = (0..count).map(|_| client_of(&served)).collect();
        for client in &mut clients {
            echoes(client, b"hello");
        }
        served.signal(Signal::TERM);
        let (status, log) = served.end();
        assert_eq!(status.code(), Some(0), "{model:?}");
        let lines = log.iter().filter(|line| line.contains("shutting down"));
        let lines: Vec<_> = lines.collect();
        let connections = if count == 1 {
            "connection"
        } else {
            "connections"
        };
        let expected = format!("shutting down: {count} {connections} open");
        assert_eq!(lines.len(), 1, "{model:?} {log:?}");
        assert!(lines[0].ends_with(&expected), "{model:?} {log:?}");
    }
}

/// A hundred lines in a second, and the rest counted, however many processes have something to say.
#[test]
fn all_processes_share_one_budget_of_log_lines() {
    const CLIENTS: usize = 400;
    let served = Served::new(&["greet", TCP[0], TCP[1], "--model", "forking"]);
    let began = Instant::now();
    for _ in 0..CLIENTS {
        let mut client = served.connect();
        client.expect("connected");
        client.expect_end();
    }
    served.signal(Signal::TERM);
    let (status, log) = served.end();
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("a short test") + 2;
    assert_eq!(status.code(), Some(0));
    let about = |line: &&String| line.contains("tcp://") && line.contains("INFO");
    let lines = log.iter().filter(about).count();
    assert!(lines <= 100 * seconds, "{lines} lines in {seconds} s");
    let left_out = log.iter().filter_map(|line| {
        let (_, rest) = line.split_once("] (")?;
        rest.split(' ').next()?.parse::<usize>().ok()
    });
    assert_eq!(lines + left_out.sum::<usize>(), 2 * CLIENTS);
}

/// As a parent leaves it that ignores SIGCHLD: a child's number would be free for others at once.
#[test]
fn children_are_counted_though_sigchld_was_ignored() {
    if !can("python3", &["-c", "import signal"]) {
        return;
    }
    let script = "import os, signal, sys\n\
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    let arguments = ["echo", TCP[0], TCP[1], "--model", "forking"];
    let served = Served::spawn(run_by(&["python3", "-c", script], &arguments));
    let mut client = client_of(&served);
    echoes(&mut client, b"hello");
    // Held by nothing but its parent, which does not look while it is stopped.
    served.signal(Signal::STOP);
    let [child] = children(served.process_id())[..] else {
        return skip("list of child processes");
    };
    kill_process(child, Signal::KILL).expect("it still runs");
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    let path = format!("/proc/{}/stat", child.as_raw_nonzero());
    let until = Instant::now() + PATIENCE;
    while !fs::read_to_string(&path).is_ok_and(|stat| stat.contains(") Z ")) {
        assert!(Instant::now() < until, "its number is not kept");
        std::thread::yield_now();
    }
    served.signal(Signal::CONT);
    let mut other = client_of(&served);
    echoes(&mut other, b"still here");
    drop(other);
    let counts = end(served);
    assert_eq!(counts.number("closed_killed"), 1, "{counts:?}");
}

/// Blocked calls end by SIGURG, which the server's parent may have blocked.
#[test]
fn a_blocked_read_ends_though_sigurg_was_kept_back() {
    let script = "import os, signal, sys\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    if !can("python3", &["-c", "import signal"]) {
        return;
    }
    for model in ["sequential", "threaded", "forking"] {
        let arguments = ["echo", TCP[0], TCP[1], "--model", model];
        let served = Served::spawn(run_by(&["python3", "-c", script], &arguments));
        let mut client = client_of(&served);
        echoes(&mut client, b"hello");
        let began = Instant::now();
        let counts = end(served);
        assert_eq!(counts.number("closed_by_shutdown"), 1, "{model} {counts:?}");
        assert!(began.elapsed() < PROMPT, "{model}");
    }
}

/// The system has no process, thread, pair of sockets or watch for one connection: it is refused and
/// counted, and the next one is served.
#[test]
fn a_connection_that_cannot_be_handed_over_is_refused_alone() {
    if !is_possible() {
        return;
    }
    let untouched = ["echo", TCP[0], TCP[1], "--model", "forking"];
    let quiet = Tampered::new("epoll_ctl:error=ENOSPC:when=999", &untouched);
    quiet.subject.serves();
    let first = quiet.calls("EPOLL_CTL_ADD");
    drop(quiet);
    let watch = format!("epoll_ctl:error=ENOSPC:when={first}");
    let process = "?clone,?clone3,?fork,?vfork";
    let cases = [
        ("forking", "socketpair:error=EMFILE:when=2".to_owned()),
        ("forking", watch),
        ("forking", format!("{process}:error=EAGAIN:when=1")),
        ("forking", format!("{process}:error=ENOMEM:when=1")),
        ("threaded", format!("{THREAD}:error=EAGAIN:when=1")),
    ];
    for (model, what) in cases {
        let arguments = ["echo", TCP[0], TCP[1], "--model", model];
        let served = Served::spawn(strace(&what, &arguments));
        let mut unlucky = client_of(&served);
        assert_eq!(unlucky.read(&mut [0]).unwrap_or(0), 0, "{model} {what}");
        let line = served.logged("cannot start a thread or process");
        assert!(line.contains("WARN"), "{model} {what} {line}");
        let mut next = client_of(&served);
        echoes(&mut next, b"hello");
        drop(next);
        served.signal(Signal::TERM);
        let (status, log) = served.end();
        assert_eq!(status.code(), Some(0), "{model} {what} {log:?}");
        assert!(!log.iter().any(|line| line.contains("panicked")), "{log:?}");
        let counts = Counts::of(&log);
        assert_eq!(
            counts.number("refused_by_system"),
            1,
            "{model} {what} {log:?}"
        );
        assert_eq!(counts.number("accepted"), 1, "{model} {what} {log:?}");
    }
}

/// A protocol's own threads are part of the server.
#[test]
fn a_protocol_without_its_thread_says_so_in_one_line() {
    if !is_possible() {
        return;
    }
    let cases = [
        ("print", 1, "a thread for standard output"),
        ("operator", 1, "a thread for standard output"),
        ("operator", 2, "a thread for standard input"),
    ];
    for (protocol, when, why) in cases {
        let what = format!("{THREAD}:error=EAGAIN:when={when}");
        let outcome = Outcome::of(strace(&what, &[protocol, TCP[0], TCP[1]]));
        assert_eq!(outcome.code, Some(1), "{protocol} {}", outcome.stderr);
        assert_eq!(
            outcome.stderr.lines().count(),
            1,
            "{protocol} {}",
            outcome.stderr
        );
        assert!(
            outcome.stderr.contains(why),
            "{protocol} {}",
            outcome.stderr
        );
    }
}

/// One at a time: a client that had to wait for long is logged when its turn has come.
#[test]
fn a_sequential_server_says_that_somebody_waited() {
    let served = Served::new(&[
        "echo",
        TCP[0],
        TCP[1],
        "--model",
        "sequential",
        "--first-message-timeout",
        "1200ms",
    ]);
    let mut silent = client_of(&served);
    let mut waiting = client_of(&served);
    waiting.write_all(b"hello").expect("an open connection");
    assert_eq!(silent.read(&mut [0]).expect("an end"), 0);
    let mut reply = [0; 5];
    waiting.read_exact(&mut reply).expect("an echo");
    drop((silent, waiting));
    let line = served.logged("one connection is served at a time");
    assert!(line.contains("WARN"), "{line}");
    end(served);
}
