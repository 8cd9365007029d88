//! The files of `packaging`, given to the programs that they are for.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::outside::{require, require_file};
use crate::support::served::{PATIENCE, Served};
use crate::support::sockets::Directory;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging");

/// The addresses in the configurations of balancers.
const FRONT: &str = "127.0.0.1:9999";
const BACK: [&str; 2] = ["127.0.0.1:9001", "127.0.0.1:9002"];

fn text_of(name: &str) -> String {
    fs::read_to_string(Path::new(FOLDER).join(name)).expect("a file of packaging")
}

/// The first version of systemd that has `Type=notify-reload`.
const NOTIFY_RELOAD: u32 = 253;

fn systemd_version() -> u32 {
    let output = Command::new("systemd-analyze").arg("--version").output();
    let text = String::from_utf8_lossy(&output.expect("systemd-analyze").stdout).into_owned();
    let version = text.split_whitespace().nth(1);
    let digits = version.map(|version| version.chars().take_while(char::is_ascii_digit));
    digits
        .and_then(|digits| digits.collect::<String>().parse().ok())
        .unwrap_or(0)
}

#[test]
fn systemd_has_nothing_to_object_to_the_units() {
    if !require("systemd-analyze") {
        return;
    }
    let directory = Directory::new();
    let mut service = text_of("serveloop.service");
    let program = "/usr/local/bin/serveloop";
    assert_eq!(service.matches(program).count(), 1);
    service = service.replace(program, env!("CARGO_BIN_EXE_serveloop"));
    assert!(service.contains("\nType=notify-reload\n"));
    if systemd_version() < NOTIFY_RELOAD {
        service = service.replace("notify-reload", "notify");
    }
    let (unit, socket) = (
        directory.path("serveloop.service"),
        directory.path("serveloop.socket"),
    );
    fs::write(&unit, service).unwrap();
    fs::write(&socket, text_of("serveloop.socket")).unwrap();

    let verify = |units: &[&PathBuf]| {
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .args(units)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    // A key that it does not know is only written down.
    assert_eq!(verify(&[&unit, &socket]), (true, String::new()));

    let exposure = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--threshold=25"])
        .arg(&unit)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&exposure.stdout).into_owned();
    assert!(exposure.status.success(), "{said}");
}

/// What the unit runs, with the socket that systemd would pass.
#[test]
fn the_command_line_of_the_unit_serves_the_socket_of_its_name() {
    let service = text_of("serveloop.service");
    let line = service
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let arguments: Vec<_> = line.unwrap().split_whitespace().skip(1).collect();
    let socket = text_of("serveloop.socket");
    let name = socket
        .lines()
        .find_map(|line| line.strip_prefix("FileDescriptorName="));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let variables = format!(
        "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES={}",
        name.unwrap()
    );
    let mut command = crate::support::served::by_shell(&variables, &arguments);
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
    let served = Served::spawn(command);
    assert_eq!(served.uri(0), format!("tcp://{address}"));
    assert!(served.connect().echoes());
    served.signal(Signal::TERM);
    let log = served.status_and_log();
    assert!(log.iter().all(|line| line.starts_with('{')), "{log:?}");
}

/// A program that balances between two servers, killed when the test ends.
struct Balancer {
    child: Child,
    address: SocketAddr,
    _directory: Directory,
}

impl Balancer {
    /// Starts `program` with the file of packaging, in which only addresses are replaced.
    fn start(program: &str, file: &str, servers: &[Served; 2]) -> Self {
        let directory = Directory::new();
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("a socket");
        drop(free);

        let mut text = text_of(file);
        let mut replace = |old: &str, new: &str| {
            let is_address =
                |line: &&str| !line.trim_start().starts_with('#') && line.contains(old);
            assert_eq!(text.lines().filter(is_address).count(), 1, "{file}: {old}");
            text = text.replace(old, new);
        };
        replace(FRONT, &address.to_string());
        for (old, served) in BACK.iter().zip(servers) {
            replace(old, served.uri(0).trim_start_matches("tcp://"));
        }

        let path = directory.path(file);
        fs::write(&path, text).expect("a directory");
        let mut command = Command::new(program);
        match program {
            "haproxy" => command.args(["-db", "-f"]).arg(&path),
            _ => {
                let (pid, log) = (directory.path("pid"), directory.path("log"));
                let options = format!(
                    "daemon off; pid {}; error_log {};",
                    pid.display(),
                    log.display()
                );
                command
                    .arg("-e")
                    .arg(log)
                    .args(["-g", &options, "-c"])
                    .arg(&path)
            }
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect(program);

        let balancer = Self {
            child,
            address,
            _directory: directory,
        };
        let begun = Instant::now();
        while !balancer.echoes() {
            assert!(begun.elapsed() < PATIENCE, "no {program}");
            thread::sleep(Duration::from_millis(10));
        }
        balancer
    }

    /// Whether a new client gets its echo.
    fn echoes(&self) -> bool {
        let Ok(mut client) = TcpStream::connect(self.address) else {
            return false;
        };
        let _ = client.set_read_timeout(Some(PATIENCE));
        let mut got = [0; 5];
        client.write_all(b"hello").is_ok()
            && client.read_exact(&mut got).is_ok()
            && &got == b"hello"
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // nginx has workers, which its master ends when it is asked to.
        let asked = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn serve() -> Served {
    Served::new(&[
        "echo",
        "--listen",
        "tcp://127.0.0.1:0",
        "--proxy",
        "required",
        "--trust",
        "127.0.0.1",
        "-v",
    ])
}

/// Clients are named to the servers, and served when one of these has ended.
fn balance(program: &str, file: &str) {
    let servers = [serve(), serve()];
    let balancer = Balancer::start(program, file, &servers);
    for _ in 0..10 {
        assert!(balancer.echoes(), "{program}");
    }
    for server in &servers {
        server.logged("named by tcp://127.0.0.1:");
    }

    // Before the balancer has noticed, clients that the server refuses go to the other.
    let [one, two] = servers;
    one.signal(Signal::TERM);
    assert_eq!(one.status().code(), Some(0));
    for number in 0..20 {
        assert!(balancer.echoes(), "{program}: client {number}");
    }
    drop(balancer);
    two.signal(Signal::TERM);
    assert_eq!(two.status().code(), Some(0));
}

#[test]
fn haproxy_balances_with_the_configuration_that_is_there() {
    if require("haproxy") {
        balance("haproxy", "haproxy.cfg");
    }
}

#[test]
fn nginx_balances_with_the_configuration_that_is_there() {
    if require("nginx") && require_file("/usr/lib/nginx/modules/ngx_stream_module.so") {
        balance("nginx", "nginx.conf");
    }
}
