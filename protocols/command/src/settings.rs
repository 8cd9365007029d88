//! The programs that a server runs for its clients, and their limits.

use std::io;
use std::time::Duration;

use crate::allowed::Allowed;
use crate::size::Size;
use crate::wire::Wire;

/// 100 years, a time that is never over. Longer ones could overflow an `Instant`.
pub(crate) const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The programs that a server runs for its clients, and their limits. By default nothing is allowed.
///
/// Each limit applies to one program, unless its documentation says otherwise.
///
/// ```
/// use serveloop_command::{Allowed, Settings, Wire};
/// use std::time::Duration;
///
/// let settings = Settings {
///     wire: Wire::Framed,
///     allowed: vec![Allowed::find("ls")?, Allowed::find("/bin/date")?],
///     timeout: Some(Duration::from_secs(5)),
///     ..Settings::default()
/// };
/// assert!(settings.validate().is_ok());
/// # Ok::<(), serveloop_command::AllowError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How requests and replies are sent.
    pub wire: Wire,
    /// The programs that clients may run.
    pub allowed: Vec<Allowed>,
    /// How long a program may run before all its processes get SIGTERM, or `None` for as long as its
    /// connection lasts. Default: 30 seconds.
    pub timeout: Option<Duration>,
    /// How long a program may take to end after SIGTERM. Then it gets SIGKILL. Default: 2 seconds.
    pub kill_after: Duration,
    /// The most bytes of output. A program that writes more is killed. At most
    /// [`MAX_OUTPUT_MOST`](Self::MAX_OUTPUT_MOST), default 1 MiB. The output of all programs that
    /// clients have not taken yet is limited by `max_buffered` of the server's `Config`.
    pub max_output: usize,
    /// The most programs that run at a time, for all connections together. At least 1, default 8.
    /// Each has a thread.
    pub max_running: usize,
    /// The most programs that wait for one of those to end, for all connections together. Beyond
    /// that, the reply is `[busy: ...]`. Default: 64.
    pub max_waiting: usize,
    /// The most processor time of each process of a program. Rounded up to whole seconds, at least
    /// 1. Default: 10 seconds.
    pub max_cpu_time: Duration,
    /// The longest file that a program may write, in bytes. Default: 16 MiB.
    pub max_file_size: u64,
    /// The most open descriptors of each process of a program. At least
    /// [`MAX_DESCRIPTORS_LEAST`](Self::MAX_DESCRIPTORS_LEAST), default 64.
    pub max_descriptors: u64,
    /// The longest request, in bytes. From 1 to [`MAX_REQUEST_MOST`](Self::MAX_REQUEST_MOST),
    /// default 8 KiB. Requests that `max_frame` of the server's `Config` does not allow end their
    /// connection, so that limit should be no lower.
    pub max_request: usize,
    /// How long a program may keep running after the end of its client's stream. Default: 1 second.
    pub grace_after_eof: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            wire: Wire::default(),
            allowed: Vec::new(),
            timeout: Some(Duration::from_secs(30)),
            kill_after: Duration::from_secs(2),
            max_output: 1 << 20,
            max_running: 8,
            max_waiting: 64,
            max_cpu_time: Duration::from_secs(10),
            max_file_size: 16 << 20,
            max_descriptors: 64,
            max_request: 8 << 10,
            grace_after_eof: Duration::from_secs(1),
        }
    }
}

impl Settings {
    /// The most output that can be allowed: 1 GiB. A reply's length must fit a signed integer of 4
    /// bytes, with room for the last line.
    pub const MAX_OUTPUT_MOST: usize = 1 << 30;

    /// The longest request that can be allowed: 128 MiB. Text in place of a length, even line ends,
    /// is a larger number and so refused.
    pub const MAX_REQUEST_MOST: usize = 128 << 20;

    /// The fewest descriptors of a program. Starting it takes one in addition to its standard three.
    pub const MAX_DESCRIPTORS_LEAST: u64 = 4;

    /// Checks that each limit is within its own.
    ///
    /// # Errors
    /// Fails with [`InvalidInput`](io::ErrorKind::InvalidInput), and names the field, if a limit is
    /// not.
    pub fn validate(&self) -> io::Result<()> {
        let (output, request) = (Size(Self::MAX_OUTPUT_MOST), Size(Self::MAX_REQUEST_MOST));
        let problem = if self.max_output > Self::MAX_OUTPUT_MOST {
            format!(
                "max_output must be at most {output}, and is {}",
                self.max_output
            )
        } else if self.max_request > Self::MAX_REQUEST_MOST {
            format!(
                "max_request must be at most {request}, and is {}",
                self.max_request
            )
        } else if self.max_request == 0 {
            "max_request must not be 0".to_owned()
        } else if self.max_running == 0 {
            "max_running must not be 0".to_owned()
        } else if self.max_cpu_time.is_zero() {
            "max_cpu_time must not be 0".to_owned()
        } else if self.max_descriptors < Self::MAX_DESCRIPTORS_LEAST {
            let least = Self::MAX_DESCRIPTORS_LEAST;
            format!(
                "max_descriptors must be at least {least}, and is {}",
                self.max_descriptors
            )
        } else {
            return Ok(());
        };

        Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
    }

    /// Returns the same settings with no time longer than [`NEVER`].
    pub(crate) fn with_times_that_end(self) -> Self {
        Self {
            timeout: self.timeout.map(|timeout| timeout.min(NEVER)),
            kill_after: self.kill_after.min(NEVER),
            grace_after_eof: self.grace_after_eof.min(NEVER),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_beyond_its_own_is_named() {
        type Change = fn(&mut Settings);

        let most = Settings {
            max_output: Settings::MAX_OUTPUT_MOST,
            max_request: Settings::MAX_REQUEST_MOST,
            max_descriptors: Settings::MAX_DESCRIPTORS_LEAST,
            max_running: 1,
            max_waiting: 0,
            ..Settings::default()
        };
        most.validate().unwrap();

        let mistakes: [(&str, Change); 6] = [
            ("max_output", |settings| settings.max_output += 1),
            ("max_request", |settings| settings.max_request += 1),
            ("max_request", |settings| settings.max_request = 0),
            ("max_running", |settings| settings.max_running = 0),
            ("max_cpu_time", |settings| {
                settings.max_cpu_time = Duration::ZERO
            }),
            ("max_descriptors", |settings| settings.max_descriptors -= 1),
        ];
        for (field, make) in mistakes {
            let mut settings = most.clone();
            make(&mut settings);
            let error = settings.validate().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }
}
