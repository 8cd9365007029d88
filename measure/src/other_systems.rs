//! The counterpart of `linux.rs` for other systems. Nothing is pinned, and the processor time of a
//! server is not known. A server outlives the benchmark only if the benchmark is killed.

use std::time::Duration;
use std::{io, thread};

/// Returns one number for each available core. They do not identify real cores.
pub(crate) fn allowed_cores() -> io::Result<Vec<usize>> {
    let count = thread::available_parallelism().map_or(1, usize::from);
    Ok((0..count).collect())
}

/// Does nothing.
pub(crate) fn pin(_: &[usize]) -> io::Result<()> {
    Ok(())
}

/// Does nothing.
pub(crate) fn end_with_parent(_: Option<u32>) -> io::Result<()> {
    Ok(())
}

/// Returns `None`.
pub(crate) fn processor_time(_: u32) -> Option<Duration> {
    None
}
