//! The budget of log lines that a server and its processes have together.
//!
//! What a process counts in its memory the others do not see, so the count is kept in what they all
//! have from their parent: a pipe with a byte for each line of this second, and two counters of the
//! system's. None of it ever waits, and a process that is killed takes at most its one byte along.

use std::io;
use std::sync::OnceLock;

/// The tokens of this process and of those that it forks, once they have them together.
static SHARED: OnceLock<SharedLogBudget> = OnceLock::new();

/// Has this process and those that it forks share one budget of `lines` in a second.
///
/// # Errors
/// The system has no descriptors for it.
pub(crate) fn share(lines: u32) -> io::Result<()> {
    if SHARED.get().is_none() {
        let shared_log_budget = SharedLogBudget::new(lines)?;
        SHARED.get_or_init(|| shared_log_budget);
    }
    Ok(())
}

/// The budget that several processes share; `None` if this process has one of its own.
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
        /// A byte for each line that may still be written this second, and where they come from.
        left: OwnedFd,
        refill: OwnedFd,
        /// Counts the lines that were left out.
        left_out: OwnedFd,
        /// Tells one process that a new second has begun: whichever reads it first.
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

        /// Asks for a line, and counts it as left out if it may not be written.
        pub(crate) fn spend(&self) -> bool {
            if read(&self.second, &mut [0; 8]).is_ok() {
                self.fill_up();
            }
            let spent = read(&self.left, &mut [0; 1]).is_ok_and(|count| count == 1);
            if !spent {
                // Nothing is lost but the count, when it is beyond what eight bytes hold.
                let _ = write(&self.left_out, &1_u64.to_ne_bytes());
            }
            spent
        }

        /// How many were left out since the last call, by all processes.
        pub(crate) fn take_left_out(&self) -> u64 {
            let mut count = [0; 8];
            match read(&self.left_out, &mut count) {
                Ok(8) => u64::from_ne_bytes(count),
                _ => 0,
            }
        }

        /// Makes the tokens as many as a second has. What is taken meanwhile is not replaced.
        fn fill_up(&self) {
            let left = ioctl_fionread(&self.left).unwrap_or_else(|_| self.lines.into());
            let missing = u64::from(self.lines).saturating_sub(left);
            let missing = usize::try_from(missing).unwrap_or_default();
            // A pipe has room for thousands.
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

/// Where the system offers no such thing, each process has a budget of its own.
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
