//! `serve print`: every byte that a client sends is on standard output, whenever it is read.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::outside::skip;
use crate::support::served::{PATIENCE, Served, serveloop};
use crate::support::sockets::{Datagrams, Directory, Stream, socket_addr};
use crate::support::terminal::terminal;

const TCP: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

/// A server whose standard output the test reads byte for byte, or does not.
struct Printing {
    served: Served,
    output: Stream,
    uri: String,
}

impl Printing {
    #[track_caller]
    fn new(arguments: &[&str]) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("two sockets");
        ours.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut command = serveloop(&["serve", "print"]);
        command
            .args(arguments)
            .stdout(Stdio::from(OwnedFd::from(theirs)));
        let served = Served::spawn_unheard(command);
        let mut output = Stream::Unix(ours);
        let uri = output.receive_line();
        Self {
            served,
            output,
            uri: uri.strip_prefix("listening on ").expect("a URI").to_owned(),
        }
    }

    #[track_caller]
    fn connect(&self) -> Stream {
        Stream::connect(&self.uri)
    }

    #[track_caller]
    fn end(mut self) {
        self.served.signal(Signal::TERM);
        self.output.expect_end();
        assert_eq!(self.served.exit_code(), Some(0));
    }
}

#[test]
fn what_a_client_sends_is_printed_in_every_model() {
    let models: [&[&str]; 5] = [
        &[],
        &["--workers", "2"],
        &["--model", "sequential"],
        &["--model", "threaded"],
        &["--model", "forking"],
    ];
    for model in models {
        let mut printing = Printing::new(&[&TCP, model].concat());
        let mut client = printing.connect();
        let name = client.name();
        printing.served.logged(&format!("{name}: accepted"));
        client.send("hello from client");
        printing.output.expect("hello from client");
        client.send("\0\x1b[31m\r\n\u{20ac}");
        printing.output.expect("\0\x1b[31m\r\n\u{20ac}");
        client.finish();
        client.expect_end();
        printing
            .served
            .logged(&format!("{name}: closed by the peer"));
        let mut second = printing.connect();
        second.send("still there");
        printing.output.expect("still there");
        drop(second);
        printing.end();
    }
}

#[test]
fn a_client_that_closes_ends_its_own_connection_only() {
    let mut printing = Printing::new(&TCP);
    let mut staying = printing.connect();
    staying.send("one");
    printing.output.expect("one");
    for _ in 0..20 {
        drop(printing.connect());
    }
    staying.send("two");
    printing.output.expect("two");
    printing.end();
}

#[test]
fn a_character_that_arrives_in_two_pieces_is_one_character() {
    let mut printing = Printing::new(&TCP);
    let mut client = printing.connect();
    for byte in "\u{20ac}".bytes() {
        client.send_bytes(&[byte]);
    }
    printing.output.expect("\u{20ac}");
    printing.end();
}

/// While the output is not read, no other client is held up; when it is read, no byte is missing.
#[test]
fn an_output_that_nobody_reads_makes_only_writers_wait() {
    let models: [&[&str]; 4] = [
        &[],
        &["--workers", "2"],
        &["--model", "threaded"],
        &["--model", "forking"],
    ];
    let much = "0123456789abcdef".repeat(512 * 1024);
    for model in models {
        let mut printing = Printing::new(&[&TCP, model].concat());
        let mut writer = printing.connect();
        let name = writer.name();
        thread::scope(|scope| {
            scope.spawn(|| {
                writer.send(&much);
                writer.finish();
            });
            for _ in 0..20 {
                let mut other = printing.connect();
                other.finish();
                other.expect_end();
            }
            printing.output.expect(&much);
        });
        printing
            .served
            .logged(&format!("{name}: closed by the peer"));
        printing.end();
    }
}

/// The one test that lets time pass: only waiting shows that nothing happens.
#[test]
fn waiting_for_room_costs_nothing() {
    let printing = Printing::new(&TCP);
    let Stream::Tcp(mut writer) = printing.connect() else {
        panic!("a TCP client");
    };
    let until_full = Some(Duration::from_millis(200));
    writer.set_write_timeout(until_full).expect("a socket");
    let piece = [b'.'; 1 << 16];
    while writer.write(&piece).is_ok() {}
    let Some(before) = processor_time(&printing.served) else {
        return skip("/proc");
    };
    thread::sleep(Duration::from_millis(500));
    let used = processor_time(&printing.served).expect("a process") - before;
    assert!(used <= 5, "{used} ticks of 10 ms");
}

