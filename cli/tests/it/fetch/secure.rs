//! `serveloop fetch` over TLS, from servers by OpenSSL and Python.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;

use crate::fetch::{answering, request};
use crate::support::outside::require;
use crate::support::running::{Running, Said, run};
use crate::support::scripts::Scripted;
use crate::support::secure::{Secure, certificate};
use crate::support::served::serveloop;
use crate::support::sockets::Directory;

fn fetch(url: &str, options: &[&str]) -> Said {
    let authority = certificate("authority.pem");
    let arguments = [&["fetch", url, "--ca", &authority], options].concat();
    run(&arguments, "")
}

#[test]
fn a_page_of_openssl_arrives() {
    let Some(server) = Secure::openssl("localhost", &["-www"]) else {
        return;
    };
    assert!(fetch(&server.url(), &[]).well().contains("TLSv1.3"));
    let by_address = format!("https://127.0.0.1:{}/", server.port());
    assert!(fetch(&by_address, &[]).well().contains("TLSv1.3"));
    let Some(older) = Secure::openssl("localhost-rsa", &["-www", "-tls1_2"]) else {
        return;
    };
    assert!(fetch(&older.url(), &[]).well().contains("TLSv1.2"));
}

#[test]
fn large_bodies_arrive_whole() {
    let size = 16 << 20;
    let Some(server) = Secure::python(&["sized", &size.to_string()]) else {
        return;
    };
    let said = fetch(&server.url(), &[]);
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    let pattern: Vec<u8> = (0..251).collect();
    assert!(said.stdout == pattern.repeat(size / 251), "another body");

    let directory = Directory::new();
    let path = directory.path("file");
    let said = fetch(&server.url(), &["-o", path.to_str().unwrap()]);
    assert_eq!(said.well(), "");
    assert_eq!(path.metadata().unwrap().len(), (size / 251 * 251) as u64);
}

