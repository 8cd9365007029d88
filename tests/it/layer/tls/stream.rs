//! Bytes through a pair of TLS sessions, in pieces of all sizes, with backpressure, to their ends.

use serveloop::driver::Session;
use serveloop::layer::Layered;
use serveloop::layer::tls::{ServerTls, Tls, TlsInfo, TlsVersion, rustls};
use serveloop::protocols::Echo;
use serveloop::{Config, Limits, Peer, Protocol, Result, Transport};

use crate::layer::tls::certificates;
use crate::layer::tls::foreign::Foreign;
use crate::layer::tls::pair::{Pair, Setup};
use crate::support::probe::{Log, Probe};
use crate::support::{noise, timeless};

const VERSIONS: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];

/// A client that sends `text` when the handshake is done.
fn sender(log: &Log, text: &'static [u8]) -> Probe {
    Probe::new(log).made(move |transport| {
        transport.write(text);
        Ok(())
    })
}

#[test]
fn an_echo_comes_back_in_pieces_of_all_sizes() {
    for version in VERSIONS {
        for cut in [1, 2, 5, 6, 97, usize::MAX] {
            let setup = Setup {
                client: certificates::client_of(version),
                cut,
                ..Setup::default()
            };
            let log = Log::default();
            let noted = log.clone();
            let mut pair = setup.pair(
                move |_, _| Some(sender(&noted, b"hello")),
                |_, _| Some(Echo),
            );
            pair.talk();
            assert_eq!(log.entries(), ["made", "data hello"], "{version}, {cut}");
            assert_eq!(pair.reasons(), ["open", "open"]);
            assert_eq!(
                pair.client.held() + pair.server.held(),
                0,
                "{version}, {cut}"
            );
        }
    }
}

/// Sends `count` bytes as fast as they are taken, and ends its side.
struct Source {
    left: Vec<u8>,
    log: Log,
}

impl Source {
    fn pump(&mut self, transport: &mut Transport<'_>) {
        let taken = transport.write_some(&self.left);
        self.left.drain(..taken);
        if self.left.is_empty() {
            transport.finish();
        }
    }
}

impl Protocol for Source {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        self.pump(transport);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        self.log.push(data.escape_ascii().to_string());
        Ok(data.len())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.pump(transport);
    }
}

/// What waits for a slow reader is encrypted once, and in its order.
#[test]
fn megabytes_go_both_ways_past_slow_readers() {
    for version in VERSIONS {
        for slow in [1_000, 100_000] {
            let setup = Setup {
                client: certificates::client_of(version),
                ..Setup::default()
            };
            let log = Log::default();
            let noted = log.clone();
            let sent = noise(4 << 20);
            let left = sent.clone();
            let mut pair = setup.pair(
                move |_, _| {
                    let (left, log) = (left.clone(), noted.clone());
                    Some(Source { left, log })
                },
                |_, _| Some(Echo),
            );
            pair.slow = Some(slow);
            pair.talk();

            let got = log.entries().concat();
            assert!(got == sent.escape_ascii().to_string(), "{version}, {slow}");
            assert_eq!(pair.reasons(), ["closed by the peer", "closed by the peer"]);
            let once = sent.len() + sent.len() / 50;
            for (way, bytes) in pair.wire.iter().enumerate() {
                assert!(
                    (sent.len()..once).contains(&bytes.len()),
                    "{way}: {}",
                    bytes.len()
                );
            }
        }
    }
}

/// The polite writer keeps below the high mark, and cannot know what the layer adds.
#[test]
fn what_encryption_adds_is_not_too_much_output() {
    for version in VERSIONS {
        let config = Config {
            limits: Limits {
                low_water: 4_000,
                high_water: 20_000,
                max_output: 20_000,
                ..timeless().limits
            },
            ..timeless()
        };
        let setup = Setup {
            client: certificates::client_of(version),
            config,
            ..Setup::default()
        };
        let log = Log::default();
        let noted = log.clone();
        let sent = noise(300_000);
        let left = sent.clone();
        let mut pair = setup.pair(
            move |_, _| Some(Probe::new(&noted).eof(|_, _| Ok(()))),
            move |_, _| {
                let (left, log) = (left.clone(), Log::default());
                Some(Source { left, log })
            },
        );
        pair.slow = Some(3_000);
        pair.talk();
        assert_eq!(log.entries().last().unwrap(), "eof ", "{version}");
        let [client, server] = pair.reasons();
        assert_eq!([&*client, &*server], ["open", "open"], "{version}");
        assert!(pair.wire[1].len() > sent.len(), "{version}");
    }
}

