//! `serveloop bench` with servers that speak TLS.

use std::net::TcpListener;

use serde_json::Value;

use super::{bench, measured, results};
use crate::support::secure::certificate;
use crate::support::served::{Outcome, Served};

/// An echo server over TLS, with more options of its listener.
fn served(more: &str) -> Served {
    let [chain, key] = ["localhost.pem", "localhost.key"].map(certificate);
    let uri = format!("tls://127.0.0.1:0?cert={chain}&key={key}{more}");
    Served::new(&["echo", "--listen", &uri])
}

/// The arguments for a target whose certificate is trusted.
fn trusting<'a>(server: &'a Served, authority: &'a str) -> [&'a str; 4] {
    ["--target", server.uri(0), "--ca", authority]
}

/// Fails, and returns what it says.
#[track_caller]
fn refused(arguments: &[&str], status: i32) -> String {
    let outcome = bench(arguments);
    assert_eq!(outcome.code, Some(status), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    outcome.stderr
}

#[test]
fn messages_are_measured_over_tls() {
    let (server, authority) = (served(""), certificate("authority.pem"));
    let load = ["--connections", "3", "--size", "1,40KiB", "--depth", "1,20"];
    let results = results(&[&trusting(&server, &authority)[..], &load].concat());
    assert_eq!(results.len(), 4);
    for result in &results {
        assert_eq!(result["server"], server.uri(0));
        assert!(measured(result, "/per_second/median") > 0.0);
        assert!(measured(result, "/latency_microseconds/p50/median") > 0.0);
        let handshakes = &result["measured"]["handshakes_per_second"];
        assert_eq!(handshakes, &Value::Null);
    }
}

#[test]
fn handshakes_are_counted_by_their_kind() {
    let (server, authority) = (served(""), certificate("authority.pem"));
    let churn = ["bench", "--churn", "--connections", "1,8", "--json"];
    let long = ["--rounds", "1", "--duration", "300ms"];
    let churn = [&churn[..], &long, &trusting(&server, &authority)].concat();
    let results = |more: &[&str]| {
        let outcome = Outcome::new(&[&churn[..], more].concat());
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let all: Value = serde_json::from_str(&outcome.stdout).expect("one object of JSON");
        all["results"].as_array().expect("a list").clone()
    };
    let kinds = |result: &Value| {
        let kind = |name| measured(result, &format!("/handshakes_per_second/{name}/median"));
        (kind("full"), kind("resumed"))
    };

    for result in results(&[]) {
        let (full, resumed) = kinds(&result);
        assert!(full > 0.0 && resumed == 0.0, "{result}");
    }
    for result in results(&["--resume"]) {
        let (full, resumed) = kinds(&result);
        assert!(full == 0.0 && resumed > 0.0, "{result}");
    }
}

#[test]
fn the_table_tells_the_kinds_of_handshakes() {
    let (server, authority) = (served(""), certificate("authority.pem"));
    let churn = ["--churn", "--resume", "--connections", "2"];
    let outcome = bench(&[&trusting(&server, &authority)[..], &churn].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let line = outcome
        .stdout
        .lines()
        .find(|line| line.ends_with("resumed TLS handshakes/s"));
    let line = line.unwrap_or_else(|| panic!("{}", outcome.stdout));
    assert!(line.contains(": 0 full and "), "{line}");
}

#[test]
fn a_server_that_is_not_trusted_is_told_with_what_helps() {
    let (server, authority) = (served(""), certificate("authority.pem"));
    let other = certificate("other-authority.pem");
    let text = refused(&["--target", server.uri(0), "--ca", &other], 1);
    assert!(text.contains(server.uri(0)), "{text}");
    assert!(text.contains("unknown authority: --ca FILE"), "{text}");

    let named = ["--server-name", "example.org"];
    let text = refused(&[&trusting(&server, &authority)[..], &named].concat(), 1);
    assert!(
        text.contains("not valid for example.org, but for localhost"),
        "{text}"
    );
    let insecure = [
        "--target",
        server.uri(0),
        "--insecure",
        "--connections",
        "2",
    ];
    assert!(measured(&results(&insecure)[0], "/per_second/median") > 0.0);
}

#[test]
fn a_server_that_speaks_something_else_is_told() {
    let plain = Served::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let uri = plain.uri(0).replace("tcp://", "tls://");
    let text = refused(&["--target", &uri, "--insecure"], 1);
    let expected = "not TLS: the server sent back what it received";
    assert!(text.contains(expected), "{text}");

    let secured = served("");
    let uri = secured.uri(0).replace("tls://", "tcp://");
    let text = refused(&["--target", &uri], 1);
    assert!(
        text.contains("an alert of TLS, which tls:// speaks"),
        "{text}"
    );

    // It never accepts, so nothing answers the handshake.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let uri = format!("tls://{}", silent.local_addr().expect("an address"));
    let text = refused(&["--target", &uri, "--insecure", "--timeout", "300ms"], 1);
    assert!(
        text.contains("timed out: the TLS handshake was not complete"),
        "{text}"
    );
}

#[test]
fn a_client_shows_its_certificate() {
    let authority = certificate("authority.pem");
    let server = served(&format!("&client-ca={authority}"));
    let target = trusting(&server, &authority);
    let text = refused(&target, 1);
    assert!(text.contains("--cert FILE --key FILE"), "{text}");

    let [chain, key] = ["alice.pem", "alice.key"].map(certificate);
    let shown = ["--cert", &chain, "--key", &key, "--connections", "2"];
    for more in [&[][..], &["--churn", "--resume"]] {
        let results = results(&[&target[..], &shown, more].concat());
        assert!(measured(&results[0], "/per_second/median") > 0.0);
    }
}

#[test]
fn the_example_works_as_printed() {
    let help = Outcome::new(&["bench", "--help"]);
    let mut lines = help.stdout.lines();
    let example = lines.find_map(|line| {
        let line = line.trim().strip_prefix("$ serveloop bench ");
        line.filter(|line| line.contains("tls://"))
    });

    let (server, authority) = (served(""), certificate("authority.pem"));
    let example = example.expect("an example with TLS");
    let example = example.replace("tls://localhost:9443", server.uri(0));
    let example = example.replace("cert.pem", &authority);
    let arguments: Vec<_> = example.split(' ').collect();
    assert!(measured(&results(&arguments)[0], "/per_second/median") > 0.0);
}

#[test]
fn options_of_tls_need_a_server_that_speaks_it() {
    let plain = ["--target", "tcp://127.0.0.1:9"];
    for option in [
        &["--insecure"][..],
        &["--ca", "x.pem"],
        &["--server-name", "x"],
        &["--resume"],
    ] {
        let text = refused(&[&plain[..], option].concat(), 2);
        let expected = format!(
            "{} is for servers that speak TLS: --target tls://",
            option[0]
        );
        assert!(text.contains(&expected), "{text}");
        assert!(refused(option, 2).contains(&expected));
    }
    let target = "tls://127.0.0.1:9";
    for (arguments, status, part) in [
        (
            &["--target", "tls://127.0.0.1"][..],
            2,
            "expected HOST:PORT",
        ),
        (
            &["--target", target, "--ca", "/nowhere.pem"],
            1,
            "/nowhere.pem",
        ),
        (
            &["--target", target, "--insecure", "--ca", "x"],
            2,
            "cannot be used with",
        ),
        (&["--target", target, "--key", "x"], 2, "--cert"),
        (
            &["--target", target, "--insecure", "--server-name", "a b"],
            2,
            "no name of a server",
        ),
    ] {
        let text = refused(arguments, status);
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
}
