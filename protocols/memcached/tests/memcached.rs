//! The protocol in memory: what it answers, however its input is cut and its output taken.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use serveloop::testing::{Exchange, MemorySession, Simulation, SplitChecker};
use serveloop::{CloseReason, Config, Limits, Peer};
use serveloop_memcached::{Memcached, Settings, Store};

fn store() -> Store {
    Store::new(Settings::default())
}

fn small(max_memory: usize, max_item: usize) -> Store {
    Store::new(Settings {
        max_memory,
        max_item,
    })
}

fn client(store: &Store) -> MemorySession<Memcached> {
    MemorySession::new(Memcached::new(store))
}

/// Sends `lines`, each with its line end, and compares the lines that come back.
#[track_caller]
fn talk(client: &mut MemorySession<Memcached>, lines: &[&str], expected: &[&str]) {
    let text = |lines: &[&str]| {
        lines
            .iter()
            .map(|line| format!("{line}\r\n"))
            .collect::<String>()
    };
    client.receive(text(lines).as_bytes());
    let sent = String::from_utf8(client.sent()).expect("text");
    assert_eq!(sent, text(expected), "after {lines:?}");
}

/// A command and the reply to it, for an item that was not there before.
#[track_caller]
fn check(lines: &[&str], expected: &[&str]) {
    talk(&mut client(&store()), lines, expected);
}

#[test]
fn values_are_stored_on_conditions() {
    check(
        &["add a 0 0 1", "1", "add a 0 0 1", "2"],
        &["STORED", "NOT_STORED"],
    );
    check(
        &["replace a 0 0 1", "1", "set a 0 0 1", "1"],
        &["NOT_STORED", "STORED"],
    );
    check(
        &["append a 0 0 1", "1", "prepend a 0 0 1", "1"],
        &["NOT_STORED", "NOT_STORED"],
    );
    check(
        &[
            "set a 5 0 1",
            "b",
            "append a 6 0 1",
            "c",
            "prepend a 7 0 1",
            "a",
            "get a",
        ],
        &["STORED", "STORED", "STORED", "VALUE a 5 3", "abc", "END"],
    );
    check(
        &[
            "set a 0 0 1",
            "x",
            "gets a",
            "cas a 0 0 1 1",
            "y",
            "cas a 0 0 1 1",
            "z",
            "cas b 0 0 1 1",
            "z",
            "gets a",
        ],
        &[
            "STORED",
            "VALUE a 0 1 1",
            "x",
            "END",
            "STORED",
            "EXISTS",
            "NOT_FOUND",
            "VALUE a 0 1 2",
            "y",
            "END",
        ],
    );
}

#[test]
fn a_counter_wraps_around_upwards_and_stops_at_zero_downwards() {
    check(
        &[
            "set n 0 0 20",
            "18446744073709551615",
            "incr n 2",
            "decr n 5",
            "get n",
            "incr x 1",
            "decr x 1",
        ],
        &[
            "STORED",
            "1",
            "0",
            "VALUE n 0 20",
            "0                   ",
            "END",
            "NOT_FOUND",
            "NOT_FOUND",
        ],
    );
    check(
        &[
            "set n 0 0 2",
            "99",
            "incr n 1",
            "get n",
            "incr n x",
            "incr n -1",
        ],
        &[
            "STORED",
            "100",
            "VALUE n 0 3",
            "100",
            "END",
            "CLIENT_ERROR invalid numeric delta argument",
            "CLIENT_ERROR invalid numeric delta argument",
        ],
    );
    let problem = "CLIENT_ERROR cannot increment or decrement non-numeric value";
    check(&["set n 0 0 2", "1x", "incr n 1"], &["STORED", problem]);
}

