//! What only the C library offers: timers of single threads, and one heap for all threads.
#![expect(
    unsafe_code,
    reason = "what a call does with the memory it is given is beyond what the compiler can check"
)]

use std::marker::PhantomData;
use std::time::Duration;

use nix::errno::Errno;

#[cfg(target_os = "linux")]
use std::{ffi::c_int, mem::zeroed, ptr, sync::OnceLock};

#[cfg(target_os = "linux")]
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
#[cfg(target_os = "linux")]
use nix::sys::time::TimeSpec;

/// What [`Interrupts`] send, as nobody else does.
#[cfg(target_os = "linux")]
const INTERRUPT: Signal = Signal::SIGVTALRM;

/// Interrupts the calling thread again and again while this lives, so that a system call of it that
/// waits ends with an error. The first interrupt may come before the call does.
#[derive(Debug)]
pub(crate) struct Interrupts {
    #[cfg(target_os = "linux")]
    timer: libc::timer_t,
    /// It is the thread's that made it.
    _unsent: PhantomData<*const ()>,
}

impl Interrupts {
    /// # Errors
    /// The system has no timer left, or none for single threads.
    #[cfg(target_os = "linux")]
    pub(crate) fn every(interval: Duration) -> nix::Result<Self> {
        catch_interrupts()?;
        // What started us may have blocked it.
        SigSet::from(INTERRUPT).thread_unblock()?;
        // SAFETY: zeros are a valid event and a valid timer; both live for the calls.
        let (mut event, mut timer) = unsafe { (zeroed::<libc::sigevent>(), zeroed()) };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = INTERRUPT as c_int;
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        // SAFETY: as above.
        let made =
            unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        Errno::result(made)?;
        let interrupts = Self {
            timer,
            _unsent: PhantomData,
        };

        let interval = *TimeSpec::from_duration(interval).as_ref();
        let times = libc::itimerspec {
            it_interval: interval,
            it_value: interval,
        };
        // SAFETY: the timer was made above, and the times live for the call.
        let set = unsafe { libc::timer_settime(timer, 0, &raw const times, ptr::null_mut()) };
        Errno::result(set)?;
        Ok(interrupts)
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn every(_: Duration) -> nix::Result<Self> {
        Err(Errno::ENOTSUP)
    }
}

#[cfg(target_os = "linux")]
impl Drop for Interrupts {
    fn drop(&mut self) {
        // SAFETY: the timer was made with this value, and is deleted once.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// Catches [`INTERRUPT`] from the first call on.
#[cfg(target_os = "linux")]
fn catch_interrupts() -> nix::Result<()> {
    extern "C" fn nothing(_: c_int) {}
    static CAUGHT: OnceLock<nix::Result<()>> = OnceLock::new();
    *CAUGHT.get_or_init(|| {
        let handler = SigHandler::Handler(nothing);
        // Without a flag, so that calls are not begun again.
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(INTERRUPT, &action) }.map(drop)
    })
}

/// Has threads share one heap. Otherwise each reserves 64 MiB of addresses for its own.
pub(crate) fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call sets a number. Without it the heaps are as they were.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}
