//! Connections that protocols ask for: who is told what, and who cancels them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serveloop::net::Target;
use serveloop::service::{Dial, Dialer, Dialing};
use serveloop::testing::{MemoryServer, Seen};
use serveloop::{
    Actions, Address, Config, Ended, Factory, Peer, Protocol, Reactor, Result, Server, Transport,
};

use crate::support::millis;
use crate::support::probe::{Log, Probe};

type Boxed = Box<dyn Protocol + Send>;

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

const FAR: &str = "tcp://192.0.2.1:7";

/// Asks for a connection when its client says something, and keeps the attempt.
struct Asking {
    dialer: Dialer<Boxed>,
    target: Target,
    log: Log,
    dial: Option<Dial>,
}

impl Protocol for Asking {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let dial = self.dialer.connect(
            self.target.clone(),
            Box::new(Probe::new(&self.log)) as Boxed,
        );
        match data {
            b"detached" => dial.detach(),
            b"is over?" => {
                let is_over = self.dial.as_ref().map(Dial::is_over);
                transport.write(format!("{is_over:?}").as_bytes());
            }
            _ => self.dial = Some(dial),
        }
        Ok(data.len())
    }
}

type Build = Box<dyn FnMut(&Peer) -> Option<Boxed>>;

fn dialing(log: &Log, target: Target) -> Dialing<impl FnMut(&Dialer<Boxed>) -> Build, Build> {
    let log = log.clone();
    Dialing::new(move |dialer: &Dialer<Boxed>| -> Build {
        let (dialer, log, target) = (dialer.clone(), log.clone(), target.clone());
        Box::new(move |_: &Peer| {
            Some(Box::new(Asking {
                dialer: dialer.clone(),
                target: target.clone(),
                log: log.clone(),
                dial: None,
            }) as Boxed)
        })
    })
}

#[test]
fn a_handler_opens_a_connection_in_the_same_turn() {
    let log = Log::default();
    let mut server = MemoryServer::new(dialing(&log, address(FAR).into()));
    let client = server.connect();
    server.send(client, b"go");
    assert_eq!(log.entries(), ["made"]);
    let (to, far) = server.next_outbound().unwrap();
    assert_eq!(to, address(FAR));
    server.send(far, b"news");
    assert_eq!(log.entries(), ["made", "data news"]);
}

#[test]
fn the_end_of_the_one_who_asked_cancels_the_attempt() {
    let log = Log::default();
    let mut server = MemoryServer::new(dialing(&log, address(FAR).into()));
    server.ignore(address(FAR));
    let client = server.connect();
    server.send(client, b"go");
    server.advance(millis(100));
    assert_eq!(log.entries(), [""; 0]);
    server.reset(client);
    assert_eq!(log.entries(), ["lost aborted"]);
    assert_eq!(server.connections(), 0);
    server.accept(address(FAR));
    assert!(server.next_outbound().is_none(), "nobody waits there");
}

#[test]
fn the_end_of_the_one_who_asked_cancels_a_lookup() {
    let log = Log::default();
    let name = "tcp://slow.example:7";
    let mut server = MemoryServer::new(dialing(&log, name.parse().unwrap()));
    server.delay_name(name);
    let client = server.connect();
    server.send(client, b"go");
    server.reset(client);
    assert_eq!(log.entries(), ["lost aborted"]);
    server.name(name, vec![address(FAR)]);
    assert!(server.next_outbound().is_none());
}

#[test]
fn a_detached_attempt_goes_on() {
    let log = Log::default();
    let mut server = MemoryServer::new(dialing(&log, address(FAR).into()));
    server.ignore(address(FAR));
    let client = server.connect();
    server.send(client, b"detached");
    server.reset(client);
    server.accept(address(FAR));
    assert_eq!(log.entries(), ["made"]);
}

#[test]
fn an_established_connection_outlives_the_one_who_asked() {
    let log = Log::default();
    let mut server = MemoryServer::new(dialing(&log, address(FAR).into()));
    let client = server.connect();
    server.send(client, b"go");
    let (_, far) = server.next_outbound().unwrap();
    server.reset(client);
    assert_eq!(log.entries(), ["made"]);
    assert_eq!(server.seen(far), Seen::Open);
}

#[test]
fn another_attempt_in_its_place_cancels_the_first() {
    let log = Log::default();
    let mut server = MemoryServer::new(dialing(&log, address(FAR).into()));
    server.ignore(address(FAR));
    let client = server.connect();
    server.send(client, b"go");
    server.send(client, b"go");
    assert_eq!(log.entries(), ["lost aborted"]);
    assert_eq!(server.connections(), 2);
}

