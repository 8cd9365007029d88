//! The example `chat_backplane`: three servers behind haproxy share one room through a redis-server, also
//! when that was killed and started again.

#[path = "../../../tests/it/support/outside.rs"]
mod outside;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A process that is killed when the test ends.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(
            command
                .stdin(Stdio::null())
                .spawn()
                .expect("`cargo test` builds the example"),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn await_port(port: u16) {
    let began = Instant::now();
    while let Err(error) = TcpStream::connect(("127.0.0.1", port)) {
        assert!(began.elapsed() < PATIENCE, "port {port}: {error}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn redis(port: u16) -> Process {
    let port_text = port.to_string();
    let process = Process::start(
        Command::new("redis-server")
            .args(["--port", &port_text, "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "no", "--dir", "/tmp"])
            .stdout(Stdio::null()),
    );
    await_port(port);
    process
}

/// Starts a server of the room, and returns its port.
fn room(redis: u16) -> (Process, u16) {
    let mut path = std::env::current_exe().expect("a path");
    path.pop();
    path.set_file_name("examples");
    let mut command = Command::new(path.join("chat_backplane"));
    let uri = format!("tcp://localhost:{redis}");
    command
        .args(["tcp://127.0.0.1:0", &uri])
        .stdout(Stdio::piped());
    let mut process = Process::start(&mut command);
    let output = process.0.stdout.take().expect("an output");
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).expect("a line");
    let port = line.trim().rsplit(':').next().expect("a port");
    (process, port.parse().expect("a number"))
}

fn haproxy(scratch: &Scratch, rooms: &[u16]) -> (Process, u16) {
    let port = free_port();
    let mut text = format!(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\nlisten chat\n  bind 127.0.0.1:{port}\n  balance roundrobin\n"
    );
    for (number, room) in rooms.iter().enumerate() {
        text += &format!("  server room{number} 127.0.0.1:{room}\n");
    }
    let file = scratch.0.join("haproxy.cfg");
    fs::write(&file, text).expect("a file");
    let process = Process::start(Command::new("haproxy").arg("-db").arg("-f").arg(&file));
    await_port(port);
    (process, port)
}

struct Member {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
    text: String,
}

impl Member {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a socket");
        let lines = BufReader::new(stream.try_clone().expect("a socket"));
        let text = String::new();
        Self {
            stream,
            lines,
            text,
        }
    }

    fn say(&mut self, text: &str) {
        self.stream
            .write_all(format!("{text}\n").as_bytes())
            .expect("it is connected");
    }

    /// Returns the next line, if one comes within a moment.
    fn hear(&mut self) -> Option<String> {
        match self.lines.read_line(&mut self.text) {
            Ok(0) => panic!("the connection was lost"),
            Ok(_) => Some(std::mem::take(&mut self.text)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("the connection was lost: {error}"),
        }
    }

    /// Waits until a line with `text` comes.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let began = Instant::now();
        loop {
            if self.hear().is_some_and(|line| line.contains(text)) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{text} has not come");
        }
    }
}

/// Each member says something until all others have heard it.
fn all_hear_all(members: &mut [Member], round: &str) {
    for speaker in 0..members.len() {
        let text = format!("{round} from {speaker}");
        members[speaker].say(&text);
        for member in &mut *members {
            member.expect(&text);
        }
    }
}

/// Waits until every server of the room hears the others again.
fn await_whole_room(members: &mut [Member]) {
    for member in members {
        member.expect("the room is whole");
    }
}

#[test]
fn three_servers_share_a_room_and_survive_their_redis() {
    let tools = ["redis-server", "haproxy"];
    if !tools.iter().all(|tool| outside::require(tool)) {
        return;
    }
    let scratch = Scratch::new("backplane");
    let port = free_port();
    let first = redis(port);
    let rooms = [room(port), room(port), room(port)];
    let (_haproxy, front) = haproxy(&scratch, &rooms.each_ref().map(|room| room.1));

    // Some are on each server, by turns. They join before or after the subscription holds.
    let mut members: Vec<_> = (0..6).map(|_| Member::connect(front)).collect();
    for member in &mut members {
        member.expect("you are");
    }
    let began = Instant::now();
    loop {
        // Until all three are subscribed, which a member that comes later is not told.
        members[0].say("are you there");
        let heard = |member: &mut Member| {
            std::iter::from_fn(|| member.hear()).any(|line| line.contains("there"))
        };
        if members.iter_mut().map(heard).filter(|heard| *heard).count() == 6 {
            break;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "the room does not come together"
        );
    }
    all_hear_all(&mut members, "first");

    drop(first);
    for member in &mut members {
        member.expect("other servers are not heard");
    }
    let second = redis(port);
    await_whole_room(&mut members);
    all_hear_all(&mut members, "second");

    // What is said meanwhile waits for it.
    drop(second);
    for member in &mut members {
        member.expect("other servers are not heard");
    }
    members[2].say("said without redis");
    let _third = redis(port);
    await_whole_room(&mut members);
    all_hear_all(&mut members, "third");
}

#[test]
fn members_come_and_stay_while_redis_is_away() {
    if !outside::require("redis-server") {
        return;
    }
    let port = free_port();
    let (_room, at) = room(port);
    let mut members = [Member::connect(at), Member::connect(at)];
    for member in &mut members {
        member.expect("you are");
    }
    members[0].say("before redis");
    let _redis = redis(port);
    for member in &mut members {
        member.expect("the room is whole");
    }
    all_hear_all(&mut members, "then");
}
