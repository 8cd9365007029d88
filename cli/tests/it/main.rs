//! Tests of the built command, one module per theme.

mod running;
mod scripts;
mod served;
mod sockets;
mod terminal;

#[cfg(target_os = "linux")]
mod addresses;
mod bench;
mod clients;
mod command;
mod command_clients;
mod command_ends;
mod command_injection;
mod command_limits;
mod completions;
mod connect;
mod crowd;
mod dispatch;
mod faults;
mod fetch;
mod fetch_files;
mod greet;
mod limits;
mod listening;
mod logging;
mod models;
mod operator;
mod print;
mod protocols;
mod scenarios;
mod shutdown;
mod timestamp;
mod turns;
mod tutorials;
mod usage;
