//! A client of the store in memory.

use std::sync::Arc;

use serveloop::testing::MemorySession;
use serveloop::{Config, Limits};
use serveloop_resp::Resp;
use serveloop_resp::store::{Connection, Settings, Store};

/// A client in memory.
pub(crate) struct Client(pub(crate) MemorySession<Resp<Connection>>);

impl Client {
    pub(crate) fn new() -> Self {
        Self::of(&Store::new(Settings::default()))
    }

    /// One that may be silent for any time.
    pub(crate) fn of(store: &Arc<Store>) -> Self {
        let limits = Limits {
            idle_timeout: None,
            first_message_timeout: None,
            ..Limits::default()
        };
        Self::limited(store, limits)
    }

    pub(crate) fn limited(store: &Arc<Store>, limits: Limits) -> Self {
        let config = Config {
            limits,
            ..Config::default()
        };
        let protocol = Resp::new(store.connection());
        Self(MemorySession::with_config(protocol, config))
    }

    /// Sends the line and returns the reply, with spaces for line ends.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.0.receive(format!("{line}\r\n").as_bytes());
        let sent = String::from_utf8(self.0.sent()).expect("text");
        sent.replace("\r\n", " ").trim_end().to_owned()
    }

    #[track_caller]
    pub(crate) fn check(&mut self, talk: &[(&str, &str)]) {
        for (line, reply) in talk {
            assert_eq!(self.ask(line), *reply, "{line}");
        }
    }
}
