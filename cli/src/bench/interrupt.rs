//! A signal ends the whole benchmark, with every server that it started; what was measured is kept.

use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use std::{io, thread};

use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use crate::interrupt::Leftover;
use crate::signals::{BY_SIGNAL, asks_to_end};
use crate::threads;

/// How long the orderly end may take. Servers end with this process, whatever ends it.
const GRACE: Duration = Duration::from_secs(5);

/// Notes the signals; whatever takes time asks it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    signal: Arc<AtomicUsize>,
    /// Whether a signal ends the process at once.
    released: Arc<AtomicBool>,
    leftover: Leftover,
}

impl Interrupt {
    /// Has the signals end the benchmark in order from now on, or after a moment in any case: it may
    /// be waiting for a terminal that is stopped. One that is ignored, as after `nohup`, stays
    /// ignored.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn catch() -> io::Result<Self> {
        let interrupt = Self::default();
        let ended_by = asks_to_end();

        // First the thread that ends a benchmark which waits: no signal may find only the flags.
        let mut signals = Signals::new(&ended_by)?;
        let leftover = interrupt.leftover.clone();
        let end = move || {
            if let Some(signal) = signals.forever().next() {
                thread::sleep(GRACE);
                leftover.remove();
                process::exit(BY_SIGNAL + signal);
            }
        };
        // Without the thread the signals still end the benchmark, unless it waits for a terminal.
        let _ = threads::spawn("signals", end);

        for &signal in &ended_by {
            // One without a name is always noted first.
            if low_level::signal_name(signal).is_some() {
                flag::register_conditional_default(signal, Arc::clone(&interrupt.released))?;
            }
            let number = usize::try_from(signal).unwrap_or(0);
            flag::register_usize(signal, Arc::clone(&interrupt.signal), number)?;
        }
        Ok(interrupt)
    }

    /// What must not be left behind when a signal cuts the orderly end short.
    pub(crate) fn leftover(&self) -> &Leftover {
        &self.leftover
    }

    /// Lets signals end the process at once from now on: only output that may wait for its reader
    /// is left to do.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
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
        let status = u8::try_from(BY_SIGNAL + self.signal()?).ok()?;
        Some(ExitCode::from(status))
    }

    /// Which signal came, in words.
    pub(crate) fn reason(&self) -> Option<String> {
        let signal = self.signal()?;
        let name = low_level::signal_name(signal).map(str::to_owned);
        let name = name.unwrap_or_else(|| format!("signal {signal}"));
        Some(format!("ended by {name}"))
    }

    fn signal(&self) -> Option<i32> {
        let signal = i32::try_from(self.signal.load(Ordering::Relaxed)).ok()?;
        (signal > 0).then_some(signal)
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
        assert_eq!(interrupt.reason(), None);
        interrupt.signal.store(2, Ordering::Relaxed);
        let error = interrupt.check().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert_eq!(interrupt.exit_code(), Some(ExitCode::from(130)));
        assert_eq!(interrupt.reason().as_deref(), Some("ended by SIGINT"));
    }
}
