//! Open connections that go on in another loop, as in another process: which do, and with what.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use serveloop::net::HandedConnection;
use serveloop::protocols::{Discard, Echo, Hello};
use serveloop::{
    Actions, Config, Ended, Factory, Limits, Peer, Protocol, Reactor, Result, Server, Transport,
};

use crate::support::{Scratch, client, expect, panic_quietly, read_to_end, unix_client};

/// Makes protocols, and hands all connections over when it is told to.
struct Mover<B> {
    build: B,
    hands_over: Rc<Cell<bool>>,
    out: Rc<RefCell<Vec<HandedConnection>>>,
    coming: Rc<RefCell<Vec<HandedConnection>>>,
}

impl<P: Protocol, B: FnMut(&Peer) -> Option<P>> Factory for Mover<B> {
    type Protocol = P;

    fn build_protocol(&mut self, peer: &Peer) -> Option<P> {
        (self.build)(peer)
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, P>) {
        let coming = self.coming.borrow_mut().drain(..).collect::<Vec<_>>();
        coming.into_iter().for_each(|one| actions.adopt(one));
        if self.hands_over.take() {
            let out = Rc::clone(&self.out);
            actions.hand_over(|_| true, move |one| out.borrow_mut().push(one));
        }
    }
}

/// A loop whose connections can leave and come.
struct Place<P: Protocol, B: FnMut(&Peer) -> Option<P>> {
    reactor: Reactor<Mover<B>>,
    hands_over: Rc<Cell<bool>>,
    out: Rc<RefCell<Vec<HandedConnection>>>,
    coming: Rc<RefCell<Vec<HandedConnection>>>,
}

impl<P: Protocol, B: FnMut(&Peer) -> Option<P>> Place<P, B> {
    fn new(uri: &str, config: Config, build: B) -> Self {
        let (hands_over, out, coming) =
            <(Rc<Cell<bool>>, Rc<RefCell<_>>, Rc<RefCell<_>>)>::default();
        let server = Server::bind_with(&[uri.parse().unwrap()], config).unwrap();
        let mover = Mover {
            build,
            hands_over: Rc::clone(&hands_over),
            out: Rc::clone(&out),
            coming: Rc::clone(&coming),
        };
        let mut place = Self {
            reactor: server.with(mover).into_reactor().unwrap(),
            hands_over,
            out,
            coming,
        };
        place.turn();
        place
    }

    fn client(&mut self) -> TcpStream {
        let address = self.reactor.addresses().next().unwrap().clone();
        let client = client(&address);
        let before = self.reactor.statistics().accepted;
        while self.reactor.statistics().accepted == before {
            self.turn();
        }
        client
    }

    fn turn(&mut self) {
        for _ in 0..5 {
            self.reactor.turn(Some(Duration::from_millis(2))).unwrap();
        }
    }

    /// Takes all connections out that can go on elsewhere.
    fn leave(&mut self) -> Vec<HandedConnection> {
        self.hands_over.set(true);
        self.turn();
        self.out.take()
    }

    fn adopt(&mut self, all: Vec<HandedConnection>) {
        let parts = all.into_iter().map(HandedConnection::into_parts);
        let again = parts.map(|(socket, bytes)| HandedConnection::from_parts(socket, &bytes));
        self.coming
            .borrow_mut()
            .extend(again.map(|one| one.unwrap()));
        self.turn();
    }

    /// Accepted connections are open, have ended, or have left.
    #[track_caller]
    fn is_balanced(&self) {
        let counted = self.reactor.statistics();
        let open = self.reactor.connections() as u64;
        assert_eq!(
            counted.accepted,
            open + counted.closed() + counted.handed_over
        );
    }
}

const LOCAL: &str = "tcp://127.0.0.1:0";

