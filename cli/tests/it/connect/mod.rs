//! `serveloop connect` against our servers, and against those that do as a test says.

mod datagrams;
#[cfg(feature = "tls")]
mod secure;
mod turns;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::memory::kib;
use crate::support::outside::skip;
use crate::support::running::{Running, fill, run};
use crate::support::scripts::{Scripted, expect, noise, rest, trickle};
use crate::support::served::{PATIENCE, Served, serveloop};
use crate::support::sockets::{Directory, clogged};

const MIB: usize = 1 << 20;

/// Longer than anything here takes to stop of its own accord.
const STALL: Duration = Duration::from_millis(500);

fn echo() -> Served {
    Served::new(&["echo", "--listen", "tcp://127.0.0.1:0"])
}

#[test]
fn what_goes_in_comes_back() {
    let echo = echo();
    let bytes = noise(64 * MIB);
    let said = run(&["connect", echo.uri(0)], &bytes);
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    assert!(said.stdout == bytes, "other bytes came back");
}

#[test]
fn no_input_is_an_end() {
    let echo = echo();
    assert_eq!(run(&["connect", echo.uri(0)], "").well(), "");
    let nothing = Running::spawn(serveloop(&["connect", echo.uri(0)]));
    assert_eq!(nothing.finish(b"").well(), "");
}

/// A reply comes while the input is still open, as it does at a terminal.
#[test]
fn a_line_is_answered_before_the_next() {
    let echo = echo();
    for framing in ["raw", "line", "length", "varint", "netstring"] {
        let mut client = Running::new(&["connect", echo.uri(0), "--framing", framing]);
        let (mut stdin, mut stdout) = (client.stdin(), client.stdout());
        for line in ["one\n", "two\n"] {
            stdin.write_all(line.as_bytes()).unwrap();
            let mut reply = [0; 4];
            stdout.read_exact(&mut reply).unwrap();
            assert_eq!(reply, line.as_bytes(), "{framing}");
        }
        drop(stdin);
        assert_eq!(client.end().well(), "");
    }
}

#[test]
fn every_kind_of_socket_is_talked_to() {
    let directory = Directory::new();
    let stream = directory.uri("unix", "stream");
    let datagram = directory.uri("unixgram", "datagram");
    let mut uris = vec!["tcp://127.0.0.1:0", "udp://127.0.0.1:0", &stream, &datagram];
    if TcpListener::bind("[::1]:0").is_ok() {
        uris.extend(["tcp://[::1]:0", "udp://[::1]:0"]);
    }
    let listen = uris.iter().flat_map(|uri| ["--listen", uri]);
    let arguments: Vec<_> = ["echo"].into_iter().chain(listen).collect();
    let served = Served::new(&arguments);
    for uri in served.uris() {
        // Datagrams are not waited for as long as a busy machine may need.
        let said = run(&["connect", uri, "--timeout", "20s"], "good\n\nmorning\n");
        assert_eq!(said.well(), "good\n\nmorning\n", "{uri}");
    }
}

#[test]
fn the_reply_may_come_after_our_end() {
    let server = Scripted::new(|mut stream| {
        assert_eq!(rest(&stream), b"question");
        stream.write_all(b"answer").unwrap();
    });
    assert_eq!(
        run(&["connect", &server.uri()], "question").well(),
        "answer"
    );
    server.end();
}

#[test]
fn framed_messages_travel_as_they_should() {
    let server = Scripted::new(|mut stream| {
        expect(&stream, b"\0\0\0\x03one\0\0\0\0\0\0\0\x05three");
        assert_eq!(rest(&stream), b"");
        trickle(&stream, b"\0\0\0\x03uno\0\0\0\0");
        stream.write_all(b"\0\0\0\x03dos").unwrap();
    });
    let arguments = ["connect", &server.uri(), "--framing", "length"];
    assert_eq!(run(&arguments, "one\n\nthree").well(), "uno\n\ndos\n");
    server.end();
    let server = Scripted::new(|stream| {
        assert_eq!(rest(&stream), b"one\ntwo\n");
        trickle(&stream, b"uno\r\ndos\n");
    });
    let arguments = ["connect", &server.uri(), "--framing", "line"];
    assert_eq!(run(&arguments, "one\r\ntwo").well(), "uno\ndos\n");
    server.end();

    let long = "x".repeat(300);
    let expected = [b"\x03one\0\xac\x02", long.as_bytes()].concat();
    let server = Scripted::new(move |stream| {
        assert_eq!(rest(&stream), expected);
        trickle(&stream, b"\x03uno\0\x03dos");
    });
    let arguments = ["connect", &server.uri(), "--framing", "varint"];
    let said = run(&arguments, format!("one\n\n{long}"));
    assert_eq!(said.well(), "uno\n\ndos\n");
    server.end();

    let server = Scripted::new(|stream| {
        assert_eq!(rest(&stream), b"3:one,0:,5:three,");
        trickle(&stream, b"3:uno,0:,3:dos,");
    });
    let arguments = ["connect", &server.uri(), "--framing", "netstring"];
    assert_eq!(run(&arguments, "one\n\nthree").well(), "uno\n\ndos\n");
    server.end();
}

