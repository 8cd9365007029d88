//! Tests of the built command, one module per theme.

mod running;
mod scripts;
mod served;
mod sockets;
mod terminal;

mod clients;
mod completions;
mod connect;
mod fetch;
mod limits;
mod listening;
mod logging;
mod models;
mod protocols;
mod shutdown;
mod turns;
mod usage;
