//! Listeners with proxies in front: who states the address of a client, and who is believed.

use std::sync::Arc;

use serveloop::layer::proxy::{Header, Proxy, Reader};
use serveloop::layer::{Event, Observe, Observed, Preface, Prefaced};
use serveloop::net::NetworkList;
use serveloop::{Ended, Factory, Peer, Protocol, ProtocolError};

use crate::serving::AccessLog;

/// As many bytes show whether a stream begins like a PROXY header.
const ENOUGH: usize = 16;

/// Where the clients of a listener come through: trusted proxies, which begin each connection with a
/// PROXY header.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    trusted: Arc<NetworkList>,
    proxies: Proxy,
    others: Others,
}

/// What is done with peers that are no trusted proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    /// They are refused when they connect.
    Refused,
    /// They are clients, and send no header.
    Direct,
}

impl Door {
    pub(crate) fn new(trusted: NetworkList, others: Others) -> Self {
        Self {
            proxies: Proxy::optional(trusted.clone()),
            trusted: Arc::new(trusted),
            others,
        }
    }

    pub(crate) fn trusted(&self) -> &NetworkList {
        &self.trusted
    }
}

/// Makes protocols for the clients of listeners of which some have a door. The protocols are boxed,
/// since they differ.
pub(super) struct Doorkeeper {
    /// By the listener's number.
    doors: Arc<[Option<Door>]>,
    make: Box<dyn Make>,
}

impl Doorkeeper {
    pub(super) fn new<F>(doors: Arc<[Option<Door>]>, factory: F) -> Self
    where
        F: Factory + Clone + Send + 'static,
        F::Protocol: Send + 'static,
    {
        let make = Box::new(factory);
        Self { doors, make }
    }
}

impl Clone for Doorkeeper {
    fn clone(&self) -> Self {
        Self {
            doors: Arc::clone(&self.doors),
            make: self.make.copy(),
        }
    }
}

impl Factory for Doorkeeper {
    type Protocol = Boxed;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Boxed> {
        let door = peer
            .listener()
            .and_then(|number| self.doors.get(number)?.as_ref());
        let Some(door) = door else {
            return self.make.plain(peer);
        };

        let reader = door.proxies.reader(peer)?;
        if door.trusted.contains(peer.address()) {
            return Some(self.make.behind(reader));
        }
        if door.others == Others::Refused {
            AccessLog.note(peer, format_args!("refused: not one of the proxies"));
            return None;
        }
        self.make.direct(reader, peer)
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        self.make.tell(ended);
    }
}

type Boxed = Box<dyn Protocol + Send>;

/// A factory whose protocol is not known, so that the models are compiled only once for it.
///
/// Its `service_actions` is not called, because that knows the protocol. No factory here has one.
trait Make: Send {
    /// Makes the protocol of a client at a listener without a door.
    fn plain(&mut self, peer: &Peer) -> Option<Boxed>;

    /// Makes the protocol of a client that came past the proxies.
    fn direct(&mut self, reader: Reader, peer: &Peer) -> Option<Boxed>;

    /// Makes what reads a header, and then the protocol of the client that it names.
    fn behind(&self, reader: Reader) -> Boxed;

    fn tell(&mut self, ended: &Ended<'_>);

    fn copy(&self) -> Box<dyn Make>;
}

impl<F> Make for F
where
    F: Factory + Clone + Send + 'static,
    F::Protocol: Send + 'static,
{
    fn plain(&mut self, peer: &Peer) -> Option<Boxed> {
        let protocol = self.build_protocol(peer)?;
        Some(Box::new(protocol))
    }

    fn direct(&mut self, reader: Reader, peer: &Peer) -> Option<Boxed> {
        let protocol = self.build_protocol(peer)?;
        Some(Box::new(Observed::new(
            protocol,
            NoHeader::new(reader, peer),
        )))
    }

    fn behind(&self, reader: Reader) -> Boxed {
        let mut factory = self.clone();
        let build = move |client: &Peer, _: &Option<Header<'static>>| {
            if let Some(proxy) = client.via() {
                AccessLog.note(client, format_args!("named by {proxy}"));
            }
            factory.build_protocol(client)
        };
        Box::new(Prefaced::new(reader, build))
    }

    fn tell(&mut self, ended: &Ended<'_>) {
        self.handle_error(ended);
    }

    fn copy(&self) -> Box<dyn Make> {
        Box::new(self.clone())
    }
}

/// Ends the connection of a direct client that sends a header, since nobody should think that it was
/// believed. Unlike a preface, it lets the protocol inside speak first.
#[derive(Debug)]
struct NoHeader {
    /// `None` once it is clear that there is no header.
    open: Option<(Reader, Peer)>,
    /// What the protocol has taken so far.
    seen: Vec<u8>,
}