#[test]
fn messages_have_a_limit() {
    let server = Scripted::new(|mut stream| {
        stream
            .write_all(b"\0\0\0\x05short\xff\xff\xff\xff")
            .unwrap();
        rest(&stream);
    });
    let arguments = ["connect", &server.uri(), "--framing", "length"];
    let mut client = Running::new(&arguments);
    let said = client.end();
    assert_eq!(said.stdout, b"short\n", "what came before is printed");
    let problem = "message too long: 4294967295 bytes, at most 1048576 allowed";
    assert!(said.badly().contains(problem));
    drop(client);
    server.end();
    let echo = echo();
    let arguments = [
        "connect",
        echo.uri(0),
        "--framing",
        "line",
        "--max-message",
        "4",
    ];
    let text = run(&arguments, "12345\n").badly();
    assert!(
        text.contains("standard input: a line is longer than 4 bytes"),
        "{text}"
    );
}

#[test]
fn a_connection_that_is_cut_is_a_failure() {
    let half = Scripted::new(|mut stream| stream.write_all(b"\0\0\0\x05hal").unwrap());
    let arguments = ["connect", &half.uri(), "--framing", "length"];
    let text = Running::new(&arguments).end().badly();
    assert!(
        text.contains(&half.uri()) && text.contains("truncated"),
        "{text}"
    );
    half.end();
    // What the server leaves unread has it reset the connection.
    let reset = Scripted::new(|stream| {
        stream.peek(&mut [0]).unwrap();
    });
    let text = run(&["connect", &reset.uri()], "unread").badly();
    assert!(text.contains("connection failed"), "{text}");
    reset.end();
}

#[test]
fn the_server_may_end_first() {
    let server = Scripted::new(|mut stream| stream.write_all(b"connected").unwrap());
    // The input stays open.
    let mut client = Running::new(&["connect", &server.uri()]);
    assert_eq!(client.end().well(), "connected");
    server.end();
}

#[test]
fn nobody_there_is_a_failure_that_names_the_place() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let directory = Directory::new();
    let uris = [
        format!("tcp://{free}"),
        directory.uri("unix", "nothing"),
        directory.uri("unixgram", "nothing"),
    ];
    for uri in &uris {
        let text = run(&["connect", uri], "").badly();
        assert!(text.starts_with(&format!("serveloop: {uri}: ")), "{text}");
    }
    let port = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let text = run(&["connect", &format!("udp://{port}")], "ping\n").badly();
    assert!(text.contains("refused"), "{text}");
}

/// A name may have several addresses, of which not all are served.
#[test]
fn every_address_of_a_name_is_tried() {
    let server = Scripted::new(drop);
    let (_, port) = server.at().rsplit_once(':').unwrap();
    let uri = format!("tcp://localhost:{port}");
    assert_eq!(run(&["connect", &uri], "").well(), "");
    server.end();
}

/// The peer accepts nothing: standard input is not read without end either.
#[test]
fn a_slow_peer_slows_the_input_down() {
    let (go, gone) = mpsc::channel();
    let (arrived, all) = mpsc::channel();
    let server = Scripted::new(move |stream| {
        gone.recv_timeout(PATIENCE).unwrap();
        arrived.send(rest(&stream)).unwrap();
    });
    let (input, theirs) = UnixStream::pair().unwrap();
    let mut command = serveloop(&["connect", &server.uri()]);
    command.stdin(OwnedFd::from(theirs));
    let mut client = Running::spawn(command);
    input.set_write_timeout(Some(STALL)).unwrap();
    let bytes = noise(32 * MIB);
    let taken = fill(&input, &bytes);
    assert!(
        taken < bytes.len(),
        "everything was read though the peer accepts nothing"
    );
    assert!(peak_memory(&client) < 16 * MIB);
    go.send(()).unwrap();
    input.set_write_timeout(Some(PATIENCE)).unwrap();
    (&input).write_all(&bytes[taken..]).unwrap();
    input.shutdown(Shutdown::Write).unwrap();
    assert!(
        all.recv_timeout(PATIENCE).unwrap() == bytes,
        "other bytes arrived"
    );
    assert_eq!(client.end().well(), "");
    server.end();
}

