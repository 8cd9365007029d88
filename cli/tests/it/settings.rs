//! `serve --config FILE` and `check FILE`: what a file may say, and where it is wrong.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Instant;

use rustix::process::Signal;

use crate::support::served::{Outcome, PATIENCE, Served};
use crate::support::sockets::{Directory, Stream, socket_addr};

/// A folder with one file of options.
struct Settings {
    directory: Directory,
    path: PathBuf,
}

impl Settings {
    fn new(text: &str) -> Self {
        Self::of_bytes(text.as_bytes())
    }

    fn of_bytes(text: &[u8]) -> Self {
        let directory = Directory::new();
        let path = directory.path("serve.toml");
        fs::write(&path, text).expect("a file");
        Self { directory, path }
    }

    fn change(&self, text: &str) {
        fs::write(&self.path, text).expect("the file");
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("a path")
    }

    /// Serves with the file. Returns the server, and where it listens.
    #[track_caller]
    fn serve(&self, arguments: &[&str]) -> (Served, String) {
        let serve = ["serve", "--config", self.path()];
        let command = crate::support::served::serveloop(&[&serve, arguments].concat());
        let served = Served::spawn_unheard(command);
        let line = served.printed();
        let uri = line
            .strip_prefix("listening on ")
            .expect("where it listens");
        (served, uri.to_owned())
    }

    fn check(&self) -> Outcome {
        Outcome::new(&["check", self.path()])
    }

    /// What is wrong, one line for each, without the file's name.
    #[track_caller]
    fn problems(&self) -> Vec<String> {
        let outcome = self.check();
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
        let prefix = format!("{}:", self.path());
        let lines = outcome.stderr.lines().map(|line| {
            let line = line.strip_prefix(&prefix);
            line.unwrap_or_else(|| panic!("{}", outcome.stderr))
                .to_owned()
        });
        lines.collect()
    }
}

/// The file has one problem, at this place.
#[track_caller]
fn is_wrong(text: &str, place: &str, part: &str) {
    let problems = Settings::new(text).problems();
    let [problem] = &problems[..] else {
        panic!("{text}: {problems:?}");
    };
    assert!(
        problem.starts_with(&format!("{place}: ")),
        "{text}: {problem}"
    );
    assert!(problem.contains(part), "{text}: {problem}");
}

const HELLO: &str = r#"
protocol = "hello"
listen = ["tcp://127.0.0.1:0"]
max-connections = 1

[hello]
delay = "0s"
framing = "line"
"#;

/// The server greets us, and answers at once.
#[track_caller]
fn is_hello(uri: &str) -> Stream {
    let mut client = Stream::connect(uri);
    client.expect("Welcome!\n");
    client.send("bob\n");
    client.expect("Hello,bob\n");
    client
}

#[test]
fn a_file_says_what_options_say() {
    let settings = Settings::new(HELLO);
    let outcome = settings.check();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, format!("{}: ok", settings.path()));

    for arguments in [&[][..], &["hello"]] {
        let (served, uri) = settings.serve(arguments);
        let _first = is_hello(&uri);
        // There is room for one.
        Stream::connect(&uri).expect_cut();
        served.signal(Signal::TERM);
        assert_eq!(served.expect_exit().code(), Some(0));
    }

    // The options of a protocol may be outside of its section.
    let flat = HELLO.replace("[hello]\n", "");
    let (_served, uri) = Settings::new(&flat).serve(&[]);
    is_hello(&uri);
}

#[test]
fn what_is_typed_goes_before_the_file() {
    let settings = Settings::new(HELLO);
    let uri = settings.directory.uri("unix", "typed");
    for arguments in [
        &[
            "--listen",
            &uri,
            "--max-connections",
            "2",
            "hello",
            "--framing=raw",
        ][..],
        &[
            "hello",
            "--framing",
            "raw",
            "--listen",
            &uri,
            "--max-connections=2",
        ],
    ] {
        let (_served, found) = settings.serve(arguments);
        assert_eq!(found, uri);
        for _ in 0..2 {
            let mut client = Stream::connect(&found);
            client.expect("Welcome!");
            client.send("bob");
            client.expect("Hello,bob");
            std::mem::forget(client);
        }
    }

    // A level that is typed replaces each of those in the file.
    let quiet = Settings::new("listen = \"tcp://127.0.0.1:0\"\nquiet = true\n");
    let (served, uri) = quiet.serve(&["echo", "-v"]);
    drop(Stream::connect(&uri));
    served.logged("accepted");
}