#[test]
fn times_are_relative_absolute_or_over() {
    let store = store();
    let mut client = client(&store);
    talk(
        &mut client,
        &["set a 0 2 1", "x", "mg a t", "mg a T100 t"],
        &["STORED", "HD t2", "HD t100"],
    );
    talk(
        &mut client,
        &["set a 0 -1 1", "x", "get a"],
        &["STORED", "END"],
    );
    // The last second of 2001 is over; that of the 32 bits is not.
    talk(
        &mut client,
        &["set a 0 1009843199 1", "x", "get a"],
        &["STORED", "END"],
    );
    let forever = ["STORED", "VALUE a 0 1", "x", "END"];
    talk(
        &mut client,
        &["set a 0 2147483647 1", "x", "get a"],
        &forever,
    );
    // Neither is what comes after the 32 bits, in any command that has a time.
    for time in ["2147483648", "4000000000", "9223372036854775807"] {
        let store = [&format!("set a 0 {time} 1")[..], "x", "get a"];
        talk(&mut client, &store, &forever);
        talk(
            &mut client,
            &[&format!("touch a {time}"), &format!("gat {time} a")],
            &["TOUCHED", "VALUE a 0 1", "x", "END"],
        );
        talk(
            &mut client,
            &[&format!("ms a 1 T{time}"), "x", &format!("mg a T{time} v")],
            &["HD", "VA 1", "x"],
        );
        talk(
            &mut client,
            &[&format!("flush_all {time}"), "get a"],
            &["OK", "VALUE a 0 1", "x", "END"],
        );
    }
    // A month is the longest time that is relative.
    talk(
        &mut client,
        &["set a 0 2592000 1", "x", "mg a t"],
        &["STORED", "HD t2592000"],
    );
    talk(
        &mut client,
        &["set a 0 2592001 1", "x", "mg a t"],
        &["STORED", "EN"],
    );

    talk(
        &mut client,
        &["set a 0 2 1", "x", "touch a 4"],
        &["STORED", "TOUCHED"],
    );
    client.advance(Duration::from_millis(3_999));
    talk(
        &mut client,
        &["mg a t", "gat 2 a"],
        &["HD t1", "VALUE a 0 1", "x", "END"],
    );
    client.advance(Duration::from_secs(2));
    talk(&mut client, &["get a", "touch a 0"], &["END", "NOT_FOUND"]);
}

#[test]
fn a_flush_takes_what_was_stored_before_it() {
    let store = store();
    let mut client = client(&store);
    talk(
        &mut client,
        &["set a 0 0 1", "x", "flush_all 2", "get a"],
        &["STORED", "OK", "VALUE a 0 1", "x", "END"],
    );
    client.advance(Duration::from_millis(1_999));
    talk(
        &mut client,
        &["set b 0 0 1", "y", "get a"],
        &["STORED", "VALUE a 0 1", "x", "END"],
    );
    client.advance(Duration::from_millis(1));
    talk(
        &mut client,
        &["get a b", "set c 0 0 1", "z", "get c"],
        &["END", "STORED", "VALUE c 0 1", "z", "END"],
    );
    talk(
        &mut client,
        &["flush_all noreply", "get c", "flush_all x"],
        &["END", "CLIENT_ERROR invalid exptime argument"],
    );
}

#[test]
fn whoever_wants_no_reply_gets_none() {
    check(
        &[
            "set a 0 0 1 noreply",
            "1",
            "add a 0 0 1 noreply",
            "1",
            "cas a 0 0 1 9 noreply",
            "1",
            "incr a 1 noreply",
            "touch a 0 noreply",
            "verbosity 1 noreply",
            "get a",
            "delete a noreply",
            "flush_all noreply",
            "set a x 0 1 noreply",
            "mn",
        ],
        &["VALUE a 0 1", "2", "END", "MN"],
    );
}

/// Keys have 250 bytes and no control characters, in every command.
#[test]
fn keys_have_a_limit() {
    let (most, more) = ("k".repeat(250), "k".repeat(251));
    check(
        &[&format!("set {most} 0 0 1"), "x", &format!("delete {most}")],
        &["STORED", "DELETED"],
    );
    let bad = "CLIENT_ERROR bad command line format";
    for key in [&*more, "a\tb", "a\0b", "a\x7f", "a\rb"] {
        for command in [
            "get KEY",
            "gat 0 KEY",
            "get a KEY b",
            "delete KEY",
            "incr KEY 1",
            "touch KEY 0",
            "mg KEY v",
            "md KEY",
            "ma KEY",
            "me KEY",
        ] {
            check(&[&command.replace("KEY", key), "mn"], &[bad, "MN"]);
        }
        // The data block is a line then, as in memcached.
        check(&[&format!("set {key} 0 0 1"), "x"], &[bad, "ERROR"]);
        check(&[&format!("ms {key} 1"), "x"], &[bad, "ERROR"]);
    }
}

