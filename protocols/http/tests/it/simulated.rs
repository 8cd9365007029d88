//! Whole servers on a hostile simulated network, on the loop and under the driver that blocks.

use std::io::Cursor;
use std::sync::Arc;
use std::task::Poll;

use serveloop::layer::Upgradable;
use serveloop::protocols::Echo;
use serveloop::testing::{Exchange, Faults, MemorySession, Scrambled, Simulation};
use serveloop::{Config, Limits, Peer};
use serveloop_http::{Handler, Http, Receive, Reply, Request, Response, Settings};

use crate::support::dateless;

/// Takes a body three bytes at a time, and asks to be called again.
struct Slow(Vec<u8>, serveloop::Waker);

impl Receive for Slow {
    fn received(&mut self, data: &[u8]) -> Result<usize, Response> {
        let count = data.len().min(3);
        self.0.extend_from_slice(&data[..count]);
        self.1.wake();
        Ok(count)
    }

    fn ended(self: Box<Self>) -> Reply {
        Response::new(200).body(self.0).into()
    }
}

fn answer(request: &Request<'_>) -> Reply {
    let waker = request.waker();
    match request.path() {
        "/collect" => Reply::collect(1_000, |body| Response::new(200).body(body)),
        "/receive" => Reply::receive(Slow(Vec::new(), waker)),
        "/stream" => Response::new(200)
            .reader(Cursor::new(vec![b's'; 3_000]))
            .into(),
        "/large" => Response::new(200).body(vec![b'l'; 3_000]).into(),
        "/close" => Response::text("bye\n").close().into(),
        "/later" => {
            let mut turns = 3;
            Reply::later(move || {
                turns -= 1;
                waker.wake();
                match turns {
                    0 => Poll::Ready(Response::text("at last\n").into()),
                    _ => Poll::Pending,
                }
            })
        }
        "/echo" => Reply::upgrade(Response::switch_to("echo"), Echo),
        _ => Response::text("hello\n").into(),
    }
}

type Server = Upgradable<Http<fn(&Request<'_>) -> Reply>>;

fn server() -> Server {
    // Time may jump.
    let settings = Settings {
        reply_timeout: None,
        ..dateless()
    };
    let http = Http::new(answer as fn(&Request<'_>) -> Reply);
    http.with_settings(&Arc::new(settings)).upgradable()
}

fn get(path: &str, fields: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// A client that sends all of `requests`. What it must get is what a session in memory says, which
/// other tests read.
fn client(requests: &[Vec<u8>]) -> Exchange {
    let mut session = MemorySession::new(server());
    requests
        .iter()
        .fold(Exchange::default(), |exchange, request| {
            session.receive(request);
            exchange.then(request, session.sent())
        })
}

/// What a client is told because of a deadline depends on the run.
fn patient() -> Config {
    let limits = Limits {
        first_message_timeout: None,
        message_timeout: None,
        idle_timeout: None,
        ..Limits::default()
    };
    Config {
        limits,
        ..Config::default()
    }
}

fn simulation() -> Simulation<impl FnMut() -> fn(&Peer) -> Option<Server> + Clone> {
    let build: fn(&Peer) -> Option<Server> = |_| Some(server());
    let chunks = b"POST /receive HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5;a=b\r\nabcde\r\n3\r\nfgh\r\n0\r\nTrailer: t\r\n\r\n";
    let waits =
        b"POST /collect HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mixed = [
        get("/", ""),
        post("/collect", "collected"),
        get("/stream", ""),
        chunks.to_vec(),
        get("/later", ""),
        post("/", "unwanted"),
        b"HEAD /large HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        get("/large", ""),
        get("/close", ""),
    ];
    Simulation::new(move || build)
        .config(patient())
        // A response that is made during a shutdown says that the connection ends.
        .faults(Faults {
            shutdowns: 0,
            ..Faults::all()
        })
        .client(client(&mixed))
        .client(client(&mixed).in_turns())
        .client(client(&mixed[..8]))
        .client(client(&[get("/", "")]).ends_first())
        .client(client(&[waits.to_vec(), b"hello".to_vec()]).in_turns())
        .client(client(&[get("/later", ""), get("/stream", "Connection: close\r\n")]))
        .client(client(&[get("/echo", "Connection: upgrade\r\nUpgrade: echo\r\n"), b"and on".to_vec()]))
        .client(client(&[get("/", ""), b"GET / HTTP/1.1\r\n\r\n".to_vec()]))
        .client(client(&[b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()]))
        .client(Exchange::default())
}

/// Responses that are made at once are the same during a shutdown, or are not made.
#[test]
fn a_shutdown_breaks_no_response() {
    let build: fn(&Peer) -> Option<Server> = |_| Some(server());
    Simulation::new(move || build)
        .config(patient())
        .client(client(&[get("/", ""), get("/", "")]))
        .run(0..200);
}

#[test]
fn the_loop_serves_it() {
    simulation().run(0..200);
}

#[test]
fn the_driver_that_blocks_serves_it() {
    simulation().blocking().run(0..200);
}

#[test]
fn it_works_inside_a_layer() {
    let layer = || Scrambled::new(7);
    let simulation = simulation().through(
        layer,
        move |plain| layer().seal(plain),
        move |plain| layer().expect(plain),
    );
    { simulation }.run(0..200);
}

/// What the simulation compares with is what a client can read.
#[test]
fn what_is_expected_is_valid() {
    fn is_handler(_: impl Handler) {}
    is_handler(answer);
    let mut session = MemorySession::new(server());
    session.receive(&[get("/later", ""), get("/stream", ""), get("/large", "")].concat());
    let seen = crate::support::read_responses(&session.sent(), &[]);
    let lengths: Vec<_> = seen.iter().map(|seen| seen.body.len()).collect();
    assert_eq!(lengths, [8, 3_000, 3_000]);
}
