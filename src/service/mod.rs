//! What runs beside connections, and what connects them with each other.
//!
//! An [`Outbox`] has one connection send what others have for it, and a [`Group`] has many send the
//! same.
//!
//! This room imports `session` and `waker`.

mod group;

pub use self::group::{Group, Lagging, Published};
pub use crate::session::{Outbox, Post, PostError};
