//! Tests of the built command, one module per theme.

mod served;
mod sockets;

mod clients;
mod limits;
mod listening;
mod logging;
mod models;
mod protocols;
mod scenarios;
mod shutdown;
mod usage;
