//! Substitutes for the calls that only Linux offers.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::{env, io};

use rustix::process::Pid;

/// Returns our own binary.
pub(crate) fn own_binary() -> io::Result<PathBuf> {
    env::current_exe()
}

/// Does nothing. The system decides what a program sees of a process of the same user.
pub(crate) fn hide_from_programs() -> io::Result<()> {
    Ok(())
}

/// Does nothing. The system cannot end a process because its parent was killed.
pub(crate) fn bind_to_parent(_server: u64) -> io::Result<()> {
    Ok(())
}

/// Returns `None`, because the system has no such descriptor.
pub(crate) fn exit_of(_child: Pid) -> Option<OwnedFd> {
    None
}
