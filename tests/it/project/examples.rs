//! Every example, run as a process of its own and talked to.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use serveloop::Address;
use serveloop::layer::proxy::Header;
use serveloop::layer::tls::rustls;
use socket2::{Domain, SockRef, Socket, Type};

use crate::layer::tls::certificates;
use crate::layer::tls::programs::Openssl;
use crate::support::outside::require;
use crate::support::{
    PATIENCE, Scratch, client, echoes, expect, millis, noise, read_to_end, seconds, unix_client,
};

const MIB: usize = 1 << 20;

/// What an example may need beyond what it had at the start: several times its limits, and far less
/// than what passes through it.
const GROWTH_BYTES: usize = 4 * MIB;

/// A running example, killed when the test ends.
struct Example {
    child: Child,
    lines: Receiver<String>,
}

impl Example {
    #[track_caller]
    fn run(name: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(built(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`cargo test` builds the examples, `cargo test --test it` alone does not");
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = output.lines().map_while(Result::ok);
            lines.all(|line| sender.send(line).is_ok())
        });
        Self { child, lines }
    }

    /// Runs it with this `RUST_LOG`. Its lines are the first of its output, and those of its log.
    #[track_caller]
    fn logged(name: &str, arguments: &[&str], filter: &str) -> Self {
        let mut child = Command::new(built(name))
            .args(arguments)
            .env("RUST_LOG", filter)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`cargo test` builds the examples, `cargo test --test it` alone does not");
        let output = child.stdout.take().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let both = BufReader::new(output).lines().take(1).chain(log.lines());
            let mut both = both.map_while(Result::ok);
            both.all(|line| sender.send(line).is_ok())
        });
        Self { child, lines }
    }

    /// The next line of its output.
    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(6 * PATIENCE).unwrap()
    }

    /// Where it says that it listens.
    #[track_caller]
    fn address(&self) -> Address {
        let line = self.line();
        let uri = line.strip_prefix("listening on ").unwrap();
        uri.parse().unwrap()
    }

    /// The most memory that it ever had resident, in bytes.
    fn peak_memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = peak.unwrap().trim().strip_suffix(" kB").unwrap();
        kilobytes.parse::<usize>().unwrap() * 1024
    }

    #[track_caller]
    fn assert_still_runs(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "it has ended");
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Examples are next to the directory of the tests.
fn built(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples").join(name)
}

const ANYWHERE: &str = "tcp://127.0.0.1:0";

#[test]
fn echo_sends_everything_back() {
    let mut echo = Example::run("echo", &[ANYWHERE]);
    let address = echo.address();
    echoes(&mut client(&address), &noise(100_000));
    echoes(&mut client(&address), b"again");
    echo.assert_still_runs();
}

#[test]
fn echo_serves_a_unix_socket() {
    let scratch = Scratch::new();
    let echo = Example::run("echo", &[&scratch.uri("unix", "echo")]);
    assert_eq!(echo.address().path().unwrap(), scratch.path("echo"));
    echoes(&mut unix_client(&scratch.path("echo")), b"by its path");
}

#[test]
fn hello_answers_each_name_and_closes_on_exit() {
    let hello = Example::run("hello", &[ANYWHERE]);
    let mut stream = client(&hello.address());
    expect(&mut stream, b"Welcome!\n");
    stream.write_all(b"Michael\nTracy\nexit\n").unwrap();
    assert_eq!(read_to_end(&mut stream), b"Hello,Michael\nHello,Tracy\n");
}

