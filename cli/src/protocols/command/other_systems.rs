//! What Linux offers, as far as other systems have it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::{env, io};

use rustix::process::Pid;

/// Our own binary.
pub(super) fn own_binary() -> io::Result<PathBuf> {
    env::current_exe()
}

/// What a program can see of a process of the same user is up to the system here.
pub(super) fn hide_from_programs() -> io::Result<()> {
    Ok(())
}

/// Nothing ends a process here because its parent has been killed.
pub(super) fn bind_to_parent(_server: u64) -> io::Result<()> {
    Ok(())
}

/// There is no such descriptor here.
pub(super) fn exit_of(_child: Pid) -> Option<OwnedFd> {
    None
}
