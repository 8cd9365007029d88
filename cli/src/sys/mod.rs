//! System calls that no safe function offers.
#![expect(
    unsafe_code,
    reason = "calls of the C library, whose conditions the compiler cannot check"
)]

mod timer;

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

/// Returns the processor time of all threads of a process, including those that have ended. It has
/// nanosecond resolution, unlike /proc/PID/stat. Returns `None` if there is no such process.
#[cfg(target_os = "linux")]
pub(crate) fn processor_time(process: u32) -> Option<std::time::Duration> {
    let process = libc::pid_t::try_from(process).ok()?;
    let mut clock = MaybeUninit::zeroed();
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the first call writes the clock that the second one reads, and the second runs only
    // if the first succeeds.
    let failed = unsafe {
        libc::clock_getcpuclockid(process, clock.as_mut_ptr()) != 0
            || libc::clock_gettime(clock.assume_init(), time.as_mut_ptr()) != 0
    };
    // SAFETY: zeros are a valid time, and so is what the system wrote.
    let time = unsafe { time.assume_init() };

    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanos = u32::try_from(time.tv_nsec).ok()?;
    (!failed).then(|| std::time::Duration::new(seconds, nanos))
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

    #[cfg(target_os = "linux")]
    #[test]
    fn processor_time_is_that_of_the_process() {
        let begun = std::time::Instant::now();
        while processor_time(std::process::id()).unwrap().is_zero() {
            assert!(begun.elapsed().as_secs() < 10);
        }
        assert_eq!(processor_time(u32::MAX), None);
        // One more than the highest process id.
        assert_eq!(processor_time((1 << 22) + 1), None);
    }
}