#[test]
fn an_attempt_knows_whether_it_is_over() {
    let log = Log::default();
    let mut server = MemoryServer::new(dialing(&log, address(FAR).into()));
    server.ignore(address(FAR));
    let client = server.connect();
    server.send(client, b"go");
    server.send(client, b"is over?");
    assert_eq!(server.received(client), b"Some(false)");
    server.refuse(address(FAR));
    server.send(client, b"is over?");
    assert_eq!(server.received(client), b"Some(true)");
}

#[test]
fn reserved_places_are_left_for_outbound_connections() {
    let log = Log::default();
    let config = Config {
        max_connections: 3,
        reserved_outbound: 1,
        ..Config::default()
    };
    let mut server = MemoryServer::with_config(dialing(&log, address(FAR).into()), config);
    let clients = [server.connect(), server.connect(), server.connect()];
    let seen = clients.map(|client| server.seen(client));
    assert_eq!(seen, [Seen::Open, Seen::Open, Seen::End]);
    server.send(clients[0], b"detached");
    assert_eq!(log.entries(), ["made"]);
    server.send(clients[0], b"detached");
    let told = "lost cannot connect: max_connections allows no more connections";
    assert_eq!(log.entries(), ["made", told]);

    // Of two outbound connections only one has a reserved place.
    server.reset(clients[1]);
    server.send(clients[0], b"detached");
    let late = server.connect();
    assert_eq!(server.seen(late), Seen::End);
    let (_, far) = server.next_outbound().unwrap();
    server.reset(far);
    let late = server.connect();
    assert_eq!(server.seen(late), Seen::Open);
}

#[test]
fn all_places_cannot_be_reserved() {
    let config = Config {
        max_connections: 3,
        reserved_outbound: 3,
        ..Config::default()
    };
    let problem = config.validate().unwrap_err().to_string();
    assert_eq!(
        problem,
        "reserved_outbound must be less than max_connections (3), not 3"
    );
}

/// Notes which of its hooks are called.
struct Hooked(Log, Option<std::time::Instant>);

impl Factory for Hooked {
    type Protocol = Boxed;

    fn build_protocol(&mut self, _: &Peer) -> Option<Boxed> {
        self.0.push("build");
        None
    }

    fn needs_stream(&self, listener: usize) -> bool {
        self.0.push(format!("needs_stream {listener}"));
        false
    }

    fn started(&mut self, actions: &mut Actions<'_, Boxed>) {
        self.0.push("started");
        self.1 = Some(actions.now() + millis(10));
        actions.waker().wake();
    }

    fn poll_timeout(&self) -> Option<std::time::Instant> {
        self.1
    }

    fn handle_timeout(&mut self, _: &mut Actions<'_, Boxed>) {
        self.0.push("timeout");
        self.1 = None;
    }

    fn woken(&mut self, _: &mut Actions<'_, Boxed>) {
        self.0.push("woken");
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        self.0.push(format!("error {}", ended.reason()));
    }
}

#[test]
fn hooks_of_the_factory_inside_are_called() {
    let log = Log::default();
    let make = |dialer: &Dialer<Boxed>| {
        let gone = Box::new(Probe::new(&Log::default()));
        dialer.connect(Vec::new(), gone as Boxed).detach();
        Hooked(log.clone(), None)
    };
    let mut server = MemoryServer::new(Dialing::new(make));
    server.advance(millis(20));
    server.connect();
    let error = "error cannot connect: there is no address to connect to";
    assert_eq!(
        log.entries(),
        ["started", "woken", error, "timeout", "build"]
    );
    assert!(server.factory().factory().needs_stream(5) || log.count("needs_stream 5") == 1);
}

#[test]
fn who_asks_after_the_end_of_the_loop_is_told_by_drop() {
    let kept = Arc::<Mutex<Option<Dialer<Boxed>>>>::default();
    let keep = Arc::clone(&kept);
    let server = MemoryServer::new(Dialing::new(move |dialer: &Dialer<Boxed>| {
        *keep.lock().unwrap() = Some(dialer.clone());
        |_: &Peer| None::<Boxed>
    }));
    drop(server);
    let log = Log::default();
    let dialer = kept.lock().unwrap().take().unwrap();
    let dial = dialer.connect(address(FAR), Box::new(Probe::new(&log)) as Boxed);
    assert!(dial.is_over());
    assert_eq!(log.entries(), [""; 0]);
}

