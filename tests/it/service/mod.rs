//! What runs besides connections: outboxes, groups and pools of threads, passed sockets, and what a
//! service manager hears.

mod activation;
mod deadlines;
mod delivery;
mod dialer;
mod groups;
mod handed_on;
mod handed_over;
mod monitor;
mod notify;
mod offload;
mod outboxes;
mod recorder;
mod upstream;
mod upstream_real;
mod watcher;

use std::sync::mpsc;

use serveloop::service::Outbox;
use serveloop::testing::MemorySession;
use serveloop::{Config, Protocol, Result, Transport};

/// Hands its outbox out.
struct Open(mpsc::Sender<Outbox>);

impl Protocol for Open {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        let _ = self.0.send(transport.outbox());
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Ok(data.len())
    }
}

/// Opens a session in memory, and returns its outbox.
fn open(config: Config) -> (MemorySession<Open>, Outbox) {
    let (sender, outboxes) = mpsc::channel();
    let session = MemorySession::with_config(Open(sender), config);
    (session, outboxes.recv().unwrap())
}
