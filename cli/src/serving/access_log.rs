//! What a protocol has to say of one connection, for the log.

use std::fmt::Arguments;

use crate::logger::TARGET;

/// Notes lines about connections, besides those of the library: that one was accepted, and how it
/// ended. All of them together have a limit in each second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AccessLog;

impl AccessLog {
    /// Logs a line, if there is room for it this second.
    pub(crate) fn note(self, line: Arguments<'_>) {
        log::debug!(target: TARGET, event = "noted"; "{line}");
    }
}