impl NoHeader {
    fn new(reader: Reader, peer: &Peer) -> Self {
        Self {
            open: Some((reader, peer.clone())),
            seen: Vec::new(),
        }
    }
}

impl Observe for NoHeader {
    fn admit(&mut self, data: &[u8]) -> Result<(), ProtocolError> {
        let Some((reader, peer)) = &mut self.open else {
            return Ok(());
        };
        let beginning: Vec<u8> = self.seen.iter().chain(data).copied().take(ENOUGH).collect();
        reader.read(&beginning, peer)?;
        if beginning.len() == ENOUGH {
            self.open = None;
        }
        Ok(())
    }

    fn observe(&mut self, event: Event<'_>) {
        if let (Event::Taken(bytes), Some(_)) = (event, &self.open) {
            let room = ENOUGH - self.seen.len();
            self.seen.extend(bytes.iter().take(room));
        }
    }
}

#[cfg(test)]
mod tests {
    use serveloop::Address;
    use serveloop::protocols::Echo;
    use serveloop::testing::MemorySession;

    use super::*;
    use crate::protocols::Greet;

    fn peer(uri: &str, listener: u16) -> Peer {
        Peer::new(uri.parse::<Address>().unwrap(), Some(listener))
    }

    fn doors() -> Arc<[Option<Door>]> {
        let trusted = || "10.0.0.0/8,unix".parse().unwrap();
        let required = Door::new(trusted(), Others::Refused);
        let optional = Door::new(trusted(), Others::Direct);
        [None, Some(required), Some(optional)].into()
    }

    fn session(keeper: &mut Doorkeeper, uri: &str, listener: u16) -> Option<MemorySession<Boxed>> {
        let protocol = keeper.build_protocol(&peer(uri, listener))?;
        let config = serveloop::Config::default();
        Some(MemorySession::with_peer(
            protocol,
            config,
            peer(uri, listener),
        ))
    }

    #[test]
    fn who_comes_through_which_door() {
        let mut keeper = Doorkeeper::new(doors(), |_: &Peer| Some(Echo));
        for (listener, uri, sent, expected) in [
            (
                0,
                "tcp://10.0.0.1:5",
                "PROXY UNKNOWN\r\nhi",
                Some("PROXY UNKNOWN\r\nhi"),
            ),
            (1, "tcp://10.0.0.1:5", "PROXY UNKNOWN\r\nhi", Some("hi")),
            (1, "unix:///x", "PROXY UNKNOWN\r\nhi", Some("hi")),
            (1, "tcp://192.0.2.1:5", "", None),
            (2, "tcp://10.0.0.1:5", "PROXY UNKNOWN\r\nhi", Some("hi")),
            (2, "tcp://192.0.2.1:5", "hi", Some("hi")),
            (2, "tcp://192.0.2.1:5", "PROXY me", Some("PROXY me")),
            (2, "tcp://192.0.2.1:5", "PROXY UNKNOWN\r\nhi", Some("")),
        ] {
            let found = session(&mut keeper, uri, listener).map(|mut session| {
                session.receive(sent.as_bytes());
                String::from_utf8(session.sent()).unwrap()
            });
            assert_eq!(found.as_deref(), expected, "{listener} {uri} {sent:?}");
        }
    }

    #[test]
    fn a_direct_client_is_greeted_before_it_has_said_anything() {
        let mut keeper = Doorkeeper::new(doors(), |_: &Peer| Some(Greet));
        let mut direct = session(&mut keeper, "tcp://192.0.2.1:5", 2).unwrap();
        assert_eq!(direct.sent(), b"connected");
        let mut behind = session(&mut keeper, "tcp://10.0.0.1:5", 2).unwrap();
        assert_eq!(behind.sent(), b"");
        behind.receive(b"PROXY UNKNOWN\r\n");
        assert_eq!(behind.sent(), b"connected");
    }

    #[test]
    fn a_forged_header_in_pieces_is_one_too() {
        let mut keeper = Doorkeeper::new(doors(), |_: &Peer| Some(Echo));
        for header in [
            &b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n"[..],
            b"\r\n\r\n\0\r\nQUIT\n\x21",
        ] {
            let mut forger = session(&mut keeper, "tcp://192.0.2.1:5", 2).unwrap();
            for byte in header {
                forger.receive(&[*byte]);
            }
            let reason = forger.reason().expect("an end").to_string();
            assert!(reason.contains("no trusted proxy"), "{reason}");
        }
    }
}
