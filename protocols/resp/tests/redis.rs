//! The store compared with redis-server: the same commands to both, the same bytes back.

#[path = "../../../tests/it/support/outside.rs"]
mod outside;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serveloop::testing::MemorySession;
use serveloop_resp::Resp;
use serveloop_resp::store::{Connection, Settings, Store};

const PATIENCE: Duration = Duration::from_secs(20);

/// A redis-server at a socket of its own, killed when the test ends.
struct Redis {
    child: Child,
    directory: PathBuf,
}

impl Redis {
    /// Starts one, if the program is there.
    fn start(name: &str) -> Option<Self> {
        if !outside::require("redis-server") {
            return None;
        }
        let directory = std::env::temp_dir().join(format!("resp-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let child = Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--databases",
                "1",
                "--unixsocket",
                "socket",
            ])
            .current_dir(&directory)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server");
        Some(Self { child, directory })
    }

    fn connect(&self) -> UnixStream {
        let began = Instant::now();
        loop {
            match UnixStream::connect(self.directory.join("socket")) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                    return stream;
                }
                Err(_) if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
                Err(error) => panic!("redis-server does not listen: {error}"),
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn ours() -> MemorySession<Resp<Connection>> {
    of(&Store::new(Settings::default()))
}

fn of(store: &Arc<Store>) -> MemorySession<Resp<Connection>> {
    MemorySession::new(Resp::new(store.connection()))
}

/// Sends everything to redis-server and returns all that it answers until the end.
fn all_of(redis: &Redis, input: &[u8]) -> Vec<u8> {
    let mut stream = redis.connect();
    // A server that has seen an error may be gone already.
    let _ = stream.write_all(input);
    let _ = stream.shutdown(Shutdown::Write);
    let mut output = Vec::new();
    match stream.read_to_end(&mut output) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => output,
    }
}

fn all_of_ours(input: &[u8]) -> Vec<u8> {
    let mut session = ours();
    session.receive(input);
    session.receive_eof();
    session.sent()
}

fn request(words: &[&str]) -> Vec<u8> {
    let head = format!("*{}\r\n", words.len());
    let words = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    (head + &words.collect::<String>()).into_bytes()
}

/// Requests, parts of them, and what is none, in every pair.
const PIECES: [&str; 39] = [
    "*1\r\n$4\r\nPING\r\n",
    "*2\r\n$4\r\nECHO\r\n$2\r\n\r\n\r\n",
    "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
    "*0\r\n",
    "*-1\r\n",
    "*-5\r\n",
    "\r\n",
    "\n",
    "   \r\n",
    "PING\r\n",
    "ping hi\n",
    "  echo  'a b'\r\n",
    "echo \"a\\x41\\n\\\"\"\r\n",
    "echo 'a\\'b'\r\n",
    "echo \"\" \r\n",
    "''\r\n",
    "echo a b\r\n",
    "echo 'a\r\n",
    "echo \"a\"b\r\n",
    "echo a\"b\"\r\n",
    "nothing\r\n",
    "nothing 'a b' c\r\n",
    "*1\r\n$7\r\nnot\r\nhi\r\n",
    "*x\r\n",
    "*\r\n",
    "*1x\r\n",
    "*01\r\n",
    "*+1\r\n",
    "*99999999999\r\n",
    "*99999999999999999999999\r\n",
    "*1\r\n:1\r\n",
    "*1\r\nPING\r\n",
    "*1\r\n\r\n",
    "*1\r\n$-1\r\n",
    "*1\r\n$x\r\n",
    "*1\r\n$\r\n",
    "*1\r\n$9999999999999\r\n",
    "*2\r\n$4\r\nECHO\r\n",
    "*1\r\n$4\r\nPI",
];

#[test]
fn what_is_a_request_is_agreed_on() {
    let Some(redis) = Redis::start("pieces") else {
        return;
    };
    // A part is only the last one: redis-server does not look at what is behind a bulk string.
    for first in &PIECES[..PIECES.len() - 1] {
        for second in PIECES {
            let input = [*first, second].concat();
            let theirs = all_of(&redis, input.as_bytes());
            let ours = all_of_ours(input.as_bytes());
            assert_eq!(
                String::from_utf8_lossy(&ours),
                String::from_utf8_lossy(&theirs),
                "{input:?}"
            );
        }
    }
}

/// Commands with their arguments in brackets: one of the words in each.
const SHAPES: [&str; 64] = [
    "set [k] [v]",
    "set [k] [v] [o]",
    "set [k] [v] [o] [o]",
    "set [k] [v] [u] [t]",
    "set [k] [v] [o] [u] [t]",
    "set [k] [v] [u] [t] [o]",
    "set [k] [v] [u]",
    "get [k]",
    "getdel [k]",
    "getset [k] [v]",
    "getex [k]",
    "getex [k] persist",
    "getex [k] [u] [t]",
    "getex [k] [u]",
    "getex [k] [o] [t]",
    "setnx [k] [v]",
    "setex [k] [t] [v]",
    "psetex [k] [t] [v]",
    "mget [k] [k] [k]",
    "mset [k] [v] [k] [v]",
    "mset [k] [v] [k]",
    "msetnx [k] [v] [k] [v]",
    "append [k] [v]",
    "strlen [k]",
    "getrange [k] [i] [i]",
    "substr [k] [i] [i]",
    "setrange [k] [i] [v]",
    "incr [k]",
    "decr [k]",
    "incrby [k] [n]",
    "decrby [k] [n]",
    "incrbyfloat [q] [f]",
    "incrbyfloat [k] [z]",
    "set [q] [w]",
    "get [q]",
    "del [k] [k]",
    "unlink [k]",
    "exists [k] [k] [k]",
    "touch [k] [k]",
    "type [k]",
    "rename [k] [k]",
    "renamenx [k] [k]",
    "expire [k] [t]",
    "expire [k] [t] [c]",
    "expire [k] [t] [c] [c]",
    "pexpire [k] [t]",
    "expireat [k] [a]",
    "pexpireat [k] [a]",
    "persist [k]",
    "ttl [k]",
    "pttl [k]",
    "expiretime [k]",
    "dbsize",
    "keys [g]",
    "scan 0 match [g]",
    "scan [s] count [e] type [v]",
    "flushall [o]",
    "ping",
    "ping [v]",
    "select [i]",
    "get",
    "get [k] [k]",
    "[v] [k]",
    "client getname",
];

fn choices(kind: &str) -> &'static [&'static str] {
    match kind {
        "k" => &["a", "b", "c", "d", "e", ""],
        "v" => &[
            "1",
            "-7",
            "hello",
            "",
            "3.25",
            "9223372036854775807",
            "01",
            " 1",
            "x\r\ny",
            "10",
        ],
        "o" => &["nx", "XX", "get", "KEEPTTL", "frob"],
        "u" => &["ex", "PX", "exat", "pxat"],
        "t" => &[
            "9999999999999",
            "0",
            "-5",
            "x",
            "9223372036854775807",
            "99999999999999",
            "1.5",
            "92233720368547758",
        ],
        "a" => &["0", "99999999999", "99999999999999", "-1", "x"],
        "c" => &["nx", "xx", "gt", "lt", "frob"],
        "i" => &[
            "0",
            "1",
            "-1",
            "3",
            "-3",
            "100",
            "-100",
            "x",
            "9223372036854775807",
        ],
        "n" => &[
            "1",
            "-1",
            "0",
            "9223372036854775807",
            "-9223372036854775808",
            "x",
            "",
            "1.5",
        ],
        "e" => &["1000", "-1", "0", "x", "", "1.5"],
        "s" => &["0", "x", "1.5"],
        "f" => &["0.5", "1.5", "-3", "1e3", "x", "inf", "nan", "", "0.25"],
        // Numbers with fractions that both have exactly have keys of their own.
        "q" => &["x", "y"],
        "w" => &["1", "-7", "3.25", "hello", "", "1e2", " 1"],
        "z" => &["x", "", "nan", "inf"],
        "g" => &["*", "a", "[a-c]", "?", "z*", "[^a]", "\\a", "h*llo"],
        other => panic!("{other}"),
    }
}

