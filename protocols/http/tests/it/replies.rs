//! What handlers can answer, and what clients see of it.

use std::io::{self, Cursor};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use serveloop::protocols::Echo;
use serveloop::testing::{MemorySession, SplitChecker};
use serveloop::{CloseReason, Config, Deadline, Limits};
use serveloop_http::{
    Body, Http, Receive, Reply, Request, Responder, Response, Settings, Source, Version,
};

use crate::support::{GET, Seen, dateless, http, read_responses, session};

fn post(length: usize) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";

fn only(stream: &[u8]) -> Seen {
    let mut all = read_responses(stream, &[]);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// Lets a client take everything, however little at a time.
fn all_of(session: &mut MemorySession<impl serveloop::Protocol>) -> Vec<u8> {
    session.take_in_steps(1_000);
    session.sent()
}

#[test]
fn a_request_is_shown_as_it_was_sent() {
    let mut session = session(|request: &Request<'_>| {
        assert_eq!(
            (request.method, request.target),
            ("GET", "http://a.example:80/p/q?r=s?t")
        );
        assert_eq!((request.path(), request.query()), ("/p/q", Some("r=s?t")));
        assert_eq!(request.host(), Some("a.example:80"));
        assert_eq!(request.version, Version::Http11);
        assert_eq!(request.headers.len(), 4);
        assert_eq!(request.headers.get("HOST"), Some(&b"other"[..]));
        assert_eq!(
            request.headers.all("x").collect::<Vec<_>>(),
            [&b"1"[..], b"\xff"]
        );
        assert_eq!(request.headers.text("Blank"), Some(""));
        assert_eq!(request.content_length(), Some(0));
        assert_eq!(request.upgrade(), None);
        Response::text("seen")
    });
    session.receive(
        b"GET http://a.example:80/p/q?r=s?t HTTP/1.1\r\nHost: other\r\nX: 1\r\nx:   \xff \r\nBlank:\r\n\r\n",
    );
    assert_eq!(only(&session.sent()).text(), "seen");
}