/// What the real server met is met again by the replay.
#[test]
fn recorded_shows_its_bug_again() {
    let scratch = Scratch::new();
    let temporary = scratch.path(".");
    let mut command = Command::new(built("recorded"));
    let server = command.arg(ANYWHERE).env("TMPDIR", &temporary);
    let server = server.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut server = server.expect("`cargo test` builds the examples");
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let address: Address = line.strip_prefix("listening on ").unwrap().parse().unwrap();

    let mut good = client(&address);
    good.write_all(b"four\n").unwrap();
    expect(&mut good, b"4\n");
    let mut bad = client(&address);
    bad.write_all(b"five!\nx").unwrap();
    expect(&mut bad, b"5\n");
    thread::sleep(millis(100));
    bad.write_all(b"yz\n").unwrap();
    assert_eq!(
        bad.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    good.write_all(b"exit\n").unwrap();
    expect(&mut good, b"4\n");
    drop(good);
    assert!(server.wait().unwrap().success());

    let mut command = Command::new(built("recorded"));
    let replay = command
        .arg("replay")
        .env("TMPDIR", &temporary)
        .output()
        .unwrap();
    let said = String::from_utf8(replay.stdout).unwrap();
    let lines: Vec<_> = said.lines().collect();
    let [counts, first, second] = lines[..] else {
        panic!("{said}");
    };
    assert!(
        counts.starts_with("2 connections, ") && counts.ends_with(" 0 differences"),
        "{said}"
    );
    assert!(first.starts_with("closed"), "{said}");
    assert_eq!(second, "the protocol panicked");
}

#[test]
fn offload_looks_up_names_in_their_order() {
    let mut offload = Example::run("offload", &[ANYWHERE]);
    let mut stream = client(&offload.address());
    stream
        .write_all(b"127.0.0.1\nlocalhost\n::::\n127.0.0.2\n")
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let replies = String::from_utf8(read_to_end(&mut stream)).unwrap();
    let replies: Vec<_> = replies.lines().collect();
    let [first, localhost, wrong, last] = replies[..] else {
        panic!("{replies:?}");
    };
    assert_eq!((first, last), ("tcp://127.0.0.1:0", "tcp://127.0.0.2:0"));
    let is_own = |it: &str| ["tcp://127.0.0.1:0", "tcp://[::1]:0"].contains(&it);
    assert!(localhost.split(' ').all(is_own), "{localhost}");
    assert!(wrong.contains("::::"), "{wrong}");
    offload.assert_still_runs();
}

#[test]
fn framed_adds_up_each_message() {
    let framed = Example::run("framed", &[ANYWHERE]);
    let mut stream = client(&framed.address());
    stream.write_all(b"\0\0\0\x02\x01\x02\0\0\0\0").unwrap();
    expect(&mut stream, b"\0\0\0\x013\0\0\0\x010");
    stream.write_all(&u32::MAX.to_be_bytes()).unwrap();
    assert!(read_to_end(&mut stream).ends_with(b"at most 65536 allowed"));
}

#[test]
fn driver_serves_one_connection_to_its_end() {
    let driver = Example::logged("driver", &[], "info");
    let mut stream = client(&driver.address());
    echoes(&mut stream, &noise(100_000));
    echoes(&mut stream, b"again");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut stream), b"");
    let line = driver.line();
    assert!(line.contains("INFO  driver] 127.0.0.1:"), "{line}");
    assert!(line.contains("reason: PeerClosed"), "{line}");
}

/// What is read waits for what is written: nothing is lost, and nothing grows.
#[test]
fn driver_sends_to_a_client_that_reads_late() {
    let driver = Example::logged("driver", &[], "info");
    let mut stream = client(&driver.address());
    let mut writer = stream.try_clone().unwrap();
    let data = noise(8 * MIB);
    let sent = data.clone();
    let sending = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    thread::sleep(millis(200));
    assert!(driver.peak_memory() < 16 * MIB);
    assert!(read_to_end(&mut stream) == data, "bytes were lost");
    sending.join().unwrap();
    assert!(driver.line().contains("reason: PeerClosed"));
}

#[test]
fn driver_tells_of_a_reset() {
    let driver = Example::logged("driver", &[], "info");
    let mut stream = client(&driver.address());
    echoes(&mut stream, b"hello");
    SockRef::from(&stream).set_linger(Some(millis(0))).unwrap();
    drop(stream);
    let line = driver.line();
    assert!(line.contains("reason: Io(Os { code: 104"), "{line}");
}

#[test]
fn examples_log_what_the_environment_asks_for() {
    let echo = Example::logged("echo", &[ANYWHERE], "serveloop=debug");
    let _client = client(&echo.address());
    let line = echo.line();
    assert!(line.contains("DEBUG serveloop] "), "{line}");
}

