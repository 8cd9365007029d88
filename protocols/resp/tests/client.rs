//! The client's side in memory: values of every kind, whatever way they are cut, and connections that
//! fail.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serveloop::net::Target;
use serveloop::service::{Dialer, Dialing, Reply, Upstream, UpstreamError, UpstreamLimits};
use serveloop::testing::{Client, MemoryServer, Seen};
use serveloop::{Config, Factory, Limits, Peer, Protocol};
use serveloop_resp::client::{Requests, Subscriber, Subscription, Value, request};

type Boxed = Box<dyn Protocol + Send>;

fn target() -> Target {
    "tcp://192.0.2.1:6379".parse().expect("an address")
}

struct Front<A>(Upstream<A>);

impl<A> Factory for Front<A> {
    type Protocol = Boxed;

    fn build_protocol(&mut self, _: &Peer) -> Option<Boxed> {
        None
    }
}

type Server<A> = MemoryServer<Dialing<Box<dyn FnMut(&Dialer<Boxed>) -> Front<A>>, Front<A>>>;

fn limits() -> UpstreamLimits {
    UpstreamLimits {
        max_in_flight: 100,
        ..UpstreamLimits::default()
    }
}

fn asking_with(
    config: Config,
    login: &'static [&'static [&'static [u8]]],
) -> (Server<Value>, Upstream<Value>) {
    let make = move |dialer: &Dialer<Boxed>| {
        let make = move |link| {
            let plain = Requests::new(link);
            let requests = login.iter().fold(plain, |it, words| it.with_login(words));
            Box::new(requests) as Boxed
        };
        Front(Upstream::new(dialer, target(), limits(), make))
    };
    let make = Box::new(make) as Box<dyn FnMut(&Dialer<Boxed>) -> Front<Value>>;
    let mut server = MemoryServer::with_config(Dialing::new(make), config);
    let upstream = server.factory().factory().0.clone();
    (server, upstream)
}

fn asking() -> (Server<Value>, Upstream<Value>, Client) {
    let (mut server, upstream) = asking_with(Config::default(), &[]);
    let (_, redis) = server.next_outbound().expect("it connects");
    (server, upstream, redis)
}

fn ask(server: &mut Server<Value>, upstream: &Upstream<Value>, word: &[u8]) -> Reply<Value> {
    let reply = upstream.request(|| (), request(&[word])).expect("room");
    server.run();
    reply
}

fn bytes(text: &str) -> Value {
    Value::Bytes(text.as_bytes().to_vec())
}

fn samples() -> Vec<(&'static [u8], Value)> {
    vec![
        (b"+OK\r\n", bytes("OK")),
        (b"$5\r\nhe\r\no\r\n", bytes("he\r\no")),
        (b"$0\r\n\r\n", bytes("")),
        (b"$-1\r\n", Value::Null),
        (b"*-1\r\n", Value::Null),
        (b"_\r\n", Value::Null),
        (b":-12\r\n", Value::Integer(-12)),
        (b"-ERR no\r\n", Value::Error(b"ERR no".to_vec())),
        (b"!6\r\nERR no\r\n", Value::Error(b"ERR no".to_vec())),
        (b",1.5\r\n", Value::Double(1.5)),
        (b",-inf\r\n", Value::Double(f64::NEG_INFINITY)),
        (b"#t\r\n", Value::Boolean(true)),
        (b"#f\r\n", Value::Boolean(false)),
        (
            b"(123456789012345678901\r\n",
            bytes("123456789012345678901"),
        ),
        (b"=6\r\ntxt:hi\r\n", bytes("hi")),
        (b"*0\r\n", Value::Array(vec![])),
        (b"%0\r\n", Value::Map(vec![])),
        (
            b"*2\r\n:1\r\n*2\r\n$1\r\na\r\n*0\r\n",
            Value::Array(vec![
                Value::Integer(1),
                Value::Array(vec![bytes("a"), Value::Array(vec![])]),
            ]),
        ),
        (b"~1\r\n:1\r\n", Value::Array(vec![Value::Integer(1)])),
        (
            b"%1\r\n+a\r\n*1\r\n_\r\n",
            Value::Map(vec![(bytes("a"), Value::Array(vec![Value::Null]))]),
        ),
    ]
}

#[test]
fn values_of_every_kind_are_read_whole() {
    let (mut server, upstream, redis) = asking();
    for (data, value) in samples() {
        let mut reply = ask(&mut server, &upstream, b"x");
        server.send(redis, data);
        assert_eq!(reply.take(), Some(Ok(value)), "{}", data.escape_ascii());
    }
}

#[test]
fn values_are_read_however_they_are_cut() {
    let (mut server, upstream, redis) = asking();
    let samples = samples();
    let mut replies: Vec<_> = samples
        .iter()
        .map(|_| ask(&mut server, &upstream, b"x"))
        .collect();
    let stream: Vec<u8> = samples.iter().flat_map(|(data, _)| data.to_vec()).collect();
    for byte in &stream {
        server.send(redis, &[*byte]);
    }
    for ((data, value), reply) in samples.into_iter().zip(&mut replies) {
        assert_eq!(reply.take(), Some(Ok(value)), "{}", data.escape_ascii());
    }
}

#[test]
fn many_values_may_come_at_once() {
    let (mut server, upstream, redis) = asking();
    let mut replies: Vec<_> = (0..90).map(|_| ask(&mut server, &upstream, b"x")).collect();
    let stream: Vec<u8> = (0..90)
        .flat_map(|n| format!(":{n}\r\n").into_bytes())
        .collect();
    server.send(redis, &stream);
    for (number, reply) in replies.iter_mut().enumerate() {
        assert_eq!(reply.take(), Some(Ok(Value::Integer(number as i64))));
    }
}

#[test]
fn what_is_no_value_ends_the_connection() {
    let nested = "*1\r\n".repeat(33);
    let broken: [&[u8]; 12] = [
        b"x\r\n",
        b"\r\n",
        b"+OK\n",
        b":one\r\n",
        b"$x\r\n",
        b"$-2\r\n",
        b"%-1\r\n",
        b"$1\r\nab\r\n",
        b"*99999999999\r\n",
        b"$99999999999\r\n",
        b"%9223372036854775807\r\n",
        nested.as_bytes(),
    ];
    for data in broken {
        let (mut server, upstream, redis) = asking();
        let mut reply = ask(&mut server, &upstream, b"x");
        server.send(redis, data);
        server.finish(redis);
        let answer = reply.take();
        assert_eq!(
            answer,
            Some(Err(UpstreamError::Lost)),
            "{}",
            data.escape_ascii()
        );
    }
}

#[test]
fn an_answer_to_no_request_ends_the_connection() {
    let (mut server, upstream, redis) = asking();
    server.send(redis, b"+OK\r\n");
    assert_ne!(server.seen(redis), Seen::Open);
    assert_eq!(server.statistics().closed_malformed, 1);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn pushed_data_is_no_answer() {
    let (mut server, upstream, redis) = asking();
    let mut reply = ask(&mut server, &upstream, b"x");
    server.send(redis, b">2\r\n+invalidate\r\n*0\r\n:1\r\n");
    assert_eq!(reply.take(), Some(Ok(Value::Integer(1))));
}

#[test]
fn an_answer_is_limited() {
    let limits = Limits {
        max_frame: 100,
        ..Limits::default()
    };
    let config = Config {
        limits,
        ..Config::default()
    };
    let (mut server, upstream) = asking_with(config, &[]);
    let (_, redis) = server.next_outbound().expect("it connects");
    let mut reply = ask(&mut server, &upstream, b"x");
    server.send(redis, b"$101\r\n");
    server.finish(redis);
    assert_eq!(reply.take(), Some(Err(UpstreamError::Lost)));
    assert_eq!(server.statistics().closed_too_long, 1);
}

#[test]
fn requests_wait_for_the_login() {
    let login: &[&[&[u8]]] = &[&[b"AUTH", b"secret"], &[b"SELECT", b"2"]];
    let (mut server, upstream) = asking_with(Config::default(), login);
    let (_, redis) = server.next_outbound().expect("it connects");
    let _reply = ask(&mut server, &upstream, b"x");
    let expected = [request(login[0]), request(login[1])].concat();
    assert_eq!(server.received(redis), expected);
    server.send(redis, b"+OK\r\n");
    assert_eq!(server.received(redis), b"");
    server.send(redis, b"+OK\r\n");
    assert_eq!(server.received(redis), request(&[b"x"]));
}

#[test]
fn a_login_that_fails_is_tried_again_later() {
    let login: &[&[&[u8]]] = &[&[b"AUTH", b"wrong"]];
    let (mut server, upstream) = asking_with(Config::default(), login);
    let mut attempts = 0;
    for _ in 0..100 {
        while let Some((_, redis)) = server.next_outbound() {
            attempts += 1;
            server.send(redis, b"-WRONGPASS no\r\n");
            server.finish(redis);
        }
        server.advance(Duration::from_millis(100));
    }
    assert!((5..=12).contains(&attempts), "{attempts} in ten seconds");
    assert_eq!(upstream.connections(), 0);
}

/// Writes down what it hears.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn note(&self, text: String) {
        self.0.lock().expect("a list").push(text);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("a list"))
    }
}

