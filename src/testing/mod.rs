//! Tools for testing protocols: no socket, no thread, no sleeping.
//!
//! [`MemorySession`] runs a protocol under virtual time; [`SplitChecker`] shows that it gives the
//! same answers however its input is cut and however slowly its output is taken; [`Simulation`] runs
//! a whole server under a network that fails in every way a seed can think of.
//!
//! A tool comes in here if users can test their own protocols with it. This room imports `reactor` and
//! what is below it; nothing imports this room.

mod simulation;

mod memory;
mod splits;

pub use crate::testing::simulation::{
    Call, Exchange, Failure, Faults, Handle, Network, Report, Simulation, Slip,
};
pub use memory::MemorySession;
pub use splits::SplitChecker;
