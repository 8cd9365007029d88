//! Ctrl-C ends the whole benchmark, with every server that it started.

use std::io;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::signals::BY_SIGNAL;

/// How long the orderly end may take. Servers end with this process, whatever ends it.
const GRACE: Duration = Duration::from_secs(5);

/// Notes the signals; whatever takes time asks it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Has the signals end the benchmark in order, or after a moment in any case: it may be waiting
    /// for a terminal that is stopped.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn catch() -> io::Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            let number = usize::try_from(signal).unwrap_or(0);
            flag::register_usize(signal, Arc::clone(&interrupt.signal), number)?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let end = move || {
            if let Some(signal) = signals.forever().next() {
                thread::sleep(GRACE);
                process::exit(BY_SIGNAL + signal);
            }
        };
        thread::Builder::new().spawn(end)?;
        Ok(interrupt)
    }

    /// # Errors
    /// `Interrupted` after a signal.
    #[inline]
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    /// The exit status after a signal.
    pub(crate) fn exit_code(&self) -> Option<ExitCode> {
        let signal = i32::try_from(self.signal.load(Ordering::Relaxed)).ok()?;
        let status = u8::try_from(BY_SIGNAL + signal).ok()?;
        (signal > 0).then(|| ExitCode::from(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_an_error_from_then_on() {
        let interrupt = Interrupt::default();
        interrupt.check().unwrap();
        assert_eq!(interrupt.exit_code(), None);
        interrupt.signal.store(2, Ordering::Relaxed);
        let error = interrupt.check().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert_eq!(interrupt.exit_code(), Some(ExitCode::from(130)));
    }
}
