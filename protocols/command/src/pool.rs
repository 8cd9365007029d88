//! A pool that limits how many programs run and wait.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

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
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: Vec<Arc<Job>>,
    waiting: VecDeque<Arc<Job>>,
}

impl Pool {
    /// Makes a pool whose programs' output, until clients take it, may be `max_kept` bytes in all.
    pub(crate) fn new(settings: Arc<Settings>, max_kept: usize) -> Arc<Self> {
        Arc::new(Self {
            settings,
            store: MemoryQuota::new(max_kept),
            state: Mutex::default(),
            idle: Condvar::new(),
        })
    }

    /// Runs a program now, or queues it. The job gets the report. Returns the outcome if the
    /// program can neither run nor wait.
    pub(crate) fn submit(self: &Arc<Self>, job: &Arc<Job>) -> Result<(), Outcome> {
        if self.store.is_full() {
            return Err(Outcome::Full(self.store.max()));
        }

        let mut state = self.state();
        if state.running.len() < self.settings.max_running {
            let pool = Arc::clone(self);
            let first = Arc::clone(job);
            let run = move |job: &Job, share| run(job, &pool.settings, share);
            let pool = Arc::clone(self);
            thread::Builder::new()
                .name("program".to_owned())
                .spawn(move || pool.work(first, run))
                .map_err(|error| Outcome::NotStarted(error.to_string()))?;
            state.running.push(Arc::clone(job));
        } else if state.waiting.len() < self.settings.max_waiting {
            state.waiting.push_back(Arc::clone(job));
        } else {
            return Err(Outcome::Busy(state.running.len() + state.waiting.len()));
        }
        Ok(())
    }

    /// Kills the program if it runs, or removes it from the queue if it waits. Does not wait for
    /// its end.
    pub(crate) fn cancel(&self, job: &Arc<Job>) {
        let waits = |state: &mut State| {
            let before = state.waiting.len();
            state.waiting.retain(|other| !Arc::ptr_eq(other, job));
            state.waiting.len() < before
        };

        if waits(&mut self.state()) {
            job.finish(Report::refused(Outcome::Stopped));
        } else {
            job.cancel();
        }
    }

    /// Kills all programs, and waits at most [`PATIENCE`] until they are reaped.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.waiting.clear();
        for job in &state.running {
            job.cancel();
        }
        let busy = |state: &mut State| !state.running.is_empty();
        let waited = self.idle.wait_timeout_while(state, PATIENCE, busy);
        drop(waited);
    }

    /// Runs jobs on one thread until none waits. The thread outlives the programs that it starts,
    /// because on Linux they are killed when it ends. A panic of `run` kills the program, and its
    /// client is told.
    fn work(&self, first: Arc<Job>, run: impl Fn(&Job, Share) -> Report) {
        let mut next = Some(first);
        while let Some(job) = next {
            let share = self.store.share();
            let report = catch(|| run(&job, share)).unwrap_or_else(|| panicked(&job));
            // Replaces the job first, because a client that gets the report may send another
            // request at once.
            next = self.replace(&job);
            // The wake of a driver may panic too. The next job has this thread already.
            catch(|| job.finish(report));
        }
    }

    /// Replaces a finished job with the one that has waited the longest.
    fn replace(&self, job: &Arc<Job>) -> Option<Arc<Job>> {
        let mut state = self.state();
        state.running.retain(|other| !Arc::ptr_eq(other, job));
        let next = state.waiting.pop_front();
        state.running.extend(next.clone());
        if state.running.is_empty() {
            self.idle.notify_all();
        }
        next
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls `work`, and returns `None` if it panics.
fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    panic::catch_unwind(AssertUnwindSafe(work)).ok()
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

    use rustix::io::Errno;
    use rustix::process::Pid;
    use serveloop::driver::{Mailbox, Wakers};

    use super::*;

    fn job(mailbox: &Arc<Mailbox>) -> Arc<Job> {
        let waker = mailbox.waker(1);
        Arc::new(Job::new("/bin/true".into(), Box::default(), waker))
    }

    #[test]
    fn a_panic_ends_one_program_and_not_its_slot() {
        let pool = Pool::new(Arc::default(), 100);
        let mailbox = Mailbox::new(Box::new(|| ()));
        let [first, second, third] = [(); 3].map(|()| job(&mailbox));
        pool.state().running.push(Arc::clone(&first));
        pool.state()
            .waiting
            .extend([Arc::clone(&second), Arc::clone(&third)]);

        let children = Mutex::new(Vec::new());
        pool.work(Arc::clone(&first), |job, mut share| {
            assert!(!std::ptr::eq(job, &raw const *second), "before it starts");
            assert_eq!(share.grow(60), 60);
            if std::ptr::eq(job, &raw const *third) {
                return Report::refused(Outcome::Exited(0));
            }
            let child = Command::new("sleep").arg("60").spawn().unwrap();
            job.note_started(Pid::from_child(&child));
            children.lock().unwrap().push(child);
            panic!("after its start");
        });

        for job in [&first, &second] {
            let outcome = job.take_report().expect("a report").outcome;
            let expected = Outcome::NotStarted("its thread panicked".to_owned());
            assert_eq!(outcome, expected);
        }
        let outcome = third.take_report().expect("a report").outcome;
        assert_eq!(outcome, Outcome::Exited(0));

        // The pool has reaped the program, so that nothing is left to wait for.
        let mut children = children.into_inner().unwrap();
        assert_eq!(children.len(), 1);
        let error = children[0].wait().unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::CHILD));
        assert!(pool.state().running.is_empty());
        assert_eq!(pool.store.share().grow(100), 100);
    }

    #[test]
    fn a_panic_while_a_client_is_told_does_not_end_the_thread() {
        let pool = Pool::new(Arc::default(), 100);
        let panics = Mailbox::new(Box::new(|| panic!("of the driver")));
        let first = job(&panics);
        let second = job(&Mailbox::new(Box::new(|| ())));
        pool.state().running.push(Arc::clone(&first));
        pool.state().waiting.push_back(Arc::clone(&second));

        pool.work(first, |_, _| Report::refused(Outcome::Exited(0)));
        assert!(second.take_report().is_some());
        assert!(pool.state().running.is_empty());
    }
}
