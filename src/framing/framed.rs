//! Protocols that work on whole messages.

use std::time::Instant;
use std::{fmt, mem, ptr};

use crate::LOG_TARGET;
use crate::error::{Deadline, DeliveryError, ProtocolError};
use crate::framing::{Decoder, Encoder, Frame, Framing, Message};
use crate::session::{Ended, Post, Protocol, Transport};

/// A protocol over frames. It is like [`Protocol`], but receives and sends whole messages. Serve it
/// as [`Framed::new(framing, protocol)`](Framed::new).
///
/// ```
/// use serveloop::ProtocolError;
/// use serveloop::framing::{FrameProtocol, FrameTransport, Framed, LengthPrefix};
///
/// struct Upper;
///
/// impl FrameProtocol for Upper {
///     type Framing = LengthPrefix;
///
///     fn frame_received(&mut self, message: &[u8], transport: &mut FrameTransport<'_, LengthPrefix>) -> Result<(), ProtocolError> {
///         transport.send(&message.to_ascii_uppercase())
///     }
/// }
///
/// let protocol = Framed::new(LengthPrefix::u32(1 << 20), Upper);
/// # let _ = protocol;
/// ```
///
/// Except for `frame_received`, `input_rejected` and `eof_received`, the methods have the meaning
/// and the default of their namesakes in [`Protocol`].
pub trait FrameProtocol {
    /// The rule that cuts the stream into messages.
    type Framing: Framing;

    /// See [`Protocol::connection_made`].
    ///
    /// # Errors
    /// Fails like [`Protocol::connection_made`].
    fn connection_made(
        &mut self,
        transport: &mut FrameTransport<'_, Self::Framing>,
    ) -> Result<(), ProtocolError> {
        let _ = transport;
        Ok(())
    }

    /// Called when one message has arrived.
    ///
    /// A protocol that keeps a long message gets it by value, without a copy of its own, with
    /// [`claim_input`](Transport::claim_input) here and [`take_input`](Transport::take_input) in
    /// [`woken`](Self::woken), which is called before the next message:
    ///
    /// ```
    /// use serveloop::Result;
    /// use serveloop::framing::{FrameProtocol, FrameTransport, Framed, LengthPrefix};
    /// use serveloop::testing::MemorySession;
    ///
    /// /// Keeps all messages.
    /// struct Archive(Vec<Vec<u8>>);
    ///
    /// impl FrameProtocol for Archive {
    ///     type Framing = LengthPrefix;
    ///
    ///     fn frame_received(
    ///         &mut self,
    ///         message: &[u8],
    ///         frames: &mut FrameTransport<'_, LengthPrefix>,
    ///     ) -> Result {
    ///         frames.transport().claim_input(message);
    ///         Ok(())
    ///     }
    ///
    ///     fn woken(&mut self, frames: &mut FrameTransport<'_, LengthPrefix>) {
    ///         self.0.extend(frames.transport().take_input());
    ///     }
    /// }
    ///
    /// let framing = LengthPrefix::u32(1 << 20);
    /// let mut session = MemorySession::new(Framed::new(framing, Archive(Vec::new())));
    /// session.receive(b"\0\0\0\x03one\0\0\0\x03two");
    /// assert_eq!(session.protocol().protocol().0, [b"one", b"two"]);
    /// ```
    ///
    /// # Errors
    /// Returns an error if the message breaks the protocol. The connection is then closed after
    /// everything already written is sent.
    fn frame_received(
        &mut self,
        message: Message<'_, Self::Framing>,
        transport: &mut FrameTransport<'_, Self::Framing>,
    ) -> Result<(), ProtocolError>;

    /// Called before the connection ends because the bytes that arrived cannot be a frame, a frame is
    /// too long, the stream has ended inside a frame, or a method of this protocol has returned an
    /// error. See [`Protocol::input_rejected`].
    fn input_rejected(
        &mut self,
        error: &ProtocolError,
        transport: &mut FrameTransport<'_, Self::Framing>,
    ) {
        let _ = (error, transport);
    }

