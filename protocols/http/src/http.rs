//! The protocol of one connection.

use std::fmt;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Instant;

use serveloop::layer::{Upgradable, Upgrade};
use serveloop::{Deadline, Ended, Limits, Protocol, ProtocolError, Transport};

use crate::body::Incoming;
use crate::exchange::{Exchange, Next};
use crate::head::{Scan, parse_head};
use crate::rejection::Rejection;
use crate::reply::{Handler, Reply, Step};
use crate::request::Request;
use crate::response::{Asked, Connection, Response, reason};
use crate::settings::{FIELDS_MOST, Settings};

/// HTTP/1.1 on one connection: reads requests, has a [`Handler`] answer them, and sends the
/// responses in their order.
///
/// One request is answered at a time. What a client sends before it has the response to an earlier
/// request waits in the connection. See the [crate's documentation](crate) for an example.
pub struct Http<H> {
    handler: H,
    settings: Option<Arc<Settings>>,
    scan: Scan,
    /// What is being answered, unless that was done at once.
    exchange: Option<Box<Exchange>>,
    is_draining: bool,
    is_upgradable: bool,
    /// Whether the request that was refused is one for the head of a response only.
    is_head_refused: bool,
}

impl<H: Handler> Http<H> {
    /// Creates the protocol of a connection, with a handler of its own and the default
    /// [`Settings`].
    #[must_use]
    pub fn new(handler: H) -> Self {
        Self {
            handler,
            settings: None,
            scan: Scan::default(),
            exchange: None,
            is_draining: false,
            is_upgradable: false,
            is_head_refused: false,
        }
    }

    /// Sets limits other than the default ones. All connections of a server share them.
    #[must_use]
    pub fn with_settings(self, settings: &Arc<Settings>) -> Self {
        let settings = Some(Arc::clone(settings));
        Self { settings, ..self }
    }

    /// Returns the protocol in a form in which [`Reply::upgrade`](crate::Reply::upgrade) works.
    #[must_use]
    pub fn upgradable(mut self) -> Upgradable<Self> {
        self.is_upgradable = true;
        Upgradable::new(self)
    }

    fn settings(&self) -> &Settings {
        self.settings.as_deref().unwrap_or(&Settings::DEFAULT)
    }

    /// Answers the request with this head. Returns how many bytes of it were taken: none if another
    /// protocol is to see it.
    fn begin(&mut self, bytes: &[u8], transport: &mut Transport<'_>) -> Result<usize, Rejection> {
        let settings = self.settings.as_deref().unwrap_or(&Settings::DEFAULT);
        let limits = transport.limits();
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MOST];
        let mut head = parse_head(bytes, &mut fields, settings)?;
        head.upgrade = head.upgrade.filter(|_| self.is_upgradable);
        let most = settings.max_body_within(limits);
        let incoming = Incoming::new(head.framing, most, limits.max_line)?;

        let mut exchange = Exchange::new(&head, incoming);
        if self.is_draining {
            exchange.end_after();
        }
        let request = Request {
            method: head.method,
            target: head.target,
            version: head.version,
            headers: head.headers,
            upgrade: head.upgrade,
            length: head.framing.length(),
            transport,
        };
        let reply = self.handler.handle(&request);

