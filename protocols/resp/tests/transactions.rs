//! Transactions of the store as clients see them, in memory and under virtual time.

mod support;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serveloop::Limits;
use serveloop::testing::SplitChecker;
use serveloop_resp::Resp;
use serveloop_resp::store::{Eviction, Settings, Store};

use support::Client;

impl Client {
    fn two_of(settings: Settings) -> (Self, Self) {
        let store = Store::new(settings);
        (Self::of(&store), Self::of(&store))
    }

    /// Returns a figure of `INFO`.
    fn figure(&mut self, name: &str) -> String {
        let info = self.ask("info");
        let start = info.find(&format!("{name}:")).expect("the figure") + name.len() + 1;
        info[start..].split(' ').next().expect("a value").to_owned()
    }

    /// Returns a field of this client's line in `CLIENT INFO`.
    fn told(&mut self, field: &str) -> String {
        let info = self.ask("client info");
        let start = info.find(&format!(" {field}=")).expect("the field") + field.len() + 2;
        info[start..].split(' ').next().expect("a value").to_owned()
    }
}

const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.";

#[test]
fn commands_are_executed_together() {
    let mut client = Client::new();
    client.check(&[
        ("exec", "-ERR EXEC without MULTI"),
        ("discard", "-ERR DISCARD without MULTI"),
        ("MULTI", "+OK"),
        ("set a 1", "+QUEUED"),
        ("multi", "-ERR MULTI calls can not be nested"),
        ("watch a", "-ERR WATCH inside MULTI is not allowed"),
        ("incr a", "+QUEUED"),
        ("incrby a x", "+QUEUED"),
        ("mget a b", "+QUEUED"),
        (
            "exec",
            "*4 +OK :2 -ERR value is not an integer or out of range *2 $1 2 $-1",
        ),
        ("exec", "-ERR EXEC without MULTI"),
        ("multi", "+OK"),
        ("exec", "*0"),
        ("multi", "+OK"),
        ("set a 9", "+QUEUED"),
        ("discard", "+OK"),
        ("get a", "$1 2"),
    ]);
    assert_eq!(client.0.held(), 0);
}

#[test]
fn a_refused_command_aborts_all() {
    let mut client = Client::new();
    for (line, refusal) in [
        ("get", "-ERR wrong number of arguments for 'get' command"),
        (
            "frob a",
            "-ERR unknown command 'frob', with args beginning with: 'a'",
        ),
        (
            "client frob",
            "-ERR unknown subcommand 'frob'. Try CLIENT HELP.",
        ),
        (
            "client id x",
            "-ERR wrong number of arguments for 'client|id' command",
        ),
        (
            "config get",
            "-ERR wrong number of arguments for 'config|get' command",
        ),
        (
            "pubsub numpat x",
            "-ERR wrong number of arguments for 'pubsub|numpat' command",
        ),
        (
            "command frob",
            "-ERR unknown subcommand 'frob'. Try COMMAND HELP.",
        ),
        (
            "watch",
            "-ERR wrong number of arguments for 'watch' command",
        ),
        (
            "multi x",
            "-ERR wrong number of arguments for 'multi' command",
        ),
    ] {
        client.check(&[
            ("multi", "+OK"),
            ("set a 1", "+QUEUED"),
            (line, refusal),
            ("set a 2", "+QUEUED"),
            ("exec", ABORTED),
            ("exists a", ":0"),
            ("exec", "-ERR EXEC without MULTI"),
        ]);
    }
    let by_itself =
        "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command";
    client.check(&[
        ("multi", "+OK"),
        ("exec x", by_itself),
        ("exec", "-ERR EXEC without MULTI"),
        ("multi", "+OK"),
        ("get", "-ERR wrong number of arguments for 'get' command"),
        ("discard", "+OK"),
        ("get a", "$-1"),
    ]);
}

