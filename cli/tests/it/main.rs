//! Tests of the built command, one module per theme.

#[path = "../../../tests/it/outside.rs"]
mod outside;
mod running;
mod scripts;
mod served;
mod sockets;
mod terminal;

#[cfg(target_os = "linux")]
mod addresses;
mod bench;
#[cfg(target_os = "linux")]
mod bench_kept;
#[cfg(target_os = "linux")]
mod bench_trouble;
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
mod dispositions;
mod faults;
mod fetch;
mod fetch_files;
mod foreign;
mod greet;
mod inherited;
mod limits;
mod lines;
mod listening;
mod logging;
#[cfg(target_os = "linux")]
mod memory;
mod models;
mod odd_input;

mod operator;
mod print;
mod protocols;
mod proxies;
mod races;

mod scenarios;
mod shutdown;
mod stuck;
mod timestamp;
mod told;
mod turns;
mod tutorials;
mod usage;
mod warnings;
