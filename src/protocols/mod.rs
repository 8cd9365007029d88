//! Ready-made protocols, and the three shapes that protocols have: bytes ([`Echo`], [`Discard`]),
//! messages with state and time ([`Hello`]), frames ([`Framed`](crate::framing::Framed)).

mod discard;
mod echo;
mod hello;

pub use discard::Discard;
pub use echo::Echo;
pub use hello::Hello;