/// Each change of a watched key by another client, and what is none.
#[test]
fn a_watched_key_that_was_changed_aborts() {
    for (line, is_change) in [
        ("set a 1", true),
        ("set a 2 nx", false),
        ("set a 2 keepttl", true),
        ("setnx a 1", false),
        ("getset a 1", true),
        ("getdel a", true),
        ("getex a", false),
        ("getex a persist", false),
        ("getex a ex 10", true),
        ("setex a 10 v", true),
        ("psetex a 10 v", true),
        ("mset x 1 a 1", true),
        ("msetnx x 1 a 1", false),
        ("append a ''", true),
        ("setrange a 0 x", true),
        ("setrange a 0 ''", false),
        ("incr a", true),
        ("incrby a x", false),
        ("incrbyfloat a 1", true),
        ("del a", true),
        ("unlink b", false),
        ("rename a b", true),
        ("rename b a", true),
        ("renamenx b a", false),
        ("rename a a", false),
        ("expire a 10", true),
        ("expire a 10 xx", false),
        ("expire a -1", true),
        ("pexpireat a 99999999999999", true),
        ("persist a", false),
        ("touch a", false),
        ("get a", false),
        ("flushall", true),
        ("flushdb async", true),
        ("set c 1", false),
        ("exists a", false),
    ] {
        let (mut one, mut two) = Client::two_of(Settings::default());
        two.ask("mset a 5 b 6");
        one.check(&[("watch a z", "+OK")]);
        two.ask(line);
        let outcome = if is_change { "*-1" } else { "*1 +PONG" };
        one.check(&[
            ("multi", "+OK"),
            ("ping", "+QUEUED"),
            ("exec", outcome),
            ("multi", "+OK"),
            ("exec", "*0"),
        ]);
        assert_eq!(one.told("watch"), "0", "{line}");
    }
}

/// A key that is not there is watched too, and one that comes and goes was changed.
#[test]
fn a_key_that_comes_or_goes_was_changed() {
    let (mut one, mut two) = Client::two_of(Settings::default());
    one.ask("watch a");
    two.check(&[("flushall", "+OK"), ("del a", ":0"), ("get a", "$-1")]);
    one.check(&[("multi", "+OK"), ("exec", "*0"), ("watch a", "+OK")]);
    two.check(&[("set a 1", "+OK"), ("del a", ":1")]);
    one.check(&[("multi", "+OK"), ("exec", "*-1")]);

    // By the client itself, before and after.
    one.check(&[
        ("watch a", "+OK"),
        ("set a 1", "+OK"),
        ("multi", "+OK"),
        ("exec", "*-1"),
    ]);
    one.check(&[(
        "hello 3 setname",
        "-ERR Syntax error in HELLO option 'setname'",
    )]);
    one.ask("hello 3");
    one.check(&[
        ("watch a", "+OK"),
        ("set a 1", "+OK"),
        ("multi", "+OK"),
        ("exec", "_"),
    ]);
    one.check(&[
        ("set a 1", "+OK"),
        ("watch a", "+OK"),
        ("multi", "+OK"),
        ("exec", "*0"),
    ]);
}

#[test]
fn a_watched_key_that_expires_aborts() {
    let (mut one, mut two) = Client::two_of(Settings::default());
    two.check(&[
        ("set a 1 px 100", "+OK"),
        ("set b 1 px 300", "+OK"),
        ("watch b", "+OK"),
    ]);
    one.check(&[("watch a", "+OK"), ("multi", "+OK")]);
    one.0.advance(Duration::from_millis(150));
    one.check(&[("set a 2", "+QUEUED"), ("exec", "*-1"), ("exists a", ":0")]);

    // One that had expired before is not changed when its memory is freed.
    two.0.advance(Duration::from_millis(350));
    two.check(&[("unwatch", "+OK"), ("watch b", "+OK")]);
    one.0.advance(Duration::from_millis(300));
    one.check(&[("exists b", ":0")]);
    two.check(&[("multi", "+OK"), ("exec", "*0")]);
}

