//! One program to run, between the connection that wants it and the thread that runs it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{self, Child, ExitStatus};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};
use serveloop::Waker;

use super::outcome::{Outcome, Report};

/// The first process of a container, to which the system leaves all orphans.
const FIRST_PROCESS: u32 = 1;

/// A program and its arguments, the zeroth included, and what becomes of them. The connection is
/// woken when there is a report.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) program: PathBuf,
    pub(super) words: Vec<OsString>,
    waker: Waker,
    asked: Instant,
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The child, from when it was started until it is reaped: as long as its id is its own.
    child: Option<Pid>,
    is_cancelled: bool,
    is_over: bool,
    report: Option<Report>,
}

impl Job {
    pub(super) fn new(program: PathBuf, words: Vec<OsString>, waker: Waker) -> Self {
        Self {
            program,
            words,
            waker,
            asked: Instant::now(),
            state: Mutex::default(),
            over: Condvar::new(),
        }
    }

    /// The words, as far as one line can show them.
    pub(super) fn request(&self) -> Vec<u8> {
        self.words.join(OsStr::new(" ")).into_vec()
    }

    /// Kills the program with all its processes now, or when it starts. Does not wait.
    pub(super) fn cancel(&self) {
        let mut state = self.state();
        state.is_cancelled = true;
        kill(state.child);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.state().is_cancelled
    }

    /// The child runs. If nobody wants it any more, not for long.
    pub(super) fn note_started(&self, child: Pid) {
        let mut state = self.state();
        state.child = Some(child);
        if state.is_cancelled {
            kill(state.child);
        }
    }

    /// Asks all processes of the program to end.
    pub(super) fn terminate(&self) {
        if let Some(child) = self.state().child {
            // It has no group of its own yet if it has just been started.
            if kill_process_group(child, Signal::TERM).is_err() {
                let _ = kill_process(child, Signal::TERM);
            }
        }
    }

    /// Ends all processes of the program.
    pub(super) fn kill(&self) {
        kill(self.state().child);
    }

    /// Takes the status of a child that has ended, and ends what it left behind. That comes first:
    /// the group's number can be somebody else's as soon as the child is reaped.
    pub(super) fn reap(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let mut state = self.state();
        kill(state.child.take());
        let status = child.wait();
        drop(state);
        if process::id() == FIRST_PROCESS {
            reap_orphans(Pid::from_child(child));
        }
        status
    }

    /// Nothing more happens. Wakes the connection.
    pub(super) fn finish(&self, report: Report) {
        let mut state = self.state();
        state.is_over = true;
        state.report = Some(report);
        drop(state);
        self.over.notify_all();
        self.waker.wake();
    }

    /// What became of it, once.
    pub(super) fn take_report(&self) -> Option<Report> {
        self.state().report.take()
    }

    /// What to say of it when nobody waits for its report.
    pub(super) fn abandoned(&self) -> Report {
        Report {
            outcome: Outcome::Abandoned,
            output: Vec::new(),
            took: Some(self.asked.elapsed()),
        }
    }

    /// Waits until nothing more happens, but not for ever: the system may keep a process.
    pub(super) fn wait(&self, patience: Duration) {
        let state = self.state();
        let waited = self
            .over
            .wait_timeout_while(state, patience, |state| !state.is_over);
        drop(waited);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes notice of the ends of those in a group that was killed, whom a dead parent left to us.
fn reap_orphans(group: Pid) {
    let orphans = WaitId::Pgid(Some(group));
    while retry_on_intr(|| waitid(orphans.clone(), WaitIdOptions::EXITED)).is_ok() {}
}

/// First the process itself, which is in no group of its own until it has made one, and then can
/// start no others any more.
fn kill(child: Option<Pid>) {
    if let Some(child) = child {
        let _ = kill_process(child, Signal::KILL);
        let _ = kill_process_group(child, Signal::KILL);
    }
}
