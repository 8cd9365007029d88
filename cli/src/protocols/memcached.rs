//! `serve memcached`: a cache for clients of memcached.
//!
//! The protocol is the crate `serveloop-memcached`. Its options are here, and what a server is refused
//! for.

use std::io;

use clap::Args;
use serveloop::layer::{Alarm, Observed, Screen};
use serveloop::{Address, Peer, Statistics};
use serveloop_memcached::{Memcached, Settings, Store};

use crate::failure::Failure;
use crate::protocols::streams::need_streams;
use crate::serving::{BoundServer, Execution, Need};
use crate::units::Size;

/// The longest item that a line can announce, as in memcached.
const ITEM_MOST: usize = 1 << 30;

/// The shortest limit of items, as in memcached: a key alone may have 250 bytes.
const ITEM_LEAST: usize = 1 << 10;

/// What a command has besides its item: a line, with a key in Base64 and its flags.
const LINE_SPARE: usize = 8 << 10;

/// Keeps values under keys, for clients of memcached.
///
///   $ serveloop serve memcached --listen tcp://127.0.0.1:11211
///   listening on tcp://127.0.0.1:11211
///
/// In another terminal, type set greeting 0 60 5, hello, and get greeting:
///
///   $ nc -C 127.0.0.1 11211
///   set greeting 0 60 5
///   hello
///   STORED
///   get greeting
///   VALUE greeting 0 5
///   hello
///   END
///
/// It has the text protocol of memcached 1.6 with the meta commands (mg, ms, md, ma, me, mn), and not
/// the binary protocol. All clients share one store, with any number of --workers and with --model
/// threaded. It is lost when the server ends. --model forking is refused: each client would have a
/// store of its own.
///
/// When --max-memory is used up, the items that were not used for longest make room. A line other than
/// that of get has at most --max-line bytes, and a command with its value at most --max-frame.
///
/// Clients keep their connections open: --idle-timeout 0 and --first-message-timeout 0 let them be
/// silent for as long as they like. Datagrams are refused, since the frame header that memcached has
/// there is not read.
///
/// Clients are not authenticated: whoever can connect can read and delete everything. A web page can
/// make a browser on this machine connect to loopback. A client that begins with HTTP, TLS or STUN is
/// disconnected before anything is done, but only a Unix socket keeps browsers out.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment, next_help_heading = "Items")]
pub(crate) struct MemcachedOptions {
    /// The most memory for all items: their keys, their values, and 160 bytes for each
    #[arg(long, value_name = "SIZE", default_value_t = Settings::default().max_memory.into())]
    max_memory: Size,
    /// The longest item: its key, its value, and 59 bytes, as memcached counts it
    #[arg(long, value_name = "SIZE", default_value_t = Settings::default().max_item.into())]
    max_item: Size,
}

impl MemcachedOptions {
    /// Returns an error for what makes no sense or cannot be served.
    pub(super) fn check(&self, addresses: &[Address], execution: Execution) -> Result<(), Failure> {
        let why =
            "memcached is for streams: its datagrams have a frame header, which is not supported";
        need_streams(addresses, why)?;

        let (memory, item) = (usize::from(self.max_memory), usize::from(self.max_item));
        let problem = if execution.is_forking() {
            "memcached cannot be served with --model forking: processes share no memory, so each client \
             would have a store of its own"
                .to_owned()
        } else if !(ITEM_LEAST..=ITEM_MOST).contains(&item) {
            "--max-item must be at least 1KiB and at most 1GiB".to_owned()
        } else if memory < item.saturating_mul(2) {
            "--max-memory must be at least twice --max-item".to_owned()
        } else {
            return Ok(());
        };
        Err(Failure::Usage(problem))
    }

    /// Returns what the longest command needs.
    pub(super) fn needs(&self) -> Vec<Need> {
        vec![Need {
            option: "max_item",
            bytes: usize::from(self.max_item).saturating_add(LINE_SPARE),
            limit: "max_frame",
        }]
    }

    pub(super) fn serve(self, server: BoundServer, execution: Execution) -> io::Result<Statistics> {
        let store = Store::new(Settings {
            max_memory: self.max_memory.into(),
            max_item: self.max_item.into(),
        });
        let alarm = Alarm::default();
        execution.serve(server, move |peer: &Peer| {
            let screen = Screen::new(peer, &alarm);
            Some(Observed::new(Memcached::new(&store), screen))
        })
    }
}
