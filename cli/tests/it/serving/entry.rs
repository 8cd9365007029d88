//! Who may connect, how often and for how long.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::served::{MODELS, Outcome, Served};
use crate::support::sockets::{Directory, Stream, socket_addr};

const TCP: &str = "tcp://127.0.0.1:0";

#[track_caller]
fn end(served: Served) -> String {
    served.signal(Signal::TERM);
    served.status_and_log().join("\n")
}

/// Whether a client gets its echo. One that is refused sees the end, or a reset.
fn is_served(uri: &str) -> bool {
    is_served_after(uri, "")
}

fn is_served_after(uri: &str, header: &str) -> bool {
    let mut client = Stream::connect(uri);
    client.send_if_wanted(&format!("{header}hello"));
    let mut got = [0; 5];
    client.read_some(&mut got) == 5 && &got == b"hello"
}

#[test]
fn who_is_denied_is_refused_and_counted_in_every_model() {
    for model in MODELS {
        let lists = ["--deny", "10.0.0.0/8,127.0.0.0/8"];
        let served = Served::new(&[&["echo", "--listen", TCP], &lists[..], model].concat());
        assert!(!is_served(served.uri(0)), "{model:?}");
        assert!(!is_served(served.uri(0)), "{model:?}");
        served.logged("refused: deny lists it");
        let log = end(served);
        assert!(log.contains("accepted 0, refused_by_factory 2,"), "{log}");
    }
}

#[test]
fn only_who_is_allowed_is_served() {
    let directory = Directory::new();
    let unix = directory.uri("unix", "socket");
    for (lists, ip, path) in [
        (&["--allow", "10.0.0.0/8"][..], false, false),
        (&["--allow", "127.0.0.1"], true, false),
        (&["--allow", "unix"], false, true),
        (
            &["--allow", "10.0.0.0/8", "--allow", "127.0.0.1,unix"],
            true,
            true,
        ),
        (
            &["--allow", "127.0.0.0/8", "--deny", "127.0.0.1"],
            false,
            false,
        ),
        (&["--deny", "unix"], true, false),
        (&["--deny", "::/0"], true, true),
    ] {
        let listen = ["echo", "--listen", TCP, "--listen", &unix];
        let served = Served::new(&[&listen[..], lists].concat());
        assert_eq!(is_served(served.uri(0)), ip, "{lists:?}");
        assert_eq!(is_served(served.uri(1)), path, "{lists:?}");
    }
}

/// A listener with lists of its own uses only those.
#[test]
fn each_listener_may_have_its_own_lists() {
    let allowed = format!("{TCP}?allow=127.0.0.1");
    let denied = format!("{TCP}?allow=127.0.0.0/8&deny=10.0.0.1&deny=127.0.0.1");
    let served = Served::new(&[
        "echo",
        "--deny",
        "127.0.0.1",
        "--listen",
        TCP,
        "--listen",
        &allowed,
        "--listen",
        &denied,
    ]);
    let served_at: Vec<_> = served.uris().iter().map(|uri| is_served(uri)).collect();
    assert_eq!(served_at, [false, true, false]);
}

