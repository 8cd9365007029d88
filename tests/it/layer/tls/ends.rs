//! How a client sees its connection end, in every model: with `close_notify`, or cut off.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use rustls::{ClientConnection, StreamOwned};
use serveloop::layer::proxy::Proxy;
use serveloop::layer::tls::{Tls, TlsInfo, rustls};
use serveloop::layer::{Prefaced, layered};
use serveloop::net::NetworkList;
use serveloop::protocols::Echo;
use serveloop::{Address, Config, Limits, Peer, Protocol, Result, Transport};

use crate::layer::tls::certificates;
use crate::support::model_server::{Model, ModelServer};
use crate::support::{client, millis, seconds, timeless};

const TCP: &str = "tcp://127.0.0.1:0";

/// Takes all bytes and says so, except that `(` waits for its `)`. Stays open in a shutdown.
struct Words;

impl Protocol for Words {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        match data[0] {
            b'(' => return Ok(0),
            b'k' => transport.charge(1 << 30),
            b'a' => transport.abort(),
            _ => transport.write(b"!"),
        }
        Ok(data.len())
    }

    fn shutdown_requested(&mut self, _: &mut Transport<'_>) {}
}

/// A client after its handshake.
fn connect(to: &Address) -> StreamOwned<ClientConnection, TcpStream> {
    over(client(to))
}

fn over(socket: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
    let config = certificates::rustls_client(rustls::ALL_VERSIONS);
    let name = "localhost".try_into().unwrap();
    let tls = ClientConnection::new(config.into(), name).unwrap();
    let mut stream = StreamOwned::new(tls, socket);
    stream.flush().unwrap();
    stream
}

/// What a client that has sent `words` reads to the end, and how it sees that.
fn end(words: &[&str], to: &Address) -> String {
    let mut stream = connect(to);
    for word in words {
        stream.write_all(word.as_bytes()).unwrap();
        stream.flush().unwrap();
        if *word == "x" {
            stream.read_exact(&mut [0]).unwrap();
        }
    }
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Ok(_) => format!("{}, closed", got.escape_ascii()),
        Err(error) => format!("{}, {:?}", got.escape_ascii(), error.kind()),
    }
}

fn serve(model: Model, config: Config) -> ModelServer {
    let tls = certificates::server("localhost").build().unwrap();
    let factory = layered(
        move |_: &Peer| Some(Tls::server(&tls)),
        |_: &Peer, _: &TlsInfo| Some(Words),
    );
    ModelServer::new(model, &[TCP], config, factory)
}

#[test]
fn a_deadline_ends_with_close_notify_in_every_model() {
    let short = Some(millis(150));
    for model in Model::ALL {
        let first = Config {
            limits: Limits {
                first_message_timeout: short,
                ..timeless().limits
            },
            ..timeless()
        };
        let message = Config {
            limits: Limits {
                message_timeout: short,
                ..timeless().limits
            },
            ..timeless()
        };
        let idle = Config {
            limits: Limits {
                idle_timeout: short,
                ..timeless().limits
            },
            ..timeless()
        };
        for (config, words) in [(first, &[][..]), (message, &["x", "("]), (idle, &["x"])] {
            let server = serve(model, config);
            assert_eq!(end(words, &server.addresses[0]), ", closed", "{model:?}");
            let counts = server.end();
            let timed_out = counts.closed_timeout_first_message
                + counts.closed_timeout_message
                + counts.closed_timeout_idle;
            assert_eq!(timed_out, 1, "{model:?}: {counts:?}");
        }
    }
}

#[test]
fn shedding_and_the_end_of_a_drain_have_close_notify_too() {
    for model in Model::ALL {
        let server = serve(model, timeless());
        assert_eq!(
            end(&["x", "k"], &server.addresses[0]),
            ", closed",
            "{model:?}"
        );
        assert!(server.await_error().contains("buffers"), "{model:?}");
        server.end();

        let config = Config {
            drain_timeout: Some(millis(100)),
            ..timeless()
        };
        let mut server = serve(model, config);
        let to = server.addresses[0].clone();
        let ending = thread::spawn(move || end(&["x", "y"], &to));
        // Once it is answered, the connection is served.
        thread::sleep(millis(300));
        server.handle.shutdown();
        let statistics = server.join();
        assert_eq!(ending.join().unwrap(), "!, closed", "{model:?}");
        assert_eq!(statistics.closed_timeout_drain, 1, "{model:?}");
    }
}

