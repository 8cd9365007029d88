//! Channels as clients see them, in memory and under virtual time.

use std::sync::Arc;
use std::time::Duration;

use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Config, Limits};
use serveloop_resp::Resp;
use serveloop_resp::store::{Connection, Settings, Store};

type Client = MemorySession<Resp<Connection>>;

fn client_of(store: &Arc<Store>) -> Client {
    MemorySession::new(Resp::new(store.connection()))
}

/// Sends the line and returns all that comes, with spaces for line ends.
fn ask(client: &mut Client, line: &str) -> String {
    client.receive(format!("{line}\r\n").as_bytes());
    heard(client)
}

fn heard(client: &mut Client) -> String {
    client.run();
    let sent = String::from_utf8(client.sent()).expect("text");
    sent.replace("\r\n", " ").trim_end().to_owned()
}

#[track_caller]
fn check(client: &mut Client, talk: &[(&str, &str)]) {
    for (line, reply) in talk {
        assert_eq!(ask(client, line), *reply, "{line}");
    }
}

#[test]
fn what_is_published_is_heard() {
    let store = Store::new(Settings::default());
    let [mut ann, mut bob, mut eve] = std::array::from_fn(|_| client_of(&store));
    check(
        &mut ann,
        &[(
            "subscribe news other",
            "*3 $9 subscribe $4 news :1 *3 $9 subscribe $5 other :2",
        )],
    );
    assert!(ask(&mut bob, "hello 3").starts_with("%7"));
    check(
        &mut bob,
        &[("psubscribe n?ws", ">3 $10 psubscribe $4 n?ws :1")],
    );

    check(
        &mut eve,
        &[
            ("publish news hello", ":2"),
            ("publish other hi", ":1"),
            ("publish nothing hi", ":0"),
            ("pubsub channels", "*2 $4 news $5 other"),
            ("pubsub channels n*", "*1 $4 news"),
            ("pubsub numsub news none", "*4 $4 news :1 $4 none :0"),
            ("pubsub numpat", ":1"),
            (
                "pubsub frob",
                "-ERR unknown subcommand 'frob'. Try PUBSUB HELP.",
            ),
        ],
    );
    assert_eq!(
        heard(&mut ann),
        "*3 $7 message $4 news $5 hello *3 $7 message $5 other $2 hi"
    );
    assert_eq!(heard(&mut bob), ">4 $8 pmessage $4 n?ws $4 news $5 hello");

    let list = ask(&mut eve, "client list type pubsub");
    assert_eq!(list.matches("flags=P").count(), 2, "{list}");
    assert!(
        list.contains(" sub=2 psub=0 ") && list.contains(" sub=0 psub=1 "),
        "{list}"
    );
}

#[test]
fn a_client_of_resp2_only_listens() {
    let store = Store::new(Settings::default());
    let mut client = client_of(&store);
    let refusal = "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";
    check(
        &mut client,
        &[
            ("unsubscribe", "*3 $11 unsubscribe $-1 :0"),
            ("unsubscribe none", "*3 $11 unsubscribe $4 none :0"),
            (
                "subscribe a a",
                "*3 $9 subscribe $1 a :1 *3 $9 subscribe $1 a :1",
            ),
            ("get a", refusal),
            ("ping", "*2 $4 pong $0"),
            ("ping hi", "*2 $4 pong $2 hi"),
            ("psubscribe *", "*3 $10 psubscribe $1 * :2"),
            ("unsubscribe", "*3 $11 unsubscribe $1 a :1"),
            ("punsubscribe *", "*3 $12 punsubscribe $1 * :0"),
            ("get a", "$-1"),
            ("subscribe a", "*3 $9 subscribe $1 a :1"),
            ("reset", "+RESET"),
            ("get a", "$-1"),
            ("publish a x", ":0"),
        ],
    );
}

#[test]
fn a_client_of_resp3_does_anything_while_it_listens() {
    let store = Store::new(Settings::default());
    let mut client = client_of(&store);
    ask(&mut client, "hello 3");
    check(
        &mut client,
        &[
            ("subscribe a", ">3 $9 subscribe $1 a :1"),
            ("get a", "_"),
            ("ping", "+PONG"),
        ],
    );
    assert_eq!(
        ask(&mut client, "publish a hi"),
        ":1 >3 $7 message $1 a $2 hi"
    );
}

