//! Under a service manager: sockets that it passes, and what it hears.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::outside::require;
use crate::support::served::{MODELS, Outcome, PATIENCE, Served, by_shell, serveloop};
use crate::support::sockets::{Directory, Stream};

/// A command that is passed `descriptor` as number 3.
fn passing(descriptor: impl Into<OwnedFd>, variables: &str, arguments: &[&str]) -> Command {
    let prepare = format!("exec 3<&0 </dev/null; {variables}");
    let mut command = by_shell(&prepare, &[&["serve", "echo"], arguments].concat());
    command.stdin(Stdio::from(descriptor.into()));
    command
}

const ONE: &str = "export LISTEN_FDS=1 LISTEN_PID=$$";

#[test]
fn a_passed_socket_is_served_in_every_model() {
    for model in MODELS {
        for listen in ["systemd://", "fd://3", "systemd://unknown?idle-timeout=5m"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let uri = format!("tcp://{}", listener.local_addr().unwrap());
            let arguments = [&["--listen", listen], model].concat();
            let served = Served::spawn(passing(listener, ONE, &arguments));
            assert_eq!(served.uri(0), uri, "{model:?}");
            for _ in 0..3 {
                assert!(served.connect().echoes(), "{model:?}");
            }
            served.signal(Signal::TERM);
            let (status, log) = served.end();
            assert_eq!(status.code(), Some(0));
            assert!(!log.iter().any(|line| line.contains("WARN")), "{log:?}");
        }
    }
}

/// Without --listen, the sockets that were passed are served.
#[test]
fn passed_sockets_are_the_default() {
    let directory = Directory::new();
    let listener = UnixListener::bind(directory.path("socket")).unwrap();
    let served = Served::spawn_unheard(passing(listener, ONE, &[]));
    let uri = directory.uri("unix", "socket");
    assert_eq!(served.printed(), format!("listening on {uri}"));
    assert!(Stream::connect(&uri).echoes());
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
    assert!(directory.path("socket").exists(), "it is the manager's");
}

#[test]
fn datagrams_and_tls_come_from_passed_sockets_too() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = socket.local_addr().unwrap();
    let served = Served::spawn(passing(socket, ONE, &["--listen", "systemd://"]));
    assert_eq!(served.uri(0), format!("udp://{to}"));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"hello", to).unwrap();
    let mut room = [0; 8];
    assert_eq!(client.recv(&mut room).unwrap(), 5);
}

#[cfg(feature = "tls")]
#[test]
fn a_passed_socket_with_a_certificate_has_tls() {
    const FOLDER: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/it/layer/tls/certificates"
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let listen = format!("fd://3?cert={FOLDER}/localhost.pem&key={FOLDER}/localhost.key");
    let served = Served::spawn(passing(listener, ONE, &["--listen", &listen]));
    assert_eq!(served.uri(0), format!("tls://{address}"));
    let outcome =
        crate::support::running::run(&["connect", "--insecure", served.uri(0)], "over TLS\n");
    assert_eq!(outcome.well(), "over TLS\n");
}

