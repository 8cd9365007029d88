//! `serveloop bench` where the system refuses something: what it says, and what helps. In a network of
//! its own where the limits are the whole system's.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::outside::{require, require_that};
use crate::support::served::{Outcome, Served, copy_program};
use crate::support::sockets::Directory;

/// A shell in a network of its own, with loopback up, that may do all that root may there. `None`
/// where that is not allowed.
fn isolated(script: &str) -> Option<Command> {
    let options = [
        "--net",
        "--user",
        "--map-root-user",
        "--fork",
        "--kill-child",
    ];
    let in_shell = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(options).args(["sh", "-ec", script]);
        command.stdin(Stdio::null()).env_remove("RUST_LOG");
        command
    };
    let probe = in_shell("ip link set lo up").output();
    let possible = probe.is_ok_and(|output| output.status.success());
    require_that(possible, "unshare and ip, and the right to use them").then(|| {
        let script = format!("ip link set lo up; {script}");
        let mut command = in_shell(&script);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("B", env!("CARGO_BIN_EXE_serveloop"));
        command
    })
}

/// The benchmark has failed, and said why on its first line.
#[track_caller]
fn failure(outcome: &Outcome) -> &str {
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let line = outcome.stderr.lines().next().unwrap_or_default();
    assert!(line.starts_with("serveloop: "), "{}", outcome.stderr);
    line
}

