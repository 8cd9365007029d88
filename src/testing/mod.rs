//! Tools for testing protocols: no socket, no thread, no sleeping.
//!
//! [`MemorySession`] runs a protocol under virtual time; [`SplitChecker`] shows that it gives the
//! same answers however its input is cut and however slowly its output is taken.

mod memory;
mod splits;

pub use memory::MemorySession;
pub use splits::SplitChecker;
