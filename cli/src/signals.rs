//! The process's signals: some end the server, some are only logged, and no other may end it by
//! accident.
//!
//! Also records which standard descriptors were closed at the start, before Rust's runtime opens
//! others in their place.
#![expect(
    unsafe_code,
    reason = "what runs in a signal handler, and what the system says of one, is beyond what the compiler can check"
)]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use std::{io, ptr};

use serveloop::ShutdownHandle;
use signal_hook::consts::{
    SIGABRT, SIGALRM, SIGBUS, SIGCHLD, SIGCONT, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGKILL, SIGPIPE,
    SIGPROF, SIGQUIT, SIGSEGV, SIGSTOP, SIGSYS, SIGTERM, SIGTRAP, SIGTSTP, SIGTTIN, SIGTTOU,
    SIGURG, SIGUSR1, SIGUSR2, SIGVTALRM, SIGWINCH, SIGXCPU,
};
use signal_hook::low_level;

use crate::logger::TARGET;
use crate::sys::{set_alarm, unblock_signals};
use crate::threads;

/// The standard descriptors that were closed when this process began, as bits. Rust's runtime opens
/// /dev/null in their place before `main`, and then they look like any that were inherited.
static CLOSED: AtomicUsize = AtomicUsize::new(0);

/// Registers [`note_closed`] with the system's loader, which calls it before Rust's runtime starts.
#[used]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
#[cfg_attr(
    target_vendor = "apple",
    unsafe(link_section = "__DATA,__mod_init_func")
)]
static NOTE_CLOSED: extern "C" fn() = note_closed;

/// The shell adds this to a signal's number to get the exit status of a process that it ended.
pub(crate) const BY_SIGNAL: i32 = 128;

/// Signals that ask a server to end. The system sends SIGXCPU when the processor time that it
/// allows is nearly spent.
const ENDING: [c_int; 4] = [SIGTERM, SIGINT, SIGQUIT, SIGXCPU];

/// Signals that do not end a server. One that has no meaning for it is logged once.
const NOTED: [(c_int, &str); 3] = [
    (SIGHUP, "SIGHUP"),
    (SIGUSR1, "SIGUSR1"),
    (SIGUSR2, "SIGUSR2"),
];

/// The bit in [`HEARD`] for a shutdown that begins later.
const LEAVING: usize = 1 << NOTED.len();

/// Signals to end within this many milliseconds of the first count as the same request, as for a
/// [`ShutdownHandle`].
const TOGETHER: u64 = 500;

/// Signals that end a program on every system unless it handles them.
const ASKING: [c_int; 10] = [
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGALRM, SIGVTALRM, SIGPROF, SIGUSR1, SIGUSR2, SIGXCPU,
];

/// Signals whose action stays as it is: faults of the program, stopping and continuing it, those
/// that cannot be caught, and those that do nothing by default or are ignored already.
const LEFT: [c_int; 15] = [
    SIGABRT, SIGBUS, SIGCHLD, SIGCONT, SIGFPE, SIGILL, SIGKILL, SIGPIPE, SIGSEGV, SIGSTOP, SIGSYS,
    SIGTRAP, SIGTSTP, SIGURG, SIGWINCH,
];

/// Signals that stop a background process when it uses its terminal.
const STOPPING: [c_int; 2] = [SIGTTIN, SIGTTOU];

/// Signals that end a process on every system. Linux has more, some of which other systems ignore.
const ENDING_EVERYWHERE: [c_int; 10] = [
    SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGXCPU, SIGVTALRM, SIGPROF,
];

/// The highest signal number, real-time signals included.
const LAST: c_int = 64;

/// The signals of [`NOTED`] that arrived and are not logged yet, as bits.
static HEARD: AtomicUsize = AtomicUsize::new(0);

/// The signals of [`NOTED`] that have been logged, as bits.
static TOLD: AtomicUsize = AtomicUsize::new(0);

/// How often SIGUSR1 arrived.
static DUMPS: AtomicUsize = AtomicUsize::new(0);

/// What SIGHUP does, if anything.
static AT_HANGUP: OnceLock<Action> = OnceLock::new();

/// What SIGUSR2 does, if anything.
static AT_RESTART: OnceLock<Action> = OnceLock::new();

/// What SIGUSR1 does besides the statistics, if anything.
static AT_DUMP: OnceLock<Action> = OnceLock::new();

type Action = Box<dyn Fn() + Send + Sync>;

