//! Servers of this crate in a program of their own, whose `main` becomes the programs that clients
//! ask for.
#![expect(
    clippy::unwrap_used,
    reason = "what cannot be unwrapped is a failure of the test"
)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{env, panic};

use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use serveloop::server::Serving;
use serveloop::{Config, Factory, Limits, Peer, Server, ShutdownHandle, Statistics};
use serveloop_command::{Allowed, Commands, Settings, Wire, become_program};

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(20);

const TESTS: [(&str, fn()); 8] = [
    ("what_is_allowed_runs", what_is_allowed_runs),
    ("threads_run_programs_too", threads_run_programs_too),
    ("each_format_has_its_length", each_format_has_its_length),
    (
        "what_browsers_send_runs_nothing",
        what_browsers_send_runs_nothing,
    ),
    (
        "no_program_is_left_at_the_end",
        no_program_is_left_at_the_end,
    ),
    (
        "times_without_an_end_overflow_nothing",
        times_without_an_end_overflow_nothing,
    ),
    ("datagrams_are_refused", datagrams_are_refused),
    ("wrong_settings_are_refused", wrong_settings_are_refused),
];

fn main() -> ExitCode {
    let early = Commands::new(Settings::default(), &Config::default());
    if let Some(failed) = become_program() {
        return failed;
    }

    let refusal = early
        .expect_err("a server whose main would run again")
        .to_string();
    assert!(refusal.contains("become_program"), "{refusal}");

    let filter = env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let is_chosen = |name: &str| filter.as_ref().is_none_or(|part| name.contains(part));
    let chosen: Vec<_> = TESTS.iter().filter(|(name, _)| is_chosen(name)).collect();

    println!("\nrunning {} tests", chosen.len());
    let mut failed = 0;
    for (name, test) in &chosen {
        let passed = panic::catch_unwind(*test).is_ok();
        failed += usize::from(!passed);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }

    let outcome = if failed == 0 { "ok" } else { "FAILED" };
    let (passed, others) = (chosen.len() - failed, TESTS.len() - chosen.len());
    println!(
        "\ntest result: {outcome}. {passed} passed; {failed} failed; 0 ignored; 0 measured; \
         {others} filtered out\n"
    );
    ExitCode::from(u8::from(failed > 0))
}

type Outcome = io::Result<Statistics>;

/// A server on a thread.
struct Running {
    commands: Commands,
    uri: String,
    handle: ShutdownHandle,
    thread: JoinHandle<Outcome>,
}

impl Running {
    fn start(settings: Settings, serve: fn(Serving<Commands>) -> Outcome) -> Self {
        Self::with_config(settings, Config::default(), serve)
    }

