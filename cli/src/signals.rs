//! SIGINT and SIGTERM: the first drains, the second ends everything.
#![expect(
    unsafe_code,
    reason = "what runs in a signal handler is beyond what the compiler can check"
)]

use std::ffi::c_int;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use serveloop::ShutdownHandle;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level;

/// The shell's exit status for a process that a signal ended is this more than its number.
pub(crate) const BY_SIGNAL: i32 = 128;

/// Catches the signals from now on, and passes them on to a server as soon as there is one.
#[derive(Debug)]
pub(crate) struct Signals {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    server: OnceLock<ShutdownHandle>,
    /// Signals that the server was not told of yet.
    untold: AtomicUsize,
    last: AtomicI32,
}

impl Signals {
    /// Takes the signals over, before the first socket is bound: one that comes in between must not
    /// leave a socket's file behind.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn catch() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        for signal in [SIGINT, SIGTERM] {
            let shared = Arc::clone(&shared);
            // SAFETY: the action only uses atomics, looks into a OnceLock, which does not wait, and
            // calls ShutdownHandle::shutdown, which is made for signal handlers; errno is kept by
            // signal-hook, and none of it panics.
            unsafe { low_level::register(signal, move || shared.note(signal)) }?;
        }
        Ok(Self { shared })
    }

    /// Tells `server` of the signals, those included that came before.
    pub(crate) fn tell(&self, server: ShutdownHandle) {
        // There is one server in a process, so the lock is empty.
        let _ = self.shared.server.set(server);
        self.shared.pass_on();
    }

    /// The exit status, if a second signal cut the shutdown short.
    pub(crate) fn exit_code(&self) -> Option<ExitCode> {
        let requests = self.shared.server.get()?.requests();
        let status = BY_SIGNAL + self.shared.last.load(Ordering::SeqCst);
        let status = u8::try_from(status).ok()?;
        (requests > 1).then(|| ExitCode::from(status))
    }
}

impl Shared {
    fn note(&self, signal: c_int) {
        self.last.store(signal, Ordering::SeqCst);
        self.untold.fetch_add(1, Ordering::SeqCst);
        self.pass_on();
    }

    /// The swap gives each signal to exactly one caller, be it a handler or the main program.
    fn pass_on(&self) {
        if let Some(server) = self.server.get() {
            for _ in 0..self.untold.swap(0, Ordering::SeqCst) {
                server.shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_before_the_server_are_kept_for_it() {
        let shared = Arc::new(Shared::default());
        let signals = Signals {
            shared: Arc::clone(&shared),
        };
        shared.note(SIGTERM);
        assert_eq!(signals.exit_code(), None);
        let server = ShutdownHandle::new().unwrap();
        signals.tell(server.clone());
        assert_eq!(server.requests(), 1);
        assert_eq!(signals.exit_code(), None);
        shared.note(SIGINT);
        assert_eq!(server.requests(), 2);
        assert_eq!(signals.exit_code(), Some(ExitCode::from(130)));
    }
}
