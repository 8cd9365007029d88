//! `serveloop connect` over TLS, to servers by OpenSSL and Python.

use crate::support::running::{Said, run};
use crate::support::scripts::noise;
use crate::support::secure::{Secure, certificate};

fn connect(uri: &str, options: &[&str], input: &[u8]) -> Said {
    let authority = certificate("authority.pem");
    let arguments = [&["connect", uri, "--ca", &authority], options].concat();
    run(&arguments, input)
}

#[test]
fn lines_go_to_openssl_and_come_back() {
    for version in ["-tls1_3", "-tls1_2"] {
        let Some(server) = Secure::openssl("localhost", &["-rev", version]) else {
            return;
        };
        let said = connect(&server.uri(), &[], b"hello\nworld\n");
        assert_eq!(said.well(), "olleh\ndlrow\n");
        let by_address = format!("tls://127.0.0.1:{}", server.port());
        let said = connect(&by_address, &["--framing", "line"], b"abc\n");
        assert_eq!(said.well(), "cba\n");
    }
}

/// The server sends more after the end of our side, so that was close_notify and no more.
#[test]
fn the_end_of_the_input_is_the_end_of_our_side_only() {
    let Some(server) = Secure::python(&["echo"]) else {
        return;
    };
    assert_eq!(
        connect(&server.uri(), &[], b"ping\n").well(),
        "ping\nafter the end\n"
    );

    let bytes = noise(16 << 20);
    let said = connect(&server.uri(), &[], &bytes);
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    let (came, end) = said.stdout.split_at(bytes.len());
    assert!(came == bytes, "other bytes came back");
    assert_eq!(end, b"after the end\n");
}

#[test]
fn turns_are_taken_over_tls() {
    let Some(server) = Secure::python(&["echo"]) else {
        return;
    };
    let options = ["--protocol", "echo"];
    assert_eq!(
        connect(&server.uri(), &options, b"ab\n\nc\n").well(),
        "ab\nc\n"
    );
}

#[test]
fn our_side_may_stay_open() {
    let Some(server) = Secure::openssl("localhost", &["-rev"]) else {
        return;
    };
    let options = ["--framing", "line", "--keep-open", "--timeout", "1s"];
    assert_eq!(connect(&server.uri(), &options, b"ab\n").well(), "ba\n");
}

/// The alert is what is reported, not the reset that may follow it.
#[test]
fn a_certificate_may_be_required_after_the_handshake() {
    let options = ["-rev", "-Verify", "1", "-verify_return_error"];
    let Some(server) = Secure::openssl("localhost", &options) else {
        return;
    };
    for size in [0, 10, 1 << 20] {
        let text = connect(&server.uri(), &[], &noise(size)).badly();
        assert!(
            text.contains("requires a client's certificate"),
            "{size}: {text}"
        );
    }
}

#[test]
fn an_end_without_end_mark_is_a_failure() {
    let Some(server) = Secure::python(&["cut-echo"]) else {
        return;
    };
    let said = connect(&server.uri(), &[], b"ping\n");
    assert_eq!(said.stdout, b"ping\n");
    let text = said.badly();
    assert!(text.contains("close_notify"), "{text}");
}

#[test]
fn servers_are_verified() {
    let Some(server) = Secure::openssl("example", &["-rev"]) else {
        return;
    };
    let text = connect(&server.uri(), &[], b"hello\n").badly();
    assert!(text.contains("not valid for localhost, but for"), "{text}");
    let said = connect(&server.uri(), &["--server-name", "example.org"], b"ab\n");
    assert_eq!(said.well(), "ba\n");
    let said = run(&["connect", &server.uri(), "--insecure"], "ab\n");
    assert_eq!(said.well(), "ba\n");
}

#[test]
fn options_of_tls_are_for_tls() {
    let authority = certificate("authority.pem");
    for (arguments, problem) in [
        (
            &["tcp://127.0.0.1:1", "--ca", &authority][..],
            "--ca is for servers that speak TLS",
        ),
        (
            &["unix:///nothing", "--insecure"],
            "--insecure is for servers that speak TLS",
        ),
        (
            &["ssl://localhost:1"],
            "expected tcp, tls, udp, unix, unixgram or vsock",
        ),
        (
            &["tls://localhost"],
            "\"tls://localhost\": expected HOST:PORT",
        ),
        (
            &[
                "tls://127.0.0.1:1",
                "--ca",
                &authority,
                "--server-name",
                "a b",
            ],
            "\"a b\" is no name of a server",
        ),
    ] {
        let said = run(&[&["connect"], arguments].concat(), "");
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains(problem), "{said:?}");
    }
}
