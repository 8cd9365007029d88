//! What is no part of a single connection, and what connects them with each other.
//!
//! An [`Outbox`] has one connection send what others have for it, and a [`Group`] has many send the
//! same. [`Offload`] is a bounded pool of threads for work that blocks, and
//! [`Deadlines`] are the timers of a protocol that has several. [`activation`] takes sockets that a
//! service manager passes to the server, and [`notify`] tells the manager how the server is. [`monitor`]
//! looks into a server while it runs, and [`metrics`] writes what it sees for Prometheus. [`recorder`]
//! keeps what came and went on each connection. A [`Watcher`] watches descriptors of others. A [`Dialer`]
//! opens connections for protocols, and an [`Upstream`] keeps one to a peer.
//!
//! This room imports the values, `session`, `layer` (for a checksum), `waker`, `sys` and `shutdown`. Of it the loop and the models
//! know the desk at which they answer a monitor, and the loop the pool on which it looks names up.

pub mod activation;
mod deadlines;
mod dialer;
mod group;
mod job;
pub mod metrics;
pub mod monitor;
pub mod notify;
mod offload;
pub mod recorder;
mod upstream;
mod watcher;

pub use self::deadlines::Deadlines;
pub use self::dialer::{Dial, Dialer, Dialing};
pub use self::group::{Group, Lagging, Published};
pub use self::job::{Job, JobError};
pub use self::offload::{Offload, OffloadLimits, Rejected, Rejection};
pub use self::upstream::{Backoff, Link, Reply, Upstream, UpstreamError, UpstreamLimits};
pub use self::watcher::{Watch, Watcher};
pub use crate::session::{Outbox, Post, PostError};
