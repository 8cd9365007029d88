//! What several themes need: programs, servers and clients for one test.

pub(crate) mod memory;
#[path = "../../../../tests/it/support/outside.rs"]
pub(crate) mod outside;
pub(crate) mod running;
pub(crate) mod scripts;
#[cfg(feature = "tls")]
pub(crate) mod secure;
pub(crate) mod served;
pub(crate) mod sockets;
pub(crate) mod terminal;
