//! Substitutes for the calls that only Linux offers.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::{env, io};

use rustix::process::Pid;

/// Returns our own binary.
pub(super) fn own_binary() -> io::Result<PathBuf> {
    env::current_exe()
}

/// Does nothing. The system decides what a program sees of a process of the same user.
pub(super) fn hide_from_programs() -> io::Result<()> {
    Ok(())
}

/// Does nothing. The system cannot end a process because its parent was killed.
pub(super) fn bind_to_parent(_server: u64) -> io::Result<()> {
    Ok(())
}

/// Returns `None`, because the system has no such descriptor.
pub(super) fn exit_of(_child: Pid) -> Option<OwnedFd> {
    None
}
