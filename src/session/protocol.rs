//! The traits that users implement: a protocol, and the factory that makes one for each peer.

use std::time::Instant;

use crate::address::{NetworkList, Peer};
use crate::error::{Deadline, DeliveryError, ProtocolError};
use crate::session::actions::{Actions, Connect, Listing, Requests};
use crate::session::clock::Tick;
use crate::session::ended::Ended;
use crate::session::outbox::Post;
use crate::session::transport::Transport;

/// A protocol as a state machine: bytes in, bytes out. One value serves one connection, or one
/// datagram.
///
/// A method named by a past participle reports that something happened. The protocol responds
/// through the [`Transport`]. The methods are called in this order:
///
/// ```text
/// connection_made (data_received | resume_writing | handle_timeout | woken | shutdown_requested)*
/// [eof_received (resume_writing | handle_timeout | woken | shutdown_requested)*]
/// [deadline_passed | input_rejected] connection_lost
/// ```
///
/// `connection_lost` is called exactly once, even after a panic. `connection_made` is not called
/// for a connection that could not be made or that the system does not let the loop watch. After
/// `close` or `abort`, only `connection_lost` follows, and after an error `input_rejected` as well.
///
/// The smallest protocol:
///
/// ```
/// use serveloop::{Protocol, Result, Transport};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
///         transport.write(data);
///         Ok(data.len())
///     }
/// }
/// ```
///
/// No method may block: on a loop, it would hold up every other connection.
///
/// A panic ends only its own connection, as long as panics unwind. A program built with
/// `panic = "abort"` ends as a whole at the first panic. The exception is a server that gives each
/// connection a process ([`serve_forking`](crate::Server::serve_forking)): only that process ends,
/// and it counts as killed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Protocol`",
    note = "a `FrameProtocol` becomes one with its framing: `Framed::new(Lines::new(1_000), ...)`"
)]
pub trait Protocol {
    /// Called when the connection is established. A protocol whose server speaks first writes here.
    ///
    /// # Errors
    /// An error closes the connection after everything already written is sent. This holds for
    /// every method that returns a `Result`.
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let _ = transport;
        Ok(())
    }

    /// Called with `data`, all bytes that have arrived and were not taken yet. Returns how many
    /// bytes were taken from the front; the rest is shown again. `data` is never empty, except for
    /// an empty datagram.
    ///
    /// `Ok(0)` means that the message is *incomplete*: the method is called again when more bytes
    /// have arrived. When a message is taken and bytes are left, the method is called again at
    /// once, so the natural way is to take one message per call. To take nothing *for now*,
    /// whatever arrives, use [`Transport::pause_reading`].
    ///
    /// # Errors
    /// Returns an error if the peer's bytes break the protocol. Returning more than `data.len()`
    /// counts as a panic.
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError>;

    /// Called with a datagram, or with what a call before has left of it. Returns how many bytes were
    /// taken; when some are left, the method is called again at once with the rest. By default, passes
    /// the bytes to [`data_received`](Self::data_received), so a protocol for streams serves datagrams
    /// too.
    ///
    /// Usually a datagram is a session of its own: its end is reported by
    /// [`eof_received`](Self::eof_received), and what is written becomes the reply. On a socket whose
    /// peers have [sessions](crate::Config::sessions), the first datagram of a peer makes the protocol,
    /// and this method is called for that and for all later ones. There is no `eof_received` then. What
    /// is written while one datagram is handled is sent as one datagram
    /// ([`write_datagram`](crate::Transport::write_datagram) sends several), and what is not taken of a
    /// datagram is dropped, as are datagrams that come while the protocol
    /// [pauses](crate::Transport::pause_reading).
    ///
    /// # Errors
    /// Returns an error if the datagram breaks the protocol. It ends the session. The sender's address
    /// may be forged, so a protocol that is to survive forged datagrams ignores them instead.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, Result, Transport};
    ///
    /// /// Counts the datagrams of a peer.
    /// #[derive(Default)]
    /// struct Counter(u32);
    ///
    /// impl Protocol for Counter {
    ///     fn datagram_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         self.0 += 1;
    ///         transport.write(self.0.to_string().as_bytes());
    ///         Ok(data.len())
    ///     }
    ///
    ///     fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
    ///         Ok(data.len())
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::datagrams(Counter::default());
    /// session.receive_datagram(b"one");
    /// session.receive_datagram(b"");
    /// assert_eq!(session.take_datagrams(), [b"1", b"2"]);
    /// ```
    fn datagram_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.data_received(data, transport)
    }

    /// Called when a datagram that this protocol has sent did not arrive: its peer is gone, it was too
    /// long for the path, or this machine could not send it. For sessions of a peer's datagrams alone.
    /// Reports of the network come on Linux, and only while the session is open; most lost datagrams
    /// are lost without one.
    ///
    /// By default does nothing, so that a session goes on until its own deadline. Any router can make a
    /// report, and so can an impostor who knows the addresses of both sides; if reports ended sessions,
    /// he could end them all. A protocol that has no use for a peer that is gone can
    /// [end](crate::Transport::abort) here, if a new beginning costs its peers little, or look sooner
    /// whether its peer still answers.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::net::DeliveryError;
    /// use serveloop::{Protocol, Result, Transport};
    /// use std::io::{Error, ErrorKind};
    ///
    /// /// Sends in pieces of the length that the path allows, and forgets peers that are gone.
    /// struct Pieces(usize);
    ///
    /// impl Protocol for Pieces {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         data.chunks(self.0).for_each(|piece| transport.write_datagram(piece));
    ///         Ok(data.len())
    ///     }
    ///
    ///     fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
    ///         match error {
    ///             DeliveryError::TooLong { .. } => self.0 = 1_200,
    ///             DeliveryError::Reported(_) => transport.abort(),
    ///             _ => {}
    ///         }
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::datagrams(Pieces(1_400));
    /// session.fail_datagram(DeliveryError::TooLong { mtu: Some(1_280) });
    /// session.receive_datagram(&[0; 1_300]);
    /// assert_eq!(session.take_datagrams().len(), 2);
    /// let refused = Error::from(ErrorKind::ConnectionRefused);
    /// session.fail_datagram(DeliveryError::Reported(refused));
    /// assert!(session.reason().is_some());
    /// ```
    fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
        let _ = (error, transport);
    }

    /// Called when the peer has ended its stream, with the bytes that are left `unread`. The other
    /// direction is still open, so replies can be sent now or later. By default, closes the
    /// connection after everything already written is sent. For a datagram, this is the natural
    /// end.
    ///
    /// # Errors
    /// By default, returns [`ProtocolError::Truncated`] if anything is unread.
    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        if !unread.is_empty() {
            return Err(ProtocolError::Truncated {
                unread: unread.len(),
            });
        }

        transport.close();
        Ok(())
    }

    /// Called when waiting output has fallen to `low_water` after it was full, or after
    /// [`Transport::write_some`] had no room for all of its data. Producers continue here.
    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        let _ = transport;
    }

    /// Returns when `handle_timeout` is to be called, or `None` for never. It is queried after
    /// every call, so a protocol keeps the moment in a field. A moment in the past means now.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Called when the moment of `poll_timeout` has come. The protocol moves or clears that moment;
    /// otherwise this is called again a millisecond later. By default, closes the connection.
    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        transport.close();
    }

    /// Called after a [`Waker`](crate::Waker) of this connection was used. It may also be called
    /// spuriously.
    fn woken(&mut self, transport: &mut Transport<'_>) {
        let _ = transport;
    }

    /// Called with what others have [posted](crate::Transport::outbox) for this connection, one post
    /// at a time and in their order, when there is room to send it. By default sends it as it is. A
    /// protocol with a format of its own puts it into that, for example behind a length, as
    /// [`Framed`](crate::framing::Framed) does.
    ///
    /// ```
    /// use serveloop::service::Post;
    /// use serveloop::{Protocol, Result, Transport};
    ///
    /// struct Events;
    ///
    /// impl Protocol for Events {
    ///     fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
    ///         Ok(data.len())
    ///     }
    ///
    ///     fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
    ///         transport.write(b"data: ");
    ///         transport.write_post(post);
    ///         transport.write(b"\n\n");
    ///     }
    /// }
    /// ```
    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        transport.write_post(post);
    }

    /// Called once when a deadline of the [`Limits`](crate::Limits) has passed, before it ends the
    /// connection: `first_message_timeout`, `message_timeout` or `idle_timeout`. By default does
    /// nothing.
    ///
    /// A protocol can say here why it ends, as HTTP does with 408. What it writes is sent after the
    /// output that waits, for up to 5 s, and the reason for the end stays the deadline. Without it,
    /// waiting output is dropped. A peer that takes no output in time, or that is cut off at the end
    /// of a drain, is told nothing.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{CloseReason, Config, Deadline, Protocol, Result, Transport};
    ///
    /// struct Request;
    ///
    /// impl Protocol for Request {
    ///     fn data_received(&mut self, _: &[u8], _: &mut Transport<'_>) -> Result<usize> {
    ///         Ok(0)
    ///     }
    ///
    ///     fn deadline_passed(&mut self, _: Deadline, transport: &mut Transport<'_>) {
    ///         transport.write(b"408\n");
    ///     }
    /// }
    ///
    /// let timeout = Config::default().limits.first_message_timeout.unwrap();
    /// let mut session = MemorySession::new(Request);
    /// session.receive(b"GE");
    /// session.advance(timeout);
    /// assert_eq!(session.sent(), b"408\n");
    /// assert!(matches!(session.reason(), Some(CloseReason::TimedOut(Deadline::FirstMessage))));
    /// ```
    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        let _ = (deadline, transport);
    }

    /// Called once when the peer's input has been found wrong, before that ends the connection: with
    /// the error that a method of this protocol has returned, or when a message is longer than
    /// [`max_frame`](crate::Limits::max_frame). By default does nothing.
    ///
    /// A protocol can answer here, as HTTP does with 400 or 413. What it writes is sent after the
    /// output that waits, for up to 5 s. After that, input of the peer is discarded for as long as
    /// [`linger_timeout`](crate::Limits::linger_timeout) says, so that a peer that goes on sending
    /// can read the answer.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, ProtocolError, Result, Transport};
    ///
    /// struct Digits;
    ///
    /// impl Protocol for Digits {
    ///     fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
    ///         match data.iter().all(u8::is_ascii_digit) {
    ///             true => Ok(data.len()),
    ///             false => Err("no digit".into()),
    ///         }
    ///     }
    ///
    ///     fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
    ///         transport.write(format!("-ERR {error}\n").as_bytes());
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::new(Digits);
    /// session.receive(b"12x");
    /// assert_eq!(session.sent(), b"-ERR malformed: no digit\n");
    /// ```
    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        let _ = (error, transport);
    }

    /// Called when the server begins to shut down. The protocol should send what it still owes and
    /// close before the drain's deadline. By default, closes the connection after everything
    /// already written is sent.
    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        transport.close();
    }

    /// Called when the connection is to go on in another process, with a protocol that the same factory
    /// makes there. Returns what that one has to know ([`take_over`](Self::take_over)), and nothing of
    /// this protocol is called afterwards, not even `connection_lost`. Bytes that it has not taken yet,
    /// and those that it has written, go along.
    ///
    /// What waits in an [outbox](Transport::outbox) goes along too, into the one that the protocol asks for
    /// there; nothing can be posted to this one any more. So a protocol that has given its outbox away tells
    /// here who has it, for example leaves its [groups](crate::service::Group), and joins them there.
    ///
    /// Returns `None` if this connection stays and is served here to its end, as by default. So does one
    /// that has a source that is being [sent](Transport::send), or limits of its own, that is inside a layer
    /// such as TLS, or whose peer has ended its stream; then this is not called.
    ///
    /// ```
    /// use serveloop::{Protocol, Result, Transport};
    ///
    /// /// Answers each byte with the number of bytes so far.
    /// #[derive(Default)]
    /// struct Counter(u64);
    ///
    /// impl Protocol for Counter {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         self.0 += 1;
    ///         transport.write(format!("{} ", self.0).as_bytes());
    ///         Ok(1.min(data.len()))
    ///     }
    ///
    ///     fn hand_over(&mut self, _: &Transport<'_>) -> Option<Vec<u8>> {
    ///         Some(self.0.to_be_bytes().to_vec())
    ///     }
    ///
    ///     fn take_over(&mut self, state: &[u8], _: &mut Transport<'_>) -> bool {
    ///         let count = state.try_into().map(u64::from_be_bytes);
    ///         self.0 = count.unwrap_or_default();
    ///         count.is_ok()
    ///     }
    /// }
    /// ```
    fn hand_over(&mut self, transport: &Transport<'_>) -> Option<Vec<u8>> {
        let _ = transport;
        None
    }

    /// Called in place of `connection_made` for a connection that comes from another process, with what
    /// [`hand_over`](Self::hand_over) returned there. The bytes that were not taken there are shown next.
    /// The program may be another version: returns whether the state makes sense, or the connection ends.
    /// It ends too if posts came along and the protocol has no outbox for them. By default false.
    fn take_over(&mut self, state: &[u8], transport: &mut Transport<'_>) -> bool {
        let _ = (state, transport);
        false
    }

    /// Called once, as the last method, when the connection has ended for any reason: see
    /// [`Ended::reason`].
    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let _ = ended;
    }

    /// Returns whether this protocol cannot serve datagrams, as TLS cannot. A server refuses to begin
    /// with a datagram socket then; see [`Factory::needs_stream`]. By default false. A
    /// `Box<dyn Protocol>` does not know, and returns false too.
    ///
    /// ```
    /// use serveloop::{Config, Peer, Protocol, Result, Server, Transport};
    ///
    /// /// Keeps what one connection has sent, so it needs one.
    /// struct Diary(Vec<u8>);
    ///
    /// impl Protocol for Diary {
    ///     fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
    ///         self.0.extend(data);
    ///         Ok(data.len())
    ///     }
    ///
    ///     fn needs_stream() -> bool {
    ///         true
    ///     }
    /// }
    ///
    /// let server = Server::bind(&["udp://127.0.0.1:0".parse()?], Config::default())?;
    /// let error = server.serve_forever(|_: &Peer| Some(Diary(Vec::new()))).unwrap_err();
    /// assert!(error.to_string().contains("this protocol needs a stream"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    fn needs_stream() -> bool
    where
        Self: Sized,
    {
        false
    }

    /// Called when a turn took long: a protocol that holds a session moves the times that the
    /// session noted at the turn's beginning to its end. No other protocol needs it.
    #[doc(hidden)]
    fn catch_up(&mut self, from: Tick, to: Tick) {
        let _ = (from, to);
    }

    /// Asked when the server shuts down: returns whether the peer owes its first message, which a layer
    /// knows better than the session outside (`outside`). Only protocols that hold other protocols need
    /// it.
    #[doc(hidden)]
    fn owes_first(&self, outside: bool) -> bool {
        outside
    }

    /// Called before a deadline, or a lack of memory or room, ends the connection: a layer writes its
    /// end mark. Only protocols that hold other protocols need it.
    #[doc(hidden)]
    fn write_end_mark(&mut self, transport: &mut Transport<'_>) {
        let _ = transport;
    }
}

