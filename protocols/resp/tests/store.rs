//! The store as a client sees it, in memory and under virtual time.

mod support;

use std::time::Duration;

use serveloop::testing::SplitChecker;
use serveloop::{CloseReason, Limits};
use serveloop_resp::Resp;
use serveloop_resp::store::{Eviction, Settings, Store};

use support::Client;

impl Client {
    fn wait(&mut self, milliseconds: u64) {
        self.0.advance(Duration::from_millis(milliseconds));
    }
}

/// A bulk string as `ask` returns it.
fn bulk(text: &str) -> String {
    format!("${} {text}", text.len())
}

#[test]
fn values_are_kept() {
    Client::new().check(&[
        ("get a", "$-1"),
        ("set a hello", "+OK"),
        ("GET a", "$5 hello"),
        ("strlen a", ":5"),
        ("append a ' world'", ":11"),
        ("getrange a 0 4", "$5 hello"),
        ("getrange a -5 -1", "$5 world"),
        ("setrange a 6 World", ":11"),
        ("get a", "$11 hello World"),
        ("setrange b 2 x", ":3"),
        ("get b", "$3 \0\0x"),
        ("setrange c 5 ''", ":0"),
        ("exists a b c", ":2"),
        ("getset b new", "$3 \0\0x"),
        ("getdel b", "$3 new"),
        ("getdel b", "$-1"),
        ("setnx a other", ":0"),
        ("setnx d other", ":1"),
        ("mset x 1 y 2", "+OK"),
        ("mget x y z", "*3 $1 1 $1 2 $-1"),
        ("msetnx z 3 x 4", ":0"),
        ("msetnx z 3 w 4", ":1"),
        ("type z", "+string"),
        ("type nothing", "+none"),
        ("del x y nothing", ":2"),
        ("unlink z w", ":2"),
        ("rename a b", "+OK"),
        ("get b", "$11 hello World"),
        ("renamenx b d", ":0"),
        ("renamenx b e", ":1"),
        ("rename e e", "+OK"),
        ("rename nothing e", "-ERR no such key"),
        ("expire e 100", ":1"),
        ("rename e f", "+OK"),
        ("ttl f", ":100"),
        ("dbsize", ":2"),
        ("flushall async", "+OK"),
        ("dbsize", ":0"),
        ("randomkey", "$-1"),
    ]);
}

#[test]
fn counters_count() {
    Client::new().check(&[
        ("incr a", ":1"),
        ("incrby a 41", ":42"),
        ("decr a", ":41"),
        ("decrby a 100", ":-59"),
        ("get a", "$3 -59"),
        ("set b 9223372036854775807", "+OK"),
        ("incr b", "-ERR increment or decrement would overflow"),
        ("get b", "$19 9223372036854775807"),
        (
            "decrby a -9223372036854775808",
            "-ERR decrement would overflow",
        ),
        (
            "incrby a 1.5",
            "-ERR value is not an integer or out of range",
        ),
        ("set c ''", "+OK"),
        ("incr c", "-ERR value is not an integer or out of range"),
        ("set c 01", "+OK"),
        ("incr c", "-ERR value is not an integer or out of range"),
        ("incrbyfloat d 10.5", "$4 10.5"),
        ("incrbyfloat d 0.1", "$4 10.6"),
        ("incrbyfloat d -5", "$3 5.6"),
        ("incrbyfloat d 5.0e3", "$6 5005.6"),
        ("incrbyfloat d x", "-ERR value is not a valid float"),
        (
            "incrbyfloat d inf",
            "-ERR increment would produce NaN or Infinity",
        ),
        ("set e x", "+OK"),
        ("incrbyfloat e 1", "-ERR value is not a valid float"),
    ]);
}

