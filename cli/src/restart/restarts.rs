//! The restarts of a server: whether one is possible, and what becomes of it.

use std::process;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serveloop::net::OpenSockets;
use serveloop::service::notify::Notifier;
use serveloop::{ShutdownHandle, Waker};

use crate::logger::TARGET;
use crate::restart::attempt::{Attempt, Placed, Progress};
use crate::restart::former::Word;
use crate::restart::manifest::PlaceName;
use crate::restart::options::RestartOptions;
use crate::restart::pid_file::PidFile;
use crate::restart::program::Program;
use crate::signals::{Asked, at_restart};
use crate::threads;

const ASKED: &str = "the server was asked to end";

/// How often to look how far a new process is.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// systemd says here which process it has started as the main one of a service.
const STARTED_BY_SYSTEMD: &str = "SYSTEMD_EXEC_PID";

/// What a server has to know for its restarts.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) program: Program,
    pub(crate) sockets: OpenSockets,
    /// The number of each listener's place, and the names of the places.
    pub(crate) places: Vec<usize>,
    pub(crate) names: Vec<PlaceName>,
    /// The listeners of the small server for pages and administrators.
    pub(crate) beside: Option<BesideListeners>,
    pub(crate) handle: ShutdownHandle,
    pub(crate) asked: Asked,
    pub(crate) notifier: Option<Notifier>,
    /// How long open connections have at a shutdown.
    pub(crate) drain: Option<Duration>,
    /// Whether there must be no other thread.
    pub(crate) is_forking: bool,
    /// Why this server cannot be restarted.
    pub(crate) objection: Option<&'static str>,
    /// The process that this one replaces.
    pub(crate) former: Option<Word>,
}

/// Listeners of another server of this process that are handed on too.
#[derive(Clone, Debug)]
pub(crate) struct BesideListeners {
    pub(crate) sockets: OpenSockets,
    /// The URI of each listener's place, by the numbers of listeners.
    pub(crate) uris: Vec<String>,
    /// Set when the new process serves, so that this one listens there no more.
    pub(crate) is_replaced: Arc<AtomicBool>,
    pub(crate) handle: ShutdownHandle,
}

impl BesideListeners {
    fn retire(&self) {
        self.is_replaced.store(true, Ordering::SeqCst);
        self.handle.wake();
    }
}

/// The restarts of a server. All clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Restarts(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    setting: Setting,
    pid_file: Option<PidFile>,
    patience: Duration,
    word: Mutex<Option<Word>>,
    /// One of the states below.
    state: AtomicU8,
    attempt: Mutex<Option<Attempt>>,
    /// What wakes each loop.
    loops: Mutex<Vec<Waker>>,
    has_ended: AtomicBool,
}

/// This process serves, and nothing else is going on.
const SERVES: u8 = 0;
/// A new process is being started.
const STARTS: u8 = 1;
/// A new process serves, and this one is on its way out.
const REPLACED: u8 = 2;
/// This process has ended.
const ENDED: u8 = 3;

/// The end of the server: removes the file with the number of the process, and ends a new process that
/// does not serve yet.
#[derive(Debug)]
pub(crate) struct Ending(Restarts);

