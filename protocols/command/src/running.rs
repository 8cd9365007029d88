//! The run of one program, on a thread that does nothing else.

use std::io::{self, ErrorKind, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use signal_hook::consts::SIGCHLD;

use crate::confinement::Confinement;
use crate::job::Job;
use crate::launcher;
use crate::memory_quota::Share;
use crate::outcome::{Outcome, Report};
use crate::platform;
use crate::settings::{NEVER, Settings};

/// How often to check whether a program has ended where the system has no descriptor that tells,
/// and to kill again what does not die.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// The capacity of a pipe, so that one read can take all of it.
const PIECE: usize = 64 << 10;

/// How long to read the output that was written before the program's end, while a process that left
/// the group holds the pipe open.
const REST: Duration = Duration::from_millis(100);

/// A program that has been started, until it is reaped.
struct Running<'a> {
    job: &'a Job,
    settings: &'a Settings,
    child: Child,
    pid: Pid,
    /// Becomes readable when the child has ended, where the system has such a descriptor.
    exit: Option<OwnedFd>,
    /// Standard output and standard error in one pipe, so that their order is that of arrival.
    /// `None` when nothing more comes or is wanted.
    output: Option<PipeReader>,
    /// Tells why the program could not be started. The child's end closes when the program starts.
    status: PipeReader,
    collected: Vec<u8>,
    /// The share of the memory quota that `collected` takes.
    share: Share,
    /// When to act on a program that still runs.
    due: Instant,
    timed_out: bool,
    /// Why the output is incomplete.
    cut_off: Option<Outcome>,
}

/// Runs a program until it ends. Its output takes from `share` as it comes.
pub(crate) fn run(job: &Job, settings: &Settings, share: Share) -> Report {
    let began = Instant::now();
    let mut report = match Running::start(job, settings, share, began) {
        Ok(running) => running.supervise(),
        Err(error) => Report::refused(Outcome::NotStarted(error.to_string())),
    };

    report.took = Some(began.elapsed());
    report
}

/// Makes the system keep ended children until they are reaped. If the process that started us had
/// SIGCHLD ignored, the system does not, and another process could get a child's id at any time.
///
/// # Errors
/// Fails if the system refuses.
pub(crate) fn keep_children() -> io::Result<()> {
    signal_hook::flag::register(SIGCHLD, Arc::default())?;
    Ok(())
}

impl<'a> Running<'a> {
    fn start(job: &'a Job, settings: &'a Settings, share: Share, now: Instant) -> io::Result<Self> {
        let (output, writer) = io::pipe()?;
        let (status, status_writer) = io::pipe()?;
        let words = job
            .words()
            .map_err(|error| io::Error::other(error.to_string()))?;

        let confinement = Confinement::of(settings);
        let mut command = launcher::command(&confinement, &job.program, &words)?;
        command
            .stdin(status_writer)
            .stdout(writer.try_clone()?)
            .stderr(writer);

        let child = command.spawn()?;
        // The command holds the other ends of the pipes.
        drop(command);
        let pid = Pid::from_child(&child);
        job.note_started(pid);

        Ok(Self {
            job,
            settings,
            child,
            pid,
            exit: platform::exit_of(pid),
            output: Some(output),
            status,
            collected: Vec::new(),
            share,
            due: now + settings.timeout.unwrap_or(NEVER),
            timed_out: false,
            cut_off: None,
        })
    }

    fn supervise(mut self) -> Report {
        let mut piece = vec![0; PIECE];
        while !self.has_ended() {
            self.enforce_deadline();
            if self.wait(self.due) {
                self.collect(&mut piece);
            }
        }

        let status = self.job.reap(&mut self.child);
        self.collect_rest(&mut piece);
        let outcome = match status {
            Ok(status) => self.judge(Outcome::of_process(status)),
            Err(error) => Outcome::NotStarted(error.to_string()),
        };

        Report {
            outcome,
            output: self.collected,
            share: Some(self.share),
            took: None,
        }
    }

