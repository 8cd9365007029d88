//! `serve operator`: standard output shows what each client wrote, and what is typed goes to clients.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, Stdio};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::served::{Outcome, Served, serveloop};
use crate::support::sockets::{Directory, Stream, clogged};

const TCP: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

/// A server, and where its person types.
fn serve(arguments: &[&str]) -> (Served, ChildStdin) {
    let mut command = serveloop(&["serve", "operator"]);
    command.args(TCP).args(arguments).stdin(Stdio::piped());
    let mut served = Served::spawn(command);
    let stdin = served.take_stdin();
    (served, stdin)
}

/// A server with a terminal for its standard input, and that terminal's other side.
fn serve_at_terminal() -> (Served, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).expect("our own terminal");
    unlockpt(&ours).expect("our own terminal");
    let name = ptsname(&ours, Vec::new()).expect("its name");
    let path = name.to_str().expect("a path");
    let theirs = OpenOptions::new().read(true).write(true).open(path);
    let mut command = serveloop(&["serve", "operator"]);
    command.args(TCP).stdin(theirs.expect("a terminal"));
    (Served::spawn(command), File::from(ours))
}

#[track_caller]
fn write_line(to: &mut impl Write, line: &str) {
    writeln!(to, "{line}").expect("a reader");
}

/// A client's address as it is shown.
fn address(client: &Stream) -> String {
    client.name().replace("tcp://", "")
}

#[test]
fn a_message_is_shown_and_its_reply_is_sent() {
    for model in [
        &[][..],
        &["--workers", "2"],
        &["--model", "sequential"],
        &["--model", "threaded"],
    ] {
        let (served, mut stdin) = serve(model);
        let mut client = served.connect();
        for (message, reply) in [("is anybody there?", "yes"), ("good", "good morning")] {
            client.send(message);
            let shown = format!("[1] {}: {message}", address(&client));
            assert_eq!(served.printed(), shown, "{model:?}");
            write_line(&mut stdin, reply);
            client.expect(reply);
            assert_eq!(served.printed(), format!("[1] reply: {reply}"));
        }
        client.finish();
        client.expect_end();
        served.signal(Signal::TERM);
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

/// Another process may have made the standard input that we share non-blocking.
#[test]
fn an_input_that_does_not_wait_is_waited_for() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut command = serveloop(&["serve", "operator"]);
    command.args(TCP).stdin(OwnedFd::from(theirs));
    let served = Served::spawn(command);
    let mut client = served.connect();
    for (message, reply) in [("is anybody there?", "yes"), ("good", "good morning")] {
        client.send(message);
        assert!(served.printed().ends_with(message));
        write_line(&mut ours, reply);
        client.expect(reply);
        served.printed();
    }
}

#[test]
fn several_wait_and_each_gets_its_own_reply() {
    let (served, mut stdin) = serve(&[]);
    let mut clients: Vec<_> = (1..=3).map(|_| served.connect()).collect();
    for client in &mut clients {
        client.send("me");
        assert!(
            served
                .printed()
                .ends_with(&format!("{}: me", address(client)))
        );
    }
    write_line(&mut stdin, "@2 the second");
    write_line(&mut stdin, "the first");
    write_line(&mut stdin, "@@ the third");
    clients[1].expect("the second");
    clients[0].expect("the first");
    clients[2].expect("@ the third");
    for (number, text) in [(2, "the second"), (1, "the first"), (3, "@ the third")] {
        assert_eq!(served.printed(), format!("[{number}] reply: {text}"));
    }
}

#[test]
fn others_are_served_while_one_waits_for_its_reply() {
    let (served, mut stdin) = serve(&["--idle-timeout", "200ms"]);
    let mut patient = served.connect();
    patient.send("whenever you like");
    served.printed();
    for number in 2..6 {
        let mut other = served.connect();
        other.send("quick");
        served.printed();
        write_line(&mut stdin, &format!("@{number} there"));
        other.expect("there");
        served.printed();
        drop(other);
    }
    let mut idle = served.connect();
    idle.expect_end();
    write_line(&mut stdin, "at last");
    patient.expect("at last");
}

#[test]
fn who_ends_after_asking_still_has_the_reply() {
    let (served, mut stdin) = serve(&[]);
    let mut client = served.connect();
    client.send("one question");
    client.finish();
    served.printed();
    write_line(&mut stdin, "one answer");
    client.expect("one answer");
    client.expect_end();
}

#[test]
fn nothing_that_a_client_sends_drives_the_terminal() {
    let (served, _stdin) = serve(&[]);
    let mut client = served.connect();
    client.send("\x1b[2J[9] reply: fake\nnext\u{202e}\\");
    let shown = served.printed();
    let expected = r": \u{1b}[2J[9] reply: fake\nnext\u{202e}\\";
    assert!(shown.ends_with(expected), "{shown}");
}

#[test]
fn lines_are_messages_if_asked_for() {
    let (served, mut stdin) = serve(&["--framing", "line"]);
    let mut client = served.connect();
    client.send("one\r\ntwo\nthr");
    assert!(served.printed().ends_with(": one"));
    write_line(&mut stdin, "1");
    client.expect("1\n");
    assert_eq!(served.printed(), "[1] reply: 1");
    assert!(served.printed().ends_with(": two"));
    client.send("ee\n");
    write_line(&mut stdin, "2");
    client.expect("2\n");
    assert_eq!(served.printed(), "[1] reply: 2");
    assert!(served.printed().ends_with(": three"));
}

#[test]
fn prepared_replies_wait_for_who_asks() {
    let (served, mut stdin) = serve(&[]);
    stdin.write_all(b"first\n\nsecond").expect("a reader");
    drop(stdin);
    for reply in ["first", "second"] {
        let mut client = served.connect();
        client.send("hello");
        client.expect(reply);
        served.printed();
        served.printed();
    }
    served.logged("standard input has ended");
    let mut client = served.connect();
    for message in ["only shown", "shown too"] {
        client.send(message);
        assert!(served.printed().ends_with(message));
    }
    client.finish();
    client.expect_end();
}

#[test]
fn without_standard_input_messages_are_shown() {
    let mut command = serveloop(&["serve", "operator"]);
    command.args(TCP).stdin(Stdio::null());
    let served = Served::spawn(command);
    served.logged("standard input has ended");
    let mut client = served.connect();
    client.send("hello?");
    assert!(served.printed().ends_with(": hello?"));
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
}

#[test]
fn at_a_terminal_a_mistake_is_told_at_once() {
    let (served, mut terminal) = serve_at_terminal();
    write_line(&mut terminal, "hello?");
    served.logged("not sent: no client is connected");
    let mut first = served.connect();
    first.send("one");
    served.printed();
    let mut second = served.connect();
    second.send("two");
    served.printed();
    write_line(&mut terminal, "@9 hello");
    served.logged("not sent: client 9 is not connected");
    write_line(&mut terminal, "@bob hello");
    served.logged(
        "not sent: after @, type a client's number and a text, for example @2 good morning",
    );
    write_line(&mut terminal, "answer");
    first.expect("answer");
    write_line(&mut terminal, "@2 answer");
    second.expect("answer");
    write_line(&mut terminal, "another");
    served.logged("not sent: no client waits for a reply; @NUMBER TEXT sends to one of [1, 2]");
    write_line(&mut terminal, "@1 unasked");
    first.expect("unasked");
    served.signal(Signal::TERM);
    for expected in [
        "[1] reply: answer",
        "[2] reply: answer",
        "[1] reply: unasked",
    ] {
        assert_eq!(served.printed(), expected);
    }
    assert_eq!(served.exit_code(), Some(0));
}

#[test]
fn who_had_no_reply_in_time_is_let_go() {
    let (served, _stdin) = serve(&["--reply-timeout", "50ms"]);
    let mut client = served.connect();
    client.send("hello?");
    client.expect_end();
    served.logged("client 1 got no reply in time");
}

/// What cannot be shown is not lost: it waits with its client, and holds up no other client.
#[test]
fn an_output_that_nobody_reads_ends_nothing() {
    let directory = Directory::new();
    let at = directory.uri("unix", "socket");
    let (_reader, stdout) = clogged();
    let mut command = serveloop(&["serve", "operator", "--listen", &at]);
    command.stdin(Stdio::null()).stdout(stdout);
    let served = Served::spawn_unheard(command);
    served.logged("standard input has ended");
    for _ in 0..3 {
        let mut client = Stream::connect(&at);
        client.send("hello?");
        client.finish();
        client.expect_end();
    }
    served.signal(Signal::TERM);
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0));
    let lost = log
        .iter()
        .find(|line| line.contains("bytes were not written"));
    assert!(lost.is_some(), "{log:?}");
}

