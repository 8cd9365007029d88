//! In place of `linux.rs`: nothing is pinned, and what a server costs is not known. A server ends
//! with the benchmark unless that is killed.

use std::time::Duration;
use std::{io, thread};

/// The numbers are only counted.
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

/// Not known.
pub(crate) fn processor_time(_: u32) -> Option<Duration> {
    None
}