#[test]
fn tls_warns_of_old_certificates_and_of_keys_for_everybody() {
    let scratch = Scratch::new();
    let (chain, key) = (certificates::file("expired.pem"), scratch.path("key"));
    fs::copy(certificates::file("expired.key"), &key).unwrap();
    let names = [&chain, &key].map(|path| path.display().to_string());
    let arguments = [&*names[0], &names[1], ANYWHERE];

    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let server = Example::logged("tls_echo", &arguments, "serveloop=warn");
    server.address();
    let line = server.line();
    let expected = format!("certificate {}: \"CN=localhost\" expired ", names[0]);
    assert!(
        line.contains("WARN  serveloop] ") && line.contains(&expected),
        "{line}"
    );
    assert!(line.ends_with(" days ago"), "{line}");
    drop(server);

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let server = Example::logged("tls_echo", &arguments, "serveloop=warn");
    server.address();
    let expected = format!("key {}: every user can read it (mode 0644)", names[1]);
    let line = server.line();
    assert!(line.contains(&expected), "{line}");
}

#[test]
fn tls_echo_says_what_the_handshake_has_shown() {
    let file = |name: &str| certificates::file(name).display().to_string();
    let files = [file("localhost.pem"), file("localhost.key")];
    let server = Example::run("tls_echo", &[&files[0], &files[1], ANYWHERE]);
    let config = certificates::rustls_client(rustls::ALL_VERSIONS);
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::StreamOwned::new(
        rustls::ClientConnection::new(config.into(), name).unwrap(),
        client(&server.address()),
    );
    let greeting = b"TLS 1.3 with TLS_AES_256_GCM_SHA384, localhost\n";
    client.flush().unwrap();
    expect(&mut client, greeting);
    echoes(&mut client, &noise(10_000));
}

/// The models that examples with a model have: the loop by default.
const MODELS: [&str; 3] = ["loop", "threads", "processes"];

/// The example `starttls` in a model.
fn starttls(model: &str) -> Example {
    let file = |name: &str| certificates::file(name).display().to_string();
    let files = [file("localhost.pem"), file("localhost.key")];
    Example::run("starttls", &[&files[0], &files[1], ANYWHERE, model])
}

/// A client whose server has agreed to begin TLS.
fn asks_for_tls(server: &Address) -> TcpStream {
    let mut stream = client(server);
    expect(&mut stream, b"220 example.org\r\n");
    stream.write_all(b"ehlo me\r\nstarttls").unwrap();
    expect(
        &mut stream,
        b"250-example.org, in the clear\r\n250 STARTTLS\r\n",
    );
    stream.write_all(b"\r\n").unwrap();
    expect(&mut stream, b"220 go ahead\r\n");
    stream
}

#[test]
fn starttls_begins_in_the_clear_and_goes_on_in_tls() {
    for model in MODELS {
        let server = starttls(model);
        let config = certificates::rustls_client(rustls::ALL_VERSIONS);
        let name = "localhost".try_into().unwrap();
        let mut client = rustls::StreamOwned::new(
            rustls::ClientConnection::new(config.into(), name).unwrap(),
            asks_for_tls(&server.address()),
        );
        client
            .write_all(b"EHLO me\r\nSTARTTLS\r\nQUIT\r\n")
            .unwrap();
        // To the end, which has to be TLS's own.
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        let expected = "250 example.org, in TLS\r\n500 unknown command\r\n221 goodbye\r\n";
        assert_eq!(said, expected, "{model}");
    }
}

#[test]
fn starttls_lets_nothing_in_behind_the_command() {
    for model in MODELS {
        let server = starttls(model);
        let address = server.address();
        let mut forger = client(&address);
        forger.write_all(b"STARTTLS\r\nQUIT\r\n").unwrap();
        let said = read_to_end(&mut forger);
        assert_eq!(said, b"220 example.org\r\n220 go ahead\r\n", "{model}");
        asks_for_tls(&address);
    }
}

#[test]
fn starttls_talks_to_openssl() {
    if !require("openssl") || !require("timeout") {
        return;
    }
    let server = starttls("loop");
    let at = server.address().socket_addr().unwrap();
    for option in ["-tls1_2", "-tls1_3"] {
        let mut client = Openssl::new(at, &["-starttls", "smtp", option]);
        client.types("EHLO me\r\n");
        let said = client.reads_until("250 example.org, in TLS");
        assert!(said.ends_with("in TLS"), "{said}");
    }
}

