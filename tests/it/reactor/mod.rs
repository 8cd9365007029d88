//! The loop: what it asks of the system, and what it does for and against its connections.

mod accept_errors;
mod account;
mod budget;
mod busy_polling;
mod calls;
mod connect;
mod datagrams;
mod echo;
// A poller without a descriptor cannot be watched by another.
#[cfg(not(mio_unsupported_force_poll_poll))]
mod embedded;
mod factory;
mod faults;
#[cfg(target_os = "linux")]
mod forged;
mod handshakes;
mod late_turns;
mod limits;
mod log_fields;
mod many_reports;
mod outbound_datagrams;
mod peers;
mod probes;
mod sessions;
mod shutdown;
mod targets;
#[cfg(not(mio_unsupported_force_poll_poll))]
mod turn;
#[cfg(target_os = "linux")]
mod undelivered;
