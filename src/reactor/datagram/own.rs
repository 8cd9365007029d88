//! The socket of one outbound session.

use crate::reactor::source::Source;

/// A socket that is connected to the peer of one session.
#[derive(Debug)]
pub(super) struct Own<D> {
    pub(super) socket: D,
    pub(super) source: Source,
    /// Whether the system may have reports of datagrams that did not arrive.
    pub(super) has_reports: bool,
}

impl<D> Own<D> {
    pub(super) fn new(socket: D) -> Self {
        Self {
            socket,
            source: Source::new(),
            has_reports: false,
        }
    }
}
