//! The opening handshake: the request that becomes a WebSocket.

use std::fmt;
use std::sync::Arc;

use serveloop::layer::{Upgradable, Upgrade};
use serveloop::{Deadline, Limits, Peer, Protocol, ProtocolError, Transport};

use crate::LOG_TARGET;
use crate::deflate::Deflate;
use crate::protocol::MessageProtocol;
use crate::refusal::Refusal;
use crate::request::Request;
use crate::settings::{Compression, Settings};
use crate::websocket::WebSocket;

/// The answer to a request that becomes a WebSocket.
///
/// ```
/// use serveloop_websocket::{Accept, Echo, Request, Refusal};
///
/// fn accept(request: &Request<'_>) -> Result<Accept<Echo>, Refusal> {
///     if request.path() != "/chat" {
///         return Err(Refusal::new(404, "there is only /chat"));
///     }
///     if request.origin().is_some_and(|origin| origin != "https://example.org") {
///         return Err(Refusal::forbidden("not from this page"));
///     }
///     let accept = Accept::new(Echo);
///     Ok(match request.select(&["chat.v2", "chat.v1"]) {
///         Some(name) => accept.with_subprotocol(name),
///         None => accept,
///     })
/// }
/// # let _ = accept;
/// ```
#[derive(Clone, Debug)]
pub struct Accept<H> {
    handler: H,
    subprotocol: Option<String>,
}

impl<H> Accept<H> {
    /// Accepts the request for `handler`, without a subprotocol.
    #[must_use]
    pub fn new(handler: H) -> Self {
        Self {
            handler,
            subprotocol: None,
        }
    }

    /// Names the subprotocol that is spoken. It must be one that the client offers; otherwise the
    /// client would end the connection, so the request is answered with 500.
    #[must_use]
    pub fn with_subprotocol(self, name: impl Into<String>) -> Self {
        Self {
            subprotocol: Some(name.into()),
            ..self
        }
    }
}