#[test]
fn bodies_of_every_kind_arrive_whole() {
    let large: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
    let shared: Arc<[u8]> = large.clone().into();
    type Make = fn(&Arc<[u8]>) -> Response;
    let bodies: [(Make, usize); 6] = [
        (|_| Response::new(200).body("short"), 5),
        (|_| Response::new(200).body(Vec::new()), 0),
        (|all| Response::new(200).body(all.to_vec()), 300_000),
        (|all| Response::new(200).body(Arc::clone(all)), 300_000),
        (
            |all| Response::new(200).reader(Cursor::new(all.to_vec())),
            300_000,
        ),
        (
            |all| Response::new(200).stream_of_length(300_000, Pieces::of(all, 7_000)),
            300_000,
        ),
    ];

    for (make, length) in bodies {
        let body = Arc::clone(&shared);
        let mut session = session(move |_: &Request<'_>| make(&body));
        session.stop_taking();
        session.receive(&GET.repeat(2));
        let waiting = session.waiting();
        assert!(
            waiting <= Limits::default().high_water,
            "{waiting} bytes wait"
        );

        let sent = all_of(&mut session);
        for seen in read_responses(&sent, &[]) {
            assert_eq!((seen.status, seen.body.len()), (200, length));
            assert!(length < 300_000 || seen.body == large);
        }
        assert!(session.reason().is_none());
    }
}

/// A source that shows this many bytes at a time.
struct Pieces(Vec<u8>, usize, usize);

impl Pieces {
    fn of(bytes: &[u8], most: usize) -> Self {
        Self(bytes.to_vec(), 0, most)
    }
}

impl Source for Pieces {
    fn fill(&mut self) -> Poll<io::Result<&[u8]>> {
        let end = self.0.len().min((self.1 / self.2 + 1) * self.2);
        Poll::Ready(Ok(&self.0[self.1..end]))
    }

    fn consume(&mut self, count: usize) {
        self.1 += count;
    }
}

#[test]
fn a_response_to_head_has_no_body() {
    let mut session = session(|_: &Request<'_>| Response::text("hello"));
    session.receive(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    session.receive(GET);
    let seen = read_responses(&session.sent(), &[0]);
    assert_eq!(seen[0].field("content-length"), Some("5"));
    assert_eq!((seen.len(), seen[1].text()), (2, "hello"));
}

#[test]
fn statuses_without_content_have_none() {
    for status in [204, 304] {
        let mut session = session(move |_: &Request<'_>| Response::new(status).body("no"));
        session.receive(&GET.repeat(2));
        let seen = read_responses(&session.sent(), &[]);
        assert_eq!(seen.len(), 2);
        assert!(
            seen.iter()
                .all(|seen| seen.body.is_empty() && seen.field("content-length").is_none())
        );
    }
}

#[test]
fn a_client_of_http_1_0_gets_no_chunks() {
    let mut session = session(|_: &Request<'_>| Response::new(200).reader(&b"until the end"[..]));
    session.receive(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let seen = only(&session.sent());
    assert_eq!(seen.field("connection"), Some("close"));
    assert_eq!(seen.field("content-length"), None);
    assert_eq!(seen.text(), "until the end");
    assert!(matches!(session.reason(), Some(CloseReason::Closed)));
}

#[test]
fn a_mistake_of_the_handler_is_a_500() {
    let mistakes: [fn() -> Response; 8] = [
        || Response::new(200).header("X", "a\r\nY: b"),
        || Response::new(200).header("X", "a\0"),
        || Response::new(200).header("X: Y", "a"),
        || Response::new(200).header("", "a"),
        || Response::new(200).header("Content-Length", "3"),
        || Response::new(200).header("transfer-encoding", "chunked"),
        || Response::new(99),
        || Response::switch_to("x"),
    ];
    for mistake in mistakes {
        let mut session = session(move |_: &Request<'_>| mistake());
        session.receive(&GET.repeat(2));
        let statuses: Vec<_> = read_responses(&session.sent(), &[])
            .iter()
            .map(|seen| seen.status)
            .collect();
        assert_eq!(statuses, [500, 500]);
    }
}

#[test]
fn responses_have_a_date_unless_it_is_left_out() {
    let mut session = MemorySession::new(Http::new(|_: &Request<'_>| Response::new(200)));
    session.receive(GET);
    let seen = only(&session.sent());
    let date = seen.field("date").expect("a date");
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
}

fn upload(most: usize) -> impl FnMut(&Request<'_>) -> Reply {
    move |_: &Request<'_>| Reply::collect(most, |body| Response::new(200).body(body))
}

#[test]
fn a_body_is_collected() {
    let mut session = session(upload(100));
    session.receive(&post(5));
    assert_eq!(session.sent(), b"");
    session.receive(b"hel");
    session.receive(b"lo");
    assert_eq!(only(&session.sent()).text(), "hello");

    session.receive(
        &[
            CHUNKED,
            b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: t\r\n\r\n",
            GET,
        ]
        .concat(),
    );
    let seen = read_responses(&session.sent(), &[]);
    assert_eq!((seen[0].text(), seen[1].text()), ("abcdefg", ""));
}

#[test]
fn a_body_beyond_its_limit_is_a_413() {
    let mut announced = session(upload(4));
    announced.receive(&post(5));
    assert_eq!(only(&announced.sent()).status, 413);
    assert!(announced.reason().is_some());

    let mut in_chunks = session(upload(4));
    in_chunks.receive(&[CHUNKED, b"3\r\nabc\r\n"].concat());
    assert_eq!(in_chunks.sent(), b"");
    in_chunks.receive(b"2\r\nde\r\n0\r\n\r\n");
    let seen = only(&in_chunks.sent());
    assert_eq!(
        (seen.status, seen.field("connection")),
        (413, Some("close"))
    );
    assert!(in_chunks.reason().is_some());
}

/// Without settings, the longest body is the longest message of the connection.
#[test]
fn max_frame_is_the_longest_body() {
    let config = || {
        let limits = Limits {
            max_frame: 10,
            ..Limits::default()
        };
        Config {
            limits,
            ..Config::default()
        }
    };
    for (length, status) in [(10, 200), (11, 413)] {
        let mut session = MemorySession::with_config(http(upload(100)), config());
        session.receive(&[post(length), vec![b'a'; length]].concat());
        assert_eq!(only(&session.sent()).status, status);
    }

    let mut long_head = MemorySession::with_config(http(upload(100)), config());
    long_head.receive(&[&b"GET / HTTP/1.1\r\n"[..], &b"X: y\r\n".repeat(200)].concat());
    assert_eq!(only(&long_head.sent()).status, 431);
}

#[test]
fn a_collected_body_is_charged() {
    let mut session = session(upload(200_000));
    session.receive(&post(150_000));
    session.receive(&[b'a'; 100_000]);
    assert!(session.held() >= 100_000, "{}", session.held());
    session.receive(&[b'a'; 50_000]);
    assert_eq!(only(&session.sent()).body.len(), 150_000);
    assert_eq!(session.held(), 0);
}

#[test]
fn the_client_is_told_to_go_on_only_if_the_body_is_wanted() {
    let expecting =
        b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut wanted = session(upload(5));
    wanted.receive(expecting);
    assert_eq!(wanted.sent(), b"HTTP/1.1 100 Continue\r\n\r\n");
    wanted.receive(b"hello");
    assert_eq!(only(&wanted.sent()).text(), "hello");
    assert!(wanted.reason().is_none());

    // Whether the client sends its body now is unclear, so the connection ends.
    let mut refused = session(|_: &Request<'_>| Response::status(403));
    refused.receive(expecting);
    let seen = only(&refused.sent());
    assert_eq!(
        (seen.status, seen.field("connection")),
        (403, Some("close"))
    );
    assert!(refused.reason().is_some());

    let mut too_long = session(upload(4));
    too_long.receive(expecting);
    assert_eq!(only(&too_long.sent()).status, 413);
}

#[test]
fn a_body_that_is_not_wanted_is_discarded_or_ends_the_connection() {
    let mut short = session(|_: &Request<'_>| Response::text("no"));
    short.receive(&post(60_000));
    assert_eq!(only(&short.sent()).text(), "no");
    short.receive(&[b'x'; 60_000]);
    short.receive(GET);
    assert_eq!(only(&short.sent()).text(), "no");

    let mut long = session(|_: &Request<'_>| Response::text("no"));
    long.receive(&post(70_000));
    assert_eq!(only(&long.sent()).field("connection"), Some("close"));
    assert!(long.reason().is_some());

    // How long chunks are together is not known before.
    let mut chunks = session(|_: &Request<'_>| Response::text("no"));
    chunks.receive(&[CHUNKED, b"ffff\r\n"].concat());
    assert_eq!(only(&chunks.sent()).field("connection"), None);
    chunks.receive(&[b'x'; 0xffff]);
    assert!(chunks.reason().is_none());
    chunks.receive(b"\r\n2\r\nab\r\n");
    assert!(matches!(chunks.reason(), Some(CloseReason::Closed)));
}

/// Takes up to three bytes each time that it is let.
struct Reluctant(Arc<AtomicUsize>, Vec<u8>);

impl Receive for Reluctant {
    fn received(&mut self, data: &[u8]) -> Result<usize, Response> {
        if data.contains(&b'!') {
            return Err(Response::status(422));
        }
        let most = data.len().min(self.0.swap(0, Ordering::SeqCst));
        self.1.extend_from_slice(&data[..most]);
        Ok(most)
    }

    fn ended(self: Box<Self>) -> Reply {
        Response::new(200).body(self.1).into()
    }
}

#[test]
fn a_receiver_slows_its_client_down() {
    let allowed = Arc::new(AtomicUsize::new(3));
    let waker = Arc::new(Mutex::new(None));
    let (allowance, place) = (Arc::clone(&allowed), Arc::clone(&waker));
    let mut session = session(move |request: &Request<'_>| {
        *place.lock().unwrap() = Some(request.waker());
        Reply::receive(Reluctant(Arc::clone(&allowance), Vec::new()))
    });

    session.receive(&[CHUNKED, b"5\r\nabcde\r\n2\r\nfg\r\n0\r\n\r\n"].concat());
    session.advance(Duration::from_secs(600));
    for _ in 0..2 {
        assert_eq!(session.sent(), b"");
        allowed.store(3, Ordering::SeqCst);
        waker.lock().unwrap().as_ref().unwrap().wake();
        session.run();
    }
    assert_eq!(only(&session.sent()).text(), "abcdefg");
    assert!(session.reason().is_none());
}

#[test]
fn a_receiver_may_refuse() {
    let allowed = Arc::new(AtomicUsize::new(100));
    let mut session =
        session(move |_: &Request<'_>| Reply::receive(Reluctant(Arc::clone(&allowed), Vec::new())));
    session.receive(&[post(5), b"ab!cd".to_vec(), GET.to_vec()].concat());
    let seen = read_responses(&session.sent(), &[]);
    assert_eq!((seen[0].status, seen[1].status), (422, 200));
}

#[test]
fn another_thread_answers() {
    let place: Arc<Mutex<Option<Responder>>> = Arc::default();
    let kept = Arc::clone(&place);
    let mut session = session(move |request: &Request<'_>| {
        let (responder, reply) = Reply::promise(request);
        *kept.lock().unwrap() = Some(responder);
        reply
    });

    session.receive(&GET.repeat(2));
    assert_eq!(session.sent(), b"");
    let responder = place.lock().unwrap().take().unwrap();
    thread::spawn(|| responder.respond(Response::text("first")))
        .join()
        .unwrap();
    session.run();
    assert_eq!(only(&session.sent()).text(), "first");

    // A responder that is forgotten answers too.
    drop(place.lock().unwrap().take().unwrap());
    session.run();
    assert_eq!(only(&session.sent()).status, 500);
    assert!(session.reason().is_none());
}

#[test]
fn a_handler_that_takes_too_long_is_a_503() {
    let mut session = session(|_: &Request<'_>| Reply::later(|| Poll::Pending));
    session.receive(GET);
    session.advance(Duration::from_secs(59));
    assert_eq!(session.sent(), b"");
    session.advance(Duration::from_secs(1));
    assert_eq!(only(&session.sent()).status, 503);
    assert!(matches!(session.reason(), Some(CloseReason::Closed)));
}

/// The body waits until it is known whether it is wanted.
#[test]
fn a_later_reply_may_ask_for_the_body() {
    let is_allowed = Arc::new(AtomicUsize::new(0));
    let (gate, waker) = (Arc::clone(&is_allowed), Arc::new(Mutex::new(None)));
    let place = Arc::clone(&waker);
    let mut session = session(move |request: &Request<'_>| {
        *place.lock().unwrap() = Some(request.waker());
        let gate = Arc::clone(&gate);
        Reply::later(move || match gate.load(Ordering::SeqCst) {
            0 => Poll::Pending,
            _ => Poll::Ready(Reply::collect(10, |body| Response::new(200).body(body))),
        })
    });

    session.receive(&[post(5), b"hello".to_vec()].concat());
    is_allowed.store(1, Ordering::SeqCst);
    waker.lock().unwrap().as_ref().unwrap().wake();
    session.run();
    assert_eq!(only(&session.sent()).text(), "hello");
}

#[test]
fn a_head_or_a_body_that_takes_too_long_is_a_408() {
    let mut first = session(upload(10));
    first.receive(b"GET / HT");
    first.advance(Duration::from_secs(10));
    assert_eq!(only(&first.sent()).status, 408);
    assert!(matches!(
        first.reason(),
        Some(CloseReason::TimedOut(Deadline::FirstMessage))
    ));

    let mut second = session(upload(10));
    second.receive(&[GET, b"GET / HT"].concat());
    second.sent();
    second.advance(Duration::from_secs(30));
    assert_eq!(only(&second.sent()).status, 408);
    assert!(matches!(
        second.reason(),
        Some(CloseReason::TimedOut(Deadline::Message))
    ));

    // One byte in ten seconds.
    let mut body = session(upload(10));
    body.receive(&post(10));
    for _ in 0..3 {
        body.receive(b"a");
        body.advance(Duration::from_secs(10));
    }
    assert_eq!(only(&body.sent()).status, 408);
    assert!(body.reason().is_some());

    // A client that has sent nothing is told nothing.
    let mut silent = session(upload(10));
    silent.advance(Duration::from_secs(10));
    assert_eq!(silent.sent(), b"");
    assert!(silent.reason().is_some());
    let mut idle = session(upload(10));
    idle.receive(GET);
    idle.sent();
    idle.advance(Duration::from_secs(60));
    assert_eq!(idle.sent(), b"");
    assert!(matches!(
        idle.reason(),
        Some(CloseReason::TimedOut(Deadline::Idle))
    ));
}

#[test]
fn a_body_that_comes_fast_enough_has_all_the_time() {
    let mut session = session(upload(1_000_000));
    session.receive(&post(100_000));
    for _ in 0..20 {
        session.advance(Duration::from_secs(20));
        session.receive(&[b'a'; 5_000]);
    }
    assert_eq!(only(&session.sent()).body.len(), 100_000);
}

#[test]
fn a_client_that_ends_its_side_gets_its_response() {
    let mut session = session(|_: &Request<'_>| Response::new(200).body(vec![0; 200_000]));
    session.stop_taking();
    session.receive(&GET.repeat(3));
    session.receive_eof();
    assert!(session.reason().is_none());
    let seen = read_responses(&all_of(&mut session), &[]);
    assert_eq!(seen.len(), 3);
    assert!(matches!(session.reason(), Some(CloseReason::PeerClosed)));
}

/// The end of the connection waits for all output.
#[test]
fn the_last_response_is_sent_whole() {
    let mut session = session(|_: &Request<'_>| Response::new(200).body(vec![0; 200_000]).close());
    session.stop_taking();
    session.receive(GET);
    let seen = only(&all_of(&mut session));
    assert_eq!(
        (seen.body.len(), seen.field("connection")),
        (200_000, Some("close"))
    );
    assert!(session.reason().is_some());
}

#[test]
fn a_source_that_fails_resets_the_connection() {
    struct Broken(bool);
    impl Source for Broken {
        fn fill(&mut self) -> Poll<io::Result<&[u8]>> {
            Poll::Ready(match self.0 {
                true => Err(io::Error::other("gone")),
                false => Ok(b"begin"),
            })
        }
        fn consume(&mut self, count: usize) {
            self.0 = count == 5;
        }
    }

    let mut chunked = session(|_: &Request<'_>| Response::new(200).stream(Broken(false)));
    chunked.receive(GET);
    assert!(matches!(chunked.reason(), Some(CloseReason::Aborted)));

    let short = |_: &Request<'_>| Response::new(200).stream_of_length(9, Pieces::of(b"short", 9));
    let mut session = session(short);
    session.receive(GET);
    assert!(matches!(session.reason(), Some(CloseReason::Aborted)));
}

#[test]
fn a_source_may_have_nothing_yet() {
    let lines: Arc<Mutex<Vec<u8>>> = Arc::default();
    struct Feed(Arc<Mutex<Vec<u8>>>, Vec<u8>);
    impl Source for Feed {
        fn fill(&mut self) -> Poll<io::Result<&[u8]>> {
            if self.1.is_empty() {
                self.1 = std::mem::take(&mut self.0.lock().unwrap());
            }
            match self.1.is_empty() {
                true => Poll::Pending,
                false => Poll::Ready(Ok(&self.1)),
            }
        }
        fn consume(&mut self, count: usize) {
            self.1.drain(..count);
        }
    }

    let waker = Arc::new(Mutex::new(None));
    let (feed, place) = (Arc::clone(&lines), Arc::clone(&waker));
    let mut session = session(move |request: &Request<'_>| {
        *place.lock().unwrap() = Some(request.waker());
        Response::new(200).stream(Feed(Arc::clone(&feed), Vec::new()))
    });
    session.receive(GET);
    assert!(session.sent().ends_with(b"\r\n\r\n"));
    for _ in 0..2 {
        lines.lock().unwrap().extend(b"line\n");
        waker.lock().unwrap().as_ref().unwrap().wake();
        session.run();
        assert_eq!(session.sent(), b"5\r\nline\n\r\n");
    }
}

#[test]
fn another_protocol_takes_over() {
    let offer = |request: &Request<'_>| match request.upgrade() {
        Some("echo") => Reply::upgrade(Response::switch_to("echo").header("X", "y"), Echo),
        _ => Response::text("http").into(),
    };
    let asks =
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n";
    let switched =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX: y\r\n\r\n";

    let mut session = MemorySession::new(http(offer).upgradable());
    session.receive(&[GET, asks, b"and", b" on"].concat());
    session.receive(b".");
    let sent = session.sent();
    let at = sent
        .windows(switched.len())
        .position(|window| window == switched)
        .expect("a switch");
    assert_eq!(only(&sent[..at]).text(), "http");
    assert_eq!(&sent[at + switched.len()..], b"and on.");

    // A protocol that cannot be followed offers nothing.
    let mut plain = MemorySession::new(http(offer));
    plain.receive(asks);
    assert_eq!(only(&plain.sent()).text(), "http");

    // A client that did not ask gets an error.
    let forced = |_: &Request<'_>| Reply::upgrade(Response::switch_to("echo"), Echo);
    let mut session = MemorySession::new(http(forced).upgradable());
    session.receive(GET);
    let seen = only(&session.sent());
    assert_eq!((seen.status, seen.field("upgrade")), (426, Some("echo")));
    let mut session = MemorySession::new(http(forced));
    session.receive(asks);
    assert_eq!(only(&session.sent()).status, 426);
}

/// A protocol that reads its own handshake sees the whole request, and what follows.
#[test]
fn a_connection_is_handed_over_with_its_request() {
    let answer = |request: &Request<'_>| match request.path() {
        "/echo" => Reply::hand_over(Echo),
        "/later" => Reply::later(|| Poll::Ready(Reply::hand_over(Echo))),
        _ => Response::text("http").into(),
    };
    let asks = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
    let mut session = MemorySession::new(http(answer).upgradable());
    session.receive(&[GET, asks, b"and"].concat());
    session.receive(b" on");
    let sent = session.sent();
    let at = sent.len() - asks.len() - b"and on".len();
    assert_eq!(only(&sent[..at]).text(), "http");
    assert_eq!(sent[at..], [asks, &b"and on"[..]].concat());

    let mut plain = MemorySession::new(http(answer));
    plain.receive(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(only(&plain.sent()).status, 500);
    let mut late = MemorySession::new(http(answer).upgradable());
    late.receive(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(only(&late.sent()).status, 500);

    SplitChecker::new(|| http(answer).upgradable())
        .stream()
        .check(&[GET, asks, b"and on"]);
}

#[test]
fn an_upgrade_does_not_depend_on_cuts() {
    let offer = |_: &Request<'_>| Reply::upgrade(Response::switch_to("echo"), Echo);
    let asks = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    SplitChecker::new(|| http(offer).upgradable())
        .stream()
        .check(&[asks, b"and on"]);
}

#[test]
fn a_shutdown_waits_for_what_is_owed() {
    let mut idle = session(upload(10));
    idle.receive(GET);
    idle.sent();
    idle.shutdown();
    assert!(matches!(idle.reason(), Some(CloseReason::Shutdown)));

    let mut sending = session(|_: &Request<'_>| Response::new(200).body(vec![0; 200_000]));
    sending.stop_taking();
    sending.receive(&GET.repeat(2));
    sending.shutdown();
    assert_eq!(only(&all_of(&mut sending)).body.len(), 200_000);
    assert!(sending.reason().is_some());

    let mut receiving = session(upload(10));
    receiving.receive(&post(5));
    receiving.shutdown();
    receiving.receive(b"hello");
    assert_eq!(only(&receiving.sent()).field("connection"), Some("close"));
    assert!(receiving.reason().is_some());
}

/// It is no use to a client that has its response.
#[test]
fn a_shutdown_does_not_wait_for_a_body_that_was_answered() {
    for head in [&post(5)[..], CHUNKED] {
        let mut answered = session(|_: &Request<'_>| Response::status(405));
        answered.receive(head);
        assert_eq!(only(&answered.sent()).status, 405);
        assert!(answered.reason().is_none());
        answered.shutdown();
        assert!(answered.reason().is_some());

        let mut sending = session(|_: &Request<'_>| Response::new(200).body(vec![0; 200_000]));
        sending.stop_taking();
        sending.receive(head);
        sending.shutdown();
        assert!(sending.reason().is_none());
        assert_eq!(only(&all_of(&mut sending)).body.len(), 200_000);
        assert!(sending.reason().is_some());
    }
}

#[test]
fn requests_and_bodies_do_not_depend_on_cuts() {
    let answer = |request: &Request<'_>| match (request.method, request.path()) {
        ("POST", "/echo") => Reply::collect(100, |body| Response::new(200).body(body)),
        ("POST", _) => {
            let allowed = Arc::new(AtomicUsize::new(100));
            Reply::receive(Reluctant(allowed, Vec::new()))
        }
        (_, "/stream") => Response::new(200)
            .stream(Pieces::of(b"in pieces of four", 4))
            .into(),
        (_, "/static") => Response::new(200).body(Body::Static(b"static")).into(),
        _ => Response::status(404).into(),
    };
    let requests: &[&[u8]] = &[
        b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
        b"hello",
        b"HEAD /static HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /static HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ];
    SplitChecker::new(|| http(answer)).stream().check(requests);
}

/// With messages: each head is taken as one.
#[test]
fn heads_are_messages() {
    let requests: &[&[u8]] = &[
        GET,
        b"HEAD /a HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ];
    SplitChecker::new(|| http(|_: &Request<'_>| Response::text("hello"))).check(requests);
}

/// A client that sends requests and takes no responses is slowed down.
#[test]
fn responses_that_are_not_taken_stop_the_requests() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let mut session = session(move |_: &Request<'_>| {
        counted.fetch_add(1, Ordering::SeqCst);
        Response::text("x".repeat(1_000))
    });
    session.stop_taking();
    for _ in 0..100 {
        session.receive(&GET.repeat(10));
    }
    assert!(session.reason().is_none());
    let before = count.load(Ordering::SeqCst);
    assert!(before < 70, "{before} were answered");
    assert_eq!(read_responses(&all_of(&mut session), &[]).len(), 1_000);
}

#[test]
fn a_protocol_for_each_connection_is_small() {
    let size = size_of::<Http<fn(&Request<'_>) -> Response>>();
    assert!(size <= 48, "{size} bytes");
    let _ = Settings {
        max_head: 1,
        ..dateless()
    };
}
