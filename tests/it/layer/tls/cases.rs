//! The rows of `cases.md`.

use std::fs;
use std::io::Read;
use std::net::{Shutdown, SocketAddr};

use serveloop::layer::tls::{
    ClientCertificates, ServerTls, ServerTlsBuilder, Tls, TlsInfo, TlsVersion,
};
use serveloop::layer::{Event, Layered, Observe, Observed};
use serveloop::{Config, Peer, Protocol, Result, Transport};

use crate::layer::tls::certificates::{self, file};
use crate::layer::tls::programs::{Openssl, beside, curl, openssl, plain, python, shows};
use crate::support::outside::require;
use crate::support::probe::Log;
use crate::support::{Serving, client, millis, timeless};

/// What the table's server speaks.
#[derive(Default)]
pub(crate) struct Answers {
    /// Whether to say something at the end of the stream.
    asked: bool,
}

impl Protocol for Answers {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        if data.starts_with(b"GET ") {
            transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
            transport.close();
        } else {
            transport.write(data);
            self.asked = data == b"question";
        }
        Ok(data.len())
    }

    fn eof_received(&mut self, _: &[u8], transport: &mut Transport<'_>) -> Result {
        if self.asked {
            transport.write(b"bye");
        }
        transport.close();
        Ok(())
    }
}

/// Notes the reasons for which connections end.
struct Ends(Log);

impl Observe for Ends {
    fn observe(&mut self, event: Event<'_>) {
        if let Event::ConnectionLost(ended) = event {
            self.0.push(ended.reason().to_string());
        }
    }
}

/// How to run a case: the server, its limits, and what the client does there.
struct Case {
    tls: ServerTlsBuilder,
    config: Config,
    client: Box<dyn Fn(SocketAddr) -> String>,
}

fn case(client: impl Fn(SocketAddr) -> String + 'static) -> Case {
    Case {
        tls: certificates::server("localhost"),
        config: timeless(),
        client: Box::new(client),
    }
}

impl Case {
    fn with(self, tls: ServerTlsBuilder) -> Self {
        Self { tls, ..self }
    }

    fn with_clients(self, wanted: ClientCertificates) -> Self {
        let tls = self.tls.client_certificates(wanted, file("authority.pem"));
        Self { tls, ..self }
    }
}

fn by_openssl(options: &'static [&'static str]) -> Case {
    case(move |to| openssl(to, options))
}

fn by_python(action: &'static str, options: &'static [&'static str]) -> Case {
    case(move |to| python(to, action, options))
}

/// A client of Python with a certificate.
fn by_python_as(name: &'static str, version: &'static str) -> Case {
    let case = case(move |to| {
        let [certificate, key] = shows(name);
        python(to, "echo", &[version, &certificate, &key])
    });
    case.with_clients(ClientCertificates::Required)
}

fn of_openssl(case: &str) -> Option<Case> {
    let server = certificates::server;
    Some(match case {
        "TLS 1.2" => by_openssl(&["-tls1_2"]),
        "TLS 1.3" => by_openssl(&["-tls1_3"]),
        "TLS 1.2 where 1.3 is the oldest" => {
            by_openssl(&["-tls1_2"]).with(server("localhost").oldest_version(TlsVersion::Tls13))
        }
        "TLS 1.1" => by_openssl(&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]),
        "certificate by RSA" => by_openssl(&[]).with(server("localhost-rsa")),
        "certificate by Ed25519" => {
            by_openssl(&["-verify_hostname", "localhost"]).with(server("example"))
        }
        "chain of two certificates" => by_openssl(&[]).with(server("chained")),
        "server's certificate has expired" => by_openssl(&[]).with(server("expired")),
        "new keys asked for" => self::case(keys),
        "renegotiation" => self::case(renegotiation),
        "ALPN not in common" => {
            by_openssl(&["-alpn", "spdy"]).with(server("localhost").alpn("http/1.1"))
        }
        "client certificate required and shown" => self::case(|to| {
            let [certificate, key] =
                shows("alice").map(|it| it.split('=').nth(1).unwrap().to_owned());
            openssl(to, &["-cert", &certificate, "-key", &key])
        })
        .with_clients(ClientCertificates::Required),
        "client certificate required and missing, TLS 1.2" => {
            by_openssl(&["-tls1_2"]).with_clients(ClientCertificates::Required)
        }
        _ => return None,
    })
}

fn of_python(case: &str) -> Option<Case> {
    let protocols = || {
        certificates::server("localhost")
            .alpn("h3")
            .alpn("http/1.1")
    };
    Some(match case {
        "TLS 1.2" => by_python("echo", &["version=1.2"]),
        "TLS 1.3" => by_python("echo", &["version=1.3"]),
        "half-close, TLS 1.2" => by_python("half-close", &["version=1.2"]),
        "half-close, TLS 1.3" => by_python("half-close", &["version=1.3"]),
        "no close_notify" => by_python("truncate", &[]),
        "session resumed, TLS 1.2" => by_python("resume", &["version=1.2"]),
        "session resumed, TLS 1.3" => by_python("resume", &["version=1.3"]),
        "ALPN in common" => by_python("alpn", &["alpn=http/1.1,spdy"]).with(protocols()),
        "ALPN not offered" => by_python("alpn", &[]).with(protocols()),
        "client certificate required and shown, TLS 1.2" => by_python_as("alice", "version=1.2"),
        "client certificate required and shown, TLS 1.3" => by_python_as("alice", "version=1.3"),
        "client certificate required and missing, TLS 1.3" => {
            by_python("echo", &["version=1.3"]).with_clients(ClientCertificates::Required)
        }
        "client certificate expired" => by_python_as("expired-client", "version=1.3"),
        "client certificate of a stranger" => by_python_as("stranger", "version=1.3"),
        "client certificate optional and missing" => {
            by_python("echo", &[]).with_clients(ClientCertificates::Optional)
        }
        "another name" => by_python("echo", &["name=example.org"]),
        _ => return None,
    })
}