impl Subscriber for Heard {
    fn message(&mut self, channel: &[u8], message: &[u8]) {
        self.note(format!(
            "{} {}",
            channel.escape_ascii(),
            message.escape_ascii()
        ));
    }

    fn subscribed(&mut self) {
        self.note("subscribed".to_owned());
    }

    fn lost(&mut self) {
        self.note("lost".to_owned());
    }
}

fn listening() -> (Server<()>, Heard) {
    let heard = Heard::default();
    let hear = heard.clone();
    let make = move |dialer: &Dialer<Boxed>| {
        let hear = hear.clone();
        let make =
            move |link| Box::new(Subscription::new(link, &[b"a", b"b"], hear.clone())) as Boxed;
        Front(Upstream::new(dialer, target(), limits(), make))
    };
    let make = Box::new(make) as Box<dyn FnMut(&Dialer<Boxed>) -> Front<()>>;
    (MemoryServer::new(Dialing::new(make)), heard)
}

const CONFIRMED: &[u8] =
    b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n";

#[test]
fn a_subscription_is_made_again() {
    let (mut server, heard) = listening();
    let (_, redis) = server.next_outbound().expect("it connects");
    assert_eq!(server.received(redis), request(&[b"SUBSCRIBE", b"a", b"b"]));
    server.send(redis, CONFIRMED);
    server.send(redis, b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n");
    server.send(redis, b">3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$2\r\nho\r\n");
    assert_eq!(heard.take(), ["subscribed", "a hi", "b ho"]);
    server.reset(redis);
    assert_eq!(heard.take(), ["lost"]);
    server.advance(Duration::from_millis(100));
    let (_, redis) = server.next_outbound().expect("it connects again");
    assert_eq!(server.received(redis), request(&[b"SUBSCRIBE", b"a", b"b"]));
    server.send(redis, CONFIRMED);
    assert_eq!(heard.take(), ["subscribed"]);
}

#[test]
fn a_silent_server_is_asked_and_given_up() {
    let (mut server, heard) = listening();
    let (_, redis) = server.next_outbound().expect("it connects");
    server.send(redis, CONFIRMED);
    server.received(redis);
    for _ in 0..3 {
        server.advance(Duration::from_secs(10));
        assert_eq!(server.received(redis), request(&[b"PING"]));
        server.send(redis, b"*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    }
    assert_eq!(heard.take(), ["subscribed"]);
    server.advance(Duration::from_secs(20));
    assert_eq!(server.seen(redis), Seen::Reset);
    assert_eq!(heard.take(), ["lost"]);
}

#[test]
fn a_refused_subscription_fails() {
    let (mut server, heard) = listening();
    let (_, redis) = server.next_outbound().expect("it connects");
    server.send(redis, b"-NOPERM no\r\n");
    server.finish(redis);
    assert_eq!(heard.take(), ["lost"]);
}
