//! Tests of the built command, one module per theme.

mod served;
mod sockets;

mod bench;
mod clients;
mod limits;
mod listening;
mod logging;
mod models;
mod protocols;
mod shutdown;
mod usage;
