//! An HTTP request that becomes another protocol (101 Switching Protocols), as WebSocket does: lines,
//! each of which comes back in capitals.
//!
//! Run `cargo run --example upgrade`, and in another terminal
//! `printf 'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\nhello\n' | nc -N 127.0.0.1 9999`.
//! Arguments are another address, and another model, which is `threads` or `processes`.

use std::env;

use serveloop::framing::{Delimited, FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::layer::{Upgradable, Upgrade};
use serveloop::{Config, Peer, Result, Server};

const HEAD_BYTES: usize = 8_000;
const LINE_BYTES: usize = 1_000;

/// What comes first: one request.
struct Http {
    is_agreed: bool,
}

impl FrameProtocol for Http {
    type Framing = Delimited;

    fn frame_received(
        &mut self,
        head: &[u8],
        client: &mut FrameTransport<'_, Delimited>,
    ) -> Result {
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        let mut lines = head.split("\r\n");
        let is_get = lines
            .next()
            .is_some_and(|line| line.starts_with("get / http/1.1"));
        let has = |name: &str, word: &str| {
            let fields = head.lines().filter_map(|line| line.split_once(':'));
            let mut values = fields
                .filter(|(field, _)| *field == name)
                .map(|(_, value)| value);
            values.any(|value| value.split(',').any(|part| part.trim() == word))
        };

        self.is_agreed = is_get && has("connection", "upgrade") && has("upgrade", "lines");
        if self.is_agreed {
            let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines";
            return client.send(head);
        }

        let head =
            b"HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade, close\r\nUpgrade: lines\r\n\
                     Content-Length: 0";
        client.send(head)?;
        client.transport().close();
        Ok(())
    }
}

impl Upgrade for Http {
    type Next = Framed<Capitals>;

    /// What is unread goes to the next protocol: lines may follow the request at once.
    fn take_next(&mut self) -> Option<Framed<Capitals>> {
        let next = || Framed::new(Lines::new(LINE_BYTES), Capitals);
        self.is_agreed.then(next)
    }
}

/// What follows.
struct Capitals;

impl FrameProtocol for Capitals {
    type Framing = Lines;

    fn frame_received(&mut self, line: &[u8], client: &mut FrameTransport<'_, Lines>) -> Result {
        client.send(&line.to_ascii_uppercase())
    }
}

fn build(_: &Peer) -> Option<Upgradable<Framed<Http>>> {
    let http = Http { is_agreed: false };
    let framing = Delimited::new(*b"\r\n\r\n", HEAD_BYTES);
    Some(Upgradable::new(Framed::new(framing, http)))
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let at = arguments
        .first()
        .map_or("tcp://127.0.0.1:9999", String::as_str);
    let server = Server::bind(&[at.parse()?], Config::default())?;
    println!("listening on {}", server.addresses()[0]);
    match arguments.get(1).map(String::as_str) {
        Some("threads") => server.serve_threading(build)?,
        Some("processes") => server.serve_forking(build)?,
        _ => server.serve_forever(build)?,
    };
    Ok(())
}