#[test]
fn set_has_options() {
    let mut client = Client::new();
    client.check(&[
        ("set a 1 xx", "$-1"),
        ("set a 1 nx", "+OK"),
        ("set a 2 nx", "$-1"),
        ("set a 2 nx get", "$1 1"),
        ("set b 2 nx get", "$-1"),
        ("get b", "$1 2"),
        ("set a 3 GET", "$1 1"),
        ("set a 4 ex 100", "+OK"),
        ("ttl a", ":100"),
        ("set a 5 keepttl", "+OK"),
        ("ttl a", ":100"),
        ("set a 6", "+OK"),
        ("ttl a", ":-1"),
        ("set a 7 px 2500", "+OK"),
        ("pttl a", ":2500"),
        ("set a 8 exat 99999999999", "+OK"),
        ("expiretime a", ":99999999999"),
        ("set a 8 pxat 99999999999123", "+OK"),
        ("pexpiretime a", ":99999999999123"),
        ("setex a 10 v", "+OK"),
        ("psetex a 10 v", "+OK"),
    ]);

    let time = "-ERR invalid expire time in 'set' command";
    let syntax = "-ERR syntax error";
    client.check(&[
        ("set a 1 ex 0", time),
        ("set a 1 px -1", time),
        ("set a 1 ex 9223372036854775807", time),
        ("set a 1 px 9223372036854775807", time),
        (
            "set a 1 ex x",
            "-ERR value is not an integer or out of range",
        ),
        ("set a 1 ex", syntax),
        ("set a 1 nx xx", syntax),
        ("set a 1 ex 1 px 1", syntax),
        ("set a 1 keepttl ex 1", syntax),
        ("set a 1 ex 1 keepttl", syntax),
        ("set a 1 frob", syntax),
        ("setex a 0 v", "-ERR invalid expire time in 'setex' command"),
        (
            "psetex a -1 v",
            "-ERR invalid expire time in 'psetex' command",
        ),
        (
            "mset a 1 b",
            "-ERR wrong number of arguments for 'mset' command",
        ),
    ]);
}

#[test]
fn keys_expire_at_their_deadline() {
    let mut client = Client::new();
    client.check(&[
        ("set a 1 px 100", "+OK"),
        ("set b 1 ex 10", "+OK"),
        ("set c 1", "+OK"),
    ]);
    client.wait(99);
    client.check(&[("get a", "$1 1"), ("pttl a", ":1"), ("ttl b", ":10")]);
    client.wait(2);
    client.check(&[
        ("get a", "$-1"),
        ("ttl a", ":-2"),
        ("exists a b c", ":2"),
        ("dbsize", ":2"),
    ]);
    client.check(&[("getex b persist", "$1 1"), ("ttl b", ":-1")]);
    client.check(&[
        ("getex b px 50", "$1 1"),
        ("pexpire b 70 lt", ":0"),
        ("pexpire b 60 gt", ":1"),
    ]);
    client.wait(61);
    client.check(&[("setnx b new", ":1"), ("ttl b", ":-1")]);
}

#[test]
fn deadlines_have_conditions() {
    Client::new().check(&[
        ("expire a 10", ":0"),
        ("set a 1", "+OK"),
        ("expire a 10 xx", ":0"),
        ("expire a 10 gt", ":0"),
        ("expire a 10 lt", ":1"),
        ("expire a 10 nx", ":0"),
        ("expire a 20 gt", ":1"),
        ("expire a 10 gt", ":0"),
        ("expire a 5 xx lt", ":1"),
        (
            "expire a 5 nx xx",
            "-ERR NX and XX, GT or LT options at the same time are not compatible",
        ),
        (
            "expire a 5 gt lt",
            "-ERR GT and LT options at the same time are not compatible",
        ),
        ("expire a 5 frob", "-ERR Unsupported option frob"),
        (
            "expire a 9223372036854775807",
            "-ERR invalid expire time in 'expire' command",
        ),
        ("expire a x", "-ERR value is not an integer or out of range"),
        ("persist a", ":1"),
        ("persist a", ":0"),
        ("expireat a 1", ":1"),
        ("exists a", ":0"),
        ("set a 1", "+OK"),
        ("expire a -1", ":1"),
        ("exists a", ":0"),
        ("persist a", ":0"),
    ]);
}

/// Memory is freed also if nobody asks for the keys, a bounded number at a time.
#[test]
fn expired_keys_are_freed_by_and_by() {
    let store = Store::new(Settings::default());
    let mut client = Client::of(&store);
    assert_eq!(store.poll_timeout(), None);
    for number in 0..2_500 {
        client.ask(&format!("set key{number} value px 100"));
    }
    let due = store.poll_timeout().expect("keys expire");
    client.wait(200);
    let now = client.0.now();
    assert!(due <= now && due + Duration::from_millis(150) > now);

    for _ in 0..3 {
        assert!(store.poll_timeout().is_some_and(|at| at <= now));
        store.handle_timeout(now);
    }
    assert_eq!(store.poll_timeout(), None);
    client.check(&[("dbsize", ":0")]);
    assert!(client.ask("info").contains("used_memory:0"));
}

