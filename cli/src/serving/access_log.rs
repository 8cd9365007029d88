//! Log lines of a protocol about one connection.

use std::fmt::Arguments;

use serveloop::Peer;

use crate::logger::TARGET;

/// Notes lines about connections, in addition to the library's, which say that one was accepted and
/// how it ended. All of them together share a limit per second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AccessLog;

impl AccessLog {
    /// Logs that a peer is refused before it has a protocol, if this second's budget allows it.
    pub(crate) fn refuse(self, peer: &Peer, why: &str) {
        let (id, listener) = (peer.id(), peer.listener().unwrap_or_default());
        log::debug!(
            target: TARGET, event = "refused", id = id, peer:% = peer, listener = listener, reason = why;
            "{peer}: refused: {why}"
        );
    }

    /// Logs a line about a connection, if this second's budget allows it.
    pub(crate) fn note(self, peer: &Peer, line: Arguments<'_>) {
        let (id, listener) = (peer.id(), peer.listener().unwrap_or_default());
        match peer.via() {
            Some(via) => log::debug!(
                target: TARGET, event = "noted", id = id, peer:% = peer, via:% = via, listener = listener;
                "{peer}: {line}"
            ),
            None => log::debug!(
                target: TARGET, event = "noted", id = id, peer:% = peer, listener = listener;
                "{peer}: {line}"
            ),
        }
    }
}
