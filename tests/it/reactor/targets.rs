//! Outbound connections to names and to several addresses: which is used, and when each is tried.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use serveloop::net::Target;
use serveloop::testing::{Client, MemoryServer};
use serveloop::{Actions, Address, Config, Factory, Peer, Protocol, Reactor};

use crate::support::millis;
use crate::support::probe::{Log, Probe};

const NAME: &str = "tcp://host.example:80";

/// Connects to whatever is put here.
#[derive(Default)]
struct Caller {
    targets: Vec<Target>,
    log: Log,
}

impl Factory for Caller {
    type Protocol = Box<dyn Protocol>;

    fn build_protocol(&mut self, _: &Peer) -> Option<Self::Protocol> {
        None
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        for target in self.targets.drain(..) {
            actions.connect_to(target, probe(&self.log));
        }
    }
}

fn probe(log: &Log) -> Box<dyn Protocol> {
    let notes = log.clone();
    Box::new(Probe::new(log).made(move |transport| {
        notes.push(format!("to {}", transport.peer()));
        transport.write(b"hello");
        Ok(())
    }))
}

fn address(number: u16) -> Address {
    Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, number)))
}

fn server(config: Config) -> (MemoryServer<Caller>, Log) {
    let caller = Caller::default();
    let log = caller.log.clone();
    (MemoryServer::with_config(caller, config), log)
}

/// A server that connects to three addresses, of which none answers yet.
fn silent(config: Config) -> (MemoryServer<Caller>, Log) {
    let (mut server, log) = server(config);
    for number in 1..=3 {
        server.ignore(address(number));
    }
    call(&mut server, vec![address(1), address(2), address(3)]);
    (server, log)
}

fn call(server: &mut MemoryServer<Caller>, target: impl Into<Target>) {
    server.factory().targets.push(target.into());
    server.run();
}

fn outbound(server: &mut MemoryServer<Caller>) -> Vec<(Address, Client)> {
    std::iter::from_fn(|| server.next_outbound()).collect()
}

#[test]
fn a_name_is_looked_up() {
    let (mut server, log) = server(Config::default());
    server.name(NAME, vec![address(1)]);
    call(&mut server, NAME.parse::<Target>().unwrap());
    let (to, far) = outbound(&mut server).remove(0);
    assert_eq!(to, address(1));
    assert_eq!(server.received(far), b"hello");
    assert_eq!(log.entries(), ["made", "to tcp://127.0.0.1:1"]);
}

#[test]
fn a_name_without_addresses_fails_once_with_a_reason() {
    let (mut server, log) = server(Config::default());
    call(&mut server, NAME.parse::<Target>().unwrap());
    let told = format!("lost cannot connect: {NAME}: the name has no address");
    assert_eq!(log.entries(), [told]);
    assert_eq!(server.statistics().connected, 1);
    assert_eq!(server.statistics().closed(), 1);
}

#[test]
fn the_time_to_connect_includes_the_lookup() {
    let (mut server, log) = server(Config::default());
    server.delay_name(NAME);
    call(&mut server, NAME.parse::<Target>().unwrap());
    let timeout = Config::default().connect_timeout.unwrap();
    server.advance(timeout - millis(1));
    assert_eq!(log.entries(), [""; 0]);
    server.advance(millis(1));
    assert_eq!(log.entries(), ["lost timed out: not connected in time"]);
    server.name(NAME, vec![address(1)]);
    assert!(outbound(&mut server).is_empty());
}

#[test]
fn the_rest_of_the_time_is_for_the_connection() {
    let (mut server, log) = server(Config::default());
    server.delay_name(NAME);
    server.ignore(address(1));
    call(&mut server, NAME.parse::<Target>().unwrap());
    let timeout = Config::default().connect_timeout.unwrap();
    server.advance(timeout - millis(10));
    server.name(NAME, vec![address(1)]);
    server.advance(millis(9));
    assert_eq!(log.entries(), [""; 0]);
    server.advance(millis(1));
    assert_eq!(log.entries(), ["lost timed out: not connected in time"]);
}

#[test]
fn a_shutdown_ends_a_lookup() {
    let (mut server, log) = server(Config::default());
    server.delay_name(NAME);
    call(&mut server, NAME.parse::<Target>().unwrap());
    server.shutdown();
    assert_eq!(log.entries(), ["lost closed by the server's shutdown"]);
    assert!(server.is_finished());
}

#[test]
fn the_next_address_is_tried_after_a_quarter_of_a_second() {
    let (mut server, log) = silent(Config::default());
    server.accept(address(2));
    server.advance(millis(249));
    assert_eq!(log.entries(), [""; 0]);
    server.advance(millis(1));
    assert_eq!(log.entries(), ["made", "to tcp://127.0.0.1:2"]);
    let (to, far) = outbound(&mut server).remove(0);
    assert_eq!(to, address(2));
    assert_eq!(server.received(far), b"hello");
    server.send(far, b"news");
    assert_eq!(log.entries().last().unwrap(), "data news");
    assert_eq!(server.connections(), 1);
}

