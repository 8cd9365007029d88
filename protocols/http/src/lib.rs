//! HTTP/1.1 as a protocol of [`serveloop`].
//!
//! A handler gets the head of a request and returns a response. This server says hello, over TCP, TLS
//! or a Unix socket, on one loop, several, or with a thread or process for each connection:
//!
//! ```no_run
//! use serveloop::{Config, Server};
//! use serveloop_http::{Http, Request, Response};
//!
//! fn hello(request: &Request<'_>) -> Response {
//!     match (request.method, request.path()) {
//!         ("GET" | "HEAD", "/") => Response::text("hello\n"),
//!         ("GET" | "HEAD", _) => Response::status(404),
//!         _ => Response::status(405).header("Allow", "GET, HEAD"),
//!     }
//! }
//!
//! let server = Server::bind(&["tcp://127.0.0.1:8080".parse()?], Config::default())?;
//! server.serve_forever(|_| Some(Http::new(hello)))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A handler is tested without a network:
//!
//! ```
//! use serveloop::testing::MemorySession;
//! use serveloop_http::{Http, Request, Response};
//!
//! let mut session = MemorySession::new(Http::new(|_: &Request<'_>| Response::text("hello\n")));
//! session.receive(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
//! let sent = String::from_utf8(session.sent()).unwrap();
//! assert!(sent.starts_with("HTTP/1.1 200 OK\r\n") && sent.ends_with("\r\n\r\nhello\n"));
//! ```
//!
//! # What a handler can answer
//!
//! | what | how |
//! |---|---|
//! | a response at once | [`Response::text`], [`Response::new`] with a [`body`](Response::body): owned, static or shared bytes |
//! | a body that is made while it is sent | [`Response::stream`] with a [`Source`], which is asked only when there is room |
//! | after the body of the request | [`Reply::collect`], which has a limit |
//! | while that body arrives | [`Reply::receive`] with a [`Receive`], which may slow the client down |
//! | later, from another thread or a pool | [`Reply::promise`], or [`Reply::later`], which is asked when a waker was used |
//! | with another protocol | [`Reply::upgrade`], or [`Reply::hand_over`] if it reads the request itself; made by [`Http::upgradable`] |
//! | with files | [`files::Files`] |
//!
//! # What is refused
//!
//! The connection ends after each of these answers, because it is unclear where the next request
//! begins. What two programs could read differently is an error, however common it is:
//!
//! | status | cause |
//! |---|---|
//! | 400 | not a request; a line that ends with LF alone, or a CR elsewhere; a folded header field; blanks around a name; no `Host`, or two; `Content-Length` twice, not a number, or together with `Transfer-Encoding`; a chunk that is not as long as it says; an input that ends within a request |
//! | 408 | a head that is not complete in time, or a body that is too slow |
//! | 413, 414, 431 | a body, a request line, a header that is too long: [`Settings`] |
//! | 417, 501, 505 | an expectation, a transfer coding, a version that is not known; `CONNECT` |

mod body;
mod date;
mod exchange;
pub mod files;
mod head;
mod http;
mod outgoing;
mod rejection;
mod reply;
mod request;
mod response;
mod settings;
mod source;

pub use http::Http;
pub use reply::{Handler, Receive, Reply, Responder};
pub use request::{Headers, Request, Version};
pub use response::{Body, Response};
pub use settings::{Dates, Settings};
pub use source::Source;

/// The target of every log line.
const LOG_TARGET: &str = "serveloop";

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
