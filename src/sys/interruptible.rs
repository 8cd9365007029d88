//! Threads whose blocking system calls another thread can end.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::sys::INTERRUPT;
use crate::waker::sync::lock;

/// How soon to repeat an interrupt. One that arrives between two system calls has no effect.
pub(crate) const INTERRUPT_AGAIN: Duration = Duration::from_millis(10);

/// How many times to interrupt a session that a monitor ends. It looks for that before each call that
/// waits, so only an interrupt in between can be missed.
pub(crate) const INTERRUPTS_MOST: u32 = 20;

/// A thread that can be interrupted during a piece of work.
#[derive(Debug, Default)]
pub(crate) struct Interruptible {
    /// The thread as a number, since some systems use a pointer, which could not be shared.
    thread: Mutex<Option<usize>>,
}

impl Interruptible {
    /// Runs `work`, during which this thread can be interrupted.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        // SAFETY: pthread_self has no arguments and cannot fail.
        *self.thread() = Some(unsafe { libc::pthread_self() } as usize);
        let _over = Over(self);
        work()
    }

    /// Ends the blocking system call that the thread is in, if any.
    pub(crate) fn interrupt(&self) {
        if let Some(thread) = *self.thread() {
            // SAFETY: the thread is still in `run`, which takes this lock before it returns.
            unsafe { libc::pthread_kill(thread as libc::pthread_t, INTERRUPT) };
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<usize>> {
        lock(&self.thread)
    }
}

struct Over<'a>(&'a Interruptible);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        *self.0.thread() = None;
    }
}