#[test]
fn upgrade_switches_from_http_to_lines() {
    const REQUEST: &str =
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nupgrade: lines\r\n\r\n";
    const AGREED: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n";
    for model in MODELS {
        let server = Example::run("upgrade", &[ANYWHERE, model]);
        let address = server.address();
        // Lines that follow at once, and later.
        let mut stream = client(&address);
        stream.write_all(REQUEST.as_bytes()).unwrap();
        stream.write_all(b"one\ntw").unwrap();
        expect(&mut stream, AGREED);
        expect(&mut stream, b"ONE\n");
        stream.write_all(b"o\n").unwrap();
        expect(&mut stream, b"TWO\n");

        for other in [
            "POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n",
            "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            let mut stream = client(&address);
            stream.write_all(other.as_bytes()).unwrap();
            let said = read_to_end(&mut stream);
            assert!(
                said.starts_with(b"HTTP/1.1 426 Upgrade Required\r\n"),
                "{model}"
            );
            assert!(said.ends_with(b"\r\nContent-Length: 0\r\n\r\n"), "{model}");
        }
    }
}

#[test]
fn simulate_accounts_for_every_byte() {
    let simulate = Example::run("simulate", &[]);
    assert_eq!(simulate.line(), "2000 runs, and every byte accounted for");
}

#[test]
fn udpecho_answers_datagrams_and_streams() {
    let udpecho = Example::run("udp_echo", &["0"]);
    let (udp, tcp) = (udpecho.address(), udpecho.address());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(udp.socket_addr().unwrap()).unwrap();
    socket.send(b"quiet").unwrap();
    let mut reply = [0; 9];
    let count = socket.recv(&mut reply).unwrap();
    assert_eq!(&reply[..count], b"QUIET");
    let mut stream = client(&tcp);
    stream.write_all(b"quiet").unwrap();
    expect(&mut stream, b"QUIET");
}

fn player(address: &Address) -> UdpSocket {
    let player = UdpSocket::bind("127.0.0.1:0").unwrap();
    player.set_read_timeout(Some(PATIENCE)).unwrap();
    player.connect(address.socket_addr().unwrap()).unwrap();
    player
}

fn told(player: &UdpSocket) -> String {
    let mut state = [0; 200];
    let count = player.recv(&mut state).unwrap();
    String::from_utf8(state[..count].to_vec()).unwrap()
}

#[test]
fn arena_tells_those_who_have_joined_where_everybody_is() {
    let arena = Example::run("arena", &["udp://127.0.0.1:0"]);
    let address = arena.address();
    let [one, other, stranger] = [0; 3].map(|_| player(&address));
    // Who shows no ticket takes no part.
    stranger.send(b"join 0").unwrap();
    stranger.send(b"move 100 100").unwrap();
    for (player, moves) in [(&one, "move 3 -1"), (&other, "move -2 2")] {
        player.send(b"hello").unwrap();
        let join = format!("join {}", told(player));
        player.send(join.as_bytes()).unwrap();
        player.send(moves.as_bytes()).unwrap();
    }
    for player in [&one, &other] {
        let both = |state: &str| state.contains(":3,-1 ") && state.contains(":-2,2 ");
        let state = std::iter::repeat_with(|| told(player)).find(|state| both(state));
        assert!(state.is_some_and(|state| !state.contains(":100")));
    }
    // One that has gone is forgotten, without a word of it.
    drop(other);
    while told(&one).contains(":-2,2") {}
    stranger.set_read_timeout(Some(millis(150))).unwrap();
    assert!(stranger.recv(&mut [0; 9]).is_err());
}

