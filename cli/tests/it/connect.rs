//! `serveloop connect` against our servers, and against those that do as a test says.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::running::{Running, fill, run};
use crate::scripts::{Scripted, expect, noise, rest, trickle};
use crate::served::{PATIENCE, Served, serveloop};
use crate::sockets::{Directory, clogged};
use crate::terminal::terminal;

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
    for framing in ["raw", "line", "length"] {
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
        text.contains("standard input: a line of more than 4 bytes"),
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

/// A name may stand for several addresses, of which not all are served.
#[test]
fn every_address_of_a_name_is_tried() {
    let server = Scripted::new(drop);
    let (_, port) = server.at().rsplit_once(':').unwrap();
    let uri = format!("tcp://localhost:{port}");
    assert_eq!(run(&["connect", &uri], "").well(), "");
    server.end();
}

/// The peer takes nothing: neither is standard input read for ever.
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
        "everything was read though nobody takes it"
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

/// Nobody reads standard output: neither is the peer read for ever, while sending goes on.
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
        "everything was read though nobody prints it"
    );
    assert!(peak_memory(&client) < 16 * MIB);
    let mut printed = Vec::new();
    stdout.read_to_end(&mut printed).unwrap();
    assert!(printed == bytes, "other bytes were printed");
    server.end();
    assert_eq!(client.end().well(), "");
}

/// The most memory that a process ever had resident, in bytes; 0 where nobody knows.
fn peak_memory(client: &Running) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", client.id())).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    kilobytes.map_or(0, |count| count.parse::<usize>().expect("a number") * 1024)
}