fn of_curl(case: &str) -> Option<Case> {
    let get = |scheme: &'static str, options: &'static [&'static str]| {
        self::case(move |to| curl(&format!("{scheme}://{to}/"), options))
    };
    Some(match case {
        "HTTPS by TLS 1.2" => get("https", &["--tls-max", "1.2"]),
        "HTTPS by TLS 1.3" => get("https", &["--tlsv1.3"]),
        "HTTP" => get("http", &[]),
        "unknown authority" => get("https", &["--cacert", "/dev/null"]).with_other_authority(),
        _ => return None,
    })
}

impl Case {
    /// A client of curl that trusts another authority than the server's.
    fn with_other_authority(self) -> Self {
        let other = file("other-authority.pem").display().to_string();
        Self {
            client: Box::new(move |to| curl(&format!("https://{to}/"), &["--cacert", &other])),
            ..self
        }
    }
}

fn of_socket(case: &str) -> Option<Case> {
    // The beginning of a hello.
    let begin = b"\x16\x03\x01\x00\xC8\x01\x00\x00\xC4\x03\x03";
    let mut case = match case {
        "plain bytes" => self::case(|to| match &plain(to, b"hello")[..] {
            [21, 3, _, 0, 2, 2, 50] => "alert decode error".to_owned(),
            other => format!("{other:?}"),
        }),
        "an end before the first byte" => self::case(|to| ended(to, &[])),
        "an end within the handshake" => self::case(move |to| ended(to, begin)),
        "a handshake that stops" => self::case(move |to| nothing(&plain(to, begin))),
        "silence" => self::case(|to| nothing(&plain(to, &[]))),
        "an alert instead of a handshake" => {
            self::case(|to| nothing(&plain(to, &[21, 3, 3, 0, 2, 2, 40])))
        }
        _ => return None,
    };
    case.config.limits.handshake_timeout = Some(millis(300));
    Some(case)
}

fn nothing(got: &[u8]) -> String {
    if got.is_empty() {
        return "nothing".to_owned();
    }
    format!("{got:?}")
}

/// Sends these bytes and the end of the stream.
fn ended(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = client(&format!("tcp://{to}").parse().unwrap());
    std::io::Write::write_all(&mut stream, bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    nothing(&got)
}

/// Has new keys made for both directions between two lines.
fn keys(to: SocketAddr) -> String {
    let mut client = Openssl::new(to, &["-tls1_3"]);
    let mut said = String::new();
    for (line, answer) in [
        ("one\n", "one\n"),
        ("K\n", "KEYUPDATE\n"),
        ("two\n", "two\n"),
    ] {
        client.types(line);
        said += &client.reads_until(answer);
    }
    format!("{said} {}", client.ends())
}

fn renegotiation(to: SocketAddr) -> String {
    let mut client = Openssl::new(to, &["-tls1_2"]);
    client.types("one\n");
    let said = client.reads_until("one\n");
    client.types("R\n");
    let rest = client.reads_until("the end");
    format!("refused: {said} {rest} {}", client.ends())
}

/// Returns the text in the form in which programs of all versions say it.
fn plainly(text: &str) -> String {
    text.to_lowercase().replace(['_', '\n'], " ")
}

/// Runs a case, and returns what differs from its row.
fn run(case: Case, result: &str, reason: &str, counter: &str) -> Vec<String> {
    let ends = Log::default();
    let (tls, noted) = (case.tls.build().unwrap(), ends.clone());
    let server = Serving::tcp(case.config, move |_: &Peer| Some(served(&tls, &noted)));
    let got = (case.client)(server.addresses[0].socket_addr().unwrap());
    server.wait(|statistics| statistics.accepted > 0 && statistics.closed() == statistics.accepted);
    let statistics = server.end();

    let counted = statistics
        .iter()
        .filter(|(name, count)| name.starts_with("closed_") && *count > 0);
    let counted: Vec<_> = counted.map(|(name, _)| name).collect();
    let mut wrong = Vec::new();
    let (wanted, said) = (plainly(result), plainly(&got));
    if !wanted.split(": ").all(|part| said.contains(part)) {
        wrong.push(format!("result: {got}"));
    }
    let entries = ends.entries();
    if !entries.iter().all(|entry| entry.contains(reason)) {
        wrong.push(format!("reason: {entries:?}"));
    }
    if counted != [counter] {
        wrong.push(format!("counter: {counted:?}"));
    }
    wrong
}

fn served(tls: &ServerTls, ends: &Log) -> impl Protocol + use<> {
    let layered = Layered::new(Tls::server(tls), |_: &Peer, _: &TlsInfo| {
        Some(Answers::default())
    });
    Observed::new(layered, Ends(ends.clone()))
}

#[test]
fn every_row_of_the_table_is_true() {
    let programs = ["openssl", "python3", "curl", "timeout"];
    if !programs.into_iter().all(require) {
        return;
    }

    let table = fs::read_to_string(beside("cases.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let (mut count, mut wrong) = (0, Vec::new());
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [peer, name, result, reason, counter] = cells[..] else {
            panic!("no row: {row}");
        };
        let case = match peer {
            "openssl" => of_openssl(name),
            "python" => of_python(name),
            "curl" => of_curl(name),
            "socket" => of_socket(name),
            _ => None,
        };
        let case = case.unwrap_or_else(|| panic!("no case for {row}"));
        for problem in run(case, result, reason, counter) {
            wrong.push(format!("{peer}, {name}: {problem}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 30, "only {count} rows");
}