#[test]
fn syslog_counts_what_its_senders_send() {
    let syslog = Example::run(
        "syslog",
        &["udp://127.0.0.1:0?sessions=true&idle-timeout=1s"],
    );
    let address = syslog.address();
    let sender = player(&address);
    for text in [
        "<11>the disk is full\n",
        "<14>two\nlines",
        "<999>x",
        "none",
        "<13>",
    ] {
        sender.send(text.as_bytes()).unwrap();
    }
    let name = format!("udp://{}", sender.local_addr().unwrap());
    assert_eq!(syslog.line(), format!("err {name} the disk is full"));
    assert_eq!(syslog.line(), format!("info {name} two\\nlines"));
    assert_eq!(syslog.line(), format!("notice {name} "));
    let total = format!("total {name} err=1 notice=1 info=1 malformed=2");
    assert_eq!(syslog.line(), total);

    if require("logger") {
        let port = address.socket_addr().unwrap().port().to_string();
        let mut command = Command::new("logger");
        command.args([
            "-d",
            "-n",
            "127.0.0.1",
            "-P",
            &port,
            "-p",
            "local0.crit",
            "hot",
        ]);
        assert!(command.status().unwrap().success());
        let line = syslog.line();
        assert!(
            line.starts_with("crit udp://127.0.0.1:") && line.ends_with("hot"),
            "{line}"
        );
    }
}

/// Passes datagrams on between a client and a server, and loses every third and doubles every fifth.
fn lossy(server: SocketAddr) -> SocketAddr {
    let front = UdpSocket::bind("127.0.0.1:0").unwrap();
    let back = UdpSocket::bind("127.0.0.1:0").unwrap();
    back.connect(server).unwrap();
    let at = front.local_addr().unwrap();
    let (answers, asks) = (front.try_clone().unwrap(), back.try_clone().unwrap());
    let client = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 1_000];
        for turn in 1.. {
            let Ok((count, from)) = front.recv_from(&mut buffer) else {
                return;
            };
            let _ = client.0.send(from);
            if turn % 3 > 0 {
                let _ = asks.send(&buffer[..count]);
            }
        }
    });
    thread::spawn(move || {
        let Ok(to) = client.1.recv() else { return };
        let mut buffer = [0; 1_000];
        for turn in 1.. {
            let Ok(count) = back.recv(&mut buffer) else {
                return;
            };
            let times = [1, 1, 0, 1, 2][turn % 5];
            (0..times).for_each(|_| drop(answers.send_to(&buffer[..count], to)));
        }
    });
    at
}

