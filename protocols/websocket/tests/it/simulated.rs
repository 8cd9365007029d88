//! Whole servers on a hostile simulated network.

use std::time::Instant;

use serveloop::service::{Lagging, Post};
use serveloop::testing::{Exchange, Simulation};
use serveloop::{Config, Ended, Factory, Limits, Peer, Protocol, ProtocolError, Result, Transport};
use serveloop_websocket::{
    Accept, CloseCode, Echo, Message, MessageGroup, MessageProtocol, MessageTransport, Request,
    websocket_with,
};

use crate::support::{
    BINARY, CLOSE, LAST, MORE, PING, QUIET, TEXT, closed, farewell, frame, plain,
};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Set for longer runs: how many seeds.
fn seeds() -> u64 {
    let seeds = std::env::var("SERVELOOP_SEEDS").ok();
    seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(150)
}

fn serve<H: MessageProtocol>(handler: fn() -> H) -> impl Factory {
    let mut factory = websocket_with(QUIET, move |_: &Request<'_>| Ok(Accept::new(handler())));
    move |peer: &Peer| factory(peer).map(Reticent)
}

/// Says nothing of deadlines and of the server's shutdown: a simulated client expects the same bytes
/// whatever happens, or fewer.
struct Reticent<P>(P);

impl<P: Protocol> Protocol for Reticent<P> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        self.0.connection_made(transport)
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        self.0.data_received(data, transport)
    }

    fn eof_received(&mut self, unread: &[u8], transport: &mut Transport<'_>) -> Result {
        self.0.eof_received(unread, transport)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.0.resume_writing(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.0.handle_timeout(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.0.woken(transport);
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        // A client that was cut off in the middle is not expected to be told.
        if !matches!(error, ProtocolError::Truncated { .. }) {
            self.0.input_rejected(error, transport);
        }
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        transport.close();
    }

    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        self.0.posted(post, transport);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.0.connection_lost(ended);
    }
}

/// How long a message may take is the protocol's own deadline, which a simulated network that stands
/// still would pass.
fn config() -> Config {
    Config {
        limits: Limits {
            message_timeout: None,
            ..Limits::default()
        },
        ..Config::default()
    }
}

#[track_caller]
fn simulate<H: MessageProtocol>(handler: fn() -> H, exchanges: &[Exchange]) {
    let simulation = || {
        let simulation = Simulation::new(move || serve(handler)).config(config());
        let exchanges = exchanges.iter().cloned();
        exchanges.fold(simulation, Simulation::client)
    };
    simulation().run(0..seeds());
    simulation().blocking().run(0..seeds());
}

fn greeted() -> Exchange {
    Exchange::new(REQUEST, RESPONSE)
}

#[test]
fn an_echo() {
    let long = [7; 300];
    let talk = greeted()
        .then(frame(TEXT, "good morning"), plain(TEXT, "good morning"))
        .then(frame(PING, "?"), plain(0x8a, "?"))
        .then(frame(BINARY & MORE, long), "")
        .then(frame(PING, ""), plain(0x8a, ""))
        .then(frame(LAST, long), plain(BINARY, [7; 600]))
        .stays_open();
    let closing = talk
        .clone()
        .then(frame(CLOSE, farewell(1000, "bye")), closed(1000, ""));
    simulate(
        || Echo,
        &[
            talk.clone().in_turns(),
            talk,
            closing.clone(),
            closing.in_turns(),
        ],
    );
}

/// Sends more than its marks allow, and closes.
struct Countdown(u32);

impl MessageProtocol for Countdown {
    fn message_received(&mut self, _: Message<'_>, client: &mut MessageTransport<'_>) -> Result {
        self.resume_writing(client);
        Ok(())
    }

    fn resume_writing(&mut self, client: &mut MessageTransport<'_>) {
        while self.0 > 0 && !client.is_full() {
            self.0 -= 1;
            client.send(&self.0.to_string());
        }
        if self.0 == 0 {
            client.close(CloseCode::NORMAL, "done");
        }
    }
}

#[test]
fn a_close_frame_is_whole_on_any_network() {
    let numbers = (0..200)
        .rev()
        .map(|number: u32| plain(TEXT, number.to_string()));
    let expected = numbers.chain([closed(1000, "done")]);
    let expected: Vec<u8> = expected.flatten().collect();
    let talk = greeted().then(frame(TEXT, "go"), expected).stays_open();
    let answered = talk.clone().then(frame(CLOSE, farewell(1000, "")), "");
    simulate(|| Countdown(200), &[talk.ends_last(), answered.in_turns()]);
}

/// Reads what it writes by way of a group in which it is alone.
struct Member(MessageGroup);

impl MessageProtocol for Member {
    fn opened(&mut self, client: &mut MessageTransport<'_>) -> Result {
        self.0.join(client.id().to_be_bytes(), client);
        Ok(())
    }

    fn message_received(
        &mut self,
        message: Message<'_>,
        client: &mut MessageTransport<'_>,
    ) -> Result {
        self.0.publish(client.id().to_be_bytes(), message);
        if message == Message::Text("last") {
            let closed = client.outbox().close(CloseCode::NORMAL, "");
            closed.expect("room");
        }
        Ok(())
    }
}

#[test]
fn what_is_published_arrives_on_any_network() {
    let long = "0123456789".repeat(500);
    let talk = greeted()
        .then(frame(TEXT, "one"), plain(TEXT, "one"))
        .then(frame(TEXT, &long), plain(TEXT, &long))
        .then(
            frame(TEXT, "last"),
            [plain(TEXT, "last"), closed(1000, "")].concat(),
        );
    let talk = talk.stays_open();
    let group = || Member(MessageGroup::new(Lagging::DropOldest));
    simulate(group, &[talk.clone().in_turns(), talk.ends_last()]);
}

#[test]
fn a_client_that_breaks_the_rules_hears_why() {
    let wrong = |sends: Vec<u8>, code, problem: &str| {
        greeted()
            .then(sends, closed(code, &format!("malformed: {problem}")))
            .stays_open()
    };
    let unmasked = wrong(plain(TEXT, "x"), 1002, "a frame without a mask");
    let no_text = wrong(frame(TEXT, b"a\xff"), 1007, "text is not UTF-8");
    let no_request = Exchange::new(
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: 27\r\n\r\nthis is a WebSocket server\n",
    );
    simulate(|| Echo, &[unmasked, no_text, no_request.stays_open()]);
}
