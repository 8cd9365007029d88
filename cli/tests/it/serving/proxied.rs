//! Servers behind load balancers, real ones too: who their clients are, and whom they believe.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serveloop::Address;
use serveloop::layer::proxy::Header;
use socket2::{Domain, Socket, Type};

use crate::support::outside::{require, require_file};
use crate::support::running::run;
use crate::support::served::{MODELS, Outcome, PATIENCE, Served};
use crate::support::sockets::{Directory, Stream, socket_addr};

const LOCAL: &str = "tcp://127.0.0.1:0";
const REQUIRED: [&str; 4] = ["--proxy", "required", "--trust", "127.0.0.0/8"];

const LINE: &str = "PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n";

fn binary(client: &str) -> Vec<u8> {
    let client: Address = format!("tcp://{client}").parse().expect("an address");
    let server: Address = "tcp://198.51.100.1:443".parse().expect("an address");
    let mut bytes = Vec::new();
    let header = Header::proxied(client, server).expect("one family");
    header.encode_v2(&mut bytes);
    bytes
}

#[track_caller]
fn serve(protocol: &[&str], options: &[&[&str]]) -> Served {
    Served::new(&[protocol, &options.concat()].concat())
}

#[track_caller]
fn end(served: Served) -> Vec<String> {
    served.signal(Signal::TERM);
    served.status_and_log()
}

/// Whether the connection has ended, however.
fn is_cut(stream: &mut Stream) -> bool {
    let Stream::Tcp(stream) = stream else {
        panic!("another kind")
    };
    !matches!(stream.read(&mut [0]), Ok(1))
}

/// What is refused, as it is typed after `serve echo`, and a part of the message.
const NONSENSE: [(&str, &str); 26] = [
    ("--proxy required", "--proxy needs --trust"),
    ("--proxy optional", "--proxy needs --trust"),
    ("--trust 10.0.0.0/8", "--trust needs --proxy"),
    ("--proxy off --trust unix", "--proxy"),
    ("--proxy required --trust 10.0.0.0/33", "from 0 to 32"),
    ("--proxy required --trust=", "--trust"),
    ("--proxy required --trust unix,", "an empty entry"),
    (
        "--proxy required --trust balancer",
        "expected an IP address",
    ),
    (
        "--listen udp://127.0.0.1:0 --proxy required --trust unix",
        "--proxy is for tcp, unix and vsock",
    ),
    (
        "--listen unixgram:///tmp/x --proxy optional --trust unix",
        "proxy=off",
    ),
    (
        "--listen tcp://127.0.0.1:0?proxy=off --trust unix",
        "--trust needs --proxy",
    ),
    (
        "--listen tcp://127.0.0.1:0?proxy=required",
        "proxy needs trust",
    ),
    (
        "--listen tcp://127.0.0.1:0?trust=unix",
        "trust needs proxy=",
    ),
    (
        "--listen tcp://127.0.0.1:0?proxy=off&trust=unix",
        "trust needs proxy=",
    ),
    (
        "--listen tcp://127.0.0.1:0?proxy=on&trust=unix",
        "required, optional or off",
    ),
    (
        "--listen tcp://127.0.0.1:0?proxy=required&trust=10.0.0.0/33",
        "from 0 to 32",
    ),
    (
        "--listen tcp://127.0.0.1:0?proxy=required&trust=",
        "an empty entry",
    ),
    (
        "--listen tcp://127.0.0.1:0?proxy&trust=unix",
        "expected OPTION=VALUE",
    ),
    (
        "--listen tcp://127.0.0.1:0?prox=required",
        "the nearest is proxy",
    ),
    (
        "--listen tcp://127.0.0.1:0?thrust=unix",
        "the nearest is trust",
    ),
    (
        "--listen tcp://127.0.0.1:0?baklog=5&proxy=off",
        "the nearest is backlog",
    ),
    (
        "--listen tcp://127.0.0.1:0?proxy=off&proxy=off",
        "proxy is given twice",
    ),
    (
        "--listen udp://127.0.0.1:0?proxy=required&trust=unix",
        "for tcp, unix and vsock",
    ),
    (
        "--listen unixgram:///tmp/x?proxy=optional&trust=unix",
        "for tcp, unix and vsock",
    ),
    ("--listen unix:///tmp/x?proxy=required", "proxy needs trust"),
    (
        "--listen tcp://127.0.0.1:0?trusted-proxies=10.0.0.0/8",
        "trusted-proxies is given as proxy and trust",
    ),
];

