//! One job of a pool: its work on a thread, and its result for whoever asked for it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use std::{error, fmt, mem};

use crate::error::ProtocolError;
use crate::waker::Wake;
use crate::waker::sync::{Condvar, Mutex, lock, wait_while};

/// A job of an [`Offload`](crate::service::Offload), and where its result comes. Dropping it cancels
/// the job if it has not begun; work that runs goes on, and its result is dropped.
///
/// See [`Offload`](crate::service::Offload) for an example.
#[must_use = "dropping a job cancels it"]
pub struct Job<T> {
    outcome: Arc<Slot<T>>,
    queue: Arc<dyn Cancel>,
    number: u64,
}

/// Removes jobs that have not begun.
pub(super) trait Cancel: Send + Sync {
    /// Drops the job with that number, if it waits. Returns whether it did.
    fn cancel(&self, number: u64) -> bool;
}

/// Where a result is left. `None` until the job is done, and after the result was taken.
struct Slot<T> {
    outcome: Mutex<Option<Result<T, JobError>>>,
    filled: Condvar,
}

impl<T> Job<T> {
    /// Takes the result, or returns `None` if the job is not done yet or the result was taken
    /// before. Does not wait.
    ///
    /// # Errors
    /// The result is an error if the work panicked, or if the pool was ended before it began.
    pub fn take(&mut self) -> Option<Result<T, JobError>> {
        lock(&self.outcome.outcome).take()
    }

    /// Waits until the job is done, for up to `patience`, or without limit if that is `None`. Returns
    /// `None` if it is not done by then, and cancels it. For threads that may block: a protocol's
    /// methods must not.
    ///
    /// # Errors
    /// As of [`take`](Self::take).
    ///
    /// ```
    /// use serveloop::service::Offload;
    /// use std::time::Duration;
    ///
    /// let pool = Offload::default();
    /// let sum = pool.submit(|| (), || (1..=100).sum::<u32>())?;
    /// assert_eq!(sum.wait(Some(Duration::from_secs(60))), Some(Ok(5050)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn wait(self, patience: Option<Duration>) -> Option<Result<T, JobError>> {
        let Slot { outcome, filled } = &*self.outcome;
        wait_while(outcome, filled, patience, |outcome| outcome.is_none()).take()
    }

    /// Cancels the job if it has not begun, and returns whether it was in time. Its result is then
    /// [`JobError::Cancelled`], of which nobody is woken.
    pub fn cancel(&mut self) -> bool {
        let is_cancelled = self.queue.cancel(self.number);
        if is_cancelled {
            *lock(&self.outcome.outcome) = Some(Err(JobError::Cancelled));
        }
        is_cancelled
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        self.queue.cancel(self.number);
    }
}

impl<T> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// Why a job has no result.
///
/// ```
/// use serveloop::service::{JobError, Offload};
///
/// let pool = Offload::inline();
/// let mut job = pool.submit(|| (), || -> u32 { panic!("at work") })?;
/// assert_eq!(job.take(), Some(Err(JobError::Panicked("at work".to_owned()))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobError {
    /// The work panicked, with this text. Does not occur in a program built with
    /// `panic = "abort"`, which ends.
    Panicked(String),
    /// The job was [cancelled](Job::cancel) before the work began.
    Cancelled,
    /// The pool was [ended](crate::service::Offload::end) before the work began.
    Ended,
}

impl JobError {
    fn of_panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::Panicked(text.unwrap_or("a value that is no text").to_owned())
    }
}

impl error::Error for JobError {}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(text) => write!(f, "the job panicked: {text}"),
            Self::Cancelled => f.write_str("the job was cancelled before it began"),
            Self::Ended => f.write_str("the pool was ended before the job began"),
        }
    }
}

/// Lets a protocol use `?` with the result of a job.
impl From<JobError> for ProtocolError {
    fn from(error: JobError) -> Self {
        Self::Other(error.into())
    }
}

/// A job as the pool keeps it, whatever its work and result are.
pub(super) trait Task: Send {
    /// Does the work, and keeps the result. A panic is kept as an error.
    fn run(&mut self);

    /// Leaves the result where the job finds it, or [`JobError::Ended`] if there is none, and wakes
    /// whoever waits for it.
    fn deliver(self: Box<Self>);
}

struct Work<F, T, W> {
    work: Option<F>,
    done: Option<Result<T, JobError>>,
    outcome: Arc<Slot<T>>,
    wake: W,
}

/// Makes a job that is the queue's under that number.
pub(super) fn job<F, T, W>(
    (wake, work): (W, F),
    queue: Arc<dyn Cancel>,
    number: u64,
) -> (Job<T>, Box<dyn Task>)
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
    W: Wake + 'static,
{
    let outcome = Arc::new(Slot {
        outcome: Mutex::new(None),
        filled: Condvar::new(),
    });
    let task = Work {
        work: Some(work),
        done: None,
        outcome: Arc::clone(&outcome),
        wake,
    };
    let job = Job {
        outcome,
        queue,
        number,
    };
    (job, Box::new(task))
}

impl<F, T, W> Task for Work<F, T, W>
where
    F: FnOnce() -> T + Send,
    T: Send,
    W: Wake,
{
    fn run(&mut self) {
        if let Some(work) = self.work.take() {
            let done = catch_unwind(AssertUnwindSafe(work));
            self.done = Some(done.map_err(|payload| {
                let error = JobError::of_panic(&*payload);
                drop_quietly(payload);
                error
            }));
        }
    }

    fn deliver(self: Box<Self>) {
        let Self {
            work,
            done,
            outcome,
            wake,
        } = *self;
        drop_quietly(work);

        let before = lock(&outcome.outcome).replace(done.unwrap_or(Err(JobError::Ended)));
        debug_assert!(before.is_none(), "a job is done once");
        outcome.filled.notify_all();
        // A driver's own way of waking is a user's code.
        quietly(|| wake.wake());
        // If the job was given up meanwhile, this drops its result.
        drop_quietly((outcome, wake));
    }
}

/// Drops a value of a user's type, whose `Drop` may panic.
pub(super) fn drop_quietly<T>(value: T) {
    quietly(|| drop(value));
}

pub(super) fn quietly(act: impl FnOnce()) {
    // What a panic carries may panic when it is dropped, so it is not.
    let _ = catch_unwind(AssertUnwindSafe(act)).map_err(mem::forget);
}