#[test]
fn either_side_may_end_first_and_go_on_reading() {
    for version in VERSIONS {
        let setup = Setup {
            client: certificates::client_of(version),
            cut: 3,
            ..Setup::default()
        };
        let (client, server) = (Log::default(), Log::default());
        let (of_client, of_server) = (client.clone(), server.clone());
        let mut pair = setup.pair(
            move |_, _| {
                let ask = |transport: &mut Transport<'_>| {
                    transport.write(b"question");
                    transport.finish();
                    Ok(())
                };
                Some(Probe::new(&of_client).made(ask))
            },
            move |_, _| {
                let answer = |_: &[u8], transport: &mut Transport<'_>| {
                    transport.write(b"answer");
                    transport.close();
                    Ok(())
                };
                Some(Probe::new(&of_server).eof(answer))
            },
        );
        pair.talk();
        assert_eq!(
            server.entries(),
            ["made", "data question", "eof ", "lost closed by the peer"]
        );
        assert_eq!(
            client.entries(),
            ["made", "data answer", "eof ", "lost closed by the peer"]
        );
    }
}

/// An end of the wire is the end of the stream only behind `close_notify`.
#[test]
fn a_stream_that_is_cut_off_has_no_end() {
    for version in VERSIONS {
        for rest in [0, 1, 4, 5, 20] {
            let setup = Setup {
                client: certificates::client_of(version),
                ..Setup::default()
            };
            let (mut pair, _, server) = setup.logged();
            pair.talk();
            // Whole records, and the beginning of one.
            pair.server.receive(
                &[
                    23, 3, 3, 0, 100, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5,
                ][..rest],
            );
            pair.server.receive_eof();
            let reason = "ended by the peer without the end mark of its layer";
            assert_eq!(server.entries(), ["made", &format!("lost {reason}")]);
            assert_eq!(pair.reasons()[1], reason);
        }
    }
}

#[test]
fn an_end_within_the_handshake_is_no_orderly_one() {
    let setup = Setup::default();
    let (mut pair, _, server) = setup.logged();
    let hello = pair.client.sent();
    for (bytes, reason) in [
        (&hello[..0], "closed by the peer"),
        (
            &hello[..1],
            "ended by the peer without the end mark of its layer",
        ),
        (
            &hello[..hello.len() - 1],
            "ended by the peer without the end mark of its layer",
        ),
        (
            &hello[..],
            "ended by the peer without the end mark of its layer",
        ),
    ] {
        let (mut pair, ..) = setup.logged();
        pair.server.receive(bytes);
        pair.server.receive_eof();
        assert_eq!(pair.reasons()[1], reason, "{} bytes", bytes.len());
    }
    assert_eq!(server.entries(), [""; 0]);
}

/// What comes after `close_notify` is nobody's.
#[test]
fn bytes_behind_the_end_are_dropped() {
    let setup = Setup::default();
    let server = Log::default();
    let noted = server.clone();
    let mut pair = setup.pair(
        |_, _| {
            let finish = |transport: &mut Transport<'_>| {
                transport.finish();
                Ok(())
            };
            Some(Probe::new(&Log::default()).made(finish))
        },
        move |_, _| Some(Probe::new(&noted).eof(|_, _| Ok(()))),
    );
    pair.talk();
    pair.server.receive(b"GET / HTTP/1.1\r\n\r\n");
    pair.server.receive(&[0; 100_000]);
    assert_eq!(server.entries(), ["made", "eof "]);
    assert_eq!(pair.server.held(), 0);
}

#[test]
fn keys_change_whoever_asks_for_it() {
    let tls = certificates::server("localhost").build().unwrap();
    let mut foreign = Foreign::new(&tls, &rustls::version::TLS13, |_| {}, || Echo);
    for round in 0..5 {
        foreign.talk();
        // Ours asks the other side for new keys too, which come before our next bytes.
        foreign.client.refresh_traffic_keys().unwrap();
        let text = format!("round {round}");
        foreign.write(text.as_bytes());
        assert_eq!(foreign.talk(), None);
        assert_eq!(foreign.read(), (text.into_bytes(), false));
    }
    assert!(foreign.server.reason().is_none());
    assert_eq!(foreign.server.held(), 0);
}

/// A peer may cut its messages into records of any length.
#[test]
fn records_may_be_short() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let tls = certificates::server("localhost").build().unwrap();
        let short = |config: &mut rustls::ClientConfig| config.max_fragment_size = Some(32);
        let mut foreign = Foreign::new(&tls, version, short, || Echo);
        assert_eq!(foreign.talk(), None);
        assert!(!foreign.client.is_handshaking());

        let text = noise(10_000);
        foreign.write(&text);
        assert_eq!(foreign.talk(), None);
        assert_eq!(foreign.read(), (text, false));
        assert_eq!(foreign.server.held(), 0);
    }
}