#[test]
fn transfer_copies_a_file_over_a_network_that_loses() {
    let scratch = Scratch::new();
    let file = scratch.path("file");
    for length in [0, 511, 512, 5_000] {
        fs::write(&file, noise(length)).unwrap();
        let server = Example::run(
            "transfer",
            &["serve", file.to_str().unwrap(), "udp://127.0.0.1:0"],
        );
        let at = lossy(server.address().socket_addr().unwrap());
        let output = Command::new(built("transfer"))
            .args(["get", &format!("udp://{at}")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout == noise(length), "{length}: {output:?}");
    }
}

#[test]
fn transfer_gives_up_where_nobody_answers() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = format!("udp://{}", silent.local_addr().unwrap());
    let mut client = Command::new(built("transfer"))
        .args(["get", &at])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut buffer = [0; 9];
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    // It asks again, after longer and longer.
    for _ in 0..4 {
        assert_eq!(silent.recv(&mut buffer).unwrap(), 4);
    }
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn client_has_all_its_connections_answered() {
    let echo = Example::run("echo", &[ANYWHERE]);
    let uri = echo.address().to_string();
    let mut clients = Example::run("client", &[&uri]);
    assert_eq!(clients.line(), "500 of 500 were answered");
    assert!(clients.child.wait().unwrap().success());
}

#[test]
fn sticky_shows_what_a_framing_mends() {
    let sticky = Example::run("sticky", &[]);
    let expected = [
        r#"over TCP, as it is:"#,
        r#"  reads:  "helloworldegon""#,
        r#"  reads:  "h" "ellow" "orldegon""#,
        r#"over TCP, each message after its length:"#,
        r#"  reads:  "\x00\x00\x00\x05hello\x00\x00\x00\x05world\x00\x00\x00\x04egon""#,
        r#"  frames: "hello" "world" "egon""#,
        r#"  reads:  "\x00" "\x00\x00\x05he" "llo\x00\x00\x00\x05world\x00\x00\x00\x04egon""#,
        r#"  frames: "hello" "world" "egon""#,
        r#"over UDP, with an empty message among them:"#,
        r#"  reads:  "hello" "" "world" "egon""#,
    ];
    for line in expected {
        assert_eq!(sticky.line(), line);
    }
    assert!(
        sticky.lines.recv_timeout(PATIENCE).is_err(),
        "one more line"
    );
}

/// A chat member that is in the room.
fn join(address: &Address) -> BufReader<TcpStream> {
    let mut member = BufReader::new(client(address));
    let greeting = heard(&mut member);
    assert!(greeting.starts_with("you are "), "{greeting}");
    member
}

fn heard(member: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    member.read_line(&mut line).unwrap();
    line
}

#[test]
fn chat_reaches_all_others() {
    let chat = Example::run("chat", &[ANYWHERE]);
    let address = chat.address();
    let mut members: Vec<_> = (0..5).map(|_| join(&address)).collect();
    for speaker in 0..members.len() {
        let text = format!("from {}", speaker + 1);
        let stream = members[speaker].get_mut();
        stream.write_all(format!("{text}\n").as_bytes()).unwrap();
        for (number, member) in members.iter_mut().enumerate() {
            if number != speaker {
                assert_eq!(heard(member), format!("{}: {text}\n", speaker + 1));
            }
        }
    }
    // A member that has left does not disturb one that speaks afterwards.
    members.remove(0);
    members[0].get_mut().write_all(b"gone?\n").unwrap();
    assert_eq!(heard(&mut members[1]), "2: gone?\n");
}

/// Members 1 and 2 say more to each other than everything on the way to member 3 can hold, which does
/// not read: they lose nothing, and the server keeps no more for the third than its queue.
#[test]
fn chat_is_not_held_up_by_one_who_never_reads() {
    const LINES: usize = 20 * MIB / 1_000;
    const BATCH: usize = 60;
    let chat = Example::run("chat", &[ANYWHERE]);
    let address = chat.address();
    let mut talkers = [(1, join(&address)), (2, join(&address))];
    let mut silent = join(&address);
    let socket = SockRef::from(silent.get_ref());
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let before = chat.peak_memory();
    let mut said = 0;
    while said < LINES {
        let [(number, speaker), (_, listener)] = &mut talkers;
        let batch: Vec<_> = (said..said + BATCH)
            .map(|at| format!("{at:0>990}\n"))
            .collect();
        speaker
            .get_mut()
            .write_all(batch.concat().as_bytes())
            .unwrap();
        for line in &batch {
            assert!(
                heard(listener) == format!("{number}: {line}"),
                "lost: {line}"
            );
        }
        said += BATCH;
        talkers.swap(0, 1);
    }
    let grown = chat.peak_memory() - before;
    assert!(grown < GROWTH_BYTES, "{grown} bytes for one slow reader");
    // It missed what was too much for it, and has the newest.
    let last = format!("{:0>990}\n", said - 1);
    let missed = (1..).find(|_| heard(&mut silent).ends_with(&last)).unwrap();
    assert!(missed < said, "{missed} lines of {said} came");
}

#[test]
fn tick_tells_everybody_the_time() {
    let tick = Example::run("tick", &[ANYWHERE]);
    let address = tick.address();
    let mut clients = [0; 2].map(|_| BufReader::new(client(&address)));
    for client in &mut clients {
        let seconds = [0; 2].map(|_| {
            let line = heard(client);
            let seconds = line.strip_suffix(" s\n").unwrap().parse::<u64>();
            seconds.unwrap()
        });
        assert_eq!(seconds[0] + 1, seconds[1]);
    }
}

/// A file of many times the memory that it may take, by a client that is slow at first.
#[test]
fn download_streams_a_file() {
    let directory = Scratch::new();
    let content = noise(40 * MIB);
    fs::write(directory.path("large"), &content).unwrap();
    let root = directory.path("");
    let download = Example::run("download", &[ANYWHERE, root.to_str().unwrap()]);
    let mut client = BufReader::new(client(&download.address()));
    let before = download.peak_memory();

    let ask = |client: &mut BufReader<TcpStream>, name: &str| {
        client
            .get_mut()
            .write_all(format!("GET {name}\n").as_bytes())
            .unwrap();
        heard(client)
    };
    assert!(ask(&mut client, "none").starts_with("error: No such file"));
    assert!(ask(&mut client, "../large").starts_with("error: "));
    assert_eq!(ask(&mut client, "large"), format!("{}\n", content.len()));

    let mut got = vec![0; content.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == content);
    let grown = download.peak_memory() - before;
    assert!(grown < GROWTH_BYTES, "{grown} bytes for one file");
}

/// A server of the test's own that takes one connection, and a proxy in front of it.
struct Proxied {
    proxy: Example,
    address: Address,
    target: TcpListener,
}

impl Proxied {
    fn new() -> Self {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let (proxy, address) = proxy_to(target.local_addr().unwrap());
        Self {
            proxy,
            address,
            target,
        }
    }

    /// Both ends of a connection through the proxy.
    fn connect(&self) -> (TcpStream, TcpStream) {
        let inner = client(&self.address);
        let (outer, _) = self.target.accept().unwrap();
        outer.set_read_timeout(Some(PATIENCE)).unwrap();
        outer.set_write_timeout(Some(PATIENCE)).unwrap();
        (inner, outer)
    }
}

fn proxy_to(target: SocketAddr) -> (Example, Address) {
    let proxy = Example::run("proxy", &[ANYWHERE, &format!("tcp://{target}")]);
    let address = proxy.address();
    (proxy, address)
}

/// Sends `bytes` and ends the stream.
fn send(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
}

fn receive(mut stream: &TcpStream) -> Vec<u8> {
    read_to_end(&mut stream)
}

#[test]
fn proxy_passes_both_directions_at_once() {
    let proxied = Proxied::new();
    let (inner, outer) = proxied.connect();
    let bytes = noise(32 * MIB + 1);
    let (request, reply) = (&bytes[1..], &bytes[..32 * MIB]);
    thread::scope(|scope| {
        scope.spawn(|| send(&inner, request));
        scope.spawn(|| send(&outer, reply));
        let arrived = scope.spawn(|| receive(&outer));
        assert!(receive(&inner) == reply, "the reply is another one");
        assert!(
            arrived.join().unwrap() == request,
            "the request is another one"
        );
    });
}

#[test]
fn proxy_names_its_clients_if_asked_to() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp://{}", target.local_addr().unwrap());
    let proxy = Example::run("proxy", &[ANYWHERE, &to, "--send-proxy"]);
    let address = proxy.address();

    let inner = client(&address);
    let (outer, _) = target.accept().unwrap();
    outer.set_read_timeout(Some(PATIENCE)).unwrap();
    send(&inner, b"hello");
    let received = receive(&outer);
    let (header, length) = Header::parse(&received).unwrap().expect("a header");
    let from = Address::Tcp(inner.local_addr().unwrap());
    assert_eq!(header.source(), Some(&from));
    assert_eq!(header.destination(), Some(&address));
    assert_eq!(&received[length..], b"hello");

    send(&outer, b"goodbye");
    assert_eq!(receive(&inner), b"goodbye");
}

