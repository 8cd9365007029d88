//! Ready-made protocols, which also show the three shapes of a protocol: bytes ([`Echo`],
//! [`Discard`]), messages with state and time ([`Hello`]), and frames
//! ([`Framed`](crate::framing::Framed)). [`Relay`] is one for two connections. [`counted`] is for their texts.
//!
//! A protocol belongs here if it is useful to many servers or shows a shape. It uses only what
//! users have: this room imports `error`, `framing`, `session`
//! and `waker`.

mod discard;
mod echo;
mod hello;
mod relay;

pub use discard::Discard;
pub use echo::Echo;
pub use hello::Hello;
pub use relay::Relay;

pub use crate::error::counted;
