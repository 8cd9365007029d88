//! The tools for tests.

mod memory;
mod memory_server;
mod replay;
