//! `serveloop serve`: where it listens, how it serves, what it allows.

mod limits;
mod listening;
#[cfg(target_os = "linux")]
mod listens;
mod managed;
#[cfg(target_os = "linux")]
mod memory;
mod models;
mod recorded;
#[cfg(target_os = "linux")]
mod vsock;
mod warnings;
