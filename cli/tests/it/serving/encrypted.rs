//! Servers with TLS, and clients by others: what these are shown, who is refused, and what is wrong with
//! options and files.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::outside::require;
use crate::support::running::run;
use crate::support::served::{MODELS, Outcome, PATIENCE, Served};
use crate::support::sockets::{Directory, Stream, socket_addr};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/it/layer/tls");

/// A file of the library's tests.
fn file(name: &str) -> String {
    format!("{FOLDER}/certificates/{name}")
}

/// The options for a certificate of this name and its key.
fn pair(name: &str) -> String {
    format!(
        "cert={}&key={}",
        file(&format!("{name}.pem")),
        file(&format!("{name}.key"))
    )
}

fn at(query: &str) -> String {
    format!("tls://127.0.0.1:0?{query}")
}

#[track_caller]
fn serve(protocol: &[&str], query: &str, options: &[&str]) -> Served {
    let served = Served::new(&[protocol, &["--listen", &at(query)], options].concat());
    assert!(served.uri(0).starts_with("tls://127.0.0.1:"));
    served
}

#[track_caller]
fn end(served: Served) -> String {
    served.signal(Signal::TERM);
    served.status_and_log().join("\n")
}

fn has_programs() -> bool {
    ["openssl", "python3", "timeout"].into_iter().all(require)
}

