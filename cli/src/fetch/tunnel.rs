//! A connection through a proxy that passes on all bytes unread (CONNECT), for TLS inside.

use serveloop::ProtocolError;
use serveloop::layer::{Layer, Received, Wire};

use crate::fetch::head_reader::HeadReader;

/// The most bytes that a layer may take at once.
const UNIT_MOST: usize = 64 << 10;

/// The way through a proxy. It is open when the proxy has accepted the request.
#[derive(Debug)]
pub(crate) struct Tunnel {
    request: Vec<u8>,
    heads: HeadReader,
    is_open: bool,
}

impl Tunnel {
    /// Returns a tunnel that `request`, a CONNECT, asks for.
    pub(crate) fn new(request: Vec<u8>) -> Self {
        Self {
            request,
            heads: HeadReader::default(),
            is_open: false,
        }
    }

    /// Takes the head of a response, if it is complete.
    fn take_head(&mut self, data: &[u8]) -> Result<usize, ProtocolError> {
        let Some((head, length)) = self.heads.read(data)? else {
            return Ok(0);
        };

        if !head.is_interim() && !head.is_success() {
            let problem = format!("the proxy does not connect to the server: {head}");
            return Err(ProtocolError::other(problem));
        }
        self.is_open = head.is_success();
        Ok(length)
    }
}

impl Layer for Tunnel {
    type Info = ();

    const PASSES_OUTPUT: bool = true;

    fn begin(&mut self, wire: &mut Wire<'_>) -> Result<(), ProtocolError> {
        wire.write(&self.request);
        Ok(())
    }

    fn opened(&mut self) -> Option<()> {
        self.is_open.then_some(())
    }

    fn received<'a>(
        &mut self,
        data: &'a [u8],
        _: &mut Wire<'_>,
    ) -> Result<Received<'a>, ProtocolError> {
        if self.is_open {
            let plain = &data[..data.len().min(UNIT_MOST)];
            return Ok(Received::taken(plain.len()).with_plain(plain));
        }
        Ok(match self.take_head(data)? {
            0 => Received::incomplete(),
            length => Received::taken(length),
        })
    }

    fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result<(), ProtocolError> {
        wire.write(plain);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serveloop::layer::Layered;
    use serveloop::protocols::Echo;
    use serveloop::testing::MemorySession;

    use super::*;
    use crate::fetch::head_reader::HEAD_MOST;

    /// What was sent when `pieces` had come, and the reason of the end.
    fn answered(pieces: &[&[u8]]) -> (String, String) {
        let tunnel = Tunnel::new(b"CONNECT ".to_vec());
        let mut session = MemorySession::new(Layered::around(tunnel, Echo));
        for piece in pieces {
            session.receive(piece);
        }
        session.receive_eof();
        let sent = String::from_utf8_lossy(&session.sent()).into_owned();
        (sent, session.reason().expect("an end").to_string())
    }

    #[test]
    fn what_follows_the_head_is_for_the_protocol_inside() {
        let response = b"HTTP/1.1 100 \r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n\r\nhello";
        for at in 0..response.len() {
            let (first, rest) = response.split_at(at);
            let (sent, reason) = answered(&[first, rest]);
            assert_eq!(sent, "CONNECT hello", "cut at {at}: {reason}");
        }
    }

    #[test]
    fn a_proxy_that_opens_no_tunnel_is_an_error() {
        for (response, problem) in [
            ("HTTP/1.1 407 Who?\r\n\r\nhello", "to the server: 407 Who?"),
            ("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "302 Found"),
            ("SSH-2.0\r\n\r\n", "malformed"),
            ("HTTP/1.1 200 OK\r\n", "ended by the peer"),
        ] {
            let (sent, reason) = answered(&[response.as_bytes()]);
            assert_eq!(sent, "CONNECT ", "{response}");
            assert!(reason.contains(problem), "{response}: {reason}");
        }

        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_MOST));
        let (_, reason) = answered(&[endless.as_bytes()]);
        assert!(reason.contains("message too long"), "{reason}");
    }
}