        match reply.0 {
            Step::HandOver(next) if self.is_upgradable => {
                exchange.hand_over(next);
                self.exchange = Some(Box::new(exchange));
                return Ok(0);
            }
            step => exchange.follow(Reply(step), settings, transport),
        }
        exchange.advance(transport);
        if exchange.is_over() && !exchange.is_switching() {
            self.finish(&exchange, transport);
        } else {
            self.exchange = Some(Box::new(exchange));
        }
        Ok(bytes.len())
    }

    /// Does what follows the end of an exchange.
    fn finish(&self, exchange: &Exchange, transport: &mut Transport<'_>) {
        match exchange.keeps_alive() && !self.is_draining {
            true => transport.resume_reading(),
            false => close(exchange, transport),
        }
    }

    /// Ends an exchange that is over. Otherwise lets input come if the exchange wants it.
    fn settle(&mut self, transport: &mut Transport<'_>) {
        let Some(exchange) = self.exchange.take() else {
            return;
        };
        let is_over = exchange.is_over();
        let is_switching = exchange.is_switching() && !self.is_draining;
        if is_over && !is_switching {
            transport.charge(0);
            return self.finish(&exchange, transport);
        }

        match is_over || exchange.wants_body() {
            true => transport.resume_reading(),
            false => transport.pause_reading(),
        }
        transport.charge(if is_over { 0 } else { exchange.held() });
        self.exchange = Some(exchange);
    }

    /// Has the exchange do something, if there is one.
    fn move_on(
        &mut self,
        transport: &mut Transport<'_>,
        act: impl FnOnce(&mut Exchange, &Settings, &mut Transport<'_>),
    ) {
        if let Some(mut exchange) = self.exchange.take() {
            act(&mut exchange, self.settings(), transport);
            self.exchange = Some(exchange);
            self.settle(transport);
        }
    }

    fn read(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize, Rejection> {
        if let Some(exchange) = &mut self.exchange {
            let settings = self.settings.as_deref().unwrap_or(&Settings::DEFAULT);
            return exchange.feed(data, settings, transport);
        }

        let settings = self.settings.as_deref().unwrap_or(&Settings::DEFAULT);
        let end = self.scan.find_end(data, settings, transport.limits())?;
        let Some(end) = end else {
            return Ok(0);
        };
        self.begin(&data[..end], transport)
    }

    /// Tells the client why its connection ends, unless a response is on its way.
    fn part(&self, why: &Rejection, transport: &mut Transport<'_>) {
        let exchange = self.exchange.as_ref();
        if exchange.is_some_and(|exchange| exchange.has_answered()) {
            return;
        }

        let text = format!("{} {}: {}\n", why.status, reason(why.status), why.problem);
        let asked = Asked {
            is_head: exchange.map_or(self.is_head_refused, |exchange| exchange.is_head()),
            takes_chunks: false,
            connection: Connection::Close,
        };
        let mut bytes = exchange
            .map_or(&[][..], |exchange| exchange.interim_rest())
            .to_vec();
        let response = Response::text(text).with_status(why.status);
        let (body, _) = response.encode(asked, self.settings(), transport.now(), &mut bytes);
        bytes.extend_from_slice(body.bytes());

        // More would end the connection for another reason.
        if transport.waiting() + bytes.len() <= transport.limits().max_output {
            transport.write(&bytes);
        }
    }
}

impl<H: Handler> Protocol for Http<H> {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        match self.read(data, transport) {
            Ok(taken) => {
                self.settle(transport);
                Ok(taken)
            }
            Err(rejection) => {
                self.is_head_refused = data.starts_with(b"HEAD ");
                Err(rejection.into())
            }
        }
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        let is_answered = match &mut self.exchange {
            // The client waits for the rest of the response.
            Some(exchange) if exchange.has_answered() => {
                exchange.give_up_body();
                true
            }
            Some(_) => false,
            None if is_blank(unread) => {
                transport.close();
                true
            }
            None => false,
        };

        self.settle(transport);
        match is_answered {
            true => Ok(()),
            false => Err(ProtocolError::Truncated {
                unread: unread.len(),
            }),
        }
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.move_on(transport, |exchange, _, transport| {
            exchange.advance(transport)
        });
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.move_on(transport, Exchange::handle_woken);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.exchange
            .as_ref()
            .and_then(|exchange| exchange.deadline())
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.move_on(transport, Exchange::handle_timeout);
    }

    /// Answers with 408 if the client has begun a request.
    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        if self.exchange.is_some() || self.scan.has_begun() {
            let problem = format!("the request is not complete: {deadline}");
            self.part(&Rejection::new(408, problem), transport);
        }
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        self.part(&Rejection::of(error), transport);
    }

    /// Ends the connection after the response that is being made, if there is one. One that is sent is
    /// all that the client gets, so the rest of its body is not waited for.
    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.is_draining = true;
        match &mut self.exchange {
            Some(exchange) => {
                exchange.end_after();
                self.settle(transport);
            }
            None => transport.close(),
        }
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.exchange = None;
    }

    fn needs_stream() -> bool {
        true
    }
}

/// Closes the connection when all output is sent. Usually the session then waits for the client to
/// close too, because closing while input is on its way would destroy the response. There is none on its
/// way from a client that has sent its last request, so that wait, and its system calls, are left out.
fn close(exchange: &Exchange, transport: &mut Transport<'_>) {
    if exchange.is_last() && transport.limits().linger_timeout.is_some() {
        let limits = Limits {
            linger_timeout: None,
            ..transport.limits().clone()
        };
        // They are as consistent as before.
        let _ = transport.set_limits(Arc::new(limits));
    }
    transport.close();
}

/// Returns whether nothing but the empty line that may come before a request, or its beginning, is
/// there.
fn is_blank(unread: &[u8]) -> bool {
    matches!(unread, b"" | b"\r" | b"\r\n" | b"\r\n\r")
}

impl<H: Handler> Upgrade for Http<H> {
    type Next = Next;

    fn take_next(&mut self) -> Option<Next> {
        self.exchange.as_mut()?.take_next()
    }
}

impl<H> fmt::Debug for Http<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("is_answering", &self.exchange.is_some())
            .field("is_draining", &self.is_draining)
            .finish_non_exhaustive()
    }
}
