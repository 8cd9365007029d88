//! What signals do to this process: those that end a server, those that it only notes, and all
//! others, none of which may end it by accident. Also what else it inherits that has to be asked for
//! before Rust's runtime begins.
#![expect(
    unsafe_code,
    reason = "what runs in a signal handler, and what the system says of one, is beyond what the compiler can check"
)]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::{io, ptr};

use serveloop::ShutdownHandle;
use signal_hook::consts::{
    SIGABRT, SIGALRM, SIGBUS, SIGCHLD, SIGCONT, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGKILL, SIGPIPE,
    SIGPROF, SIGQUIT, SIGSEGV, SIGSTOP, SIGSYS, SIGTERM, SIGTRAP, SIGTSTP, SIGTTIN, SIGTTOU,
    SIGURG, SIGUSR1, SIGUSR2, SIGVTALRM, SIGWINCH, SIGXCPU,
};
use signal_hook::low_level;

use crate::logger::TARGET;
use crate::sys::unblock_signals;
use crate::threads;

/// The standard descriptors that were closed when this process began, as bits. Rust's runtime opens
/// /dev/null in their place before `main`, after which nobody can tell them from one that was given.
static CLOSED: AtomicUsize = AtomicUsize::new(0);

/// Called by the system's loader before anything of Rust's.
#[used]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
#[cfg_attr(
    target_vendor = "apple",
    unsafe(link_section = "__DATA,__mod_init_func")
)]
static NOTE_CLOSED: extern "C" fn() = note_closed;

/// The shell's exit status for a process that a signal ended is this more than its number.
pub(crate) const BY_SIGNAL: i32 = 128;

/// Ask a server to end. The system sends the last one when the processor time that it allows is
/// nearly spent.
const ENDING: [c_int; 4] = [SIGTERM, SIGINT, SIGQUIT, SIGXCPU];

/// Do nothing to a server, which says so once.
const NOTED: [(c_int, &str); 3] = [
    (SIGHUP, "SIGHUP"),
    (SIGUSR1, "SIGUSR1"),
    (SIGUSR2, "SIGUSR2"),
];

/// End a program on every system, unless it does something about them.
const ASKING: [c_int; 10] = [
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGALRM, SIGVTALRM, SIGPROF, SIGUSR1, SIGUSR2, SIGXCPU,
];

/// Are left as they are: faults of the program, what stops it and lets it go on, what cannot be
/// caught, and what does nothing by itself or is ignored already.
const LEFT: [c_int; 15] = [
    SIGABRT, SIGBUS, SIGCHLD, SIGCONT, SIGFPE, SIGILL, SIGKILL, SIGPIPE, SIGSEGV, SIGSTOP, SIGSYS,
    SIGTRAP, SIGTSTP, SIGURG, SIGWINCH,
];

/// Stop a process in the background that uses its terminal.
const STOPPING: [c_int; 2] = [SIGTTIN, SIGTTOU];

/// End a process on every system. Linux has more, some of which others ignore.
const ENDING_EVERYWHERE: [c_int; 10] = [
    SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGXCPU, SIGVTALRM, SIGPROF,
];

/// The highest number of a signal, those for real time included.
const LAST: c_int = 64;

/// Which of [`NOTED`] have come, as bits, and were not logged yet.
static HEARD: AtomicUsize = AtomicUsize::new(0);

/// Which of [`NOTED`] have been logged.
static TOLD: AtomicUsize = AtomicUsize::new(0);

/// Catches the signals from now on, and passes them on to a server as soon as there is one.
#[derive(Debug)]
pub(crate) struct Signals {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: OnceLock<ShutdownHandle>,
    /// The process that the server is in: one that it forks has a shutdown of its own.
    owner: u32,
    /// Signals that the server was not told of yet.
    untold: AtomicUsize,
    last: AtomicI32,
}

impl Signals {
    /// Takes the signals over, before the first socket is bound: one that comes in between must not
    /// leave a socket's file behind. What was ignored or blocked when this process began does not
    /// matter: a server that was started in the background still ends when it is asked to.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn catch() -> io::Result<Self> {
        let shared = Arc::new(Shared::new());
        for signal in ENDING {
            let shared = Arc::clone(&shared);
            // SAFETY: the action only uses atomics, asks for this process's number, raises a signal,
            // looks into a OnceLock, which does not wait, and calls
            // ShutdownHandle::shutdown_by_signal, which is made for signal handlers; errno is kept
            // by signal-hook, and none of it panics.
            unsafe { low_level::register(signal, move || shared.note(signal)) }?;
        }
        for (place, (signal, _)) in NOTED.iter().enumerate() {
            let note = move || {
                HEARD.fetch_or(1 << place, Ordering::SeqCst);
            };
            // SAFETY: the action only changes an atomic.
            unsafe { low_level::register(*signal, note) }?;
        }
        let is_other = |signal: &c_int| {
            let noted = NOTED.iter().any(|(noted, _)| noted == signal);
            !noted && !ENDING.contains(signal) && !LEFT.contains(signal)
        };
        (1..=LAST).filter(is_other).for_each(ignore);
        // Programs and processes that end have to be waited for.
        if is_ignored(SIGCHLD) {
            set(SIGCHLD, libc::SIG_DFL);
        }
        unblock_signals()?;
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
    fn new() -> Self {
        Self {
            server: OnceLock::new(),
            owner: process::id(),
            untold: AtomicUsize::new(0),
            last: AtomicI32::new(0),
        }
    }

