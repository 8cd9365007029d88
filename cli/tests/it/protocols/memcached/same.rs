//! The same commands to memcached and to us: the same bytes come back.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::protocols::memcached::serve;
use crate::support::outside::require;
use crate::support::served::PATIENCE;
use crate::support::sockets::socket_addr;

/// Commands one by one, each line a request; `\n` in them is a line end, `CAS` the last unique number
/// that the server has told.
const TABLE: &str = include_str!("commands.txt");

/// A real memcached, killed when the test ends.
struct Real(Child);

impl Real {
    /// Starts it on a port that was free a moment ago.
    fn start() -> (Self, TcpStream) {
        let probe = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = probe.local_addr().expect("an address");
        drop(probe);
        // Without its maintenance in the background, which may hold an item that a command changes:
        // the value is then replaced, not changed, and what is known of the item is lost.
        let mut command = Command::new("memcached");
        command
            .args(["-o", "no_modern"])
            .args(["-u", "nobody", "-t", "1", "-l", "127.0.0.1", "-U", "0"])
            .args(["-p", &addr.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let real = Self(command.spawn().expect("memcached runs"));

        let began = Instant::now();
        loop {
            match TcpStream::connect(addr) {
                Ok(stream) => return (real, stream),
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Client {
    stream: TcpStream,
    unique: String,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self {
            stream,
            unique: "1".to_owned(),
        }
    }

    /// Sends a request and returns what it is answered with, up to the answer to one that is known.
    #[track_caller]
    fn ask(&mut self, request: &str) -> String {
        let request = request.replace("CAS", &self.unique);
        let all = format!("{request}mg nothing k Oend\r\n");
        self.stream.write_all(all.as_bytes()).expect("a connection");
        let mut answer = Vec::new();
        let mut piece = [0; 4_096];
        while !answer.ends_with(b"EN knothing Oend\r\n") {
            let count = self.stream.read(&mut piece).expect("an answer");
            assert!(
                count > 0,
                "{request:?} ended it after {:?}",
                answer.escape_ascii().to_string()
            );
            answer.extend_from_slice(&piece[..count]);
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer.lines().map(|line| self.line(line)).collect()
    }

    /// Notes a unique number, whose value is each server's own, and replaces it.
    fn line(&mut self, line: &str) -> String {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let is_number =
            |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        let place = match words.first().map(String::as_str) {
            Some("VALUE") => (words.len() == 5).then_some(4),
            Some("HD" | "VA") => words
                .iter()
                .position(|word| word.strip_prefix('c').is_some_and(is_number)),
            _ => None,
        };
        if let Some(place) = place {
            self.unique = words[place].trim_start_matches('c').to_owned();
            words[place] = "unique".to_owned();
        }
        words.join(" ") + "\r\n"
    }
}

/// Answers that show the seconds left may differ by one, as each server has its own beginning of a
/// second.
fn are_alike(one: &str, other: &str) -> bool {
    let seconds = |word: &str| {
        word.strip_prefix('t')
            .and_then(|left| left.parse::<u64>().ok())
    };
    let (one, other): (Vec<_>, Vec<_>) = (
        one.split([' ', '\n']).collect(),
        other.split([' ', '\n']).collect(),
    );
    one.len() == other.len()
        && one.iter().zip(&other).all(|(one, other)| {
            let close =
                |one: u64| seconds(other.trim_end()).is_some_and(|other| one.abs_diff(other) <= 1);
            one == other || seconds(one.trim_end()).is_some_and(close)
        })
}

fn both() -> Option<(Real, Client, crate::support::served::Served, Client)> {
    if !require("memcached") {
        return None;
    }
    let (real, theirs) = Real::start();
    let served = serve(&[]);
    let ours = TcpStream::connect(socket_addr(served.uri(0))).expect("a listener");
    Some((real, Client::new(theirs), served, Client::new(ours)))
}

#[test]
fn a_table_of_commands_has_the_same_answers() {
    let Some((_real, mut theirs, _served, mut ours)) = both() else {
        return;
    };
    let lines = TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut count = 0;
    for line in lines {
        let request = line
            .replace("\\n", "\r\n")
            .replace("LONG", &"k".repeat(251))
            .replace("MOST", &"k".repeat(250))
            + "\r\n";
        let (expected, answer) = (theirs.ask(&request), ours.ask(&request));
        assert!(
            are_alike(&expected, &answer),
            "{line}:\nmemcached {expected:?}\nours      {answer:?}"
        );
        count += 1;
    }
    assert!(count > 150, "{count} commands");
}

/// Commands put together from words, in a long conversation about few keys.
#[test]
fn commands_made_of_words_have_the_same_answers() {
    let Some((_real, mut theirs, _served, mut ours)) = both() else {
        return;
    };
    let mut random = 1_u64;
    let mut pick = |count: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % count
    };
    let mut asked = Vec::new();
    for _ in 0..20_000 {
        let request = made(&mut pick);
        let (expected, answer) = (theirs.ask(&request), ours.ask(&request));
        asked.push(request);
        let last = &asked[asked.len().saturating_sub(12)..];
        assert!(
            are_alike(&expected, &answer),
            "{last:#?}:\nmemcached {expected:?}\nours      {answer:?}"
        );
    }
}

fn made(pick: &mut impl FnMut(usize) -> usize) -> String {
    let mut of = |words: &[&str]| words[pick(words.len())].to_owned();
    let key = of(&["a", "b", "n"]);
    let value = of(&["x", "yy", "1", "99", "100", "18446744073709551615", ""]);
    let length = value.len();
    let quiet = of(&["", "", "", " noreply"]);
    let exptime = of(&["0", "0", "100", "100", "-1"]);
    match of(&[
        "get", "store", "store", "cas", "count", "touch", "delete", "mg", "mg", "ms", "ms", "md",
        "ma", "ma",
    ])
    .as_str()
    {
        "get" => {
            let name = of(&["get", "gets", "gat 100", "gats 0"]);
            format!("{name} {key} {} {key}\r\n", of(&["a", "b", "n", "none"]))
        }
        "store" => {
            let name = of(&["set", "set", "add", "replace", "append", "prepend"]);
            format!(
                "{name} {key} {} {exptime} {length}{quiet}\r\n{value}\r\n",
                of(&["0", "7"])
            )
        }
        "cas" => format!(
            "gets {key}\r\ncas {key} 0 {exptime} {length} {}{quiet}\r\n{value}\r\n",
            of(&["CAS", "1"])
        ),
        "count" => format!(
            "{} {key} {}{quiet}\r\n",
            of(&["incr", "decr"]),
            of(&["1", "5", "1000"])
        ),
        "touch" => format!("touch {key} {exptime}{quiet}\r\n"),
        "delete" => format!("delete {key}{quiet}\r\n"),
        verb => made_meta(verb, &key, &value, &mut of),
    }
}

/// A meta command, with up to two flags.
fn made_meta(verb: &str, key: &str, value: &str, of: &mut dyn FnMut(&[&str]) -> String) -> String {
    let length = value.len();
    match verb {
        "mg" => {
            let flags = flags_of(
                of,
                &[
                    "", " v", " t", " f", " s", " k", " q", " Oab", " N100", " R50", " T90000",
                    " u", " c",
                ],
            );
            format!("mg {key}{flags}\r\n")
        }
        "ms" => {
            let flags = flags_of(
                of,
                &[
                    "", " F5", " T100", " k", " q", " Oab", " ME", " MA", " MP", " MR", " MS",
                    " CCAS", " I", " b",
                ],
            );
            let key = if flags.contains(" b") {
                "YQ==".to_owned()
            } else {
                key.to_owned()
            };
            format!("ms {key} {length}{flags}\r\n{value}\r\n")
        }
        "md" => {
            let flags = flags_of(of, &["", " I", " T30", " k", " q", " Oab", " CCAS"]);
            format!("md {key}{flags}\r\n")
        }
        // Not T: memcached 1.6.18 loses it if the number grows longer.
        _ => {
            let flags = flags_of(
                of,
                &[
                    "", " v", " t", " k", " q", " Oab", " N100", " J5", " D3", " MD", " MI", " c",
                ],
            );
            format!("ma {key}{flags}\r\n")
        }
    }
}

fn flags_of(of: &mut dyn FnMut(&[&str]) -> String, flags: &[&str]) -> String {
    let (one, other) = (of(flags), of(flags));
    match one.as_bytes().get(1) == other.as_bytes().get(1) {
        true => one,
        false => one + &other,
    }
}