impl<P: Protocol + ?Sized> Protocol for Box<P> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        (**self).connection_made(transport)
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        (**self).data_received(data, transport)
    }

    fn datagram_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        (**self).datagram_received(data, transport)
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
        (**self).datagram_undelivered(error, transport);
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        (**self).eof_received(unread, transport)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        (**self).resume_writing(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (**self).poll_timeout()
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        (**self).handle_timeout(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        (**self).woken(transport);
    }

    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        (**self).posted(post, transport);
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        (**self).deadline_passed(deadline, transport);
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        (**self).input_rejected(error, transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        (**self).shutdown_requested(transport);
    }

    fn hand_over(&mut self, transport: &Transport<'_>) -> Option<Vec<u8>> {
        (**self).hand_over(transport)
    }

    fn take_over(&mut self, state: &[u8], transport: &mut Transport<'_>) -> bool {
        (**self).take_over(state, transport)
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        (**self).connection_lost(ended);
    }

    fn catch_up(&mut self, from: Tick, to: Tick) {
        (**self).catch_up(from, to);
    }

    fn owes_first(&self, outside: bool) -> bool {
        (**self).owes_first(outside)
    }

    fn write_end_mark(&mut self, transport: &mut Transport<'_>) {
        (**self).write_end_mark(transport);
    }
}

