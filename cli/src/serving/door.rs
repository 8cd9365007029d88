//! Listeners with proxies in front: who states the address of a client, and who is believed.

use std::sync::Arc;

use serveloop::layer::Prefaced;
use serveloop::layer::proxy::{Header, Proxy, Reader};
use serveloop::{Factory, Peer};

use crate::serving::AccessLog;
use crate::serving::boxed_factory::{Boxed, BoxedFactory, Surrounding};

/// Makes protocols for the clients of listeners of which some have proxies in front.
#[derive(Clone)]
pub(super) struct Doorkeeper {
    /// By the listener's number.
    doors: Arc<[Option<Proxy>]>,
}

impl Doorkeeper {
    pub(super) fn new(doors: Arc<[Option<Proxy>]>) -> Self {
        Self { doors }
    }
}

/// Makes what reads a header, and then the protocol of the client that it names. A client that came past
/// the proxies has its protocol at once.
fn behind(mut factory: BoxedFactory, reader: Reader) -> Boxed {
    let build = move |client: &Peer, _: &Option<Header<'static>>| {
        if let Some(proxy) = client.via() {
            AccessLog.note(client, format_args!("named by {proxy}"));
        }
        factory.build_protocol(client)
    };
    Box::new(Prefaced::new(reader, build))
}

impl Surrounding for Doorkeeper {
    fn build(&mut self, factory: &mut BoxedFactory, peer: &Peer) -> Option<Boxed> {
        let door = peer
            .listener()
            .and_then(|number| self.doors.get(number)?.as_ref());
        let Some(door) = door else {
            return factory.build_protocol(peer);
        };

        let Some(reader) = door.reader(peer) else {
            AccessLog.refuse(peer, "not one of the proxies");
            return None;
        };
        Some(behind(factory.clone(), reader))
    }
}

#[cfg(test)]
mod tests {
    use serveloop::protocols::Echo;
    use serveloop::testing::MemorySession;
    use serveloop::{Address, Protocol};

    use super::*;
    use crate::protocols::Greet;

    fn peer(uri: &str, listener: u16) -> Peer {
        Peer::new(uri.parse::<Address>().unwrap(), Some(listener))
    }

    fn doorkeeper<P>(build: fn(&Peer) -> Option<P>) -> BoxedFactory
    where
        P: Protocol + Send + 'static,
    {
        let trusted = || "10.0.0.0/8,unix".parse().unwrap();
        let (required, optional) = (Proxy::required(trusted()), Proxy::optional(trusted()));
        let doors = [None, Some(required), Some(optional)].into();
        BoxedFactory::of(build).within(Doorkeeper::new(doors))
    }

    fn session(
        keeper: &mut BoxedFactory,
        uri: &str,
        listener: u16,
    ) -> Option<MemorySession<Boxed>> {
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
        let mut keeper = doorkeeper(|_| Some(Echo));
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
        let mut keeper = doorkeeper(|_| Some(Greet));
        let mut direct = session(&mut keeper, "tcp://192.0.2.1:5", 2).unwrap();
        assert_eq!(direct.sent(), b"connected");
        let mut behind = session(&mut keeper, "tcp://10.0.0.1:5", 2).unwrap();
        assert_eq!(behind.sent(), b"");
        behind.receive(b"PROXY UNKNOWN\r\n");
        assert_eq!(behind.sent(), b"connected");
    }

    #[test]
    fn a_forged_header_in_pieces_is_one_too() {
        let mut keeper = doorkeeper(|_| Some(Echo));
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
