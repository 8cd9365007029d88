//! Tools for testing protocols without sockets, threads or sleeps.
//!
//! [`MemorySession`] runs one protocol under virtual time, and [`MemoryServer`] a factory with several.
//! [`SplitChecker`] checks that a protocol
//! gives the same answers however its input is cut and however slowly its output is taken.
//! [`Simulation`] runs a whole server on a simulated network whose faults are drawn from a seed. A
//! [`Replay`] runs [recorded](crate::service::recorder) connections through a protocol again.
//!
//! [`Identity`] and [`Scrambled`] are [layers](crate::layer) to run all of this through.
//!
//! A tool belongs here if users can test their own protocols with it. This room imports `models`
//! and what is below it. Nothing imports this room.

mod simulation;

mod layers;
mod memory;
mod memory_net;
mod memory_server;
mod replay;
mod splits;

pub use crate::testing::simulation::{
    Call, Exchange, Failure, Fate, Faults, Handle, Network, Report, Side, Simulation, Slip,
};
pub use layers::{Identity, Scrambled};
pub use memory::MemorySession;
pub use memory_net::{Client, Seen};
pub use memory_server::MemoryServer;
pub use replay::{Difference, Replay};
pub use splits::SplitChecker;
