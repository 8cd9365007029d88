//! Ready-made protocols, and the three shapes that protocols have: bytes ([`Echo`], [`Discard`]),
//! messages with state and time ([`Hello`]), frames ([`Framed`](crate::framing::Framed)).
//!
//! A protocol comes in here if it is useful to many servers or shows a shape. It is written with what
//! users have: this room imports `error`, `framing` and `session`.

mod discard;
mod echo;
mod hello;

pub use discard::Discard;
pub use echo::Echo;
pub use hello::Hello;
