//! `serve chat`: who reads what, how they are called, and who does not keep up.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::served::{Outcome, Served};
use crate::support::sockets::{Directory, Stream};

/// The models in which there is one chat for all.
const SHARED: [&[&str]; 3] = [&[], &["--workers", "2"], &["--model", "threaded"]];

fn serve(options: &[&str]) -> Served {
    Served::new(&[&["chat", "--listen", "tcp://127.0.0.1:0"], options].concat())
}

/// Another client, after all that `others` are told of it.
#[track_caller]
fn join(served: &Served, number: usize, others: &mut [&mut Stream]) -> Stream {
    let mut client = served.connect();
    let here = others.len() + 1;
    client.expect(&format!("you are {number}, {here} here\n"));
    for other in others {
        other.expect(&format!("* {number} joins\n"));
    }
    client
}

#[test]
fn all_others_read_what_a_client_types() {
    for model in SHARED {
        let served = serve(model);
        let mut one = join(&served, 1, &mut []);
        let mut two = join(&served, 2, &mut [&mut one]);
        let mut three = join(&served, 3, &mut [&mut one, &mut two]);

        one.send("good ");
        one.send("morning\r\nand\n\n");
        for other in [&mut two, &mut three] {
            other.expect("1: good morning\n1: and\n1: \n");
        }

        three.send("/nick ann\n");
        three.expect("* you are ann\n");
        three.send("hello\nlast without an end");
        three.finish();
        for other in [&mut one, &mut two] {
            other.expect("* 3 is now ann\nann: hello\nann: last without an end\n* ann leaves\n");
        }

        // A reset is an end as well.
        two.reset();
        one.expect("* 2 leaves\n");
        served.signal(Signal::TERM);
        one.expect_end();
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

#[test]
fn nobody_is_told_that_all_leave_when_the_server_ends() {
    let served = serve(&[]);
    let mut one = join(&served, 1, &mut []);
    let mut two = join(&served, 2, &mut [&mut one]);
    served.signal(Signal::TERM);
    one.expect_end();
    two.expect_end();
    assert_eq!(served.exit_code(), Some(0));
}

#[test]
fn a_name_belongs_to_one_client() {
    let served = serve(&[]);
    let mut one = join(&served, 1, &mut []);
    one.send("/nick Ann\n");
    one.expect("* you are Ann\n");
    let mut two = join(&served, 2, &mut [&mut one]);

    for (line, answer) in [
        ("/nick ann\n", "* ann is taken\n"),
        (
            "/nick\n",
            "* a name has 1 to 32 letters, digits, - and _: /nick NAME\n",
        ),
        ("/nick 1\n", "* a number is for those without a name\n"),
        (
            "/nick a\u{1b}b\n",
            "* a name has 1 to 32 letters, digits, - and _: /nick NAME\n",
        ),
        ("/nickname x\n", "* there is only one command: /nick NAME\n"),
        ("/quit\n", "* there is only one command: /nick NAME\n"),
        ("/nick 2\n", "* you are 2\n"),
        ("/nick  bob \r\n", "* you are bob\n"),
    ] {
        two.send(line);
        two.expect(answer);
    }
    one.expect("* 2 is now bob\n");

    // Whoever leaves takes the name along.
    one.finish();
    two.expect("* Ann leaves\n");
    two.send("/nick ANN\n");
    two.expect("* you are ANN\n");
}

#[test]
fn no_client_controls_the_terminal_of_another() {
    let served = serve(&[]);
    let mut one = join(&served, 1, &mut []);
    let mut two = join(&served, 2, &mut [&mut one]);
    one.send_bytes(b"\x1b[2J\rfake: line\ttab \xff gr\xc3\xbcn\n");
    two.expect("1: \\u{1b}[2J\\rfake: line\ttab \\xff gr\u{fc}n\n");
}

#[test]
fn clients_may_be_silent_unless_that_is_limited() {
    let silent = serve(&[]);
    let mut one = join(&silent, 1, &mut []);
    let limited = serve(&["--first-message-timeout", "200ms"]);
    join(&limited, 1, &mut []).expect_end();
    let limited = serve(&["--idle-timeout", "200ms"]);
    let mut idle = join(&limited, 1, &mut []);
    idle.send("/nick a\n");
    idle.expect("* you are a\n");
    idle.expect_end();

    // Longer than the usual time for a first message.
    thread::sleep(Duration::from_secs(11));
    one.send("/nick still\n");
    one.expect("* you are still\n");
}

#[test]
fn a_long_line_ends_its_connection() {
    let served = serve(&["--max-line", "10"]);
    let mut one = join(&served, 1, &mut []);
    let mut two = join(&served, 2, &mut [&mut one]);
    two.send("0123456789\n");
    one.expect("2: 0123456789\n");
    two.send("01234567890\n");
    one.expect("* 2 leaves\n");

    let own = [
        "--listen",
        "tcp://127.0.0.1:0?max-line=20",
        "--max-line",
        "10",
    ];
    let served = Served::new(&[&["chat"], &own[..]].concat());
    let mut three = join(&served, 1, &mut []);
    let mut four = join(&served, 2, &mut [&mut three]);
    three.send("01234567890123456789\n");
    four.expect("1: 01234567890123456789\n");
}

/// One client reads nothing while another sends more than fits: what it loses depends on the option, and
/// the third one loses nothing.
#[test]
fn a_client_that_does_not_keep_up_holds_up_nobody() {
    const LINES: usize = 1_000;
    for (lagging, first, last) in [
        ("drop-oldest", true, true),
        ("drop-newest", true, false),
        ("close", true, false),
    ] {
        let directory = Directory::new();
        let uri = directory.uri("unix", "chat");
        let options = [
            "--lagging",
            lagging,
            "--max-posted",
            "64KiB",
            "--write-timeout",
            "0",
        ];
        let served = Served::new(&[&["chat", "--listen", &uri], &options[..]].concat());
        let mut laggard = join(&served, 1, &mut []);
        let mut reader = join(&served, 2, &mut [&mut laggard]);
        let mut writer = join(&served, 3, &mut [&mut laggard, &mut reader]);

        let text = "x".repeat(1_000);
        let mut left = 0;
        for number in 0..LINES {
            writer.send(&format!("{number} {text}\n"));
            let mut line = reader.receive_line();
            if line == "* 1 leaves" {
                left += 1;
                line = reader.receive_line();
            }
            assert_eq!(line, format!("3: {number} {text}"));
        }
        assert_eq!(left, usize::from(lagging == "close"), "{lagging}");

        // It reads again, until something comes that was said after that.
        let mut lines = String::new();
        let mut room = vec![0; 1 << 16];
        while !lines.ends_with("the end\n") {
            writer.send("the end\n");
            let size = laggard.read_some(&mut room);
            if size == 0 {
                break;
            }
            lines += str::from_utf8(&room[..size]).expect("text");
        }
        let seen: Vec<usize> = lines
            .lines()
            .filter(|line| line.len() > 1_000 && line.ends_with('x'))
            .filter_map(|line| line.strip_prefix("3: ")?.split(' ').next()?.parse().ok())
            .collect();
        assert!(
            seen.is_sorted() && seen.len() < LINES,
            "{lagging}: {}",
            seen.len()
        );
        assert_eq!(seen.first() == Some(&0), first, "{lagging}");
        assert_eq!(
            seen.last() == Some(&(LINES - 1)),
            last,
            "{lagging}: {:?}",
            seen.last()
        );
    }
}

#[test]
fn what_cannot_be_a_chat_is_refused() {
    for (arguments, part) in [
        (&["--model", "forking"][..], "--model forking"),
        (&["--listen", "udp://127.0.0.1:0"], "chat is for streams"),
        (&["--lagging", "wait"], "drop-oldest"),
    ] {
        let outcome = Outcome::new(&[&["serve", "chat"], arguments].concat());
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
}

#[test]
fn pages_of_browsers_cannot_speak() {
    let served = serve(&[]);
    let mut one = join(&served, 1, &mut []);
    let mut page = join(&served, 2, &mut [&mut one]);
    page.send("POST / HTTP/1.1\r\nHost: x\r\n\r\nhello\r\n");
    one.expect("* 2 leaves\n");
}
