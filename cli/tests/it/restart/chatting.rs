//! A chat goes on in the new process: each line reaches everybody once.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::restart::{Over, Site};
use crate::support::served::PATIENCE;
use crate::support::sockets::{path_of, socket_addr};

/// The members that speak all the time, and how many restarts.
const SPEAKERS: usize = 8;
const RESTARTS: usize = 5;

/// A client, its halves apart.
struct Member {
    reader: BufReader<Box<dyn Read + Send>>,
    writer: Box<dyn Write + Send>,
}

impl Member {
    #[track_caller]
    fn new(uri: &str) -> Self {
        let (reader, writer): (Box<dyn Read + Send>, Box<dyn Write + Send>) =
            if uri.starts_with("unix") {
                let stream = UnixStream::connect(path_of(uri)).expect("a listener");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                (
                    Box::new(stream.try_clone().expect("a socket")),
                    Box::new(stream),
                )
            } else {
                let stream = TcpStream::connect(socket_addr(uri)).expect("a listener");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                (
                    Box::new(stream.try_clone().expect("a socket")),
                    Box::new(stream),
                )
            };
        Self {
            reader: BufReader::new(reader),
            writer,
        }
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        let count = self.reader.read_line(&mut line).expect("a line in time");
        assert!(count > 0, "the connection has ended");
        line.trim_end().to_owned()
    }

    /// Reads to a line that has this part.
    #[track_caller]
    fn heard(&mut self, part: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(part) {
                return line;
            }
        }
    }

    #[track_caller]
    fn say(&mut self, text: &str) {
        self.writer
            .write_all(text.as_bytes())
            .expect("an open connection");
    }

    #[track_caller]
    fn named(uri: &str, name: &str) -> Self {
        let mut member = Self::new(uri);
        member.heard("you are ");
        member.say(&format!("/nick {name}\n"));
        member.heard(&format!("* you are {name}"));
        member
    }
}

fn site(workers: &str) -> Site {
    Site::on_tcp_and_unix(&[
        "chat",
        "--handover",
        "--workers",
        workers,
        "--max-posted",
        "16MiB",
        "--lagging",
        "close",
    ])
}

/// Reads until every other speaker has said its last line. Each line comes once, and those of one speaker in
/// their order.
fn listen(reader: &mut impl BufRead, own: usize) {
    let mut next = [1; SPEAKERS];
    let mut left = SPEAKERS - 1;
    let mut line = String::new();
    while left > 0 {
        line.clear();
        let count = reader.read_line(&mut line).expect("a line in time");
        assert!(count > 0, "the connection has ended");
        let said = line.trim_end();
        assert!(!said.contains("leaves"), "{said}");
        let Some((name, text)) = said.split_once(": ") else {
            continue;
        };
        let speaker: usize = name
            .trim_start_matches("speaker-")
            .parse()
            .expect("a speaker");
        assert_ne!(speaker, own, "{said}");
        if text == "over" {
            left -= 1;
            continue;
        }
        let number: usize = text
            .split(' ')
            .next()
            .expect("a number")
            .parse()
            .expect("a number");
        assert_eq!(number, next[speaker], "{own} hears {speaker}");
        next[speaker] += 1;
    }
    assert!(next.iter().filter(|next| **next > 1).count() == SPEAKERS - 1);
}

/// Says lines until it is told to end, most of them short.
fn speak(writer: &mut impl Write, is_over: &AtomicBool) {
    let mut count = 0;
    while !is_over.load(Ordering::SeqCst) {
        count += 1;
        let is_long = count % 50 == 0;
        let length = if is_long { 5_000 } else { count * 7 % 90 };
        let line = format!("{count} {}\n", "x".repeat(length));
        writer
            .write_all(line.as_bytes())
            .expect("an open connection");
        thread::sleep(Duration::from_millis(1));
    }
    writer.write_all(b"over\n").expect("an open connection");
}