#[test]
fn the_first_to_answer_is_used_and_the_others_are_closed() {
    let (mut server, log) = silent(Config::default());
    server.advance(millis(500));
    server.accept(address(1));
    assert_eq!(log.entries(), ["made", "to tcp://127.0.0.1:1"]);
    assert_eq!(outbound(&mut server).len(), 1);

    server.accept(address(2));
    server.accept(address(3));
    assert!(outbound(&mut server).is_empty(), "nobody waits there");
    assert_eq!(server.connections(), 1);
    assert_eq!(server.statistics().connected, 1);
    assert_eq!(server.statistics().stale_events, 0);
}

#[test]
fn an_earlier_address_may_still_answer_when_a_later_one_has_refused() {
    let (mut server, log) = server(Config::default());
    server.ignore(address(1));
    server.refuse(address(2));
    call(&mut server, vec![address(1), address(2)]);
    server.advance(millis(1_000));
    assert_eq!(log.entries(), [""; 0]);
    server.accept(address(1));
    assert_eq!(log.entries(), ["made", "to tcp://127.0.0.1:1"]);
}

#[test]
fn an_address_that_fails_late_leaves_its_place_to_another() {
    let (mut server, log) = silent(Config::default());
    server.advance(millis(250));
    server.refuse(address(1));
    server.accept(address(2));
    assert_eq!(log.entries(), ["made", "to tcp://127.0.0.1:2"]);
}

#[test]
fn an_address_that_refuses_makes_room_for_the_next_at_once() {
    let (mut server, log) = server(Config::default());
    server.refuse(address(1));
    server.refuse(address(2));
    call(&mut server, vec![address(1), address(2), address(3)]);
    assert_eq!(log.entries(), ["made", "to tcp://127.0.0.1:3"]);
    assert_eq!(outbound(&mut server).len(), 1);
}

#[test]
fn if_all_fail_the_reason_names_each() {
    let (mut server, log) = server(Config::default());
    server.refuse(address(1));
    server.refuse(address(2));
    call(&mut server, vec![address(1), address(2)]);
    let entries = log.entries();
    assert_eq!(entries.len(), 1, "{entries:?}");
    for number in [1, 2] {
        let part = format!("tcp://127.0.0.1:{number}: connection refused");
        assert!(entries[0].contains(&part), "{entries:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn no_address_at_all_fails() {
    let (mut server, log) = server(Config::default());
    call(&mut server, Vec::new());
    let told = "lost cannot connect: there is no address to connect to";
    assert_eq!(log.entries(), [told]);
}

#[test]
fn all_attempts_together_have_the_time_of_one() {
    let timeout = Some(millis(600));
    let (mut server, log) = silent(Config {
        connect_timeout: timeout,
        ..Config::default()
    });
    server.advance(millis(599));
    assert_eq!(log.entries(), [""; 0]);
    server.advance(millis(1));
    assert_eq!(log.entries(), ["lost timed out: not connected in time"]);
    assert_eq!(server.connections(), 0);
    server.accept(address(3));
    assert!(outbound(&mut server).is_empty(), "nobody waits there");
}

#[test]
fn if_time_is_short_each_address_still_gets_its_turn() {
    let timeout = Some(millis(90));
    let (mut server, log) = silent(Config {
        connect_timeout: timeout,
        ..Config::default()
    });
    server.accept(address(3));
    server.advance(millis(89));
    assert_eq!(log.entries(), ["made", "to tcp://127.0.0.1:3"]);
}

#[test]
fn a_shutdown_ends_all_attempts() {
    let (mut server, log) = silent(Config::default());
    server.advance(millis(300));
    server.shutdown();
    assert_eq!(log.entries(), ["lost closed by the server's shutdown"]);
    assert!(server.is_finished());
    server.accept(address(1));
    server.accept(address(2));
    assert!(outbound(&mut server).is_empty(), "nobody waits there");
}

/// Real sockets: nothing listens at the first address, and `localhost` may have two.
#[test]
fn a_real_name_and_real_addresses() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let log = Log::default();
    let name = format!("tcp://localhost:{port}").parse::<Target>().unwrap();
    let both = vec![Address::Tcp(unused), address(port)];

    for target in [name, both.into()] {
        let mut reactor = Reactor::new(Caller::default(), Config::default()).unwrap();
        reactor.connect_to(target, probe(&log));
        let connected = std::thread::scope(|scope| {
            let accepting = scope.spawn(|| listener.accept().map(drop));
            reactor.run().unwrap();
            accepting.join().unwrap()
        });
        connected.unwrap();
    }
    let to = format!("to tcp://127.0.0.1:{port}");
    assert_eq!(log.count(&to), 2, "{:?}", log.entries());
}

#[test]
fn a_real_name_that_does_not_exist() {
    let log = Log::default();
    let mut reactor = Reactor::new(Caller::default(), Config::default()).unwrap();
    let target: Target = "tcp://does-not-exist.invalid:80".parse().unwrap();
    reactor.connect_to(target, probe(&log));
    reactor.run().unwrap();
    let entries = log.entries();
    assert_eq!(entries.len(), 1, "{entries:?}");
    let told = "lost cannot connect: tcp://does-not-exist.invalid:80: ";
    assert!(entries[0].starts_with(told), "{entries:?}");
}