    fn note(&self, signal: c_int) {
        if process::id() != self.owner {
            // The library catches this one in its children. Ringing would end the parent.
            let _ = low_level::raise(SIGTERM);
            return;
        }
        let before = self.last.swap(signal, Ordering::SeqCst);
        // The system repeats it every second, as if somebody could not wait.
        if signal == SIGXCPU && before != 0 {
            return;
        }
        self.untold.fetch_add(1, Ordering::SeqCst);
        self.pass_on();
    }

    /// The swap gives each signal to exactly one caller, be it a handler or the main program.
    fn pass_on(&self) {
        if let Some(server) = self.server.get() {
            for _ in 0..self.untold.swap(0, Ordering::SeqCst) {
                server.shutdown_by_signal();
            }
        }
    }
}

/// Logs the signals that came and do nothing, each once. Costs one look at a number if there are
/// none.
#[inline]
pub(crate) fn tell_heard() {
    if HEARD.load(Ordering::Relaxed) != 0 {
        tell_new(HEARD.swap(0, Ordering::SeqCst));
    }
}

#[cold]
fn tell_new(heard: usize) {
    let told = TOLD.fetch_or(heard, Ordering::SeqCst);
    for (place, (_, name)) in NOTED.iter().enumerate() {
        if heard & !told & (1 << place) != 0 {
            log::info!(target: TARGET, "{name} is ignored; SIGTERM ends the server");
        }
    }
}

/// Logs them from a thread: for a main thread that does not look.
///
/// # Errors
/// The system has no thread or descriptor.
pub(crate) fn tell_from_a_thread() -> io::Result<()> {
    let signals = signal_hook::iterator::Signals::new(NOTED.map(|(signal, _)| signal));
    let mut signals = signals.map_err(|error| {
        let problem = format!("cannot watch for signals: {error}");
        io::Error::new(error.kind(), problem)
    })?;
    let listen = move || signals.forever().for_each(|_| tell_heard());
    threads::spawn("signals", listen).map(drop)
}

/// Has a write beyond the limit on a file's size fail, as any other, instead of ending the process.
pub(crate) fn survive_size_limit() {
    ignore(libc::SIGXFSZ);
}

/// The signals that end a program which does nothing about them, without being a fault of it or of what
/// it writes to; but for those that are ignored, as SIGHUP after `nohup`.
pub(crate) fn asks_to_end() -> Vec<c_int> {
    let asks = |signal: &c_int| {
        // Elsewhere some of the others do nothing by themselves.
        let is_other = !LEFT.contains(signal) && ![SIGTTIN, SIGTTOU].contains(signal);
        ASKING.contains(signal) || cfg!(target_os = "linux") && is_other
    };
    let is_default = |signal: &c_int| action_of(*signal) == Some(libc::SIG_DFL);
    (1..=LAST).filter(asks).filter(is_default).collect()
}

extern "C" fn note_closed() {
    let is_closed = |descriptor: &c_int| {
        // SAFETY: this asks for the flags of a descriptor, if it is one.
        unsafe { libc::fcntl(*descriptor, libc::F_GETFD) == -1 }
    };
    let closed = (0..=2).filter(is_closed);
    let bits = closed.fold(0, |bits, descriptor| bits | 1 << descriptor);
    CLOSED.store(bits, Ordering::Relaxed);
}

/// Whether the standard descriptor with that number was closed when this process began.
pub(crate) fn was_closed(descriptor: u32) -> bool {
    CLOSED.load(Ordering::Relaxed) & 1 << descriptor != 0
}

/// Ignores a signal, unless somebody catches it already.
fn ignore(signal: c_int) {
    if action_of(signal) == Some(libc::SIG_DFL) {
        set(signal, libc::SIG_IGN);
    }
}

fn set(signal: c_int, action: libc::sighandler_t) {
    // SAFETY: both actions that are given are the system's own. What the C library keeps for itself
    // it refuses.
    unsafe { libc::signal(signal, action) };
}

/// The signals that would end this process as it is: not those that are ignored or caught already,
/// those of [`LEFT`], and those that stop it.
pub(crate) fn endings() -> impl Iterator<Item = c_int> {
    (1..=LAST).filter(|signal| {
        let is_ending = ENDING_EVERYWHERE.contains(signal) || cfg!(target_os = "linux");
        let is_other = LEFT.contains(signal) || STOPPING.contains(signal);
        is_ending && !is_other && action_of(*signal) == Some(libc::SIG_DFL)
    })
}

/// Whether `signal` does nothing to this process, as `nohup` has it for SIGHUP.
pub(crate) fn is_ignored(signal: c_int) -> bool {
    action_of(signal) == Some(libc::SIG_IGN)
}

fn action_of(signal: c_int) -> Option<libc::sighandler_t> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action this only writes the present one, for which there is room.
    let failed = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0;
    // SAFETY: zeros are a valid action, and so is what the system has written.
    (!failed).then(|| unsafe { action.assume_init() }.sa_sigaction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_before_the_server_are_kept_for_it() {
        let shared = Arc::new(Shared::new());
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
        assert_eq!(server.requests(), 1);
        assert_eq!(signals.exit_code(), None);
        server.shutdown();
        assert_eq!(signals.exit_code(), Some(ExitCode::from(130)));
    }
}