#[test]
fn a_scan_returns_every_key_once() {
    let mut client = Client::new();
    for number in 0..1_000 {
        client.ask(&format!("set key:{number} {number}"));
    }
    let mut found = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let reply = client.ask(&format!("scan {cursor} count 7 match key:*"));
        let mut words = reply.split(' ').skip(2);
        cursor = words.next().expect("a cursor").to_owned();
        found.extend(
            words
                .filter(|word| word.starts_with("key:"))
                .map(str::to_owned),
        );
        if cursor == "0" {
            break;
        }
        // Changes meanwhile concern other keys.
        client.ask(&format!("set other:{} x", found.len()));
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 1_000);

    client.check(&[
        ("scan x", "-ERR invalid cursor"),
        ("scan 0 count 0", "-ERR syntax error"),
        ("scan 0 count", "-ERR syntax error"),
        ("scan 0 frob", "-ERR syntax error"),
        ("scan 99999999999999", "*2 $1 0 *0"),
    ]);
    let keys = client.ask("keys key:99?");
    assert!(keys.starts_with("*10 $7 key:99"), "{keys}");
}

#[test]
fn memory_is_limited_by_eviction() {
    let settings = Settings {
        max_memory: Some(1 << 20),
        ..Settings::default()
    };
    let mut client = Client::of(&Store::new(settings));
    client.ask("set used often");
    for number in 0..10_000 {
        assert_eq!(
            client.ask(&format!("set key:{number} {}", "x".repeat(300))),
            "+OK"
        );
        client.ask("get used");
    }
    client.check(&[("get used", "$5 often")]);
    let info = client.ask("info");
    let used: usize = field(&info, "used_memory").parse().unwrap();
    assert!((900 << 10..=1 << 20).contains(&used), "{used}");
    let evicted: usize = field(&info, "evicted_keys").parse().unwrap();
    assert!(evicted > 7_000, "{evicted}");

    // Old keys have gone, new ones are there.
    let recent =
        (9_900..10_000).filter(|number| client.ask(&format!("exists key:{number}")) == ":1");
    assert!(recent.count() > 95);
    let old = (0..1_000).filter(|number| client.ask(&format!("exists key:{number}")) == ":1");
    assert!(old.count() < 50);
}

#[test]
fn memory_is_limited_by_refusal() {
    let settings = Settings {
        max_memory: Some(5_000),
        eviction: Eviction::NoEviction,
        ..Settings::default()
    };
    let mut client = Client::of(&Store::new(settings));
    client.check(&[("set a 1", "+OK")]);
    let refusal = "-OOM command not allowed when used memory > 'maxmemory'.";
    let much = "x".repeat(7_000);
    for line in [
        format!("set b {much}"),
        format!("append a {much}"),
        format!("mset b {much} c 1"),
        "setrange a 7000 x".to_owned(),
    ] {
        assert_eq!(client.ask(&line), refusal);
    }
    client.check(&[
        ("exists b c", ":0"),
        ("get a", "$1 1"),
        ("del a", ":1"),
        ("set a 2", "+OK"),
    ]);
}

/// A value that replaces one of its own size needs no more memory.
#[test]
fn a_full_store_takes_other_values_under_old_keys() {
    let settings = Settings {
        max_memory: Some(5_000),
        eviction: Eviction::NoEviction,
        ..Settings::default()
    };
    let mut client = Client::of(&Store::new(settings));
    let (old, new) = ("x".repeat(3_000), "y".repeat(3_000));
    client.check(&[
        (&format!("set a {old}"), "+OK"),
        (&format!("set a {new}"), "+OK"),
        (&format!("set a {old} ex 10"), "+OK"),
        ("set b 1", "+OK"),
        ("incr b", ":2"),
        ("get a", &bulk(&old)),
    ]);
}

/// What makes room may be the key that needs it.
#[test]
fn a_reply_tells_the_length_that_the_value_has() {
    let settings = Settings {
        max_memory: Some(5_000),
        ..Settings::default()
    };
    let mut client = Client::of(&Store::new(settings));
    let text = "x".repeat(3_000);
    client.check(&[
        (&format!("append a {text}"), ":3000"),
        (&format!("append a {text}"), ":3000"),
        ("strlen a", ":3000"),
        ("setrange a 3990 0123456789", ":4000"),
        ("strlen a", ":4000"),
    ]);
}