#[test]
fn an_echo_goes_on_with_what_waits_on_both_sides() {
    let small = || Config {
        send_buffer: Some(4_096),
        limits: Limits {
            high_water: 20_000,
            low_water: 5_000,
            ..Limits::default()
        },
        ..Config::default()
    };
    let build = |_: &Peer| Some(Echo);
    let mut old = Place::new(LOCAL, small(), build);
    let mut new = Place::new(LOCAL, small(), build);
    let mut client = old.client();
    let sent: Vec<u8> = (0..8_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    client.set_nonblocking(true).unwrap();
    let mut at = 0;
    // Until neither side takes more.
    for _ in 0..50 {
        at += client.write(&sent[at..]).unwrap_or(0);
        old.turn();
    }
    assert!(at < sent.len(), "nothing waits");

    for _ in 0..3 {
        let left = old.leave();
        assert_eq!(left.len(), 1);
        assert_eq!(old.reactor.connections(), 0);
        old.is_balanced();
        new.adopt(left);
        let counted = *new.reactor.statistics();
        assert_eq!(new.reactor.connections(), 1, "{counted}");
        std::mem::swap(&mut old, &mut new);
    }

    let mut heard = vec![0; sent.len()];
    let mut come = 0;
    while come < sent.len() {
        at += client.write(&sent[at..]).unwrap_or(0);
        let until = (come + 60_000).min(heard.len());
        come += client.read(&mut heard[come..until]).unwrap_or(0);
        old.turn();
    }
    assert!(heard == sent, "other bytes");
    old.is_balanced();
}

#[test]
fn a_unix_socket_and_a_listener_with_limits_of_its_own_are_no_obstacle() {
    let scratch = Scratch::new();
    let uri = scratch.uri("unix", "socket") + "?idle-timeout=5m";
    let mut old = Place::new(&uri, Config::default(), |_: &Peer| Some(Echo));
    let mut new = Place::new(LOCAL, Config::default(), |_: &Peer| Some(Echo));
    let mut client: UnixStream = unix_client(&scratch.path("socket"));
    client.write_all(b"one").unwrap();
    old.turn();
    new.adopt(old.leave());
    client.write_all(b"two").unwrap();
    new.turn();
    expect(&mut client, b"onetwo");
    drop(client);
    new.turn();
    assert_eq!(new.reactor.statistics().closed_by_peer, 1);
}

#[test]
fn a_reply_that_is_due_comes_once_from_the_other_loop() {
    let hello = |_: &Peer| Some(Hello::new(Duration::from_millis(150)));
    let mut old = Place::new(LOCAL, Config::default(), hello);
    let mut new = Place::new(LOCAL, Config::default(), hello);
    let mut client = old.client();
    expect(&mut client, b"Welcome!");
    client.write_all(b"bob").unwrap();
    old.turn();
    // It is not read before the reply.
    client.write_all(b"eve").unwrap();
    old.turn();
    new.adopt(old.leave());
    client.set_nonblocking(true).unwrap();
    let mut heard = Vec::new();
    while heard.len() < 18 {
        let mut room = [0; 64];
        let count = client.read(&mut room).unwrap_or(0);
        heard.extend_from_slice(&room[..count]);
        new.turn();
    }
    assert_eq!(heard, b"Hello,bobHello,eve");
}

/// What a protocol does with the hooks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Moves,
    Stays,
    Outbox,
    OwnLimits,
    Panics,
    Closing,
    Refuses,
    PanicsThere,
}

struct Odd(Kind, Rc<Cell<usize>>);

impl Protocol for Odd {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        match self.0 {
            Kind::Outbox => drop(transport.outbox()),
            Kind::OwnLimits => transport.set_limits(Limits::default().into())?,
            Kind::Closing => {
                transport.write(&vec![0; 4 << 20]);
                transport.close();
            }
            _ => {}
        }
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Ok(data.len())
    }

    fn hand_over(&mut self, _: &Transport<'_>) -> Option<Vec<u8>> {
        match self.0 {
            Kind::Stays => None,
            Kind::Panics => panic_quietly(),
            _ => Some(b"state".to_vec()),
        }
    }

    fn take_over(&mut self, state: &[u8], transport: &mut Transport<'_>) -> bool {
        assert_eq!(state, b"state");
        transport.write(b"here");
        match self.0 {
            Kind::PanicsThere => panic_quietly(),
            kind => kind != Kind::Refuses,
        }
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.1.set(self.1.get() + 1);
    }
}

#[test]
fn what_is_more_than_bytes_stays() {
    for (kind, moves) in [
        (Kind::Moves, true),
        (Kind::Stays, false),
        (Kind::Outbox, false),
        (Kind::OwnLimits, false),
        (Kind::Panics, false),
        (Kind::Closing, false),
    ] {
        let lost = Rc::<Cell<usize>>::default();
        let of = Rc::clone(&lost);
        let mut old = Place::new(LOCAL, Config::default(), move |_: &Peer| {
            Some(Odd(kind, Rc::clone(&of)))
        });
        let client = old.client();
        let left = old.leave();
        assert_eq!(left.len(), usize::from(moves), "{kind:?}");
        // No end is reported or counted, unless the protocol panics.
        let ends = usize::from(kind == Kind::Panics);
        assert_eq!(lost.get(), ends, "{kind:?}");
        let counted = *old.reactor.statistics();
        assert_eq!(counted.closed(), ends as u64, "{kind:?}");
        assert_eq!(counted.handed_over, u64::from(moves), "{kind:?}");
        drop((left, client));
        old.is_balanced();
    }
}