/// Catches signals from the start, and passes them to the server as soon as there is one.
#[derive(Debug)]
pub(crate) struct Signals {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: OnceLock<ShutdownHandle>,
    /// The process that the server runs in. A process that it forks has its own shutdown.
    owner: u32,
    /// How long the server goes on after it was asked to end.
    delay: Duration,
    made: Instant,
    /// When the server was first asked to end, in milliseconds since `made` plus one, if it has a
    /// delay. 0 means that it was not asked.
    asked: AtomicU64,
    /// The number of signals that the server has not been told of yet.
    untold: AtomicUsize,
    last: AtomicI32,
}

impl Signals {
    /// Takes over the signals. Call this before the first socket is bound, because a signal in
    /// between must not leave a socket's file behind. Signals that were ignored or blocked when
    /// this process began are caught too: a server that was started in the background still ends
    /// when it is asked to. It goes on for `delay` before its shutdown begins.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub(crate) fn catch(delay: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(delay));
        for signal in ENDING {
            let shared = Arc::clone(&shared);
            // SAFETY: the action only uses atomics, asks for this process's id and for the time, sets
            // a timer, raises a signal, reads a OnceLock, which does not wait, and calls methods of
            // ShutdownHandle that are made for signal handlers. signal-hook keeps errno, and none of
            // this panics.
            unsafe { low_level::register(signal, move || shared.note(signal)) }?;
        }
        if !delay.is_zero() {
            let shared = Arc::clone(&shared);
            // SAFETY: as above.
            unsafe { low_level::register(SIGALRM, move || shared.note_alarm()) }?;
        }

        for (place, (signal, _)) in NOTED.iter().enumerate() {
            let shared = Arc::clone(&shared);
            let note = move || {
                HEARD.fetch_or(1 << place, Ordering::SeqCst);
                DUMPS.fetch_add(usize::from(NOTED[place].0 == SIGUSR1), Ordering::SeqCst);
                shared.wake();
            };
            // SAFETY: the action only changes an atomic, asks for this process's id, reads a
            // OnceLock, which does not wait, and calls ShutdownHandle::wake, which is made for
            // signal handlers. signal-hook keeps errno, and none of this panics.
            unsafe { low_level::register(*signal, note) }?;
        }

        let is_other = |signal: &c_int| {
            let noted = NOTED.iter().any(|(noted, _)| noted == signal);
            !noted && !ENDING.contains(signal) && !LEFT.contains(signal)
        };
        (1..=LAST).filter(is_other).for_each(ignore);
        // An ignored SIGCHLD would keep us from waiting for children.
        if is_ignored(SIGCHLD) {
            set(SIGCHLD, libc::SIG_DFL);
        }
        unblock_signals()?;
        Ok(Self { shared })
    }

    /// Connects `server` to the signals, including those that arrived before.
    pub(crate) fn tell(&self, server: ShutdownHandle) {
        // A process has one server, so the cell is empty.
        let _ = self.shared.server.set(server);
        self.shared.pass_on();
        if HEARD.load(Ordering::SeqCst) != 0 {
            self.shared.wake();
        }
    }

    /// Returns how far the end of the server has come, as it will be at any time.
    pub(crate) fn leaving(&self) -> Leaving {
        Leaving {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Returns the exit status if a second signal cut the shutdown short.
    pub(crate) fn exit_code(&self) -> Option<ExitCode> {
        let requests = self.shared.server.get()?.requests();
        let status = BY_SIGNAL + self.shared.last.load(Ordering::SeqCst);
        let status = u8::try_from(status).ok()?;
        (requests > 1).then(|| ExitCode::from(status))
    }
}

/// Whether the server was asked to end.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    shared: Arc<Shared>,
}

#[cfg(test)]
impl Default for Leaving {
    /// Returns that of a server that is never asked to end.
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared::new(Duration::ZERO)),
        }
    }
}

impl Leaving {
    /// Returns whether a signal has asked the server to end, also if its shutdown begins later.
    pub(crate) fn is_signalled(&self) -> bool {
        self.shared.last.load(Ordering::SeqCst) != 0
    }

    /// Returns whether the server was asked to end, also if its shutdown begins later.
    pub(crate) fn is_asked(&self) -> bool {
        self.shared.asked.load(Ordering::SeqCst) != 0 || self.is_draining()
    }

    /// Returns whether its shutdown has begun.
    pub(crate) fn is_draining(&self) -> bool {
        let server = self.shared.server.get();
        server.is_some_and(|server| server.requests() > 0)
    }
}

/// Makes this process ignore what ends a server, and what it does something at. For a process that
/// serves for another one, and ends with it.
pub(crate) fn ignore_all() {
    let noted = NOTED.iter().map(|(signal, _)| *signal);
    for signal in ENDING.into_iter().chain(noted) {
        set(signal, libc::SIG_IGN);
    }
}

