//! A protocol inside a layer: one connection whose bytes are transformed on their way.

use std::borrow::Cow;
use std::mem;
use std::panic::resume_unwind;
use std::time::Instant;

use crate::address::Peer;
use crate::error::{CloseReason, Deadline, DeliveryError, ProtocolError};
use crate::layer::{Layer, Received, Wire, WireEnd};
use crate::session::{Context, EndInside, Ended, Protocol, Session, Tick, Transport};

/// A protocol whose connection goes through a [`Layer`].
///
/// [`layered`] makes a factory of them for a server, and [`around`](Self::around) one for an
/// outbound connection. It serves like any other protocol, in every model, in a
/// `MemorySession` and in a simulation.
///
/// The protocol inside has a transport like any other. Its water marks, `max_output` and `waiting`
/// count the bytes on the wire. What the layer adds to bytes that the protocol could write within
/// `max_output` never ends the connection, so that a little more than that may wait.
///
/// A layer's end mark is written when the protocol closes or finishes, and when a deadline or a lack
/// of memory ends the connection. In the latter case there is one attempt to send it, and none if
/// output waits, because then bytes are missing. A connection that is aborted, that fails, or whose
/// peer takes no output (`write_timeout`) ends without it.
#[derive(Debug)]
pub struct Layered<L, B, P> {
    layer: L,
    inside: Inside<B, P>,
    /// When the handshake has to be done or the session inside has a deadline.
    due: Option<Instant>,
    /// Whether the session inside is to be called again.
    again: bool,
    /// Whether the layer has ended our side of the stream.
    ended: bool,
}

/// The protocol inside a layer, or what it is made from when the handshake is done.
#[derive(Debug)]
enum Inside<B, P> {
    Awaited(B),
    Given(P),
    Open(Session<P>),
    None,
}

/// Returns a factory that puts each connection into a layer of its own.
///
/// `layer` returns the layer for a peer, or `None` to refuse the connection. When the layer is
/// open, `build` returns the protocol inside, from the peer and from what the handshake has shown
/// ([`Layer::Info`]), or `None` to refuse it then ([`CloseReason::Refused`]).
///
/// ```
/// use serveloop::layer::layered;
/// use serveloop::protocols::Echo;
/// use serveloop::testing::Scrambled;
/// use serveloop::{Config, Peer, Server};
///
/// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
/// server.shutdown_handle().shutdown();
/// server.serve_forever(layered(
///     |_: &Peer| Some(Scrambled::new(7)),
///     |_: &Peer, (): &()| Some(Echo),
/// ))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn layered<L, B, P>(
    mut layer: impl FnMut(&Peer) -> Option<L> + Clone,
    build: B,
) -> impl FnMut(&Peer) -> Option<Layered<L, B, P>> + Clone
where
    L: Layer,
    B: FnMut(&Peer, &L::Info) -> Option<P> + Clone,
    P: Protocol,
{
    move |peer: &Peer| Some(Layered::new(layer(peer)?, build.clone()))
}

