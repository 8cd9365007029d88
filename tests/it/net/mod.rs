//! What the system does to sockets, and what the library makes of it.

#[cfg(target_os = "linux")]
mod access;
mod broken_pipes;
#[cfg(target_os = "linux")]
mod destination;
mod files;
#[cfg(target_os = "linux")]
mod gathered;
#[cfg(target_os = "linux")]
mod groups;
#[cfg(target_os = "linux")]
mod listening;
mod local_addresses;
#[cfg(target_os = "linux")]
mod packets;
mod short_reads;
mod stub;