#[test]
fn an_item_that_is_too_long_is_skipped_and_the_old_one_is_gone() {
    let store = small(1 << 20, 1_024);
    let mut client = client(&store);
    let most = 1_024 - 59 - 1;
    let value = "v".repeat(most);
    talk(
        &mut client,
        &[&format!("set a 0 0 {most}"), &value],
        &["STORED"],
    );
    talk(&mut client, &["append a 0 0 1", "x"], &["NOT_STORED"]);
    let too_large = "SERVER_ERROR object too large for cache";
    let longer = format!("v{value}");
    talk(
        &mut client,
        &[&format!("add a 0 0 {}", most + 1), &longer, "mg a s"],
        &[too_large, &format!("HD s{most}")],
    );
    talk(
        &mut client,
        &[&format!("set a 0 0 {}", most + 1), &longer, "get a"],
        &[too_large, "END"],
    );
    talk(
        &mut client,
        &[&format!("set a 0 0 {} noreply", most + 1), &longer, "mn"],
        &["MN"],
    );

    // The longest block that can be announced, which nobody waits for in memory.
    client.receive(b"set a 0 0 2147483645\r\n");
    client.receive(&vec![b'x'; 1 << 20]);
    assert_eq!(
        client.sent(),
        b"SERVER_ERROR object too large for cache\r\n"
    );
    assert_eq!(client.held(), 0);
    assert!(client.reason().is_none());
}

#[test]
fn a_block_ends_where_its_line_says() {
    let bad = "CLIENT_ERROR bad data chunk";
    check(&["set a 0 0 3", "abcde", "mn"], &[bad, "ERROR", "MN"]);
    check(&["ms a 3", "abcde", "mn"], &[bad, "ERROR", "MN"]);
    check(
        &["set a 0 0 3", "a\r\n", "get a"],
        &["STORED", "VALUE a 0 3", "a\r\n", "END"],
    );
    check(
        &["set a 0 0 0", "", "get a"],
        &["STORED", "VALUE a 0 0", "", "END"],
    );
    for length in ["-1", "x", "2147483646", "99999999999"] {
        let line = format!("set a 0 0 {length}");
        check(&[&line], &["CLIENT_ERROR bad command line format"]);
    }
}

#[test]
fn items_that_were_not_used_for_longest_make_room() {
    // Room for four: a key of one byte, a value of 100, and 160.
    let store = small(4 * 261, 512);
    let mut client = client(&store);
    let value = "v".repeat(100);
    for key in ["a", "b", "c", "d"] {
        talk(
            &mut client,
            &[&format!("set {key} 0 0 100"), &value],
            &["STORED"],
        );
    }
    // What is read moves to the front, if it was not used for a second.
    client.advance(Duration::from_secs(1));
    talk(&mut client, &["mg a", "mg b u"], &["HD", "HD"]);
    talk(&mut client, &["set e 0 0 100", &value], &["STORED"]);
    talk(
        &mut client,
        &["mg a", "mg b", "mg c", "mg d", "mg e"],
        &["HD", "EN", "HD", "HD", "HD"],
    );

    // One that is read all the time is never the first to go.
    for number in 0..8 {
        for _ in 0..4 {
            client.advance(Duration::from_millis(300));
            talk(&mut client, &["mg a"], &["HD"]);
        }
        let stored = format!("set {number} 0 0 100");
        talk(&mut client, &[&stored, &value], &["STORED"]);
    }
    talk(&mut client, &["mg a", "mg c"], &["HD", "EN"]);

    // One that alone is too much changes nothing.
    let store = small(261, 512);
    let mut client = self::client(&store);
    talk(
        &mut client,
        &[
            "set a 0 0 100",
            &value,
            "set b 0 0 101",
            &format!("{value}v"),
        ],
        &["STORED", "SERVER_ERROR out of memory storing object"],
    );
    talk(&mut client, &["mg a"], &["HD"]);
}

