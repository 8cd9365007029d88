//! RESP2 and RESP3, the protocol of Redis, as a protocol of [`serveloop`]: for servers of your own
//! commands, and a key-value store that is served by them.
//!
//! A server has a table of [`Commands`], each with a handler, and a [`Service`] that looks each
//! request up there. Clients of Redis in any language can talk to it.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::{Arc, Mutex};
//!
//! use serveloop::testing::MemorySession;
//! use serveloop::Transport;
//! use serveloop_resp::{Arguments, Command, Commands, ErrorReply, Reply, Request, Resp, Service};
//!
//! type Outcome = Result<(), ErrorReply>;
//! type Handler = fn(&mut Votes, &mut Arguments<'_>, &mut Reply) -> Outcome;
//! type Votes = BTreeMap<Vec<u8>, i64>;
//!
//! /// VOTE NAME NUMBER
//! fn vote(votes: &mut Votes, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
//!     let (name, number): (&[u8], i64) = arguments.parse()?;
//!     let sum = votes.entry(name.to_vec()).or_default();
//!     *sum = sum.checked_add(number).ok_or(ErrorReply::OVERFLOW)?;
//!     reply.integer(*sum);
//!     Ok(())
//! }
//!
//! /// RESULT
//! fn result(votes: &mut Votes, _: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
//!     reply.map(votes.len());
//!     for (name, number) in votes {
//!         reply.bulk(name);
//!         reply.integer(*number);
//!     }
//!     Ok(())
//! }
//!
//! struct Poll {
//!     commands: Arc<Commands<Handler>>,
//!     votes: Arc<Mutex<Votes>>,
//! }
//!
//! impl Service for Poll {
//!     fn answer(&mut self, request: Request<'_>, reply: &mut Reply, _: &mut Transport<'_>) -> Outcome {
//!         let (_, handler) = self.commands.find(request)?;
//!         handler(&mut self.votes.lock().unwrap(), &mut request.arguments(), reply)
//!     }
//! }
//!
//! let commands = Commands::new()
//!     .with(Command::new("vote", 2..=2), vote as Handler)
//!     .with(Command::new("result", 0..=0), result);
//! let poll = Poll { commands: Arc::new(commands), votes: Arc::default() };
//!
//! // With a server: `server.serve_forever(move |_| Some(Resp::new(Poll { ... })))`.
//! let mut session = MemorySession::new(Resp::new(poll));
//! session.receive(b"*3\r\n$4\r\nVOTE\r\n$3\r\nann\r\n$1\r\n2\r\n");
//! session.receive(b"vote bob many\r\nresult\r\n");
//! let expected = "\
//!     :2\r\n\
//!     -ERR value is not an integer or out of range\r\n\
//!     *2\r\n$3\r\nann\r\n:2\r\n";
//! assert_eq!(session.sent(), expected.as_bytes());
//! ```
//!
//! # What clients ask first
//! `HELLO` and `COMMAND` are commands of the table like any others. A client of RESP3 cannot begin without
//! `HELLO`, and people see the summaries of commands in `redis-cli` if there is a `COMMAND`:
//!
//! ```
//! use serveloop_resp::{Arguments, ErrorReply, Reply, Version};
//!
//! /// HELLO [VERSION ...]
//! fn hello(arguments: &mut Arguments<'_>, reply: &mut Reply) -> Result<(), ErrorReply> {
//!     match arguments.next() {
//!         None => {}
//!         Some(b"2") => reply.set_version(Version::Resp2),
//!         Some(b"3") => reply.set_version(Version::Resp3),
//!         Some(_) => return Err(ErrorReply::constant("NOPROTO", "unsupported protocol version")),
//!     }
//!     reply.map(2);
//!     reply.bulk(b"server");
//!     reply.bulk(b"poll");
//!     reply.bulk(b"proto");
//!     reply.integer(if reply.version() == Version::Resp3 { 3 } else { 2 });
//!     Ok(())
//! }
//! # let _ = hello;
//! ```
//!
//! [`Commands::describe`] answers `COMMAND`. Everything else that a client sends unasked, such as `CLIENT
//! SETINFO`, may be an unknown command.
//!
//! # Transactions
//! A service that offers `MULTI` and `EXEC` has a [`Transaction`] for each connection, which queues requests
//! within a limit, and [`Reply::element`] writes the outcome of each. The store has them with `WATCH`.
//!
//! # Pushed data
//! [`pushed`] makes messages such as those of channels, a [`Group`](serveloop::service::Group) or an
//! [`Outbox`](serveloop::service::Outbox) sends them, and [`Service::awaits`] says whether one that is on
//! its way is still wanted.
//!
//! A server that asks a Redis itself has a [`client`].
//!
//! # Requests
//! A request is an array of bulk strings, or a line of words, as a person types it. It has at most
//! `max_frame` bytes, a line `max_line`; both are fields of [`Limits`](serveloop::Limits). The length
//! of a word and the number of words are refused as soon as they are announced, if they cannot fit.
//! Nothing is allocated for what was announced and has not come.
//!
//! Input that is no request is answered with an error and ends the connection, because it is unclear
//! where the next request begins. So is HTTP, which web pages can make browsers send.
//!
//! # Replies
//! [`Reply`] writes them, in the version that the client has chosen. All of a reply has to fit in
//! `max_reply`; one that does not is replaced by an error. Nothing of the client is read while
//! `high_water` bytes of replies wait for it to read them.
//!
//! # Memory
//! An idle connection keeps nothing but a short list of places. A request that is not complete is in
//! the session's buffer once.

pub mod client;
mod commands;
mod error_reply;
mod inline;
mod number;
mod parser;
mod reply;
mod request;
mod resp;
pub mod store;
mod transaction;

pub use commands::{Command, Commands};
pub use error_reply::ErrorReply;
pub use reply::{Reply, Version, pushed};
pub use request::{Arguments, FromArguments, Request};
pub use resp::{Resp, Service};
pub use transaction::{Queued, Transaction};