#[test]
fn those_that_leave_are_no_members() {
    let store = Store::new(Settings::default());
    let (mut gone, mut eve) = (client_of(&store), client_of(&store));
    ask(&mut gone, "psubscribe a*");
    ask(&mut gone, "subscribe abc");
    check(
        &mut eve,
        &[("publish abc x", ":2"), ("pubsub numpat", ":1")],
    );
    gone.receive_eof();
    check(
        &mut eve,
        &[
            ("publish abc x", ":0"),
            ("pubsub numpat", ":0"),
            ("pubsub channels", "*0"),
        ],
    );
}

/// A message behind the confirmation would be the reply to the next request, for a client of RESP2. What a
/// client publishes to itself is surely still on its way when it leaves.
#[test]
fn a_client_that_has_left_hears_nothing_of_what_was_published_before() {
    let store = Store::new(Settings::default());
    let mut ann = client_of(&store);
    assert!(ask(&mut ann, "hello 3").starts_with('%'));
    check(
        &mut ann,
        &[
            (
                "subscribe a b",
                ">3 $9 subscribe $1 a :1 >3 $9 subscribe $1 b :2",
            ),
            ("psubscribe ?", ">3 $10 psubscribe $1 ? :3"),
        ],
    );

    let lines = "publish a hi\r\npublish b hi\r\nunsubscribe a\r\npunsubscribe ?";
    let left = ":2 :2 >3 $11 unsubscribe $1 a :2 >3 $12 punsubscribe $1 ? :1";
    let kept = ">3 $7 message $1 b $2 hi";
    assert_eq!(ask(&mut ann, lines), format!("{left} {kept}"));

    let lines = "publish b hi\r\nunsubscribe\r\nget nothing";
    assert_eq!(ask(&mut ann, lines), ":1 >3 $11 unsubscribe $1 b :0 _");
    let lines = "subscribe a\r\npublish a hi\r\nunsubscribe\r\nsubscribe b";
    let left = ">3 $9 subscribe $1 a :1 :1 >3 $11 unsubscribe $1 a :0 >3 $9 subscribe $1 b :1";
    assert_eq!(ask(&mut ann, lines), left);
    let lines = "publish b hi\r\nreset\r\nget nothing";
    assert_eq!(ask(&mut ann, lines), ":1 +RESET $-1");
}

/// Afterwards it is like everybody else.
#[test]
fn a_listener_may_be_silent_for_an_hour() {
    let store = Store::new(Settings::default());
    let mut client = client_of(&store);
    ask(&mut client, "subscribe a");
    client.advance(Duration::from_secs(3_500));
    assert!(client.reason().is_none());
    let mut other = client_of(&store);
    assert_eq!(ask(&mut other, "publish a hi"), ":1");
    assert_eq!(heard(&mut client), "*3 $7 message $1 a $2 hi");
    client.advance(Duration::from_secs(3_500));
    assert!(client.reason().is_none());
    check(
        &mut client,
        &[("unsubscribe a", "*3 $11 unsubscribe $1 a :0")],
    );
    client.advance(Duration::from_secs(1_000));
    assert!(client.reason().is_some());
}

/// One that does not read is disconnected, and the others miss nothing.
#[test]
fn a_listener_that_does_not_keep_up_is_disconnected() {
    let config = Config {
        limits: Limits {
            max_posted: 50_000,
            ..Limits::default()
        },
        ..Config::default()
    };
    let store = Store::new(Settings::default());
    let make = || Client::with_config(Resp::new(store.connection()), config.clone());
    let [mut deaf, mut ann, mut eve] = std::array::from_fn(|_| make());
    ask(&mut deaf, "subscribe a");
    ask(&mut ann, "subscribe a");
    deaf.stop_taking();

    let text = "x".repeat(1_000);
    let mut told = 0;
    for _ in 0..500 {
        let count = ask(&mut eve, &format!("publish a {text}"));
        deaf.run();
        told += heard(&mut ann).matches("message").count();
        assert!(deaf.held() < 300_000, "{}", deaf.held());
        assert!(count == ":1" || count == ":2", "{count}");
    }
    assert_eq!(told, 500);
    assert!(matches!(deaf.reason(), Some(CloseReason::Lagging)));
    check(&mut eve, &[("publish a x", ":1")]);
}

#[test]
fn subscriptions_are_charged() {
    let store = Store::new(Settings::default());
    let mut client = client_of(&store);
    let before = client.held();
    for number in 0..100 {
        ask(
            &mut client,
            &format!("subscribe {number}{}", "x".repeat(1_000)),
        );
    }
    assert!(client.held() - before > 100_000, "{}", client.held());
    ask(&mut client, "unsubscribe");
    assert_eq!(client.held(), before);
}
