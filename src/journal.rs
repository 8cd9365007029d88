//! What the log calls this crate.

/// The target of every line that the library logs, whichever module has it to say: what users filter
/// by does not change when modules do.
///
/// Lines about one connection are at the level debug and have a key `event`, which is `accepted` or
/// `ended`. Ends that an operator wants to hear of are warnings, and those that are a peer's everyday
/// doing have no key.
pub(crate) const TARGET: &str = "serveloop";