#[test]
fn options_that_make_no_sense_are_usage_errors() {
    for (options, said) in NONSENSE {
        let options: Vec<_> = options.split(' ').collect();
        let outcome = Outcome::new(&[&["serve", "echo"], &options[..]].concat());
        assert_eq!(outcome.code, Some(2), "{options:?} {}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
        assert!(
            outcome.stderr.contains(said),
            "{options:?}: {}",
            outcome.stderr
        );
        if let ["--listen", uri] = options[..] {
            assert!(outcome.stderr.contains(uri), "{}", outcome.stderr);
        }
    }
}

#[test]
fn headers_in_pieces_name_the_client_in_every_model() {
    for model in MODELS {
        let served = serve(&["echo", "--listen", LOCAL], &[&REQUIRED, model]);
        for (header, name) in [
            (LINE.as_bytes(), "tcp://192.0.2.1:4711"),
            (&binary("192.0.2.2:4712"), "tcp://192.0.2.2:4712"),
        ] {
            let mut client = served.connect();
            let proxy = client.name();
            for byte in header {
                client.send_bytes(&[*byte]);
            }
            client.send("hello");
            client.expect("hello");
            let line = served.logged(&format!("named by {proxy}"));
            assert!(line.contains(name), "{model:?}: {line}");
        }
        end(served);
    }
}

/// Every protocol, with what a client sends and what it gets.
#[test]
fn every_protocol_runs_behind_a_proxy() {
    for (protocol, sent, expected) in [
        (&["echo"][..], "hi", "hi"),
        (
            &["hello", "--delay", "0", "--framing", "line"],
            "bob\n",
            "Welcome!\nHello,bob\n",
        ),
        (&["greet"], "", "connected"),
        (&["timestamp", "--framing", "line"], "hi\n", "["),
        (&["resp"], "incr a\r\n", ":1\r\n"),
        (
            &["websocket"],
            "GET / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 400 Bad Request",
        ),
        (
            &["dispatch"],
            "{\"action\":\"sum\",\"numbers\":[1,2]}\n",
            "{\"ok\":true,\"result\":3}",
        ),
        (&["memcached"], "set a 0 0 1\r\nx\r\n", "STORED\r\n"),
        (
            &["http"],
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
        ),
        (
            &["command", "--allow", "echo"],
            "\0\0\0\x07echo hi",
            "\0\0\0\x03hi\n",
        ),
    ] {
        let served = serve(protocol, &[&["--listen", LOCAL], &REQUIRED]);
        let mut client = served.connect();
        client.send(&format!("{LINE}{sent}"));
        client.expect(expected);
        drop(client);
        end(served);
    }

    let served = serve(&["print"], &[&["--listen", LOCAL], &REQUIRED]);
    let mut client = served.connect();
    client.send(&format!("{LINE}printed\n"));
    assert_eq!(served.printed(), "printed");
    drop(client);
    end(served);

    let served = serve(&["operator"], &[&["--listen", LOCAL], &REQUIRED]);
    let mut client = served.connect();
    client.send(&format!("{LINE}anybody?"));
    assert!(served.printed().contains("192.0.2.1:4711: anybody?"));
    drop(client);
    served.signal(Signal::TERM);
    served.status();
}

#[test]
fn listeners_have_doors_of_their_own() {
    let directory = Directory::new();
    let socket = format!(
        "{}?proxy=required&trust=unix",
        directory.uri("unix", "socket")
    );
    for model in MODELS {
        let served = serve(
            &["echo"],
            &[
                &["--listen", LOCAL],
                &[
                    "--listen",
                    "tcp://127.0.0.1:0?proxy=optional&trust=192.0.2.0/24",
                ],
                &["--listen", "tcp://127.0.0.1:0?backlog=50&proxy=off"],
                &["--listen", "udp://127.0.0.1:0?proxy=off"],
                &["--listen", &socket],
                &REQUIRED,
                model,
            ],
        );
        let talk = |number: usize, sent: &str, expected: &str| {
            let mut client = Stream::connect(served.uri(number));
            client.send(sent);
            client.expect(expected);
        };
        talk(0, &format!("{LINE}one"), "one");
        talk(1, "two", "two");
        talk(2, LINE, LINE);
        talk(4, &format!("{LINE}four"), "four");

        let mut forger = Stream::connect(served.uri(1));
        forger.send(LINE);
        assert!(is_cut(&mut forger), "{model:?}");
        let mut bare = Stream::connect(served.uri(4));
        bare.send("no header, and long enough to be none");
        bare.expect_end();
        talk(1, "two", "two");
        end(served);
    }
}

/// Of several addresses of a name each has the door of its listener.
#[test]
fn a_name_has_one_door() {
    let (first, second) = ("tcp://localhost:0?proxy=off", "tcp://localhost:0");
    let mut command = crate::support::served::serveloop(&["serve", "echo"]);
    command.args(["--listen", first, "--listen", second]);
    command.args(["--proxy", "required", "--trust", "127.0.0.0/8,::1"]);
    let served = Served::spawn_unheard(command);
    let uris: Vec<String> = (0..2)
        .map(|_| served.printed().replace("listening on ", ""))
        .collect();
    let mut client = Stream::connect(&uris[0]);
    client.send(LINE);
    client.expect(LINE);
    served.signal(Signal::TERM);
    served.status();
}

#[test]
fn a_server_that_speaks_first_does_not_wait_for_direct_clients() {
    for model in MODELS {
        let options = ["--proxy", "optional", "--trust", "192.0.2.0/24"];
        let served = serve(&["greet", "--listen", LOCAL], &[&options, model]);
        served.connect().expect("connected");
        end(served);
    }
}

#[test]
fn who_is_not_believed_loses_one_connection() {
    for model in MODELS {
        let options = ["--proxy", "required", "--trust", "192.0.2.0/24"];
        let served = serve(&["echo", "--listen", LOCAL], &[&options, model]);
        let mut stranger = served.connect();
        let name = stranger.name();
        stranger.send_if_wanted(LINE);
        assert!(is_cut(&mut stranger), "{model:?}");
        served.logged(&format!("{name}: refused: not one of the proxies"));
        end(served);

        let options = ["--proxy", "optional", "--trust", "192.0.2.0/24"];
        let served = serve(&["echo", "--listen", LOCAL], &[&options, model]);
        let mut other = (model != MODELS[2]).then(|| served.connect());
        let mut forger = served.connect();
        forger.send(LINE);
        assert!(is_cut(&mut forger), "{model:?}");
        served.logged("is no trusted proxy and sent a PROXY header");
        if let Some(other) = &mut other {
            other.send("hello");
            other.expect("hello");
        }
        drop(other);
        end(served);

        // A trusted proxy that makes mistakes.
        let served = serve(&["echo", "--listen", LOCAL], &[&REQUIRED, model]);
        for wrong in [
            "hello, whoever is there",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        ] {
            let mut broken = served.connect();
            broken.send(wrong);
            assert!(is_cut(&mut broken), "{model:?} {wrong}");
        }
        let mut client = served.connect();
        client.send(&format!("{LINE}hello"));
        client.expect("hello");
        drop(client);
        end(served);
    }
}

#[test]
fn a_slow_header_has_the_time_of_a_first_message() {
    for model in MODELS {
        let patience = ["--first-message-timeout", "300ms", "-v"];
        let served = serve(&["echo", "--listen", LOCAL], &[&REQUIRED, &patience, model]);
        for begin in ["", &LINE[..20], LINE] {
            let begun = Instant::now();
            let mut slow = served.connect();
            slow.send(begin);
            assert!(is_cut(&mut slow), "{model:?}");
            assert!(begun.elapsed() >= Duration::from_millis(250), "{model:?}");
            let line = served.logged("first message");
            assert_eq!(
                line.contains("192.0.2.1:4711"),
                begin == LINE,
                "{model:?} {line}"
            );
        }
        end(served);
    }
}

#[test]
fn limits_count_the_clients() {
    let options = ["--max-per-peer", "2", "--limit-loopback", "true"];
    for model in [MODELS[0], MODELS[3], MODELS[4]] {
        let served = serve(&["echo", "--listen", LOCAL], &[&REQUIRED, &options, model]);
        let client = |number: usize| {
            let mut stream = served.connect();
            stream.send_bytes(&binary(&format!("192.0.2.{number}:1")));
            stream
        };

        let mut clients: Vec<_> = [1, 1, 2, 2, 3].map(client).into();
        assert!(clients.iter_mut().all(Stream::echoes), "{model:?}");
        assert!(!client(1).echoes(), "{model:?}");
        assert!(!client(2).echoes(), "{model:?}");
        assert!(client(3).echoes(), "{model:?}");
        drop(clients);
        let log = end(served).join("\n");
        assert!(log.contains("closed_refused 2"), "{log}");
        // As of a client without a proxy, a warning tells why.
        let why = "tcp://192.0.2.1:1: refused: 2 connections from this peer are open";
        assert!(log.contains(why), "{log}");
    }
}

/// On loopback, proxies and other clients have the same address.
#[test]
fn the_proxies_of_one_listener_are_clients_at_another() {
    let options = ["--max-per-peer", "1", "--limit-loopback", "true"];
    let behind = "tcp://127.0.0.1:0?proxy=required&trust=127.0.0.1";
    for model in [MODELS[0], MODELS[3], MODELS[4]] {
        let listens = ["--listen", behind, "--listen", LOCAL];
        let served = serve(&["echo"], &[&listens, &options, model]);
        let mut proxies: Vec<_> = (1..5)
            .map(|number| {
                let mut stream = served.connect();
                stream.send_bytes(&binary(&format!("192.0.2.{number}:1")));
                stream
            })
            .collect();
        assert!(proxies.iter_mut().all(Stream::echoes), "{model:?}");

        let mut direct = Stream::connect(served.uri(1));
        assert!(direct.echoes(), "{model:?}");
        assert!(!Stream::connect(served.uri(1)).echoes(), "{model:?}");
        drop((proxies, direct));
        let log = end(served).join("\n");
        assert!(log.contains("refused_max_per_peer 1"), "{log}");
    }
}

/// What listens to other machines names the option, unless it is set.
#[test]
fn the_warning_names_the_option() {
    for (options, is_warned) in [(&[][..], true), (&REQUIRED, false)] {
        let served = serve(&["echo", "--listen", "tcp://0.0.0.0:0"], &[options]);
        let log = end(served).join("\n");
        assert_eq!(
            log.contains("--max-per-peer allows more"),
            is_warned,
            "{log}"
        );
        assert_eq!(log.contains("--proxy"), is_warned, "{log}");
    }
}

#[test]
fn connect_sends_a_header() {
    let directory = Directory::new();
    let trust = ["--proxy", "required", "--trust", "127.0.0.1,unix"];
    let unix = directory.uri("unix", "socket");
    let served = serve(&["echo", "--listen", LOCAL, "--listen", &unix], &[&trust]);
    for (option, name) in [
        ("v1", "tcp://127.0.0.1:"),
        ("v2", "tcp://127.0.0.1:"),
        ("v1,192.0.2.1:4711", "tcp://192.0.2.1:4711"),
        ("v2,192.0.2.1", "tcp://192.0.2.1:0"),
        ("v2,2001:db8::1", "tcp://[2001:db8::1]:0"),
        ("v1,[2001:db8::1]:5", "tcp://[2001:db8::1]:5"),
    ] {
        let said = run(
            &["connect", served.uri(0), "--proxy-header", option],
            "hello\n",
        );
        assert_eq!(said.well(), "hello\n", "{option}");
        assert!(served.logged("named by").contains(name), "{option}");
    }
    for (number, option) in [
        (0, "v1,local"),
        (0, "v2,local"),
        (1, "v1"),
        (1, "v2"),
        (1, "v2,::1"),
    ] {
        let said = run(
            &["connect", served.uri(number), "--proxy-header", option],
            "hello\n",
        );
        assert_eq!(said.well(), "hello\n", "{option}");
    }

    run(&["connect", served.uri(0)], "hello, whoever is there\n")
        .code
        .expect("an end");
    let dispatch = serve(&["hello", "--delay", "0", "--listen", LOCAL], &[&trust]);
    let arguments = [
        "connect",
        dispatch.uri(0),
        "--protocol",
        "hello",
        "--proxy-header",
        "v2",
    ];
    assert_eq!(
        run(&arguments, "bob\nexit\n").well(),
        "Welcome!\nHello,bob\n"
    );
    end(dispatch);
    end(served);

    for (uri, option, said) in [
        (LOCAL, "v3", "expected v1 or v2"),
        (LOCAL, "v1,example.com", "expected local, an IP address"),
        ("udp://127.0.0.1:9", "v1", "--proxy-header is for streams"),
    ] {
        let outcome = Outcome::new(&["connect", uri, "--proxy-header", option]);
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
    }
}

/// A load balancer in front of a server. Ended when this is dropped.
pub(crate) struct Balancer {
    child: Child,
    address: SocketAddr,
    _directory: Directory,
}

impl Balancer {
    /// Starts HAProxy, whose backend has these options besides the address.
    pub(crate) fn haproxy(server: SocketAddr, options: &str) -> Self {
        Self::haproxy_at("fd@0", server, options)
    }

    pub(crate) fn uri(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// The same, with options of the place where it listens after that.
    pub(super) fn haproxy_at(place: &str, server: SocketAddr, options: &str) -> Self {
        let directory = Directory::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("a socket");
        let config = directory.path("haproxy.cfg");
        let text = format!(
            "defaults\n mode tcp\n timeout client 20s\n timeout connect 20s\n timeout server 20s\n\
             listen all\n bind {place}\n option tcp-check\n tcp-check send-lf ping\n \
             tcp-check expect string ping\n server one {server} {options}\n"
        );
        fs::write(&config, text).expect("a directory");
        let child = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&config)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("haproxy");
        Self {
            child,
            address,
            _directory: directory,
        }
    }

    /// Starts nginx with its module for streams.
    fn nginx(module: &Path, server: SocketAddr) -> Self {
        let directory = Directory::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("a socket");
        drop(listener);
        let config = directory.path("nginx.conf");
        let text = format!(
            "load_module {};\ndaemon off;\nmaster_process off;\npid {};\nerror_log {};\nevents {{}}\n\
             stream {{ server {{ listen {address}; proxy_pass {server}; proxy_protocol on; }} }}\n",
            module.display(),
            directory.path("pid").display(),
            directory.path("log").display(),
        );
        fs::write(&config, text).expect("a directory");
        let child = Command::new("nginx")
            .arg("-e")
            .arg(directory.path("log"))
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx");
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < PATIENCE, "no nginx");
            thread::sleep(Duration::from_millis(5));
        }
        Self {
            child,
            address,
            _directory: directory,
        }
    }

    /// Connects from the address `127.0.0.NUMBER`.
    #[track_caller]
    pub(super) fn connect(&self, number: u8) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let from = SocketAddr::from(([127, 0, 0, number], 0));
        socket.bind(&from.into()).expect("a free port");
        socket.connect(&self.address.into()).expect("a listener");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
