//! `serveloop fetch` through a proxy, and without one.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc;

use crate::support::running::{Running, Said};
use crate::support::scripts::Scripted;
use crate::support::served::{PATIENCE, serveloop};

/// No server listens on that port: a direct request to it fails.
const NOWHERE: &str = "http://127.0.0.1:1/a?b=c";

fn head(stream: &TcpStream) -> String {
    let mut head = String::new();
    let mut lines = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") {
        let count = lines.read_line(&mut head).expect("a request");
        assert!(count > 0, "{head}");
    }
    head
}

/// A proxy that answers `count` requests by itself, and the receiver of these requests.
fn proxy(count: usize) -> (Scripted, mpsc::Receiver<String>) {
    let (tell, told) = mpsc::channel();
    let server = Scripted::several(count, move |mut stream| {
        tell.send(head(&stream)).expect("a test");
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy";
        stream.write_all(response).expect("a client");
    });
    (server, told)
}

/// Variables and their values.
type Environment<'e> = &'e [(&'e str, &'e str)];

fn fetch(arguments: &[&str], environment: Environment<'_>) -> Said {
    let mut command: Command = serveloop(&["fetch"]);
    command.args(arguments);
    for name in ["no_proxy", "NO_PROXY", "HTTP_PROXY"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    Running::spawn(command).end()
}

#[test]
fn a_proxy_of_the_environment_is_used() {
    let (server, told) = proxy(4);
    let url = format!("http://{}", server.at());
    let bare = server.at();
    let expected = format!(
        "GET {NOWHERE} HTTP/1.1\r\nHost: 127.0.0.1:1\r\nUser-Agent: serveloop/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let environments: [Environment; 4] = [
        &[("http_proxy", &url)],
        &[("http_proxy", bare), ("no_proxy", "example.com,10.0.0.0/8")],
        &[("http_proxy", ""), ("all_proxy", &url)],
        &[("ALL_PROXY", &url)],
    ];
    for environment in environments {
        let said = fetch(&[NOWHERE], environment);
        assert_eq!(said.well(), "proxy", "{environment:?}");
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), expected);
    }
    server.end();
}

/// In a program that a web server runs, HTTP_PROXY is a header of the client's.
#[test]
fn hosts_without_a_proxy_are_asked_themselves() {
    let (server, told) = proxy(5);
    let url = format!("http://{}/", server.at());
    let nobody = "http://127.0.0.1:1";
    let cases: [(&[&str], Environment); 5] = [
        (&[&url], &[("HTTP_PROXY", nobody)]),
        (
            &[&url],
            &[("http_proxy", nobody), ("no_proxy", "localhost, 127.0.0.1")],
        ),
        (&[&url], &[("all_proxy", nobody), ("NO_PROXY", "*")]),
        (&[&url, "--no-proxy"], &[("http_proxy", nobody)]),
        (&[&url, "--proxy", ""], &[("http_proxy", nobody)]),
    ];
    for (arguments, environment) in cases {
        let said = fetch(arguments, environment);
        assert_eq!(said.well(), "proxy", "{arguments:?} {environment:?}");
        assert!(
            told.recv_timeout(PATIENCE)
                .unwrap()
                .starts_with("GET / HTTP/1.1\r\n")
        );
    }
    server.end();
}

#[test]
fn a_proxy_may_want_a_password() {
    let (server, told) = proxy(1);
    let proxy = format!("http://me:my%20secret@{}", server.at());
    let said = fetch(
        &[NOWHERE, "--proxy", &proxy, "--no-proxy="],
        &[("no_proxy", "*")],
    );
    assert_eq!(said.well(), "proxy");
    let head = told.recv_timeout(PATIENCE).unwrap();
    assert!(
        head.contains("\r\nProxy-Authorization: Basic bWU6bXkgc2VjcmV0\r\n"),
        "{head}"
    );
    server.end();
}

/// Each place is asked in its own way, also after a redirection.
#[test]
fn a_redirection_may_lead_past_the_proxy() {
    let (direct, told) = proxy(1);
    let location = format!("http://{}/there", direct.at());
    let server = Scripted::new(move |mut stream| {
        head(&stream);
        let response = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n");
        stream.write_all(response.as_bytes()).expect("a client");
    });
    let proxy = format!("http://{}", server.at());
    let environment = [("http_proxy", &*proxy), ("no_proxy", "127.0.0.1")];
    let said = fetch(&["http://elsewhere.invalid/here"], &environment);
    assert_eq!(said.well(), "proxy");
    assert!(
        told.recv_timeout(PATIENCE)
            .unwrap()
            .starts_with("GET /there HTTP")
    );
    server.end();
    direct.end();
}

#[test]
fn a_proxy_that_does_not_help_is_named_without_its_password() {
    let server = Scripted::new(|mut stream| {
        head(&stream);
        let response = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
        stream.write_all(response).expect("a client");
    });
    let (at, asked) = (server.at(), format!("http://me:secret@{}", server.at()));
    let text = fetch(&[NOWHERE], &[("http_proxy", &asked)]).badly();
    let expected =
        format!("serveloop: {NOWHERE} through http://{at}: 407 Proxy Authentication Required\n");
    assert_eq!(text, expected);
    server.end();
    let text = fetch(
        &[NOWHERE],
        &[("http_proxy", "http://u:secret@127.0.0.1:1/")],
    )
    .badly();
    assert!(
        text.contains("through http://127.0.0.1:1: cannot connect"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_proxy_that_is_not_spoken_to_is_not_passed_over() {
    for (name, value) in [
        ("all_proxy", "socks5://127.0.0.1:1"),
        ("http_proxy", "https://127.0.0.1:1"),
        ("http_proxy", "http://"),
    ] {
        let said = fetch(&[NOWHERE], &[(name, value)]);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(
            said.stderr.contains(name) && said.stderr.contains(value),
            "{said:?}"
        );
    }
}
