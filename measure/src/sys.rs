//! System calls that no safe function offers.
#![expect(
    unsafe_code,
    reason = "calls of the C library, whose conditions the compiler cannot check"
)]

#[cfg(target_os = "linux")]
use std::{mem::MaybeUninit, time::Duration};

/// The limits on a process's descriptors: `None` where there is no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptors {
    pub(crate) soft: Option<u64>,
    pub(crate) hard: Option<u64>,
}

impl Descriptors {
    /// Returns this process's limits, or `None` if the system does not tell, as in some sandboxes,
    /// where rustix's `getrlimit` panics.
    pub(crate) fn of_this() -> Option<Self> {
        let mut found = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the limits live for the call, which writes them.
        let outcome = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut found) };
        let limit = |limit| (limit != libc::RLIM_INFINITY).then_some(number(limit)?);
        (outcome == 0).then(|| Self {
            soft: limit(found.rlim_cur),
            hard: limit(found.rlim_max),
        })
    }
}

/// Returns the processor time of all threads of a process, including those that have ended. It has
/// nanosecond resolution, unlike /proc/PID/stat. Returns `None` if there is no such process.
#[cfg(target_os = "linux")]
pub(crate) fn processor_time(process: u32) -> Option<Duration> {
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
    (!failed).then(|| Duration::new(seconds, nanos))
}

/// Converts a limit, whose type differs between systems.
fn number(limit: impl TryInto<u64>) -> Option<u64> {
    limit.try_into().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process;
    use std::time::Instant;

    use super::*;

    #[test]
    fn processor_time_is_that_of_the_process() {
        let begun = Instant::now();
        while processor_time(process::id()).unwrap().is_zero() {
            assert!(begun.elapsed().as_secs() < 10);
        }
        assert_eq!(processor_time(u32::MAX), None);
        // One more than the highest process id.
        assert_eq!(processor_time((1 << 22) + 1), None);
    }
}
