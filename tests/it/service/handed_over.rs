//! Open connections that go on in another loop, as in another process: which do, and with what.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use serveloop::framing::{Framed, Lines};
use serveloop::layer::{Alarm, Observed, Screen};
use serveloop::net::HandedConnection;
use serveloop::protocols::{Discard, Echo, Hello};
use serveloop::service::{Group, Lagging, Post};
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

/// Others may have come to the new process before, up to its limits.
#[test]
fn connections_that_come_are_within_no_limit() {
    let build = |_: &Peer| Some(Echo);
    let mut old = Place::new(LOCAL, Config::default(), build);
    let mut clients: Vec<_> = (0..3).map(|_| old.client()).collect();
    let narrow = Config {
        max_connections: 1,
        max_per_peer: 1,
        limit_loopback: true,
        ..Config::default()
    };
    let mut new = Place::new(LOCAL, narrow, build);
    let newcomer = new.client();

    new.adopt(old.leave());
    assert_eq!(new.reactor.connections(), 4);
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
        new.turn();
        expect(client, b"hello");
    }
    drop((clients, newcomer));
    new.turn();
    new.is_balanced();
}

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
    ClosedOutbox,
    Source,
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
            Kind::ClosedOutbox => {
                transport.write(&vec![0; 8 << 20]);
                transport.outbox().close();
            }
            Kind::Source => transport.send(std::io::repeat(0)),
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
        (Kind::Outbox, true),
        (Kind::ClosedOutbox, false),
        (Kind::Source, false),
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

/// Has an outbox, which its list of all has too, and numbers what is posted.
struct Member {
    group: Group,
    id: u64,
    count: u64,
}

impl Member {
    fn of(group: &Group) -> Self {
        Self {
            group: group.clone(),
            id: 0,
            count: 0,
        }
    }

    fn join(&mut self, transport: &mut Transport<'_>) {
        let outbox = transport.outbox();
        self.id = outbox.id();
        self.group.join("all", &outbox);
    }
}

impl Protocol for Member {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        self.join(transport);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Ok(data.len())
    }

    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        self.count += 1;
        transport.write(&self.count.to_be_bytes());
        transport.write_post(post);
    }

    fn hand_over(&mut self, _: &Transport<'_>) -> Option<Vec<u8>> {
        self.group.leave("all", self.id);
        Some(self.count.to_be_bytes().to_vec())
    }

    fn take_over(&mut self, state: &[u8], transport: &mut Transport<'_>) -> bool {
        self.join(transport);
        let count = state.try_into().map(u64::from_be_bytes);
        self.count = count.unwrap_or_default();
        count.is_ok()
    }
}

/// What is posted arrives once and in order, whether it is sent, partly sent, or waits for its turn.
#[test]
fn posts_go_along() {
    const POSTS: u64 = 60;
    const LENGTH: usize = 100_000;
    let roomy = || Config {
        send_buffer: Some(4_096),
        limits: Limits {
            max_posted: 32 << 20,
            ..Limits::default()
        },
        ..Config::default()
    };
    let (here, there) = (Group::new(Lagging::Close), Group::new(Lagging::Close));
    let of = here.clone();
    let mut old = Place::new(LOCAL, roomy(), move |_: &Peer| Some(Member::of(&of)));
    let of = there.clone();
    let mut new = Place::new(LOCAL, roomy(), move |_: &Peer| Some(Member::of(&of)));
    let mut client = old.client();

    for number in 0..POSTS {
        let group = if number < POSTS / 2 { &here } else { &there };
        if number == POSTS / 2 {
            let left = old.leave();
            assert_eq!((left.len(), here.members("all")), (1, 0));
            old.is_balanced();
            new.adopt(left);
        }
        let published = group.publish("all", vec![number as u8; LENGTH]);
        assert_eq!((published.sent, published.lagging), (1, 0), "{number}");
        old.turn();
        new.turn();
    }

    client.set_nonblocking(true).unwrap();
    let mut heard = Vec::new();
    while heard.len() < POSTS as usize * (8 + LENGTH) {
        let mut room = [0; 65_536];
        let count = client.read(&mut room).unwrap_or(0);
        heard.extend_from_slice(&room[..count]);
        new.turn();
    }
    for (number, post) in (0..POSTS).zip(heard.chunks(8 + LENGTH)) {
        assert_eq!(post[..8], (number + 1).to_be_bytes(), "{number}");
        assert!(post[8..].iter().all(|byte| *byte == number as u8));
    }
}

/// Takes everything over, and has no outbox.
struct Forgetful;

impl Protocol for Forgetful {
    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Ok(data.len())
    }

    fn take_over(&mut self, _: &[u8], _: &mut Transport<'_>) -> bool {
        true
    }
}