#[test]
fn memory_is_counted_down_to_nothing() {
    let store = store();
    let mut client = client(&store);
    let bytes = |client: &mut MemorySession<Memcached>| {
        client.receive(b"stats\r\n");
        let sent = String::from_utf8(client.sent()).unwrap();
        let line = sent.lines().find(|line| line.starts_with("STAT bytes "));
        line.unwrap().to_owned()
    };
    talk(
        &mut client,
        &[
            "set a 0 0 3",
            "100",
            "append a 0 0 1",
            "0",
            "incr a 90000",
            "set b 0 1 1",
            "x",
        ],
        &["STORED", "STORED", "91000", "STORED"],
    );
    assert_eq!(bytes(&mut client), "STAT bytes 328");
    client.advance(Duration::from_secs(1));
    talk(&mut client, &["get b", "delete a"], &["END", "DELETED"]);
    assert_eq!(bytes(&mut client), "STAT bytes 0");
    talk(
        &mut client,
        &["set a 0 0 1", "x", "flush_all"],
        &["STORED", "OK"],
    );
    assert_eq!(bytes(&mut client), "STAT bytes 0");
}

#[test]
fn stale_items_are_renewed_by_one_client() {
    check(
        &[
            "set a 0 0 1",
            "x",
            "md a I T30",
            "mg a t v",
            "mg a v",
            "ms a 1 C9",
            "y",
            "ms a 1",
            "y",
            "mg a v",
        ],
        &[
            "STORED",
            "HD",
            "VA 1 t30 X W",
            "x",
            "VA 1 Z X",
            "x",
            "EX",
            "HD",
            "VA 1",
            "y",
        ],
    );
    check(
        &["mg a N30 t v", "mg a N30 v", "ms a 1", "x", "mg a N30 v"],
        &["VA 0 t30 W", "", "VA 0 Z", "", "HD", "VA 1", "x"],
    );
    check(
        &["set a 0 20 1", "x", "mg a R10", "mg a R30", "mg a R30"],
        &["STORED", "HD", "HD W", "HD Z"],
    );
    check(
        &[
            "ms a 1 c",
            "x",
            "ms a 1",
            "y",
            "ms a 1 I C1 c",
            "z",
            "mg a v",
        ],
        &["HD c1", "HD", "HD c3", "VA 1 X W", "z"],
    );
}

#[test]
fn keys_in_base64_are_bytes() {
    check(
        &[
            "ms AP8KIA== 2 b k",
            "hi",
            "mg AP8KIA== b k v",
            "md AP8KIA== b k Oo",
            "mg AP8KIA== b k",
        ],
        &[
            "HD kAP8KIA== b",
            "VA 2 kAP8KIA== b",
            "hi",
            "HD kAP8KIA== b Oo",
            "EN kAP8KIA== b",
        ],
    );
    check(
        &["mg YQ b", "ms YQ 1 b", "x", "mn"],
        &[
            "CLIENT_ERROR error decoding key",
            "CLIENT_ERROR error decoding key",
            "MN",
        ],
    );
}

#[test]
fn what_is_no_command_is_an_error_and_the_connection_stays() {
    for line in [
        "",
        " ",
        "x",
        "GET a",
        "get",
        "gets",
        "gat",
        "set a 0 0",
        "incr a",
        "mg",
        "md",
        "ma",
        "mx",
        "shutdown",
        "flush_all 1 2 3",
    ] {
        check(&[line, "mn"], &["ERROR", "MN"]);
    }
}

#[test]
fn a_line_that_does_not_end_ends_the_connection() {
    let mut client = client(&store());
    client.receive(&vec![b'a'; 9_000]);
    let sent = String::from_utf8(client.sent()).unwrap();
    assert!(sent.starts_with("CLIENT_ERROR message too long"), "{sent}");
    assert!(matches!(client.reason(), Some(CloseReason::Protocol(_))));
}

