//! Signal handling: a signal ends the whole benchmark with every server that it started, but keeps
//! what was measured.

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

/// How long an orderly end may take. Servers end with this process, however it ends.
const GRACE: Duration = Duration::from_secs(5);

/// Records signals. Everything that takes time checks it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    signal: Arc<AtomicUsize>,
    /// Whether a signal now ends the process at once.
    released: Arc<AtomicBool>,
    leftover: Leftover,
}

impl Interrupt {
    /// Catches the signals that ask a program to end. From now on, they end the benchmark in order,
    /// or after a grace period in any case, since it may be waiting for a stopped terminal. A
    /// signal that is ignored, as after `nohup`, stays ignored.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub(crate) fn catch() -> io::Result<Self> {
        let interrupt = Self::default();
        let ended_by = asks_to_end();

        // Start the thread that ends a waiting benchmark first, so that no signal finds only the
        // flags.
        let mut signals = Signals::new(&ended_by)?;
        let leftover = interrupt.leftover.clone();
        let end = move || {
            if let Some(signal) = signals.forever().next() {
                thread::sleep(GRACE);
                leftover.remove();
                process::exit(BY_SIGNAL + signal);
            }
        };
        // Without the thread, signals still end the benchmark unless it is waiting for a terminal.
        let _ = threads::spawn("signals", end);

        for &signal in &ended_by {
            // A signal without a name never ends the process at once. It is recorded first.
            if low_level::signal_name(signal).is_some() {
                flag::register_conditional_default(signal, Arc::clone(&interrupt.released))?;
            }
            let number = usize::try_from(signal).unwrap_or(0);
            flag::register_usize(signal, Arc::clone(&interrupt.signal), number)?;
        }
        Ok(interrupt)
    }

    /// Returns the files to remove when a signal cuts the orderly end short.
    pub(crate) fn leftover(&self) -> &Leftover {
        &self.leftover
    }

    /// Makes signals end the process at once from now on. Use it when only output that may wait for
    /// its reader is left.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }

    /// # Errors
    /// Returns `Interrupted` after a signal.
    #[inline]
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    /// Returns the exit status after a signal, or `None` if none came.
    pub(crate) fn exit_code(&self) -> Option<ExitCode> {
        let status = u8::try_from(BY_SIGNAL + self.signal()?).ok()?;
        Some(ExitCode::from(status))
    }

    /// Returns the signal that came, as text.
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

impl serveloop_measure::Interrupt for Interrupt {
    fn check(&self) -> io::Result<()> {
        Self::check(self)
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
