//! What the system does to sockets, and what the library makes of it.

mod broken_pipes;
#[cfg(target_os = "linux")]
mod destination;
mod files;
mod local_addresses;
mod short_reads;
mod stub;
