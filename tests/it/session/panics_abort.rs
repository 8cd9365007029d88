//! What a protocol's panic costs: its connection where panics unwind, the whole process with
//! `panic = "abort"`. Tests cannot be built to abort, so this builds a server in both ways, which takes
//! a while: `SERVELOOP_FULL=1` asks for it.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serveloop::Address;

use crate::support::{client, echoes};

/// The server as `profile` builds it, killed when the test ends.
struct Panicking(Child);

impl Panicking {
    fn build(profile: &str) -> PathBuf {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("panics");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "-p", "serveloop-fuzz"])
            .args(["--bin", "panics", "--profile", profile, "--target-dir"])
            .arg(&target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(built.success());
        let directory = if profile == "dev" { "debug" } else { profile };
        target.join(directory).join("panics")
    }

    fn start(program: &Path) -> (Self, Address) {
        let mut child = Command::new(program)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        (Self(child), line.trim().parse().unwrap())
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads the end of a connection, which may be a reset.
#[track_caller]
fn ends(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let outcome = stream.read_to_end(&mut rest);
    let is_late = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    assert!(!outcome.as_ref().is_err_and(is_late), "{outcome:?}");
    assert_eq!(rest, b"");
}

#[test]
fn a_panic_costs_one_connection_and_without_unwinding_the_process() {
    if env::var_os("SERVELOOP_FULL").is_none() {
        return;
    }
    for (profile, aborts) in [("dev", false), ("abort", true)] {
        let (mut server, address) = Panicking::start(&Panicking::build(profile));
        let (mut unlucky, mut other) = (client(&address), client(&address));
        echoes(&mut unlucky, b"first");
        echoes(&mut other, b"second");
        unlucky.write_all(b"!").unwrap();
        ends(unlucky);
        if !aborts {
            echoes(&mut other, b"third");
            continue;
        }
        ends(other);
        let status = server.0.wait().unwrap();
        assert_eq!(status.signal(), Some(6), "{status}");
        let mut told = String::new();
        let mut stderr = server.0.stderr.take().unwrap();
        stderr.read_to_string(&mut told).unwrap();
        assert!(told.contains("on purpose"), "{told}");
    }
}
