//! A process that is forked from this one before it has threads.

use std::{io, mem, ptr};

/// A process that was forked, and that has not been waited for.
#[derive(Debug)]
pub(crate) struct Apart(libc::pid_t);

impl Apart {
    /// Forks. Returns `None` in the new process, after `prepare` has run there, which no signal
    /// interrupts.
    ///
    /// This process may have one thread only: the new one would inherit the locks of others.
    ///
    /// # Errors
    /// The system has no room for another process.
    pub(crate) fn fork(prepare: impl FnOnce()) -> io::Result<Option<Self>> {
        let before = block_signals();
        // SAFETY: the caller promises that this is the only thread, so the new process can go on like any.
        let outcome = match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                prepare();
                Ok(None)
            }
            process => Ok(Some(Self(process))),
        };
        // SAFETY: the set was filled by `block_signals`, and no former set is asked for.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &before, ptr::null_mut()) };
        outcome
    }

    /// Returns whether the process has ended. Must not be called again after that.
    pub(crate) fn has_ended(&self) -> bool {
        // SAFETY: no status is asked for, and the number is our process's until it is waited for.
        unsafe { libc::waitpid(self.0, ptr::null_mut(), libc::WNOHANG) != 0 }
    }

    /// Ends the process at once, and waits for that.
    pub(crate) fn kill(&self) {
        // SAFETY: the calls take plain numbers, and the number is our process's until it is waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, ptr::null_mut(), 0);
        }
    }
}

/// Blocks all signals. Returns those that were blocked before.
fn block_signals() -> libc::sigset_t {
    // SAFETY: zeros are a valid set, and each call has room for the sets that it reads and writes.
    unsafe {
        let (mut all, mut before) = (mem::zeroed(), mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, &raw mut before);
        before
    }
}