#[test]
fn what_expires_soonest_makes_room() {
    let settings = Settings {
        max_memory: Some(4_500),
        eviction: Eviction::VolatileTtl,
        ..Settings::default()
    };
    let mut client = Client::of(&Store::new(settings));
    let text = "x".repeat(1_500);
    client.check(&[
        (&format!("set late {text} ex 1000"), "+OK"),
        (&format!("set soon {text} ex 10"), "+OK"),
        (&format!("set always {text}"), "+OK"),
        ("exists late", ":1"),
        ("exists soon", ":0"),
        (&format!("set more {text}"), "+OK"),
        ("exists late", ":0"),
        (
            &format!("set evenmore {text}"),
            "-OOM command not allowed when used memory > 'maxmemory'.",
        ),
    ]);
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    let start = info.find(&format!("{name}:")).expect("the field") + name.len() + 1;
    info[start..].split(' ').next().expect("a value")
}

#[test]
fn values_are_as_long_as_a_reply_may_be() {
    let settings = Settings {
        max_value: 10,
        ..Settings::default()
    };
    let mut client = Client::of(&Store::new(settings));
    let refusal = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    client.check(&[
        ("set a 0123456789", "+OK"),
        ("set a 0123456789x", refusal),
        ("append a x", refusal),
        ("setrange b 10 x", refusal),
        ("setrange b 4294967295 x", refusal),
        ("mset c 1 d 0123456789x", refusal),
        ("exists c d", ":0"),
        ("setrange b -1 x", "-ERR offset is out of range"),
    ]);
}

#[test]
fn a_connection_has_a_version_and_a_name() {
    let mut client = Client::new();
    let id = client.ask("client id");
    let greeting = |proto| {
        let id = &id;
        format!(
            "$6 server $5 redis $7 version $5 7.0.0 $5 proto :{proto} $2 id {id} $4 mode $10 standalone $4 role $6 master $7 modules *0"
        )
    };
    client.check(&[
        ("ping", "+PONG"),
        ("ping hi", "$2 hi"),
        ("echo hi", "$2 hi"),
        ("hello", &format!("*14 {}", greeting(2))),
        ("hello 3", &format!("%7 {}", greeting(3))),
        ("get nothing", "_"),
        ("hello 4", "-NOPROTO unsupported protocol version"),
        (
            "hello x",
            "-ERR Protocol version is not an integer or out of range",
        ),
        ("hello 2 setname me", &format!("*14 {}", greeting(2))),
        ("client getname", "$2 me"),
        (
            "client setname 'a b'",
            "-ERR Client names cannot contain spaces, newlines or special characters.",
        ),
        ("client setname you", "+OK"),
        ("client setinfo lib-name test", "+OK"),
        (
            "client setinfo frob test",
            "-ERR Unrecognized option 'frob'",
        ),
        ("client no-evict on", "+OK"),
        (
            "client frob",
            "-ERR unknown subcommand 'frob'. Try CLIENT HELP.",
        ),
        (
            "client id 1",
            "-ERR wrong number of arguments for 'client|id' command",
        ),
        ("select 0", "+OK"),
        ("select 1", "-ERR DB index is out of range"),
        ("select x", "-ERR value is not an integer or out of range"),
        (
            "config get save appendonly",
            "*4 $10 appendonly $2 no $4 save $0",
        ),
        ("config get none", "*0"),
    ]);
    let me = client.ask("client info");
    assert!(
        me.contains(" name=you ") && me.contains(" lib-name=test "),
        "{me}"
    );
    assert!(
        client
            .ask("auth secret")
            .starts_with("-ERR AUTH <password> called")
    );
    client.check(&[
        ("reset", "+RESET"),
        ("client getname", "$-1"),
        ("quit", "+OK"),
    ]);
    assert!(
        matches!(client.0.reason(), Some(CloseReason::Closed)),
        "{:?}",
        client.0.reason()
    );
}

#[test]
fn clients_are_listed_and_ended() {
    let store = Store::new(Settings::default());
    let (mut one, mut two) = (Client::of(&store), Client::of(&store));
    let ids: Vec<_> = [&mut one, &mut two]
        .map(|it| it.ask("client id").split_off(1))
        .into();
    assert_ne!(ids[0], ids[1]);
    let list = one.ask("client list");
    assert_eq!(list.matches("id=").count(), 2, "{list}");
    let list = one.ask(&format!("client list id {}", ids[1]));
    assert!(
        list.contains(&format!("id={} ", ids[1])) && list.matches("id=").count() == 1,
        "{list}"
    );
    assert!(one.ask("client list type pubsub").starts_with("$0"));

    one.check(&[
        (
            "client kill id 0",
            "-ERR client-id should be greater than 0",
        ),
        ("client kill id 999999999", ":0"),
        ("client kill 1.2.3.4:5", "-ERR No such client"),
        (&format!("client kill id {}", ids[1]), ":1"),
    ]);
    two.0.run();
    assert!(two.0.reason().is_some());
    assert_eq!(one.ask("client list").matches("id=").count(), 1);
    one.check(&[(&format!("client kill id {} skipme no", ids[0]), ":1")]);
    assert!(one.0.reason().is_some());
}