    /// Returns whether the child has ended, without reaping it.
    fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(self.pid), look) {
            Ok(status) => status.is_some(),
            // There is no such child, which reaping will report too.
            Err(error) => error != rustix::io::Errno::INTR,
        }
    }

    /// Sends SIGTERM at the first deadline, and SIGKILL repeatedly after the next.
    fn enforce_deadline(&mut self) {
        let now = Instant::now();
        if now < self.due {
            return;
        }

        if self.timed_out {
            self.job.kill();
            self.due = now + LOOK_AGAIN;
        } else {
            self.timed_out = true;
            self.job.terminate();
            self.due = now + self.settings.kill_after;
        }
    }

    /// Waits for output or the child's end, at most until `due`. Returns whether there is something
    /// to read.
    fn wait(&self, due: Instant) -> bool {
        let mut patience = due.saturating_duration_since(Instant::now());
        if self.exit.is_none() {
            patience = patience.min(LOOK_AGAIN);
        }

        let sources = [
            self.output.as_ref().map(AsFd::as_fd),
            self.exit.as_ref().map(AsFd::as_fd),
        ];
        let mut polled: Vec<_> = sources
            .into_iter()
            .flatten()
            .map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN))
            .collect();
        // A wait that is too long for the system to express has no timeout.
        let timeout = Timespec::try_from(patience).ok();
        let ready = poll(&mut polled, timeout.as_ref()).is_ok_and(|count| count > 0);
        ready && self.output.is_some() && !polled[0].revents().is_empty()
    }

    fn collect(&mut self, piece: &mut [u8]) {
        let Some(output) = &mut self.output else {
            return;
        };
        match output.read(piece) {
            Ok(count) if count > 0 => self.keep(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => self.output = None,
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = self.settings.max_output - self.collected.len();
        let mut fits = self.share.grow(piece.len().min(room));
        if !self.make_room(fits, room) {
            self.share.shrink(fits);
            fits = 0;
        }

        self.collected.extend(&piece[..fits]);
        self.job.note_collected(self.collected.len());

        if fits < piece.len() {
            self.cut_off = Some(if fits == room {
                Outcome::CutOff(self.settings.max_output)
            } else {
                Outcome::Crowded(self.collected.len(), self.share.max())
            });
            self.output = None;
            self.job.kill();
        }
    }

    /// Reserves room for `more` bytes, of at most `most` that can still come. Returns false if
    /// there is no memory. A vector that grows by itself would take up to twice the memory, and
    /// abort the server when there is none.
    fn make_room(&mut self, more: usize, most: usize) -> bool {
        let spare = self.collected.capacity() - self.collected.len();
        let wanted = more.max(PIECE.min(most));
        spare >= more || self.collected.try_reserve_exact(wanted).is_ok()
    }

    /// Reads what is left in the pipe, for at most [`REST`], because its end may never come.
    fn collect_rest(&mut self, piece: &mut [u8]) {
        self.exit = None;
        let due = Instant::now() + REST;
        while self.output.is_some() && Instant::now() < due {
            if self.wait(due) {
                self.collect(piece);
            }
        }
    }

    /// Returns the outcome of a process that ended as `ended`. What the server did to it takes
    /// precedence.
    fn judge(&mut self, ended: Outcome) -> Outcome {
        let mut problem = String::new();
        // A read error leaves the text empty or incomplete.
        let _ = self.status.read_to_string(&mut problem);

        if !problem.is_empty() {
            Outcome::NotStarted(problem)
        } else if let Some(cut_off) = self.cut_off.take() {
            cut_off
        } else if let Some(timeout) = self.settings.timeout.filter(|_| self.timed_out) {
            Outcome::TimedOut(timeout)
        } else if self.job.is_cancelled() {
            Outcome::Stopped
        } else {
            ended
        }
    }
}
