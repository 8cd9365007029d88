//! Tests of the built command, one module per theme.

mod served;
mod sockets;

mod bench;
mod clients;
mod command;
mod command_clients;
mod command_ends;
mod command_injection;
mod command_limits;
mod crowd;
mod dispatch;
mod faults;
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
mod tutorials;
mod usage;
