//! Facilities that only Linux has, or that differ between systems: cores, the death of the parent,
//! and the processor time of a process. `other_systems.rs` has the same functions for other
//! systems.

use std::io;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

pub(crate) use crate::sys::processor_time;

/// Returns the cores that this thread may use.
///
/// # Errors
/// Fails if the system does not report them.
pub(crate) fn allowed_cores() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None::<Pid>)?;
    let cores = 0..CpuSet::MAX_CPU;
    Ok(cores.filter(|core| allowed.is_set(*core)).collect())
}

/// Pins this thread, and the threads and processes that it starts later, to these cores.
///
/// # Errors
/// Fails if none of the cores can be used.
pub(crate) fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    let possible = |core: &&usize| **core < CpuSet::MAX_CPU;
    let possible = cores.iter().filter(possible);
    possible.for_each(|core| set.set(*core));
    sched_setaffinity(None::<Pid>, &set)?;
    Ok(())
}

/// Makes the system kill this process when its parent ends. The parent must be `expected`, if that
/// is given.
///
/// # Errors
/// Fails if the expected parent has already ended.
pub(crate) fn end_with_parent(expected: Option<u32>) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before the request.
    let found = getppid().map_or(0, |found| found.as_raw_pid().unsigned_abs());
    match expected {
        Some(expected) if expected != found => Err(io::Error::other("the benchmark has ended")),
        _ => Ok(()),
    }
}
