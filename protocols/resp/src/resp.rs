//! The protocol: finds the requests in a stream and has them answered.

use serveloop::service::Post;
use serveloop::{Ended, Protocol, ProtocolError, Transport};

use crate::error_reply::ErrorReply;
use crate::parser::{Broken, Most, Parser};
use crate::reply::{Reply, Version};
use crate::request::{Request, Span};

/// Replies of more bytes than this are not copied.
const COPIED_MOST: usize = 32 << 10;

/// A word of more bytes than this may be passed by value.
const LONG_FROM: usize = 64 << 10;

const LINE_END: &[u8] = b"\r\n";

/// Returns what a request is that is none.
#[cold]
fn malformed(broken: &Broken) -> ProtocolError {
    ProtocolError::malformed(String::from_utf8_lossy(&broken.text()).into_owned())
}

/// Sends all replies.
#[inline]
fn send(reply: Reply, transport: &mut Transport<'_>) {
    match reply.as_slice() {
        [] => {}
        short if short.len() <= COPIED_MOST => transport.write(short),
        _ => transport.write_owned(reply.into_bytes()),
    }
}

/// What a server does with requests. One value serves one connection.
pub trait Service {
    /// Answers one request by writing into `reply`.
    ///
    /// # Errors
    /// An error is sent instead of what was written. The connection stays open.
    fn answer(
        &mut self,
        request: Request<'_>,
        reply: &mut Reply,
        transport: &mut Transport<'_>,
    ) -> Result<(), ErrorReply>;

    /// Returns whether the last word of a request is to be passed by value, to
    /// [`answer_with_value`](Self::answer_with_value). `request` has all words before it. Called when a
    /// word of more than 64 KiB has been announced, before it arrives. By default false.
    fn takes_value(&self, request: Request<'_>) -> bool {
        let _ = request;
        false
    }

    /// Answers a request like [`answer`](Self::answer). Its last word is `value`, and not in `request`: the
    /// memory that it was read into, without a copy. By default refuses the request.
    ///
    /// # Errors
    /// Fails like [`answer`](Self::answer).
    fn answer_with_value(
        &mut self,
        request: Request<'_>,
        value: Vec<u8>,
        reply: &mut Reply,
        transport: &mut Transport<'_>,
    ) -> Result<(), ErrorReply> {
        let _ = (request, value, reply, transport);
        Err(ErrorReply::SYNTAX)
    }

    /// Called when the connection is established. By default does nothing.
    fn connection_made(&mut self, transport: &mut Transport<'_>) {
        let _ = transport;
    }

    /// Called after a [`Waker`](serveloop::Waker) of the connection was used. By default does
    /// nothing.
    fn woken(&mut self, transport: &mut Transport<'_>) {
        let _ = transport;
    }

    /// Returns whether the client is still to be sent what was [posted](serveloop::Transport::outbox) for
    /// it. A client that has asked for no more of it takes what comes after the confirmation for the reply
    /// to its next request. By default true.
    fn awaits(&mut self, post: &Post) -> bool {
        let _ = post;
        true
    }

    /// Returns how many bytes of memory the service keeps for this connection alone, which counts
    /// towards [`max_buffered`](serveloop::Config::max_buffered). It is asked after each call of
    /// `answer`, or after several. By default 0.
    fn held(&self) -> usize {
        0
    }

    /// Called once, when the connection has ended. By default does nothing.
    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let _ = ended;
    }
}

/// RESP for a [`Service`].
///
/// A request has at most `max_frame` bytes, an inline request `max_line`. What is longer, and what is
/// no request, is answered with `-ERR Protocol error: ...`, and ends the connection. Requests are
/// answered in their order, and several that arrive together are answered together.
#[derive(Debug)]
pub struct Resp<S> {
    service: S,
    parser: Parser,
    version: Version,
    /// How many bytes of memory the transport was told of.
    charged: usize,
    /// Whether reading is paused because other connections have their turn.
    yields: bool,
    /// A request of which the last word is yet to come, and is passed by value.
    long: Option<Box<Long>>,
}

/// All words of a request but the last, which is long.
#[derive(Debug)]
struct Long {
    bytes: Vec<u8>,
    words: Vec<Span>,
    /// The length of the last word.
    length: usize,
}

impl<S: Service> Resp<S> {
    /// Creates the protocol of one connection.
    pub fn new(service: S) -> Self {
        Self {
            service,
            parser: Parser::default(),
            version: Version::default(),
            charged: 0,
            yields: false,
            long: None,
        }
    }

    /// Returns the service.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// Answers the requests at the start of `data`, as long as their replies are below `mark` and the
    /// connection has its turn. Returns how many bytes they have.
    #[inline]
    fn answer_all(
        &mut self,
        data: &[u8],
        mark: usize,
        reply: &mut Reply,
        transport: &mut Transport<'_>,
    ) -> Result<usize, Broken> {
        let most = Most {
            request: transport.limits().max_frame,
            line: transport.limits().max_line,
        };

        let mut taken = 0;
        loop {
            let rest = &data[taken..];
            match self.parser.parse(rest, most) {
                Ok(Some(length)) => {
                    if let Some(request) = self.parser.request(rest) {
                        reply.begin();
                        let outcome = self.service.answer(request, reply, transport);
                        reply.finish(outcome);
                    }
                    self.parser.reset();
                    taken += length;
                }
                Ok(None) => return Ok(taken),
                // Shown again alone, after the replies so far are written.
                Err(_) if taken > 0 => {
                    self.parser.reset();
                    return Ok(taken);
                }
                Err(broken) => return Err(broken),
            }

            let is_full = reply.as_slice().len() >= mark || reply.is_costly();
            if taken == data.len() || is_full || reply.is_last() || !transport.has_turn() {
                return Ok(taken);
            }
        }
    }

