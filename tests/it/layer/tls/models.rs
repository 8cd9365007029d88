//! TLS in every model, with clients by others and by ourselves.

use std::io::ErrorKind;
use std::sync::mpsc;
use std::thread;

use serveloop::layer::proxy::{Header, Reader};
use serveloop::layer::tls::{ServerTls, Tls, TlsInfo};
use serveloop::layer::{Event, Layered, Observed, Prefaced, RateLimited, layered};
use serveloop::protocols::Echo;
use serveloop::testing::Scrambled;
use serveloop::{
    Actions, Address, Config, Ended, Factory, Limits, Peer, Protocol, Reactor, Result, Server,
    Transport,
};

use crate::layer::tls::cases::Answers;
use crate::layer::tls::certificates;
use crate::layer::tls::programs::{curl, openssl, python};
use crate::support::model_server::{Model, ModelServer, bind};
use crate::support::outside::require;
use crate::support::{Scratch, Serving, noise, seconds, timeless};

type Inside<P> = fn(&Peer, &TlsInfo) -> Option<P>;

/// A factory of protocols inside TLS.
fn serving<P: Protocol>(
    tls: &ServerTls,
    inside: Inside<P>,
) -> impl FnMut(&Peer) -> Option<Layered<Tls, Inside<P>, P>> + Clone + use<P> {
    let tls = tls.clone();
    layered(move |_: &Peer| Some(Tls::server(&tls)), inside)
}

fn echo(
    tls: &ServerTls,
) -> impl FnMut(&Peer) -> Option<Layered<Tls, Inside<Echo>, Echo>> + Clone + use<> {
    serving(tls, |_, _| Some(Echo))
}

#[test]
fn every_model_speaks_tls_with_other_programs() {
    let programs = ["openssl", "python3", "curl", "timeout"];
    if !programs.into_iter().all(require) {
        return;
    }

    let tls = certificates::server("localhost").build().unwrap();
    let threads = Model::ALL.map(|model| {
        let tls = tls.clone();
        thread::spawn(move || talk(model, &tls))
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

fn talk(model: Model, tls: &ServerTls) {
    let answers = serving(tls, |_, _| Some(Answers::default()));
    let server = ModelServer::new(model, &["tcp://127.0.0.1:0"], timeless(), answers);
    let at = server.addresses[0].socket_addr().unwrap();
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = openssl(at, &[option]);
        assert_eq!(said, format!("echo, {version}"), "{model:?}");
    }
    for (option, version) in [("version=1.2", "TLSv1.2"), ("version=1.3", "TLSv1.3")] {
        let said = python(at, "echo", &[option]);
        assert_eq!(said, format!("echo, {version}"), "{model:?}");
        assert_eq!(python(at, "resume", &[option]), "resumed", "{model:?}");
    }
    for options in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
        let said = curl(&format!("https://{at}/"), options);
        assert_eq!(said, "hello", "{model:?}");
    }

    let statistics = server.end();
    assert_eq!(statistics.accepted, 10, "{model:?}");
    assert_eq!(statistics.closed_by_peer, 8, "{model:?}");
    assert_eq!(statistics.closed_by_protocol, 2, "{model:?}");
}

/// Sends bytes, expects them back, and tells how its connection ended.
struct Client {
    left: Vec<u8>,
    expected: Vec<u8>,
    ends: mpsc::Sender<String>,
}

impl Client {
    fn pump(&mut self, transport: &mut Transport<'_>) {
        let taken = transport.write_some(&self.left);
        self.left.drain(..taken);
    }
}

impl Protocol for Client {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        self.pump(transport);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let rest = self.expected.split_off(data.len().min(self.expected.len()));
        if self.expected != data {
            Err("other bytes than expected")?;
        }
        self.expected = rest;
        if self.expected.is_empty() {
            transport.close();
        }
        Ok(data.len())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.pump(transport);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        // The test may have failed already.
        let _ = self.ends.send(ended.reason().to_string());
    }
}

/// Connects once, and serves nothing.
struct Connecting<P: Protocol>(Option<(Address, P)>);

impl<P: Protocol> Factory for Connecting<P> {
    type Protocol = P;

    fn build_protocol(&mut self, _: &Peer) -> Option<P> {
        None
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, P>) {
        if let Some((to, protocol)) = self.0.take() {
            actions.connect(to, protocol);
        }
    }
}

/// Connects to a server, and returns how the client's connection ended.
fn connect(to: &Address, tls: Tls, text: &[u8], config: Config) -> String {
    let (sender, ends) = mpsc::channel();
    let client = Client {
        left: text.to_vec(),
        expected: text.to_vec(),
        ends: sender,
    };
    let layered = Layered::around(tls, client);
    let loop_of_client = Serving::tcp_with_factory(config, Connecting(Some((to.clone(), layered))));
    let end = ends.recv_timeout(seconds(60)).unwrap();
    loop_of_client.end();
    end
}

