//! A timer that interrupts one thread's system calls.
#![cfg_attr(
    target_os = "linux",
    expect(
        unsafe_code,
        reason = "what a call does with the memory it is given is beyond what the compiler can check"
    )
)]

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

#[cfg(target_os = "linux")]
use std::{ffi::c_int, mem::zeroed, ptr, sync::OnceLock};

/// The signal that [`Interrupts`] sends. Nothing else sends it.
#[cfg(target_os = "linux")]
const INTERRUPT: c_int = libc::SIGVTALRM;

/// Interrupts the calling thread repeatedly while this value lives, so that a system call that
/// waits ends with an error. The first interrupt may come before the call begins.
#[derive(Debug)]
pub(crate) struct Interrupts {
    #[cfg(target_os = "linux")]
    timer: libc::timer_t,
    /// Keeps this value on the thread that made it.
    _unsent: PhantomData<*const ()>,
}

impl Interrupts {
    /// # Errors
    /// The system has no timer left, or none for single threads.
    #[cfg(target_os = "linux")]
    pub(crate) fn every(interval: Duration) -> io::Result<Self> {
        catch_interrupts()?;
        unblock_interrupts()?;

        // SAFETY: zeros are a valid event and a valid timer, and both live for the calls.
        let (mut event, mut timer) = unsafe { (zeroed::<libc::sigevent>(), zeroed()) };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = INTERRUPT;
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        // SAFETY: as above.
        let made =
            unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        done(made)?;
        let interrupts = Self {
            timer,
            _unsent: PhantomData,
        };

        // SAFETY: zeros are valid times.
        let mut times = unsafe { zeroed::<libc::itimerspec>() };
        for time in [&mut times.it_interval, &mut times.it_value] {
            time.tv_sec = interval.as_secs() as _;
            time.tv_nsec = interval.subsec_nanos() as _;
        }
        // SAFETY: the timer was made above, and the times live for the call.
        done(unsafe { libc::timer_settime(timer, 0, &raw const times, ptr::null_mut()) })?;
        Ok(interrupts)
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn every(_: Duration) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
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
fn catch_interrupts() -> io::Result<()> {
    extern "C" fn nothing(_: c_int) {}
    static CAUGHT: OnceLock<bool> = OnceLock::new();

    let caught = CAUGHT.get_or_init(|| {
        // SAFETY: zeros are a valid action: no flags, so that interrupted calls are not restarted,
        // and no signal blocked. The handler does nothing.
        unsafe {
            let mut action = zeroed::<libc::sigaction>();
            action.sa_sigaction = nothing as *const () as libc::sighandler_t;
            libc::sigaction(INTERRUPT, &raw const action, ptr::null_mut()) == 0
        }
    });
    caught
        .then_some(())
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Unblocks [`INTERRUPT`] for this thread, because the process that started this one may have
/// blocked it.
#[cfg(target_os = "linux")]
fn unblock_interrupts() -> io::Result<()> {
    // SAFETY: the set is initialized as empty and lives for the calls.
    let error = unsafe {
        let mut these = zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut these);
        libc::sigaddset(&raw mut these, INTERRUPT);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const these, ptr::null_mut())
    };

    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(target_os = "linux")]
fn done(outcome: c_int) -> io::Result<()> {
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
