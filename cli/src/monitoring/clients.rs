//! The clients of the small server: what serves each of them, and who has to leave when there are too many.
//!
//! Clients of pages and administrators have places of their own, so neither keep the other out. A new client
//! takes the place of the one that has asked for nothing for the longest time, so that a probe is answered
//! however many connections are only held.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use serveloop::{Actions, Factory, Peer, Protocol};
use serveloop_http::{Http, Request};

use crate::monitoring::admin::Admin;
use crate::monitoring::live::Feed;
use crate::monitoring::pages::Pages;
use crate::monitoring::source::Source;
use crate::threads::lock;

/// The most clients of pages. A browser has a few connections, and so has a program that scrapes.
const PAGES_MOST: usize = 32;

/// How many of them may be live pages, which stay.
const LIVE_MOST: usize = 16;

/// The most administrators.
const ADMINS_MOST: usize = 16;

/// By how many clients each of these may be exceeded. At the end of a turn another client leaves for each of
/// them, unless that many connections have ended and wait for their peers to close.
const SPARE: usize = 8;

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

/// The places of clients of one kind.
struct Places {
    most: usize,
    /// The ids of the clients. A place that its client has left is gone.
    taken: Vec<(u64, Weak<Place>)>,
    staying: Arc<AtomicUsize>,
}

impl Places {
    fn new(most: usize) -> Self {
        Self {
            most,
            taken: Vec::new(),
            staying: Arc::default(),
        }
    }

    /// Gives a place to the client with this id, if there is one.
    fn give(&mut self, id: u64) -> Option<Arc<Place>> {
        self.forget_left();
        if self.taken.len() >= self.most + SPARE {
            return None;
        }

        let place = Arc::new(Place {
            asked: Mutex::new(Some(Instant::now())),
            staying: Arc::clone(&self.staying),
        });
        self.taken.push((id, Arc::downgrade(&place)));
        Some(place)
    }

    /// Ends the clients that have been idle for the longest time, until there are not too many.
    fn clear<P>(&mut self, actions: &mut Actions<'_, P>) {
        if self.taken.len() <= self.most {
            return;
        }
        self.forget_left();
        let surplus = self.taken.len().saturating_sub(self.most);

        // Who has left, but waits for the peer to close, can do nothing for others.
        let open: Vec<_> = actions.connections().map(|it| it.id()).collect();
        let there = self.taken.iter().filter(|(id, _)| open.contains(id));
        let mut idle: Vec<_> = there
            .filter_map(|(id, place)| Some((place.upgrade()?.asked()?, *id)))
            .collect();
        idle.sort_unstable();
        for (_, id) in idle.into_iter().take(surplus) {
            actions.abort(id);
        }
    }

    fn forget_left(&mut self) {
        self.taken.retain(|(_, place)| place.strong_count() > 0);
    }
}

/// The place of one client, which it has until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// When the client has asked last, or connected. There is no such time for a client that stays.
    asked: Mutex<Option<Instant>>,
    /// How many clients stay.
    staying: Arc<AtomicUsize>,
}

impl Place {
    /// Notes that the client has just asked, and was answered.
    pub(super) fn note_question(&self) {
        if let Some(asked) = &mut *lock(&self.asked) {
            *asked = Instant::now();
        }
    }

    /// Lets the client stay, however little it asks. Returns false if too many do already.
    pub(super) fn stay(&self) -> bool {
        let one_more = |count| (count < LIVE_MOST).then_some(count + 1);
        let counted = self
            .staying
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        if counted.is_ok() {
            *lock(&self.asked) = None;
        }
        counted.is_ok()
    }

    fn asked(&self) -> Option<Instant> {
        *lock(&self.asked)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.asked().is_none() {
            self.staying.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
impl Place {
    /// A place that nobody else wants.
    pub(super) fn of_its_own() -> Arc<Self> {
        Arc::new(Self {
            asked: Mutex::new(Some(Instant::now())),
            staying: Arc::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serveloop::testing::MemoryServer;
    use serveloop::{Config, Server};

    use super::*;
    use crate::monitoring::About;
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
