//! Servers that may have little memory: clients that never read end, and the server goes on.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::outside::{require_file, skip};
use crate::support::served::{PATIENCE, Served};
use crate::support::sockets::socket_addr;

/// Clients that send, and never read what comes back.
const CLIENTS: usize = 600;
static PIECE: [u8; 64 * 1_024] = [b'.'; 64 * 1_024];

/// `serve echo` with `options`, started by a shell after `first`.
fn limited(first: &str, options: &[&str]) -> Served {
    let mut command = Command::new("sh");
    let script = format!("{first} && exec \"$@\"");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_serveloop")]);
    command.args(["serve", "echo", "--listen", "tcp://127.0.0.1:0"]);
    // Small socket buffers, so that what waits is in the server.
    command.args(["--send-buffer", "4KiB", "--high-water", "512KiB"]);
    command.args(["--read-per-turn", "512KiB"]).args(options);
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Served::spawn(command)
}

/// Never reads; sends as long as the server takes it.
struct Unread(TcpStream);

impl Unread {
    fn new(served: &Served) -> Option<Self> {
        let stream = TcpStream::connect(socket_addr(served.uri(0))).ok()?;
        stream.set_nonblocking(true).expect("a socket");
        Some(Self(stream))
    }

    /// Whether the connection goes on.
    fn send(&mut self) -> bool {
        match self.0.write(&PIECE) {
            Ok(count) => count > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Has clients fill the server until it has ended some of them, and shows that it still serves.
#[track_caller]
fn is_flooded_and_goes_on(served: Served) {
    let mut clients: Vec<_> = (0..CLIENTS).filter_map(|_| Unread::new(&served)).collect();
    let begun = Instant::now();
    let mut ended = 0;
    while ended < 20 {
        let before = clients.len();
        clients.retain_mut(Unread::send);
        ended += before - clients.len();
        assert!(begun.elapsed() < PATIENCE, "nothing is shed");
    }
    served.logged("ended to keep buffers within their limit");

    // While they stay, others are served.
    let mut honest = TcpStream::connect(socket_addr(served.uri(0))).expect("it accepts");
    honest.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut reply = [0; 5];
    honest.write_all(b"hello").expect("it reads");
    honest.read_exact(&mut reply).expect("it answers");
    assert_eq!(&reply, b"hello");
    drop((honest, clients));
    served.signal(Signal::TERM);
    let (status, log, _) = served.all();
    assert_eq!(status.code(), Some(0), "{log:?}");
}

#[test]
fn clients_that_never_read_are_shed_before_the_address_space_is_full() {
    is_flooded_and_goes_on(limited("ulimit -v 120000", &["--max-buffered", "32MiB"]));
}

/// The default, 256 MiB, is more than the process may have.
#[test]
fn the_default_limit_of_buffers_fits_into_the_memory_there_is() {
    is_flooded_and_goes_on(limited("ulimit -v 120000", &[]));
}

/// Several loops buffer each for themselves, and threads have stacks too.
#[test]
fn a_server_of_several_threads_fits_into_the_memory_there_is() {
    let models: [&[&str]; 2] = [
        &["--workers", "4", "--max-output", "8MiB"],
        &["--model", "threaded"],
    ];
    for model in models {
        let served = limited("ulimit -v 400000", model);
        let mut clients: Vec<_> = (0..300).filter_map(|_| Unread::new(&served)).collect();
        for _ in 0..200 {
            clients.retain_mut(Unread::send);
        }
        drop(clients);

        let begun = Instant::now();
        // Some of them may still have their place.
        while !is_echoed(&served) {
            assert!(begun.elapsed() < PATIENCE, "{model:?}");
        }
        served.signal(Signal::TERM);
        let (status, log, _) = served.all();
        assert_eq!(status.code(), Some(0), "{log:?}");
    }
}

fn is_echoed(served: &Served) -> bool {
    let mut client = TcpStream::connect(socket_addr(served.uri(0))).expect("it accepts");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut reply = [0; 5];
    client.write_all(b"hello").is_ok()
        && client.read_exact(&mut reply).is_ok()
        && &reply == b"hello"
}

#[test]
fn a_limit_of_buffers_that_does_not_fit_is_warned_of() {
    let served = limited("ulimit -v 120000", &["--max-buffered", "100MiB"]);
    let line = served.logged("--max-buffered");
    for part in ["104857600 bytes", "122880000", "ulimit -v", "61440000"] {
        assert!(line.contains(part), "{line}");
    }
}

/// A control group with `megabytes` of memory, which goes with its last process.
struct Group(PathBuf);

impl Group {
    fn new(megabytes: u64) -> Option<Self> {
        let (root, limit) = match fs::metadata("/sys/fs/cgroup/cgroup.controllers") {
            Ok(_) => ("/sys/fs/cgroup", "memory.max"),
            Err(_) => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        };
        let name = format!("serveloop-test-{}", process::id());
        let group = Self(PathBuf::from(root).join(name));
        fs::create_dir(&group.0).ok()?;
        let bytes = (megabytes << 20).to_string();
        fs::write(group.0.join(limit), bytes).ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its process may take a moment to be gone.
        let begun = Instant::now();
        while fs::remove_dir(&self.0).is_err() && begun.elapsed() < Duration::from_secs(2) {
            std::thread::yield_now();
        }
    }
}

#[test]
fn clients_that_never_read_are_shed_before_a_control_group_is_full() {
    if !require_file("/sys/fs/cgroup") {
        return;
    }
    let Some(group) = Group::new(64) else {
        return skip("right to make a control group of memory");
    };
    let enter = format!("echo $$ >{}/cgroup.procs", group.0.display());
    is_flooded_and_goes_on(limited(&enter, &[]));
}