#[test]
fn ports_that_are_used_up_are_told_with_what_helps() {
    let script = "echo '50000 50015' >/proc/sys/net/ipv4/ip_local_port_range; \
        exec $B bench --churn --connections 4 --compare event-loop --rounds 1 --duration 10s";
    let Some(command) = isolated(script) else {
        return;
    };
    let outcome = Outcome::of(command);
    let line = failure(&outcome);
    for part in [
        "cannot connect: ",
        "(os error 99)",
        "TIME_WAIT",
        "net.ipv4.ip_local_port_range",
        "unix://",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[test]
fn an_address_without_a_route_is_told() {
    let target = "exec $B bench --target tcp://192.0.2.1:9 --connections 1";
    for (route, part) in [
        ("true", "(os error 101)"),
        ("ip route add unreachable 192.0.2.0/24", "(os error 113)"),
        ("ip route add prohibit 192.0.2.0/24", "(os error 13)"),
    ] {
        let Some(command) = isolated(&format!("{route}; {target}")) else {
            return;
        };
        let outcome = Outcome::of(command);
        let line = failure(&outcome);
        assert!(line.contains("tcp://192.0.2.1:9: cannot connect"), "{line}");
        assert!(line.contains(part) && line.contains("route"), "{line}");
    }
}

/// What a server whose queue is full does looks like a firewall: the system drops what comes.
#[test]
fn an_address_that_never_answers_is_told() {
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    deaf.bind(&anywhere.into()).unwrap();
    deaf.listen(0).unwrap();
    let address = deaf.local_addr().unwrap().as_socket().unwrap();
    let patience = Duration::from_millis(300);
    let connect = || TcpStream::connect_timeout(&address, patience).ok();
    let waiting: Vec<_> = std::iter::from_fn(connect).collect();
    let uri = format!("tcp://{address}");
    let outcome = Outcome::new(&["bench", "--target", &uri, "--timeout", "300ms"]);
    let line = failure(&outcome);
    for part in [
        "not connected in time",
        "no server answers there",
        "--timeout",
        &uri,
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    drop(waiting);
}

#[test]
fn a_target_that_refuses_is_told() {
    let directory = Directory::new();
    let closed = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    closed
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let port = closed.local_addr().unwrap().as_socket().unwrap().port();
    let stale = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    stale
        .bind(&SockAddr::unix(directory.path("stale")).unwrap())
        .unwrap();
    for (uri, parts) in [
        (
            format!("tcp://127.0.0.1:{port}"),
            ["(os error 111)", "start the server first"],
        ),
        (
            directory.uri("unix", "stale"),
            ["(os error 111)", "start the server first"],
        ),
        (
            directory.uri("unix", "nothing"),
            ["(os error 2)", "no such socket file"],
        ),
    ] {
        let outcome = Outcome::new(&["bench", "--target", &uri]);
        let line = failure(&outcome);
        assert!(line.contains(&uri), "{line}");
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
}

#[test]
fn a_server_that_takes_no_more_connections_is_told() {
    let most = ["--max-connections", "3"];
    let server = Served::new(&["echo", "--listen", "tcp://127.0.0.1:0", most[0], most[1]]);
    let outcome = Outcome::new(&["bench", "--target", server.uri(0), "--connections", "9"]);
    let line = failure(&outcome);
    assert!(line.contains("connection "), "{line}");
    assert!(line.contains("may limit its connections"), "{line}");
}

#[test]
fn a_socket_file_that_is_not_ours_to_use_is_told() {
    let directory = Directory::new();
    let uri = directory.uri("unix", "socket");
    let _server = Served::new(&["echo", "--listen", &uri]);
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path("."), open).unwrap();
    // The binary lies where others may not get at it.
    let copy = directory.path("serveloop");
    copy_program(env!("CARGO_BIN_EXE_serveloop"), &copy);
    let others = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let possible = Command::new("setpriv")
        .args(others)
        .arg(&copy)
        .arg("--version")
        .output();
    let possible = possible.is_ok_and(|output| output.status.success());
    if !require_that(possible, "setpriv, and the right to use it") {
        return;
    }
    let mut command = Command::new("setpriv");
    command
        .args(others)
        .arg(&copy)
        .args(["bench", "--target", &uri]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let outcome = Outcome::of(command);
    let line = failure(&outcome);
    assert!(line.contains("(os error 13)"), "{line}");
    assert!(line.contains("permission to write to its file"), "{line}");
}

/// Descriptors that go away while it runs: the limit is lowered below what is open.
#[test]
fn descriptors_that_are_used_up_are_told() {
    let server = Served::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let arguments = ["bench", "--target", server.uri(0), "--connections", "40"];
    if !require("bash") {
        return;
    }
    let mut command = Command::new("bash");
    // Descriptors that were inherited count too.
    let script = "i=10; while [ $i -lt 90 ]; do eval \"exec $i</dev/null\" || exit 3; i=$((i+1)); done; \
        ulimit -n 104; exec \"$@\"";
    command
        .args(["-c", script, "bash", env!("CARGO_BIN_EXE_serveloop")])
        .args(arguments);
    command.args(["--duration", "50ms", "--rounds", "1"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let outcome = Outcome::of(command);
    let line = failure(&outcome);
    assert!(
        line.contains("(os error 24)") && line.contains("ulimit -n"),
        "{line}"
    );
    assert!(line.contains("104 open descriptors"), "{line}");
}

/// The servers are processes, and the system may have no more of them.
#[test]
fn a_server_that_cannot_be_started_is_told() {
    let inject = [
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=clone,clone3,vfork,fork",
    ];
    let mut command = Command::new("strace");
    command
        .args(inject)
        .args(["-e", "inject=clone,clone3,vfork,fork:error=EAGAIN:when=1+"]);
    command
        .arg(env!("CARGO_BIN_EXE_serveloop"))
        .args(["bench", "--compare", "threaded"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let probe = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .status();
    if !require_that(probe.is_ok_and(|status| status.success()), "strace") {
        return;
    }
    let outcome = Outcome::of(command);
    let line = failure(&outcome);
    assert!(
        line.contains("cannot start the threaded server: "),
        "{line}"
    );
    assert!(
        line.contains("(os error 11)") && line.contains("ulimit -u"),
        "{line}"
    );
}

/// On a machine whose loopback is down, no client reaches a server.
#[test]
fn a_server_that_cannot_be_reached_is_told() {
    let script = "ip link set lo down; exec $B bench --compare event-loop --timeout 300ms";
    let Some(command) = isolated(script) else {
        return;
    };
    let outcome = Outcome::of(command);
    let line = failure(&outcome);
    assert!(line.contains("from the event-loop server"), "{line}");
    let is_known = ["no server answers there", "no route to that address"];
    assert!(is_known.iter().any(|part| line.contains(part)), "{line}");
}