/// The same from a server, whose certificate and tickets come in pieces then.
#[test]
fn handshake_messages_in_pieces_are_put_together() {
    for version in VERSIONS {
        let provider = rustls::crypto::ring::default_provider();
        let mut config = rustls::ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates::chain("chained"), certificates::key("chained"))
            .unwrap();
        config.max_fragment_size = Some(32);

        let setup = Setup {
            server: ServerTls::from_rustls(config.into()).unwrap(),
            client: certificates::client_of(version),
            ..Setup::default()
        };
        let log = Log::default();
        let noted = log.clone();
        let mut pair = setup.pair(
            move |_, _| {
                Some(sender(
                    &noted,
                    b"a message longer than a record may be here",
                ))
            },
            |_, _| Some(Echo),
        );
        pair.talk();
        let got: String = log.entries()[1..].iter().map(|entry| &entry[5..]).collect();
        assert_eq!(
            got, "a message longer than a record may be here",
            "{version}"
        );
        assert_eq!(pair.client.held() + pair.server.held(), 0);
        assert!(setup.server.reload().is_err());
    }
}

/// rustls's state is not in the connection's slot but on the heap, and an idle connection has no
/// buffer besides.
#[test]
fn a_connections_slot_stays_small() {
    type Inside = fn(&Peer, &TlsInfo) -> Option<Echo>;
    let [plain, secured] = [
        size_of::<Session<Echo>>(),
        size_of::<Session<Layered<Tls, Inside, Echo>>>(),
    ];
    println!("{plain} bytes without TLS, {secured} with it");
    assert_eq!(size_of::<Tls>(), size_of::<usize>());
    assert!(
        secured <= 2 * plain + 32,
        "{secured} bytes, {plain} without"
    );
}

/// Every way to end but an abort says so to the peer, which then knows that nothing is missing.
#[test]
fn ends_of_all_kinds_are_told_on_the_wire() {
    type Ending = fn(&mut Pair<Probe, Probe>);
    let shutdown: Ending = |pair| pair.server.shutdown();
    let nothing: Ending = |_| {};
    let truncated = "lost ended by the peer without the end mark of its layer";
    let orderly = "lost closed by the peer";
    for (said, ending, server, client) in [
        (&b"close"[..], nothing, "closed", orderly),
        (
            b"error",
            nothing,
            "protocol error: malformed: on purpose",
            orderly,
        ),
        (
            b"shutdown",
            shutdown,
            "closed by the server's shutdown",
            orderly,
        ),
        (b"abort", nothing, "aborted", truncated),
    ] {
        let log = Log::default();
        let noted = log.clone();
        let mut pair = Setup::default().pair(
            move |_, _| Some(sender(&noted, said)),
            |_, _| {
                Some(Probe::new(&Log::default()).data(|data, transport| {
                    transport.write(b"bye");
                    match data {
                        b"close" => transport.close(),
                        b"abort" => transport.abort(),
                        b"error" => Err("on purpose")?,
                        _ => {}
                    }
                    Ok(data.len())
                }))
            },
        );
        pair.talk();
        ending(&mut pair);
        pair.talk();

        assert_eq!(pair.reasons()[1], server);
        let entries = log.entries();
        assert_eq!(entries.last().unwrap(), client, "{server}: {entries:?}");
        let came = entries.contains(&"data bye".to_owned()) && entries.contains(&"eof ".to_owned());
        assert_eq!(came, server != "aborted", "{entries:?}");
    }
}

/// The handshake's messages are longer than the high mark, and are sent all the same.
#[test]
fn small_limits_slow_the_handshake_down_and_do_not_end_it() {
    for version in VERSIONS {
        for slow in [None, Some(7)] {
            let setup = Setup {
                client: certificates::client_of(version),
                config: Config {
                    limits: Limits {
                        low_water: 10,
                        high_water: 50,
                        max_output: 5_000,
                        max_frame: 10,
                        ..timeless().limits
                    },
                    ..timeless()
                },
                ..Setup::default()
            };
            let log = Log::default();
            let noted = log.clone();
            let mut pair = setup.pair(
                move |_, _| Some(sender(&noted, b"a text that is longer than ten bytes")),
                |_, _| Some(Echo),
            );
            pair.slow = slow;
            pair.talk();
            let last = log.entries().pop();
            let expected = "data a text that is longer than ten bytes";
            assert_eq!(last.as_deref(), Some(expected), "{version} {slow:?}");
            assert_eq!(pair.reasons(), ["open", "open"]);
        }
    }
}