#[test]
fn a_watched_key_that_is_evicted_aborts() {
    let settings = Settings {
        max_memory: Some(5_000),
        eviction: Eviction::VolatileTtl,
        ..Settings::default()
    };
    let (mut one, mut two) = Client::two_of(settings);
    two.check(&[("set a 1 ex 10", "+OK")]);
    one.check(&[("watch a", "+OK"), ("multi", "+OK")]);
    two.check(&[(&format!("set b {}", "x".repeat(4_800)), "+OK")]);
    one.check(&[("exec", "*-1"), ("exists a b", ":1")]);
}

/// Memory for the whole is looked for before it, and never between two of its commands.
#[test]
fn what_memory_there_is_does_not_divide_a_transaction() {
    for eviction in [
        Eviction::NoEviction,
        Eviction::AllkeysLru,
        Eviction::VolatileTtl,
    ] {
        let settings = Settings {
            max_memory: Some(100 << 10),
            eviction,
            ..Settings::default()
        };
        let mut client = Client::of(&Store::new(settings));
        client.check(&[
            ("set old 1", "+OK"),
            ("multi", "+OK"),
            ("setrange a 50000 x", "+QUEUED"),
            ("setrange b 50000 x", "+QUEUED"),
            ("append c x", "+QUEUED"),
            ("mset d 1 e 2", "+QUEUED"),
            ("setrange f 50000 x", "+QUEUED"),
            ("exists old a b c d e f", "+QUEUED"),
            ("strlen a", "+QUEUED"),
            ("exec", "*7 :50001 :50001 :1 +OK :50001 :7 :50001"),
        ]);

        // What comes after it makes room for all.
        let is_evicting = eviction == Eviction::AllkeysLru;
        let reply = client.ask("set g 1");
        assert_eq!(reply == "+OK", is_evicting, "{reply}");
        let used: usize = client.figure("used_memory").parse().unwrap();
        assert_eq!(used <= 100 << 10, is_evicting, "{used}");
    }
}

#[test]
fn nothing_is_queued_that_needs_memory_when_there_is_none() {
    let settings = Settings {
        max_memory: Some(5_000),
        eviction: Eviction::NoEviction,
        ..Settings::default()
    };
    let (mut one, mut two) = Client::two_of(settings);
    let refusal = "-OOM command not allowed when used memory > 'maxmemory'.";
    let by_exec = "-EXECABORT Transaction discarded because of: command not allowed when used memory > \
                   'maxmemory'.";
    two.check(&[
        ("multi", "+OK"),
        ("incr a", "+QUEUED"),
        ("get b", "+QUEUED"),
    ]);
    one.check(&[
        ("multi", "+OK"),
        ("setrange b 9000 x", "+QUEUED"),
        ("exec", "*1 :9001"),
        ("multi", "+OK"),
        ("strlen b", "+QUEUED"),
        ("set a 1", refusal),
        ("append a 1", refusal),
        ("exec", ABORTED),
    ]);
    // It was queued when there was memory.
    two.check(&[
        ("exec", by_exec),
        ("exec", "-ERR EXEC without MULTI"),
        ("exists a", ":0"),
    ]);

    // What needs none is executed, and so is all of it when there is some again.
    one.check(&[
        ("multi", "+OK"),
        ("strlen b", "+QUEUED"),
        ("del b", "+QUEUED"),
        ("exec", "*2 :9001 :1"),
        ("multi", "+OK"),
        ("set a 1", "+QUEUED"),
        ("exec", "*1 +OK"),
    ]);
}

/// However little a client has to send for it.
#[test]
fn what_a_transaction_takes_beyond_the_limit_is_limited() {
    let settings = Settings {
        max_memory: Some(100 << 10),
        max_transaction: 200 << 10,
        ..Settings::default()
    };
    let mut client = Client::of(&Store::new(settings));
    client.check(&[("multi", "+OK")]);
    for number in 0..50 {
        client.check(&[(&format!("setrange {number} 50000 x"), "+QUEUED")]);
    }
    let reply = client.ask("exec");
    assert!(reply.starts_with("*50 :50001 :50001 :50001 "), "{reply}");
    assert!(reply.ends_with(" -OOM command not allowed when used memory > 'maxmemory'."));
    let used: usize = client.figure("used_memory").parse().unwrap();
    assert!((200 << 10..=300 << 10).contains(&used), "{used}");
}