#[test]
fn our_client_moves_megabytes_through_every_model() {
    let tls = certificates::server("localhost").build().unwrap();
    let client = certificates::client().build().unwrap();
    let text = noise(4 << 20);
    for model in Model::ALL {
        let scratch = Scratch::new();
        for at in ["tcp://127.0.0.1:0", &scratch.uri("unix", "socket")] {
            // Small buffers, so that output waits and readers are slow.
            let config = Config {
                send_buffer: Some(8 << 10),
                receive_buffer: Some(8 << 10),
                ..timeless()
            };
            let server = ModelServer::new(model, &[at], config.clone(), echo(&tls));
            let layer = Tls::client(&client, "localhost").unwrap();
            let end = connect(&server.addresses[0], layer, &text, config);
            assert_eq!(end, "closed", "{model:?} {at}");
            let statistics = server.end();
            assert_eq!(statistics.closed_by_peer, 1, "{model:?} {at}");
        }
    }
}

#[test]
fn a_client_hears_why_there_is_no_connection() {
    let client = || Tls::client(&certificates::client().build().unwrap(), "localhost").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = Address::Tcp(listener.local_addr().unwrap());
    drop(listener);
    let end = connect(&nobody, client(), b"hello", timeless());
    assert!(end.starts_with("cannot connect"), "{end}");

    // A server without TLS sends the hello back.
    let plain = Serving::tcp(timeless(), |_: &Peer| Some(Echo));
    let end = connect(&plain.addresses[0], client(), b"hello", timeless());
    assert!(end.starts_with("protocol error: TLS: "), "{end}");
    plain.end();

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config {
        limits: Limits {
            handshake_timeout: Some(seconds(0)),
            ..timeless().limits
        },
        ..timeless()
    };
    let to = Address::Tcp(silent.local_addr().unwrap());
    let end = connect(&to, client(), b"hello", config);
    assert_eq!(end, "timed out: the handshake was not completed in time");
}

/// A datagram cannot hold a stream of records.
#[test]
fn a_server_with_datagrams_refuses_to_begin() {
    let tls = certificates::server("localhost").build().unwrap();
    let scratch = Scratch::new();
    let path = scratch.uri("unixgram", "datagrams");
    for model in Model::ALL {
        for at in [
            &["udp://127.0.0.1:0"][..],
            &[&path],
            &["tcp://127.0.0.1:0", "udp://[::1]:0"],
        ] {
            let server = bind(model, at, timeless());
            let bad = server.addresses().last().unwrap().to_string();
            let error = model.serve(server, echo(&tls)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let expected = format!("{bad}: this protocol needs a stream, and a datagram is none");
            assert_eq!(error.to_string(), expected, "{model:?}");
        }
    }

    let mut reactor = Reactor::new(echo(&tls), timeless()).unwrap();
    assert!(
        reactor
            .listen(&"udp://127.0.0.1:0".parse().unwrap())
            .is_err()
    );
    reactor
        .listen(&"tcp://127.0.0.1:0".parse().unwrap())
        .unwrap();
}

/// What is around TLS, or comes before it, needs a stream too; other layers do not.
#[test]
fn the_need_of_a_stream_is_passed_on() {
    type Inner = Layered<Tls, Inside<Echo>, Echo>;
    type Build<I, P> = fn(&Peer, &I) -> Option<P>;
    assert!(Inner::needs_stream());
    assert!(RateLimited::<Inner>::needs_stream());
    assert!(Observed::<Inner, fn(Event<'_>)>::needs_stream());
    assert!(Prefaced::<
        Reader,
        Build<Option<Header<'static>>, Inner>,
        Inner,
    >::needs_stream());
    assert!(Layered::<Scrambled, Build<(), Inner>, Inner>::needs_stream());
    assert!(!Layered::<Scrambled, Build<(), Echo>, Echo>::needs_stream());
    assert!(!RateLimited::<Echo>::needs_stream());
}

/// A factory of boxed protocols does not know, unless it says so.
#[test]
fn boxed_tls_refuses_each_datagram() {
    let tls = certificates::server("localhost").build().unwrap();
    let at = ["udp://127.0.0.1:0".parse().unwrap()];
    let mut inside = echo(&tls);
    let boxed = move |peer: &Peer| Some(Box::new(inside(peer)?) as Box<dyn Protocol>);
    let server = Serving::with(Server::bind(&at, timeless()).unwrap(), boxed);
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = server.addresses[0].socket_addr().unwrap();
    client
        .send_to(&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0], to)
        .unwrap();
    let statistics = server.wait(|statistics| statistics.datagrams_failed == 1);
    assert_eq!(statistics.datagrams_received, 1);
    let errors = server.errors.clone();
    server.end();
    let reason = "protocol error: TLS needs a stream, and datagrams are none";
    assert_eq!(errors.entries(), [reason]);
}