/// Makes a protocol for each peer, and has hooks for events that concern the server as a whole.
///
/// A closure `|_: &Peer| Some(Echo)` is a factory (the parameter's type must be written), and so is
/// a function. Implement the trait to use the other hooks. A panic in any of the methods is
/// caught, unless the program is built with `panic = "abort"`.
///
/// ```
/// use serveloop::{Actions, Config, Factory, Peer, Server, protocols::Echo};
/// use std::net::TcpStream;
///
/// /// Serves this machine alone, and only its first connection.
/// struct First;
///
/// impl Factory for First {
///     type Protocol = Echo;
///
///     fn build_protocol(&mut self, peer: &Peer) -> Option<Echo> {
///         let addr = peer.address().socket_addr()?;
///         addr.ip().is_loopback().then_some(Echo)
///     }
///
///     fn service_actions(&mut self, actions: &mut Actions<'_, Echo>) {
///         if actions.statistics().closed() > 0 {
///             actions.shutdown();
///         }
///     }
/// }
///
/// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
/// drop(TcpStream::connect(server.addresses()[0].socket_addr().unwrap())?);
/// let statistics = server.with(First).serve_forever()?;
/// assert_eq!(statistics.accepted, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Hooks and models
/// The hooks run on the thread that calls `serve_...`, or on each of several loops. Where connections
/// are served elsewhere, not everything is known there:
///
/// | hook | loop, workers | sequential | threads | processes |
/// |---|---|---|---|---|
/// | `build_protocol`, `handle_refusal`, `handle_error` | yes | yes | yes | yes, in the parent |
/// | `started` | once per loop | once | once | once, in the parent |
/// | `poll_timeout`, `handle_timeout`, `service_actions`, `woken` | yes | between connections | yes | yes, in the parent |
/// | [`Actions::connect`], `call_again`, `shutdown`, `waker` | yes | yes | yes; outbound connections are the loop's | yes; outbound connections are the parent's |
/// | [`Actions::retire`] | yes | after its connection | yes | yes |
/// | [`Actions::hand_over`] | yes | hands nothing over | hands nothing over | hands nothing over |
/// | [`Actions::adopt`] | yes | closes it | closes it | closes it |
/// | [`Actions::connections`], `end`, `abort` | all of the loop | outbound ones | outbound ones | outbound ones |
/// | [`trusted_proxies`](Self::trusted_proxies) | exempt from `max_per_peer` | the same | the same | the same |
/// | [`needs_stream`](Self::needs_stream) | refuses datagram sockets | the same | the same | the same |
/// | [`needs_loop`](Self::needs_loop) | serves | refuses to begin | refuses to begin | refuses to begin |
/// | [`needs_one_process`](Self::needs_one_process) | serves | serves | serves | refuses to begin |
pub trait Factory {
    /// The protocol that this factory makes. To serve several protocols, for example on several
    /// listeners, use `Box<dyn Protocol>`.
    type Protocol: Protocol;

