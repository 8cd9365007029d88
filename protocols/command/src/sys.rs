//! System calls that no safe function offers. All of them concern the process that becomes a
//! program.
#![expect(
    unsafe_code,
    reason = "calls of the C library, whose conditions the compiler cannot check"
)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::{fs, io, ptr};

use rustix::process::Resource;

/// The descriptors to check one by one where the system cannot list them: enough for a server, and
/// quick.
const DESCRIPTORS_MOST: c_int = 1 << 16;

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

/// Replaces this process with the program at `path`, whose arguments are `words`, the zeroth
/// included. Returns only on failure. Unlike the standard library's `exec`, it never falls back to
/// a shell for a file that the system cannot run.
pub(crate) fn execv(path: &CStr, words: &[CString]) -> io::Error {
    let pointers = words.iter().map(|word| word.as_ptr());
    let pointers: Vec<*const c_char> = pointers.chain([ptr::null()]).collect();
    // SAFETY: path and words end with a zero, their list ends with a null pointer, and all of them
    // live until the call returns.
    unsafe { libc::execv(path.as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Marks every open descriptor from `first` on to be closed when this process becomes another
/// program.
pub(crate) fn close_on_exec_from(first: c_int) {
    if !close_range_on_exec(first) {
        close_listed_on_exec(first);
    }
}

fn close_listed_on_exec(first: c_int) {
    // Without fdescfs, FreeBSD lists only descriptors up to standard error, so a list with nothing
    // from `first` on is not trusted.
    let listed = fs::read_dir("/dev/fd").map(|entries| {
        let names = entries.flatten().map(|entry| entry.file_name());
        let numbers = names.filter_map(|name| name.to_str()?.parse().ok());
        numbers.collect::<Vec<c_int>>()
    });

    match listed {
        Ok(listed) if listed.iter().any(|descriptor| *descriptor >= first) => {
            let others = listed.into_iter().filter(|descriptor| *descriptor >= first);
            others.for_each(close_on_exec);
        }
        _ => (first..DESCRIPTORS_MOST).for_each(close_on_exec),
    }
}

fn close_on_exec(descriptor: c_int) {
    // SAFETY: this changes a flag of the descriptor, or fails if it is not open.
    unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Returns false on Linux before 5.11. Makes the raw system call because only recent C libraries
/// have the function.
#[cfg(target_os = "linux")]
fn close_range_on_exec(first: c_int) -> bool {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: with this flag the call closes nothing. It only sets a flag of open descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, first, c_int::MAX, flags) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn close_range_on_exec(_: c_int) -> bool {
    false
}

/// Returns the highest limit on `resource` that this process may have, or `None` if there is none or
/// the system does not tell, as in some sandboxes. Unlike rustix's `getrlimit`, it never panics.
pub(crate) fn highest_limit(resource: Resource) -> Option<u64> {
    let resource = match resource {
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Cpu => libc::RLIMIT_CPU,
        Resource::Fsize => libc::RLIMIT_FSIZE,
        Resource::Nofile => libc::RLIMIT_NOFILE,
        _ => return None,
    };

    let mut found = MaybeUninit::<libc::rlimit>::zeroed();
    // SAFETY: the limits live for the call, which writes them.
    let outcome = unsafe { libc::getrlimit(resource, found.as_mut_ptr()) };
    // SAFETY: zeros are valid limits, and so is what the system wrote.
    let most = unsafe { found.assume_init() }.rlim_max;

    let is_known = outcome == 0 && most != libc::RLIM_INFINITY;
    is_known.then_some(number(most)?)
}

/// Converts a limit, whose type differs between systems.
fn number(limit: impl TryInto<u64>) -> Option<u64> {
    limit.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
    use rustix::process::{Rlimit, getrlimit};

    use super::*;

    /// Setting the flag on other tests' descriptors does no harm: the standard library opens all of
    /// its own with it.
    #[test]
    fn descriptors_are_closed_when_the_program_changes() {
        let files = [(); 2].map(|()| fs::File::open("/dev/null").unwrap());
        let [first, second] = &files;
        for close in [close_on_exec_from, close_listed_on_exec] {
            for file in &files {
                fcntl_setfd(file, FdFlags::empty()).unwrap();
            }

            let from = first.as_raw_fd().max(second.as_raw_fd());
            close(from);
            for file in &files {
                let is_closed = fcntl_getfd(file).unwrap() == FdFlags::CLOEXEC;
                assert_eq!(is_closed, file.as_raw_fd() >= from);
            }
        }
    }

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

    #[test]
    fn the_highest_limit_is_what_the_system_says() {
        for resource in [
            Resource::Core,
            Resource::Cpu,
            Resource::Fsize,
            Resource::Nofile,
        ] {
            let Rlimit { maximum, .. } = getrlimit(resource);
            assert_eq!(highest_limit(resource), maximum, "{resource:?}");
        }
    }
}
