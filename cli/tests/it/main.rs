//! Tests of the built command, one module per theme.

mod served;
mod sockets;

mod clients;
mod dispatch;
mod greet;
mod limits;
mod listening;
mod logging;
mod models;
mod operator;
mod print;
mod protocols;
mod shutdown;
mod timestamp;
mod usage;