/// A key that is evicted for a transaction was changed before it.
#[test]
fn room_for_a_transaction_is_made_before_it_looks_at_watched_keys() {
    let settings = Settings {
        max_memory: Some(5_000),
        eviction: Eviction::VolatileTtl,
        ..Settings::default()
    };
    let (mut one, mut two) = Client::two_of(settings);
    one.check(&[("set a 1 ex 10", "+OK"), ("watch a", "+OK")]);
    one.check(&[("multi", "+OK"), ("set c 1", "+QUEUED")]);
    two.check(&[
        ("multi", "+OK"),
        ("setrange b 4800 x", "+QUEUED"),
        ("exec", "*1 :4801"),
    ]);
    one.check(&[("exec", "*-1"), ("exists a b c", ":1")]);
}

/// Also one whose value is read into the memory that keeps it.
#[test]
fn a_long_value_has_its_place_in_a_transaction() {
    let value = "v".repeat(200_000);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$200000\r\n{value}\r\n");
    let sent = format!("watch a\r\n{set}multi\r\nexec\r\nmulti\r\n{set}strlen a\r\nexec\r\n");
    let expected =
        "+OK\r\n+OK\r\n+OK\r\n*-1\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n:200000\r\n";
    for step in [1_usize << 20, 50_000, 997] {
        let (mut one, mut two) = Client::two_of(Settings::default());
        for piece in sent.as_bytes().chunks(step) {
            one.0.receive(piece);
        }
        assert_eq!(
            String::from_utf8(one.0.sent()).unwrap(),
            expected,
            "in pieces of {step}"
        );
        assert_eq!(one.0.held(), 0);

        // Another client's, while this one watches.
        two.check(&[("watch a", "+OK"), ("multi", "+OK")]);
        set.as_bytes()
            .chunks(step)
            .for_each(|piece| one.0.receive(piece));
        two.check(&[("exec", "*-1")]);
    }
}

#[test]
fn what_concerns_the_connection_is_queued_or_not() {
    let mut client = Client::new();
    client.check(&[
        ("multi", "+OK"),
        ("client setname me", "+QUEUED"),
        ("hello 3 auth x y", "+QUEUED"),
        ("select 1", "+QUEUED"),
        ("unwatch", "+QUEUED"),
        ("subscribe news", "+QUEUED"),
        ("ping", "+QUEUED"),
        ("get a", "+QUEUED"),
        (
            "exec",
            "*7 +OK -WRONGPASS invalid username-password pair or user is disabled. \
             -ERR DB index is out of range +OK *3 $9 subscribe $4 news :1 *2 $4 pong $0  $-1",
        ),
        ("client getname", "-ERR Can't execute 'client': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"),
        ("exec", "-EXECABORT Transaction discarded because of: Can't execute 'exec': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"),
        ("reset", "+RESET"),
        ("multi", "+OK"),
        ("set a 1", "+QUEUED"),
        ("reset", "+RESET"),
        ("exec", "-ERR EXEC without MULTI"),
        ("exists a", ":0"),
        ("watch a", "+OK"),
        ("reset", "+RESET"),
        ("set a 1", "+OK"),
        ("multi", "+OK"),
        ("exec", "*0"),
        ("multi", "+OK"),
        ("quit", "+OK"),
    ]);
    assert!(client.0.reason().is_some());
}

