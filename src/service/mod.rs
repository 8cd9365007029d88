//! What runs beside connections, and what connects them with each other.
//!
//! An [`Outbox`] has one connection send what others have for it, and a [`Group`] has many send the
//! same. [`activation`] takes sockets that a service manager passes to the server, and [`notify`] tells
//! the manager how the server is.
//!
//! This room imports the values, `session`, `waker`, `sys` and `shutdown`; the loop and the models do not
//! know it.

pub mod activation;
mod group;
pub mod notify;

pub use self::group::{Group, Lagging, Published};
pub use crate::session::{Outbox, Post, PostError};