    /// Called when the stream has ended between two messages. By default, closes the connection
    /// after everything already written is sent.
    ///
    /// # Errors
    /// Returns an error if the protocol does not allow the stream to end here.
    fn eof_received(
        &mut self,
        transport: &mut FrameTransport<'_, Self::Framing>,
    ) -> Result<(), ProtocolError> {
        transport.transport().close();
        Ok(())
    }

    /// See [`Protocol::datagram_undelivered`].
    fn datagram_undelivered(
        &mut self,
        error: &DeliveryError,
        transport: &mut FrameTransport<'_, Self::Framing>,
    ) {
        let _ = (error, transport);
    }

    /// See [`Protocol::resume_writing`].
    fn resume_writing(&mut self, transport: &mut FrameTransport<'_, Self::Framing>) {
        let _ = transport;
    }

    /// See [`Protocol::poll_timeout`].
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// See [`Protocol::handle_timeout`].
    fn handle_timeout(&mut self, transport: &mut FrameTransport<'_, Self::Framing>) {
        transport.transport().close();
    }

    /// See [`Protocol::woken`].
    fn woken(&mut self, transport: &mut FrameTransport<'_, Self::Framing>) {
        let _ = transport;
    }

    /// See [`Protocol::posted`]. By default sends the post as one message. One that does not fit the
    /// framing is dropped, which is logged at the level debug.
    fn posted(&mut self, post: &Post, transport: &mut FrameTransport<'_, Self::Framing>) {
        if let Err(error) = transport.send_post(post) {
            let id = transport.transport().id();
            log::debug!(target: LOG_TARGET, id = id; "a post was dropped: {error}");
        }
    }

    /// See [`Protocol::deadline_passed`].
    fn deadline_passed(
        &mut self,
        deadline: Deadline,
        transport: &mut FrameTransport<'_, Self::Framing>,
    ) {
        let _ = (deadline, transport);
    }

    /// See [`Protocol::shutdown_requested`].
    fn shutdown_requested(&mut self, transport: &mut FrameTransport<'_, Self::Framing>) {
        transport.transport().close();
    }

    /// See [`Protocol::hand_over`]. The part of a frame that has arrived goes along. The framing is a new
    /// one there, so a protocol whose framing has learned something from earlier frames returns `None`.
    fn hand_over(&mut self, transport: &Transport<'_>) -> Option<Vec<u8>> {
        let _ = transport;
        None
    }

    /// See [`Protocol::take_over`].
    fn take_over(
        &mut self,
        state: &[u8],
        transport: &mut FrameTransport<'_, Self::Framing>,
    ) -> bool {
        let _ = (state, transport);
        false
    }

    /// Returns the framing of what comes next, if it is another one than before. Called after each of
    /// the other methods but `connection_lost`. Bytes that were not taken yet are cut by the new framing,
    /// and what was sent stays as the old one has encoded it. By default returns `None`, which costs
    /// nothing.
    ///
    /// A framing is one type, so one that changes its kind is an enum of the user's. What messages say
    /// about the next one may also be the business of a decoder alone: it sees every message first.
    ///
    /// ```
    /// use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
    /// use serveloop::testing::MemorySession;
    /// use serveloop::Result;
    ///
    /// /// Accepts lines of 8 bytes, and longer ones after a login.
    /// struct Guarded(Option<Lines>);
    ///
    /// impl FrameProtocol for Guarded {
    ///     type Framing = Lines;
    ///
    ///     fn frame_received(&mut self, line: &[u8], client: &mut FrameTransport<'_, Lines>) -> Result {
    ///         if line == b"login" {
    ///             self.0 = Some(Lines::new(1_000));
    ///         }
    ///         client.send(line)
    ///     }
    ///
    ///     fn next_framing(&mut self) -> Option<Lines> {
    ///         self.0.take()
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::new(Framed::new(Lines::new(8), Guarded(None)));
    /// session.receive(b"login\nnow lines may be long\n");
    /// assert_eq!(session.sent(), b"login\nnow lines may be long\n");
    /// ```
    fn next_framing(&mut self) -> Option<Self::Framing> {
        None
    }

