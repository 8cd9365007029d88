//! System calls that no safe function offers.
#![expect(
    unsafe_code,
    reason = "calls of the C library, whose conditions the compiler cannot check"
)]

mod alarm;
mod apart;
mod passed;
mod timer;

pub(crate) use self::alarm::set_alarm;
pub(crate) use self::apart::Apart;
pub(crate) use self::passed::{pass_on, take_descriptor, take_socket, take_variable};
pub(crate) use self::timer::Interrupts;

use std::mem::{self, MaybeUninit};
use std::{io, ptr};

use rustix::process::{Resource, Rlimit};

/// Unblocks every signal for this thread, and so for the threads and programs that it starts later.
///
/// # Errors
/// Fails if the system refuses.
pub(crate) fn unblock_signals() -> io::Result<()> {
    let mut none = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the first call writes the set that the second one reads. Neither adds a handler.
    let error = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut())
    };

    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    Ok(())
}

/// Makes all threads share one heap. Otherwise glibc reserves 64 MiB of addresses for each thread's
/// own.
pub(crate) fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call sets a number. If it fails, the heaps stay as they were.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// Returns this process's limits on `resource`. Returns `None` if the system does not tell, as in
/// some sandboxes, or for a resource that is not listed here. Unlike rustix's `getrlimit`, it never
/// panics.
pub(crate) fn limits(resource: Resource) -> Option<Rlimit> {
    // SAFETY: zeros are valid limits.
    let mut found = unsafe { mem::zeroed::<libc::rlimit>() };
    let to = &raw mut found;
    // SAFETY: the limits live for the call, which writes them.
    let outcome = unsafe {
        match resource {
            Resource::As => libc::getrlimit(libc::RLIMIT_AS, to),
            Resource::Data => libc::getrlimit(libc::RLIMIT_DATA, to),
            Resource::Nofile => libc::getrlimit(libc::RLIMIT_NOFILE, to),
            _ => return None,
        }
    };

    let limit = |limit| (limit != libc::RLIM_INFINITY).then_some(number(limit)?);
    (outcome == 0).then(|| Rlimit {
        current: limit(found.rlim_cur),
        maximum: limit(found.rlim_max),
    })
}

/// Converts a limit, whose type differs between systems.
fn number(limit: impl TryInto<u64>) -> Option<u64> {
    limit.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn no_signal_stays_blocked() {
        let status = || fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let mut one = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: the set is made before it is read, and only this thread's mask changes.
        unsafe {
            libc::sigemptyset(one.as_mut_ptr());
            libc::sigaddset(one.as_mut_ptr(), libc::SIGUSR1);
            libc::pthread_sigmask(libc::SIG_BLOCK, one.as_ptr(), ptr::null_mut());
        }

        let mask = || {
            status()
                .lines()
                .find(|line| line.starts_with("SigBlk"))
                .map(str::to_owned)
        };
        let before = mask();

        unblock_signals().unwrap();
        if cfg!(target_os = "linux") {
            assert_ne!(before, mask());
            assert!(mask().unwrap().ends_with("0000000000000000"));
        }
    }
}