/// Standard output is not read: the peer is not read without end either, while sending goes on.
#[test]
fn a_slow_reader_slows_the_peer_down() {
    let bytes = noise(32 * MIB);
    let sent = bytes.clone();
    let (stalled, stall) = mpsc::channel();
    let server = Scripted::new(move |mut stream| {
        stream.set_write_timeout(Some(STALL)).unwrap();
        let taken = fill(&stream, &sent);
        expect(&stream, b"still here");
        stalled.send(taken).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&sent[taken..]).unwrap();
    });
    let mut client = Running::new(&["connect", &server.uri()]);
    let (mut stdin, mut stdout) = (client.stdin(), client.stdout());
    stdin.write_all(b"still here").unwrap();
    let taken = stall.recv_timeout(PATIENCE).unwrap();
    assert!(
        taken < bytes.len(),
        "everything was read though it is not printed"
    );
    assert!(peak_memory(&client) < 16 * MIB);
    let mut printed = Vec::new();
    stdout.read_to_end(&mut printed).unwrap();
    assert!(printed == bytes, "other bytes were printed");
    server.end();
    assert_eq!(client.end().well(), "");
}

/// The most memory that a process ever had resident, in bytes; 0 where that is unknown.
fn peak_memory(client: &Running) -> usize {
    let field = |name: &str| kib(client.id(), name).unwrap_or_default() * 1024;
    // Without the pages of the program itself, which is large in a debug build.
    field("VmHWM").saturating_sub(field("RssFile"))
}

#[test]
fn a_closed_output_ends_it_quietly() {
    let echo = echo();
    let mut client = Running::new(&["connect", echo.uri(0)]);
    drop(client.stdout());
    let mut stdin = client.stdin();
    stdin.write_all(b"this is never read\n").unwrap();
    assert_eq!(client.end().well(), "");
}

/// The last piece is written when the connection is over, and has to be told all the same.
#[test]
fn an_output_that_takes_nothing_is_a_failure() {
    let Ok(full) = fs::File::options().write(true).open("/dev/full") else {
        return skip("/dev/full");
    };
    let server = Scripted::new(|mut stream| stream.write_all(b"lost").unwrap());
    let mut command = serveloop(&["connect", &server.uri()]);
    command.stdout(full);
    let text = Running::spawn(command).end().badly();
    assert!(text.contains("cannot write to standard output"), "{text}");
    server.end();
}

#[test]
fn an_interrupt_ends_it() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (said, saying) = mpsc::channel();
        let server = Scripted::new(move |stream| {
            expect(&stream, b"x");
            said.send(()).unwrap();
            rest(&stream);
        });
        let mut client = Running::new(&["connect", &server.uri()]);
        let mut stdin = client.stdin();
        stdin.write_all(b"x").unwrap();
        saying.recv_timeout(PATIENCE).unwrap();
        client.signal(signal);
        let said = client.end();
        assert_eq!((said.code, &*said.stderr), (Some(code), ""));
        server.end();
    }
}

/// Another process may have said of the descriptors that we share that they do not wait.
#[test]
fn descriptors_that_do_not_wait_are_waited_for() {
    let echo = Served::new(&[
        "echo",
        "--listen",
        "tcp://127.0.0.1:0",
        "--listen",
        "udp://127.0.0.1:0",
    ]);
    let bytes = noise(4 * MIB);
    for (uri, bytes) in [(echo.uri(0), &*bytes), (echo.uri(1), b"one\ntwo\n")] {
        let (input, theirs) = UnixStream::pair().unwrap();
        let (output, out) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        out.set_nonblocking(true).unwrap();
        let mut command = serveloop(&["connect", uri, "--timeout", "20s"]);
        command
            .stdin(OwnedFd::from(theirs))
            .stdout(OwnedFd::from(out));
        let mut client = Running::spawn(command);
        output.set_read_timeout(Some(PATIENCE)).unwrap();
        // Each time nothing is there to be read before the next half.
        for half in bytes.chunks(bytes.len() / 2) {
            let mut printed = vec![0; half.len()];
            std::thread::scope(|scope| {
                scope.spawn(|| (&input).write_all(half).expect("a reader"));
                (&output).read_exact(&mut printed).expect("an echo");
            });
            assert!(printed == half, "other bytes came back from {uri}");
        }
        drop(input);
        assert_eq!(client.end().well(), "");
    }
}

/// Also while it waits for the reader of its output.
#[test]
fn an_interrupt_needs_no_reader() {
    let server = Scripted::new(|mut stream| stream.write_all(b"a word").unwrap());
    let (_unread, full) = clogged();
    let mut command = serveloop(&["connect", &server.uri()]);
    command.stdout(full);
    let mut client = Running::spawn(command);
    server.end();
    client.signal(Signal::INT);
    assert_eq!(client.end().code, Some(130));
}

