//! System calls fail as they do on a bad day: `strace` puts the errors in their place.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use crate::project::scenarios::{Counts, Subject, TCP, can, echoes, expect, run_by};
use crate::support::served::{PATIENCE, Served};
use crate::support::sockets::{Directory, path_of};

/// A server some of whose calls fail, and what `strace` wrote down.
pub(super) struct Tampered {
    pub(super) subject: Subject,
    directory: Directory,
}

impl Tampered {
    /// `what` is, for example, `accept4:error=EMFILE:when=1`.
    #[track_caller]
    pub(super) fn new(what: &str, arguments: &[&str]) -> Self {
        Self::tracing(
            what.split(':').next().unwrap_or_default(),
            &[what],
            arguments,
        )
    }

    #[track_caller]
    fn tracing(calls: &str, injections: &[&str], arguments: &[&str]) -> Self {
        let directory = Directory::new();
        let (trace, file) = (format!("trace={calls}"), directory.path("trace"));
        let injections: Vec<_> = injections
            .iter()
            .map(|what| format!("inject={what}"))
            .collect();
        // The server is our child and strace its child: signals and the exit status are the server's.
        let mut before = vec!["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-e", &trace];
        before.extend(injections.iter().flat_map(|what| ["-e", what]));
        before.extend(["-o", file.to_str().expect("a path in ASCII")]);
        let subject = Subject::of(Served::spawn(run_by(&before, arguments)));
        Self { subject, directory }
    }

    /// How many of the traced calls have `mark` in their line.
    pub(super) fn calls(&self, mark: &str) -> u64 {
        let text = fs::read_to_string(self.directory.path("trace")).expect("a trace");
        text.lines().filter(|line| line.contains(mark)).count() as u64
    }

    /// Waits until it has looked for clients at each of its listeners, and found none: what it
    /// accepts next is ours.
    #[track_caller]
    pub(super) fn settle(&self, listeners: u64) {
        self.subject
            .wait("settled", |_| self.calls("accept4(") == listeners);
    }

    pub(super) fn injected(&self) -> u64 {
        self.calls("(INJECTED)")
    }

    /// Ends it. Returns its counters and how many calls were made to fail.
    #[track_caller]
    fn end(self) -> (Counts, u64) {
        let Self { subject, directory } = self;
        let counts = subject.end();
        let text = fs::read_to_string(directory.path("trace")).expect("a trace");
        (counts, text.matches("(INJECTED)").count() as u64)
    }
}

const ECHO: [&str; 3] = ["echo", TCP[0], TCP[1]];

pub(super) fn is_possible() -> bool {
    can(
        "strace",
        &[
            "-D",
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-o",
            "/dev/null",
            "true",
        ],
    )
}

#[test]
fn the_last_one_in_the_queue_is_served_though_there_was_no_descriptor_for_it() {
    if !is_possible() {
        return;
    }
    let tampered = Tampered::new("accept4:error=EMFILE:when=2", &ECHO);
    tampered.settle(1);
    let mut alone = tampered.subject.client();
    echoes(&mut alone, b"nobody comes after me");
    assert_eq!(tampered.injected(), 1);
    drop(alone);
    assert_eq!(tampered.subject.end().number("accept_exhausted"), 1);
}

#[test]
fn want_of_anything_pauses_accepting_as_often_as_it_comes() {
    if !is_possible() {
        return;
    }
    let echo = [&ECHO[..], &["--accept-pause", "5ms"]].concat();
    for error in ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"] {
        let what = format!("accept4:error={error}:when=1..20");
        let tampered = Tampered::new(&what, &echo);
        let mut client = tampered.subject.client();
        echoes(&mut client, b"patience");
        drop(client);
        let (counts, injected) = tampered.end();
        assert_eq!(injected, 20, "{error}");
        assert_eq!(counts.number("accept_exhausted"), 20, "{error} {counts:?}");
    }
}

