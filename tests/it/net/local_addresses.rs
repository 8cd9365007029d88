//! What a protocol learns of its own socket: the local address, and who is at the other end.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process;

use serveloop::net::Credentials;
use serveloop::protocols::Echo;
use serveloop::testing::MemorySession;
use serveloop::{
    Actions, Address, Config, Factory, Peer, Protocol, ProtocolError, Reactor, Transport,
};

use crate::support::model_server::{Model, ModelServer, connect, datagrams, finish, read_to};
use crate::support::probe::Log;
use crate::support::{PATIENCE, Scratch, millis, timeless};

/// Says what it knows of its socket when it is asked, and when the connection is made.
struct Knowing(Log);

fn known(transport: &Transport<'_>) -> String {
    let local = transport.local_address();
    let local = local.map_or("none".to_owned(), |address| address.to_string());
    format!("{local} {:?}", transport.credentials())
}

impl Protocol for Knowing {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.0.push(known(transport));
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        transport.write(known(transport).as_bytes());
        Ok(data.len())
    }
}

/// This process, as the system tells it of a peer.
fn ourselves() -> Option<Credentials> {
    let of = std::fs::metadata("/proc/self").unwrap();
    let (uid, gid) = (of.uid(), of.gid());
    Some(Credentials::new(uid, gid, Some(process::id())))
}

#[track_caller]
fn ask(server: &ModelServer, number: usize) -> (String, Address) {
    let mut client = connect(&server.addresses[number]);
    let to = match client.peer_addr().unwrap().as_socket() {
        Some(addr) => Address::Tcp(addr),
        None => server.addresses[number].clone(),
    };
    client.write_all(b"who?").unwrap();
    finish(&client);
    let (answer, _) = read_to(&mut client);
    (String::from_utf8(answer).unwrap(), to)
}

#[test]
fn a_connection_knows_its_local_address_and_a_unix_peer() {
    for model in Model::ALL {
        let scratch = Scratch::new();
        let unix = scratch.uri("unix", "socket");
        // A listener at all addresses: each connection has the one that its peer asked for.
        let at = ["tcp://0.0.0.0:0", "tcp://[::1]:0", &unix];
        let log = Log::default();
        let shared = log.clone();
        let factory = move |_: &Peer| Some(Knowing(shared.clone()));
        let server = ModelServer::new(model, &at, timeless(), factory);
        let mut expected = Vec::new();
        for (number, credentials) in [(0, None), (1, None), (2, ourselves()), (0, None)] {
            let (answer, to) = ask(&server, number);
            assert_eq!(answer, format!("{to} {credentials:?}"), "{model:?}");
            assert!(!answer.contains("0.0.0.0"), "{model:?}: {answer}");
            expected.push(answer);
        }
        server.end();
        assert_eq!(log.entries(), expected, "{model:?}: when they were made");
    }
}

#[test]
fn many_connections_at_a_time_know_their_own() {
    for model in Model::CONCURRENT {
        let at = ["tcp://127.0.0.1:0", "tcp://[::1]:0"];
        let log = Log::default();
        let factory = move |_: &Peer| Some(Knowing(log.clone()));
        let server = ModelServer::new(model, &at, timeless(), factory);
        // Those that end leave their places to others.
        for round in 0..3 {
            let mut clients: Vec<_> = (0..20)
                .map(|index| (index % 2, connect(&server.addresses[(index + round) % 2])))
                .collect();
            for (_, client) in &mut clients {
                let to = client.peer_addr().unwrap().as_socket().unwrap();
                client.write_all(b"who?").unwrap();
                finish(client);
                let (answer, _) = read_to(client);
                assert_eq!(answer, format!("tcp://{to} None").into_bytes(), "{model:?}");
            }
        }
        server.end();
    }
}

#[test]
fn a_datagram_has_neither() {
    for model in Model::ALL {
        let scratch = Scratch::new();
        let at = scratch.uri("unixgram", "socket");
        let log = Log::default();
        let shared = log.clone();
        let factory = move |_: &Peer| Some(Knowing(shared.clone()));
        let server = ModelServer::new(model, &[&at], timeless(), factory);
        let mut asking = datagrams(&server.addresses[0], &scratch.path("own"));
        asking.write_all(b"a long question").unwrap();
        let answer = std::io::Read::read(&mut asking, &mut [0; 99]).unwrap();
        assert_eq!(answer, "none None".len(), "{model:?}");
        server.end();
        assert_eq!(log.entries(), ["none None"], "{model:?}");
    }
}

/// Connects once.
struct Connecting(Option<Address>, Log);

impl Factory for Connecting {
    type Protocol = Box<dyn Protocol>;

    fn build_protocol(&mut self, _: &Peer) -> Option<Box<dyn Protocol>> {
        Some(Box::new(Echo))
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Box<dyn Protocol>>) {
        if let Some(to) = self.0.take() {
            actions.connect(to, Box::new(Knowing(self.1.clone())));
        }
    }
}

#[test]
fn an_outbound_connection_knows_its_own_end() {
    let log = Log::default();
    let mut reactor = Reactor::new(Connecting(None, log.clone()), timeless()).unwrap();
    let address = reactor
        .listen(&"tcp://127.0.0.1:0".parse().unwrap())
        .unwrap();
    reactor.factory().0 = Some(address.clone());
    let begin = std::time::Instant::now();
    while log.entries().is_empty() {
        assert!(begin.elapsed() < PATIENCE);
        reactor.turn(Some(millis(10))).unwrap();
    }
    let own = &log.entries()[0];
    let local = own
        .strip_suffix(" None")
        .unwrap()
        .parse::<Address>()
        .unwrap();
    assert_ne!(local, address);
    assert!(local.socket_addr().unwrap().ip().is_loopback(), "{own}");
}

#[test]
fn a_test_says_where_its_session_is() {
    let local: Address = "tcp://192.0.2.1:80".parse().unwrap();
    let user = Credentials::new(1, 2, Some(3));
    let session = |peer: &str| {
        let peer = Peer::new(peer.parse().unwrap(), Some(0));
        let knowing = Knowing(Log::default());
        let (local, user) = (Some(local.clone()), Some(user));
        let mut session = MemorySession::with_socket(knowing, Config::default(), peer, local, user);
        session.receive(b"who?");
        String::from_utf8(session.sent()).unwrap()
    };
    assert_eq!(session("unix:///a"), format!("{local} {:?}", Some(user)));
    assert_eq!(session("tcp://127.0.0.1:1"), format!("{local} None"));

    let mut session = MemorySession::new(Knowing(Log::default()));
    session.receive(b"who?");
    assert_eq!(session.sent(), b"none None");
}