/// The version may change in the middle, and what locks the keys elsewhere is answered too.
#[test]
fn figures_and_versions_are_those_of_the_moment() {
    let mut client = Client::new();
    client.check(&[
        ("multi", "+OK"),
        ("get none", "+QUEUED"),
        ("hello 3", "+QUEUED"),
        ("get none", "+QUEUED"),
        ("set a 1", "+QUEUED"),
        ("info keyspace", "+QUEUED"),
        ("config get maxmemory-policy", "+QUEUED"),
        ("config resetstat", "+QUEUED"),
    ]);
    let outcome = client.ask("exec");
    assert!(outcome.starts_with("*7 $-1 %7 "), "{outcome}");
    let end = "_ +OK =48 txt:# Keyspace db0:keys=1,expires=0,avg_ttl=0  \
               %1 $16 maxmemory-policy $11 allkeys-lru +OK";
    assert!(outcome.ends_with(end), "{outcome}");
}

#[test]
fn others_see_a_transaction() {
    let (mut one, mut two) = Client::two_of(Settings::default());
    let id = one.ask("client id").split_off(1);
    let mut told = |expected: &str| {
        let line = two.ask(&format!("client list id {id}"));
        assert!(line.contains(expected), "{line}");
    };
    told(" flags=N ");
    told(" multi=-1 watch=0 ");
    one.check(&[("watch a b a", "+OK"), ("watch a", "+OK")]);
    told(" flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 watch=2 ");
    one.check(&[("multi", "+OK")]);
    told(" multi=0 watch=2 ");
    one.check(&[("get a", "+QUEUED"), ("client info", "+QUEUED")]);
    told(" flags=x db=0 sub=0 psub=0 ssub=0 multi=2 watch=2 cmd=client ");
    let outcome = one.ask("exec");
    assert!(outcome.contains(" multi=2 watch=2 cmd=exec "), "{outcome}");
    told(" flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 watch=0 cmd=exec ");

    one.check(&[("watch a", "+OK")]);
    let info = two.ask("info clients");
    assert!(
        info.contains("watching_clients:1 total_watched_keys:1"),
        "{info}"
    );
    one.0.receive_eof();
    let info = two.ask("info clients");
    assert!(
        info.contains("watching_clients:0 total_watched_keys:0"),
        "{info}"
    );

    let flags = "*5 +noscript +loading +stale +fast";
    let described = two.ask("command info multi exec watch");
    assert_eq!(
        described.matches(&flags.replace('5', "4")).count(),
        2,
        "{described}"
    );
}

/// A client that queues without end is told so, and keeps nothing.
#[test]
fn what_is_queued_is_limited() {
    let settings = Settings {
        max_transaction: 10_000,
        ..Settings::default()
    };
    let (mut one, mut two) = Client::two_of(settings);
    let refusal = "-ERR the transaction takes more memory than the server's max_transaction allows";
    let line = format!("set a {}", "x".repeat(100));
    one.check(&[("multi", "+OK")]);
    // 104 bytes, a place for the request and three for words.
    for _ in 0..10_000 / 136 {
        one.check(&[(&line, "+QUEUED")]);
    }
    let held = one.0.held();
    assert!((9_500..20_000).contains(&held), "{held}");
    one.check(&[(&line, refusal)]);
    assert_eq!(one.0.held(), 0);
    for _ in 0..1_000 {
        one.check(&[(&line, "+QUEUED")]);
    }
    assert_eq!(one.0.held(), 0);
    let list = two.ask("client list");
    assert!(list.contains(" multi=73 "), "{list}");
    one.check(&[
        ("exec", ABORTED),
        ("exists a", ":0"),
        ("multi", "+OK"),
        ("exec", "*0"),
    ]);

    let refusal = "-ERR the watched keys take more memory than the server's max_transaction allows";
    for number in 10..71 {
        one.check(&[(&format!("watch {number} {number}"), "+OK")]);
    }
    assert!((9_000..10_000).contains(&one.0.held()), "{}", one.0.held());
    one.check(&[("watch 1 2 3 4 5", refusal), ("watch 10 11", "+OK")]);
    assert_eq!(one.told("watch"), "61");
    two.check(&[("set 1 x", "+OK")]);
    one.check(&[("multi", "+OK"), ("exec", "*0")]);
    assert_eq!(one.0.held(), 0);
}