/// Does what SIGTERM does.
///
/// # Errors
/// Fails if the system refuses.
pub(crate) fn raise_drain() -> io::Result<()> {
    low_level::raise(SIGTERM)
}

/// Does what SIGHUP does.
///
/// # Errors
/// Fails if the system refuses.
pub(crate) fn raise_hangup() -> io::Result<()> {
    low_level::raise(SIGHUP)
}

impl Shared {
    fn new(delay: Duration) -> Self {
        Self {
            server: OnceLock::new(),
            owner: process::id(),
            delay,
            made: Instant::now(),
            asked: AtomicU64::new(0),
            untold: AtomicUsize::new(0),
            last: AtomicI32::new(0),
        }
    }

    fn note(&self, signal: c_int) {
        if process::id() != self.owner {
            // The library catches SIGTERM in its children. Waking the shutdown handle would end the
            // parent.
            let _ = low_level::raise(SIGTERM);
            return;
        }

        let before = self.last.swap(signal, Ordering::SeqCst);
        // The system repeats SIGXCPU every second. Repeats do not count as a second request.
        if signal == SIGXCPU && before != 0 {
            return;
        }

        if self.delay.is_zero() {
            self.request();
        } else {
            self.request_later();
        }
    }

    fn request(&self) {
        self.untold.fetch_add(1, Ordering::SeqCst);
        self.pass_on();
    }

    /// Sets the alarm at the first request. A later one, unless it is the same, ends everything at
    /// once.
    fn request_later(&self) {
        let elapsed = self.made.elapsed().as_millis();
        let now = u64::try_from(elapsed).unwrap_or(u64::MAX - 1) + 1;
        let asked = &self.asked;
        match asked.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) if set_alarm(self.delay) => {
                HEARD.fetch_or(LEAVING, Ordering::SeqCst);
                self.wake();
            }
            Ok(_) => self.request(),
            Err(before) if now.saturating_sub(before) < TOGETHER => {}
            Err(_) => match self.server.get() {
                Some(server) => server.abort(),
                None => self.request(),
            },
        }
    }

    /// Begins the shutdown when its delay is over. An alarm that was not set means nothing.
    fn note_alarm(&self) {
        let is_asked = self.asked.load(Ordering::SeqCst) != 0;
        if is_asked && process::id() == self.owner {
            self.request();
        }
    }

    /// Makes the server look at [`HEARD`], even if it is about to wait. A process that it forked
    /// leaves its parent alone.
    fn wake(&self) {
        if process::id() == self.owner {
            self.server.get().into_iter().for_each(ShutdownHandle::wake);
        }
    }

    /// Passes pending signals to the server. The swap gives each to exactly one caller, be it a
    /// handler or the main program.
    fn pass_on(&self) {
        if let Some(server) = self.server.get() {
            for _ in 0..self.untold.swap(0, Ordering::SeqCst) {
                server.shutdown_by_signal();
            }
        }
    }
}

/// Lets SIGHUP run `action`, outside of the signal's handler: on the loop or on the thread that tells of
/// signals. Only the first call has an effect.
pub(crate) fn at_hangup(action: impl Fn() + Send + Sync + 'static) {
    let _ = AT_HANGUP.set(Box::new(action));
}

/// Lets SIGUSR2 run `action`, like [`at_hangup`].
pub(crate) fn at_restart(action: impl Fn() + Send + Sync + 'static) {
    let _ = AT_RESTART.set(Box::new(action));
}

/// Lets SIGUSR1 run `action` too, in the same places. Only the first call has an effect.
pub(crate) fn at_dump(action: impl Fn() + Send + Sync + 'static) {
    let _ = AT_DUMP.set(Box::new(action));
}

/// Runs what SIGHUP, SIGUSR1 and SIGUSR2 do, and logs each ignored signal once, the first time that it arrives. Costs one
/// atomic load if there is none.
#[inline]
pub(crate) fn tell_heard() {
    if HEARD.load(Ordering::Relaxed) != 0 {
        tell_new(HEARD.swap(0, Ordering::SeqCst));
    }
}

/// Returns how often the statistics were asked for.
#[inline]
pub(crate) fn dumps() -> usize {
    DUMPS.load(Ordering::Relaxed)
}