/// Names are in the account of the connection that says them, and a list of them is no longer than a reply.
#[test]
fn names_are_charged_and_a_list_of_them_is_limited() {
    let limits = Limits {
        max_reply: 1 << 20,
        ..Limits::default()
    };
    let store = Store::new(Settings::default());
    let mut clients: Vec<_> = (0..6)
        .map(|_| Client::limited(&store, limits.clone()))
        .collect();

    let long = "n".repeat(100_000);
    for client in &mut clients {
        let before = client.0.held();
        for words in [
            &["hello", "2", "setname", &long][..],
            &["client", "setinfo", "lib-name", &long],
            &["client", "setinfo", "LIB-VER", &long],
        ] {
            client.0.receive(&request(words));
            client.0.sent();
        }
        assert_eq!(client.0.held() - before, 300_000);

        // Another name replaces the one before.
        client.check(&[("client setname me", "+OK"), ("client getname", "$2 me")]);
        assert_eq!(client.0.held() - before, 200_002);
    }

    let list = clients[0].ask("client list");
    assert_eq!(
        list,
        "-ERR the reply is longer than the server's max_reply allows"
    );
    let id = clients[0].ask("client id").split_off(1);
    let list = clients[0].ask(&format!("client list id {id}"));
    assert!(list.contains(&long), "{} bytes", list.len());
    clients[0].check(&[("reset", "+RESET"), ("client getname", "$-1")]);
}

/// A request of words that are too long for a line.
fn request(words: &[&str]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    request.into_bytes()
}

#[test]
fn broken_input_ends_the_connection() {
    for (input, error) in [
        ("*1\r\n:1\r\n", "expected '$', got ':'"),
        ("*x\r\n", "invalid multibulk length"),
        ("*1\r\n$x\r\n", "invalid bulk length"),
        ("*1\r\n$2000000\r\n", "invalid bulk length"),
        ("*1000000\r\n", "invalid multibulk length"),
        ("set a 'b\r\n", "unbalanced quotes in request"),
        ("POST / HTTP/1.1\r\n", "this is not HTTP or TLS"),
    ] {
        let mut client = Client::new();
        client.0.receive(b"ping\r\n");
        client.0.receive(input.as_bytes());
        let sent = String::from_utf8(client.0.sent()).unwrap();
        assert_eq!(sent, format!("+PONG\r\n-ERR Protocol error: {error}\r\n"));
        assert!(matches!(client.0.reason(), Some(CloseReason::Protocol(_))));
    }
    let mut client = Client::new();
    client.0.receive(&[b'a'; 10_000]);
    assert_eq!(
        client.0.sent(),
        b"-ERR Protocol error: too big inline request\r\n"
    );
}

/// What came before is done and answered, also if all of it comes in one piece.
#[test]
fn requests_before_a_broken_one_are_answered() {
    let mut client = Client::new();
    client.0.receive(b"set a 1\r\nget a\r\n*1\r\n:1\r\n");
    let expected = b"+OK\r\n$1\r\n1\r\n-ERR Protocol error: expected '$', got ':'\r\n";
    assert_eq!(client.0.sent(), expected);
    assert!(client.0.reason().is_some());
}

#[test]
fn however_it_is_cut() {
    let messages: [&[u8]; 9] = [
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$3\r\n\r\n1\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
        b"\r\n",
        b"*0\r\n",
        b"incr 'c d'\r\n",
        b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
        b"get none\n",
        b"nothing\r\n",
        b"quit\r\n",
    ];
    // The greeting has the connection's number, which differs between runs.
    let without_hello: Vec<_> = [&messages[..5], &messages[6..]].concat();
    let make = || Resp::new(Store::new(Settings::default()).connection());
    SplitChecker::new(make).stream().check(&without_hello);
    SplitChecker::new(make)
        .stream()
        .check(&[messages[0], b"*2\r\n$1\r\nx\r\n$x\r\n"]);
}

