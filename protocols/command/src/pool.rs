//! A pool that limits how many programs run and wait.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::job::Job;
use crate::memory_quota::MemoryQuota;
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
            thread::Builder::new()
                .name("program".to_owned())
                .spawn(move || pool.work(first))
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
    /// because on Linux they are killed when it ends.
    fn work(&self, first: Arc<Job>) {
        let mut next = Some(first);
        while let Some(job) = next {
            let report = run(&job, &self.settings, self.store.share());
            // Replaces the job first, because a client that gets the report may send another
            // request at once.
            next = self.replace(&job);
            job.finish(report);
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
