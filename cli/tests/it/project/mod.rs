//! The command as a whole: its command lines and addresses, clients that others wrote, and the table of
//! docs/RELIABILITY.md.

mod addresses;
mod clients;
mod documents;
mod faults;
mod packaging;
mod scenarios;
mod tutorials;
mod usage;
