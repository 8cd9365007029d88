//! What only Linux offers, or each system in a way of its own: cores, the end of the parent, the
//! processor time of a process. `elsewhere.rs` has the same functions for other systems.

use std::io;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

pub(crate) use crate::sys::processor_time;

/// The cores that this thread may use.
///
/// # Errors
/// The system does not say.
pub(crate) fn allowed_cores() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None::<Pid>)?;
    let cores = 0..CpuSet::MAX_CPU;
    Ok(cores.filter(|core| allowed.is_set(*core)).collect())
}

/// Puts this thread, and those that it starts, on these cores.
///
/// # Errors
/// There is none of them.
pub(crate) fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    let possible = |core: &&usize| **core < CpuSet::MAX_CPU;
    let possible = cores.iter().filter(possible);
    possible.for_each(|core| set.set(*core));
    sched_setaffinity(None::<Pid>, &set)?;
    Ok(())
}

/// Has this process killed when its parent ends. The parent has to be `expected`, if that is given.
///
/// # Errors
/// The parent has ended already.
pub(crate) fn end_with_parent(expected: Option<u32>) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before we asked to be told.
    let found = getppid().map_or(0, |found| found.as_raw_pid().unsigned_abs());
    match expected {
        Some(expected) if expected != found => Err(io::Error::other("the benchmark has ended")),
        _ => Ok(()),
    }
}
