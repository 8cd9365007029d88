//! The protocol of an open WebSocket.

use std::time::Instant;
use std::{fmt, str};

use serveloop::service::Post;
use serveloop::{Deadline, Ended, Protocol, ProtocolError, Transport};

use crate::close_code::CloseCode;
use crate::deflate::Deflate;
use crate::frame::{COMPRESSED, CONTROL_MOST, Header, Opcode, RESERVED, is_close};
use crate::incoming::{Incoming, Violation};
use crate::protocol::MessageProtocol;
use crate::settings::Settings;
use crate::transport::{Link, MessageTransport, Stage};

/// A [`Protocol`] made of a [`MessageProtocol`]: an open WebSocket, of which this is the server.
/// [`websocket`](crate::websocket) makes one after the request for it.
///
/// ```
/// use serveloop::testing::MemorySession;
/// use serveloop_websocket::{Echo, Settings, WebSocket};
///
/// let mut session = MemorySession::new(WebSocket::new(Echo, Settings::default()));
/// // A ping, in the middle of a message of two fragments.
/// session.receive(&[0x01, 0x82, 0, 0, 0, 0, b'h', b'e']);
/// session.receive(&[0x89, 0x81, 0, 0, 0, 0, b'?']);
/// session.receive(&[0x80, 0x83, 0, 0, 0, 0, b'l', b'l', b'o']);
/// assert_eq!(session.sent(), b"\x8a\x01?\x81\x05hello");
/// ```
pub struct WebSocket<H> {
    handler: H,
    settings: Settings,
    link: Link,
    incoming: Incoming,
    /// When the message that is arriving has to be complete.
    message_due: Option<Instant>,
    silence: Option<Silence>,
    /// What the session is told to be wrong, as a code for the client.
    violation: Option<CloseCode>,
    /// What the client's close frame said.
    farewell: Option<Box<(CloseCode, String)>>,
}

/// How long the client has been silent.
#[derive(Clone, Copy, Debug)]
struct Silence {
    since: Instant,
    /// When it is looked at again.
    due: Instant,
    is_pinged: bool,
}

impl<H: MessageProtocol> WebSocket<H> {
    /// Creates the protocol of a WebSocket whose opening handshake is done.
    #[must_use]
    pub fn new(handler: H, settings: Settings) -> Self {
        Self {
            handler,
            settings,
            link: Link::new(settings.close_timeout),
            incoming: Incoming::default(),
            message_due: None,
            silence: None,
            violation: None,
            farewell: None,
        }
    }

    /// Sets what was agreed on about compression.
    pub(crate) fn with_deflate(mut self, deflate: Option<Deflate>) -> Self {
        self.link.deflate = deflate;
        self
    }

    /// Returns the protocol inside.
    #[must_use]
    pub fn handler(&self) -> &H {
        &self.handler
    }

