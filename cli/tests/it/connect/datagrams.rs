//! `serveloop connect` and other programs as peers of sessions of datagrams, and of groups.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::outside::{require, require_that};
use crate::support::running::{Running, run};
use crate::support::served::{PATIENCE, Served, serveloop};
use crate::support::sockets::socket_addr;

/// A server that answers nothing but the first datagram, with each text after a while.
fn telling(texts: &'static [&str], every: Duration) -> String {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    server.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let uri = format!("udp://{}", server.local_addr().expect("a socket"));
    thread::spawn(move || {
        let (_, from) = server.recv_from(&mut [0; 9]).expect("a socket");
        for text in texts {
            thread::sleep(every);
            server.send_to(text.as_bytes(), from).expect("a socket");
        }
    });
    uri
}

#[test]
fn what_comes_later_is_printed_as_long_as_the_input_is_open() {
    let uri = telling(&["one", "two", "three"], Duration::from_millis(50));
    let mut client = Running::new(&["connect", &uri]);
    let (mut stdin, mut stdout) = (client.stdin(), client.stdout());
    std::io::Write::write_all(&mut stdin, b"join\n").unwrap();
    let mut shown = [0; 14];
    std::io::Read::read_exact(&mut stdout, &mut shown).unwrap();
    assert_eq!(&shown, b"one\ntwo\nthree\n");
    drop(stdin);
    client.end().well();
}

#[test]
fn what_is_kept_open_is_printed_until_nothing_comes() {
    let patience = ["--keep-open", "--timeout", "2s"];
    let uri = telling(&["one", "two", "three"], Duration::from_millis(100));
    let shown = run(&[&["connect", &uri], &patience[..]].concat(), "join\n");
    assert_eq!(shown.well(), "one\ntwo\nthree\n");

    // Without it, the first answer is the last.
    let uri = telling(&["one", "two", "three"], Duration::from_millis(200));
    let shown = run(&["connect", &uri, "--timeout", "5s"], "join\n");
    assert_eq!(shown.well(), "one\n");

    // A server that says nothing at all has failed.
    let uri = telling(&[], Duration::ZERO);
    let arguments = ["connect", &uri, "--keep-open", "--timeout", "50ms"];
    let said = run(&arguments, "join\n").badly();
    assert!(said.contains("1 datagram got no reply"), "{said}");
}

#[test]
fn a_session_is_talked_to_by_programs_of_others() {
    let served = Served::new(&["echo", "--listen", "udp://127.0.0.1:0?sessions=true"]);
    let text = run(&["connect", served.uri(0)], "one\ntwo\n").well();
    assert_eq!(text, "one\ntwo\n");
    let port = socket_addr(served.uri(0)).port();

    if require("socat") {
        let to = format!("UDP4:127.0.0.1:{port}");
        let mut command = Command::new("socat");
        command.args(["-t", "5", "-T", "1", "-", &to]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let said = Running::spawn(command).finish(b"from socat");
        assert_eq!(said.stdout, b"from socat");
    }
    if require("python3") {
        let script = "
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(20)
for number in range(100):
    client.sendto(b'%d' % number, ('127.0.0.1', int(sys.argv[1])))
    assert client.recv(100) == b'%d' % number
print('well')
";
        let mut command = Command::new("python3");
        command.args(["-c", script, &port.to_string()]);
        let output = command.output().unwrap();
        assert_eq!(output.stdout, b"well\n", "{output:?}");
    }
}

#[test]
fn a_syslog_sender_is_heard() {
    if !require("logger") {
        return;
    }
    let served = Served::new(&["print", "--listen", "udp://127.0.0.1:0?sessions=true"]);
    let port = socket_addr(served.uri(0)).port().to_string();
    for text in ["the disk is full", "the disk is empty"] {
        let mut command = Command::new("logger");
        command.args(["-d", "-n", "127.0.0.1", "-P", &port, "-p", "user.err"]);
        assert!(command.arg(text).status().unwrap().success());
        served.logged("datagram");
    }
    served.signal(Signal::TERM);
    let (_, _, printed) = served.all();
    let printed = printed.join("\n");
    assert!(printed.contains("<11>1 "), "{printed}");
    assert!(printed.contains("the disk is full") && printed.contains("the disk is empty"));
}

/// Groups go by the loopback interface.
const SETUP: &str = "ip link set lo up; ip route add 239.0.0.0/8 dev lo";

/// The command in a network namespace of its own, after a script.
fn apart(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-ec", script, "sh"]);
    command.arg(serveloop(&[]).get_program());
    command
}

fn can_be_apart() -> bool {
    let trial = apart(SETUP).stderr(Stdio::null()).status();
    let can = trial.is_ok_and(|status| status.success());
    require_that(can, "network namespace")
}

#[test]
fn a_group_is_served() {
    if !can_be_apart() || !require("nsenter") || !require("python3") {
        return;
    }
    let mut command = apart(&format!("{SETUP}; exec \"$@\""));
    command.args(["serve", "echo", "--listen"]);
    command.arg("udp://239.1.2.3:0?interface=lo&ttl=1&sessions=true");
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let served = Served::spawn(command);
    assert!(served.uri(0).starts_with("udp://239.1.2.3:"));
    let script = "
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.bind(('127.0.0.1', 0))
client.settimeout(20)
for word in [b'who', b'where']:
    client.sendto(word, ('239.1.2.3', int(sys.argv[1])))
    print(client.recvfrom(100))
";
    let (id, port) = (
        served.process_id().to_string(),
        socket_addr(served.uri(0)).port(),
    );
    let mut command = Command::new("nsenter");
    command.args([
        "--net",
        "--target",
        &id,
        "python3",
        "-c",
        script,
        &port.to_string(),
    ]);
    let output = command.output().unwrap();
    let expected = format!("(b'who', ('127.0.0.1', {port}))\n(b'where', ('127.0.0.1', {port}))\n");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        expected,
        "{output:?}"
    );
}

#[test]
fn a_group_that_cannot_be_joined_is_refused() {
    if !can_be_apart() {
        return;
    }
    for (uri, said) in [
        (
            "udp://239.1.2.3:9?interface=nowhere",
            "interface \"nowhere\"",
        ),
        ("udp://239.1.2.3:9", "cannot join the group"),
    ] {
        let mut command = apart("exec \"$@\"");
        command
            .args(["serve", "echo", "--listen", uri])
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(said), "{told}");
    }
    let refused = run(
        &[
            "serve",
            "echo",
            "--listen",
            "udp://127.0.0.1:0?interface=lo",
        ],
        "",
    );
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains("interface is for multicast"),
        "{refused:?}"
    );
}