    /// Returns a protocol for `peer`, or `None` to refuse it. A refused connection is closed at
    /// once and counted.
    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol>;

    /// Returns whether the protocols of the listener with this number cannot serve datagrams. Called
    /// once for each datagram socket, before the server begins, which fails if this returns true. By
    /// default what [`Protocol::needs_stream`] says. A factory whose protocols are
    /// `Box<dyn Protocol>` says it here.
    fn needs_stream(&self, listener: usize) -> bool {
        let _ = listener;
        Self::Protocol::needs_stream()
    }

    /// Returns whether the factory needs its connections on the loop, to
    /// [list](Actions::connections) and [end](Actions::end) them. A server whose connections have
    /// threads or processes of their own, or are served one at a time, refuses to begin then. Called
    /// once. By default false.
    fn needs_loop(&self) -> bool {
        false
    }

    /// Returns whether the factory needs its connections in the process of the server, because they
    /// share memory with it. A server whose connections have processes of their own refuses to begin
    /// then. Called once. By default false.
    fn needs_one_process(&self) -> bool {
        false
    }

    /// Returns the proxies of the listener with this number that this factory believes when they name
    /// their clients, if it does so: [`Config::trusted_proxies`](crate::Config::trusted_proxies) for a listener that has none of its own.
    /// Called once for each listener. By default none;
    /// [`Proxy::factory`](crate::layer::proxy::Proxy::factory) returns its list.
    fn trusted_proxies(&self, listener: usize) -> Option<NetworkList> {
        let _ = listener;
        None
    }