#[test]
fn any_number_of_keys_is_asked_for_in_one_line() {
    let store = store();
    let mut client = client(&store);
    talk(&mut client, &["set a 0 0 1", "x"], &["STORED"]);
    let line = format!("get{}", " a".repeat(20_000));
    let expected = "VALUE a 0 1\r\nx\r\n".repeat(20_000) + "END\r\n";
    client.receive(format!("{line}\r\n").as_bytes());
    assert_eq!(client.sent(), expected.as_bytes());
    talk(
        &mut client,
        &["  gets  a   b  a ", "gat 0"],
        &["VALUE a 0 1 1", "x", "VALUE a 0 1 1", "x", "END", "END"],
    );
}

/// More than may wait, to a client that takes little: the values wait in the store.
#[test]
fn long_values_are_sent_in_parts() {
    const LENGTH: usize = 1_000_000;
    let config = Config {
        limits: Limits {
            high_water: 4_096,
            low_water: 1_024,
            max_output: 8_192,
            max_frame: 2 << 20,
            ..Limits::default()
        },
        ..Config::default()
    };
    let store = store();
    let mut client = MemorySession::with_config(Memcached::new(&store), config);
    client.receive(format!("set a 0 0 {LENGTH}\r\n").as_bytes());
    client.receive(&vec![b'v'; LENGTH]);
    client.receive(b"\r\n");
    assert_eq!(client.sent(), b"STORED\r\n");

    client.stop_taking();
    client.receive(b"get a a a\r\nmn\r\n");
    assert!(client.waiting() <= 4_096 + 100, "{}", client.waiting());
    assert!(
        client.held() >= LENGTH,
        "a value that is being sent is held"
    );
    // The items may go meanwhile.
    self::client(&store).receive(b"flush_all\r\n");
    client.shutdown();

    let mut taken = Vec::new();
    for _ in 0..10_000 {
        client.take(1_000);
        client.run();
        taken.extend(client.sent());
        if client.reason().is_some() {
            break;
        }
    }
    let value = "v".repeat(LENGTH);
    let expected = format!("VALUE a 0 {LENGTH}\r\n{value}\r\nEND\r\n");
    assert_eq!(taken.len(), expected.len());
    assert!(taken == expected.as_bytes());
    assert!(matches!(
        client.reason(),
        Some(CloseReason::Closed | CloseReason::Shutdown)
    ));
}