/// How long a process has used a processor, in ticks of 10 ms, if the system tells.
fn processor_time(served: &Served) -> Option<u64> {
    let line = fs::read_to_string(format!("/proc/{}/stat", served.process_id())).ok()?;
    // Counted from behind the name, which may hold spaces: user and system time.
    let fields = line.rsplit(')').next()?.split_whitespace().skip(11).take(2);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

#[test]
fn what_waits_for_room_at_the_end_is_printed_before_it() {
    let mut printing = Printing::new(&TCP);
    let much = "0123456789abcdef".repeat(64 * 1024);
    let mut writer = printing.connect();
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let Stream::Tcp(stream) = &mut writer else {
                panic!("a TCP client");
            };
            stream.write(much.as_bytes()).expect("an open connection")
        });
        sender.join().expect("a count")
    });
    printing.output.expect(&much[..100]);
    printing.served.signal(Signal::TERM);
    while TcpStream::connect(socket_addr(&printing.uri)).is_ok() {
        thread::yield_now();
    }
    printing.output.expect(&much[100..sent]);
    printing.output.expect_end();
    assert_eq!(printing.served.exit_code(), Some(0));
}

#[test]
fn an_output_that_is_closed_does_not_end_the_server() {
    let printing = Printing::new(&TCP);
    let Printing {
        served,
        output,
        uri,
    } = printing;
    drop(output);
    let mut first = Stream::connect(&uri);
    first.send("lost");
    served.logged("cannot write to standard output: Broken pipe (os error 32); 4 bytes were lost");
    for _ in 0..3 {
        let mut next = Stream::connect(&uri);
        next.send("refused");
        let end = format!(
            "{}: protocol error: cannot write to standard output",
            next.name()
        );
        next.expect_end();
        served.logged(&end);
    }
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
}

#[test]
fn datagrams_are_printed_and_each_is_logged_with_its_sender() {
    for model in [&[][..], &["--model", "threaded"], &["--model", "forking"]] {
        let directory = Directory::new();
        let mut printing = Printing::new(&[&["--listen", "udp://127.0.0.1:0"], model].concat());
        let client = Datagrams::connect(&printing.uri, &directory);
        let Datagrams::Udp(socket) = &client else {
            panic!("a UDP client");
        };
        let name = socket.local_addr().expect("a socket");
        for text in ["hello", "", "world", "egon"] {
            client.send(text);
            let expected = format!("udp://{name}: a datagram of {} bytes", text.len());
            printing.served.logged(&expected);
        }
        printing.output.expect("helloworldegon");
        printing.end();
    }
}

/// The sender of a datagram cannot be made to wait.
#[test]
fn datagrams_without_room_are_dropped_and_counted() {
    let directory = Directory::new();
    let printing = Printing::new(&["--listen", &directory.uri("unixgram", "socket")]);
    let Datagrams::Unix(client) = Datagrams::connect(&printing.uri, &directory) else {
        panic!("a Unix client");
    };
    // Unix datagrams are not lost on the way, so the tenth MiB finds neither queue nor socket empty.
    for _ in 0..320 {
        client.send(&[b'.'; 1 << 15]).expect("a server");
    }
    let log = "dropped a datagram: standard output is read too slowly";
    printing.served.logged(log);
    printing.served.signal(Signal::TERM);
    drop(printing.output);
    let (status, log) = printing.served.end();
    assert_eq!(status.code(), Some(0));
    let summary = log.last().expect("a summary");
    assert!(summary.contains("datagrams_failed "), "{summary}");
}

#[test]
fn unix_sockets_are_printed_too() {
    let directory = Directory::new();
    let mut printing = Printing::new(&["--listen", &directory.uri("unix", "stream")]);
    printing.connect().send("by a path");
    printing.output.expect("by a path");
    printing.end();
    let mut printing = Printing::new(&["--listen", &directory.uri("unixgram", "datagram")]);
    let client = Datagrams::connect(&printing.uri, &directory);
    client.send("by another");
    printing.output.expect("by another");
    printing.end();
}

/// What clients send does not command the terminal that it is shown on.
#[test]
fn a_terminal_gets_no_escape_sequences() {
    for model in [&[][..], &["--model", "forking"]] {
        let (person, terminal) = terminal();
        let mut command = serveloop(&["serve", "print"]);
        command.args(TCP).args(model).stdout(terminal);
        let _served = Served::spawn_unheard(command);
        let mut lines = BufReader::new(person).lines();
        let line = lines.next().expect("a line").expect("a terminal");
        let uri = line
            .trim_end()
            .strip_prefix("listening on ")
            .expect("a URI");
        Stream::connect(uri).send("\x1b[2Jhello\n");
        let line = lines.next().expect("a line").expect("a terminal");
        assert_eq!(line.trim_end(), r"\u{1b}[2Jhello");
    }
}