#[test]
fn proxy_passes_each_end_on_by_itself() {
    let proxied = Proxied::new();
    let (inner, outer) = proxied.connect();
    send(&inner, b"request");
    assert_eq!(receive(&outer), b"request");
    send(&outer, &noise(MIB));
    assert!(receive(&inner) == noise(MIB));
    let (inner, outer) = proxied.connect();
    send(&outer, b"greeting");
    assert_eq!(receive(&inner), b"greeting");
    send(&inner, &noise(MIB));
    assert!(receive(&outer) == noise(MIB));
}

/// The target reads on only when it has got rid of what it read, and its buffers are small: a client that
/// waits for it to read before it reads itself waits without end.
#[test]
fn proxy_reads_from_a_target_that_does_not() {
    let proxied = Proxied::new();
    let socket = SockRef::from(&proxied.target);
    socket.set_recv_buffer_size(8 << 10).unwrap();
    socket.set_send_buffer_size(8 << 10).unwrap();
    let (inner, mut outer) = proxied.connect();
    let bytes = noise(16 * MIB);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut room = [0; 64 << 10];
            while let Some(count) = Some(outer.read(&mut room).unwrap()).filter(|count| *count > 0)
            {
                outer.write_all(&room[..count]).unwrap();
            }
            outer.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(|| send(&inner, &bytes));
        assert!(receive(&inner) == bytes, "other bytes came back");
    });
}

