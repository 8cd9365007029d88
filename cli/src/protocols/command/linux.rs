//! What only Linux offers.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, getppid, pidfd_open, set_dumpable_behavior,
    set_parent_process_death_signal,
};
use rustix::thread::set_no_new_privs;

/// Our own binary, also when the file has been replaced by a newer one since we started.
pub(super) fn own_binary() -> io::Result<PathBuf> {
    Ok(PathBuf::from("/proc/self/exe"))
}

/// Keeps this process's environment, memory and descriptors from programs that run as the same user
/// and look into `/proc`, unless that user is root.
///
/// # Errors
/// The system refuses.
pub(super) fn hide_from_programs() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Has this process killed when the thread of the server that started it ends, however it ends, and
/// keeps it from gaining rights, by which it could get out of that.
///
/// # Errors
/// The server has ended already.
pub(super) fn bind_to_parent(server: u64) -> io::Result<()> {
    set_no_new_privs(true)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = getppid().map(|parent| parent.as_raw_nonzero().get());
    if parent.and_then(|parent| u64::try_from(parent).ok()) != Some(server) {
        return Err(io::Error::other("the server has ended"));
    }
    Ok(())
}

/// A descriptor that becomes readable when a child of ours has ended; none where the system is too
/// old for it.
pub(super) fn exit_of(child: Pid) -> Option<OwnedFd> {
    pidfd_open(child, PidfdFlags::empty()).ok()
}
