//! A connection that begins with a PROXY header, before TLS and before its protocol.

use serveloop::layer::{Upgradable, Upgrade};
use serveloop::{Ended, Protocol, ProtocolError, Transport};

use crate::outbound::ProxyHeader;

/// Returns `next` after `header`, if there is one.
pub(super) fn announced<P: Protocol>(header: Option<ProxyHeader>, next: P) -> impl Protocol {
    Upgradable::new(Announced {
        header,
        next: Some(next),
        is_made: false,
    })
}

/// Sends the header, and hands over at once.
struct Announced<P> {
    header: Option<ProxyHeader>,
    next: Option<P>,
    is_made: bool,
}

impl<P: Protocol> Protocol for Announced<P> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.is_made = true;
        match self.header {
            Some(header) => header.write(transport),
            None => Ok(()),
        }
    }

    fn data_received(&mut self, _: &[u8], _: &mut Transport<'_>) -> Result<usize, ProtocolError> {
        Ok(0)
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        // The connection could not be made, or the header not be written.
        if let Some(next) = &mut self.next {
            next.connection_lost(ended);
        }
    }
}

impl<P: Protocol> Upgrade for Announced<P> {
    type Next = P;

    fn take_next(&mut self) -> Option<P> {
        self.next.take_if(|_| self.is_made)
    }
}

#[cfg(test)]
mod tests {
    use serveloop::protocols::Echo;
    use serveloop::testing::MemorySession;

    use super::*;

    #[test]
    fn the_header_comes_first_and_the_rest_is_the_next_protocols() {
        let header = "v1,local".parse().expect("a header");
        let mut session = MemorySession::new(announced(Some(header), Echo));
        session.receive(b"hello");
        assert_eq!(session.sent(), b"PROXY UNKNOWN\r\nhello");

        let mut session = MemorySession::new(announced(None, Echo));
        session.receive(b"hello");
        assert_eq!(session.sent(), b"hello");
    }
}