#[test]
fn proxy_keeps_little_for_a_slow_reader() {
    const TOTAL: usize = 64 * MIB;
    let proxied = Proxied::new();
    let socket = SockRef::from(&proxied.target);
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let (mut inner, outer) = proxied.connect();
    let before = proxied.proxy.peak_memory();
    let bytes = noise(TOTAL);
    // Without a reader, at some point nothing more is accepted.
    inner.set_write_timeout(Some(millis(500))).unwrap();
    let mut sent = 0;
    let error = loop {
        match inner.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
        assert!(sent < TOTAL, "everything was accepted without a reader");
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    inner.set_write_timeout(Some(PATIENCE)).unwrap();
    let arrived = thread::scope(|scope| {
        scope.spawn(|| send(&inner, &bytes[sent..]));
        receive(&outer)
    });
    assert!(arrived == bytes, "other bytes arrived");
    let grown = proxied.proxy.peak_memory() - before;
    assert!(grown < GROWTH_BYTES, "{grown} bytes for one slow reader");
}

/// Expects that the connection fails, rather than that it ends or waits.
#[track_caller]
fn is_reset(mut stream: &TcpStream) {
    let error = stream.read(&mut [0; 9]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn proxy_closes_who_cannot_be_connected() {
    // Bound, so that no other socket gets the port, but not listening.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any_port: SocketAddr = "127.0.0.1:0".parse().unwrap();
    deaf.bind(&any_port.into()).unwrap();
    let target = deaf.local_addr().unwrap().as_socket().unwrap();
    let (mut proxy, address) = proxy_to(target);
    is_reset(&client(&address));
    is_reset(&client(&address));
    proxy.assert_still_runs();
}

#[test]
fn proxy_passes_a_failure_on() {
    let proxied = Proxied::new();
    for failing in [0, 1] {
        let (inner, outer) = proxied.connect();
        let mut ends = [inner, outer];
        // The connection is established on both sides of the proxy.
        ends[0].write_all(b"x").unwrap();
        expect(&mut ends[1], b"x");
        ends.rotate_left(failing);
        let [failed, other] = ends;
        SockRef::from(&failed).set_linger(Some(seconds(0))).unwrap();
        drop(failed);
        is_reset(&other);
    }
}

#[test]
fn proxy_finds_its_target_by_name() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("tcp://localhost:{}", target.local_addr().unwrap().port());
    let proxy = Example::run("proxy", &[ANYWHERE, &name]);
    let inner = client(&proxy.address());
    let (outer, _) = target.accept().unwrap();
    outer.set_read_timeout(Some(PATIENCE)).unwrap();
    send(&inner, b"question");
    assert_eq!(receive(&outer), b"question");
    send(&outer, b"answer");
    assert_eq!(receive(&inner), b"answer");
}

#[test]
fn proxy_resets_who_wants_a_name_that_is_none() {
    let proxy = Example::run("proxy", &[ANYWHERE, "tcp://does-not-exist.invalid:80"]);
    is_reset(&client(&proxy.address()));
}

#[test]
fn upstream_asks_another_server_also_after_that_was_away() {
    let echo = Example::run("echo", &[ANYWHERE]);
    let at = echo.address();
    let port = at.socket_addr().unwrap().port();
    let upstream = Example::run("upstream", &[ANYWHERE, &format!("tcp://localhost:{port}")]);
    let own = upstream.address();
    let mut clients = [0, 1].map(|_| client(&own));
    for client in &mut clients {
        client.write_all(b"hello\n").unwrap();
        expect(client, b"hello\n");
    }

    drop(echo);
    thread::sleep(millis(100));
    clients[0].write_all(b"waits\n").unwrap();
    let echo = Example::run("echo", &[&at.to_string()]);
    assert_eq!(echo.address(), at);
    expect(&mut clients[0], b"waits\n");
    clients[1].write_all(b"hello\n").unwrap();
    expect(&mut clients[1], b"hello\n");
}

#[test]
fn mail_changes_between_lines_and_texts() {
    let mut mail = Example::run("mail", &[ANYWHERE]);
    let mut stream = client(&mail.address());
    stream
        .write_all(b"echo hello\ndata\nquit\nis text\n.\nquit\n")
        .unwrap();
    let expected = "hello\ngo on, and end with a dot\na mail of 12 bytes\n";
    assert_eq!(read_to_end(&mut stream), expected.as_bytes());
    mail.assert_still_runs();
}