#[test]
fn the_request_is_the_same_as_without_tls() {
    let Some(server) = Secure::python(&["request"]) else {
        return;
    };
    let expected = format!(
        "GET /a?b HTTP/1.1\r\nHost: localhost:{}\r\nUser-Agent: serveloop/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        server.port(),
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(
        fetch(&format!("{}a?b#c", server.url()), &[]).well(),
        expected
    );
}

#[test]
fn an_end_without_end_mark_is_a_failure() {
    let (Some(whole), Some(cut)) = (Secure::python(&["to-end"]), Secure::python(&["cut"])) else {
        return;
    };
    assert_eq!(fetch(&whole.url(), &[]).well(), "hello, world");

    let directory = Directory::new();
    let path = directory.path("file");
    let text = fetch(&cut.url(), &["-o", path.to_str().unwrap()]).badly();
    assert!(text.contains("close_notify"), "{text}");
    assert!(!path.exists());
}

#[test]
fn servers_that_are_not_who_they_should_be_are_refused() {
    let cases: [(&str, &[&str], &str); 4] = [
        (
            "expired",
            &[],
            "certificate expired on 2020-01-02T00:00:00Z",
        ),
        (
            "example",
            &[],
            "not valid for localhost, but for example.org, *.example.org",
        ),
        (
            "localhost",
            &["--server-name", "www.example.org"],
            "not valid for www.example.org",
        ),
        ("stranger", &[], "for server authentication, allows client"),
    ];
    for (name, options, problem) in cases {
        let Some(server) = Secure::openssl(name, &["-www"]) else {
            return;
        };
        let url = server.url();
        let text = fetch(&url, options).badly();
        assert!(
            text.contains(problem) && text.contains(&url),
            "{name}: {text}"
        );
        let said = run(&["fetch", &url, "--insecure"], "");
        assert!(said.well().contains("TLSv1.3"), "{name}");
    }

    let Some(server) = Secure::openssl("localhost", &["-www"]) else {
        return;
    };
    let other = certificate("other-authority.pem");
    let text = run(&["fetch", &server.url(), "--ca", &other], "").badly();
    assert!(text.contains("unknown authority: --ca FILE"), "{text}");
    let said = fetch(&server.url(), &["--ca", &other]);
    assert!(said.well().contains("TLSv1.3"));

    let Some(server) = Secure::openssl("example", &["-www"]) else {
        return;
    };
    let said = fetch(&server.url(), &["--server-name", "any.example.org"]);
    assert!(said.well().contains("TLSv1.3"));
}

/// What `openssl req -x509` makes is a certificate of an authority, and rustls refuses it elsewhere.
#[test]
fn a_self_signed_certificate_is_trusted_if_it_is_listed() {
    let directory = Directory::new();
    let (chain, key) = (directory.path("cert.pem"), directory.path("key.pem"));
    let (chain, key) = (chain.to_str().unwrap(), key.to_str().unwrap());
    let mut make = Command::new("openssl");
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
    make.args([
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=localhost",
    ]);
    make.args(["-addext", "subjectAltName=DNS:localhost"]);
    make.args(["-keyout", key, "-out", chain]);
    if !require("openssl") {
        return;
    }
    assert!(make.output().expect("openssl").status.success());
    let options = ["-www", "-cert", chain, "-key", key];
    let Some(server) = Secure::openssl("localhost", &options) else {
        return;
    };

    let said = run(&["fetch", &server.url(), "--ca", chain], "");
    assert!(said.well().contains("TLSv1.3"));
    let text = fetch(&server.url(), &[]).badly();
    assert!(text.contains("self-signed"), "{text}");
    let mut command = serveloop(&["fetch", &server.url()]);
    command.env("SSL_CERT_FILE", chain);
    assert!(Running::spawn(command).end().well().contains("TLSv1.3"));

    let other = format!("https://127.0.0.1:{}/", server.port());
    let text = run(&["fetch", &other, "--ca", chain], "").badly();
    assert!(text.contains("not valid for 127.0.0.1"), "{text}");
}

#[test]
fn servers_may_require_a_certificate() {
    let authority = certificate("authority.pem");
    for version in ["-tls1_3", "-tls1_2"] {
        let options = ["-www", "-Verify", "1", "-verify_return_error", version];
        let options = [&options[..], &["-CAfile", &authority]].concat();
        let Some(server) = Secure::openssl("localhost", &options) else {
            return;
        };
        let shown = |name: &str| {
            let (chain, key) = (format!("{name}.pem"), format!("{name}.key"));
            let options = ["--cert", &certificate(&chain), "--key", &certificate(&key)];
            fetch(&server.url(), &options)
        };
        assert!(shown("alice").well().contains("TLSv1."));
        let text = shown("stranger").badly();
        assert!(text.contains("refused the client's certificate"), "{text}");
        let text = fetch(&server.url(), &[]).badly();
        assert!(text.contains("--cert FILE --key FILE"), "{text}");
    }
}

#[test]
fn servers_without_tls_are_recognised() {
    let plain = |options: &[&str], script: fn(TcpStream)| {
        let server = Scripted::new(script);
        let (_, port) = server.at().rsplit_once(':').expect("a port");
        let url = format!("https://127.0.0.1:{port}/");
        let text = fetch(&url, options).badly();
        server.end();
        text
    };
    let text = plain(&["--timeout", "1s"], |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    assert!(
        text.contains("not TLS: the peer began with \"HTTP"),
        "{text}"
    );
    let text = plain(&["--timeout", "1s"], |mut stream| {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).expect("a greeting");
        let _ = stream.write_all(&bytes[..count]);
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    assert!(text.contains("not TLS"), "{text}");
    let text = plain(&["--timeout", "1s"], |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
    });
    assert!(text.contains("the TLS handshake was"), "{text}");
    let text = plain(&["--timeout", "1s"], |mut stream| {
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    assert!(text.contains("timed out: the TLS handshake"), "{text}");
    let text = plain(&["--max-time", "500ms"], |mut stream| {
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    assert!(text.contains("within --max-time"), "{text}");
}

#[test]
fn redirections_do_not_lose_the_encryption_unasked() {
    let Some(secure) = Secure::python(&["to-end"]) else {
        return;
    };
    let location = secure.url();
    let plain = answering(format!(
        "HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n"
    ));
    let url = format!("http://{}/", plain.at());
    assert_eq!(fetch(&url, &[]).well(), "hello, world");
    plain.end();

    let plain = answering("HTTP/1.1 200 OK\r\n\r\nin the clear");
    let location = format!("http://{}/", plain.at());
    let Some(secure) = Secure::python(&["redirect", &location]) else {
        return;
    };
    let text = fetch(&secure.url(), &[]).badly();
    assert!(
        text.contains("without encryption: --allow-downgrade"),
        "{text}"
    );
    let said = fetch(&secure.url(), &["--allow-downgrade"]);
    assert_eq!(said.well(), "in the clear");
    plain.end();
}

/// A proxy that connects its one client to `port`, and the head that it was sent.
fn tunnel(port: u16, response: &'static str) -> Scripted {
    Scripted::new(move |mut client| {
        let head = request(&client);
        let place = format!("localhost:{port}");
        let expected = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
        assert!(head.starts_with(&expected), "{head}");
        assert!(head.contains("\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n"));
        client.write_all(response.as_bytes()).expect("a client");
        if !response.starts_with("HTTP/1.1 200") {
            return;
        }

        let mut server = TcpStream::connect(("127.0.0.1", port)).expect("a server");
        let (mut from, mut to) = (
            client.try_clone().expect("a socket"),
            server.try_clone().expect("a socket"),
        );
        let other = thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut server, &mut client);
        let _ = client.shutdown(Shutdown::Write);
        other.join().expect("no panic");
    })
}

#[test]
fn proxies_are_asked_for_tunnels() {
    let size = 3 << 20;
    let Some(server) = Secure::python(&["sized", &size.to_string()]) else {
        return;
    };
    let through = |proxy: &Scripted| {
        let mut command = serveloop(&["fetch", &server.url()]);
        command.args(["--ca", &certificate("authority.pem")]);
        command.env("https_proxy", format!("http://me:secret@{}", proxy.at()));
        command.env("http_proxy", "http://127.0.0.1:1");
        command.env_remove("no_proxy").env_remove("NO_PROXY");
        Running::spawn(command).end()
    };

    let proxy = tunnel(server.port(), "HTTP/1.1 200 Connection established\r\n\r\n");
    let said = through(&proxy);
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    assert_eq!(said.stdout.len(), size / 251 * 251);
    proxy.end();

    let proxy = tunnel(server.port(), "HTTP/1.1 403 Forbidden\r\n\r\n");
    let text = through(&proxy).badly();
    assert!(
        text.contains("does not connect to the server: 403 Forbidden"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
    proxy.end();
}

#[test]
fn files_that_are_missing_or_other_are_named() {
    let key = certificate("alice.key");
    let url = "https://127.0.0.1:1/";
    for (options, problem) in [
        (["--ca", "/nothing.pem"], "/nothing.pem: No such file"),
        (["--ca", &key], "alice.key: holds no certificate"),
        (["--cert", "/nothing.pem"], "/nothing.pem: No such file"),
    ] {
        let text = run(&[&["fetch", url], &options[..]].concat(), "").badly();
        assert!(text.contains(problem), "{text}");
    }
    let said = run(&["fetch", url, "--key", &key], "");
    assert_eq!(said.code, Some(2), "{said:?}");
}