#[test]
fn what_was_not_passed_cannot_be_served() {
    let refused = |mut command: Command, code: i32, part: &str| {
        command.stdin(Stdio::null());
        let outcome = Outcome::of(command);
        assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    };
    let listen = |uri: &str| serveloop(&["serve", "echo", "--listen", uri]);
    refused(listen("systemd://"), 1, "LISTEN_FDS");
    refused(listen("systemd://web"), 1, "systemd://web: no socket");
    refused(listen("fd://77"), 1, "descriptor 77 is not open");
    refused(listen("fd://0"), 1, "descriptor 0 is not a socket");
    refused(listen("fd://x"), 2, "expected the number");
    refused(listen("fd://-1"), 2, "expected the number");
    refused(listen("systemd://?backlgo=1"), 2, "the nearest is backlog");
    refused(listen("socket://1:2"), 2, "unknown scheme");

    let passed = |variables: &str, arguments: &[&str]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Outcome::of(passing(listener, variables, arguments))
    };
    let named = format!("{ONE} LISTEN_FDNAMES=web");
    let outcome = passed(&named, &["--listen", "systemd://mail"]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("only \"web\""),
        "{}",
        outcome.stderr
    );
    let twice = ["--listen", "systemd://web", "--listen", "fd://3"];
    let outcome = passed(&named, &twice);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("already"), "{}", outcome.stderr);
    let number = "descriptor 3 is tcp://127.0.0.1:";
    assert!(outcome.stderr.contains(number), "{}", outcome.stderr);
    let outcome = passed("", &["--listen", "fd://3", "--listen", "fd://3"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("already"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(number), "{}", outcome.stderr);
    // The number of a copy was free at the start.
    let outcome = passed(
        "exec 7<&3 3<&-",
        &["--listen", "fd://7", "--listen", "fd://3"],
    );
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("descriptor 3 is not"),
        "{}",
        outcome.stderr
    );
    let outcome = passed(&named, &["--listen", "systemd://?reuse-port=true"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("reuse-port"), "{}", outcome.stderr);
}

#[test]
fn a_program_that_starts_on_demand_serves_the_client_that_waited() {
    if !require("systemd-socket-activate") {
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    drop(port);
    let mut command = Command::new("systemd-socket-activate");
    command
        .args(["-l", &address, "--fdname=web"])
        .arg(env!("CARGO_BIN_EXE_serveloop"))
        .args(["serve", "echo", "--listen", "systemd://web"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let served = Served::spawn_unheard(command);
    served.logged("Listening on");
    let uri = format!("tcp://{address}");
    let mut client = Stream::connect(&uri);
    assert!(client.echoes());
    assert_eq!(served.printed(), format!("listening on {uri}"));
    drop(client);
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
}

/// Stands for the service manager.
struct Manager {
    socket: UnixDatagram,
    directory: Directory,
}

impl Manager {
    fn new() -> Self {
        let directory = Directory::new();
        let socket = UnixDatagram::bind(directory.path("manager")).expect("a free path");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { socket, directory }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = serveloop(&["serve"]);
        command.args(arguments);
        command.env("NOTIFY_SOCKET", self.directory.path("manager"));
        command
    }

    #[track_caller]
    fn hear(&self) -> String {
        let mut room = [0; 256];
        let count = self.socket.recv(&mut room).expect("a message");
        String::from_utf8_lossy(&room[..count]).into_owned()
    }

    /// The next message that is no sign of life.
    #[track_caller]
    fn hear_news(&self) -> String {
        loop {
            let heard = self.hear();
            if heard != "WATCHDOG=1" {
                return heard;
            }
        }
    }

    fn is_silent_for(&self, time: Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).expect("a socket");
        let silent = self.socket.recv(&mut [0; 256]).is_err();
        self.socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket");
        silent
    }
}

#[test]
fn the_manager_hears_of_everything_in_every_model() {
    for model in MODELS {
        let manager = Manager::new();
        let uri = manager.directory.uri("unix", "echo");
        let arguments = [&["echo", "--listen", &uri], model].concat();
        let served = Served::spawn_unheard(manager.command(&arguments));
        assert_eq!(manager.hear(), "READY=1", "{model:?}");
        let mut client = Stream::connect(&uri);
        assert!(client.echoes(), "{model:?}");

        served.signal(Signal::HUP);
        let heard = manager.hear();
        let micros = heard.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let micros = micros.and_then(|micros| micros.parse::<u64>().ok());
        assert!(micros.is_some_and(|micros| micros > 0), "{model:?} {heard}");
        assert_eq!(manager.hear(), "READY=1", "{model:?}");
        assert!(client.echoes(), "{model:?}");

        served.signal(Signal::TERM);
        assert_eq!(manager.hear(), "STOPPING=1", "{model:?}");
        drop(client);
        assert_eq!(served.status().code(), Some(0), "{model:?}");
    }
}

#[test]
fn the_watchdog_is_fed_while_every_loop_turns() {
    for model in MODELS {
        let manager = Manager::new();
        let uri = manager.directory.uri("unix", "echo");
        let mut command = manager.command(&[&["echo", "--listen", &uri], model].concat());
        command.env("WATCHDOG_USEC", "200000");
        let served = Served::spawn_unheard(command);
        assert_eq!(manager.hear(), "READY=1");
        let client = Stream::connect(&uri);
        let begun = Instant::now();
        for _ in 0..8 {
            assert_eq!(manager.hear(), "WATCHDOG=1", "{model:?}");
        }
        assert!(begun.elapsed() > Duration::from_millis(200), "{model:?}");

        // A stopped process turns no loop.
        served.signal(Signal::STOP);
        while !manager.is_silent_for(Duration::from_millis(300)) {}
        served.signal(Signal::CONT);
        assert_eq!(manager.hear(), "WATCHDOG=1", "{model:?}");
        drop(client);
        served.signal(Signal::TERM);
        assert_eq!(manager.hear_news(), "STOPPING=1", "{model:?}");
        assert_eq!(served.status().code(), Some(0), "{model:?}");
    }
}

#[test]
fn a_watchdog_of_another_process_is_not_ours() {
    let manager = Manager::new();
    let uri = manager.directory.uri("unix", "echo");
    let mut command = manager.command(&["echo", "--listen", &uri]);
    command.env("WATCHDOG_USEC", "40000");
    command.env("WATCHDOG_PID", "1");
    let _served = Served::spawn_unheard(command);
    assert_eq!(manager.hear(), "READY=1");
    assert!(manager.is_silent_for(Duration::from_millis(200)));
}

#[test]
fn a_manager_that_cannot_be_notified_is_no_obstacle() {
    for address in ["/nonexistent/manager", "vsock:2:1234", "relative"] {
        let mut command = serveloop(&["serve", "echo", "--listen", "tcp://127.0.0.1:0"]);
        command.env("NOTIFY_SOCKET", address);
        let served = Served::spawn(command);
        assert!(served.connect().echoes(), "{address}");
        served.signal(Signal::TERM);
        let log = served.status_and_log();
        let warns = |line: &&String| line.contains("WARN") && line.contains("manager");
        assert_eq!(log.iter().filter(warns).count(), 1, "{address} {log:?}");
    }
}

/// What the server starts must not speak for it.
#[test]
fn programs_of_clients_see_nothing_of_the_manager() {
    let manager = Manager::new();
    let uri = manager.directory.uri("unix", "command");
    let mut command = manager.command(&["command", "--allow", "env", "--listen", &uri]);
    command.env("WATCHDOG_USEC", "60000000");
    let _served = Served::spawn(command);
    let mut client = Stream::connect(&uri);
    client.send_bytes(b"\0\0\0\x03env");
    client.finish();
    let answer = String::from_utf8_lossy(&client.receive_rest()).into_owned();
    assert!(answer.contains("PATH="), "{answer}");
    assert!(!answer.contains("NOTIFY_SOCKET"), "{answer}");
    assert!(!answer.contains("WATCHDOG"), "{answer}");
}