/// What a client by Python says that happened.
#[track_caller]
fn python(served: &Served, action: &str, options: &[&str]) -> String {
    let port = socket_addr(served.uri(0)).port().to_string();
    let mut command = Command::new("timeout");
    command.args(["30", "python3", &format!("{FOLDER}/peer.py")]);
    command.args([&port, &file("authority.pem"), action]);
    let output = command.args(options).output().expect("Python");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// Options of Python's client for a certificate of this name.
fn shows(name: &str) -> [String; 2] {
    [
        format!("certificate={}", file(&format!("{name}.pem"))),
        format!("key={}", file(&format!("{name}.key"))),
    ]
}

/// What `openssl s_client` shows until this has come, or it ends, when it has sent `text`.
#[track_caller]
fn openssl(to: SocketAddr, text: &str, expected: &str, options: &[&str]) -> String {
    let mut client = Command::new("timeout")
        .args(["30", "openssl", "s_client", "-verify_return_error"])
        .args(["-CAfile", &file("authority.pem")])
        .args(["-connect", &to.to_string()])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    let mut input = client.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("a client");

    let mut output = client.stdout.take().expect("a pipe");
    let (mut said, mut room) = (String::new(), [0; 4_096]);
    while !said.contains(expected) {
        match output.read(&mut room).expect("a pipe") {
            0 => break,
            count => said.push_str(&String::from_utf8_lossy(&room[..count])),
        }
    }
    drop((input, output));
    // It ignores the end of its input. `timeout` passes the signal on.
    let id = Pid::from_child(&client);
    kill_process(id, Signal::TERM).expect("our child");
    client.wait().expect("our child");
    said
}

#[test]
fn every_model_speaks_tls_and_refuses_who_does_not() {
    if !has_programs() {
        return;
    }
    for model in MODELS {
        let tls = at(&pair("localhost"));
        let listens = ["--listen", &tls, "--listen", "tcp://127.0.0.1:0", "-v"];
        let served = Served::new(&[&["echo"], &listens[..], model].concat());
        assert!(served.uri(0).starts_with("tls://127.0.0.1:"), "{model:?}");
        assert!(served.uri(1).starts_with("tcp://127.0.0.1:"), "{model:?}");

        for (version, option) in [("1.2", "-tls1_2"), ("1.3", "-tls1_3")] {
            let name = format!("version={version}");
            let said = python(&served, "echo", &[&name]);
            assert_eq!(said, format!("echo, TLSv{version}"), "{model:?}");
            let line = served.logged(&format!(": TLS {version}"));
            assert!(line.contains(", server name localhost"), "{line}");
            let said = openssl(
                socket_addr(served.uri(0)),
                "good morning\n",
                "good morning",
                &["-quiet", option],
            );
            assert!(said.contains("good morning"), "{model:?} {said}");
        }
        assert_eq!(python(&served, "resume", &[]), "resumed", "{model:?}");

        let mut plain = Stream::connect(&served.uri(0).replacen("tls", "tcp", 1));
        plain.send("good morning\n");
        // An alert, which is no text.
        assert_eq!(plain.receive_rest().first(), Some(&21), "{model:?}");
        served.logged("not TLS: the peer began with \"good morning.\"");
        drop(plain);

        let mut plain = Stream::connect(served.uri(1));
        plain.send("good morning");
        plain.expect("good morning");
        drop(plain);
        assert_eq!(python(&served, "echo", &[]), "echo, TLSv1.3", "{model:?}");
        let log = end(served);
        assert!(log.contains("accepted 9,"), "{model:?} {log}");
        assert!(log.contains("closed_protocol_error 1"), "{model:?} {log}");
    }
}

/// What is typed, and a part of what is shown, by every protocol that is the same for streams.
#[test]
fn every_protocol_runs_inside_tls() {
    if !has_programs() {
        return;
    }
    for (protocol, text, expected) in [
        (
            &["hello", "--delay", "0", "--framing", "line"][..],
            "bob\n",
            "Welcome!\nHello,bob\n",
        ),
        (&["greet"], "", "connected"),
        (&["timestamp", "--framing", "line"], "hi\n", " hi"),
        (&["resp"], "incr a\r\n", ":1\r\n"),
        (
            &["websocket"],
            "GET / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 400 Bad Request",
        ),
        (
            &["dispatch"],
            "{\"action\":\"sum\",\"numbers\":[1,2]}\n",
            "\"result\":3",
        ),
        (&["memcached"], "set a 0 0 1\nx\r\n", "STORED"),
        (&["http"], "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "hello"),
        (
            &["command", "--allow", "echo", "--wire", "struct"],
            "echo inside",
            "inside",
        ),
    ] {
        let served = serve(protocol, &pair("localhost"), &[]);
        let said = openssl(socket_addr(served.uri(0)), text, expected, &["-quiet"]);
        assert!(said.contains(expected), "{protocol:?} {said}");
        end(served);
    }
}

#[test]
fn clients_show_certificates() {
    if !has_programs() {
        return;
    }
    let required = format!("{}&client-ca={}", pair("localhost"), file("authority.pem"));
    let alice = shows("alice");
    let alice = [&*alice[0], &*alice[1]];
    let stranger = shows("stranger");
    let stranger = [&*stranger[0], &*stranger[1]];

    for model in MODELS {
        for query in [&required, &format!("{required}&client-auth=required")] {
            let served = serve(&["echo"], query, &[&["-v"], model].concat());
            for version in ["version=1.2", "version=1.3"] {
                let nobody = python(&served, "echo", &[version]);
                assert!(nobody.starts_with("refused: "), "{model:?} {nobody}");
                served.logged("the peer sent no certificate");
                let other = python(&served, "echo", &[&stranger[..], &[version]].concat());
                assert!(other.starts_with("refused: "), "{model:?} {other}");
                let known = python(&served, "echo", &[&alice[..], &[version]].concat());
                assert!(known.starts_with("echo, "), "{model:?} {known}");
                served.logged("client CN=alice,O=Example\\, Ltd");
            }
            end(served);
        }
    }

    let optional = format!("client-auth=optional&{required}");
    let served = serve(&["echo"], &optional, &["-v"]);
    assert_eq!(python(&served, "echo", &[]), "echo, TLSv1.3");
    assert_eq!(python(&served, "echo", &alice), "echo, TLSv1.3");
    assert!(python(&served, "echo", &stranger).starts_with("refused: "));
    end(served);
}

#[test]
fn clients_get_the_certificate_of_the_name_and_the_protocol_that_they_ask_for() {
    if !has_programs() {
        return;
    }
    let one = serve(&["echo"], &pair("localhost"), &[]);
    let said = python(&one, "echo", &["name=example.org"]);
    assert!(said.starts_with("refused: "), "{said}");
    end(one);

    let both = format!("{}&{}", pair("localhost"), pair("example"));
    // Certificates and keys make pairs by their order alone.
    let apart = format!(
        "cert={}&cert={}&alpn=h2,http%2F1.1&key={}&key={}",
        file("localhost.pem"),
        file("example.pem"),
        file("localhost.key"),
        file("example.key")
    );
    for query in [&both, &apart] {
        let served = serve(&["echo"], query, &["-v"]);
        for name in ["localhost", "example.org", "www.example.org"] {
            let said = python(&served, "echo", &[&format!("name={name}")]);
            assert_eq!(said, "echo, TLSv1.3", "{name}");
            served.logged(&format!("server name {name}"));
        }
        let to = socket_addr(served.uri(0));
        let first = openssl(to, "", "localhost", &["-noservername"]);
        assert!(first.contains("CN = localhost") || first.contains("CN=localhost"));
        end(served);
    }

    let served = serve(&["echo"], &apart, &["-v"]);
    let said = python(&served, "alpn", &["alpn=other,http/1.1"]);
    assert_eq!(said, "agreed on http/1.1");
    served.logged("TLS 1.3, ALPN http/1.1, server name localhost");
    let said = python(&served, "alpn", &["alpn=other"]);
    assert!(said.starts_with("refused: "), "{said}");
    assert_eq!(python(&served, "echo", &[]), "echo, TLSv1.3");
    end(served);
}

/// A client that sends a PROXY header, then speaks TLS in it, and prints what it receives.
const BEHIND: &str = "\
import socket, ssl, sys
plain = socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=10)
plain.sendall(b'PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\\r\\n')
context = ssl.create_default_context(cafile=sys.argv[2])
stream = context.wrap_socket(plain, server_hostname='localhost')
stream.sendall(b'hello')
print(stream.recv(5).decode())
";

#[test]
fn the_header_of_a_proxy_comes_before_tls() {
    if !has_programs() {
        return;
    }
    for model in MODELS {
        for proxy in ["required", "optional"] {
            let query = format!("{}&proxy={proxy}&trust=127.0.0.0/8", pair("localhost"));
            let served = serve(&["echo"], &query, &[&["-v"], model].concat());
            let port = socket_addr(served.uri(0)).port().to_string();
            let output = Command::new("timeout")
                .args(["30", "python3", "-c", BEHIND, &port])
                .arg(file("authority.pem"))
                .output()
                .expect("Python");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(said, "hello\n", "{model:?} {output:?}");
            served.logged("tcp://192.0.2.1:4711: named by ");
            served.logged("tcp://192.0.2.1:4711: TLS 1.3, server name localhost");
            end(served);
        }

        // Direct clients come past the proxies.
        let query = format!("{}&proxy=optional&trust=192.0.2.0/24", pair("localhost"));
        let served = serve(&["echo"], &query, model);
        assert_eq!(python(&served, "echo", &[]), "echo, TLSv1.3", "{model:?}");
        end(served);
    }
}

/// The client would call an end without close_notify a failure.
#[test]
fn an_idle_client_is_sent_the_end_mark_in_every_model() {
    let authority = file("authority.pem");
    for model in MODELS {
        let idle = ["--idle-timeout", "400ms"];
        let served = serve(&["echo"], &pair("localhost"), &[&idle, model].concat());
        let uri = served.uri(0).replace("127.0.0.1", "localhost");
        let options = ["connect", &uri, "--ca", &authority, "--keep-open"];
        assert_eq!(run(&options, "hello\n").well(), "hello\n", "{model:?}");
        let log = end(served);
        assert!(log.contains("closed_timeout_idle 1"), "{model:?}: {log}");
    }
}

/// Returns the arguments that connect by TLS after a PROXY header.
fn announced<'a>(uri: &'a str, authority: &'a str, header: &'a str) -> [&'a str; 6] {
    ["connect", uri, "--ca", authority, "--proxy-header", header]
}