    /// See [`Protocol::connection_lost`].
    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let _ = ended;
    }
}

/// A [`FrameProtocol`]'s view of its connection. It sends messages, and gives access to everything
/// that a [`Transport`] can do through [`transport`](Self::transport).
pub struct FrameTransport<'a, F: Framing> {
    encoder: &'a mut F::Encoder,
    transport: Transport<'a>,
}

impl<'a, F: Framing> FrameTransport<'a, F> {
    #[inline]
    fn new(encoder: &'a mut F::Encoder, transport: &'a mut Transport<'_>) -> Self {
        Self {
            encoder,
            transport: transport.reborrow(),
        }
    }

    /// Sends `payload` as one message.
    ///
    /// # Errors
    /// Returns an error if the payload does not fit the framing. Nothing is sent then. Passing the
    /// error on with `?` closes the connection.
    #[inline]
    pub fn send(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        let transport = &mut self.transport;
        self.encoder.encode(payload, |piece| transport.write(piece))
    }

    /// Sends a post as one message, without a copy of its bytes if they are more than 4 KiB. See
    /// [`Transport::write_post`].
    ///
    /// # Errors
    /// Fails like [`send`](Self::send).
    pub fn send_post(&mut self, post: &Post) -> Result<(), ProtocolError> {
        let transport = &mut self.transport;
        self.encoder.encode(post, |piece| {
            if ptr::eq(piece, &raw const **post) {
                transport.write_post(post);
            } else {
                transport.write(piece);
            }
        })
    }

    /// Returns the connection itself, for example to close it, to pause it, or to read its peer or
    /// the time. Data written to it directly is sent as it is, between two messages.
    #[inline]
    pub fn transport(&mut self) -> &mut Transport<'a> {
        &mut self.transport
    }

    /// Returns the half of the framing that encodes messages.
    #[must_use]
    pub fn encoder(&self) -> &F::Encoder {
        self.encoder
    }

    /// Returns the half of the framing that encodes messages, to change it from the next message on. The
    /// half that decodes is lent to the message that was received; what is to change there changes
    /// afterwards ([`FrameProtocol::next_framing`]).
    #[must_use]
    pub fn encoder_mut(&mut self) -> &mut F::Encoder {
        self.encoder
    }
}

impl<F: Framing> fmt::Debug for FrameTransport<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameTransport")
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// A [`Protocol`] made of a [`FrameProtocol`] and its framing.
///
/// ```
/// use serveloop::framing::{Framed, Lines};
/// use serveloop::protocols::Hello;
/// use serveloop::testing::MemorySession;
/// use std::time::Duration;
///
/// let hello = Hello::new(Duration::ZERO);
/// let mut session = MemorySession::new(Framed::new(Lines::new(80), hello));
/// session.receive(b"Ann\r\nBo");
/// assert_eq!(session.sent(), b"Welcome!\nHello,Ann\n");
/// ```
pub struct Framed<P: FrameProtocol> {
    decoder: <P::Framing as Framing>::Decoder,
    encoder: <P::Framing as Framing>::Encoder,
    protocol: P,
    /// The stream has ended, but the protocol paused at its last message and has not been told yet.
    end_is_due: bool,
}

impl<P: FrameProtocol> Framed<P> {
    /// Creates a protocol that cuts the stream by `framing` and passes the messages to `protocol`.
    #[must_use]
    pub fn new(framing: P::Framing, protocol: P) -> Self {
        let (decoder, encoder) = framing.into_parts();
        Self {
            decoder,
            encoder,
            protocol,
            end_is_due: false,
        }
    }

    /// Returns the protocol inside.
    #[must_use]
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    pub(crate) fn protocol_mut(&mut self) -> &mut P {
        &mut self.protocol
    }

