//! WebSockets in memory, on a hostile simulated network, and compared with another implementation.

mod closing;
mod compression;
mod differential;
mod groups;
mod handshake;
mod limits;
mod messages;
mod simulated;
mod support;
