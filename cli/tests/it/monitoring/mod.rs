//! `--metrics` and `--admin`: pages about a server, in every model.

mod crowd;
mod live;
mod pages;

use std::io::{BufRead, BufReader, Read, Write};

use rustix::process::Signal;

use crate::support::served::Served;
use crate::support::sockets::{Directory, Stream};

const TCP: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

/// A server with pages and an administrator's socket.
pub(crate) struct Monitored {
    pub(crate) served: Served,
    pub(crate) metrics: String,
    pub(crate) admin: String,
    _directory: Directory,
}

impl Monitored {
    /// Starts `serve echo` with `arguments`, too.
    #[track_caller]
    pub(crate) fn echo(arguments: &[&str]) -> Self {
        let directory = Directory::new();
        let admin = directory.uri("unix", "admin");
        let own = ["--metrics", "tcp://127.0.0.1:0", "--admin", &admin];
        let all = [&["echo"], &TCP[..], &own, arguments].concat();
        let served = Served::new(&all);
        let metrics = served.printed();
        let metrics = metrics
            .strip_prefix("metrics on ")
            .expect("where pages are");
        let metrics = metrics.to_owned();
        assert_eq!(served.printed(), format!("admin on {admin}"));
        Self {
            served,
            metrics,
            admin,
            _directory: directory,
        }
    }

    /// Asks for a page.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Page {
        get(&self.metrics, path)
    }

    /// Waits until a page has the status.
    #[track_caller]
    pub(crate) fn await_status(&self, path: &str, status: u16) {
        let begin = std::time::Instant::now();
        while self.get(path).status != status {
            assert!(
                begin.elapsed() < crate::support::served::PATIENCE,
                "{path} never has {status}"
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Ends the server in order. Returns the lines of the log that were not waited for.
    #[track_caller]
    pub(crate) fn end(self) -> Vec<String> {
        self.served.signal(Signal::TERM);
        self.served.status_and_log()
    }
}

/// An answer to a request for a page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Page {
    /// The value of a sample.
    #[track_caller]
    pub(crate) fn value(&self, sample: &str) -> u64 {
        value(&self.body, sample)
    }
}

/// The value of a sample in a text for Prometheus.
#[track_caller]
pub(crate) fn value(text: &str, sample: &str) -> u64 {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.expect(sample).parse().expect("a whole number")
}

/// Asks for a page on a connection of its own.
#[track_caller]
pub(crate) fn get(uri: &str, path: &str) -> Page {
    request(uri, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n"))
}

/// Sends a request, which lacks the last line, on a connection of its own.
#[track_caller]
pub(crate) fn request(uri: &str, head: &str) -> Page {
    let mut stream = Stream::connect(uri);
    stream.send(&format!("{head}Connection: close\r\n\r\n"));
    let text = String::from_utf8(stream.receive_rest()).expect("text");
    page(&text)
}

fn page(text: &str) -> Page {
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    Page {
        status: status.parse().expect("a number"),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// A connection on which many pages are asked for.
struct Scraper(BufReader<std::net::TcpStream>);

impl Scraper {
    #[track_caller]
    fn connect(uri: &str) -> Self {
        let stream = std::net::TcpStream::connect(&uri["tcp://".len()..]).expect("a connection");
        let patience = Some(crate::support::served::PATIENCE);
        stream.set_read_timeout(patience).expect("a socket");
        Self(BufReader::new(stream))
    }

    #[track_caller]
    fn metrics(&mut self) -> String {
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        self.0.get_mut().write_all(request).expect("room");
        let (mut line, mut length) = (String::new(), None);
        loop {
            line.clear();
            self.0.read_line(&mut line).expect("a line");
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().ok();
            }
            if line == "\r\n" {
                break;
            }
            assert!(!line.is_empty(), "the connection ended");
        }
        let mut body = vec![0; length.expect("a length")];
        self.0.read_exact(&mut body).expect("the body");
        String::from_utf8(body).expect("text")
    }
}