/// Returns a factory of WebSockets with the usual [`Settings`]. `accept` is called with each request for
/// one, and accepts or refuses it.
///
/// ```
/// use serveloop::testing::MemorySession;
/// use serveloop::{Factory, Peer};
/// use serveloop_websocket::{Accept, Echo, Request, websocket};
///
/// let mut factory = websocket(|_: &Request<'_>| Ok(Accept::new(Echo)));
/// let peer = Peer::new("tcp://192.0.2.1:4711".parse()?, Some(0));
/// let mut session = MemorySession::new(factory.build_protocol(&peer).unwrap());
///
/// session.receive(b"GET / HTTP/1.1\r\nHost: example.org\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n");
/// session.receive(b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
/// let response = String::from_utf8(session.sent())?;
/// assert!(response.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
/// assert!(response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
///
/// session.receive(b"\x81\x82\0\0\0\0hi");
/// assert_eq!(session.sent(), b"\x81\x02hi");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn websocket<H, A>(
    accept: A,
) -> impl FnMut(&Peer) -> Option<Upgradable<Handshake<H, A>>> + Clone
where
    H: MessageProtocol,
    A: FnMut(&Request<'_>) -> Result<Accept<H>, Refusal> + Clone,
{
    websocket_with(Settings::default(), accept)
}

/// Returns a factory like [`websocket`], with settings.
pub fn websocket_with<H, A>(
    settings: Settings,
    accept: A,
) -> impl FnMut(&Peer) -> Option<Upgradable<Handshake<H, A>>> + Clone
where
    H: MessageProtocol,
    A: FnMut(&Request<'_>) -> Result<Accept<H>, Refusal> + Clone,
{
    move |_: &Peer| Some(Upgradable::new(Handshake::new(settings, accept.clone())))
}

/// The protocol of a connection that is not a WebSocket yet. [`websocket`] makes it.
pub struct Handshake<H, A> {
    settings: Settings,
    accept: A,
    /// How many bytes of the head were looked at.
    seen: usize,
    /// The longest message, if the head may be longer.
    max_frame: Option<usize>,
    /// What answers a request that is wrong, until the session asks for it.
    refusal: Option<Refusal>,
    next: Option<(H, Option<Deflate>)>,
}

impl<H, A> Handshake<H, A>
where
    A: FnMut(&Request<'_>) -> Result<Accept<H>, Refusal>,
{
    /// Creates the protocol that reads the request. To become a WebSocket it must be the first one of an
    /// [`Upgradable`].
    #[must_use]
    pub fn new(settings: Settings, accept: A) -> Self {
        Self {
            settings,
            accept,
            seen: 0,
            max_frame: None,
            refusal: None,
            next: None,
        }
    }

    /// Returns the length of the head at the front of `data`, if its end is there. Each byte is looked at
    /// once.
    fn find_end(&mut self, data: &[u8]) -> Result<Option<usize>, Refusal> {
        let most = self.settings.max_head;
        let seen = self.seen;
        let data = &data[..data.len().min(most)];
        self.seen = data.len();

        // A client of another kind, for example of TLS, is told at once.
        let is_line = |byte: u8| byte.is_ascii_alphabetic() || byte == b'\r';
        if !data.first().copied().is_none_or(is_line) {
            return Err(Refusal::malformed("no HTTP request"));
        }

        let feeds = (seen..data.len()).filter(|at| data[*at] == b'\n');
        for at in feeds {
            if at == 0 || data[at - 1] != b'\r' {
                return Err(Refusal::malformed("a line that does not end with CRLF"));
            }
            if data[..at - 1].ends_with(b"\n") {
                return Ok(Some(at + 1));
            }
        }

        if data.len() == most {
            return Err(Refusal::too_large("the head of the request is too long"));
        }
        Ok(None)
    }

    /// Answers the request.
    fn answer(&mut self, head: &[u8], transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let peer = transport.peer().clone();
        let request = match Request::parse(head, &peer) {
            Ok(request) => request,
            Err(refusal) => return self.refuse(refusal.in_reply_to(head), transport),
        };
        let accept = match (self.accept)(&request) {
            Ok(accept) => accept,
            Err(refusal) => return self.refuse(refusal.in_reply_to(head), transport),
        };

        let mut response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n",
            request.accept()
        );
        if let Some(name) = accept.subprotocol {
            if !request.offered().contains(&&*name) {
                let error = format!("the client does not offer the subprotocol {name:?}");
                self.refusal = Some(Refusal::new(500, "no subprotocol"));
                return Err(ProtocolError::other(error));
            }
            response.push_str(&format!("Sec-WebSocket-Protocol: {name}\r\n"));
        }
        let deflate = match self.settings.compression {
            Compression::Off => None,
            Compression::Deflate => Deflate::choose(request.extensions()),
        };
        if let Some(deflate) = deflate {
            let agreed = deflate.response();
            response.push_str(&format!("Sec-WebSocket-Extensions: {agreed}\r\n"));
        }
        response.push_str("\r\n");

        if let Some(max_frame) = self.max_frame.take() {
            set_max_frame(max_frame, transport)?;
        }
        transport.write(response.as_bytes());
        self.next = Some((accept.handler, deflate));
        Ok(())
    }

    /// Answers a request that is not accepted. If it is malformed, the session asks for the answer.
    fn refuse(
        &mut self,
        refusal: Refusal,
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        if matches!(refusal.status(), 400 | 431) {
            let error = ProtocolError::malformed(refusal.text().to_owned());
            self.refusal = Some(refusal);
            return Err(error);
        }
        log::debug!(
            target: LOG_TARGET, "{}: refused: {} {}", transport.peer(), refusal.status(), refusal.text().escape_debug()
        );
        transport.write(&refusal.to_bytes());
        transport.close();
        Ok(())
    }
}

fn set_max_frame(max_frame: usize, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
    let limits = Limits {
        max_frame,
        ..transport.limits().clone()
    };
    Ok(transport.set_limits(Arc::new(limits))?)
}

impl<H, A> Protocol for Handshake<H, A>
where
    A: FnMut(&Request<'_>) -> Result<Accept<H>, Refusal>,
{
    /// A head is not limited by how long a message may be.
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let (max_frame, max_head) = (transport.limits().max_frame, self.settings.max_head);
        if max_frame < max_head {
            self.max_frame = Some(max_frame);
            set_max_frame(max_head, transport)?;
        }
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        match self.find_end(data) {
            Ok(None) => Ok(0),
            Ok(Some(end)) => self.answer(&data[..end], transport).map(|()| end),
            Err(refusal) => self.refuse(refusal, transport).map(|()| 0),
        }
    }

    fn deadline_passed(&mut self, _: Deadline, transport: &mut Transport<'_>) {
        // A browser opens connections in advance, and would take this for the answer to a request.
        if self.seen > 0 {
            let refusal = Refusal::new(408, "the request was not complete in time");
            transport.write(&refusal.to_bytes());
        }
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        let refusal = self.refusal.take().unwrap_or_else(|| match error {
            ProtocolError::TooLong { .. } => {
                Refusal::too_large("the head of the request is too long")
            }
            _ => Refusal::malformed("the request is incomplete"),
        });
        transport.write(&refusal.to_bytes());
    }

    /// A WebSocket is a stream.
    fn needs_stream() -> bool {
        true
    }
}

impl<H, A> Upgrade for Handshake<H, A>
where
    H: MessageProtocol,
    A: FnMut(&Request<'_>) -> Result<Accept<H>, Refusal>,
{
    type Next = WebSocket<H>;

    fn take_next(&mut self) -> Option<WebSocket<H>> {
        let (handler, deflate) = self.next.take()?;
        Some(WebSocket::new(handler, self.settings).with_deflate(deflate))
    }
}

impl<H, A> fmt::Debug for Handshake<H, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}
