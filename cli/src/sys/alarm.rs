//! The process's alarm clock.
#![expect(
    unsafe_code,
    reason = "what a call does with the memory it is given is beyond what the compiler can check"
)]

use std::ffi::c_int;
use std::ptr;
use std::time::Duration;

/// The timer of real time, which has this number on every system.
const REAL: c_int = 0;

/// Makes the system send SIGALRM to this process once, after this time. A signal handler may call it.
/// Returns whether the system does so.
pub(crate) fn set_alarm(after: Duration) -> bool {
    let timer = libc::itimerval {
        it_interval: libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        },
        it_value: libc::timeval {
            tv_sec: after.as_secs().min(i32::MAX as u64) as _,
            tv_usec: after.subsec_micros().max(1) as _,
        },
    };
    // SAFETY: the timer lives for the call, and the former one is not requested.
    unsafe { libc::setitimer(REAL as _, &raw const timer, ptr::null_mut()) == 0 }
}