/// Our own client as the proxy: its header comes before the handshake.
#[test]
fn connect_names_a_client_before_tls() {
    let authority = file("authority.pem");
    let query = format!("{}&proxy=required&trust=127.0.0.0/8", pair("localhost"));
    for model in MODELS {
        let served = serve(&["echo"], &query, &[&["-v"], model].concat());
        let uri = served.uri(0).replace("127.0.0.1", "localhost");
        for (header, name) in [
            ("v1,192.0.2.1:4711", "tcp://192.0.2.1:4711"),
            ("v2,2001:db8::1", "tcp://[2001:db8::1]:0"),
            ("v2", "tcp://127.0.0.1:"),
        ] {
            let options = announced(&uri, &authority, header);
            assert_eq!(
                run(&options, "hello\n").well(),
                "hello\n",
                "{model:?} {header}"
            );
            let line = served.logged(": named by ");
            assert!(line.contains(name), "{header}: {line}");
            served.logged(": TLS 1.3, server name localhost");
        }
        end(served);
    }

    let served = serve(&["hello", "--delay", "0"], &query, &[]);
    let uri = served.uri(0).replace("127.0.0.1", "localhost");
    let options = announced(&uri, &authority, "v2,local");
    let turns = [&options[..], &["--protocol", "hello"]].concat();
    assert_eq!(run(&turns, "bob\nexit\n").well(), "Welcome!\nHello,bob\n");
    // Without the header the server takes the handshake for a wrong one.
    let bare = run(&options[..4], "hello\n").badly();
    assert!(
        bare.contains("before the TLS handshake was complete"),
        "{bare}"
    );
    end(served);

    // A server that expects none.
    let served = serve(&["echo"], &pair("localhost"), &[]);
    let uri = served.uri(0).replace("127.0.0.1", "localhost");
    let said = run(&announced(&uri, &authority, "v1"), "hello\n");
    let text = said.badly();
    assert!(text.contains(&uri), "{text}");
    end(served);
}

