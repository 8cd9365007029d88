//! A program to run, shared by the connection that asks for it and the thread that runs it.

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

use crate::outcome::{Outcome, Report};
use crate::shlex;
use crate::shlex::Unsplit;

/// The process id that inherits all orphans, such as that of the first process of a container.
const FIRST_PROCESS: u32 = 1;

/// How long to wait for killed orphans, and how often to check.
const ORPHANS_MOST: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// How many more bytes of output come before the connection is woken to count them.
const TOLD_EACH: usize = 64 << 10;

/// A requested program. Wakes its connection while output comes that counts towards the connection's
/// memory.
///
/// Keeps the request and not its words, because each word takes several times the memory of its
/// letters.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) program: PathBuf,
    request: Box<[u8]>,
    waker: Waker,
    asked: Instant,
    /// The number of bytes of output so far.
    collected: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The child from its start until it is reaped, as long as its id is its own.
    child: Option<Pid>,
    is_cancelled: bool,
}

impl Job {
    pub(crate) fn new(program: PathBuf, request: Box<[u8]>, waker: Waker) -> Self {
        Self {
            program,
            request,
            waker,
            asked: Instant::now(),
            collected: AtomicUsize::new(0),
            state: Mutex::default(),
        }
    }

    /// Returns the program's arguments, the zeroth included.
    pub(crate) fn words(&self) -> Result<Vec<OsString>, Unsplit> {
        shlex::split(&self.request)
    }

    /// Returns what wakes the connection.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Returns the words joined by spaces, for the log.
    pub(crate) fn request(&self) -> Vec<u8> {
        let words = self.words().unwrap_or_default();
        words.join(OsStr::new(" ")).into_vec()
    }

    /// Returns the bytes of memory that this takes, its output not counted.
    pub(crate) fn kept(&self) -> usize {
        size_of::<Self>() + self.program.as_os_str().len() + self.request.len()
    }

    /// Returns the bytes of output that the program has written, as last noted by
    /// [`Job::note_collected`].
    pub(crate) fn collected(&self) -> usize {
        self.collected.load(Ordering::Relaxed)
    }

    /// Notes the bytes of output so far, and wakes the connection for every [`TOLD_EACH`] more.
    pub(crate) fn note_collected(&self, bytes: usize) {
        if bytes >= self.collected() + TOLD_EACH {
            self.collected.store(bytes, Ordering::Relaxed);
            self.waker.wake();
        }
    }

    /// Kills the program and all its processes, now or as soon as it starts. Does not wait.
    pub(crate) fn cancel(&self) {
        let mut state = self.state();
        state.is_cancelled = true;
        kill(state.child);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.state().is_cancelled
    }

    /// Notes the started child, and kills it at once if the job is cancelled already.
    pub(crate) fn note_started(&self, child: Pid) {
        let mut state = self.state();
        state.child = Some(child);
        if state.is_cancelled {
            kill(state.child);
        }
    }

    /// Sends SIGTERM to all processes of the program.
    pub(crate) fn terminate(&self) {
        if let Some(child) = self.state().child {
            // A child that has just started is not in its own group yet.
            if kill_process_group(child, Signal::TERM).is_err() {
                let _ = kill_process(child, Signal::TERM);
            }
        }
    }

    /// Kills all processes of the program.
    pub(crate) fn kill(&self) {
        kill(self.state().child);
    }

    /// Kills what an ended child left behind, then reaps it and returns its status. In this order,
    /// because another group may get the same number as soon as the child is reaped.
    pub(crate) fn reap(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let mut state = self.state();
        kill(state.child.take());
        let status = child.wait();
        drop(state);

        if process::id() == FIRST_PROCESS {
            reap_orphans(Pid::from_child(child));
        }
        status
    }

    /// Kills the program, if one runs, and reaps it for a caller that no longer has the child.
    pub(crate) fn kill_and_reap(&self) {
        let mut state = self.state();
        let Some(child) = state.child.take() else {
            return;
        };

        kill(Some(child));
        let wait = || waitid(WaitId::Pid(child), WaitIdOptions::EXITED);
        while wait().is_err_and(|error| error == Errno::INTR) {}
    }

    /// Returns the report of a job whose connection has ended.
    pub(crate) fn abandoned(&self) -> Report {
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

/// Reaps the orphans of a killed group that their dead parent left to us. Gives up after
/// [`ORPHANS_MOST`], because other processes of the session can join the group at any time. While
/// the group has a child of ours, no other group gets its number.
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

/// Kills the process first and then its group. The process is not in its own group until it has
/// made one, and once killed it can start no others.
fn kill(child: Option<Pid>) {
    if let Some(child) = child {
        let _ = kill_process(child, Signal::KILL);
        let _ = kill_process_group(child, Signal::KILL);
    }
}