#[test]
fn a_file_and_what_is_typed_have_to_agree() {
    let settings = Settings::new(HELLO);
    let outcome = Outcome::new(&["serve", "echo", "--config", settings.path()]);
    assert_eq!(outcome.code, Some(2));
    let expected = format!(
        "{}:2:12: the protocol is hello here, and echo on the command line",
        settings.path()
    );
    assert_eq!(outcome.stderr, expected);

    let none = Settings::new("max-connections = 1\n");
    let outcome = Outcome::new(&["serve", "--config", none.path()]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("PROTOCOL"), "{}", outcome.stderr);

    let nowhere = Outcome::new(&["serve", "echo", "--config", "/nowhere/serve.toml"]);
    assert_eq!(nowhere.code, Some(1));
    assert!(
        nowhere.stderr.starts_with("/nowhere/serve.toml: "),
        "{}",
        nowhere.stderr
    );
    let folder = Outcome::new(&["check", "/"]);
    assert_eq!(folder.code, Some(1));
    let twice = [
        "serve",
        "echo",
        "--config",
        none.path(),
        "--config",
        none.path(),
    ];
    assert_eq!(Outcome::new(&twice).code, Some(2));
}

#[test]
fn a_listener_may_be_a_section() {
    let directory = Directory::new();
    let path = directory.path("50%");
    let path = path.to_str().expect("a path");
    let text = format!(
        "protocol = \"echo\"\n[[listen]]\nuri = \"tcp://127.0.0.1:0\"\nidle-timeout = \"5m\"\n\
         backlog = 16\nallow = [\"127.0.0.1\", \"::1\"]\n[[listen]]\nuri = \"unix://{path}\"\nmode = \"0600\"\n"
    );
    let settings = Settings::new(&text);
    let (served, uri) = settings.serve(&[]);
    assert!(Stream::connect(&uri).echoes());
    let second = served.printed();
    assert!(second.starts_with("listening on unix://"), "{second}");
    let mut client = std::os::unix::net::UnixStream::connect(path).expect("the file");
    client.write_all(b"x").expect("a server");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).expect("it").permissions());
    assert_eq!(mode & 0o777, 0o600);

    let mixed = "protocol = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\", { uri = \"tcp://127.0.0.1:0?backlog=9\", keepalive = \"60s\" }]\n";
    let (served, uri) = Settings::new(mixed).serve(&[]);
    assert!(Stream::connect(&uri).echoes());
    served.printed();
}

