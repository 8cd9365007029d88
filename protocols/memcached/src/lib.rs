//! The text protocol of [memcached](https://memcached.org), with its meta commands, over a store in
//! memory. It is a protocol of [`serveloop`], and uses nothing but its public API.
//!
//! ```
//! use serveloop::testing::MemorySession;
//! use serveloop_memcached::{Memcached, Settings, Store};
//!
//! let store = Store::new(Settings::default());
//! let mut client = MemorySession::new(Memcached::new(&store));
//!
//! client.receive(b"set greeting 0 60 5\r\nhello\r\n");
//! client.receive(b"get greeting\r\n");
//! assert_eq!(client.sent(), b"STORED\r\nVALUE greeting 0 5\r\nhello\r\nEND\r\n");
//! ```
//!
//! To serve it, make a protocol for each client. All of them share one [`Store`], on one loop, on
//! several, or with a thread for each connection. Processes share no memory: a server that forks would
//! have a store for each client.
//!
//! ```no_run
//! use serveloop::{Config, Peer, Server};
//! use serveloop_memcached::{Memcached, Settings, Store};
//!
//! let store = Store::new(Settings { max_memory: 1 << 30, ..Settings::default() });
//! let server = Server::bind(&["tcp://127.0.0.1:11211".parse()?], Config::default())?;
//! server.serve_workers(2, move |_: &Peer| Some(Memcached::new(&store)))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What there is
//!
//! | commands | |
//! |---|---|
//! | `get` `gets` `gat` `gats` | values of any number of keys |
//! | `set` `add` `replace` `append` `prepend` `cas` | storing |
//! | `delete` `touch` `incr` `decr` | changing what is there |
//! | `mg` `ms` `md` `ma` `me` `mn` | the meta commands with all their flags |
//! | `flush_all` `stats` `verbosity` `version` `quit` | the server as a whole |
//!
//! Replies are those of memcached 1.6.18, byte for byte, which `version` names too, because clients
//! decide by it what they may use. Differences:
//!
//! - A key has no control characters.
//! - Flags and expiration times beyond their range are refused, not cut.
//! - `flush_all` frees the items at once, which takes time if there are millions.
//! - There are no slabs: `stats slabs`, `stats items` and `stats sizes` are empty. `verbosity` is
//!   accepted and changes nothing.
//! - There is no binary protocol, no authentication, and there are no datagrams with their frame header.
//!
//! # Limits
//!
//! | what | limit |
//! |---|---|
//! | a key | 250 bytes |
//! | an item | [`Settings::max_item`], 1 MiB: key, value and 59 bytes, as in memcached |
//! | all items | [`Settings::max_memory`], 64 MiB; beyond it, the items that were not used for longest make room |
//! | a line | [`Limits::max_line`](serveloop::Limits::max_line); a line of `get` [`Limits::max_frame`](serveloop::Limits::max_frame) |
//! | an item that arrives | [`Limits::max_frame`](serveloop::Limits::max_frame), which should exceed `max_item` by a line |
//! | replies that wait | [`Limits::high_water`](serveloop::Limits::high_water): longer values are sent in parts |
//!
//! Clients are not authenticated, and whoever can connect can read and delete everything.

mod answer;
mod command;
mod flags;
mod item;
mod items;
mod memcached;
mod meta;
mod numbers;
mod retrieval;
mod settings;
mod statistics;
mod store;
mod words;

pub use crate::memcached::Memcached;
pub use crate::settings::Settings;
pub use crate::store::Store;