/// Its handshake comes before the first message, and may be on its way as well.
#[test]
fn a_first_message_inside_tls_is_answered_in_a_shutdown() {
    for model in Model::ALL {
        for has_opened in [false, true] {
            let tls = certificates::server("localhost").build().unwrap();
            let factory = layered(
                move |_: &Peer| Some(Tls::server(&tls)),
                |_: &Peer, _: &TlsInfo| Some(Echo),
            );
            let config = Config {
                drain_grace: seconds(60),
                drain_timeout: Some(seconds(120)),
                ..Config::default()
            };
            let server = ModelServer::new(model, &[TCP], config, factory);
            let mut late = if has_opened {
                let stream = connect(&server.addresses[0]);
                server.handle.shutdown();
                stream
            } else {
                let socket = client(&server.addresses[0]);
                server.handle.shutdown();
                over(socket)
            };
            late.write_all(b"hello").unwrap();
            let mut got = Vec::new();
            late.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"hello", "{model:?}, opened before: {has_opened}");
            assert_eq!(server.end().closed_by_shutdown, 1, "{model:?}");
        }
    }
}

#[test]
fn a_client_that_is_refused_after_its_handshake_is_told_in_every_model() {
    let tls = certificates::server("localhost").build().unwrap();
    let nobody = layered(
        move |_: &Peer| Some(Tls::server(&tls)),
        |_: &Peer, _: &TlsInfo| None::<Words>,
    );
    for model in Model::ALL {
        let server = ModelServer::new(model, &[TCP], timeless(), nobody.clone());
        assert_eq!(end(&[], &server.addresses[0]), ", closed", "{model:?}");
        assert_eq!(server.end().closed_refused, 1, "{model:?}");
    }
}

/// A proxy that itself speaks TLS names its clients inside.
#[test]
fn a_client_beyond_its_limit_is_told_inside_tls() {
    const HEADER: &str = "PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n";
    let tls = certificates::server("localhost").build().unwrap();
    let proxies: NetworkList = "127.0.0.0/8".parse().unwrap();
    let config = Config {
        trusted_proxies: proxies.clone(),
        max_per_peer: 1,
        ..timeless()
    };
    let proxy = Proxy::required(proxies);
    let behind = layered(
        move |_: &Peer| Some(Tls::server(&tls)),
        move |peer: &Peer, _: &TlsInfo| {
            let build = |_: &Peer, _: &Option<_>| Some(Words);
            Some(Prefaced::new(proxy.reader(peer)?, build))
        },
    );
    for model in [Model::EventLoop, Model::Threading] {
        let server = ModelServer::new(model, &[TCP], config.clone(), behind.clone());
        let mut first = connect(&server.addresses[0]);
        first.write_all(format!("{HEADER}x").as_bytes()).unwrap();
        first.read_exact(&mut [0]).unwrap();
        let second = end(&[HEADER], &server.addresses[0]);
        assert_eq!(second, ", closed", "{model:?}");
        drop(first);
        assert_eq!(server.end().closed_refused, 1, "{model:?}");
    }
}

#[test]
fn a_server_that_is_aborted_sends_nothing_more() {
    for model in Model::ALL {
        let mut server = serve(model, timeless());
        let to = server.addresses[0].clone();
        let ending = thread::spawn(move || end(&["x", "y"], &to));
        thread::sleep(millis(300));
        server.handle.abort();
        server.join();
        let seen = ending.join().unwrap();
        assert!(seen.ends_with(", ConnectionReset"), "{model:?}: {seen}");
    }
}

#[test]
fn an_abort_has_none() {
    for model in Model::ALL {
        let server = serve(model, timeless());
        let seen = end(&["x", "a"], &server.addresses[0]);
        assert!(
            seen == ", ConnectionReset" || seen == ", UnexpectedEof",
            "{model:?}: {seen}"
        );
        server.end();
    }
}

/// A client that reads nothing is gone when its time is over, with or without a mark.
#[test]
fn nothing_waits_for_a_client_that_does_not_read() {
    let tls = certificates::server("localhost").build().unwrap();
    let flood = layered(
        move |_: &Peer| Some(Tls::server(&tls)),
        |_: &Peer, _: &TlsInfo| Some(Flood),
    );
    for model in Model::ALL {
        let config = Config {
            limits: Limits {
                write_timeout: Some(millis(200)),
                ..timeless().limits
            },
            send_buffer: Some(8 << 10),
            ..timeless()
        };
        let server = ModelServer::new(model, &[TCP], config, flood.clone());
        let mut stream = connect(&server.addresses[0]);
        let error = server.await_error();
        assert!(error.contains("accepted no output"), "{model:?}: {error}");
        stream.sock.set_read_timeout(Some(seconds(10))).unwrap();
        assert!(stream.read_to_end(&mut Vec::new()).is_err(), "{model:?}");
        server.end();
    }
}

/// Sends without end.
struct Flood;

impl Protocol for Flood {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        self.resume_writing(transport);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Ok(data.len())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        transport.write_some(&[0; 100_000]);
    }
}