/// Numbers that look random, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.0 >> 33) as usize) % end
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

fn command(random: &mut Random) -> Vec<&'static str> {
    let shape = random.pick(&SHAPES);
    words_of(shape, random)
}

fn words_of(shape: &'static str, random: &mut Random) -> Vec<&'static str> {
    let word = |word: &'static str| match word.strip_prefix('[').and_then(|it| it.strip_suffix(']'))
    {
        Some(kind) => random.pick(choices(kind)),
        None => word,
    };
    shape.split(' ').map(word).collect()
}

/// What one client says about channels. It hears what it publishes, so everything is on one connection.
const TALKS: [&str; 19] = [
    "subscribe a a b|unsubscribe b|psubscribe a*|ping|ping hi|get a|unsubscribe|unsubscribe|punsubscribe x|punsubscribe|get a",
    "unsubscribe|unsubscribe a b|punsubscribe|punsubscribe a",
    "subscribe|psubscribe|publish a|pubsub|pubsub frob|pubsub channels a b|pubsub numpat a",
    "publish a b|pubsub channels|pubsub numsub|pubsub numsub a b|pubsub numpat",
    "subscribe a|publish a hi|nothing|hello 3",
    "subscribe a|reset|ping|get a",
    "psubscribe a|psubscribe a*|subscribe a|quit",
    "hello 4|hello x|hello 3 frob|hello 3 setname 'a b'|hello 3 auth a",
    "set a 1|getex a persist ex 5|getex a ex 10 px 10|getex a ex|flushall sync async|flushdb frob|set a 2 ex 5 ex 50|set a 2 ex 5 px 5|ttl a",
    "auth a|auth default a|auth x a|auth a b c|auth|hello 2 auth x y|hello 3 auth default|hello 2 auth x",
    "config get save|config get|config frob|command count x|client frob|client id x|client setname|client no-evict x",
    "multi|multi|set a 1|get a|incr a|exec|exec|discard|multi|get a|discard|get a|multi|exec",
    "multi|watch a|set a b|incr a|get a|strlen a|exec|multi|get|get a|exec|get a|multi|nothing|exec|exec",
    "multi|exec x|exec|exec x|multi x|discard x|watch|unwatch x|watch a|exec x|multi|set a 1|exec|unwatch",
    "multi|client frob|exec|multi|client id x|exec|multi|config frob|exec|multi|config get|exec|multi|config resetstat x|exec|multi|pubsub frob|exec|multi|pubsub numpat x|exec|multi|command count x|exec|multi|command frob|exec|multi|pubsub channels a b|client setname a|exec|client getname",
    "watch a|set a 1|multi|get a|exec|multi|get a|exec|watch a b|get a|multi|get a|exec|watch a|unwatch|set a 2|multi|get a|unwatch|exec|watch a|del a|multi|exec|watch a|del a|multi|exec",
    "multi|subscribe a b|get a|ping|exec|get a|multi|exec|ping|reset|multi|unsubscribe|psubscribe a*|punsubscribe|get b|exec|get b",
    "watch a|multi|set a 1|reset|exec|get a|watch a|reset|set a 1|multi|get a|exec|multi|auth x|hello 4|hello 3 auth x y|select 0|select 1|auth default x|exec|multi|quit|get a",
    "watch a|set a 1|hello 3 auth x y|multi|get a|exec|multi|set a|get a|discard|watch a|append a x|multi|discard|multi|get a|exec",
];

#[test]
fn listeners_are_told_what_redis_tells_them() {
    let Some(redis) = Redis::start("channels") else {
        return;
    };
    for talk in TALKS {
        let input: String = talk.split('|').map(|line| format!("{line}\r\n")).collect();
        let theirs = all_of(&redis, input.as_bytes());
        let ours = all_of_ours(input.as_bytes());
        assert_eq!(
            String::from_utf8_lossy(&ours),
            String::from_utf8_lossy(&theirs),
            "{talk}"
        );
    }
}

/// Reads one reply, with those inside it.
fn reply_of(stream: &mut UnixStream) -> Vec<u8> {
    let mut reply = Vec::new();
    read_value(stream, &mut reply);
    reply
}

fn read_value(stream: &mut UnixStream, reply: &mut Vec<u8>) {
    let start = reply.len();
    while !reply[start..].ends_with(b"\r\n") {
        read_bytes(stream, 1, reply);
    }
    let kind = reply[start];
    let line = String::from_utf8_lossy(&reply[start + 1..reply.len() - 2]).into_owned();
    match (kind, line.parse::<i64>()) {
        (b'$' | b'=', Ok(length @ 0..)) => read_bytes(stream, length as usize + 2, reply),
        (b'*' | b'~' | b'>', Ok(length @ 0..)) => {
            (0..length).for_each(|_| read_value(stream, reply))
        }
        (b'%', Ok(length @ 0..)) => (0..length * 2).for_each(|_| read_value(stream, reply)),
        _ => {}
    }
}

fn read_bytes(stream: &mut UnixStream, count: usize, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.resize(start + count, 0);
    stream.read_exact(&mut bytes[start..]).expect("a reply");
}

/// What both have to agree on: times that are left differ by a little, and sets have no order.
fn comparable(words: &[&str], reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply).into_owned();
    match words[0] {
        "ttl" | "pttl" | "expiretime" | "pexpiretime" if !text.starts_with(":-") => {
            ":some".to_owned()
        }
        "keys" | "scan" if text.starts_with('*') => {
            let mut lines: Vec<_> = text.split("\r\n").collect();
            lines.sort_unstable();
            lines.join(" ")
        }
        _ => text,
    }
}

