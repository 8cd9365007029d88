//! The budget of log lines that a server and its forked processes share.
//!
//! Processes do not see each other's memory, so the count lives in descriptors that they all
//! inherit: a pipe with one byte for each line left this second, an event counter and a timer. No
//! operation waits, and a process that is killed takes at most one byte with it.

use std::io;
use std::sync::OnceLock;

/// The budget of this process and of those that it forks, once they share one.
static SHARED: OnceLock<SharedLogBudget> = OnceLock::new();

/// Makes this process and those that it forks share one budget of `lines` per second.
///
/// # Errors
/// Fails if the system has no descriptors left, or does not offer what this takes.
pub(crate) fn share_log_budget(lines: u32) -> io::Result<()> {
    if SHARED.get().is_none() {
        let shared_log_budget = SharedLogBudget::new(lines)?;
        SHARED.get_or_init(|| shared_log_budget);
    }
    Ok(())
}

/// Returns the budget that several processes share, or `None` if this process has its own.
pub(crate) fn shared() -> Option<&'static SharedLogBudget> {
    SHARED.get()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::SharedLogBudget;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::{ioctl_fionread, read, write};
    use rustix::pipe::{PipeFlags, pipe_with};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };

    const SECOND: Timespec = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };

    #[derive(Debug)]
    pub(crate) struct SharedLogBudget {
        lines: u32,
        /// The pipe's read end. Holds one byte for each line that may still be written this second.
        left: OwnedFd,
        /// The pipe's write end.
        refill: OwnedFd,
        /// Counts the lines that were left out.
        left_out: OwnedFd,
        /// A timer that tells one process of each new second: the first that reads it.
        second: OwnedFd,
    }

    impl SharedLogBudget {
        pub(super) fn new(lines: u32) -> io::Result<Self> {
            let (left, refill) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            let left_out = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
            let second = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            let spec = Itimerspec {
                it_interval: SECOND,
                it_value: SECOND,
            };
            timerfd_settime(&second, TimerfdTimerFlags::empty(), &spec)?;

            let shared_log_budget = Self {
                lines,
                left,
                refill,
                left_out,
                second,
            };
            shared_log_budget.fill_up();
            Ok(shared_log_budget)
        }

        /// Takes one line. Returns false and counts it as left out if the budget is spent.
        pub(crate) fn spend(&self) -> bool {
            if read(&self.second, &mut [0; 8]).is_ok() {
                self.fill_up();
            }
            let spent = read(&self.left, &mut [0; 1]).is_ok_and(|count| count == 1);
            if !spent {
                // This fails only when the count would overflow, and loses only the count.
                let _ = write(&self.left_out, &1_u64.to_ne_bytes());
            }
            spent
        }

        /// Returns the number of lines that all processes left out since the last call.
        pub(crate) fn take_left_out(&self) -> u64 {
            let mut count = [0; 8];
            match read(&self.left_out, &mut count) {
                Ok(8) => u64::from_ne_bytes(count),
                _ => 0,
            }
        }

        /// Refills the pipe to one byte for each line of a second. Bytes that are taken meanwhile
        /// are not replaced.
        fn fill_up(&self) {
            let left = ioctl_fionread(&self.left).unwrap_or_else(|_| self.lines.into());
            let missing = u64::from(self.lines).saturating_sub(left);
            let missing = usize::try_from(missing).unwrap_or_default();
            // A pipe has room for thousands of bytes.
            let _ = write(&self.refill, &vec![0; missing]);
        }
    }

    #[cfg(test)]
    mod tests {
        use std::time::{Duration, Instant};

        use super::*;

        #[test]
        fn a_second_has_so_many_lines_and_the_next_as_many() {
            let shared_log_budget = SharedLogBudget::new(10).expect("descriptors");
            let begin = Instant::now();
            let mut spent = 0;
            let mut asked = 0;
            while begin.elapsed() < Duration::from_millis(1_500) {
                spent += u64::from(shared_log_budget.spend());
                asked += 1;
            }

            assert_eq!(spent, 20);
            assert_eq!(shared_log_budget.take_left_out(), asked - spent);
            assert_eq!(shared_log_budget.take_left_out(), 0);
        }
    }
}

/// Replaces the shared budget where the system does not offer it. Each process then has its own.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[derive(Debug)]
pub(crate) struct SharedLogBudget(std::convert::Infallible);

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl SharedLogBudget {
    fn new(_: u32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn spend(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn take_left_out(&self) -> u64 {
        match self.0 {}
    }
}
