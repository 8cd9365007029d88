//! A server like one of HTTP, which has several right answers: to a client that is too slow it says 408,
//! to one too many 503, and either ends the connection after whole replies only.

use std::rc::Rc;

use serveloop::testing::{Exchange, Fate, Faults, Simulation};
use serveloop::{Deadline, Peer, Protocol, ProtocolError, Result, Transport};

use super::systems::{Any, Simulated};

/// How many connections are served. One more is told that it is one too many.
const SERVED_MOST: usize = 3;

const LATE: &[u8] = b"408\n";
const BUSY: &[u8] = b"503\n";

/// Answers `GET /name` with `200 name`, a line each.
struct Http {
    /// One for each connection, and one for the server.
    seat: Rc<()>,
}

impl Protocol for Http {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        if Rc::strong_count(&self.seat) > 1 + SERVED_MOST {
            transport.write(BUSY);
            transport.close();
        }
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
            return Ok(0);
        };
        let name = data[..end].strip_prefix(b"GET /");
        let name = name.ok_or(ProtocolError::malformed("no request"))?;
        transport.write(&[b"200 ", name, b"\n"].concat());
        Ok(end + 1)
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        if matches!(deadline, Deadline::FirstMessage | Deadline::Message) {
            transport.write(LATE);
        }
    }
}

fn server() -> Any {
    let seats = Rc::new(());
    Any::of(move || Http {
        seat: Rc::clone(&seats),
    })
}

fn pages() -> Exchange {
    Exchange::new("GET /a\n", "200 a\n")
        .then("GET /index.html\n", "200 index.html\n")
        .then("GET /\n", "200 \n")
}

pub(crate) fn http() -> Simulated {
    let pages = pages().or_ends_with(LATE).or_ends_with(BUSY);
    let half = Exchange::new("GET /never", "").stays_open();
    let half = half.or_ends_with(LATE).or_ends_with(BUSY);
    Simulation::new(server as fn() -> Any)
        .faults(Faults::all())
        .client(pages.clone().in_turns())
        .client(pages)
        .client(half.may_be_cut())
}

/// Whether an answer is right, and told apart from one that is right for another reason.
fn is_right(got: &[u8], fate: Fate) -> bool {
    let answers = [
        &b"200 a\n200 index.html\n200 \n"[..],
        b"200 a\n200 index.html\n408\n",
        b"200 a\n408\n",
        b"408\n",
        b"503\n",
    ];
    if fate.may_be_cut() || fate.may_be_late() || fate.saw_shutdown() {
        let begins = answers.iter().any(|answer| answer.starts_with(got));
        let says_late = got.ends_with(LATE);
        return begins && (fate.may_be_late() || !says_late);
    }
    let is_late = fate.deadline().is_some();
    !is_late && (got == answers[0] || got == BUSY)
}

/// All clients in the eyes of a judge, under the loop and under the driver that blocks.
pub(crate) fn a_judge_tells_answers_apart() {
    let judged = || http_of(pages().judged(is_right));
    judged().run(0..3_000);
    judged().blocking().run(0..1_000);

    // A judge that is never asked, or whose answer is ignored, would pass this too.
    let never = |_: &[u8], _: Fate| false;
    let failure = http_of(pages().judged(never))
        .check(0)
        .expect_err("it objects");
    assert!(
        failure.problem().contains("the judge objects to"),
        "{failure}"
    );
}

fn http_of(client: Exchange) -> Simulated {
    Simulation::new(server as fn() -> Any).client(client)
}

/// Without an ending, or with another one, the answers of this server are wrong.
pub(crate) fn only_the_endings_that_are_allowed_pass() {
    let fails =
        |client: Exchange| (0..500).any(|seed| http_of(client.clone()).check(seed).is_err());
    assert!(fails(pages()));
    assert!(fails(pages().or_ends_with(LATE)));
    assert!(fails(pages().or_ends_with(BUSY)));
    assert!(fails(pages().or_ends_with("408").or_ends_with(BUSY)));
    assert!(!fails(pages().or_ends_with(LATE).or_ends_with(BUSY)));
}

/// A client that is not slow misses no deadline, however short that is.
pub(crate) fn no_client_is_slow_unless_it_may_be() {
    let mut config = serveloop::Config::default();
    let limits = &mut config.limits;
    let short = std::time::Duration::from_millis(200);
    limits.first_message_timeout = Some(short);
    limits.message_timeout = Some(short);
    let name = "n".repeat(300);
    let long = Exchange::new(format!("GET /{name}\n"), format!("200 {name}\n"));
    Simulation::new(|| {
        let seat = Rc::new(());
        move |_: &Peer| {
            let seat = Rc::clone(&seat);
            Some(Http { seat })
        }
    })
    .config(config)
    .faults(Faults {
        tiny_buffers: 500,
        ..Faults::none()
    })
    .at_most(3)
    .client(long)
    .run(0..300);
}

/// Answers lines, and says at every deadline that it is over.
struct Punctual;

impl Protocol for Punctual {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let line = data.iter().position(|byte| *byte == b'\n');
        let taken = line.map_or(0, |end| end + 1);
        transport.write(&data[..taken]);
        Ok(taken)
    }

    fn deadline_passed(&mut self, _: Deadline, transport: &mut Transport<'_>) {
        transport.write(LATE);
    }
}

/// What is said at a deadline moves bytes, and is no reason to count from there.
pub(crate) fn who_speaks_at_a_deadline_was_not_early() {
    let line = Exchange::new("a\n", "a\n");
    Simulation::new(|| |_: &Peer| Some(Punctual))
        .client(line.then("b\n", "b\n").or_ends_with(LATE))
        .run(0..1_000);
}