/// What clients say about transactions, besides ordinary commands. Two speak at the same keys.
const TRANSACTIONS: [&str; 12] = [
    "multi",
    "multi",
    "multi",
    "exec",
    "exec",
    "exec",
    "exec",
    "discard",
    "watch [k] [k]",
    "watch [k]",
    "unwatch",
    "watch",
];

/// Whatever each does between `WATCH`, `MULTI` and `EXEC` of the other one, and in either version.
#[test]
fn transactions_of_two_clients_are_those_of_redis() {
    let Some(redis) = Redis::start("transactions") else {
        return;
    };
    for seed in 0..60 {
        let mut random = Random(seed * 104_729 + 3);
        let store = Store::new(Settings::default());
        let mut clients: Vec<_> = (0..2).map(|_| (redis.connect(), of(&store))).collect();
        ask(&mut clients[0], &["flushall"]);
        if seed % 2 == 1 {
            // The greeting has numbers of the servers.
            let hello = request(&["hello", "3"]);
            clients[1].0.write_all(&hello).expect("a server");
            reply_of(&mut clients[1].0);
            clients[1].1.receive(&hello);
            clients[1].1.sent();
        }

        let mut said = Vec::new();
        for _ in 0..300 {
            let speaker = random.below(2);
            let words = match random.below(3) {
                0 => words_of(random.pick(&TRANSACTIONS), &mut random),
                _ => command(&mut random),
            };
            // Times and orders differ, which inside of an array is hard to see.
            if matches!(
                words[0],
                "ttl" | "pttl" | "expiretime" | "pexpiretime" | "keys" | "scan"
            ) {
                continue;
            }
            said.push(format!("{speaker}: {}", words.join(" ")));
            let (theirs, ours) = ask(&mut clients[speaker], &words);
            assert_eq!(
                ours,
                theirs,
                "seed {seed}: {:#?}",
                &said[said.len().saturating_sub(30)..]
            );
        }
    }
}

