//! The protocol of a connection that is subscribed to channels.

use std::time::{Duration, Instant};
use std::{fmt, mem};

use serveloop::service::Link;
use serveloop::{Ended, Protocol, ProtocolError, Transport};

use crate::client::scanner::Scanner;
use crate::client::{Value, request};

/// How long nothing may come before the server is asked whether it is there, and how long it may take
/// to answer.
const SILENCE: Duration = Duration::from_secs(10);

/// Hears what is published. A function of a channel and a message does.
pub trait Subscriber {
    /// Called for each message of a channel, in the order in which the server sends them.
    fn message(&mut self, channel: &[u8], message: &[u8]);

    /// Called when the subscription holds. What was published before was not heard.
    fn subscribed(&mut self) {}

    /// Called when the subscription is lost, for whatever reason. The upstream connects again, with
    /// another subscriber.
    fn lost(&mut self) {}
}

impl<F: FnMut(&[u8], &[u8])> Subscriber for F {
    fn message(&mut self, channel: &[u8], message: &[u8]) {
        self(channel, message);
    }
}

/// The protocol of an upstream's connection to a Redis that is subscribed to channels. The upstream makes
/// one whenever it connects; nothing is asked of it, so its answers are of no type.
///
/// A server that is silent for ten seconds is asked for a sign of life, and the connection is ended if
/// there is none in another ten.
///
/// ```
/// use std::sync::mpsc;
///
/// use serveloop::net::Target;
/// use serveloop::service::{Dialer, Dialing, Upstream, UpstreamLimits};
/// use serveloop::testing::MemoryServer;
/// use serveloop::Peer;
/// use serveloop_resp::client::Subscription;
///
/// type Hear = dyn FnMut(&[u8], &[u8]) + Send;
/// type Feed = Subscription<Box<Hear>>;
///
/// let redis: Target = "tcp://127.0.0.1:6379".parse()?;
/// let (sender, messages) = mpsc::channel();
/// let mut feeds = Vec::new();
/// let mut server = MemoryServer::new(Dialing::new(|dialer: &Dialer<Feed>| {
///     let sender = sender.clone();
///     let make = move |link| {
///         let sender = sender.clone();
///         let hear = move |_: &[u8], message: &[u8]| sender.send(message.to_vec()).unwrap();
///         Subscription::new(link, &[b"news"], Box::new(hear) as Box<Hear>)
///     };
///     // Dropping it would close it.
///     feeds.push(Upstream::new(dialer, redis.clone(), UpstreamLimits::default(), make));
///     |_: &Peer| None::<Feed>
/// }));
///
/// let (_, redis) = server.next_outbound().expect("it connects");
/// assert_eq!(server.received(redis), b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n");
/// server.send(redis, b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
/// server.send(redis, b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
/// assert_eq!(messages.try_recv()?, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Subscription<S> {
    link: Link<()>,
    subscriber: S,
    scanner: Scanner,
    login: Vec<u8>,
    /// How many answers to the login, and then how many confirmations are missing.
    logins: usize,
    channels: usize,
    request: Vec<u8>,
    /// When something has to be said or heard.
    due: Option<Instant>,
    is_asked: bool,
}

impl<S: Subscriber> Subscription<S> {
    /// Creates the protocol around the upstream's link.
    ///
    /// # Panics
    /// Panics if there is no channel.
    pub fn new(link: Link<()>, channels: &[&[u8]], subscriber: S) -> Self {
        assert!(
            !channels.is_empty(),
            "a subscription has at least one channel"
        );
        let words: Vec<&[u8]> = [&b"SUBSCRIBE"[..]]
            .into_iter()
            .chain(channels.iter().copied())
            .collect();
        Self {
            link,
            subscriber,
            scanner: Scanner::default(),
            login: Vec::new(),
            logins: 0,
            channels: channels.len(),
            request: request(&words),
            due: None,
            is_asked: false,
        }
    }

    /// Adds a request that is made before the subscription, such as `AUTH`, as
    /// [`Requests::with_login`](crate::client::Requests::with_login) does.
    #[must_use]
    pub fn with_login(mut self, words: &[&[u8]]) -> Self {
        self.login.extend(request(words));
        self.logins += 1;
        self
    }

    fn handle(&mut self, value: Value, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        if let Value::Error(text) = value {
            return Err(format!("the server refuses: {}", text.escape_ascii()))?;
        }
        if self.logins > 0 {
            self.logins -= 1;
            return Ok(());
        }

        let (Value::Array(elements) | Value::Push(elements)) = value else {
            // RESP3 answers a sign of life with a text.
            return Ok(());
        };
        match elements.as_slice() {
            [
                Value::Bytes(kind),
                Value::Bytes(channel),
                Value::Bytes(message),
            ] if kind == b"message" => {
                self.subscriber.message(channel, message);
            }
            [Value::Bytes(kind), ..] if kind == b"subscribe" && self.channels > 0 => {
                self.channels -= 1;
                if self.channels == 0 {
                    self.link.ready(transport);
                    self.subscriber.subscribed();
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl<S: Subscriber> Protocol for Subscription<S> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        transport.write(&self.login);
        transport.write(&self.request);
        self.due = transport.now().checked_add(SILENCE);
        self.is_asked = true;
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.due = transport.now().checked_add(SILENCE);
        self.is_asked = false;

        let mut scanner = mem::take(&mut self.scanner);
        let taken = scanner.take(data, transport, |value, transport| {
            self.handle(value, transport)
        })?;
        self.scanner = scanner;
        Ok(taken)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        if self.is_asked {
            return transport.abort();
        }
        self.is_asked = true;
        self.due = transport.now().checked_add(SILENCE);
        transport.write(&request(&[b"PING"]));
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.subscriber.lost();
        self.link.lost();
    }

    fn needs_stream() -> bool {
        true
    }
}

impl<S> fmt::Debug for Subscription<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}