    /// Called after the `connection_lost` of a connection that ended with an error
    /// ([`CloseReason::is_error`](crate::CloseReason::is_error)). The loop also logs such ends itself: as a warning, at most once
    /// a second for each kind, and at the level debug for [ordinary
    /// ends](crate::CloseReason::is_ordinary).
    fn handle_error(&mut self, ended: &Ended<'_>) {
        let _ = ended;
    }

    /// Called when a peer is refused before a protocol was made for it, and why. Its connection is
    /// closed at once. [`Statistics`](crate::Statistics) counts refusals, and the loop logs them.
    ///
    /// ```
    /// use serveloop::protocols::Echo;
    /// use serveloop::server::Refusal;
    /// use serveloop::{Factory, Peer};
    ///
    /// /// Notes who was one client too many.
    /// struct Counted(Vec<Peer>);
    ///
    /// impl Factory for Counted {
    ///     type Protocol = Echo;
    ///
    ///     fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
    ///         Some(Echo)
    ///     }
    ///
    ///     fn handle_refusal(&mut self, peer: &Peer, why: Refusal) {
    ///         if why == Refusal::MaxPerPeer {
    ///             self.0.push(peer.clone());
    ///         }
    ///     }
    /// }
    /// ```
    fn handle_refusal(&mut self, peer: &Peer, why: Refusal) {
        let _ = (peer, why);
    }