/// With standard output closed, the operator can still type.
#[test]
fn a_reply_that_cannot_be_shown_is_sent() {
    let directory = Directory::new();
    let at = directory.uri("unix", "socket");
    let (reader, stdout) = clogged();
    let mut command = serveloop(&["serve", "operator", "--listen", &at]);
    command.stdin(Stdio::piped()).stdout(stdout);
    let mut served = Served::spawn_unheard(command);
    let mut stdin = served.take_stdin();
    served.logged("cannot write to standard output: ");
    let mut client = Stream::connect(&at);
    client.send("hello?");
    served.logged("accepted");
    drop(reader);
    served.logged("bytes were lost");
    write_line(&mut stdin, "still here");
    client.expect("still here");
}

#[test]
fn what_leaves_no_way_for_a_reply_is_refused() {
    let cases: [(&[&str], &str); 3] = [
        (&["--listen", "udp://127.0.0.1:0"], "a datagram cannot wait"),
        (
            &["--listen", "unixgram:///nowhere/socket"],
            "a datagram cannot wait",
        ),
        (
            &["--model", "forking"],
            "cannot be served with --model forking",
        ),
    ];
    for (arguments, expected) in cases {
        let outcome = Outcome::new(&[&["serve", "operator"], arguments].concat());
        assert_eq!(outcome.code, Some(2), "{arguments:?}");
        assert_eq!(outcome.stdout, "");
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    }
}
