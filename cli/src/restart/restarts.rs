//! The restarts of a server: whether one is possible, and what becomes of it.

use std::os::unix::net::UnixStream;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{mem, thread};

use serveloop::Waker;
use serveloop::net::HandedConnection;
use serveloop::protocols::counted;
use serveloop::service::notify::Notifier;

use crate::logger::TARGET;
use crate::restart::attempt::{Attempt, Follows, Progress};
use crate::restart::former::Word;
use crate::restart::manifest::Served;
use crate::restart::moving::{Moves, Moving};
use crate::restart::options::RestartOptions;
use crate::restart::pid_file::PidFile;
use crate::restart::setting::{Setting, SideListeners};
use crate::restart::transfer;
use crate::signals::at_restart;
use crate::threads::{self, lock};

const ASKED: &str = "the server was asked to end";

/// How often to look how far a new process is.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long a loop may take to take its connections out.
const PATIENCE: Duration = Duration::from_secs(10);

/// systemd says here which process it has started as the main one of a service.
const STARTED_BY_SYSTEMD: &str = "SYSTEMD_EXEC_PID";

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
    loops: Mutex<Vec<Loop>>,
    /// What open connections move on.
    passage: Mutex<Option<Passage>>,
    has_arrivals: AtomicBool,
    /// Whether connections are still on their way from the old process.
    takes_over: AtomicBool,
    /// How many of those that came have been given to their loops.
    adopted: AtomicUsize,
    /// Whether connections are on their way in any direction.
    moving: Moves,
    hands_over: bool,
    has_ended: AtomicBool,
}

/// What concerns one loop of the server.
#[derive(Debug)]
struct Loop {
    waker: Waker,
    /// Connections that have come from the old process.
    arrived: Vec<HandedConnection>,
    /// Where its own connections go.
    leaving: Option<Leaving>,
}

/// Where the connections of a loop go, and the number of each listener there, by the number here.
pub(super) type Leaving = (Sender<HandedConnection>, Arc<[Option<u16>]>);

/// The way of open connections to the new process.
#[derive(Debug)]
struct Passage {
    control: UnixStream,
    connections: Receiver<HandedConnection>,
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
        // Until the old process says whether connections come.
        let begins = match word {
            Some(_) => Moving::Begins,
            None => Moving::Over,
        };
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
            passage: Mutex::default(),
            has_arrivals: AtomicBool::new(false),
            takes_over: AtomicBool::new(false),
            adopted: AtomicUsize::new(0),
            moving: Moves::new(begins),
            hands_over: options.handover,
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
        // Before a client or a manager knows of this process, and asks it to be replaced.
        self.0.takes_over.store(true, Ordering::SeqCst);
        let served = Served {
            ways: self.0.setting.ways_by_listener(),
            pid_file: self.0.pid_file.as_ref().map(PidFile::name),
            ..Served::default()
        };
        let connections = word.ready(self.0.setting.open(), served);
        let written = self.0.pid_file.as_ref().map(PidFile::write);
        if let Some(Err(error)) = written {
            log::warn!(target: TARGET, "{error}");
        }