#[test]
fn a_connection_that_is_gone_is_skipped() {
    if !is_possible() {
        return;
    }
    let errors = [
        "ECONNABORTED",
        "EPROTO",
        "ENETDOWN",
        "EHOSTUNREACH",
        "EPERM",
        "EINTR",
    ];
    for error in errors {
        let tampered = Tampered::new(&format!("accept4:error={error}:when=1+2"), &ECHO);
        for _ in 0..5 {
            tampered.subject.serves();
        }
        let (counts, injected) = tampered.end();
        assert!(injected >= 5, "{error}");
        assert_eq!(counts.number("accepted"), 5, "{error}");
        assert_eq!(
            counts.number("accept_aborted"),
            injected,
            "{error} {counts:?}"
        );
    }
}

#[test]
fn a_listener_that_is_taken_away_closes_alone_and_the_last_one_ends_the_server() {
    if !is_possible() {
        return;
    }
    // musl tries again with another call when this one is EINVAL.
    let also = (!cfg!(target_env = "musl")).then_some("EINVAL");
    for error in ["EBADF", "ENOTSOCK"].into_iter().chain(also) {
        let directory = Directory::new();
        let unix = directory.uri("unix", "socket");
        let both = [&ECHO[..], &["--listen", &unix]].concat();
        let tampered = Tampered::new(&format!("accept4:error={error}:when=3..4"), &both);
        tampered.settle(2);
        let served = &tampered.subject.served;
        let mut first = tampered.subject.client();
        let line = served.logged("stopped listening");
        assert!(line.contains(served.uri(0)), "{line}");
        let outcome = first.read(&mut [0]).map_err(|problem| problem.kind());
        let reset = Err(ErrorKind::ConnectionReset);
        assert_eq!(outcome, reset, "{error}: it is never accepted");
        let second = UnixStream::connect(path_of(&unix)).expect("the other listener");
        let line = served.logged("stopped listening");
        assert!(line.contains(&unix), "{line}");
        drop(second);
        let (status, log) = tampered.subject.served.end();
        assert_eq!(status.code(), Some(1), "{error} {log:?}");
        let last = log.last().expect("a reason");
        assert!(last.starts_with("serveloop: "), "{error} {log:?}");
    }
}

#[test]
fn the_other_listener_goes_on() {
    if !is_possible() {
        return;
    }
    let directory = Directory::new();
    let unix = directory.uri("unix", "socket");
    let both = [&ECHO[..], &["--listen", &unix]].concat();
    let tampered = Tampered::new("accept4:error=EBADF:when=3", &both);
    tampered.settle(2);
    let first = tampered.subject.client();
    tampered.subject.served.logged("stopped listening");
    drop(first);
    let mut other = UnixStream::connect(path_of(&unix)).expect("the other listener");
    other.set_read_timeout(Some(PATIENCE)).expect("a socket");
    other.write_all(b"hello").expect("an open connection");
    other.read_exact(&mut [0; 5]).expect("an echo");
    drop(other);
    assert_eq!(tampered.subject.end().number("accepted"), 1);
}

#[test]
fn a_connection_that_cannot_be_watched_is_closed_alone() {
    if !is_possible() {
        return;
    }
    let untouched = Tampered::tracing("epoll_ctl", &[], &ECHO);
    untouched.subject.serves();
    let first = untouched.calls("EPOLL_CTL_ADD");
    drop(untouched);
    for error in ["ENOSPC", "ENOMEM"] {
        let what = format!("epoll_ctl:error={error}:when={first}");
        let tampered = Tampered::new(&what, &ECHO);
        let mut unlucky = tampered.subject.client();
        assert_eq!(unlucky.read(&mut [0]).expect("an end"), 0, "{error}");
        tampered.subject.serves();
        let counts = tampered.subject.end();
        assert_eq!(counts.number("register_errors"), 1, "{error} {counts:?}");
        assert_eq!(counts.number("closed_io"), 1, "{error} {counts:?}");
    }
}