impl<L, B, P> Layered<L, B, P>
where
    L: Layer,
    B: FnMut(&Peer, &L::Info) -> Option<P>,
    P: Protocol,
{
    /// Creates the protocol of one connection. `build` is called once, when `layer` is open.
    #[must_use]
    pub fn new(layer: L, build: B) -> Self {
        Self::with(layer, Inside::Awaited(build))
    }

    fn with(layer: L, inside: Inside<B, P>) -> Self {
        Self {
            layer,
            inside,
            due: None,
            again: false,
            ended: false,
        }
    }

    /// Creates the protocol inside when the layer is open, and tells it so.
    fn open(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        if transport.is_closing() {
            return Ok(());
        }
        let Some(info) = self.layer.opened() else {
            return Ok(());
        };
        let peer = transport.peer().clone();
        let protocol = match mem::replace(&mut self.inside, Inside::None) {
            Inside::Given(protocol) => Some(protocol),
            Inside::Awaited(mut build) => build(&peer, &info),
            open => {
                self.inside = open;
                return Ok(());
            }
        };

        let Some(protocol) = protocol else {
            self.end_once(transport);
            transport.dismiss(CloseReason::Refused);
            return Ok(());
        };
        self.inside = Inside::Open(Session::nested(protocol, transport));
        self.due = None;
        transport.end_opening();
        self.call(transport, Session::handle_open)
    }

    /// Calls the session inside, sends what it wrote through the layer, and passes on what it
    /// wants. Does nothing before the layer is open, or after it has ended the connection.
    #[inline]
    fn call(
        &mut self,
        transport: &mut Transport<'_>,
        event: impl FnOnce(&mut Session<P>, &Context<'_>),
    ) -> Result<(), ProtocolError> {
        self.call_with(Vec::new(), transport, |session, _, context| {
            event(session, context);
        })
    }

    /// Works like `call`, and shows `bytes` to the event. Their memory holds the output afterwards,
    /// until it is sent.
    #[inline]
    fn call_with(
        &mut self,
        mut bytes: Vec<u8>,
        transport: &mut Transport<'_>,
        event: impl FnOnce(&mut Session<P>, &[u8], &Context<'_>),
    ) -> Result<(), ProtocolError> {
        let Inside::Open(session) = &mut self.inside else {
            return Ok(());
        };
        if transport.is_closing() {
            return Ok(());
        }

        let before = session.call_inside(transport, |session, context| {
            event(session, &bytes, context);
        });
        if L::PASSES_OUTPUT {
            transport.note_passed(before);
        } else if transport.waiting() > before {
            let was_full = transport.is_full();
            transport.send_through(before, &mut bytes, |plain, transport| {
                self.layer.send(plain, &mut Wire::of(transport))
            })?;
            session.relieve(transport, was_full);
        }

        let is_settled = !session.is_coupled(transport) && self.layer.held() == 0;
        if !is_settled || self.due.is_some() || session.deadline_changed() {
            self.settle(transport);
        }
        Ok(())
    }

    /// Shows plain bytes to the session inside.
    #[inline]
    fn show(
        &mut self,
        plain: Cow<'_, [u8]>,
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        if transport.is_closing() {
            return Ok(());
        }
        let Inside::Open(session) = &self.inside else {
            panic!("a layer returned plain bytes before it was open");
        };
        assert!(
            !session.is_eof(),
            "a layer returned plain bytes after the end of the stream"
        );
        match plain {
            plain if transport.peer().is_datagram() => self.call(transport, |session, context| {
                session.handle_unwrapped_datagram(&plain, context);
            }),
            Cow::Owned(plain) => self.call_with(plain, transport, |session, plain, context| {
                session.handle_data(plain, context);
            }),
            Cow::Borrowed(plain) => self.call(transport, |session, context| {
                session.handle_data(plain, context);
            }),
        }
    }

    /// Ends the peer's side of the stream inside.
    fn show_end(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        if !self.is_open() {
            transport.close_for(CloseReason::PeerClosed);
        }
        self.call(transport, Session::handle_eof)
    }

    /// Takes the units of a datagram that the protocol inside did not want yet: there is no later.
    /// Returns what is no unit.
    fn take_rest<'a>(
        &mut self,
        mut unread: &'a [u8],
        transport: &mut Transport<'_>,
    ) -> Result<&'a [u8], ProtocolError> {
        while !unread.is_empty() && !transport.is_closing() {
            let taken = self.data_received(unread, transport)?;
            if taken == 0 {
                break;
            }
            unread = &unread[taken..];
        }
        Ok(unread)
    }

    /// Passes on what the layer alone has changed: its memory, and the output.
    fn account(&mut self, transport: &mut Transport<'_>) {
        let held = self.layer.held();
        match &self.inside {
            Inside::Open(session) if held > 0 || session.is_coupled(transport) => {
                self.settle(transport);
            }
            Inside::Open(_) => {}
            _ => transport.charge(held),
        }
    }

    /// Acts on what the session inside wants: an end of its side, its deadline, a call to come.
    #[cold]
    fn settle(&mut self, transport: &mut Transport<'_>) {
        let Inside::Open(session) = &mut self.inside else {
            return;
        };

        self.due = session.due(transport.context());
        session.couple(transport, self.layer.held());
        self.again |= transport.is_called_again();

        let end = session.take_end();
        let is_finished = session.is_finished() && !session.is_queued();
        if is_finished || end.as_ref().is_some_and(EndInside::has_mark) {
            self.end_once(transport);
            transport.finish_if(is_finished);
        }
        if let Some(end) = end {
            transport.end(end);
        }
    }

    /// Ends our side of the stream, unless that was done before.
    fn end_once(&mut self, transport: &mut Transport<'_>) {
        if !self.ended {
            self.ended = true;
            transport.expand(|transport| self.layer.end(&mut Wire::of(transport)));
        }
    }

    /// Ends the connection for `reason` when all that the protocol inside has written was sent.
    fn close_for(
        &mut self,
        reason: CloseReason,
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        match &mut self.inside {
            Inside::Open(session) if session.is_queued() => {
                session.close_behind(reason);
                self.call(transport, |_, _| {})
            }
            _ => {
                transport.close_for(reason);
                Ok(())
            }
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.inside, Inside::Open(_))
    }

    /// Works like `call`, where an error of the layer cannot be returned.
    fn tell(
        &mut self,
        transport: &mut Transport<'_>,
        event: impl FnOnce(&mut Session<P>, &Context<'_>),
    ) {
        if let Err(error) = self.call(transport, event) {
            transport.fail(CloseReason::Protocol(error));
        }
    }
}

impl<L, I, P> Layered<L, fn(&Peer, &I) -> Option<P>, P>
where
    L: Layer<Info = I>,
    P: Protocol,
{
    /// Puts a protocol that exists already into a layer, for an outbound connection. The protocol
    /// also learns of an end before the layer was open, for example that the connection could not
    /// be made.
    #[must_use]
    pub fn around(layer: L, protocol: P) -> Self {
        Self::with(layer, Inside::Given(protocol))
    }
}

impl<L, B, P> Protocol for Layered<L, B, P>
where
    L: Layer,
    B: FnMut(&Peer, &L::Info) -> Option<P>,
    P: Protocol,
{
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        if transport.peer().is_datagram() && !transport.is_one_shot() {
            let problem =
                "a layer serves streams and single datagrams, and no sessions of datagrams";
            return Err(ProtocolError::other(problem));
        }
        transport.make_unit_room();
        transport.begin_opening();
        let timeout = transport.limits().handshake_timeout;
        self.due = timeout.and_then(|timeout| transport.now().checked_add(timeout));

        self.layer.begin(&mut Wire::of(transport))?;
        self.open(transport)?;
        self.account(transport);
        Ok(())
    }

    #[inline]
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let Received { taken, plain, end } = self.layer.received(data, &mut Wire::of(transport))?;
        if !self.is_open() {
            self.open(transport)?;
        }

        match plain {
            // A unit may have no plain bytes, and only a datagram is shown if it is empty.
            Some(plain) if !plain.is_empty() || transport.peer().is_datagram() => {
                self.show(plain, transport)?;
            }
            _ => self.account(transport),
        }
        if end {
            self.show_end(transport)?;
        }
        Ok(taken)
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        let is_datagram = transport.peer().is_datagram();
        let unread = if is_datagram {
            self.take_rest(unread, transport)?
        } else {
            unread
        };

        match self.layer.wire_ended() {
            WireEnd::Clean if unread.is_empty() && self.is_open() => {
                let event = if is_datagram {
                    Session::handle_datagram_end
                } else {
                    Session::handle_eof
                };
                self.call(transport, event)?;
            }
            WireEnd::Clean if unread.is_empty() => transport.close(),
            _ => self.close_for(CloseReason::Truncated, transport)?,
        }
        Ok(())
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
        self.tell(transport, |session, context| {
            session.handle_undelivered(error, context);
        });
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.tell(transport, Session::handle_resumed);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        if !self.is_open() {
            return transport.fail(CloseReason::TimedOut(Deadline::Handshake));
        }
        let waits = transport.has_input();
        self.tell(transport, |session, context| {
            session.handle_deadlines(context, waits);
        });
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        // A waker may be used while another call is still to come.
        if self.again && !transport.is_called_again() {
            self.again = false;
            let event = if transport.resume_if_empty() {
                Session::handle_resumed
            } else {
                Session::handle_more
            };
            self.tell(transport, event);
        } else {
            self.tell(transport, Session::handle_woken);
        }
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        if self.is_open() {
            self.tell(transport, Session::handle_shutdown);
        } else {
            transport.close();
        }
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        match &mut self.inside {
            Inside::Given(protocol) => protocol.connection_lost(ended),
            Inside::Open(session) => {
                session.handle_lost_outside(ended);
                if session.has_panicked_last() {
                    // The session outside counts the panic of its protocol.
                    resume_unwind(Box::new("the protocol inside a layer panicked"));
                }
            }
            Inside::Awaited(_) | Inside::None => {}
        }
    }

    fn catch_up(&mut self, from: Tick, to: Tick) {
        if let Inside::Open(session) = &mut self.inside {
            session.catch_up(from, to);
        }
    }

    fn owes_first(&self, _: bool) -> bool {
        match &self.inside {
            Inside::Awaited(_) | Inside::Given(_) => true,
            Inside::Open(session) => session.owes_first(),
            Inside::None => false,
        }
    }

    fn needs_stream() -> bool {
        L::NEEDS_STREAM || P::needs_stream()
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        self.tell(transport, |session, context| {
            session.handle_deadline_outside(deadline, context);
        });
    }

    fn write_end_mark(&mut self, transport: &mut Transport<'_>) {
        // A layer in the protocol inside comes first.
        self.tell(transport, Session::handle_end_mark);
        // With a mark, the peer would take what it has got for the whole.
        let is_whole = matches!(&self.inside, Inside::Open(session) if !session.is_queued());
        if is_whole && !transport.is_closing() {
            self.end_once(transport);
        }
    }
}