    fn client<'a>(&'a mut self, transport: &'a mut Transport<'_>) -> MessageTransport<'a> {
        MessageTransport::new(transport, &mut self.link)
    }

    /// Calls the protocol inside, unless the WebSocket is about to end.
    fn call<T: Default>(
        &mut self,
        transport: &mut Transport<'_>,
        event: impl FnOnce(&mut H, &mut MessageTransport<'_>) -> T,
    ) -> T {
        if !self.link.is_open() {
            return T::default();
        }
        let client = &mut MessageTransport::new(transport, &mut self.link);
        let result = event(&mut self.handler, client);
        self.settle(transport);
        result
    }

    /// Calls the protocol inside, in methods whose result says nothing about the client.
    fn tell(
        &mut self,
        transport: &mut Transport<'_>,
        event: fn(&mut H, &mut MessageTransport<'_>),
    ) {
        self.call(transport, event);
    }

    /// Brings what the session knows up to date after a call.
    fn settle(&mut self, transport: &mut Transport<'_>) {
        if !self.link.is_open() {
            self.incoming.forget();
            self.message_due = None;
        }
        transport.charge(self.link.charged.saturating_add(self.incoming.held()));
    }

    /// Notes that the client has sent something.
    fn heard(&mut self, now: Instant) {
        if let Some(silence) = &mut self.silence {
            silence.since = now;
            silence.is_pinged = false;
        }
    }

    /// Takes one frame from the front of `data`, or as much of its payload as is there.
    fn take_frame(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        if !self.incoming.is_between_frames() {
            return self.take_payload(data, transport);
        }
        let reserved = match self.link.deflate {
            Some(_) => RESERVED & !COMPRESSED,
            None => RESERVED,
        };
        let header = Header::parse(data, reserved).map_err(|text| self.blame(text.into()))?;
        let Some(header) = header else {
            return Ok(0);
        };

        if header.opcode.is_control() {
            // At most 125 bytes.
            let end = header.size + header.length as usize;
            let Some(payload) = data.get(header.size..end) else {
                return Ok(0);
            };
            self.take_control(&header, payload, transport)?;
            return Ok(end);
        }

        if self.link.is_open() {
            let limit = transport.limits().max_frame;
            if !self.incoming.has_begun() {
                self.expect_rest(transport);
            }
            let begun = self.incoming.begin(&header, limit);
            begun.map_err(|violation| self.blame(violation))?;
        } else {
            self.incoming.skip(&header);
        }
        Ok(header.size + self.take_payload(&data[header.size..], transport)?)
    }

    /// Gives the client from now on the time that it has for a message.
    fn expect_rest(&mut self, transport: &Transport<'_>) {
        let timeout = transport.limits().message_timeout;
        self.message_due = timeout.and_then(|timeout| transport.now().checked_add(timeout));
    }

    fn take_payload(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        if !self.link.is_open() {
            return Ok(self.incoming.discard(data));
        }
        let taken = self.incoming.take(data);
        let (count, is_complete) = taken.map_err(|violation| self.blame(violation))?;
        if is_complete {
            self.message_due = None;
            let (handler, link) = (&mut self.handler, &mut self.link);
            let delivered = self.incoming.finish(|message| {
                handler.message_received(message, &mut MessageTransport::new(transport, link))
            });
            delivered.map_err(|violation| self.blame(violation))??;
        }
        self.settle(transport);
        Ok(count)
    }

    fn take_control(
        &mut self,
        header: &Header,
        masked: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        let (mut payload, mut mask) = ([0; CONTROL_MOST], header.mask);
        let payload = &mut payload[..masked.len()];
        payload.copy_from_slice(masked);
        mask.take_off(payload);

        match header.opcode {
            Opcode::Ping => {
                self.client(transport).pong(payload);
                Ok(())
            }
            Opcode::Pong if self.link.is_open() => {
                let (handler, link) = (&mut self.handler, &mut self.link);
                handler.pong_received(payload, &mut MessageTransport::new(transport, link))?;
                self.settle(transport);
                Ok(())
            }
            Opcode::Pong => Ok(()),
            _ => self.take_close(payload, transport),
        }
    }

    /// Answers the client's close frame with its code, if it is not the answer to ours. Then the
    /// connection is over, and this side ends it first (RFC 6455, section 7.1.1).
    fn take_close(
        &mut self,
        payload: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        let (code, reason) = farewell(payload).map_err(|violation| self.blame(violation))?;
        let code = code.unwrap_or(CloseCode::NO_STATUS);
        let mut client = self.client(transport);
        client.write_close(code, "");
        client.end();
        self.farewell = Some(Box::new((code, reason.to_owned())));
        self.settle(transport);
        Ok(())
    }

    /// Notes the code of a violation for the close frame, and returns the error for the session.
    fn blame(&mut self, violation: Violation) -> ProtocolError {
        self.violation = Some(violation.code);
        violation.error
    }

    /// Sends a ping to a client that has been silent, or gives up one that did not answer the last.
    fn look_at_silence(&mut self, now: Instant, transport: &mut Transport<'_>) {
        let Some(interval) = self.settings.ping_interval else {
            return;
        };
        let Some(silence) = &mut self.silence else {
            return;
        };

        // A client that takes no output is the business of `write_timeout`, and one that is not
        // read cannot be heard.
        let is_excused = transport.waiting() > 0 || transport.is_paused();
        if is_excused {
            silence.since = now;
        }
        let due = silence.since.checked_add(interval);
        if let Some(due) = due.filter(|due| *due > now) {
            silence.due = due;
            return;
        }

        silence.since = now;
        silence.due = now.checked_add(interval).unwrap_or(now);
        let was_pinged = std::mem::replace(&mut silence.is_pinged, true);
        let mut client = self.client(transport);
        if was_pinged {
            client.write_close(CloseCode::INTERNAL_ERROR, "no answer to a ping");
            client.end();
        } else {
            client.ping(b"");
        }
    }
}

/// Returns the code and the text of a close frame.
fn farewell(payload: &[u8]) -> Result<(Option<CloseCode>, &str), Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok((None, "")),
            _ => Err("a close frame with half a code".into()),
        };
    };
    let code = CloseCode::received(u16::from_be_bytes(*code));
    let code = code.ok_or("a close frame with a code that no frame may have")?;
    let reason = str::from_utf8(reason);
    let reason =
        reason.map_err(|_| Violation::invalid("the text of a close frame is not UTF-8"))?;
    Ok((Some(code), reason))
}

