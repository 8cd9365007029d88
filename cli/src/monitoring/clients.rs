//! The clients of the small server, and what serves each of them.
//!
//! Clients of pages and administrators have places of their own, so neither keep the other out. A new client
//! takes the place of the one that has asked for nothing for the longest time, so that a probe is answered
//! however many connections are only held.

use serveloop::{Actions, Factory, Peer, Protocol};
use serveloop_http::{Http, Request};

use crate::monitoring::admin::Admin;
use crate::monitoring::live::Feed;
use crate::monitoring::pages::Pages;
use crate::monitoring::places::{Places, SPARE};
use crate::monitoring::source::Source;

/// The most clients of pages. A browser has a few connections, and so has a program that scrapes.
const PAGES_MOST: usize = 32;

/// The most administrators.
const ADMINS_MOST: usize = 16;

/// The most clients of both kinds.
pub(super) const CLIENTS_MOST: usize = PAGES_MOST + ADMINS_MOST + 2 * SPARE;

/// How many clients a listener may accept in one turn.
pub(super) const ACCEPTS: usize = SPARE;

/// Makes the protocols of clients.
pub(super) struct Clients {
    source: Source,
    shown: Pages,
    /// How many of the listeners are for pages, which are the first ones.
    pages: usize,
    readers: Places,
    admins: Places,
}

impl Clients {
    pub(super) fn new(source: &Source, pages: usize, controls: bool) -> Self {
        let feed = Feed::new(source.clone(), controls);
        Self {
            source: source.clone(),
            shown: Pages::new(source.clone(), feed),
            pages,
            readers: Places::new(PAGES_MOST),
            admins: Places::new(ADMINS_MOST),
        }
    }
}

impl Factory for Clients {
    type Protocol = Box<dyn Protocol + Send>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        if peer.listener().is_none_or(|number| number >= self.pages) {
            let place = self.admins.give(peer.id())?;
            return Some(Box::new(Admin::framed(self.source.clone(), place)));
        }

        let place = self.readers.give(peer.id())?;
        let shown = self.shown.clone();
        let answer = move |request: &Request<'_>| {
            let reply = shown.answer(request, &place);
            place.note_question();
            reply
        };
        Some(Box::new(Http::new(answer).upgradable()))
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        self.readers.clear(actions);
        self.admins.clear(actions);
    }
}

#[cfg(test)]
mod tests {
    use serveloop::testing::MemoryServer;
    use serveloop::{Config, Server};

    use super::*;
    use crate::monitoring::About;
    use crate::monitoring::places::LIVE_MOST;
    use crate::signals::Leaving;

    fn server() -> MemoryServer<Clients> {
        let server = Server::bind(
            &["tcp://127.0.0.1:0".parse().expect("an address")],
            Config::default(),
        );
        let about = About {
            protocol: "echo",
            uris: Vec::new(),
        };
        let monitor = server.expect("a server").monitor();
        let source = Source::new(monitor, Leaving::default(), about);
        MemoryServer::new(Clients::new(&source, 1, false))
    }

    #[test]
    fn a_new_client_takes_the_place_of_who_asked_for_nothing() {
        let mut server = server();
        let asking = server.connect();
        server.send(asking, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let held: Vec<_> = (1..PAGES_MOST).map(|_| server.connect()).collect();
        server.send(held[0], b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        server.send(asking, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(server.connections(), PAGES_MOST);

        // A part of a request is no question.
        server.send(held[1], b"GET / HTTP/1.1\r\nHost: local");
        let probe = server.connect();
        assert_eq!(server.connections(), PAGES_MOST);
        server.send(held[1], b"host\r\n\r\n");
        for (client, is_answered) in [
            (asking, true),
            (held[0], true),
            (held[1], false),
            (held[2], true),
            (probe, true),
        ] {
            server.received(client);
            server.send(client, b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let answer = String::from_utf8_lossy(&server.received(client)).into_owned();
            assert_eq!(
                answer.contains(" 404 "),
                is_answered,
                "{client:?}: {answer}"
            );
        }
    }

    #[test]
    fn live_pages_stay_and_leave_places_to_others() {
        let upgrade = b"GET /live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut server = server();
        let mut live: Vec<_> = (0..LIVE_MOST).map(|_| server.connect()).collect();
        let refused = server.connect();
        let status = |server: &mut MemoryServer<Clients>, client| {
            server.send(client, upgrade);
            let answer = String::from_utf8_lossy(&server.received(client)).into_owned();
            answer.split(' ').nth(1).unwrap_or_default().to_owned()
        };
        for client in &live {
            assert_eq!(status(&mut server, *client), "101");
        }
        assert_eq!(status(&mut server, refused), "503");

        // Who leaves makes room for another.
        server.reset(live.remove(0));
        let another = server.connect();
        assert_eq!(status(&mut server, another), "101");

        for _ in 0..2 * PAGES_MOST {
            server.connect();
        }
        assert_eq!(server.connections(), PAGES_MOST);
        let last = server.connect();
        assert_eq!(status(&mut server, last), "503");
    }
}