#[test]
fn models_without_a_loop_refuse() {
    type Serve = fn(serveloop::server::Serving<Plain>) -> std::io::Result<serveloop::Statistics>;
    type Plain =
        Dialing<fn(&Dialer<Boxed>) -> fn(&Peer) -> Option<Boxed>, fn(&Peer) -> Option<Boxed>>;
    fn make(_: &Dialer<Boxed>) -> fn(&Peer) -> Option<Boxed> {
        |_| None
    }

    let models: [Serve; 3] = [
        |it| it.serve_sequential(),
        |it| it.serve_threading(),
        |it| it.serve_forking(),
    ];
    for serve in models {
        let server = Server::bind(&[address("tcp://127.0.0.1:0")], Config::default()).unwrap();
        let factory: Plain = Dialing::new(make as fn(&Dialer<Boxed>) -> fn(&Peer) -> Option<Boxed>);
        let error = serve(server.with(factory)).unwrap_err();
        assert!(error.to_string().contains("loop"), "{error}");
    }
}

/// Says on which thread it is.
struct Named(Dialer<Boxed>, Address);

impl Protocol for Named {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let outbox = transport.outbox();
        let here = std::thread::current().id();
        let probe = Probe::new(&Log::default()).made(move |_| {
            let is_same = here == std::thread::current().id();
            let _ = outbox.post(is_same.to_string().into_bytes());
            Ok(())
        });
        self.0
            .connect(self.1.clone(), Box::new(probe) as Boxed)
            .detach();
        Ok(data.len())
    }
}

#[test]
fn each_worker_has_a_dialer_of_its_own() {
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Address::Tcp(far.local_addr().unwrap());
    let config = Config {
        reuse_port: true,
        ..Config::default()
    };
    let server = Server::bind(&[address("tcp://127.0.0.1:0")], config).unwrap();
    let (handle, at) = (server.shutdown_handle(), server.addresses()[0].clone());
    let factory = Dialing::new(move |dialer: &Dialer<Boxed>| {
        let (dialer, to) = (dialer.clone(), to.clone());
        move |_: &Peer| Some(Box::new(Named(dialer.clone(), to.clone())) as Boxed)
    });
    let serving = std::thread::spawn(move || server.with(factory).serve_workers(2));

    for _ in 0..16 {
        let mut client = TcpStream::connect(at.socket_addr().unwrap()).unwrap();
        client.write_all(b"?").unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"true");
    }
    handle.shutdown();
    assert_eq!(serving.join().unwrap().unwrap().connected, 16);
}

/// A peer that accepts connections without a thread, and a protocol that closes at once.
fn far_end(log: &Log) -> (TcpListener, Address, Boxed) {
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Address::Tcp(far.local_addr().unwrap());
    let probe = Probe::new(log).made(|transport| {
        transport.abort();
        Ok(())
    });
    (far, to, Box::new(probe))
}

#[test]
fn a_loop_without_listeners_opens_what_was_asked_for_before_it_began() {
    for runs in [true, false] {
        let log = Log::default();
        let (_far, to, protocol) = far_end(&log);
        let dialing = Dialing::new(|_: &Dialer<Boxed>| |_: &Peer| None::<Boxed>);
        dialing.dialer().connect(to, protocol).detach();
        let mut reactor = Reactor::new(dialing, Config::default()).unwrap();
        match runs {
            true => reactor.run().unwrap(),
            false => {
                while !reactor.is_finished() {
                    reactor.turn(None).unwrap();
                }
            }
        }
        assert_eq!(reactor.statistics().connected, 1);
        assert_eq!(log.entries()[0], "made");
    }
}

/// Connects when its loop begins.
struct Starting(Option<(Address, Boxed)>);

impl Factory for Starting {
    type Protocol = Boxed;

    fn build_protocol(&mut self, _: &Peer) -> Option<Boxed> {
        None
    }

    fn started(&mut self, actions: &mut Actions<'_, Boxed>) {
        let (to, protocol) = self.0.take().unwrap();
        actions.connect(to, protocol);
    }
}

#[test]
fn a_loop_without_listeners_opens_what_its_factory_asks_for_at_the_start() {
    let log = Log::default();
    let (_far, to, protocol) = far_end(&log);
    let mut reactor = Reactor::new(Starting(Some((to, protocol))), Config::default()).unwrap();
    reactor.run().unwrap();
    assert_eq!(log.entries()[0], "made");
}

#[test]
fn a_loop_without_anything_to_do_ends_however_it_is_run() {
    let reactor = || {
        let dialing = Dialing::new(|_: &Dialer<Boxed>| |_: &Peer| None::<Boxed>);
        Reactor::new(dialing, Config::default()).unwrap()
    };
    reactor().run().unwrap();

    let mut turned = reactor();
    assert_eq!(turned.timeout(), Some(millis(0)));
    while !turned.is_finished() {
        turned.turn(None).unwrap();
    }
}
