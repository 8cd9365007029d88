//! `serve resp`: a store of keys and values, for clients of Redis.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serveloop::{Address, Config, Peer, Statistics};
use serveloop_resp::Resp;
use serveloop_resp::store::{self, Settings, Store};

use crate::failure::Failure;
use crate::serving::{BoundServer, Chore, Execution, Need};
use crate::units::Size;

/// With a thread for each connection, the loop looks so often for keys that have expired.
const LOOK: Duration = Duration::from_secs(1);

/// What a reply has besides the value in it, in bytes.
const REPLY_HEADER: usize = 64;

/// Keeps values under keys, for clients of Redis (RESP2 and RESP3).
///
///   $ serveloop serve resp
///   listening on tcp://127.0.0.1:9999
///
/// In another terminal, with a client of Redis:
///
///   $ redis-cli -p 9999
///   127.0.0.1:9999> set greeting hello ex 60
///   OK
///   127.0.0.1:9999> get greeting
///   "hello"
///   127.0.0.1:9999> incr visits
///   (integer) 1
///
/// Without one, commands are lines:
///
///   $ nc 127.0.0.1 9999
///   incr visits
///   :2
///
/// COMMAND LIST lists them: values with and without a deadline, counters, SCAN, transactions (MULTI and
/// WATCH), PUBLISH and SUBSCRIBE, INFO, CLIENT. Replies and errors are those of Redis 7. There is one
/// database of strings, no password and no scripts, and nothing is kept on disk.
///
/// --max-memory limits keys and values; what does not fit replaces keys that were not used for long.
/// What a client queues between MULTI and EXEC has at most --max-transaction bytes. EXEC runs all of it
/// at once, also with --workers, and other clients wait meanwhile. No key is evicted in between: it may
/// exceed --max-memory, by --max-transaction at most. While keys take more than --max-memory and nothing
/// can make room, commands that need memory are refused, and not queued either.
///
/// A request has at most --max-frame bytes, a line --max-line, and a reply --max-reply. While a client
/// listens to channels, its --idle-timeout is at least an hour. One that does not keep up is
/// disconnected when more than --max-posted (32MiB) wait for it, and the log says so.
///
/// All clients share the keys, also with --workers and with --model threaded. This protocol works
/// neither over datagrams nor with --model forking.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct RespOptions {
    /// The most memory for keys and values; 0: no limit
    #[arg(long, value_name = "SIZE", default_value_t = Size::from(MEMORY_USUAL))]
    max_memory: Size,
    /// What happens to keys when that memory is used up
    #[arg(long, value_enum, default_value_t)]
    eviction: Eviction,
    /// The most memory for what one client queues in a transaction, and for the keys that it watches
    #[arg(long, value_name = "SIZE", default_value_t = Size::from(TRANSACTION_USUAL))]
    max_transaction: Size,
}

const MEMORY_USUAL: usize = 256 << 20;

const TRANSACTION_USUAL: usize = 16 << 20;

/// The option `--eviction`, with the names that Redis has for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Eviction {
    /// Keys that were not used for long make room
    #[default]
    AllkeysLru,
    /// Keys that expire soonest make room; without any, as with noeviction
    VolatileTtl,
    /// All keys stay, and commands that need memory are refused
    Noeviction,
}

impl From<Eviction> for store::Eviction {
    fn from(eviction: Eviction) -> Self {
        match eviction {
            Eviction::AllkeysLru => Self::AllkeysLru,
            Eviction::VolatileTtl => Self::VolatileTtl,
            Eviction::Noeviction => Self::NoEviction,
        }
    }
}

impl RespOptions {
    /// Returns an error for addresses or models that cannot share one store.
    pub(super) fn check(addresses: &[Address], execution: Execution) -> Result<(), Failure> {
        if let Some(address) = addresses.iter().find(|it| it.is_datagram()) {
            let problem = format!(
                "resp cannot serve {address}: the sender of a datagram may be forged, and commands change keys"
            );
            return Err(Failure::Usage(problem));
        }

        if execution.is_forking() {
            let problem =
                "resp cannot be served with --model forking: processes do not share the keys";
            return Err(Failure::Usage(problem.to_owned()));
        }
        Ok(())
    }

