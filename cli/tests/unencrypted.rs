//! A command that was built without TLS. It is a program of its own, so that nothing else is built for it.
#![cfg(not(feature = "tls"))]

use std::process::Command;

#[test]
fn a_listener_with_tls_is_refused_clearly() {
    for (uri, said) in [
        ("tls://127.0.0.1:0?cert=/a&key=/b", "was built without TLS"),
        ("tls://127.0.0.1:0", "was built without TLS"),
        ("tcp://127.0.0.1:0?cert=/a&key=/b", "cert is for tls://"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_serveloop"));
        let output = command
            .args(["serve", "echo", "--listen", uri])
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
        assert!(stderr.contains(uri), "{stderr}");
    }
}