#[test]
fn every_line_reaches_everybody_once() {
    for workers in ["1", "2"] {
        let mut site = site(workers);
        let uris = site.served.uris().to_vec();
        let mut members: Vec<_> = (0..SPEAKERS)
            .map(|number| Member::named(&uris[number % 2], &format!("speaker-{number}")))
            .collect();
        // It reads nothing until the end.
        let mut slow = Member::named(&uris[0], "slow");
        // It has said half of a line, and later the other half.
        let mut half = Member::named(&uris[1], "half");
        half.say("one ");

        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for (number, member) in members.iter_mut().enumerate() {
                let (is_over, Member { reader, writer }) = (&is_over, member);
                scope.spawn(move || listen(reader, number));
                scope.spawn(move || speak(writer, is_over));
            }
            let over = Over(&is_over);
            for number in 0..RESTARTS {
                site.restart();
                let line = site
                    .served
                    .logged("open connections go on in the new process");
                let expected = format!(" {} open", SPEAKERS + 2);
                assert!(
                    line.contains(&expected),
                    "{workers} workers, restart {number}: {line}"
                );
                if number == 0 {
                    assert_eq!(site.old_ends().code(), Some(0));
                }
            }
            drop(over);
        });

        // Names and lines are still there. What a client says is read when it takes what it is owed.
        for _ in 0..SPEAKERS {
            half.heard(": over");
        }
        half.say("two\n");
        for member in [&mut slow, &mut members[0]] {
            let line = member.heard("half: one");
            assert!(line.ends_with("half: one two"), "{line}");
        }
        let mut late = Member::new(&uris[0]);
        let greeting = late.line();
        let expected = format!("you are {}, {} here", SPEAKERS + 3, SPEAKERS + 3);
        assert_eq!(greeting, expected);
        late.say("/nick SLOW\n");
        late.heard("* SLOW is taken");
        drop(slow);
        members[1].heard("* slow leaves");
        late.say("/nick slow\n");
        late.heard("* you are slow");
        drop((members, half, late));
        site.end();
    }
}

/// Clients come and speak while members move: those wait outside until all are there.
#[test]
fn who_comes_meanwhile_is_heard_by_all() {
    let mut site = site("2");
    let uri = site.served.uri(0).to_owned();
    let mut first = Member::named(&uri, "first");
    let mut guests = Vec::new();
    for restart in 0..RESTARTS {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let (uri, is_over) = (&uri, &is_over);
            let coming = scope.spawn(move || {
                let mut guests = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    let mut guest = Member::new(uri);
                    guest.say(&format!("guest {restart}-{} is here\n", guests.len()));
                    guests.push(guest);
                    thread::sleep(Duration::from_millis(2));
                }
                guests
            });
            let over = Over(is_over);
            site.restart();
            site.served
                .logged("open connections go on in the new process");
            drop(over);
            guests.push(coming.join().expect("guests"));
        });
        if restart == 0 {
            assert_eq!(site.old_ends().code(), Some(0));
        }
    }

    let count: usize = guests.iter().map(Vec::len).sum();
    let mut heard: Vec<String> = Vec::new();
    while heard.len() < count {
        let line = first.heard("guest ");
        heard.push(line[line.find("guest ").expect("it")..].to_owned());
    }
    heard.sort();
    let before = heard.len();
    heard.dedup();
    assert_eq!(heard.len(), before, "a line came twice");
    for (restart, guests) in guests.iter().enumerate() {
        for number in 0..guests.len() {
            let line = format!("guest {restart}-{number} is here");
            assert!(heard.contains(&line), "{line}");
        }
    }
    drop((first, guests));
    site.end();
}

/// Another protocol does not know what a member is.
#[test]
fn a_new_program_that_is_another_ends_the_members() {
    let mut site = site("1");
    let uri = site.served.uri(0).to_owned();
    let mut member = Member::named(&uri, "ann");
    site.change("echo --handover --listen tcp://127.0.0.1:0");
    site.restart();
    let mut rest = String::new();
    // With a reset or without.
    let _ = member.reader.read_to_string(&mut rest);
    assert_eq!(rest, "");
    assert_eq!(site.old_ends().code(), Some(0));
    site.signal(rustix::process::Signal::TERM);
}