    /// Returns what a transaction needs that may be longer than usual.
    pub(super) fn needs(&self) -> Vec<Need> {
        let bytes = usize::from(self.max_transaction);
        let need = Need {
            option: "max_transaction",
            bytes,
            limit: "max_buffered",
        };
        (bytes > TRANSACTION_USUAL)
            .then_some(need)
            .into_iter()
            .collect()
    }

    pub(super) fn serve(
        self,
        server: BoundServer,
        config: &Config,
        execution: Execution,
    ) -> io::Result<Statistics> {
        let store = Store::new(self.settings(config));
        let (_, has_threads) = execution.parts();
        let expiry = Expiry {
            store: Arc::clone(&store),
            look: has_threads.then(Instant::now),
        };
        let factory = move |_: &Peer| Some(Resp::new(store.connection()));
        execution.serve_with(server, factory, expiry)
    }

    fn settings(&self, config: &Config) -> Settings {
        let limits = &config.limits;
        let reply = limits
            .max_reply
            .max(limits.max_output)
            .min(config.max_buffered);
        let room = reply.saturating_sub(limits.high_water);
        let max_memory = usize::from(self.max_memory);
        Settings {
            max_memory: Some(max_memory).filter(|bytes| *bytes > 0),
            eviction: self.eviction.into(),
            max_value: room.saturating_sub(REPLY_HEADER).min(limits.max_frame),
            max_transaction: usize::from(self.max_transaction).min(config.max_buffered / 2),
        }
    }
}

/// Frees the memory of keys that have expired, also if no client looks for them.
#[derive(Clone, Debug)]
struct Expiry {
    store: Arc<Store>,
    /// When to look in any case: a thread that gives a key a deadline does not wake the loop.
    look: Option<Instant>,
}

impl Chore for Expiry {
    fn due(&self) -> Option<Instant> {
        self.store.poll_timeout().into_iter().chain(self.look).min()
    }

    fn run(&mut self, now: Instant) {
        self.store.handle_timeout(now);
        self.look = self.look.and_then(|_| now.checked_add(LOOK));
    }

    fn copy(&self) -> Box<dyn Chore> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        options: RespOptions,
    }

    fn settings(typed: &str) -> Settings {
        let typed = Typed::parse_from(typed.split_whitespace());
        typed.options.settings(&Config::default())
    }

    #[test]
    fn memory_and_eviction_are_as_the_crate_has_them() {
        let usual = Settings::default();
        let typed = settings("resp");
        assert_eq!(
            (typed.max_memory, typed.eviction, typed.max_transaction),
            (usual.max_memory, usual.eviction, usual.max_transaction)
        );
    }

    #[test]
    fn what_is_typed_becomes_a_setting() {
        let typed = settings("resp --max-memory 3MiB --eviction noeviction");
        assert_eq!(typed.max_memory, Some(3 << 20));
        assert_eq!(typed.eviction, store::Eviction::NoEviction);
        assert_eq!(settings("resp --max-memory 0").max_memory, None);
        let typed = settings("resp --eviction volatile-ttl");
        assert_eq!(typed.eviction, store::Eviction::VolatileTtl);
    }

    #[test]
    fn a_transaction_fits_what_connections_hold() {
        let needed = |typed: &str| {
            let typed = Typed::parse_from(typed.split_whitespace());
            typed
                .options
                .needs()
                .iter()
                .map(|need| need.bytes)
                .sum::<usize>()
        };
        assert_eq!(
            [needed("resp"), needed("resp --max-transaction 1KiB")],
            [0, 0]
        );
        assert_eq!(needed("resp --max-transaction 64MiB"), 64 << 20);

        let typed = Typed::parse_from(["resp"]);
        let config = Config {
            max_buffered: 8 << 20,
            ..Config::default()
        };
        assert_eq!(typed.options.settings(&config).max_transaction, 4 << 20);
        let typed = settings("resp --max-transaction 1KiB");
        assert_eq!(typed.max_transaction, 1 << 10);
    }

    #[test]
    fn a_value_fits_a_request_and_a_reply() {
        let typed = Typed::parse_from(["resp"]);
        let mut config = Config::default();
        let value = |config: &Config| typed.options.settings(config).max_value;
        assert_eq!(value(&config), 1 << 20);
        config.limits.max_frame = 1_000;
        assert_eq!(value(&config), 1_000);
        config.limits.max_frame = 10 << 20;
        config.limits.max_reply = 4 << 20;
        assert_eq!(value(&config), (4 << 20) - (64 << 10) - REPLY_HEADER);
    }
}
