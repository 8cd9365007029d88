//! Tests of the built command, one module per theme.

mod served;
mod sockets;

mod clients;
mod command;
mod command_clients;
mod command_ends;
mod command_injection;
mod command_limits;
mod limits;
mod listening;
mod logging;
mod models;
mod protocols;
mod shutdown;
mod usage;