    /// Begins replies, which may have as many bytes as there is room for.
    #[inline]
    fn reply(&self, transport: &Transport<'_>) -> Reply {
        let limits = transport.limits();
        let most = limits.max_reply.max(limits.max_output);
        let most = most.min(transport.config().max_buffered);
        Reply::new(self.version, most.saturating_sub(transport.waiting()))
    }

    /// Tells the transport how much memory there is for this connection, if it has changed.
    #[inline]
    fn charge(&mut self, transport: &mut Transport<'_>) {
        let long = self.long.as_ref().map_or(0, |long| long.bytes.capacity());
        let held = self.parser.held() + self.service.held() + long;
        if held != self.charged {
            self.charged = held;
            transport.charge(held);
        }
    }
}

/// Requests that are long.
impl<S: Service> Resp<S> {
    /// Asks for the rest of a request, of which `rest` is the beginning. Returns how many bytes of it are
    /// taken: those before the last word, if that is passed by value.
    #[cold]
    fn await_rest(
        &mut self,
        rest: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let Some((word, is_last)) = self.parser.announced(rest) else {
            return Ok(0);
        };
        let request = self.parser.request(rest);
        let is_value = |request| self.service.takes_value(request);
        if word.len() <= LONG_FROM || !is_last || !request.is_some_and(is_value) {
            transport.expect(word.end + LINE_END.len())?;
            return Ok(0);
        }

        transport.expect(word.len() + LINE_END.len())?;
        self.long = Some(Box::new(Long {
            bytes: rest[..word.start].to_vec(),
            words: self.parser.take_words(),
            length: word.len(),
        }));
        self.charge(transport);
        Ok(word.start)
    }

    /// Claims a long word when it is complete, so that it is passed by value.
    #[cold]
    fn receive_value(
        &self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let length = self.long.as_ref().map_or(0, |long| long.length);
        let all = length + LINE_END.len();
        match data.get(length..all) {
            None => {
                transport.expect(all)?;
                Ok(0)
            }
            Some(end) if end == LINE_END => {
                transport.claim_input(&data[..length]);
                Ok(all)
            }
            Some(_) => {
                let mut reply = Reply::new(self.version, usize::MAX);
                reply.protocol_error(&Broken::NoLineEnd.text());
                send(reply, transport);
                Err(malformed(&Broken::NoLineEnd))
            }
        }
    }

    /// Answers the request whose last word is `value`.
    #[cold]
    fn answer_long(&mut self, value: Vec<u8>, transport: &mut Transport<'_>) {
        let Some(long) = self.long.take() else {
            return;
        };
        let mut reply = self.reply(transport);

        reply.begin();
        let request = Request::new(&long.bytes, &long.words);
        let outcome = self
            .service
            .answer_with_value(request, value, &mut reply, transport);
        reply.finish(outcome);

        self.version = reply.version();
        send(reply, transport);
        self.charge(transport);
    }
}

impl<S: Service> Protocol for Resp<S> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.service.connection_made(transport);
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        if self.long.is_some() {
            return self.receive_value(data, transport);
        }

        let mark = transport.limits().high_water;
        let mark = mark.saturating_sub(transport.waiting());

        let mut reply = self.reply(transport);
        let mut outcome = self.answer_all(data, mark, &mut reply, transport);
        if let Err(broken) = outcome {
            reply.protocol_error(&broken.text());
        }
        self.charge(transport);

        if let (Ok(taken), true) = (&mut outcome, self.parser.is_within()) {
            *taken += self.await_rest(&data[*taken..], transport)?;
        }

        self.version = reply.version();
        let (is_last, is_costly) = (reply.is_last(), reply.is_costly());
        send(reply, transport);
        if is_last {
            transport.close();
        } else if is_costly {
            self.yields = true;
            transport.pause_reading();
            transport.call_again();
        }
        outcome.map_err(|broken| malformed(&broken))
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        if std::mem::take(&mut self.yields) {
            transport.resume_reading();
        }
        if let Some(value) = transport.take_input() {
            self.answer_long(value, transport);
        }
        self.service.woken(transport);
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        if self.long.is_some() || !unread.is_empty() {
            let unread = unread.len();
            return Err(ProtocolError::Truncated { unread });
        }
        transport.close();
        Ok(())
    }

    /// What is posted is an array of RESP2, of which pushed data of RESP3 differs in the first byte.
    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        if !self.service.awaits(post) {
            return;
        }
        match (self.version, &**post) {
            (Version::Resp3, [b'*', rest @ ..]) => {
                transport.write(b">");
                transport.write(rest);
            }
            _ => transport.write_post(post),
        }
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.service.connection_lost(ended);
    }

    /// A request acts on what is kept, and the sender's address of a datagram may be forged.
    fn needs_stream() -> bool {
        true
    }
}