#[test]
fn datagrams_of_others_are_dropped() {
    let served = Served::new(&[
        "echo",
        "--listen",
        "udp://127.0.0.1:0",
        "--deny",
        "127.0.0.1",
    ]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .send_to(b"hello", socket_addr(served.uri(0)))
        .unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert!(client.recv(&mut [0; 8]).is_err());
    let log = end(served);
    assert!(log.contains("datagrams_dropped 1"), "{log}");
}

/// The client's address decides; the proxy itself need not be in the lists.
#[test]
fn behind_a_proxy_the_client_is_judged() {
    let header = |ip: &str| format!("PROXY TCP4 {ip} 192.0.2.9 1000 2000\r\n");
    for model in MODELS {
        let proxied = ["--proxy", "optional", "--trust", "127.0.0.1"];
        let lists = ["--allow", "10.0.0.0/8", "--deny", "10.1.0.0/16"];
        let listen = ["echo", "--listen", TCP];
        let served = Served::new(&[&listen[..], &proxied, &lists, model].concat());
        let uri = served.uri(0);
        assert!(is_served_after(uri, &header("10.2.0.1")), "{model:?}");
        assert!(!is_served_after(uri, &header("10.1.0.1")), "{model:?}");
        assert!(!is_served_after(uri, &header("192.0.2.1")), "{model:?}");
        let log = end(served);
        assert!(log.contains("closed_refused 2"), "{model:?} {log}");
    }
}

#[test]
fn lists_in_files_are_read_again_and_a_bad_one_changes_nothing() {
    for model in MODELS {
        let directory = Directory::new();
        let path = directory.path("deny");
        fs::write(&path, "# nobody yet\n").unwrap();
        let list = format!("@{}", path.display());
        let arguments = ["echo", "--listen", TCP, "--deny", &list];
        let served = Served::new(&[&arguments[..], model].concat());
        assert!(is_served(served.uri(0)), "{model:?}");

        fs::write(&path, "10.0.0.0/8\n127.0.0.1 # a friend\n").unwrap();
        served.signal(Signal::HUP);
        served.logged("lists of allow and deny were read again");
        assert!(!is_served(served.uri(0)), "{model:?}");

        fs::write(&path, "10.0.0.0/8\nnonsense\n").unwrap();
        served.signal(Signal::HUP);
        let line = served.logged("what was read before stays in use");
        assert!(
            line.contains("ERROR") && line.contains("deny:2: "),
            "{line}"
        );
        assert!(!is_served(served.uri(0)), "{model:?}");

        // A pipe would be empty, or would wait for a writer.
        fs::remove_file(&path).unwrap();
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        served.signal(Signal::HUP);
        let line = served.logged("what was read before stays in use");
        assert!(line.contains("is a pipe"), "{line}");
        assert!(!is_served(served.uri(0)), "{model:?}");

        fs::remove_file(&path).unwrap();
        served.signal(Signal::HUP);
        served.logged("what was read before stays in use");
        assert!(!is_served(served.uri(0)), "{model:?}");
        end(served);
    }
}

#[test]
fn what_is_no_list_is_refused_at_the_start() {
    let refused = |arguments: &[&str], code: i32, part: &str| {
        let outcome = Outcome::new(&[&["serve", "echo"], arguments].concat());
        assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    };
    refused(&["--allow", "localhost"], 2, "--allow");
    refused(&["--deny", "10.0.0.0/33"], 2, "--deny");
    refused(&["--deny", "@"], 2, "name of a file");
    refused(&["--listen", "tcp://127.0.0.1:0?deny=x"], 2, "deny: ");
    refused(
        &["--listen", "tcp://127.0.0.1:0?alow=unix"],
        2,
        "the nearest is allow",
    );
    refused(&["--deny", "@/nonexistent/list"], 1, "/nonexistent/list: ");
    refused(&["--connects-per-second", "5x"], 2, "--connects-per-second");
    let forking = [
        "--connects-per-second",
        "5",
        "--model",
        "forking",
        "--proxy",
        "required",
        "--trust",
        "unix",
    ];
    refused(&forking, 2, "another model than forking");
}

/// A protocol with an option of that name has both meanings.
#[test]
fn programs_and_networks_are_told_apart() {
    for (networks, expected) in [("127.0.0.1", true), ("10.0.0.0/8", false)] {
        let served = Served::new(&[
            "command", "--wire", "struct", "--allow", "echo", "--allow", networks, "--listen", TCP,
        ]);
        let mut client = Stream::connect(served.uri(0));
        client.send_if_wanted("echo hi\n");
        let mut said = [0; 7];
        client.read_some(&mut said);
        assert_eq!(said.ends_with(b"hi\n"), expected, "{said:?}");
    }
}

#[test]
fn who_connects_too_often_is_refused_for_a_while_in_every_model() {
    for model in MODELS {
        let arguments = ["echo", "--listen", TCP, "--connects-per-second", "4"];
        let served = Served::new(&[&arguments[..], model].concat());
        let begun = Instant::now();
        let count = (0..12).filter(|_| is_served(served.uri(0))).count();
        let refilled = usize::try_from(begun.elapsed().as_millis() / 250).unwrap();
        assert!((4..=5 + refilled).contains(&count), "{model:?} {count}");
        assert!(count < 12, "{model:?}");
        served.logged("more often than --connects-per-second");

        thread::sleep(Duration::from_millis(600));
        assert!(is_served(served.uri(0)), "{model:?}");
        let log = end(served);
        assert!(log.contains("refused_by_factory "), "{model:?} {log}");
    }
}

#[test]
fn a_connection_ends_when_its_time_is_over_in_every_model() {
    for model in MODELS {
        let arguments = ["echo", "--listen", TCP, "--max-lifetime", "1s"];
        let served = Served::new(&[&arguments[..], model].concat());
        let begun = Instant::now();
        let mut client = served.connect();
        assert!(client.echoes(), "{model:?}");
        client.expect_end();
        let lasted = begun.elapsed();
        assert!(lasted > Duration::from_millis(890), "{model:?} {lasted:?}");
        assert!(lasted < Duration::from_secs(5), "{model:?} {lasted:?}");
        let log = end(served);
        assert!(log.contains("closed_by_protocol 1"), "{model:?} {log}");
    }
}

/// What is due is still sent, as in a shutdown.
#[test]
fn a_reply_that_is_due_is_sent_after_the_lifetime() {
    let arguments = ["hello", "--delay", "700ms", "--max-lifetime", "500ms"];
    let served = Served::new(&[&arguments[..], &["--listen", TCP]].concat());
    let mut client = served.connect();
    client.expect("Welcome!");
    client.send("bob");
    client.expect("Hello,bob");
    client.expect_end();
}
