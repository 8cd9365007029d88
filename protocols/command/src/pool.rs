//! The programs that run and wait: how many, on which threads, and their end.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serveloop::service::{self, Offload, OffloadLimits, Rejection};

use crate::LOG_TARGET;
use crate::job::Job;
use crate::memory_quota::{MemoryQuota, Share};
use crate::outcome::{Outcome, Report};
use crate::running::run;
use crate::settings::Settings;

/// How long to wait for killed programs.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs up to `max_running` programs, each on its own thread. Up to `max_waiting` more wait in the
/// order in which they came.
#[derive(Debug)]
pub(crate) struct Pool {
    settings: Arc<Settings>,
    store: Arc<MemoryQuota>,
    threads: Offload,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: Vec<Arc<Job>>,
    is_ended: bool,
}

/// The report of a program that runs or waits. Dropping it cancels one that waits.
pub(crate) type Pending = service::Job<Report>;

impl Pool {
    /// Makes a pool whose programs' output, until clients take it, may be `max_kept` bytes in all.
    pub(crate) fn new(settings: Arc<Settings>, max_kept: usize) -> Arc<Self> {
        let threads = Offload::new(OffloadLimits {
            max_threads: settings.max_running,
            max_waiting: settings.max_waiting,
            ..OffloadLimits::default()
        });
        Arc::new(Self {
            settings,
            store: MemoryQuota::new(max_kept),
            threads,
            state: Mutex::default(),
        })
    }

    /// Runs a program now, or queues it. Returns the outcome if the program can neither run nor wait.
    pub(crate) fn submit(self: &Arc<Self>, job: &Arc<Job>) -> Result<Pending, Outcome> {
        if self.store.is_full() {
            return Err(Outcome::Full(self.store.max()));
        }
        self.submit_with(job, run)
    }

    fn submit_with(
        self: &Arc<Self>,
        job: &Arc<Job>,
        run: impl FnOnce(&Job, &Settings, Share) -> Report + Send + 'static,
    ) -> Result<Pending, Outcome> {
        let (pool, own) = (Arc::clone(self), Arc::clone(job));
        let work = move || pool.work(&own, run);
        let submitted = self.threads.submit(job.waker().clone(), work);
        submitted.map_err(|rejected| match rejected.reason() {
            Rejection::Full { running, waiting } => Outcome::Busy(running + waiting),
            Rejection::NoThread(error) => Outcome::NotStarted(error.to_string()),
            reason => Outcome::NotStarted(reason.to_string()),
        })
    }

    /// Kills all programs, and waits at most [`PATIENCE`] until they are reaped.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.is_ended = true;
        for job in &state.running {
            job.cancel();
        }
        drop(state);
        self.threads.end(PATIENCE);
    }

    /// Runs a program on this thread, which outlives it: on Linux, programs are killed when the thread
    /// that started them ends. A panic of `run` kills the program, and its client is told.
    fn work(&self, job: &Arc<Job>, run: impl FnOnce(&Job, &Settings, Share) -> Report) -> Report {
        let mut state = self.state();
        state.running.push(Arc::clone(job));
        if state.is_ended {
            job.cancel();
        }
        drop(state);

        let run = || run(job, &self.settings, self.store.share());
        let report = panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| panicked(job));
        let mut state = self.state();
        state.running.retain(|other| !Arc::ptr_eq(other, job));
        report
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills the program of a job whose run panicked, and returns its report. The output is lost.
fn panicked(job: &Job) -> Report {
    log::error!(target: LOG_TARGET, "the thread of a program panicked");
    job.kill_and_reap();
    Report::refused(Outcome::NotStarted("its thread panicked".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;

    use rustix::io::Errno;
    use rustix::process::Pid;
    use serveloop::driver::{Mailbox, Wakers};

    use super::*;

    /// How long something may take that is quick.
    const AT_MOST: Option<Duration> = Some(Duration::from_secs(30));

    fn job() -> Arc<Job> {
        let waker = Mailbox::new(Box::new(|| ())).waker(1);
        Arc::new(Job::new("/bin/true".into(), Box::default(), waker))
    }

    fn pool() -> Arc<Pool> {
        let settings = Settings {
            max_running: 1,
            ..Settings::default()
        };
        Pool::new(Arc::new(settings), 100)
    }

    #[track_caller]
    fn outcome(pending: Pending) -> Outcome {
        let report = pending.wait(AT_MOST).expect("it ends");
        report.expect("a panic is a report too").outcome
    }

    #[test]
    fn a_panic_ends_one_program_and_not_its_slot() {
        let pool = pool();
        let (say, started) = mpsc::channel();
        let before = |_: &Job, _: &Settings, mut share: Share| -> Report {
            assert_eq!(share.grow(60), 60);
            panic!("before it starts");
        };
        let after = move |job: &Job, _: &Settings, mut share: Share| -> Report {
            assert_eq!(share.grow(60), 60);
            let child = Command::new("sleep").arg("60").spawn().unwrap();
            job.note_started(Pid::from_child(&child));
            say.send(child).unwrap();
            panic!("after its start");
        };
        let well = |_: &Job, _: &Settings, _: Share| Report::refused(Outcome::Exited(0));

        let first = pool.submit_with(&job(), before).unwrap();
        let second = pool.submit_with(&job(), after).unwrap();
        let third = pool.submit_with(&job(), well).unwrap();
        for pending in [first, second] {
            let expected = Outcome::NotStarted("its thread panicked".to_owned());
            assert_eq!(outcome(pending), expected);
        }
        assert_eq!(outcome(third), Outcome::Exited(0));

        // The pool has reaped the program, so that nothing is left to wait for.
        let error = started.recv().unwrap().wait().unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::CHILD));
        assert!(pool.state().running.is_empty());
        assert_eq!(pool.store.share().grow(100), 100);
    }

    /// A job that a thread has taken when the pool ends is cancelled, even if it comes to its program
    /// later.
    #[test]
    fn what_begins_while_the_pool_ends_is_killed() {
        let pool = pool();
        pool.state().is_ended = true;
        let cancelled = |job: &Job, _: &Settings, _: Share| {
            let is_cancelled = job.is_cancelled();
            Report::refused(Outcome::Exited(is_cancelled.into()))
        };
        let pending = pool.submit_with(&job(), cancelled).unwrap();
        assert_eq!(outcome(pending), Outcome::Exited(1));
        pool.end();
        assert!(pool.submit(&job()).is_err());
    }
}
