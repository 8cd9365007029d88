//! Protocols that wrap other protocols, to watch, limit or change what these see.
//!
//! [`Observed`] watches the calls that a protocol gets and changes nothing.
//!
//! This room imports `address`, `error` and `session`, and knows no socket, thread or clock.

mod observed;

pub use self::observed::{Event, Observe, Observed};