pub(super) fn exchange(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("a connection");
    let mut found = vec![0; text.len()];
    stream.read_exact(&mut found).expect("an echo");
    assert_eq!(String::from_utf8_lossy(&found), text);
}

pub(super) fn echoes(stream: &mut TcpStream) -> bool {
    let _ = stream.write_all(b"?");
    stream.read_exact(&mut [0]).is_ok()
}

#[test]
fn haproxy_names_its_clients_in_every_model() {
    if !require("haproxy") {
        return;
    }
    for model in MODELS {
        for option in ["send-proxy", "send-proxy-v2"] {
            let served = serve(&["echo", "--listen", LOCAL], &[&REQUIRED, model]);
            let balancer = Balancer::haproxy(socket_addr(served.uri(0)), option);
            for number in [7, 8] {
                let mut client = balancer.connect(number);
                exchange(&mut client, &"hello".repeat(10_000));
                let name = format!("tcp://{}", client.local_addr().unwrap());
                let line = served.logged("named by tcp://127.0.0.1:");
                assert!(line.contains(&name), "{model:?} {option}: {line}");
            }
            drop(balancer);
            end(served);
        }
    }
}

/// The check sends a header of nobody and a message, and waits for the echo. Without it, the server
/// would count as down.
#[test]
fn haproxy_finds_the_server_healthy() {
    if !require("haproxy") {
        return;
    }
    for (option, model) in [
        ("send-proxy", MODELS[0]),
        ("send-proxy-v2", MODELS[0]),
        ("send-proxy-v2", MODELS[3]),
        ("send-proxy-v2", MODELS[4]),
    ] {
        let served = serve(&["echo", "--listen", LOCAL], &[&REQUIRED, model]);
        let option = format!("{option} check-send-proxy check inter 50ms rise 1 fall 3");
        let balancer = Balancer::haproxy(socket_addr(served.uri(0)), &option);
        for _ in 0..5 {
            served.logged("accepted");
        }
        exchange(&mut balancer.connect(9), "hello");
        drop(balancer);
        let log = end(served).join("\n");
        assert!(!log.contains("WARN"), "{log}");
    }
}

