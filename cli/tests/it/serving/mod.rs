//! What the protocols share: many clients, the log, output that nobody reads, proxies in front, and TLS.

mod balanced;
pub(crate) mod crowd;
#[cfg(feature = "tls")]
mod encrypted;
mod entry;
#[cfg(feature = "tls")]
mod judges;
mod lines;
mod logging;
mod pace;
pub(crate) mod proxied;
mod stuck;
