//! Calls that only Linux offers.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, getppid, pidfd_open, set_dumpable_behavior,
    set_parent_process_death_signal,
};
use rustix::thread::set_no_new_privs;

/// Returns our own binary, even if its file has been replaced since we started.
pub(crate) fn own_binary() -> io::Result<PathBuf> {
    Ok(PathBuf::from("/proc/self/exe"))
}

/// Hides this process's environment, memory and descriptors in `/proc` from programs that run as
/// the same user, unless that user is root.
///
/// # Errors
/// Fails if the system refuses.
pub(crate) fn hide_from_programs() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Makes the system kill this process when the server's thread that started it ends, however it
/// ends. Also keeps the process from gaining privileges, which would undo that.
///
/// # Errors
/// Fails if the server has ended already, or the system refuses.
pub(crate) fn bind_to_parent(server: u64) -> io::Result<()> {
    set_no_new_privs(true)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = getppid().map(|parent| parent.as_raw_nonzero().get());
    if parent.and_then(|parent| u64::try_from(parent).ok()) != Some(server) {
        return Err(io::Error::other("the server has ended"));
    }
    Ok(())
}

/// Returns a descriptor that becomes readable when the child ends, or `None` if there is none, such
/// as on an old system.
pub(crate) fn exit_of(child: Pid) -> Option<OwnedFd> {
    pidfd_open(child, PidfdFlags::empty()).ok()
}