#[test]
fn limits_count_the_clients_of_haproxy() {
    if !require("haproxy") {
        return;
    }
    let options = ["--max-per-peer", "2", "--limit-loopback", "true"];
    let served = serve(&["echo", "--listen", LOCAL], &[&REQUIRED, &options]);
    let balancer = Balancer::haproxy(socket_addr(served.uri(0)), "send-proxy-v2");
    let mut clients: Vec<_> = [2, 2, 3, 3, 4]
        .map(|number| balancer.connect(number))
        .into();
    assert!(clients.iter_mut().all(echoes));
    assert!(!echoes(&mut balancer.connect(2)));
    assert!(echoes(&mut balancer.connect(4)));
    drop((clients, balancer));
    end(served);
}

#[test]
fn nginx_names_its_clients_in_every_model() {
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    if !require("nginx") || !require_file(module) {
        return;
    }
    for model in MODELS {
        let served = serve(&["echo", "--listen", LOCAL], &[&REQUIRED, model]);
        let balancer = Balancer::nginx(Path::new(module), socket_addr(served.uri(0)));
        let mut client = balancer.connect(7);
        exchange(&mut client, "hello");
        let name = format!("{}", client.local_addr().unwrap());
        served.logged(&format!("tcp://{name}: named by tcp://127.0.0.1:"));
        drop((client, balancer));
        end(served);
    }
}
