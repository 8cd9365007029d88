//! One program to run, between the connection that wants it and the thread that runs it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{self, Child, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};
use serveloop::Waker;

use crate::protocols::command::outcome::{Outcome, Report};
use crate::protocols::command::shlex;
use crate::protocols::command::shlex::Unsplit;

/// The first process of a container, to which the system leaves all orphans.
const FIRST_PROCESS: u32 = 1;

/// How long to wait for orphans that were killed, and how often to look.
const ORPHANS_MOST: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// How much output comes before the connection is told of it again.
const TOLD_EACH: usize = 64 << 10;

/// A program that a request names, and what becomes of it. The connection is woken when there is a
/// report, and while output comes that it has to answer for.
///
/// It keeps the request and not its words: each of those takes several times the memory of a letter.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) program: PathBuf,
    request: Box<[u8]>,
    waker: Waker,
    asked: Instant,
    /// How many bytes of output there are.
    collected: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The child, from when it was started until it is reaped: as long as its id is its own.
    child: Option<Pid>,
    is_cancelled: bool,
    report: Option<Report>,
}

impl Job {
    pub(super) fn new(program: PathBuf, request: Box<[u8]>, waker: Waker) -> Self {
        Self {
            program,
            request,
            waker,
            asked: Instant::now(),
            collected: AtomicUsize::new(0),
            state: Mutex::default(),
        }
    }

    /// The program's arguments, the zeroth included.
    pub(super) fn words(&self) -> Result<Vec<OsString>, Unsplit> {
        shlex::split(&self.request)
    }

    /// The words, as far as one line can show them.
    pub(super) fn request(&self) -> Vec<u8> {
        let words = self.words().unwrap_or_default();
        words.join(OsStr::new(" ")).into_vec()
    }

    /// How many bytes of memory it takes, its output not counted.
    pub(super) fn kept(&self) -> usize {
        size_of::<Self>() + self.program.as_os_str().len() + self.request.len()
    }

    /// How many bytes of output the program has written, as far as that is known.
    pub(super) fn collected(&self) -> usize {
        self.collected.load(Ordering::Relaxed)
    }

    /// Notes how many bytes of output there are, and tells the connection now and then.
    pub(super) fn note_collected(&self, bytes: usize) {
        if bytes >= self.collected() + TOLD_EACH {
            self.collected.store(bytes, Ordering::Relaxed);
            self.waker.wake();
        }
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
        self.state().report = Some(report);
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
            share: None,
            took: Some(self.asked.elapsed()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes notice of the ends of those in a group that was killed, whom a dead parent left to us, but
/// does not wait for ever: others of the session can join the group at any time. While we have a
/// child in it, its number is nobody else's.
fn reap_orphans(group: Pid) {
    let due = Instant::now() + ORPHANS_MOST;
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    while Instant::now() < due {
        match waitid(WaitId::Pgid(Some(group)), look) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => {
                let _ = kill_process_group(group, Signal::KILL);
                thread::sleep(LOOK_AGAIN);
            }
            Err(_) => return,
        }
    }
}

/// First the process itself, which is in no group of its own until it has made one, and then can
/// start no others any more.
fn kill(child: Option<Pid>) {
    if let Some(child) = child {
        let _ = kill_process(child, Signal::KILL);
        let _ = kill_process_group(child, Signal::KILL);
    }
}