/// What waits would be lost without an outbox for it.
#[test]
fn posts_need_an_outbox_there() {
    for posts in [0, 300] {
        let group = Group::new(Lagging::DropNewest);
        let of = group.clone();
        let mut old = Place::new(LOCAL, Config::default(), move |_: &Peer| {
            Some(Member::of(&of))
        });
        let mut new = Place::new(LOCAL, Config::default(), |_: &Peer| Some(Forgetful));
        let _client = old.client();
        for _ in 0..posts {
            group.publish("all", vec![0; 100_000]);
            old.turn();
        }
        let left = old.leave();
        assert_eq!(
            (left.len(), group.publish("all", &b"late"[..]).sent),
            (1, 0)
        );
        new.adopt(left);
        assert_eq!(new.reactor.connections(), usize::from(posts == 0));
        new.is_balanced();
    }
}

/// Half a line goes along, and a screen does not begin again.
#[test]
fn frames_and_screens_go_along() {
    let alarm = Alarm::default();
    let build = move |peer: &Peer| {
        let hello = Framed::new(Lines::new(100), Hello::new(Duration::ZERO));
        Some(Observed::new(hello, Screen::new(peer, &alarm)))
    };
    let mut old = Place::new(LOCAL, Config::default(), build.clone());
    let mut new = Place::new(LOCAL, Config::default(), build);
    let (mut begun, mut known) = (old.client(), old.client());
    known.write_all(b"bob\nGET / HT").unwrap();
    begun.write_all(b"GE").unwrap();
    old.turn();
    let left = old.leave();
    assert_eq!(left.len(), 2);
    new.adopt(left);
    known.write_all(b"TP/1.1\n").unwrap();
    begun.write_all(b"T / HTTP/1.1\n").unwrap();
    new.turn();
    // The beginning was another one, so this is a name.
    expect(&mut known, b"Welcome!\nHello,bob\nHello,GET / HTTP/1.1\n");
    assert_eq!(read_to_end_or_reset(&mut begun), b"Welcome!\n");
    drop(begun);
    new.turn();
    new.is_balanced();
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

    // There is no such listener, or no protocol for one of them.
    let mut old = Place::new(LOCAL, Config::default(), |_: &Peer| Some(Echo));
    let mut asked = 0;
    let mut new = Place::new(LOCAL, Config::default(), move |_: &Peer| {
        asked += 1;
        (asked > 1).then_some(Echo)
    });
    let mut clients = [(); 3].map(|()| old.client());
    let mut left = old.leave().into_iter();
    new.adopt(vec![left.next().unwrap().with_listener(7)]);
    new.adopt(left.collect());
    assert_eq!(new.reactor.connections(), 1);
    assert_eq!(new.reactor.statistics().refused_by_factory, 1);
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

/// Writes until the output is full, and goes on when there is room again.
struct Pump {
    left: u32,
    /// By what a protocol is told that it has to wait.
    by_part: bool,
}

impl Pump {
    fn pump(&mut self, transport: &mut Transport<'_>) {
        while self.left > 0 {
            let piece = vec![b'.'; (self.left as usize).min(16_384)];
            if self.by_part {
                let taken = transport.write_some(&piece);
                self.left -= taken as u32;
                if taken < piece.len() {
                    return;
                }
            } else if transport.is_full() {
                return;
            } else {
                transport.write(&piece);
                self.left -= piece.len() as u32;
            }
        }
    }
}

impl Protocol for Pump {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let _ = transport.outbox();
        self.pump(transport);
        Ok(data.len())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.pump(transport);
    }

    fn hand_over(&mut self, _: &Transport<'_>) -> Option<Vec<u8>> {
        Some(self.left.to_be_bytes().to_vec())
    }

    fn take_over(&mut self, state: &[u8], _: &mut Transport<'_>) -> bool {
        self.left = u32::from_be_bytes(state.try_into().unwrap());
        true
    }
}

/// A producer that waited for room goes on in the new process, whether it was told by a full output or by a
/// part of its data that was not taken.
#[test]
fn a_producer_that_waits_goes_on() {
    const LENGTH: u32 = 3_000_000;
    for by_part in [false, true] {
        let config = || Config {
            send_buffer: Some(4_096),
            limits: Limits {
                low_water: 0,
                ..Limits::default()
            },
            ..Config::default()
        };
        let build = move |_: &Peer| {
            Some(Pump {
                left: LENGTH,
                by_part,
            })
        };
        let (mut old, mut new) = (
            Place::new(LOCAL, config(), build),
            Place::new(LOCAL, config(), build),
        );
        let mut client = old.client();
        client.write_all(b"?").unwrap();
        old.turn();

        new.adopt(old.leave());
        client.set_nonblocking(true).unwrap();
        let (mut heard, mut room) = (0, vec![0; 64 << 10]);
        for _ in 0..10_000 {
            while let Ok(count) = client.read(&mut room) {
                heard += count;
            }
            if heard == LENGTH as usize {
                break;
            }
            new.reactor.turn(Some(Duration::from_millis(2))).unwrap();
        }
        assert_eq!(heard, LENGTH as usize, "{by_part}");
    }
}