/// HAProxy reads the header, ends TLS, and passes both on.
#[test]
fn haproxy_takes_the_header_of_connect_before_tls() {
    if !require("haproxy") {
        return;
    }
    let directory = Directory::new();
    let served = Served::new(&[
        "echo",
        "--listen",
        "tcp://127.0.0.1:0?proxy=required&trust=127.0.0.1",
    ]);
    let certificate = directory.path("both.pem");
    let parts = ["localhost.pem", "localhost.key"].map(|name| fs::read(file(name)).unwrap());
    fs::write(&certificate, parts.concat()).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let text = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 9s\n timeout server 9s\n\
         frontend in\n bind 127.0.0.1:{port} accept-proxy ssl crt {}\n default_backend out\n\
         backend out\n server echo {} send-proxy-v2\n",
        certificate.display(),
        socket_addr(served.uri(0)),
    );
    let configuration = directory.path("haproxy.cfg");
    fs::write(&configuration, text).unwrap();
    let mut haproxy = Command::new("haproxy")
        .arg("-f")
        .arg(&configuration)
        .arg("-db")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("haproxy");

    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < PATIENCE, "no haproxy");
        thread::sleep(Duration::from_millis(5));
    }
    let uri = format!("tls://localhost:{port}");
    let authority = file("authority.pem");
    let mut outcomes = Vec::new();
    for header in ["v1,192.0.2.1:4711", "v2,192.0.2.1:4711"] {
        let options = announced(&uri, &authority, header);
        outcomes.push(run(&options, "hello\n"));
        let line = served.logged(": named by ");
        assert!(line.contains("tcp://192.0.2.1:4711"), "{header}: {line}");
    }
    let _ = haproxy.kill();
    let _ = haproxy.wait();
    for said in outcomes {
        assert_eq!(said.stdout, b"hello\n", "{said:?}");
    }
    end(served);
}