/// Asks both servers.
fn ask(
    client: &mut (UnixStream, MemorySession<Resp<Connection>>),
    words: &[&str],
) -> (String, String) {
    let request = request(words);
    client.0.write_all(&request).expect("a server");
    let theirs = reply_of(&mut client.0);
    client.1.receive(&request);
    let ours = client.1.sent();
    let text = |reply: Vec<u8>| String::from_utf8_lossy(&reply).into_owned();
    (text(theirs), text(ours))
}

#[test]
fn commands_are_answered_as_by_redis() {
    let Some(redis) = Redis::start("commands") else {
        return;
    };
    let mut stream = redis.connect();
    for seed in 0..60 {
        let mut random = Random(seed * 7_919 + 1);
        let mut ours = ours();
        stream.write_all(&request(&["flushall"])).expect("a server");
        reply_of(&mut stream);

        let mut said = Vec::new();
        for _ in 0..200 {
            let words = command(&mut random);
            let request = request(&words);
            stream.write_all(&request).expect("a server");
            let theirs = comparable(&words, &reply_of(&mut stream));
            ours.receive(&request);
            let ours = comparable(&words, &ours.sent());
            said.push(words.join(" "));
            assert_eq!(
                ours,
                theirs,
                "seed {seed}: {:#?}",
                &said[said.len().saturating_sub(8)..]
            );
        }
    }
}
