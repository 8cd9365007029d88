//! The few things that only the C library offers: the one module with unsafe code.
#![expect(
    unsafe_code,
    reason = "calls into the C library that no dependency wraps"
)]

use std::io;

/// The soft and the hard limit of descriptors of this process.
pub(crate) fn descriptor_limits() -> io::Result<libc::rlimit> {
    let mut limits = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live, writable rlimit.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits) } {
        0 => Ok(limits),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the soft limit of descriptors to the hard limit.
pub(crate) fn raise_descriptor_limit() -> io::Result<()> {
    let mut limits = descriptor_limits()?;
    if limits.rlim_cur == limits.rlim_max {
        return Ok(());
    }
    limits.rlim_cur = limits.rlim_max;
    // SAFETY: the pointer is to a live, initialised rlimit.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The user whose permissions count for this process.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}