#[test]
fn a_client_that_never_begins_has_the_time_of_a_handshake() {
    for model in MODELS {
        // The deadlines of messages do not run yet.
        let patience = [
            "--first-message-timeout",
            "50ms",
            "--message-timeout",
            "50ms",
        ];
        let options = [
            &["--handshake-timeout", "200ms", "-v"],
            &patience[..],
            model,
        ]
        .concat();
        let served = serve(&["echo"], &pair("localhost"), &options);
        for begin in [&[][..], &[22, 3, 1]] {
            let mut silent = Stream::connect(&served.uri(0).replacen("tls", "tcp", 1));
            silent.send_bytes(begin);
            silent.receive_rest();
            served.logged("the handshake was not completed in time");
        }
        end(served);
    }
}

/// Puts the certificate of this name and its key into files of the directory.
fn install(directory: &Directory, name: &str) {
    for (end, path) in [("pem", "cert.pem"), ("key", "key.pem")] {
        let path = directory.path(path);
        fs::copy(file(&format!("{name}.{end}")), &path).expect("a directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our file");
    }
}

fn installed(directory: &Directory) -> String {
    format!(
        "cert={}&key={}",
        directory.path("cert.pem").display(),
        directory.path("key.pem").display()
    )
}

#[test]
fn a_hangup_reads_the_files_again_in_every_model() {
    if !has_programs() {
        return;
    }
    for model in MODELS {
        let directory = Directory::new();
        install(&directory, "localhost");
        let served = serve(&["echo"], &installed(&directory), model);
        assert_eq!(python(&served, "echo", &[]), "echo, TLSv1.3", "{model:?}");

        for _ in 0..2 {
            install(&directory, "example");
            served.signal(Signal::HUP);
            served.logged("the certificates were read again");
            let said = python(&served, "echo", &["name=example.org"]);
            assert_eq!(said, "echo, TLSv1.3", "{model:?}");
            let said = python(&served, "echo", &[]);
            assert!(said.starts_with("refused: "), "{model:?} {said}");

            fs::write(directory.path("cert.pem"), "nonsense").expect("our file");
            served.signal(Signal::HUP);
            let line = served.logged("what was read before stays in use");
            assert!(line.contains("cert.pem: holds no certificate"), "{line}");
            let said = python(&served, "echo", &["name=example.org"]);
            assert_eq!(said, "echo, TLSv1.3", "{model:?}");
        }
        let log = end(served);
        assert!(!log.contains("ignored"), "{log}");
    }
}

#[test]
fn a_key_that_everybody_can_read_is_warned_of() {
    let directory = Directory::new();
    install(&directory, "localhost");
    let key = directory.path("key.pem");
    for (mode, is_warned) in [(0o600, false), (0o640, false), (0o644, true)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("our file");
        let log = end(serve(&["echo"], &installed(&directory), &[]));
        let said = format!("key {}: every user can read it", key.display());
        assert_eq!(log.contains(&said), is_warned, "{mode:o} {log}");
    }
}

