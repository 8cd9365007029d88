//! What is wrong with configurations, said with the file and the reason.

use std::fs;
use std::path::Path;
use std::process::Command;

use serveloop::layer::tls::{ClientCertificates, ClientTls, Pem, ServerTls, Tls};

use crate::layer::tls::certificates::{self, file};
use crate::support::Scratch;
use crate::support::outside::{require, require_file};

const NO_KIND: &str = "is of no kind that is supported: RSA of 2048 to 8192 bits, ECDSA with P-256 or \
                       P-384, or Ed25519";

#[track_caller]
fn error(chain: impl Into<Pem>, key: impl Into<Pem>) -> String {
    let built = ServerTls::builder().certificate(chain, key).build();
    built.expect_err("a bad configuration").to_string()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn errors_name_the_file_and_the_reason() {
    let scratch = Scratch::new();
    let (chain, key) = (file("localhost.pem"), file("localhost.key"));
    let missing = scratch.path("missing");
    let written = |name: &str, content: &[u8]| {
        let path = scratch.path(name);
        fs::write(&path, content).unwrap();
        path
    };
    let text = fs::read_to_string(&chain).unwrap();

    let empty = written("empty", b"");
    let prose = written("prose", b"no certificate\n");
    let der = written("der", &[0x30, 0x82, 1, 2]);
    let cut = written("cut", &text.as_bytes()[..text.len() / 2]);
    let broken = written("broken", text.replace("MII", "!!!").as_bytes());
    let other = written(
        "other",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let encrypted = written(
        "encrypted",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let odd_key = written(
        "odd-key",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    );

    let bad_chains = [
        (&missing, "No such file or directory (os error 2)"),
        (&scratch.path(""), "Is a directory (os error 21)"),
        (&empty, "holds no certificate, it is empty"),
        (&prose, "holds no certificate, it is not in PEM format"),
        (
            &der,
            "holds no certificate, it looks like DER, and PEM is needed",
        ),
        (&key, "holds no certificate, but a private key"),
        (&cut, "a section has no end"),
        (&broken, "a section is not in base64"),
        (&other, "is not an X.509 certificate of version 3"),
    ];
    for (path, problem) in bad_chains {
        let expected = format!("certificate {}: {problem}", shown(path));
        assert_eq!(error(path.clone(), key.clone()), expected);
    }

    let stranger = file("alice.key");
    let mismatch = format!("does not match the certificate {}", shown(&chain));
    let bad_keys = [
        (&missing, "No such file or directory (os error 2)"),
        (&empty, "holds no private key, it is empty"),
        (&chain, "holds no private key, but a certificate"),
        (
            &encrypted,
            "is encrypted, and `openssl pkey` writes it without a passphrase",
        ),
        (&odd_key, NO_KIND),
        (&stranger, &mismatch),
    ];
    for (path, problem) in bad_keys {
        let expected = format!("key {}: {problem}", shown(path));
        assert_eq!(error(chain.clone(), path.clone()), expected);
    }

    let problem = ServerTls::builder().build().unwrap_err().to_string();
    assert_eq!(problem, "a server needs a certificate");
}

/// The usual mistake in a file with several certificates has a hint.
#[test]
fn the_servers_certificate_has_to_come_first() {
    let chain = fs::read_to_string(file("chained.pem")).unwrap();
    let second = chain.rfind("-----BEGIN").unwrap();
    let swapped = [&chain[second..], &chain[..second]].concat();
    let expected = "does not match the certificate PEM in memory, \
                    but certificate 2 of the file, which has to come first";
    let problem = error(swapped.into_bytes(), file("chained.key"));
    assert!(problem.ends_with(expected), "{problem}");
}

#[test]
fn a_certificate_and_its_key_may_be_in_one_file_or_in_memory() {
    let content = ["localhost.key", "localhost.pem"].map(|name| fs::read(file(name)).unwrap());
    let both = content.concat();
    let scratch = Scratch::new();
    let path = scratch.path("both");
    fs::write(&path, &both).unwrap();
    ServerTls::builder()
        .certificate(path.clone(), path)
        .certificate(both.clone(), both)
        .build()
        .unwrap();
}

#[test]
fn authorities_and_names_are_checked() {
    let server = || certificates::server("localhost");
    let nowhere = "/nowhere.pem";
    let clients = server().client_certificates(ClientCertificates::Optional, nowhere);
    let expected = "certificate /nowhere.pem: No such file or directory (os error 2)";
    assert_eq!(clients.build().unwrap_err().to_string(), expected);
    let roots = ClientTls::builder().roots(nowhere).build();
    assert_eq!(roots.unwrap_err().to_string(), expected);

    for name in ["", &"x".repeat(256)] {
        let problem = server().alpn(name).build().unwrap_err().to_string();
        assert!(problem.ends_with("a name has 1 to 255 bytes"), "{problem}");
        let problem = certificates::client().alpn(name).build();
        assert!(problem.is_err());
    }

    let client = certificates::client().build().unwrap();
    for name in ["", "a b", "host:443", "-x.test", "tcp://localhost"] {
        let problem = Tls::client(&client, name).unwrap_err().to_string();
        assert_eq!(problem, format!("{name:?} is no name of a server"));
    }
    for name in ["localhost", "127.0.0.1", "::1", "xn--bcher-kva.example"] {
        Tls::client(&client, name).unwrap();
    }
}

/// No configuration shows a key by accident.
#[test]
fn keys_are_not_displayed() {
    let key = fs::read(file("localhost.key")).unwrap();
    let chain = fs::read(file("localhost.pem")).unwrap();
    let builder = ServerTls::builder().certificate(chain, key.clone());
    let shown = format!("{builder:?} {:?}", builder.clone().build().unwrap());
    let secret = String::from_utf8(key).unwrap();
    let line = secret.lines().nth(1).unwrap();
    assert!(
        !shown.contains(line) && shown.contains("PEM in memory"),
        "{shown}"
    );
}

/// What other programs write into such files, or make of them.
#[test]
fn files_of_other_programs_are_read() {
    let text = |name: &str| fs::read_to_string(file(name)).unwrap();
    let (chain, key) = (text("localhost.pem"), text("localhost.key"));
    let explained = format!("Certificate:\n    Data:\n        Version: 3 (0x2)\n{chain}trailing\n");
    let builds = |chain: String, key: String| {
        let builder = ServerTls::builder().certificate(chain.into_bytes(), key.into_bytes());
        builder.build().unwrap();
    };
    builds(explained, key.clone());
    builds(chain.replace('\n', "\r\n"), key.replace('\n', "\r\n"));
    builds(
        format!("\u{feff}\n{chain}"),
        format!("# a comment\n\n{key}"),
    );
    builds(chain.trim_end().to_owned(), key.trim_end().to_owned());

    if !require("openssl") {
        return;
    }
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for name in ["localhost", "localhost-rsa"] {
        let path = file(&format!("{name}.key")).display().to_string();
        let old = openssl(&["pkey", "-traditional", "-in", &path]);
        assert!(old.contains("BEGIN EC PRIVATE KEY") || old.contains("BEGIN RSA PRIVATE KEY"));
        builds(text(&format!("{name}.pem")), old.clone());

        // As `openssl ecparam -genkey` writes it.
        let parameters =
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        builds(text(&format!("{name}.pem")), format!("{parameters}{old}"));

        let encrypted = openssl(&[
            "pkey",
            "-traditional",
            "-aes128",
            "-passout",
            "pass:word",
            "-in",
            &path,
        ]);
        let problem = error(chain.clone().into_bytes(), encrypted.into_bytes());
        assert!(problem.contains("is encrypted"), "{problem}");
    }

    let curve = [
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-521",
    ];
    for arguments in [&curve[..], &["genrsa", "1024"]] {
        let problem = error(chain.clone().into_bytes(), openssl(arguments).into_bytes());
        assert_eq!(problem, format!("key PEM in memory: {NO_KIND}"));
    }
}

#[test]
fn without_roots_the_system_says_whom_to_trust() {
    if require_file("/etc/ssl/certs/ca-certificates.crt") {
        ClientTls::builder().build().unwrap();
    }
}
