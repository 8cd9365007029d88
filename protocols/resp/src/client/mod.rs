//! The client's side: requests to a Redis from the connections of a server, and its channels.
//!
//! Both are protocols for the connections of an [`Upstream`](serveloop::service::Upstream), which
//! connects again by itself, and keeps a bounded number of requests meanwhile.
//!
//! - [`Requests`] writes what the upstream has, made by [`request`], and gives it a [`Value`] for each.
//! - [`Subscription`] is subscribed to channels on a connection of its own.
//!
//! Requests and messages are carried *at most once*. A request whose connection was lost before the answer
//! came is not repeated, and what is published while a subscription is not connected is not heard.
//!
//! ```
//! use serveloop::net::Target;
//! use serveloop::service::{Dialer, Dialing, Reply, Upstream, UpstreamLimits};
//! use serveloop::testing::MemoryServer;
//! use serveloop::{Peer, Protocol, Result, Transport};
//! use serveloop_resp::client::{Requests, Value, request};
//!
//! type Boxed = Box<dyn Protocol + Send>;
//!
//! /// Counts its clients in Redis, and tells each its number.
//! struct Counted(Upstream<Value>, Option<Reply<Value>>);
//!
//! impl Protocol for Counted {
//!     fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
//!         self.1 = Some(self.0.request(transport.waker(), request(&[b"INCR", b"clients"]))?);
//!         Ok(())
//!     }
//!
//!     fn woken(&mut self, transport: &mut Transport<'_>) {
//!         match self.1.as_mut().and_then(Reply::take) {
//!             Some(Ok(Value::Integer(number))) => transport.write(format!("you are {number}\n").as_bytes()),
//!             Some(other) => transport.write(format!("{other:?}\n").as_bytes()),
//!             None => {}
//!         }
//!     }
//!
//!     fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
//!         Ok(data.len())
//!     }
//! }
//!
//! let redis: Target = "tcp://127.0.0.1:6379".parse()?;
//! // Redis answers in order, so several requests may be under way.
//! let limits = UpstreamLimits { max_in_flight: 1_000, ..UpstreamLimits::default() };
//! let mut server = MemoryServer::new(Dialing::new(move |dialer: &Dialer<Boxed>| {
//!     let make = |link| Box::new(Requests::new(link)) as Boxed;
//!     let redis = Upstream::new(dialer, redis.clone(), limits.clone(), make);
//!     move |_: &Peer| Some(Box::new(Counted(redis.clone(), None)) as Boxed)
//! }));
//!
//! let (_, redis) = server.next_outbound().expect("it connects");
//! let client = server.connect();
//! assert_eq!(server.received(redis), b"*2\r\n$4\r\nINCR\r\n$7\r\nclients\r\n");
//! server.send(redis, b":42\r\n");
//! assert_eq!(server.received(client), b"you are 42\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod requests;
mod scanner;
mod subscription;
mod value;

pub use requests::Requests;
pub use subscription::{Subscriber, Subscription};
pub use value::Value;

use crate::number::Digits;

/// Returns the bytes of a request: a command and its arguments, which may be any bytes.
///
/// ```
/// use serveloop_resp::client::request;
///
/// let bytes = request(&[b"SET", b"name", b"ann\r\n"]);
/// assert_eq!(bytes, b"*3\r\n$3\r\nSET\r\n$4\r\nname\r\n$5\r\nann\r\n\r\n");
/// ```
#[must_use]
pub fn request(words: &[&[u8]]) -> Vec<u8> {
    let length: usize = words.iter().map(|word| word.len() + 32).sum();
    let mut bytes = Vec::with_capacity(length + 32);
    let header = |bytes: &mut Vec<u8>, kind: u8, length: usize| {
        bytes.push(kind);
        bytes.extend_from_slice(Digits::of_unsigned(length as u64).as_slice());
        bytes.extend_from_slice(b"\r\n");
    };

    header(&mut bytes, b'*', words.len());
    for word in words {
        header(&mut bytes, b'$', word.len());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