#[test]
fn patience_has_an_end() {
    let began = Instant::now();
    let server = Scripted::new(|stream| drop(rest(&stream)));
    let mut client = Running::new(&["connect", &server.uri(), "--timeout", "100ms"]);
    assert!(
        client
            .end()
            .badly()
            .contains("timed out: idle for too long")
    );
    server.end();
    assert!(began.elapsed() < PATIENCE);
}

/// A server that ends a connection when its client ends its side, and replies a little later.
fn leaving() -> Scripted {
    Scripted::new(|mut stream| {
        expect(&stream, b"ping\n");
        stream.set_read_timeout(Some(STALL)).expect("a socket");
        match stream.read(&mut [0]) {
            Ok(count) => assert_eq!(count, 0, "more than a ping"),
            Err(_) => stream.write_all(b"pong\n").expect("a client"),
        }
    })
}

#[test]
fn our_side_ends_with_the_input_unless_it_is_kept_open() {
    for (options, reply) in [(&[][..], ""), (&["--keep-open"], "pong\n")] {
        for framing in ["raw", "line"] {
            let server = leaving();
            let uri = server.uri();
            let arguments = ["connect", &uri, "--framing", framing];
            let said = run(&[&arguments[..], options].concat(), "ping\n");
            assert_eq!(said.well(), reply, "{options:?}");
            server.end();
        }
    }
}

/// A server that says `words` and then nothing, until its client leaves.
#[track_caller]
fn kept_open(words: &'static str, framing: &str) -> crate::support::running::Said {
    let server = Scripted::new(move |mut stream| {
        expect(&stream, b"ping\n");
        stream.write_all(words.as_bytes()).expect("a client");
        rest(&stream);
    });
    let uri = server.uri();
    let wait = ["--keep-open", "--timeout", "300ms", "--framing", framing];
    let said = run(&[&["connect", &*uri][..], &wait].concat(), "ping\n");
    server.end();
    said
}

#[test]
fn what_is_kept_open_ends_when_no_more_is_said() {
    assert_eq!(kept_open("pong\n", "raw").well(), "pong\n");
    assert_eq!(kept_open("pong\nping\n", "line").well(), "pong\nping\n");
    for (words, framing) in [("", "raw"), ("", "line"), ("pong\nhalf", "line")] {
        let text = kept_open(words, framing).badly();
        assert!(text.contains("timed out: idle for too long"), "{text}");
    }
}

#[test]
fn datagrams_without_a_reply_are_told() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let uri = format!("udp://{}", silent.local_addr().unwrap());
    let lines = "one\n".repeat(20);
    let text = run(&["connect", &uri, "--timeout", "50ms"], &lines).badly();
    assert!(
        text.contains("20 datagrams got no reply within 50ms"),
        "{text}"
    );
    assert_eq!(
        run(&["connect", &uri, "--timeout", "0"], "one\n").well(),
        ""
    );
}

#[test]
fn a_unix_client_has_a_path_of_its_own_for_as_long_as_it_runs() {
    for signal in [None, Some(Signal::INT)] {
        let directory = Directory::new();
        let server = UnixDatagram::bind(directory.path("server")).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let uri = directory.uri("unixgram", "server");
        let mut client = Running::new(&["connect", &uri, "--timeout", "1m"]);
        let mut stdin = client.stdin();
        stdin.write_all(b"ping\n").unwrap();
        let (_, from) = server.recv_from(&mut [0; 9]).unwrap();
        let path = PathBuf::from(from.as_pathname().unwrap());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        match signal {
            Some(signal) => {
                client.signal(signal);
                assert_eq!(client.end().code, Some(130));
            }
            None => {
                server.send_to(b"pong", &path).unwrap();
                drop(stdin);
                assert_eq!(client.end().well(), "pong\n");
            }
        }
        assert!(!path.exists(), "{}", path.display());
    }
}

#[test]
fn what_makes_no_sense_together_is_refused() {
    let cases: [(&[&str], &str); 5] = [
        (
            &["tcp://127.0.0.1:1", "--keep-open", "--protocol", "echo"],
            "cannot be used with",
        ),
        (
            &["udp://127.0.0.1:1", "--framing", "line"],
            "over datagrams each line is a message",
        ),
        (
            &["tcp://127.0.0.1:1", "--protocol", "echo", "--wire", "ready"],
            "--wire is only for",
        ),
        (&["http://127.0.0.1:1"], "unknown scheme"),
        (&["tcp://127.0.0.1:1", "--protocol", "gopher"], "gopher"),
    ];
    for (arguments, problem) in cases {
        let arguments: Vec<_> = ["connect"].iter().chain(arguments).copied().collect();
        let said = run(&arguments, "");
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains(problem), "{said:?}");
    }
}