/// Nothing is read while replies wait, and no reply is lost.
#[test]
fn a_client_that_does_not_read_is_not_read_either() {
    let mut client = Client::new();
    client.ask(&format!("set a {}", "x".repeat(5_000)));
    client.0.stop_taking();
    client.0.receive("get a\r\n".repeat(1_000).as_bytes());
    assert!(client.0.waiting() < 80_000, "{}", client.0.waiting());
    client.0.take_in_steps(4_096);
    client.0.run();
    let sent = client.0.sent();
    let one = bulk(&"x".repeat(5_000)).replacen(' ', "\r\n", 1) + "\r\n";
    assert_eq!(sent.len(), one.len() * 1_000);
}

/// A request over all keys is one per turn, so that others have theirs in between.
#[test]
fn costly_requests_are_answered_one_per_turn() {
    let mut client = Client::new();
    for number in 0..1_001 {
        client.ask(&format!("set {number} x"));
    }
    client.check(&[("config resetstat", "+OK")]);
    client.0.receive("keys none\r\n".repeat(10).as_bytes());
    client.0.receive(b"keys no");
    client.0.receive(b"ne\r\nping\r\n");
    let expected = "*0\r\n".repeat(11) + "+PONG\r\n";
    assert_eq!(String::from_utf8(client.0.sent()).unwrap(), expected);
    client.0.receive_eof();
    assert!(matches!(client.0.reason(), Some(CloseReason::PeerClosed)));
}

/// However much a short request asks for.
#[test]
fn a_reply_that_does_not_fit_is_an_error() {
    let limits = Limits {
        max_reply: 1 << 20,
        ..Limits::default()
    };
    let mut client = Client::limited(&Store::new(Settings::default()), limits);
    client.ask(&format!("set a {}", "x".repeat(8_000)));
    let refusal = "-ERR the reply is longer than the server's max_reply allows";
    assert_eq!(client.ask(&format!("mget {}", "a ".repeat(200))), refusal);
    let reply = client.ask(&format!("mget {}", "a ".repeat(120)));
    assert!(reply.starts_with("*120 $8000 x"), "{}", reply.len());
    client.check(&[("strlen a", ":8000")]);
}

/// `SET` of a value of this many bytes.
fn long_set(key: &str, length: usize) -> Vec<u8> {
    let head = format!(
        "*3\r\n$3\r\nsEt\r\n${}\r\n{key}\r\n${length}\r\n",
        key.len()
    );
    [head.as_bytes(), &vec![b'v'; length], b"\r\n"].concat()
}

/// A long value is read into the memory that keeps it, and everything around it is answered in its order.
#[test]
fn a_long_value_is_set_in_its_order() {
    let sent = [
        b"SET b short EX 100\r\n".to_vec(),
        long_set("a", 300_000),
        b"STRLEN a\r\n".to_vec(),
        long_set("b", 70_000),
        b"TTL b\r\nSTRLEN b\r\n".to_vec(),
        long_set("b", 65_536),
        b"STRLEN b\r\n".to_vec(),
    ];
    let store = Store::new(Settings::default());
    for step in [1_usize << 20, 50_000, 7_777, 997, 53] {
        let mut client = Client::of(&store);
        for piece in sent.concat().chunks(step) {
            client.0.receive(piece);
        }
        let got = String::from_utf8(client.0.sent()).unwrap();
        let expected = "+OK\r\n+OK\r\n:300000\r\n+OK\r\n:-1\r\n:70000\r\n+OK\r\n:65536\r\n";
        assert_eq!(got, expected, "in pieces of {step}");
        assert_eq!(client.0.held(), 0);
    }
}

#[test]
fn a_long_value_that_is_refused_or_broken_or_cut_off_ends_as_a_short_one() {
    let settings = Settings {
        max_value: 100_000,
        ..Settings::default()
    };
    let store = Store::new(settings);
    let mut client = Client::of(&store);
    client.0.receive(&long_set("a", 100_001));
    assert_eq!(
        client.0.sent(),
        b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"
    );
    assert_eq!(client.ask("EXISTS a"), ":0");

    let mut broken = long_set("a", 70_000);
    *broken.last_mut().unwrap() = b'x';
    client.0.receive(&broken);
    assert_eq!(
        client.0.sent(),
        b"-ERR Protocol error: expected a line end\r\n"
    );
    assert!(client.0.is_finished());

    let mut client = Client::of(&store);
    client.0.receive(&long_set("a", 70_000)[..40]);
    assert!(client.0.held() > 0);
    client.0.receive_eof();
    assert!(
        matches!(client.0.reason(), Some(CloseReason::Protocol(_))),
        "{:?}",
        client.0.reason()
    );
}