#[cold]
fn tell_new(heard: usize) {
    let told = TOLD.fetch_or(heard, Ordering::SeqCst);
    if heard & LEAVING != 0 {
        log::info!(target: TARGET, "asked to end: serving goes on for --drain-delay");
    }
    for (place, (signal, name)) in NOTED.iter().enumerate() {
        let bit = 1 << place;
        if heard & bit == 0 {
            continue;
        }
        let action = match *signal {
            SIGHUP => AT_HANGUP.get(),
            SIGUSR2 => AT_RESTART.get(),
            _ => None,
        };
        match action {
            Some(action) => action(),
            // Each loop sees its number.
            _ if *signal == SIGUSR1 => AT_DUMP.get().into_iter().for_each(|action| action()),
            _ if told & bit == 0 => {
                log::info!(target: TARGET, "{name} is ignored; SIGTERM ends the server");
            }
            _ => {}
        }
    }
}

/// Starts a thread that logs ignored signals, for servers whose main thread is not in the loop while
/// it serves a connection.
///
/// # Errors
/// Fails if the system has no thread or descriptor left.
pub(crate) fn tell_from_a_thread() -> io::Result<()> {
    let signals = signal_hook::iterator::Signals::new(NOTED.map(|(signal, _)| signal));
    let mut signals = signals.map_err(|error| {
        let problem = format!("cannot watch for signals: {error}");
        io::Error::new(error.kind(), problem)
    })?;
    let listen = move || {
        // Signals that came before the line above have woken no thread.
        tell_heard();
        signals.forever().for_each(|_| tell_heard());
    };

    threads::spawn("signals", listen).map(drop)
}

/// Makes a write beyond the file size limit fail like any other, instead of ending the process.
pub(crate) fn survive_size_limit() {
    ignore(libc::SIGXFSZ);
}

/// Returns the signals that end a program unless it handles them, without indicating a fault of it
/// or a broken pipe. Leaves out those that are ignored, such as SIGHUP after `nohup`.
pub(crate) fn asks_to_end() -> Vec<c_int> {
    let asks = |signal: &c_int| {
        // On other systems some of the remaining signals do nothing by default.
        let is_other = !LEFT.contains(signal) && ![SIGTTIN, SIGTTOU].contains(signal);
        ASKING.contains(signal) || cfg!(target_os = "linux") && is_other
    };
    let is_default = |signal: &c_int| action_of(*signal) == Some(libc::SIG_DFL);
    (1..=LAST).filter(asks).filter(is_default).collect()
}

extern "C" fn note_closed() {
    let is_closed = |descriptor: &c_int| {
        // SAFETY: this reads the flags of a descriptor, or fails if it is not open.
        unsafe { libc::fcntl(*descriptor, libc::F_GETFD) == -1 }
    };
    let closed = (0..=2).filter(is_closed);
    let bits = closed.fold(0, |bits, descriptor| bits | 1 << descriptor);
    CLOSED.store(bits, Ordering::Relaxed);
}

/// Returns whether this standard descriptor was closed when the process began.
pub(crate) fn was_closed(descriptor: u32) -> bool {
    CLOSED.load(Ordering::Relaxed) & 1 << descriptor != 0
}

/// Ignores a signal, unless it has a handler already.
fn ignore(signal: c_int) {
    if action_of(signal) == Some(libc::SIG_DFL) {
        set(signal, libc::SIG_IGN);
    }
}

fn set(signal: c_int, action: libc::sighandler_t) {
    // SAFETY: both actions that callers pass are the system's own. The call refuses the signals
    // that the C library reserves.
    unsafe { libc::signal(signal, action) };
}

/// Returns the signals that would end this process now. Leaves out those that are ignored or caught
/// already, those of [`LEFT`], and those that stop it.
pub(crate) fn endings() -> impl Iterator<Item = c_int> {
    (1..=LAST).filter(|signal| {
        let is_ending = ENDING_EVERYWHERE.contains(signal) || cfg!(target_os = "linux");
        let is_other = LEFT.contains(signal) || STOPPING.contains(signal);
        is_ending && !is_other && action_of(*signal) == Some(libc::SIG_DFL)
    })
}

/// Returns whether this process ignores `signal`, as it does SIGHUP under `nohup`.
pub(crate) fn is_ignored(signal: c_int) -> bool {
    action_of(signal) == Some(libc::SIG_IGN)
}

fn action_of(signal: c_int) -> Option<libc::sighandler_t> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the present one, for which there is room.
    let failed = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0;
    // SAFETY: zeros are a valid action, and so is what the system wrote.
    (!failed).then(|| unsafe { action.assume_init() }.sa_sigaction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_before_the_server_are_kept_for_it() {
        let shared = Arc::new(Shared::new(Duration::ZERO));
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