#[test]
fn clients_are_counted() {
    let store = store();
    let mut one = client(&store);
    let other = client(&store);
    let count = |client: &mut MemorySession<Memcached>| {
        client.receive(b"stats\r\n");
        let sent = String::from_utf8(client.sent()).unwrap();
        let lines = sent.lines().filter(|line| line.contains("_connections "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        count(&mut one),
        ["STAT curr_connections 2", "STAT total_connections 2"]
    );
    drop(other);
    assert_eq!(
        count(&mut one),
        ["STAT curr_connections 1", "STAT total_connections 2"]
    );
}

const TRANSCRIPT: &[&[u8]] = &[
    b"set a 5 0 5\r\nhello\r\n",
    b"get a b a\r\n",
    b"gat 0 a\r\n",
    b"ms k 2 T0 c\r\nhi\r\n",
    b"mg k v s k\r\n",
    b"ma n N0 v\r\n",
    b"incr n 1\r\n",
    b"delete a noreply\r\n",
    b"mn\r\n",
    b"nonsense\r\n",
    b"quit\r\n",
];

/// Every cut has a store of its own.
#[test]
fn answers_do_not_depend_on_the_cut() {
    // How many keys of a line are taken at a time depends on how fast the client reads.
    let has_keys = |line: &[u8]| line.starts_with(b"get a b");
    let lines = TRANSCRIPT.iter().copied();
    let lines: Vec<_> = lines.filter(|line| !has_keys(line)).collect();
    SplitChecker::new(|| Memcached::new(&store())).check(&lines);
    SplitChecker::new(|| Memcached::new(&store()))
        .stream()
        .check(TRANSCRIPT);
    SplitChecker::new(|| Memcached::new(&store())).check(&[
        b"set a 0 0 1\r\nx\r\n",
        b"get a",
        b" b\r",
    ]);
    // What is skipped is skipped as it comes.
    let skipping = || Memcached::new(&small(1 << 20, 100));
    SplitChecker::new(skipping).stream().check(&[
        b"set a 0 0 60\r\n0123456789012345678901234567890123456789012345678901234567890\r\n",
        b"ms a 2 z\r\nhi\r\n",
        b"mn\r\n",
    ]);
}

/// A client and its keys, which others may have too, with the same values: several of them, more than fits into its buffers, and errors.
fn conversation(name: &str) -> Exchange {
    let long = name.repeat(6_000);
    let value = |key: &str, value: &str| format!("VALUE {key} 0 {}\r\n{value}\r\n", value.len());
    let store = |key: &str, value: &str| format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
    let (a, b) = (format!("{name}a"), format!("{name}b"));

    Exchange::new(store(&a, "short"), "STORED\r\n")
        .then(store(&b, &long), "STORED\r\n")
        .then(
            format!("get {a} {b} nothing {b} {a}\r\n"),
            [
                value(&a, "short"),
                value(&b, &long),
                value(&b, &long),
                value(&a, "short"),
                "END\r\n".to_owned(),
            ]
            .concat(),
        )
        .then(
            format!("mg {b} v\r\n"),
            format!("VA {}\r\n{long}\r\n", long.len()),
        )
        .then("nonsense\r\nmn\r\n", "ERROR\r\nMN\r\n")
        .then(
            format!("delete no{a}\r\nget no{a}\r\n"),
            "NOT_FOUND\r\nEND\r\n",
        )
}

fn hostile() -> Simulation<impl FnMut() -> Clients> {
    Simulation::new(|| Clients(store()))
        .config(Config {
            limits: Limits {
                high_water: 2_048,
                low_water: 512,
                max_output: 4_096,
                ..Limits::default()
            },
            ..Config::default()
        })
        .client(conversation("x"))
        .client(conversation("y").in_turns())
        .client(conversation("z").ends_first())
        .client(Exchange::new("quit\r\nmn\r\n", "").may_be_cut())
}

#[derive(Clone)]
struct Clients(Store);

impl serveloop::Factory for Clients {
    type Protocol = Memcached;

    fn build_protocol(&mut self, _: &Peer) -> Option<Memcached> {
        Some(Memcached::new(&self.0))
    }
}

#[test]
fn a_hostile_network_changes_nothing() {
    hostile().run(0..100);
    hostile().blocking().run(0..100);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(1), ..ProptestConfig::with_cases(300) })]

    /// Commands in any order, with any words: no panic, memory within its limit, and the same answers in
    /// one piece as byte by byte.
    #[test]
    fn any_words_are_answered(words in vec(prop::sample::select(WORDS), 0..60)) {
        let stream = words.concat();
        let answers = |size: usize| {
            let mut client = client(&small(2_000, 1_000));
            stream.as_bytes().chunks(size).for_each(|piece| client.receive(piece));
            (client.sent(), client.reason().map(ToString::to_string))
        };
        prop_assert_eq!(answers(usize::MAX), answers(1));
    }
}

const WORDS: &[&str] = &[
    "get ",
    "gets ",
    "gat ",
    "set ",
    "add ",
    "replace ",
    "append ",
    "prepend ",
    "cas ",
    "delete ",
    "incr ",
    "decr ",
    "touch ",
    "flush_all ",
    "stats reset",
    "verbosity ",
    "version",
    "mg ",
    "ms ",
    "md ",
    "ma ",
    "me ",
    "mn",
    "a ",
    "b ",
    "0 ",
    "1 ",
    "2 ",
    "3 ",
    "-1 ",
    "noreply",
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    " ",
    "a 0 0 1\r\n",
    "x\r\n",
    "12\r\n",
    "a 2 ",
    "v ",
    "k ",
    "q ",
    "I ",
    "T9 ",
    "N9 ",
    "R9 ",
    "C1 ",
    "Oab ",
    "MA ",
    "b ",
];