/// Files, the place of what is wrong with each, and a part of what is said about it.
const MISTAKES: [(&str, &str, &str); 59] = [
    // What is no TOML.
    ("protocol = \n", "1:12", "TOML"),
    ("listen = [\"tcp://:1\"\nquiet = true\n", "2:1", "TOML"),
    ("quiet = true\nquiet = false\n", "2:1", "duplicate"),
    // Keys.
    (
        "max_connections = 5\n",
        "1:1",
        "the nearest option is max-connections",
    ),
    ("\n\n  lisen = []\n", "3:3", "the nearest option is listen"),
    ("bananas = 1\n", "1:1", "there is no such option"),
    (
        "protcol = \"echo\"\n",
        "1:1",
        "the nearest option is protocol",
    ),
    ("config = \"x\"\n", "1:1", "unknown key config"),
    ("help = true\n", "1:1", "unknown key help"),
    (
        "protocol = \"hello\"\n[hello]\ndelya = \"1s\"\n",
        "3:1",
        "the nearest option of hello is delay",
    ),
    (
        "protocol = \"echo\"\nframing = \"line\"\n",
        "2:1",
        "an option of hello",
    ),
    (
        "protocol = \"echo\"\n[hello]\ndelay = \"1s\"\n",
        "2:2",
        "options of hello, but the protocol is echo",
    ),
    (
        "[helo]\ndelay = \"1s\"\n",
        "1:2",
        "the nearest option is hello",
    ),
    (
        "protocol = \"hello\"\ndelay = \"1s\"\n[hello]\ndelay = \"2s\"\n",
        "4:1",
        "delay is given twice",
    ),
    // Protocols.
    (
        "protocol = \"ecko\"\n",
        "1:12",
        "unknown protocol ecko: the nearest is echo",
    ),
    ("protocol = 5\n", "1:12", "expected the name of one"),
    (
        "[protocol]\nname = \"echo\"\n",
        "1:1",
        "expected the name of one",
    ),
    // Types.
    (
        "max-connections = true\n",
        "1:19",
        "max-connections: expected a NUMBER",
    ),
    (
        "max-connections = 1.5\n",
        "1:19",
        "a number with a fraction",
    ),
    (
        "max-connections = [1]\n",
        "1:19",
        "a single value, not an array",
    ),
    ("idle-timeout = 2020-01-01\n", "1:16", "a date or time"),
    (
        "limit-loopback = 1\n",
        "1:18",
        "expected true or false, not a whole number",
    ),
    (
        "quiet = \"yes\"\n",
        "1:9",
        "quiet: expected true or false, not a text",
    ),
    (
        "verbose = true\n",
        "1:11",
        "verbose: expected a whole number",
    ),
    ("verbose = 99\n", "1:11", "expected 0 to 9"),
    ("listen = 9999\n", "1:10", "listen: expected a URI"),
    (
        "listen = [\"tcp://:1\", 5]\n",
        "1:23",
        "listen: expected a URI",
    ),
    ("model = { x = 1 }\n", "1:9", "not a table"),
    // Arrays without a value, which would mean the opposite of what they say.
    ("allow = []\n", "1:9", "allow: expected at least one value"),
    ("listen = []\n", "1:10", "listen: expected at least one"),
    (
        "proxy = \"required\"\ntrust = []\n",
        "2:9",
        "trust: expected at least one",
    ),
    (
        "protocol = \"websocket\"\norigin = []\n",
        "2:10",
        "origin: expected at least one",
    ),
    (
        "protocol = \"command\"\n[command]\nallow = []\n",
        "3:9",
        "allow: expected at least one",
    ),
    (
        "[[listen]]\nuri = \"tcp://127.0.0.1:0\"\nallow = []\n",
        "3:9",
        "allow: expected at least one",
    ),
    (
        "[[listen]]\nuri = \"tcp://127.0.0.1:0\"\ndeny = []\n",
        "3:8",
        "deny: expected at least one",
    ),
    // Permissions are octal.
    (
        "socket-mode = 0x1b0\n",
        "1:15",
        "permissions from 0000 to 0777",
    ),
    (
        "[[listen]]\nuri = \"unix:///tmp/socket\"\nmode = 0b110\n",
        "3:1",
        "mode",
    ),
    // Values.
    (
        "max-connections = \"many\"\n",
        "1:19",
        "invalid value 'many' for '--max-connections <NUMBER>'",
    ),
    ("idle-timeout = 10\n", "1:16", "invalid value '10'"),
    ("\u{fc} = 1\n", "1:1", "TOML"),
    ("model = \"thread\"\n", "1:9", "possible values: event-loop"),
    (
        "allow = [\"10.0.0.0/8\", \"10.0.0.0/99\"]\n",
        "1:24",
        "10.0.0.0/99",
    ),
    (
        "trust = [\"10.0.0.0/8\", \"x\"]\nproxy = \"required\"\n",
        "1:9",
        "x",
    ),
    // What listeners say.
    (
        "listen = [\"tcp://127.0.0.1:0\", \"127.0.0.1:1\"]\n",
        "1:32",
        "127.0.0.1:1",
    ),
    ("listen = \"tcp://:9?idle=5m\"\n", "1:10", "idle"),
    ("metrics = \"udp://:9\"\n", "1:11", "--metrics"),
    ("admin = \"tcp://192.0.2.1:9\"\n", "1:9", "--admin"),
    ("record-size = \"1MiB\"\n", "1:1", "--record-size"),
    ("[[listen]]\nbacklog = 5\n", "1:1", "a listener has a uri"),
    ("[[listen]]\nuri = 5\n", "2:7", "uri: expected a text"),
    (
        "[[listen]]\nuri = \"tcp://127.0.0.1:0\"\nbackslog = 5\n",
        "3:1",
        "backslog",
    ),
    (
        "[[listen]]\nuri = \"tcp://127.0.0.1:0\"\nbacklog = 1.5\n",
        "3:11",
        "backlog: expected",
    ),
    (
        "[[listen]]\nuri = \"tcp://127.0.0.1:0\"\nidle-timeout = \"5\"\n",
        "3:1",
        "idle-timeout",
    ),
    // Options that exclude one another.
    ("quiet = true\nverbose = 1\n", "1:1", "cannot be used with"),
    (
        "low-water = \"1MiB\"\nhigh-water = \"1MiB\"\n",
        "1:1",
        "--low-water must be less than --high-water",
    ),
    (
        "protocol = \"chat\"\nmodel = \"forking\"\n",
        "2:9",
        "--model forking",
    ),
    (
        "workers = 2\nmodel = \"threaded\"\n",
        "1:1",
        "--workers is only for",
    ),
    ("trust = \"10.0.0.0/8\"\n", "1:1", "--trust needs --proxy"),
    (
        "protocol = \"chat\"\nlisten = \"udp://127.0.0.1:0\"\n",
        "2:10",
        "udp://127.0.0.1:0: chat is for streams",
    ),
];