/// What does not fit in the reply is an error in its place: the command was executed.
#[test]
fn a_long_reply_keeps_its_form() {
    let limits = Limits {
        max_reply: 1 << 20,
        ..Limits::default()
    };
    let mut client = Client::limited(&Store::new(Settings::default()), limits);
    client.ask("setrange a 599999 x");
    client.check(&[
        ("multi", "+OK"),
        ("strlen a", "+QUEUED"),
        ("get a", "+QUEUED"),
        ("get a", "+QUEUED"),
        ("incr b", "+QUEUED"),
    ]);
    let outcome = client.ask("exec");
    assert!(
        outcome.starts_with("*4 :600000 $600000 \0"),
        "{}",
        &outcome[..40]
    );
    let end = "-ERR the reply is longer than the server's max_reply allows :1";
    assert!(
        outcome.ends_with(end),
        "{}",
        &outcome[outcome.len() - 100..]
    );
}

/// A client that does not read gets its replies later, all of them.
#[test]
fn a_client_that_does_not_read_executes_in_order() {
    let mut client = Client::new();
    client.ask("set a 0");
    client.0.stop_taking();
    let one = "multi\r\nincr a\r\nget a\r\nexec\r\n";
    client.0.receive(one.repeat(3_000).as_bytes());
    client.0.take_in_steps(4_096);
    client.0.run();
    let sent = String::from_utf8(client.0.sent()).unwrap();
    assert_eq!(sent.matches("+QUEUED\r\n+QUEUED\r\n*2\r\n:").count(), 3_000);
    client.check(&[("get a", "$4 3000")]);
}

#[test]
fn however_it_is_cut() {
    let messages: [&[u8]; 10] = [
        b"watch a b\r\n",
        b"*1\r\n$5\r\nMULTI\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$3\r\n\r\n1\r\n",
        b"incr 'c d'\r\n",
        b"*0\r\n",
        b"exec\r\n",
        b"multi\r\n",
        b"frob\r\n",
        b"*1\r\n$4\r\nEXEC\r\n",
        b"quit\r\n",
    ];
    let make = || Resp::new(Store::new(Settings::default()).connection());
    SplitChecker::new(make).stream().check(&messages);
    SplitChecker::new(make)
        .stream()
        .check(&[messages[1], messages[2], b"*1\r\n$x\r\n"]);
}

/// On several threads, nothing of another connection happens in the middle of a transaction, and no
/// optimistic update is lost.
#[test]
fn transactions_of_several_threads_do_not_mix() {
    const ROUNDS: usize = 400;
    let store = Store::new(Settings::default());
    Client::of(&store).ask("mset a 0 b 0 c 0");
    let run = |store: Arc<Store>| {
        thread::spawn(move || {
            let mut client = Client::of(&store);
            let mut failures = 0;
            for _ in 0..ROUNDS {
                client.check(&[
                    ("multi", "+OK"),
                    ("incr a", "+QUEUED"),
                    ("incr b", "+QUEUED"),
                ]);
                let outcome = client.ask("exec");
                let parts: Vec<_> = outcome.split(' ').collect();
                assert_eq!(parts[1], parts[2], "{outcome}");

                while {
                    client.ask("watch c");
                    let value = client.ask("get c");
                    let value: u64 = value.split(' ').nth(1).unwrap().parse().unwrap();
                    thread::yield_now();
                    client.ask("multi");
                    client.ask(&format!("set c {}", value + 1));
                    client.ask("exec") == "*-1"
                } {
                    failures += 1;
                }
            }
            failures
        })
    };
    let threads: Vec<_> = (0..4).map(|_| run(Arc::clone(&store))).collect();
    let failures: usize = threads.into_iter().map(|it| it.join().unwrap()).sum();
    let sum = 4 * ROUNDS;
    let reply = Client::of(&store).ask("mget a b c");
    assert_eq!(
        reply,
        format!("*3 $4 {sum} $4 {sum} $4 {sum}"),
        "{failures} failures"
    );
}
