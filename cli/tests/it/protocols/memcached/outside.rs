//! What programs by others say.

use std::process::Command;

use crate::protocols::memcached::serve;
use crate::support::outside::require;
use crate::support::sockets::socket_addr;

/// The number of checks that memccapable has for the text protocol.
const CHECKS: usize = 27;

#[test]
fn memccapable_passes() {
    if !require("memccapable") {
        return;
    }
    for options in [&[][..], &["--workers", "2"], &["--model", "threaded"]] {
        let served = serve(options);
        let port = socket_addr(served.uri(0)).port().to_string();
        let mut command = Command::new("memccapable");
        let command = command.args(["-h", "127.0.0.1", "-p", &port, "-a"]);
        let output = command.output().expect("memccapable runs");

        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        assert!(!said.contains("[FAIL]"), "{said}");
        assert_eq!(said.matches("[pass]").count(), CHECKS, "{said}");
    }
}

#[test]
fn memcslap_gets_what_it_stored() {
    if !require("memcslap") {
        return;
    }
    for test in ["get", "set", "mget"] {
        let served = serve(&[]);
        let addr = socket_addr(served.uri(0)).to_string();
        let mut command = Command::new("memcslap");
        let command = command
            .arg(format!("--servers={addr}"))
            .arg(format!("--test={test}"))
            .args([
                "--concurrency=4",
                "--execute-number=500",
                "--initial-load=500",
            ]);
        let output = command.output().expect("memcslap runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(!said.to_lowercase().contains("fail"), "{said}");
    }
}