#[test]
fn the_place_of_every_mistake_is_told() {
    let mut wrong = Vec::new();
    for (text, place, part) in MISTAKES {
        let problems = Settings::new(text).problems();
        let is_told =
            |problem: &String| problem.contains(part) && problem.starts_with(&format!("{place}: "));
        if problems.len() != 1 || !is_told(&problems[0]) {
            wrong.push((text, place, part, problems));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let bytes = Settings::of_bytes(b"quiet = true\nlisten = \"\xff\"\n");
    assert_eq!(bytes.problems(), ["2:11: a byte that is not UTF-8"]);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let settings = Settings::new("idle-timeout = 5\nlisen = []\nmax-connections = false\n");
    let problems = settings.problems();
    let places: Vec<_> = problems.iter().map(|line| line.split(' ').next()).collect();
    assert_eq!(places, [Some("1:16:"), Some("2:1:"), Some("3:19:")]);

    let outcome = Outcome::new(&["serve", "echo", "--config", settings.path()]);
    assert_eq!(outcome.code, Some(2));
    assert_eq!(outcome.stderr.lines().count(), 3, "{}", outcome.stderr);
}

/// Files that `serve` refuses before it listens, the place of what is wrong, and a part of what is said.
const REFUSED: &[(&str, &str, &str)] = &[
    // What restarts need.
    (
        "model = \"threaded\"\nhandover = true\n",
        "2:1",
        "--handover needs --model event-loop",
    ),
    (
        "handover = true\nmodel = \"forking\"\n",
        "1:1",
        "--handover",
    ),
    (
        "model = \"sequential\"\nhandover = true\n",
        "2:1",
        "--handover",
    ),
    // What sessions of datagrams need.
    (
        "model = \"threaded\"\nlisten = \"udp://127.0.0.1:0?sessions=true\"\n",
        "2:10",
        "the event loop",
    ),
    (
        "sessions = true\nmodel = \"forking\"\nlisten = \"udp://127.0.0.1:0\"\n",
        "3:10",
        "the event loop",
    ),
    (
        "workers = 2\nlisten = [\"tcp://127.0.0.1:0\", \"udp://239.1.2.3:0?sessions=true\"]\n",
        "2:32",
        "share this socket",
    ),
    (
        "workers = 2\nlisten = \"tcp://127.0.0.1:0?reuse-port=false\"\n",
        "2:10",
        "need reuse-port",
    ),
    // What a listener's own limits leave of those for all.
    (
        "listen = \"tcp://127.0.0.1:0?high-water=1KiB\"\n",
        "1:10",
        "must be less than",
    ),
    (
        "high-water = \"1MiB\"\nlisten = \"tcp://127.0.0.1:0?low-water=2MiB\"\n",
        "2:10",
        "must be less than",
    ),
    (
        "listen = [\"tcp://127.0.0.1:0\", \"fd://3?high-water=1KiB\"]\n",
        "1:32",
        "must be less than",
    ),
    // Addresses at which nothing can listen.
    (
        "listen = \"tcp://239.1.2.3:0\"\n",
        "1:10",
        "several machines",
    ),
    // What is said of sockets that are passed.
    ("listen = \"fd://three\"\n", "1:10", "for example fd://3"),
    (
        "listen = \"fd://3?bakclog=5\"\n",
        "1:10",
        "the nearest is backlog",
    ),
    (
        "listen = \"systemd://web?mode=0600\"\n",
        "1:10",
        "was passed to it",
    ),
    (
        "listen = \"systemd://?proxy=required\"\n",
        "1:10",
        "proxy needs trust",
    ),
    (
        "listen = \"systemd://?cert=/nowhere/cert.pem&key=/nowhere/key.pem\"\n",
        "1:10",
        "/nowhere/",
    ),
    // The small server's listeners.
    (
        "metrics = \"tcp://127.0.0.1:0?high-water=1KiB\"\n",
        "1:11",
        "must be less than",
    ),
    // Files.
    (
        "record = \"/nowhere/echo.record\"\n",
        "1:10",
        "/nowhere/echo.record",
    ),
    (
        "pid-file = \"/nowhere/echo.pid\"\n",
        "1:12",
        "/nowhere/echo.pid",
    ),
    ("pid-file = \"/tmp\"\n", "1:12", "directory"),
];

/// Both have the same rules, so none is known to one of them alone.
#[test]
fn what_a_server_refuses_is_no_file_for_one() {
    let mut wrong = Vec::new();
    for (text, place, part) in REFUSED {
        let settings = Settings::new(&format!("{text}protocol = \"echo\"\n"));
        let (checked, served) = (
            settings.check(),
            Outcome::new(&["serve", "--config", settings.path()]),
        );
        let place = format!("{}:{place}: ", settings.path());
        let is_told = |outcome: &Outcome| outcome.stderr.contains(*part);
        let is_placed = checked.code == Some(1) && checked.stderr.starts_with(&place);
        // A socket that is passed is looked for before what is said of it.
        let is_refused = matches!(served.code, Some(1 | 2)) && served.stdout.is_empty();
        if !is_placed || !is_told(&checked) || !is_refused {
            wrong.push((text, checked.stderr, served.stderr));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");

    let long = "x".repeat(120);
    is_wrong(
        &format!("protocol = \"echo\"\nlisten = \"unix:///tmp/{long}\"\n"),
        "2:10",
        "shorter",
    );
}

/// A server learns from the system that the file of the first listener is in use.
#[test]
fn two_listeners_have_two_files() {
    let directory = Directory::new();
    let uri = directory.uri("unix", "socket");
    for second in [uri.clone(), format!("{uri}?mode=0600")] {
        let text = format!("listen = [\"{uri}\",\n\"{second}\"]\n");
        is_wrong(&text, "2:1", "the same file");
        let settings = Settings::new(&format!("protocol = \"echo\"\n{text}"));
        let outcome = Outcome::new(&["serve", "--config", settings.path()]);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    }
    is_wrong(
        &format!("listen = \"{uri}\"\nadmin = \"{uri}?mode=0600\"\n"),
        "2:9",
        "the same file",
    );
}

/// What is passed to the server is not there when its file is checked.
#[test]
fn sockets_that_are_passed_are_no_mistake() {
    for listen in ["fd://7", "systemd://", "systemd://web?idle-timeout=5m"] {
        let text = format!("protocol = \"echo\"\nlisten = \"{listen}\"\n");
        let outcome = Settings::new(&text).check();
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    }
}

#[test]
fn what_a_server_refuses_has_its_place() {
    for (text, place) in [
        (
            "protocol = \"chat\"\nlisten = \"tcp://127.0.0.1:0\"\nmodel = \"forking\"\n",
            "3:9",
        ),
        (
            "protocol = \"echo\"\nlisten = \"tcp://127.0.0.1:0?backslog=1\"\n",
            "2:10",
        ),
        ("protocol = \"echo\"\nquiet = true\nverbose = 2\n", "2:1"),
    ] {
        let settings = Settings::new(text);
        let outcome = Outcome::new(&["serve", "--config", settings.path()]);
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        let place = format!("{}:{place}: ", settings.path());
        assert!(outcome.stderr.contains(&place), "{}", outcome.stderr);
    }
    // The fault of what is typed is none of the file.
    let fine = Settings::new("protocol = \"echo\"\n");
    let outcome = Outcome::new(&[
        "serve",
        "--config",
        fine.path(),
        "--workers=2",
        "--model=threaded",
    ]);
    assert_eq!(outcome.code, Some(2));
    assert!(!outcome.stderr.contains(fine.path()), "{}", outcome.stderr);
}

#[test]
fn files_that_a_file_names_are_read() {
    let directory = Directory::new();
    let missing = directory.path("missing");
    let missing = missing.to_str().expect("a path");
    is_wrong(&format!("\nallow = \"@{missing}\"\n"), "2:9", "missing");
    let wrong = directory.path("networks");
    fs::write(&wrong, "10.0.0.0/8\nhere\n").expect("a file");
    let rule = format!("allow = [\"::1\", \"@{}\"]\n", wrong.display());
    is_wrong(&rule, "1:17", "networks:2: ");
}

#[cfg(feature = "tls")]
#[test]
fn certificates_that_a_file_names_are_read() {
    use crate::support::secure::certificate;

    let [chain, key] = ["localhost.pem", "localhost.key"].map(certificate);
    let good = format!(
        "protocol = \"echo\"\n[[listen]]\nuri = \"tls://127.0.0.1:0\"\ncert = \"{chain}\"\nkey = \"{key}\"\n"
    );
    let settings = Settings::new(&good);
    assert_eq!(settings.check().code, Some(0));
    let (_served, uri) = settings.serve(&[]);
    assert!(uri.starts_with("tls://127.0.0.1:"), "{uri}");

    let bad = good.replace(&chain, "/nowhere/cert.pem");
    is_wrong(&bad, "4:1", "/nowhere/cert.pem");
    let swapped = good.replace(&key, &chain);
    let problems = Settings::new(&swapped).problems();
    assert!(problems[0].starts_with(['3', '4', '5']), "{problems:?}");
}

#[test]
fn a_hangup_reads_lists_and_the_level_again() {
    let with = |more: &str| format!("protocol = \"echo\"\nlisten = \"tcp://127.0.0.1:0\"\n{more}");
    let settings = Settings::new(&with("verbose = 1\n"));
    let (served, uri) = settings.serve(&[]);
    assert!(Stream::connect(&uri).echoes());
    served.logged("accepted");

    settings.change(&with(
        "deny = [\"127.0.0.0/8\"]\nmax-connections = 7\nlog-level = \"info\"\n",
    ));
    served.signal(Signal::HUP);
    served.logged("the file of --config was read again");
    let waiting = served.logged("need a new start");
    assert!(
        waiting.ends_with("need a new start: max-connections"),
        "{waiting}"
    );
    Stream::connect(&uri).expect_cut();

    // A bad file changes nothing, and its place is told.
    settings.change(&with("deny = [\"127.0.0.0/99\"]\n"));
    served.signal(Signal::HUP);
    let line = served.logged(&format!("{}:3:9: ", settings.path()));
    assert!(line.contains("127.0.0.0/99"), "{line}");
    served.logged("what was read before stays in use");
    Stream::connect(&uri).expect_cut();

    settings.change(&with("log-level = \"debug\"\n"));
    served.signal(Signal::HUP);
    served.logged("the file of --config was read again");
    let mut client = TcpStream::connect(socket_addr(&uri)).expect("a server");
    client.write_all(b"x").expect("it listens");
    served.logged("accepted");
}

/// Names are those of listeners, which stay as they are. To look one up may take longer than clients wait.
#[test]
fn a_hangup_looks_no_name_up() {
    let with = |uri: &str, more: &str| {
        format!("protocol = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"{uri}]\n{more}")
    };
    let settings = Settings::new(&with("", ""));
    let (served, uri) = settings.serve(&[]);
    assert!(Stream::connect(&uri).echoes());

    settings.change(&with(
        ", \"tcp://server.invalid:9\", \"udp://server.invalid:9\"",
        "deny = [\"127.0.0.0/8\"]\nmetrics = \"tcp://server.invalid:9\"\n",
    ));
    served.signal(Signal::HUP);
    let waiting = served.logged("need a new start");
    assert!(waiting.ends_with(": listen, metrics"), "{waiting}");
    Stream::connect(&uri).expect_cut();

    // What is said besides the name is read.
    settings.change(&with(", \"tcp://server.invalid:9?backslog=5\"", ""));
    served.signal(Signal::HUP);
    served.logged("the nearest is backlog");
    served.logged("what was read before stays in use");
    Stream::connect(&uri).expect_cut();
}

#[test]
fn an_empty_list_admits_nobody_by_accident() {
    let with = |more: &str| format!("protocol = \"echo\"\nlisten = \"tcp://127.0.0.1:0\"\n{more}");
    let settings = Settings::new(&with("allow = [\"192.0.2.1\"]\n"));
    let (served, uri) = settings.serve(&[]);
    Stream::connect(&uri).expect_cut();
    settings.change(&with("allow = []\n"));
    served.signal(Signal::HUP);
    served.logged("allow: expected at least one value");
    served.logged("what was read before stays in use");
    Stream::connect(&uri).expect_cut();

    // An empty list of those who are refused means the same as none.
    settings.change(&with("deny = []\n"));
    served.signal(Signal::HUP);
    served.logged("was read again");
    assert!(Stream::connect(&uri).echoes());
}

#[test]
fn a_level_that_an_administrator_sets_stays_until_the_file_has_another() {
    let directory = Directory::new();
    let admin = directory.uri("unix", "admin");
    let with = |more: &str| format!("protocol = \"echo\"\nlisten = \"tcp://127.0.0.1:0\"\n{more}");
    for level in ["", "log-level = \"info\"\n"] {
        let settings = Settings::new(&with(level));
        let (served, uri) = settings.serve(&["--admin", &admin]);
        served.printed();
        let log = |level: &str| {
            let outcome = Outcome::new(&["ctl", "--admin", &admin, "log", level]);
            assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        };

        log("off");
        settings.change(&with(&format!("{level}deny = [\"127.0.0.0/8\"]\n")));
        served.signal(Signal::HUP);
        let until = Instant::now() + PATIENCE;
        while Stream::connect(&uri).echoes() {
            assert!(Instant::now() < until, "the file is not read again");
        }
        log("error");
        settings.change(&with("log-level = \"debug\"\n"));
        served.signal(Signal::HUP);
        served.logged("the file of --config was read again");
        assert!(Stream::connect(&uri).echoes());
        served.logged("accepted");

        served.signal(Signal::TERM);
        let rest = served.status_and_log().join("\n");
        assert!(!rest.contains("was read again"), "{rest}");
    }
}

#[test]
fn permissions_may_be_written_as_in_toml() {
    let directory = Directory::new();
    let [own, general] = ["own", "general"].map(|name| directory.path(name));
    let settings = Settings::new(&format!(
        "protocol = \"echo\"\nsocket-mode = 0o640\n[[listen]]\nuri = \"unix://{}\"\nmode = 0o660\n\
         [[listen]]\nuri = \"unix://{}\"\n",
        own.display(),
        general.display()
    ));
    let (served, _) = settings.serve(&[]);
    served.printed();
    for (path, expected) in [(own, 0o660), (general, 0o640)] {
        let permissions = fs::metadata(&path).expect("a socket").permissions();
        let mode = std::os::unix::fs::PermissionsExt::mode(&permissions);
        assert_eq!(mode & 0o777, expected, "{}", path.display());
    }
}

#[test]
fn numbers_may_be_written_as_in_toml() {
    let settings = Settings::new(
        "protocol = \"echo\"\nlisten = \"tcp://127.0.0.1:0\"\nmax-connections = 1_0\nhigh-water = 0x4000\n\
         low-water = 4096\nlimit-loopback = false\nraise-descriptor-limit = true\nquiet = false\n",
    );
    assert_eq!(
        settings.check().code,
        Some(0),
        "{}",
        settings.check().stderr
    );
    let (_served, uri) = settings.serve(&[]);
    assert!(Stream::connect(&uri).echoes());
}

#[test]
fn a_file_may_name_no_protocol() {
    let settings = Settings::new(
        "listen = \"tcp://127.0.0.1:0\"\n[hello]\ndelay = \"0s\"\nframing = \"line\"\n",
    );
    assert_eq!(
        settings.check().code,
        Some(0),
        "{}",
        settings.check().stderr
    );
    let (_served, uri) = settings.serve(&["hello"]);
    is_hello(&uri);
    let (_served, uri) = settings.serve(&["echo"]);
    assert!(Stream::connect(&uri).echoes());
}

/// A pipe is refused at once, and is not waited for.
#[test]
fn a_pipe_is_no_file_of_options_and_takes_no_number() {
    let directory = Directory::new();
    let pipe = directory.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let pipe = pipe.to_str().unwrap();

    let outcome = Outcome::new(&["check", pipe]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("is a pipe"), "{}", outcome.stderr);

    let listen = ["--listen", "tcp://127.0.0.1:0"];
    for (option, part) in [("--config", "is a pipe"), ("--pid-file", pipe)] {
        let outcome = Outcome::new(&[&["serve", "echo", option, pipe], &listen[..]].concat());
        assert_ne!(outcome.code, Some(0), "{option}");
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
}