    /// Called once, when the loop begins to serve. With several workers, it is called for each.
    fn started(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        let _ = actions;
    }

    /// Returns when `handle_timeout` is to be called, or `None` for never. It is queried in every
    /// turn, so a factory keeps the moment in a field. A moment in the past means now. A loop with
    /// such a moment goes on, also if it has no listener and no connection.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Called when the moment of `poll_timeout` has come, for periodic work. The factory moves or
    /// clears that moment; otherwise this is called again a millisecond later.
    ///
    /// ```
    /// use serveloop::protocols::Echo;
    /// use serveloop::{Actions, Config, Factory, Peer, Server};
    /// use std::time::{Duration, Instant};
    ///
    /// /// Shuts down at the third tick.
    /// struct Ticking {
    ///     next: Option<Instant>,
    ///     ticks: u32,
    /// }
    ///
    /// impl Factory for Ticking {
    ///     type Protocol = Echo;
    ///
    ///     fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
    ///         Some(Echo)
    ///     }
    ///
    ///     fn started(&mut self, actions: &mut Actions<'_, Echo>) {
    ///         self.next = Some(actions.now());
    ///     }
    ///
    ///     fn poll_timeout(&self) -> Option<Instant> {
    ///         self.next
    ///     }
    ///
    ///     fn handle_timeout(&mut self, actions: &mut Actions<'_, Echo>) {
    ///         self.ticks += 1;
    ///         self.next = Some(actions.now() + Duration::from_millis(1));
    ///         if self.ticks == 3 {
    ///             actions.shutdown();
    ///         }
    ///     }
    /// }
    ///
    /// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
    /// server.with(Ticking { next: None, ticks: 0 }).serve_forever()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn handle_timeout(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        let _ = actions;
    }

    /// Called after a [waker](Actions::waker) of the factory was used, from any thread. Several wakes may
    /// result in one call.
    ///
    /// ```
    /// use serveloop::protocols::Echo;
    /// use serveloop::{Actions, Config, Factory, Peer, Server};
    /// use std::thread;
    ///
    /// /// Ends the server when a thread says so.
    /// struct Waiting;
    ///
    /// impl Factory for Waiting {
    ///     type Protocol = Echo;
    ///
    ///     fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
    ///         Some(Echo)
    ///     }
    ///
    ///     fn started(&mut self, actions: &mut Actions<'_, Echo>) {
    ///         let waker = actions.waker();
    ///         thread::spawn(move || waker.wake());
    ///     }
    ///
    ///     fn woken(&mut self, actions: &mut Actions<'_, Echo>) {
    ///         actions.shutdown();
    ///     }
    /// }
    ///
    /// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
    /// server.with(Waiting).serve_forever()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn woken(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        let _ = actions;
    }

    /// Called once per turn of the loop, after the connections have been served.
    fn service_actions(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        let _ = actions;
    }
}