impl Restarts {
    /// Prepares the restarts that SIGUSR2 asks for from now on. The process that this one replaces, if
    /// there is one, is told later; otherwise the file with the number of the process is written now.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn new(
        mut setting: Setting,
        options: &RestartOptions,
    ) -> std::io::Result<(Self, Ending)> {
        let word = setting.former.take();
        let pid_file = options.pid_file.clone().map(PidFile::new);
        if let Some(file) = pid_file.as_ref().filter(|_| word.is_none()) {
            file.write()?;
        }
        let restarts = Self(Arc::new(Shared {
            setting,
            pid_file,
            patience: options.restart_timeout.into(),
            word: Mutex::new(word),
            state: AtomicU8::new(SERVES),
            attempt: Mutex::default(),
            loops: Mutex::default(),
            has_ended: AtomicBool::new(false),
        }));
        let asked = restarts.clone();
        at_restart(move || asked.request());
        Ok((restarts.clone(), Ending(restarts)))
    }

    /// Takes over from the former process, if there is one. Called when every loop serves.
    pub(crate) fn ready(&self) {
        let Some(word) = lock(&self.0.word).take() else {
            return;
        };
        word.ready(self.0.setting.open());
        let written = self.0.pid_file.as_ref().map(PidFile::write);
        if let Some(Err(error)) = written {
            log::warn!(target: TARGET, "{error}");
        }
    }

    /// Starts a new process, or says why not.
    fn request(&self) {
        let setting = &self.0.setting;
        let path = match self.objection().map_or_else(|| setting.program.path(), Err) {
            Ok(path) => path,
            Err(problem) => {
                log::warn!(target: TARGET, "SIGUSR2 is refused: {problem}");
                return;
            }
        };

        self.0.state.store(STARTS, Ordering::SeqCst);
        log::info!(target: TARGET, "SIGUSR2: starting {} anew", path.display());
        setting.notifier.iter().for_each(Notifier::reloading);
        if setting.is_forking {
            // There is no other thread, so the loop looks after it.
            return;
        }

        let own = self.clone();
        // A loop may be busy with its connections for any time.
        let look = move || {
            while own.is_starting() {
                own.look();
                thread::sleep(LOOK_AGAIN);
            }
            if let Some(grace) = own.grace().filter(|_| own.is_replaced()) {
                thread::sleep(grace);
                own.end();
            }
        };
        if let Err(error) = threads::spawn("restart", look) {
            self.go_on(&error.to_string());
        }
    }

    fn objection(&self) -> Option<String> {
        let setting = &self.0.setting;
        let is_main =
            || std::env::var(STARTED_BY_SYSTEMD).is_ok_and(|id| id == process::id().to_string());
        let problem = match self.0.state.load(Ordering::SeqCst) {
            STARTS => "a new process is being started",
            REPLACED => "a new process serves, and this one only finishes what is open",
            _ if process::id() == 1 => {
                "this is process 1, and all others end with it; let an init start the server, for \
                 example with docker run --init"
            }
            _ if setting.asked.is_asked() => ASKED,
            _ if setting.notifier.is_none() && is_main() => {
                "systemd would take the end of this process for that of the service; its unit needs \
                 Type=notify"
            }
            _ => setting.objection?,
        };
        Some(problem.to_owned())
    }

    /// Returns whether a new process is being started.
    pub(super) fn is_starting(&self) -> bool {
        self.0.state.load(Ordering::SeqCst) == STARTS
    }

    /// Returns whether a new process serves.
    #[inline]
    pub(super) fn is_replaced(&self) -> bool {
        self.0.state.load(Ordering::Relaxed) == REPLACED
    }

    pub(super) fn is_forking(&self) -> bool {
        self.0.setting.is_forking
    }

    /// Starts the new process, or looks how far it is.
    pub(super) fn look(&self) {
        let mut attempt = lock(&self.0.attempt);
        // The server may have ended in the meantime.
        if !self.is_starting() {
            return;
        }
        let Some(mut begun) = attempt.take() else {
            match self.start() {
                Ok(begun) => *attempt = Some(begun),
                Err(problem) => self.go_on(&problem),
            }
            return;
        };

        match begun.progress() {
            Progress::Ready(files) => self.hand_over(begun, &files),
            Progress::Failed(problem) => {
                drop(begun);
                self.go_on(&problem);
            }
            Progress::Waits if self.0.setting.asked.is_asked() => {
                drop(begun);
                self.go_on(ASKED);
            }
            Progress::Waits => *attempt = Some(begun),
        }
    }

    fn start(&self) -> Result<Attempt, String> {
        let setting = &self.0.setting;
        let command = setting.program.command()?;
        let path = setting.program.path()?;
        let sockets = setting.placed();
        let started = sockets.and_then(|it| Attempt::start(command, it, self.0.patience));
        started.map_err(|error| format!("{} cannot be started: {error}", path.display()))
    }

    /// Goes on as if nothing had been asked.
    fn go_on(&self, problem: &str) {
        self.0.state.store(SERVES, Ordering::SeqCst);
        if self.0.setting.asked.is_asked() {
            log::warn!(target: TARGET, "not restarted: {problem}");
            return;
        }
        log::error!(target: TARGET, "not restarted: {problem}; this process goes on");
        self.0.setting.notifier.iter().for_each(Notifier::ready);
    }

    /// Lets the new process go on alone, which has listeners with these socket files.
    fn hand_over(&self, new: Attempt, files: &[String]) {
        let (setting, process) = (&self.0.setting, new.process());
        let open = setting.open().filter_map(|open| open.list().ok());
        for socket in open.flatten() {
            let file = socket.file().map(|file| file.to_string());
            if file.is_some_and(|file| files.contains(&file)) {
                socket.leave_file();
            }
        }
        self.0.pid_file.iter().for_each(PidFile::leave);
        if let Some(notifier) = &setting.notifier {
            notifier.hand_over(process);
        }
        new.release();

        log::info!(target: TARGET, "process {process} serves now; this one finishes what is open");
        self.0.state.store(REPLACED, Ordering::SeqCst);
        lock(&self.0.loops).iter().for_each(Waker::wake);
        setting.beside.iter().for_each(BesideListeners::retire);
    }

    /// Adds a loop, to be woken when a new process serves.
    pub(super) fn join(&self, waker: Waker) {
        lock(&self.0.loops).push(waker);
    }

    /// Returns how long connections go on as before when a new process serves. Without a limit for a
    /// shutdown there is none for this.
    pub(super) fn grace(&self) -> Option<Duration> {
        self.0.setting.drain.map(|drain| drain / 2)
    }

    /// Begins the shutdown of what is left, once.
    pub(super) fn end(&self) {
        let handle = &self.0.setting.handle;
        if !self.0.has_ended.swap(true, Ordering::SeqCst) && handle.requests() == 0 {
            handle.shutdown_by_signal();
        }
    }
}

impl Setting {
    /// Returns all sockets that are handed on.
    fn open(&self) -> impl Iterator<Item = &OpenSockets> {
        let beside = self.beside.iter().map(|beside| &beside.sockets);
        [&self.sockets].into_iter().chain(beside)
    }

    /// Returns copies of all sockets that are handed on, with where they belong. Those of the small server
    /// for administrators come after the others.
    fn placed(&self) -> std::io::Result<Vec<Placed>> {
        let own = self.sockets.list()?.into_iter().map(|socket| {
            let (listener, place_number) = (socket.listener(), self.places[socket.listener()]);
            Placed {
                socket,
                listener,
                place_number,
                place: self.names[place_number].clone(),
            }
        });
        let mut all: Vec<_> = own.collect();

        let Some(beside) = &self.beside else {
            return Ok(all);
        };
        let (listeners, names) = (self.places.len(), self.names.len());
        for socket in beside.sockets.list()? {
            let number = socket.listener();
            all.push(Placed {
                place: PlaceName::new(names + number, &beside.uris[number]),
                listener: listeners + number,
                place_number: names + number,
                socket,
            });
        }
        Ok(all)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let shared = &self.0.0;
        let mut attempt = lock(&shared.attempt);
        shared.state.store(ENDED, Ordering::SeqCst);
        if attempt.take().is_some() {
            log::warn!(target: TARGET, "not restarted: {ASKED}");
        }
        shared.pid_file.iter().for_each(PidFile::remove);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