        let Some(connections) = connections else {
            self.settle();
            return;
        };
        let own = self.clone();
        let take = move || {
            let count = own.take_over(&connections);
            let until = Instant::now() + PATIENCE;
            while own.0.adopted.load(Ordering::SeqCst) < count && Instant::now() < until {
                thread::sleep(LOOK_AGAIN);
            }
            own.settle();
        };
        if let Err(error) = threads::spawn("handover", take) {
            self.settle();
            log::error!(target: TARGET, "open connections are lost: {error}");
        }
    }

    /// Calls `tell` when connections begin to move to or from another process, before any does, and when
    /// that is over. Calls it now if this process replaces another one that has not answered yet.
    pub(crate) fn when_moving(&self, tell: impl Fn(Moving) + Send + Sync + 'static) {
        self.0.moving.add(tell);
    }

    /// Returns whether connections that other clients have begun come from the old process.
    pub(crate) fn takes_over(&self) -> bool {
        self.0.takes_over.load(Ordering::Relaxed)
    }

    /// Notes that all connections are where they belong.
    fn settle(&self) {
        self.0.moving.tell(Moving::Over);
        self.0.takes_over.store(false, Ordering::SeqCst);
    }

    /// Notes that a loop goes on with some of the connections that came.
    pub(super) fn note_adopted(&self, count: usize) {
        self.0.adopted.fetch_add(count, Ordering::SeqCst);
    }

    /// Gives the connections that come from the old process to the loops, in turn. Returns how many came.
    fn take_over(&self, connections: &UnixStream) -> usize {
        let mut count = 0;
        loop {
            let connection = match transfer::receive(connections) {
                Ok(Some(connection)) => connection,
                Ok(None) => break,
                Err(error) => {
                    log::error!(target: TARGET, "open connections are lost: {error}");
                    break;
                }
            };
            let mut loops = lock(&self.0.loops);
            let place = count % loops.len().max(1);
            if let Some(chosen) = loops.get_mut(place) {
                chosen.arrived.push(connection);
                self.0.has_arrivals.store(true, Ordering::SeqCst);
                chosen.waker.wake();
            }
            count += 1;
        }
        let going_on = counted(count, "open connection goes on", "open connections go on");
        log::info!(target: TARGET, "{going_on} here");
        count
    }

    /// Returns whether connections have come, for whichever loop.
    #[inline]
    pub(super) fn has_arrivals(&self) -> bool {
        self.0.has_arrivals.load(Ordering::Relaxed)
    }

    /// Takes the connections that have come for a loop.
    pub(super) fn arrivals(&self, number: usize) -> Vec<HandedConnection> {
        let mut loops = lock(&self.0.loops);
        let own = loops.get_mut(number);
        let arrived = own.map_or_else(Vec::new, |own| mem::take(&mut own.arrived));
        let is_empty = loops.iter().all(|other| other.arrived.is_empty());
        self.0.has_arrivals.store(!is_empty, Ordering::SeqCst);
        arrived
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

        let state = &self.0.state;
        let changed = state.compare_exchange(SERVES, STARTS, Ordering::SeqCst, Ordering::SeqCst);
        if changed.is_err() {
            // Another loop has seen another signal in between.
            return;
        }
        log::info!(target: TARGET, "SIGUSR2: starting {} anew", path.display());
        setting.notifier.iter().for_each(Notifier::reloading);
        if setting.is_forking {
            // There is no other thread, so the loop looks after it.
            return;
        }

        let own = self.clone();
        // A loop may be busy with its connections for any time.
        let look = move || {
            // What is on its way here has to arrive before it can go on.
            while own.0.takes_over.load(Ordering::SeqCst) {
                thread::sleep(LOOK_AGAIN);
            }
            while own.is_starting() {
                own.look();
                thread::sleep(LOOK_AGAIN);
            }
            own.move_connections();
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
            _ if setting.leaving.is_signalled() => ASKED,
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
            Progress::Ready(served) => self.hand_over(begun, &served),
            Progress::Failed(problem) => {
                drop(begun);
                self.go_on(&problem);
            }
            Progress::Waits if self.0.setting.leaving.is_signalled() => {
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
        if self.0.setting.leaving.is_signalled() {
            log::warn!(target: TARGET, "not restarted: {problem}");
            return;
        }
        log::error!(target: TARGET, "not restarted: {problem}; this process goes on");
        self.0.setting.notifier.iter().for_each(Notifier::ready);
    }

    /// Lets the new process go on alone.
    fn hand_over(&self, new: Attempt, served: &Served) {
        let (setting, process) = (&self.0.setting, new.process());
        let own = setting.sockets.list();
        let open = setting.open().filter_map(|open| open.list().ok());
        for socket in open.flatten() {
            let file = socket.file().map(|file| file.to_string());
            if file.is_some_and(|file| served.files.contains(&file)) {
                socket.leave_file();
            }
        }

        let mut listeners = Vec::new();
        for socket in own.into_iter().flatten() {
            if socket.listener() == listeners.len() {
                let address = socket.address().to_string();
                let there = served.addresses.iter().position(|it| *it == address);
                // Another protocol would make nothing of what a client has begun with this one.
                let way = setting.way(listeners.len());
                let is_same = |there: &usize| way.is_some() && served.ways.get(*there) == way;
                let there = there.filter(is_same);
                listeners.push(there.and_then(|there| u16::try_from(there).ok()));
            }
        }
        if let Some(file) = &self.0.pid_file {
            match served.pid_file == Some(file.name()) {
                true => file.leave(),
                false => file.remove(),
            }
        }
        if let Some(notifier) = &setting.notifier {
            notifier.hand_over(process);
        }
        let follows = match self.0.hands_over {
            true => Follows::Connections,
            false => Follows::Nothing,
        };
        if let Some(control) = new.release(follows) {
            self.open_passage(control, &listeners.into());
        }

        log::info!(target: TARGET, "process {process} serves now; this one finishes what is open");
        self.0.state.store(REPLACED, Ordering::SeqCst);
        let loops = lock(&self.0.loops);
        loops.iter().for_each(|one| one.waker.wake());
        setting.side.iter().for_each(SideListeners::retire);
    }

    fn open_passage(&self, control: UnixStream, listeners: &Arc<[Option<u16>]>) {
        // Before any loop gives its connections away.
        self.0.moving.tell(Moving::Begins);
        let (leaving, connections) = mpsc::channel();
        for one in lock(&self.0.loops).iter_mut() {
            one.leaving = Some((leaving.clone(), Arc::clone(listeners)));
        }
        *lock(&self.0.passage) = Some(Passage {
            control,
            connections,
        });
    }

    /// Sends the connections of all loops to the new process, if they move. Returns when that is done,
    /// whoever does it: the process must not end before.
    fn move_connections(&self) {
        let mut guard = lock(&self.0.passage);
        let Some(passage) = guard.take() else {
            return;
        };
        let (mut count, mut lost) = (0, 0);
        // Each loop drops its sender when it has taken its connections out. One that is held up keeps
        // its connections.
        while let Ok(connection) = passage.connections.recv_timeout(PATIENCE) {
            match transfer::send(&passage.control, connection) {
                Ok(()) => count += 1,
                Err(error) => {
                    lost += 1;
                    log::debug!(target: TARGET, "a connection is lost: {error}");
                }
            }
        }
        if lost > 0 {
            let lost = counted(lost, "open connection is", "open connections are");
            log::error!(target: TARGET, "the new process is gone: {lost} lost");
        }
        let going_on = counted(count, "open connection goes on", "open connections go on");
        log::info!(target: TARGET, "{going_on} in the new process");
        self.0.moving.tell(Moving::Over);
    }

    /// Returns where the connections of a loop go, if they move. Only the first call for a loop does.
    pub(super) fn leaving(&self, number: usize) -> Option<Leaving> {
        lock(&self.0.loops).get_mut(number)?.leaving.take()
    }

    /// Adds a loop, to be woken when a new process serves. Returns its number.
    pub(super) fn join(&self, waker: Waker) -> usize {
        let mut loops = lock(&self.0.loops);
        loops.push(Loop {
            waker,
            arrived: Vec::new(),
            leaving: None,
        });
        loops.len() - 1
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

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.move_connections();
        let shared = &self.0.0;
        let mut attempt = lock(&shared.attempt);
        shared.state.store(ENDED, Ordering::SeqCst);
        if attempt.take().is_some() {
            log::warn!(target: TARGET, "not restarted: {ASKED}");
        }
        shared.pid_file.iter().for_each(PidFile::remove);
    }
}