#[test]
fn interrupted_calls_have_no_effect() {
    if !is_possible() {
        return;
    }
    let calls = "accept4,recvfrom,sendto,?epoll_wait,?epoll_pwait";
    let tampered = Tampered::new(&format!("{calls}:error=EINTR:when=1+2"), &ECHO);
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut client = tampered.subject.client();
    for length in 1..100 {
        echoes(&mut client, &bytes[..length]);
    }
    let mut writer = client.try_clone().expect("a socket");
    thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&bytes).expect("an open connection");
            writer.shutdown(Shutdown::Write).expect("a connection");
        });
        expect(&mut client, &bytes);
        assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    });
    assert!(tampered.injected() > 300);
    drop((client, writer));
    let counts = tampered.subject.end();
    assert_eq!(counts.number("closed_by_peer"), 1, "{counts:?}");
}

/// A socket that says that there is nothing though there is something is asked again when it says
/// that there is more: the byte stays until then, and nothing spins.
#[test]
fn a_false_would_block_neither_spins_nor_loses_anything() {
    if !is_possible() {
        return;
    }
    let tampered = Tampered::new("recvfrom:error=EAGAIN:when=1", &ECHO);
    let mut client = tampered.subject.client();
    client.write_all(b"a").expect("an open connection");
    tampered.subject.wait("asked", |_| tampered.injected() == 1);
    let asked = tampered.calls("recvfrom(");
    client.write_all(b"b").expect("an open connection");
    expect(&mut client, b"ab");
    assert_eq!(asked, 1);
    assert!(tampered.calls("recvfrom(") <= 3);
    drop(client);
    tampered.subject.end();
}

/// The third read or write of three clients, one call each.
#[track_caller]
fn third(call: &str, outcome: &str) -> (Tampered, [TcpStream; 2], TcpStream) {
    let tampered = Tampered::new(&format!("{call}:{outcome}:when=3"), &ECHO);
    let mut others = [tampered.subject.client(), tampered.subject.client()];
    for other in &mut others {
        echoes(other, b"before");
    }
    let mut third = tampered.subject.client();
    third.write_all(b"hello").expect("an open connection");
    (tampered, others, third)
}

#[test]
fn a_call_that_fails_ends_its_own_connection_only() {
    if !is_possible() {
        return;
    }
    let reads = ["ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH", "ENOMEM", "EIO"];
    let writes = ["EPIPE", "ECONNRESET", "EMSGSIZE"];
    let calls = reads.map(|error| ("recvfrom", error));
    for (call, error) in calls
        .into_iter()
        .chain(writes.map(|error| ("sendto", error)))
    {
        let (tampered, mut others, mut unlucky) = third(call, &format!("error={error}"));
        match unlucky.read(&mut [0; 9]) {
            Ok(count) => assert_eq!(count, 0, "{call} {error}"),
            Err(problem) => assert_eq!(problem.kind(), ErrorKind::ConnectionReset),
        }
        for other in &mut others {
            echoes(other, b"after");
        }
        assert_eq!(tampered.injected(), 1, "{call} {error}");
        tampered.subject.serves();
        drop((others, unlucky));
        let counts = tampered.subject.end();
        assert_eq!(counts.number("closed_io"), 1, "{call} {error} {counts:?}");
        assert_eq!(
            counts.number("closed_by_peer"),
            3,
            "{call} {error} {counts:?}"
        );
    }
}

/// `retval=0` sends nothing and says so.
#[test]
fn a_write_that_moves_nothing_is_done_later() {
    if !is_possible() {
        return;
    }
    for outcome in ["error=ENOBUFS", "error=ENOMEM", "retval=0"] {
        let (tampered, mut others, mut third) = third("sendto", outcome);
        expect(&mut third, b"hello");
        for other in &mut others {
            echoes(other, b"after");
        }
        assert_eq!(tampered.injected(), 1, "{outcome}");
        assert!(tampered.calls("sendto(") <= 8, "{outcome}");
        drop((others, third));
        let counts = tampered.subject.end();
        assert_eq!(counts.number("closed_by_peer"), 3, "{outcome} {counts:?}");
    }
}
