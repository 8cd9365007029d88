//! Clients that others wrote: what works in these tests works for them too.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::support::outside::skip;
use crate::support::served::{PATIENCE, Served};
use crate::support::sockets::{Directory, path_of, socket_addr};

const GREETING: &str = "good morning\n";

/// An echo server on TCP, UDP, a Unix stream and a Unix datagram socket, and IPv6 where there is.
fn serve_echo(directory: &Directory) -> Served {
    let stream = directory.uri("unix", "stream");
    let datagram = directory.uri("unixgram", "datagram");
    let mut uris = vec!["tcp://127.0.0.1:0", "udp://127.0.0.1:0", &stream, &datagram];
    if TcpListener::bind("[::1]:0").is_ok() {
        uris.extend(["tcp://[::1]:0", "udp://[::1]:0"]);
    }
    let listen = uris.iter().flat_map(|uri| ["--listen", uri]);
    let arguments: Vec<_> = ["echo"].into_iter().chain(listen).collect();
    Served::new(&arguments)
}

/// Whether a program is there and is the one that is meant: its help has `mark` in it.
fn is_installed(program: &str, option: &str, mark: &str) -> bool {
    let found = Command::new(program)
        .arg(option)
        .output()
        .is_ok_and(|output| {
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text).contains(mark)
        });
    if !found {
        skip(&format!("{program} ({mark})"));
    }
    found
}

/// A client that is killed if it does not end by itself.
struct Client(Child);

impl Client {
    fn new(program: &str, arguments: &[String]) -> Self {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.expect("a program that is installed"))
    }

    /// Types the greeting, and waits until it comes back. A stream's client then sees the end of its
    /// input and, when the server has closed too, ends by itself.
    #[track_caller]
    fn greet(mut self, uri: &str) {
        let mut stdin = self.0.stdin.take().expect("a pipe");
        stdin.write_all(GREETING.as_bytes()).expect("a reader");
        let answer = self.answer();
        assert_eq!(
            answer.recv_timeout(PATIENCE).as_deref(),
            Ok(GREETING),
            "{uri}"
        );
        if uri.starts_with("tcp:") || uri.starts_with("unix:") {
            drop(stdin);
            assert_eq!(answer.recv_timeout(PATIENCE).as_deref(), Ok(""), "{uri}");
            assert!(self.0.wait().expect("our child").success(), "{uri}");
        }
    }

    /// The answer, and then what follows until the end.
    fn answer(&mut self) -> mpsc::Receiver<String> {
        let mut stdout = self.0.stdout.take().expect("a pipe");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut answer = vec![0; GREETING.len()];
            let mut rest = Vec::new();
            if stdout.read_exact(&mut answer).is_ok() {
                let _ = sender.send(String::from_utf8_lossy(&answer).into_owned());
            }
            if stdout.read_to_end(&mut rest).is_ok() {
                let _ = sender.send(String::from_utf8_lossy(&rest).into_owned());
            }
        });
        receiver
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn netcat() {
    if !is_installed("nc", "-h", "OpenBSD") {
        return;
    }
    let directory = Directory::new();
    let served = serve_echo(&directory);
    for uri in served.uris() {
        let options = match uri.split_once("://") {
            Some(("tcp", _)) => "-N",
            Some(("udp", _)) => "-u",
            Some(("unix", _)) => "-NU",
            _ => "-uU",
        };
        let mut arguments = vec![options.to_owned()];
        if options == "-uU" {
            let own = directory.path("nc").display().to_string();
            arguments.extend(["-s".to_owned(), own]);
        }
        if options.ends_with('U') {
            arguments.push(path_of(uri).display().to_string());
        } else {
            let address = socket_addr(uri);
            arguments.extend([address.ip().to_string(), address.port().to_string()]);
        }
        Client::new("nc", &arguments).greet(uri);
    }
}

#[test]
fn socat() {
    if !is_installed("socat", "-V", "socat version") {
        return;
    }
    let directory = Directory::new();
    let served = serve_echo(&directory);
    for uri in served.uris() {
        let there = match uri.split_once("://") {
            Some(("tcp", _)) => format!("TCP:{}", socket_addr(uri)),
            Some(("udp", _)) => format!("UDP:{}", socket_addr(uri)),
            Some(("unix", path)) => format!("UNIX-CONNECT:{path}"),
            _ => format!(
                "UNIX-SENDTO:{},bind={}",
                path_of(uri).display(),
                directory.path("socat").display()
            ),
        };
        let patience = PATIENCE.as_secs().to_string();
        let arguments = ["-t".to_owned(), patience, "-".to_owned(), there];
        Client::new("socat", &arguments).greet(uri);
    }
}

#[test]
fn python_socket() {
    python("socket_client.py");
}

#[test]
fn python_asyncio() {
    python("asyncio_client.py");
}

/// Runs one of our scripts against every kind of socket; it ends well if all came back.
#[track_caller]
fn python(script: &str) {
    if !is_installed("python3", "--version", "Python 3") {
        return;
    }
    let directory = Directory::new();
    let served = serve_echo(&directory);
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(script);
    let output = Command::new("python3")
        .arg(script)
        .arg(directory.path("python"))
        .args(served.uris())
        .output()
        .expect("a program that is installed");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let done = String::from_utf8_lossy(&output.stdout);
    assert_eq!(done.lines().collect::<Vec<_>>(), served.uris());
}