impl<F, P> Factory for F
where
    F: FnMut(&Peer) -> Option<P>,
    P: Protocol,
{
    type Protocol = P;

    fn build_protocol(&mut self, peer: &Peer) -> Option<P> {
        self(peer)
    }
}

/// Why a peer is refused before there is a protocol for it. A factory is told it
/// ([`Factory::handle_refusal`]).
///
/// ```
/// use serveloop::server::Refusal;
///
/// fn is_ours(why: Refusal) -> bool {
///     matches!(why, Refusal::MaxConnections | Refusal::Descriptors)
/// }
/// # let _ = is_ours;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// [`max_connections`](crate::Config::max_connections) connections are open.
    MaxConnections,
    /// Connections use all descriptors that the process may have.
    Descriptors,
    /// [`max_per_peer`](crate::Config::max_per_peer) connections from this peer are open.
    MaxPerPeer,
    /// The factory panicked.
    Panicked,
}

impl<P> Actions<'_, P> {
    /// Calls a hook of a factory inside this one, which sees no connections, and returns those that it
    /// asked for.
    #[cfg(feature = "testing")]
    pub(crate) fn inside<F: Factory>(
        &mut self,
        factory: &mut F,
        hook: fn(&mut F, &mut Actions<'_, F::Protocol>),
    ) -> Vec<Connect<F::Protocol>> {
        self.inside_showing(factory, &(), hook)
    }

    /// Calls a hook of a factory inside this one, which sees the connections of `open`, and returns
    /// those that it asked for.
    pub(crate) fn inside_showing<F: Factory>(
        &mut self,
        factory: &mut F,
        open: &dyn Listing<F::Protocol>,
        hook: fn(&mut F, &mut Actions<'_, F::Protocol>),
    ) -> Vec<Connect<F::Protocol>> {
        let mut requests = Requests {
            connects: Vec::new(),
            again: self.requests.again,
            urgent: self.requests.urgent.take(),
        };
        let mut actions = Actions {
            clock: self.clock,
            statistics: self.statistics,
            requests: &mut requests,
            open,
            mailbox: self.mailbox,
        };
        hook(factory, &mut actions);

        self.requests.again = requests.again;
        self.requests.urgent = requests.urgent;
        requests.connects
    }
}