#[test]
fn a_closed_output_ends_it_quietly() {
    let echo = echo();
    let mut client = Running::new(&["connect", echo.uri(0)]);
    drop(client.stdout());
    let mut stdin = client.stdin();
    stdin.write_all(b"nobody reads this\n").unwrap();
    assert_eq!(client.end().well(), "");
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

/// Also while it waits for who reads its output.
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

#[test]
fn hello_is_talked_in_turns() {
    let served = Served::new(&["hello", "--delay", "20ms", "--listen", "tcp://127.0.0.1:0"]);
    let arguments = ["connect", served.uri(0), "--protocol", "hello"];
    let said = run(&arguments, "Michael\n\nTracy\nChenqi\nexit\n");
    let expected = "Welcome!\nHello,Michael\nHello,Tracy\nHello,Chenqi\n";
    assert_eq!(said.well(), expected);
    assert_eq!(run(&arguments, "").well(), "Welcome!\n");
}

#[test]
fn turns_do_not_depend_on_how_replies_are_cut() {
    let server = Scripted::new(|stream| {
        trickle(&stream, b"Welcome!");
        expect(&stream, b"Michael");
        trickle(&stream, b"Hello,Michael");
        expect(&stream, b"exit");
    });
    let arguments = ["connect", &server.uri(), "--protocol", "hello"];
    assert_eq!(
        run(&arguments, "Michael\nexit\n").well(),
        "Welcome!\nHello,Michael\n"
    );
    server.end();
}

#[test]
fn echo_and_operator_are_talked_in_turns() {
    let served = echo();
    let arguments = ["connect", served.uri(0), "--protocol", "echo"];
    assert_eq!(run(&arguments, "one\n\ntwo\n").well(), "one\ntwo\n");
    let server = Scripted::new(|mut stream| {
        for (question, answer) in [(b"how?", b"so"), (b"why?", b"ah")] {
            expect(&stream, question);
            stream.write_all(answer).unwrap();
        }
        assert_eq!(rest(&stream), b"");
    });
    let arguments = ["connect", &server.uri(), "--protocol", "operator"];
    assert_eq!(run(&arguments, "how?\n\nwhy?\n").well(), "so\nah\n");
    server.end();
}

#[test]
fn an_empty_line_ends_a_talk_about_time() {
    let server = Scripted::new(|mut stream| {
        expect(&stream, b"hi");
        stream.write_all(b"[Thu Jan  1 00:00:00 1970] hi").unwrap();
        assert_eq!(rest(&stream), b"");
    });
    let arguments = ["connect", &server.uri(), "--protocol", "timestamp"];
    let said = run(&arguments, "hi\n\nnever sent\n");
    assert_eq!(said.well(), "[Thu Jan  1 00:00:00 1970] hi\n");
    server.end();
}

/// A server as the tutorials write it, in Python, for one connection.
struct Python(Child);

impl Python {
    /// Runs the server of that name; gives where it listens. None without Python.
    fn new(name: &str) -> Option<(Self, String)> {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/clients/tutorial_servers.py"
        );
        let mut command = Command::new("python3");
        let spawned = command.args([script, name]).stdout(Stdio::piped()).spawn();
        let Ok(child) = spawned else {
            println!("skipped: no python3");
            return None;
        };
        let mut python = Self(child);
        let mut port = String::new();
        let stdout = python.0.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut port).expect("a port");
        Some((python, format!("tcp://127.0.0.1:{}", port.trim())))
    }

    #[track_caller]
    fn end(mut self) {
        assert!(self.0.wait().expect("our child").success());
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Talks to the server of that name; gives what is printed. None without Python.
#[track_caller]
fn tutorial(name: &str, protocol: &[&str], input: &str) -> Option<String> {
    let (python, uri) = Python::new(name)?;
    let arguments = ["connect", &uri, "--protocol"];
    let arguments: Vec<_> = arguments.iter().chain(protocol).copied().collect();
    let printed = run(&arguments, input).well();
    python.end();
    Some(printed)
}

#[test]
fn servers_of_the_tutorials_are_talked_to() {
    let Some(printed) = tutorial("hello", &["hello"], "Michael\nTracy\nChenqi\nexit\n") else {
        return;
    };
    let expected = "Welcome!\nHello,Michael\nHello,Tracy\nHello,Chenqi\n";
    assert_eq!(printed, expected);
    let printed = tutorial("echo", &["echo"], "one\n\ntwo\n");
    assert_eq!(printed.unwrap(), "one\ntwo\n");
    let printed = tutorial("timestamp", &["timestamp"], "hi\n\n").unwrap();
    assert!(
        printed.starts_with('[') && printed.ends_with("] hi\n"),
        "{printed}"
    );
    assert_eq!(printed.len(), "[Thu Jan  1 00:00:00 1970] hi\n".len());
}

#[test]
fn commands_of_the_tutorials_have_all_their_output() {
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    for wire in ["ready", "struct"] {
        let input = "seq 100000\n\ntrue\nprintf last\nquit\n";
        let Some(printed) = tutorial(wire, &["command", "--wire", wire], input) else {
            return;
        };
        let rest = printed.strip_prefix(&numbers);
        assert_eq!(rest, Some("last"), "{wire}: {} bytes", printed.len());
    }
}

/// Talks to a server of commands: `ls` has an output of 300,000 bytes, `true` none.
#[track_caller]
fn commands(wire: &str, server: Scripted, output: &[u8]) {
    let arguments = [
        "connect",
        &server.uri(),
        "--protocol",
        "command",
        "--wire",
        wire,
    ];
    let said = run(&arguments, "\nls -l\ntrue\nquit\nnever sent\n");
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    assert!(said.stdout == output, "{} bytes", said.stdout.len());
    server.end();
}

#[test]
fn commands_are_framed() {
    let output = noise(300_000);
    let reply = output.clone();
    let server = Scripted::new(move |mut stream| {
        expect(&stream, b"\0\0\0\x05ls -l");
        trickle(&stream, &300_000_u32.to_be_bytes());
        stream.write_all(&reply).unwrap();
        expect(&stream, b"\0\0\0\x04true");
        stream.write_all(&[0; 4]).unwrap();
        assert_eq!(rest(&stream), b"");
    });
    commands("framed", server, &output);
}

#[test]
fn commands_are_answered_after_a_signed_length() {
    let output = noise(300_000);
    let reply = output.clone();
    let server = Scripted::new(move |mut stream| {
        expect(&stream, b"ls -l");
        trickle(&stream, &300_000_i32.to_le_bytes());
        stream.write_all(&reply).unwrap();
        expect(&stream, b"true");
        stream.write_all(&[0; 4]).unwrap();
        assert_eq!(rest(&stream), b"");
    });
    commands("struct", server, &output);
}

#[test]
fn commands_are_answered_when_the_client_is_ready() {
    let output = noise(300_000);
    let reply = output.clone();
    let server = Scripted::new(move |mut stream| {
        expect(&stream, b"ls -l");
        trickle(&stream, b"300000");
        expect(&stream, b"ready");
        stream.write_all(&reply).unwrap();
        expect(&stream, b"true");
        stream.write_all(b"0").unwrap();
        expect(&stream, b"ready");
        assert_eq!(rest(&stream), b"");
    });
    commands("ready", server, &output);
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let cases: [(&str, &[u8], &str); 4] = [
        (
            "framed",
            b"\xff\xff\xff\xff",
            "4294967295 bytes, at most 1073741824 allowed",
        ),
        ("struct", b"\xff\xff\xff\xff", "a negative length, -1"),
        ("ready", b"9999999999", "9999999999 bytes, at most"),
        ("ready", b"-1", "expected a length in digits"),
    ];
    for (wire, length, problem) in cases {
        let server = Scripted::new(move |mut stream| {
            stream.read_exact(&mut [0; 2]).unwrap();
            stream.write_all(length).unwrap();
            // It may be reset.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let arguments = [
            "connect",
            &server.uri(),
            "--protocol",
            "command",
            "--wire",
            wire,
        ];
        let text = run(&arguments, "ls\n").badly();
        assert!(text.contains(problem), "{wire}: {text}");
        server.end();
    }
}

#[test]
fn a_reply_that_is_cut_off_is_a_failure() {
    let cases: [(&str, &[u8]); 4] = [
        ("framed", b"\0\0\0\x09half"),
        ("struct", b"\x09\0\0\0half"),
        ("framed", b"\0\0"),
        ("ready", b""),
    ];
    for (wire, reply) in cases {
        let server = Scripted::new(move |mut stream| {
            let request: &[u8] = if wire == "framed" {
                b"\0\0\0\x02ls"
            } else {
                b"ls"
            };
            expect(&stream, request);
            stream.write_all(reply).unwrap();
        });
        let arguments = [
            "connect",
            &server.uri(),
            "--protocol",
            "command",
            "--wire",
            wire,
        ];
        let said = run(&arguments, "ls\n");
        assert_eq!(said.stdout, reply.get(4..).unwrap_or_default());
        let text = said.badly();
        assert!(
            text.contains("closed before the reply was complete"),
            "{text}"
        );
        server.end();
    }
}

#[test]
fn more_than_the_reply_is_a_failure() {
    let server = Scripted::new(|mut stream| {
        stream.write_all(b"Welcome! Bienvenue!").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let arguments = ["connect", &server.uri(), "--protocol", "hello"];
    let text = Running::new(&arguments).end().badly();
    assert!(text.contains("11 bytes more than the reply"), "{text}");
    server.end();
}

#[test]
fn datagrams_without_a_reply_are_told() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let uri = format!("udp://{}", silent.local_addr().unwrap());
    let lines = "one\n".repeat(20);
    let text = run(&["connect", &uri, "--timeout", "50ms"], &lines).badly();
    assert!(
        text.contains("no reply within 50ms to 20 datagrams"),
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

/// A prompt is for people: it goes to standard error, and only if a terminal is there to type at.
#[test]
fn a_terminal_is_asked_with_a_prompt() {
    let echo = echo();
    let arguments = ["connect", echo.uri(0), "--protocol", "echo", "--prompt"];
    assert_eq!(run(&arguments, "one\n").well(), "one\n");
    let (mut person, terminal) = terminal();
    let mut command = serveloop(&arguments);
    command.stdin(terminal);
    let mut client = Running::spawn(command);
    // The second line is the end of the input, Ctrl-D.
    person.write_all(b"one\n\x04").unwrap();
    let said = client.end();
    assert_eq!((said.code, &*said.stdout), (Some(0), &b"one\n"[..]));
    assert_eq!(said.stderr, "> > ");
}

#[test]
fn what_makes_no_sense_together_is_refused() {
    let cases: [(&[&str], &str); 4] = [
        (
            &["udp://127.0.0.1:1", "--framing", "line"],
            "over datagrams each line is a message",
        ),
        (
            &["tcp://127.0.0.1:1", "--protocol", "echo", "--wire", "ready"],
            "--wire is for",
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