/// Returns what tells a client of an error that the protocol inside has returned.
fn told(error: &ProtocolError) -> Option<(CloseCode, String)> {
    match error {
        ProtocolError::TooLong { .. } => Some((CloseCode::TOO_BIG, error.to_string())),
        // It has ended its side.
        ProtocolError::Truncated { .. } => None,
        // What has failed here does not concern it.
        ProtocolError::Other(_) => Some((CloseCode::INTERNAL_ERROR, String::new())),
        _ => Some((CloseCode::POLICY, error.to_string())),
    }
}

impl<H: MessageProtocol> Protocol for WebSocket<H> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let now = transport.now();
        let interval = self.settings.ping_interval;
        let interval = interval.filter(|interval| !interval.is_zero());
        let due = interval.and_then(|interval| now.checked_add(interval));
        self.silence = due.map(|due| Silence {
            since: now,
            due,
            is_pinged: false,
        });

        let client = &mut MessageTransport::new(transport, &mut self.link);
        self.handler.opened(client)?;
        self.settle(transport);
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.heard(transport.now());
        self.take_frame(data, transport)
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        let unread = unread.len() + self.incoming.arrived();
        if self.link.is_open() && (unread > 0 || self.incoming.has_begun()) {
            return Err(ProtocolError::Truncated { unread });
        }
        self.client(transport).end();
        Ok(())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        match self.link.stage {
            Stage::Owing(_) => self.client(transport).pay(),
            _ => self.tell(transport, H::resume_writing),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.link.stage {
            Stage::Owing(_) | Stage::Closed => None,
            Stage::Closing { until } => until,
            Stage::Open => {
                let silence = self.silence.map(|silence| silence.due);
                let own = self.message_due.into_iter().chain(silence);
                own.chain(self.handler.poll_timeout()).min()
            }
        }
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        let now = transport.now();
        if let Stage::Closing { until } = self.link.stage {
            if until.is_some_and(|until| until <= now) {
                self.client(transport).end();
            }
            return;
        }

        let is_late = self.message_due.is_some_and(|due| due <= now);
        if is_late && (transport.is_full() || transport.is_paused()) {
            // It may have sent the rest, which is not read.
            self.expect_rest(transport);
        } else if is_late {
            let mut client = self.client(transport);
            client.write_close(CloseCode::POLICY, &Deadline::Message.to_string());
            client.end();
        } else if self.silence.is_some_and(|silence| silence.due <= now) {
            self.look_at_silence(now, transport);
        }
        if self.handler.poll_timeout().is_some_and(|at| at <= now) {
            self.tell(transport, H::handle_timeout);
        }
        self.settle(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.tell(transport, H::woken);
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        let code = match deadline {
            Deadline::Idle => CloseCode::GOING_AWAY,
            _ => CloseCode::POLICY,
        };
        self.client(transport)
            .write_close(code, &deadline.to_string());
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        let told = match self.violation.take() {
            Some(code) => Some((code, error.to_string())),
            None => told(error),
        };
        if let Some((code, reason)) = told {
            self.client(transport).write_close(code, &reason);
        }
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.tell(transport, H::shutdown_requested);
    }

    /// Sends the frame that was posted, unless our close frame is sent.
    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        if !self.link.is_open() {
            return;
        }
        transport.write_post(post);
        if is_close(post) {
            self.client(transport).await_answer();
        }
        self.settle(transport);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let farewell = self.farewell.take();
        let (code, reason) = farewell
            .as_deref()
            .map_or((CloseCode::ABNORMAL, ""), |(code, reason)| (*code, reason));
        self.handler.closed(code, reason, ended);
    }

    /// A WebSocket is a stream.
    fn needs_stream() -> bool {
        true
    }
}

impl<H: fmt::Debug> fmt::Debug for WebSocket<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("handler", &self.handler)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}