#[test]
fn a_peer_that_has_ended_its_side_stays() {
    let mut old = Place::new(LOCAL, Config::default(), |_: &Peer| {
        Some(Hello::new(Duration::from_secs(9)))
    });
    let mut client = old.client();
    client.write_all(b"bob").unwrap();
    old.turn();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    old.turn();
    // The end has not been read yet, so it goes along.
    assert_eq!(old.leave().len(), 1);

    let mut old = Place::new(LOCAL, Config::default(), |_: &Peer| Some(Discard));
    let _client = old.client();
    assert_eq!(old.leave().len(), 0, "it does not say that it can");
}

#[test]
fn a_connection_that_is_refused_there_ends_and_the_loop_goes_on() {
    for kind in [Kind::Moves, Kind::Refuses, Kind::PanicsThere] {
        let lost = Rc::<Cell<usize>>::default();
        let of = Rc::clone(&lost);
        let mut old = Place::new(LOCAL, Config::default(), |_: &Peer| {
            Some(Odd(Kind::Moves, Rc::default()))
        });
        let mut new = Place::new(LOCAL, Config::default(), move |_: &Peer| {
            Some(Odd(kind, Rc::clone(&of)))
        });
        let mut client = old.client();
        new.adopt(old.leave());
        if kind == Kind::Moves {
            expect(&mut client, b"here");
            assert_eq!(new.reactor.connections(), 1);
        } else {
            let _ = read_to_end_or_reset(&mut client);
            assert_eq!((new.reactor.connections(), lost.get()), (0, 1), "{kind:?}");
        }
        new.is_balanced();
    }

    // There is no such listener, or no room, or no protocol.
    let full = Config {
        max_connections: 1,
        ..Config::default()
    };
    let mut old = Place::new(LOCAL, Config::default(), |_: &Peer| Some(Echo));
    let mut new = Place::new(LOCAL, full, |_: &Peer| Some(Echo));
    let mut clients = [(); 3].map(|()| old.client());
    let mut left = old.leave().into_iter();
    new.adopt(vec![left.next().unwrap().with_listener(7)]);
    new.adopt(left.collect());
    assert_eq!(new.reactor.connections(), 1);
    assert_eq!(new.reactor.statistics().refused_max_connections, 1);
    let ended = clients.iter_mut().map(|client| {
        client
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        client.read(&mut [0]).is_ok()
    });
    assert_eq!(ended.filter(|has_ended| *has_ended).count(), 2);
}

fn read_to_end_or_reset(client: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match client.read_to_end(&mut all) {
        Ok(_) => all,
        Err(_) => read_to_end(client),
    }
}

#[test]
fn only_the_peers_that_are_meant_leave() {
    struct Even(Rc<RefCell<Vec<HandedConnection>>>);

    impl Factory for Even {
        type Protocol = Echo;

        fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
            Some(Echo)
        }

        fn service_actions(&mut self, actions: &mut Actions<'_, Echo>) {
            if actions.statistics().accepted == 4 {
                let to = Rc::clone(&self.0);
                actions.hand_over(
                    |peer| peer.id() % 2 == 0,
                    move |one| to.borrow_mut().push(one),
                );
            }
        }
    }

    let out = Rc::<RefCell<Vec<_>>>::default();
    let server = Server::bind(&[LOCAL.parse().unwrap()], Config::default()).unwrap();
    let address = server.addresses()[0].clone();
    let mut reactor = server.with(Even(Rc::clone(&out))).into_reactor().unwrap();
    let _clients = [(); 4].map(|()| client(&address));
    for _ in 0..20 {
        reactor.turn(Some(Duration::from_millis(2))).unwrap();
    }
    let left = out.borrow().len();
    assert_eq!(left + reactor.connections(), 4);
    // Other tests take numbers too.
    assert!(left <= 4);
    assert_eq!(reactor.statistics().handed_over, left as u64);
}