    /// Calls the protocol with a transport for messages.
    #[inline]
    fn call<T>(
        &mut self,
        transport: &mut Transport<'_>,
        event: impl FnOnce(&mut P, &mut FrameTransport<'_, P::Framing>) -> T,
    ) -> T {
        let mut frames = FrameTransport::new(&mut self.encoder, transport);
        let outcome = event(&mut self.protocol, &mut frames);

        // What was incomplete by the old framing may be complete by the new one.
        if self.change() {
            transport.show_again();
        }
        outcome
    }

    /// Changes the framing if the protocol says so. Returns whether it does.
    #[inline]
    fn change(&mut self) -> bool {
        let Some(framing) = self.protocol.next_framing() else {
            return false;
        };
        (self.decoder, self.encoder) = framing.into_parts();
        true
    }

    /// Takes nothing, and asks for the rest of a message that is long.
    #[cold]
    fn await_rest(
        &self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        if let Some(length) = self.decoder.announced(data) {
            transport.expect(length)?;
        }
        Ok(0)
    }

    /// Passes the last message to the protocol, if there is one.
    fn deliver_last(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        if let Some(frame) = self.decoder.decode_eof(unread)? {
            let mut frames = FrameTransport::new(&mut self.encoder, transport);
            self.protocol.frame_received(frame.message, &mut frames)?;
        }
        self.change();
        Ok(())
    }

    /// Tells the protocol of the end of the stream, unless its last message made it pause or close, or ask for
    /// a call that comes first.
    fn tell_end(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let waits = transport.is_paused() || transport.is_called_again();
        if waits || transport.is_closing() || !mem::take(&mut self.end_is_due) {
            return Ok(());
        }
        self.call(transport, P::eof_received)
    }

    /// Tells the protocol of the end of the stream if its pause has ended. The callers cannot
    /// return an error, so one from the protocol just closes the connection.
    fn tell_late_end(&mut self, transport: &mut Transport<'_>) {
        if self.end_is_due && self.tell_end(transport).is_err() {
            transport.close();
        }
    }
}

impl<P: FrameProtocol> Protocol for Framed<P> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.call(transport, P::connection_made)
    }

    #[inline]
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let Some(Frame { message, taken }) = self.decoder.decode(data)? else {
            return self.await_rest(data, transport);
        };
        let mut frames = FrameTransport::new(&mut self.encoder, transport);
        self.protocol.frame_received(message, &mut frames)?;
        self.change();
        Ok(taken)
    }

    fn datagram_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let taken = self.data_received(data, transport)?;
        // The end of a datagram ends its last message too. That of a single one is reported later.
        let ends = taken == 0 && !data.is_empty() && !transport.is_one_shot();
        if !ends || transport.is_blocked() {
            return Ok(taken);
        }

        self.deliver_last(data, transport)?;
        Ok(data.len())
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.deliver_last(unread, transport)?;

        self.end_is_due = true;
        self.tell_end(transport)
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
        self.call(transport, |protocol, frames| {
            protocol.datagram_undelivered(error, frames);
        });
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.call(transport, P::resume_writing);
        self.tell_late_end(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.protocol.poll_timeout()
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.call(transport, P::handle_timeout);
        self.tell_late_end(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.call(transport, P::woken);
        self.tell_late_end(transport);
    }

    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        self.call(transport, |protocol, frames| protocol.posted(post, frames));
        self.tell_late_end(transport);
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        self.call(transport, |protocol, frames| {
            protocol.deadline_passed(deadline, frames);
        });
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        self.call(transport, |protocol, frames| {
            protocol.input_rejected(error, frames);
        });
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.call(transport, P::shutdown_requested);
        self.tell_late_end(transport);
    }

    fn hand_over(&mut self, transport: &Transport<'_>) -> Option<Vec<u8>> {
        // A session whose stream has ended is not asked, so no end is due.
        self.protocol.hand_over(transport)
    }

    fn take_over(&mut self, state: &[u8], transport: &mut Transport<'_>) -> bool {
        self.call(transport, |protocol, frames| {
            protocol.take_over(state, frames)
        })
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.protocol.connection_lost(ended);
    }
}

impl<P: FrameProtocol + fmt::Debug> fmt::Debug for Framed<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framed")
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}
