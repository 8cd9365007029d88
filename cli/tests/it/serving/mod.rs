//! What the protocols share: many clients, the log, and output that nobody reads.

mod crowd;
mod lines;
mod logging;
mod proxied;
mod stuck;