#[test]
fn options_that_make_no_sense_are_usage_errors() {
    let pair = pair("localhost");
    for (uri, said) in [
        (at(""), "tls needs cert and key"),
        ("tls://127.0.0.1:0".to_owned(), "tls needs cert and key"),
        (at("backlog=5"), "tls needs cert and key"),
        (at("cert=/a.pem"), "cert needs key"),
        (at("key=/a.pem"), "key needs cert"),
        (at(&format!("{pair}&cert=/a.pem")), "each cert has its key"),
        (at(&format!("{pair}&key=/a.pem")), "each cert has its key"),
        (at("cert=&key=/a.pem"), "cert is empty"),
        (at("cert&key=/a.pem"), "expected OPTION=VALUE"),
        (at("cert=%&key=/a.pem"), "a percent sign is written %25"),
        (
            at(&format!("{pair}&client-auth=required")),
            "needs client-ca",
        ),
        (
            at(&format!("{pair}&client-ca=/a&client-auth=yes")),
            "expected optional or required, not \"yes\"",
        ),
        (
            at(&format!("{pair}&client-ca=/a&client-ca=/b")),
            "client-ca is given twice",
        ),
        (at(&format!("{pair}&alpn=a&alpn=b")), "alpn is given twice"),
        (
            at(&format!("{pair}&alpn=a,,b")),
            "a name has 1 to 255 bytes",
        ),
        (at(&format!("{pair}&alpm=a")), "the nearest is alpn"),
        (
            at(&format!("{pair}&client_ca=a")),
            "the nearest is client-ca",
        ),
        (at(&format!("{pair}&mode=0600")), "mode is for unix"),
        (format!("tls://127.0.0.1?{pair}"), "HOST:PORT"),
        (format!("tcp://127.0.0.1:0?{pair}"), "cert is for tls://"),
        (format!("udp://127.0.0.1:0?{pair}"), "cert is for tls://"),
        (format!("unix:///tmp/x?{pair}"), "cert is for tls://"),
        ("tcp://127.0.0.1:0?alpn=a".to_owned(), "alpn is for tls://"),
        (
            "ssl://127.0.0.1:0".to_owned(),
            "expected tcp, tls, udp, unix, unixgram or vsock",
        ),
    ] {
        let outcome = Outcome::new(&["serve", "echo", "--listen", &uri]);
        assert_eq!(outcome.code, Some(2), "{uri}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
        assert!(outcome.stderr.contains(said), "{uri}: {}", outcome.stderr);
        let place = uri.split('?').next().unwrap_or_default();
        assert!(outcome.stderr.contains(place), "{}", outcome.stderr);
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let directory = Directory::new();
    let path = |name: &str| directory.path(name).display().to_string();
    fs::write(path("empty"), "").expect("a directory");
    fs::write(path("nonsense"), "nonsense").expect("a directory");
    let (good, key) = (file("localhost.pem"), file("localhost.key"));
    let pair = pair("localhost");

    let query = |certificate: &str, key: &str| format!("cert={certificate}&key={key}");
    let gone = path("gone");
    let (other, to_clients) = (file("example.key"), format!("{pair}&client-ca="));
    for (query, named, said) in [
        (query(&gone, &key), &gone, "No such file"),
        (query(&good, &gone), &gone, "No such file"),
        (query(&path(""), &key), &path(""), "directory"),
        (query(&path("empty"), &key), &path("empty"), "it is empty"),
        (
            query(&path("nonsense"), &key),
            &path("nonsense"),
            "not in PEM",
        ),
        (query(&key, &key), &key, "no certificate, but a private key"),
        (
            query(&good, &good),
            &good,
            "no private key, but a certificate",
        ),
        (
            query(&good, &other),
            &other,
            "does not match the certificate",
        ),
        (
            format!("{pair}&{}", query(&good, &gone)),
            &gone,
            "No such file",
        ),
        (format!("{to_clients}{gone}"), &gone, "No such file"),
        (format!("{to_clients}{key}"), &key, "holds no certificate"),
    ] {
        let outcome = Outcome::new(&["--quiet", "serve", "echo", "--listen", &at(&query)]);
        assert_eq!(outcome.code, Some(1), "{query}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert!(
            outcome.stderr.starts_with("serveloop: "),
            "{}",
            outcome.stderr
        );
        assert!(outcome.stderr.contains(named), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(said), "{query}: {}", outcome.stderr);
    }
}
