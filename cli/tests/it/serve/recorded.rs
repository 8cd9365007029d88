//! `--record`: what the file holds, when it is written, and how `transcript` shows it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serveloop::service::recorder::Recording;

use crate::support::running::run;
#[cfg(feature = "tls")]
use crate::support::secure::certificate;
use crate::support::served::{MODELS, Outcome, PATIENCE, Served};
use crate::support::sockets::{Directory, Stream};

const ANYWHERE: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

fn record(directory: &Directory, protocol: &[&str], options: &[&str]) -> (Served, String) {
    let file = directory.path("record").display().to_string();
    let record = ["--record", &file];
    let served = Served::new(&[protocol, &ANYWHERE, &record, options].concat());
    (served, file)
}

#[track_caller]
fn end(served: Served) -> Vec<String> {
    served.signal(Signal::TERM);
    served.status_and_log()
}

#[track_caller]
fn transcript(arguments: &[&str]) -> String {
    run(&[&["transcript"], arguments].concat(), "").well()
}

/// Waits until the file has this many connections.
#[track_caller]
fn await_record(file: &str, connections: usize) -> Recording {
    let begin = Instant::now();
    loop {
        match Recording::open(file) {
            Ok(recording) if recording.connections().len() == connections => return recording,
            other => assert!(begin.elapsed() < PATIENCE, "{other:?}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_record_is_written_at_the_signal_and_at_the_end_in_every_model() {
    for model in MODELS.iter().filter(|model| !model.contains(&"forking")) {
        let directory = Directory::new();
        let (served, file) = record(&directory, &["echo"], model);
        assert!(
            !Path::new(&file).exists(),
            "nothing is written at the start"
        );
        let mut client = served.connect();
        client.send("good \x1b[31mmorning\n");
        client.expect("good \x1b[31mmorning\n");

        served.signal(Signal::USR1);
        let recording = await_record(&file, 1);
        assert_eq!(recording.connections()[0].end(), None, "it is open");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        served.logged("the record of 1 connection was written");
        let text = transcript(&[&file]);
        assert!(
            text.contains("still open when the record was written"),
            "{text}"
        );

        client.finish();
        client.expect_end();
        let log = end(served).join("\n");
        assert!(log.contains("it holds what was said"), "{log}");

        let text = transcript(&[&file]);
        let words = r#"<- 18 bytes: "good \u{1b}[31mmorning\n""#;
        assert!(text.contains(words), "{model:?}: {text}");
        assert!(text.contains(&words.replace("<-", "->")), "{text}");
        assert!(text.contains("ended: closed by the peer (18 bytes received, 18 sent)"));
        assert!(text.contains("1 connection was recorded from 20"), "{text}");
        let left = fs::read_dir(directory.path(".")).unwrap().count();
        assert_eq!(left, 1, "no unfinished file is left");
    }
}

#[test]
fn sizes_alone_hold_no_word() {
    let directory = Directory::new();
    let (served, file) = record(&directory, &["echo"], &["--record-sizes"]);
    served.connect().echoes();
    let mut client = served.connect();
    client.send("a secret");
    client.expect("a secret");
    drop(client);
    let log = end(served).join("\n");
    assert!(log.contains("it holds no content"), "{log}");

    let bytes = fs::read(&file).unwrap();
    assert!(!bytes.windows(6).any(|part| part == b"secret"));
    let text = transcript(&[&file]);
    assert!(text.contains("<- 8 bytes\n"), "{text}");
    assert!(text.contains("without content"), "{text}");
}

#[test]
fn connections_that_have_ended_make_room_for_others() {
    let directory = Directory::new();
    let (served, file) = record(&directory, &["echo"], &["--record-size", "16KiB"]);
    let mut open = served.connect();
    open.send("open");
    open.expect("open");
    for _ in 0..100 {
        assert!(served.connect().echoes());
    }
    end(served);
    let recording = Recording::open(&file).unwrap();
    let kept = recording.connections().len() as u64;
    assert!(kept < 60 && recording.evicted() == 101 - kept, "{kept}");
    let text = transcript(&[&file, "--connection", "1"]);
    assert!(
        text.contains("connection 1 from tcp://127.0.0.1:"),
        "{text}"
    );
    assert!(
        text.contains("more were dropped for lack of room"),
        "{text}"
    );
    drop(open);
}

/// What is recorded is what the protocol sees, and not what is on the wire.
#[cfg(feature = "tls")]
#[test]
fn tls_is_recorded_in_plain_words() {
    let directory = Directory::new();
    let file = directory.path("record").display().to_string();
    let (cert, key) = (certificate("localhost.pem"), certificate("localhost.key"));
    let listen = format!("tls://127.0.0.1:0?cert={cert}&key={key}");
    let served = Served::new(&["echo", "--listen", &listen, "--record", &file]);
    let uri = served.uri(0).replace("127.0.0.1", "localhost");
    let ca = certificate("authority.pem");
    let said = run(&["connect", &uri, "--ca", &ca], "good morning\n").well();
    assert_eq!(said, "good morning\n");
    end(served);
    let text = transcript(&[&file]);
    assert!(text.contains(r#"<- 13 bytes: "good morning\n""#), "{text}");
}

#[test]
fn other_protocols_and_sockets_are_recorded() {
    let directory = Directory::new();
    let unix = directory.uri("unix", "socket");
    let options = ["--delay", "20ms", "--framing", "line", "--listen", &unix];
    let (served, file) = record(&directory, &["hello"], &options);
    for uri in served.uris() {
        let mut client = Stream::connect(uri);
        client.expect("Welcome!\n");
        client.send("bob\n");
        client.expect("Hello,bob\n");
        client.send("exit\n");
        client.expect_end();
    }
    end(served);
    let text = transcript(&[&file]);
    assert!(text.contains("from unix://, listener 1"), "{text}");
    assert!(text.contains("the protocol's own deadline"), "{text}");
    assert_eq!(
        text.matches(r#"-> "#).count(),
        text.matches("-> 9 bytes: \"Welcome!\\n\"").count() * 2
    );
}

#[test]
fn what_makes_no_sense_is_refused_at_the_start() {
    let refused = |arguments: &[&str]| {
        let outcome = Outcome::new(&[&["serve", "echo"], arguments].concat());
        assert_eq!(outcome.stdout, "", "it listened");
        (outcome.code, outcome.stderr)
    };
    let (code, text) = refused(&["--record", "/tmp/x", "--model", "forking"]);
    assert_eq!(code, Some(2));
    assert!(
        text.contains("--record needs another model than forking"),
        "{text}"
    );
    for option in [&["--record-sizes"][..], &["--record-size=1MiB"]] {
        let (code, text) = refused(option);
        assert_eq!(code, Some(2));
        assert!(text.contains("needs --record FILE"), "{text}");
    }
    for (file, why) in [
        ("/nonexistent/record", "No such file"),
        ("/tmp", "is not a file"),
        ("/dev/null", "is not a file"),
    ] {
        let (code, text) = refused(&["--record", file]);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(file) && text.contains(why), "{text}");
    }
}

/// Options may be given before and after the protocol.
#[test]
fn options_may_be_given_in_both_places() {
    let directory = Directory::new();
    let file = directory.path("record").display().to_string();
    let before = ["--record-size", "1MiB", "echo"];
    let served = Served::new(&[&before, &ANYWHERE[..], &["--record", &file]].concat());
    end(served);
    assert_eq!(transcript(&[&file]).lines().count(), 1);
}

#[test]
fn a_damaged_record_shows_what_is_before_the_damage() {
    let directory = Directory::new();
    let (served, file) = record(&directory, &["echo"], &[]);
    for _ in 0..3 {
        assert!(served.connect().echoes());
    }
    end(served);
    let mut bytes = fs::read(&file).unwrap();
    let place = bytes.len() - 40;
    bytes[place] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let said = run(&["transcript", &file], "");
    assert!(String::from_utf8_lossy(&said.stdout).contains("connection 2 from"));
    let text = said.badly();
    assert!(
        text.contains("at byte ") && text.contains("damaged"),
        "{text}"
    );

    fs::write(&file, &bytes[..20]).unwrap();
    let text = run(&["transcript", &file], "").badly();
    assert!(text.contains("the end of the record is missing") || text.contains("ends within"));
    let text = run(&["transcript", "/nonexistent"], "").badly();
    assert!(
        text.contains("/nonexistent: cannot be read: No such file"),
        "{text}"
    );
    let text = run(&["transcript", "/etc/passwd"], "").badly();
    assert!(
        text.contains("at byte 0: not a record of connections"),
        "{text}"
    );
}

#[test]
fn a_connection_that_is_not_there_is_a_failure() {
    let directory = Directory::new();
    let (served, file) = record(&directory, &["echo"], &[]);
    assert!(served.connect().echoes());
    end(served);
    let text = run(&["transcript", &file, "--connection", "99"], "").badly();
    assert!(
        text.contains("it has 1 connection, and none is 99"),
        "{text}"
    );
}