    fn with_config(
        settings: Settings,
        config: Config,
        serve: fn(Serving<Commands>) -> Outcome,
    ) -> Self {
        let commands = Commands::new(settings, &config).unwrap();
        let server = Server::bind(&["tcp://127.0.0.1:0".parse().unwrap()], config).unwrap();

        let uri = server.addresses()[0].to_string();
        let handle = server.shutdown_handle();
        let factory = commands.clone();
        let thread = thread::spawn(move || serve(server.with(factory)));
        Self {
            commands,
            uri,
            handle,
            thread,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.uri.trim_start_matches("tcp://")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Ends the server, and returns the counts of its requests.
    fn end(self) -> String {
        self.handle.shutdown();
        self.thread.join().unwrap().unwrap();
        self.commands.end();
        self.commands.tally().to_string()
    }
}

fn allowing(names: &[&str]) -> Settings {
    let allowed = names.iter().map(|name| Allowed::find(name).unwrap());
    Settings {
        allowed: allowed.collect(),
        ..Settings::default()
    }
}

/// Sends a request in the default format and returns the reply.
fn ask(stream: &mut TcpStream, request: &str) -> String {
    let length = u32::try_from(request.len()).unwrap();
    stream.write_all(&length.to_be_bytes()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();

    let mut header = [0; 4];
    stream.read_exact(&mut header).unwrap();
    let mut reply = vec![0; u32::from_be_bytes(header) as usize];
    stream.read_exact(&mut reply).unwrap();
    String::from_utf8(reply).unwrap()
}

fn what_is_allowed_runs() {
    let running = Running::start(allowing(&["echo", "pwd", "false"]), Serving::serve_forever);
    let mut stream = running.connect();
    assert_eq!(ask(&mut stream, "echo 'a  b' $HOME ;"), "a  b $HOME ;\n");
    assert_eq!(ask(&mut stream, "pwd"), "/\n");
    assert_eq!(ask(&mut stream, "false"), "[exit status 1]\n");
    assert_eq!(ask(&mut stream, "id"), "[not allowed: \"id\"]\n");

    drop(stream);
    let counts = "programs run 3, not started 0; requests refused 1";
    assert_eq!(running.end(), counts);
}

fn threads_run_programs_too() {
    let running = Running::start(allowing(&["echo"]), Serving::serve_threading);
    assert_eq!(ask(&mut running.connect(), "echo hi"), "hi\n");
    running.end();
}

fn each_format_has_its_length() {
    for (wire, expected) in [
        (Wire::Framed, &b"\0\0\0\x03hi\n"[..]),
        (Wire::Struct, b"\x03\0\0\0hi\n"),
        (Wire::Ready, b"3hi\n"),
    ] {
        let settings = Settings {
            wire,
            ..allowing(&["echo"])
        };
        let running = Running::start(settings, Serving::serve_forever);
        let mut stream = running.connect();
        let request: &[u8] = match wire {
            Wire::Framed => b"\0\0\0\x07echo hi",
            _ => b"echo hi\n",
        };
        stream.write_all(request).unwrap();

        let mut reply = Vec::new();
        if wire == Wire::Ready {
            reply.resize(1, 0);
            stream.read_exact(&mut reply).unwrap();
            stream.write_all(serveloop_command::READY).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, expected, "{wire:?}");
        running.end();
    }
}

fn what_browsers_send_runs_nothing() {
    let settings = Settings {
        wire: Wire::Struct,
        ..allowing(&["echo"])
    };
    let running = Running::start(settings, Serving::serve_forever);
    let mut stream = running.connect();
    let sent = stream.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\necho hi\n");
    sent.unwrap();

    let mut reply = Vec::new();
    // The server may reset the connection, since it leaves bytes unread.
    let _ = stream.read_to_end(&mut reply);
    assert_eq!(reply, b"");
    let counts = "programs run 0, not started 0; requests refused 0";
    assert_eq!(running.end(), counts);
}

fn no_program_is_left_at_the_end() {
    let running = Running::start(allowing(&["sh"]), Serving::serve_forever);
    let mut stream = running.connect();
    let request = b"\0\0\0\x17sh -c 'sleep 60; true;'";
    stream.write_all(request).unwrap();
    while wait(WaitOptions::NOHANG).is_err() {
        thread::sleep(Duration::from_millis(5));
    }

    running.handle.abort();
    let counts = "programs run 1, not started 0; requests refused 0";
    assert_eq!(running.end(), counts);
    assert_eq!(wait(WaitOptions::NOHANG).unwrap_err(), Errno::CHILD);
}

fn times_without_an_end_overflow_nothing() {
    let settings = Settings {
        timeout: Some(Duration::MAX),
        kill_after: Duration::MAX,
        max_cpu_time: Duration::MAX,
        grace_after_eof: Duration::MAX,
        ..allowing(&["echo"])
    };
    let config = Config {
        limits: Limits {
            idle_timeout: Some(Duration::MAX),
            ..Limits::default()
        },
        ..Config::default()
    };
    let running = Running::with_config(settings, config, Serving::serve_forever);

    let mut stream = running.connect();
    stream.write_all(b"\0\0\0\x07echo hi").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, b"\0\0\0\x03hi\n");
    running.end();
}

fn datagrams_are_refused() {
    let mut commands = Commands::new(allowing(&["echo"]), &Config::default()).unwrap();
    let stream = Peer::new("tcp://127.0.0.1:1".parse().unwrap(), Some(0));
    assert!(commands.build_protocol(&stream).is_some());
    let datagram = Peer::new("udp://127.0.0.1:1".parse().unwrap(), Some(0));
    assert!(commands.build_protocol(&datagram).is_none());
}

fn wrong_settings_are_refused() {
    let settings = Settings {
        max_running: 0,
        ..allowing(&["echo"])
    };
    let error = Commands::new(settings, &Config::default()).unwrap_err();
    assert_eq!(error.to_string(), "max_running must not be 0");
}
