//! A bounded pool of threads for work that blocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::{error, fmt, io, process};

use crate::error::{ProtocolError, counted};
use crate::service::job::{Cancel, Job, Task, drop_quietly, job};
use crate::waker::Wake;
use crate::waker::sync::{AtomicU32, Condvar, Mutex, MutexGuard, Ordering, lock, wait_while};

#[cfg(serveloop_loom)]
use loom::thread;
#[cfg(not(serveloop_loom))]
use std::thread;

/// A bounded pool of threads for what blocks: files, name servers, databases, long computations.
///
/// A protocol's methods must not block. It gives such work to a pool instead, with its waker, and
/// takes the result in [`woken`](crate::Protocol::woken). If the connection is lost meanwhile, its
/// [`Job`] is dropped, which cancels work that has not begun. Clones are the same pool, so loops,
/// threads and factories share one.
///
/// ```
/// use serveloop::service::{Job, Offload};
/// use serveloop::testing::MemorySession;
/// use serveloop::{Protocol, Result, Transport};
///
/// /// Answers with the sum of all numbers up to each byte, and takes its time.
/// struct Sums {
///     pool: Offload,
///     job: Option<Job<u64>>,
/// }
///
/// impl Protocol for Sums {
///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
///         let most = u64::from(data[0]);
///         self.job = Some(self.pool.submit(transport.waker(), move || (0..=most).sum())?);
///         transport.pause_reading();
///         Ok(1)
///     }
///
///     fn woken(&mut self, transport: &mut Transport<'_>) {
///         if let Some(result) = self.job.as_mut().and_then(Job::take) {
///             let text = result.map_or_else(|error| error.to_string(), |sum| sum.to_string());
///             transport.write(text.as_bytes());
///             transport.resume_reading();
///         }
///     }
/// }
///
/// // In a test the pool has no threads: jobs run when the test says so.
/// let pool = Offload::manual();
/// let mut session = MemorySession::new(Sums { pool: pool.clone(), job: None });
/// session.receive(&[4]);
/// assert_eq!(session.sent(), b"");
/// pool.run_one();
/// session.run();
/// assert_eq!(session.sent(), b"10");
/// ```
///
/// Threads start when they are needed and end when they have been idle for a while. A panic is the
/// error of its own job, and the thread goes on.
///
/// When the last clone is dropped, jobs that wait are dropped too ([`JobError::Ended`]) and idle
/// threads end. Threads that are at work are *detached*: their work goes on, as long as the process
/// does. Use [`end`](Self::end) to wait for them.
///
/// A datagram's session ends at once, and with it its job: a datagram cannot be answered from a pool.
/// [`serve_forking`](crate::Server::serve_forking) refuses connections while its process has a second
/// thread, so there only the children may use a pool: each has one of its own. In a process that was
/// forked otherwise while its pool had threads, the pool refuses every job, because threads are not
/// forked.
///
/// [`JobError::Ended`]: crate::service::JobError::Ended
#[derive(Clone)]
pub struct Offload {
    handle: Arc<Handle>,
}

/// The limits of an [`Offload`].
///
/// ```
/// use serveloop::service::{Offload, OffloadLimits};
///
/// // A disk that two threads keep busy.
/// let limits = OffloadLimits { max_threads: 2, ..OffloadLimits::default() };
/// let pool = Offload::new(limits);
/// # let _ = pool;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffloadLimits {
    /// The most threads, and so the most jobs that run at a time. 0 counts as 1. Default: 4.
    pub max_threads: usize,
    /// The most jobs that wait, in addition to those that run. One more is refused. Default: 256.
    pub max_waiting: usize,
    /// How long a thread waits for work before it ends, or `None` for as long as the pool lives.
    /// Default: 10 s.
    pub idle_timeout: Option<Duration>,
    /// The size of a thread's stack in bytes, or `None` for the size that Rust's threads have.
    /// Default: `None`.
    pub stack_size: Option<usize>,
}

impl Default for OffloadLimits {
    fn default() -> Self {
        Self {
            max_threads: 4,
            max_waiting: 256,
            idle_timeout: Some(Duration::from_secs(10)),
            stack_size: None,
        }
    }
}

impl Offload {
    /// Creates a pool without threads, which start when there is work for them.
    #[must_use]
    pub fn new(limits: OffloadLimits) -> Self {
        Self::with(limits, Place::Threads)
    }

    /// Creates a pool for tests that runs each job when it is submitted, on the thread that submits
    /// it, and wakes its session at once. For whole servers in a simulation, where time is virtual.
    ///
    /// ```
    /// use serveloop::service::Offload;
    ///
    /// let mut job = Offload::inline().submit(|| (), || 2 + 2)?;
    /// assert_eq!(job.take(), Some(Ok(4)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn inline() -> Self {
        Self::with(OffloadLimits::default(), Place::Inline)
    }

    /// Creates a pool for tests whose jobs run only in [`run_one`](Self::run_one), so that a test
    /// decides when they are done. It has the default limits; see
    /// [`manual_with`](Self::manual_with).
    #[must_use]
    pub fn manual() -> Self {
        Self::manual_with(OffloadLimits::default())
    }

    /// Creates a pool like [`manual`](Self::manual) with other limits, to test what happens when it
    /// is full: `max_threads` and `max_waiting` jobs together can wait for `run_one`.
    #[must_use]
    pub fn manual_with(limits: OffloadLimits) -> Self {
        Self::with(limits, Place::Manual)
    }

    fn with(limits: OffloadLimits, place: Place) -> Self {
        let pool = Arc::new(Pool {
            limits,
            place,
            process: AtomicU32::new(0),
            state: Mutex::new(State::default()),
            ready: Condvar::new(),
            finished: Condvar::new(),
        });
        Self {
            handle: Arc::new(Handle(pool)),
        }
    }

    /// Gives `work` to the pool: it runs on one of its threads, after the jobs that were submitted
    /// before have begun. When it is done, `wake` is called on that thread: usually the
    /// [`Waker`](crate::Waker) of the session that takes the result, or a function that must not
    /// block. Does not wait, but may start a thread.
    ///
    /// # Errors
    /// Fails if the pool is full or was ended, and if the system has no thread for the first job. The
    /// error has the reason and `work` itself. In a protocol, `?` ends the connection.
    ///
    /// ```
    /// use serveloop::service::{Offload, OffloadLimits};
    ///
    /// let pool = Offload::manual_with(OffloadLimits { max_threads: 1, max_waiting: 0, ..OffloadLimits::default() });
    /// let first = pool.submit(|| (), || 1)?;
    /// let full = pool.submit(|| (), || 2).unwrap_err();
    /// assert_eq!(full.to_string(), "the pool is full: 0 jobs run and 1 waits");
    ///
    /// // A job that is given up makes room for another.
    /// drop(first);
    /// let mut second = pool.submit(|| (), full.into_work())?;
    /// pool.run_one();
    /// assert_eq!(second.take(), Some(Ok(2)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit<F, T, W>(&self, wake: W, work: F) -> Result<Job<T>, Rejected<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
        W: Wake + 'static,
    {
        let pool = &self.handle.0;
        if pool.is_elsewhere() {
            let reason = Rejection::Forked;
            return Err(Rejected { work, reason });
        }

        let mut state = pool.state();
        if let Err(reason) = pool.admit(&mut state) {
            return Err(Rejected { work, reason });
        }

        let number = state.next;
        state.next += 1;
        let (job, task) = job((wake, work), Arc::clone(pool) as Arc<dyn Cancel>, number);
        state.waiting.insert(number, task);
        drop(state);

        match pool.place {
            Place::Threads => pool.ready.notify_one(),
            Place::Inline => drop(pool.run_one()),
            Place::Manual => {}
        }
        Ok(job)
    }

    /// Runs the job that has waited the longest on this thread, and wakes its session. Returns false
    /// if none waits. This is how jobs of a [`manual`](Self::manual) pool run.
    pub fn run_one(&self) -> bool {
        self.handle.0.run_one()
    }

    /// Returns how many jobs run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.handle.0.state().running
    }

    /// Returns how many jobs wait for a thread.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.handle.0.state().waiting.len()
    }

    /// Returns how many threads the pool has, at work or idle.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.handle.0.state().threads
    }

    /// Ends the pool for all its clones: drops the jobs that wait, refuses new ones, and waits for
    /// those that run, for up to `patience`. Returns whether none runs any more; otherwise their
    /// threads are detached. A job that calls this waits for itself.
    pub fn end(&self, patience: Duration) -> bool {
        let pool = &self.handle.0;
        pool.close();
        let is_busy = |state: &mut State| state.running > 0;
        wait_while(&pool.state, &pool.finished, Some(patience), is_busy).running == 0
    }
}

impl Default for Offload {
    fn default() -> Self {
        Self::new(OffloadLimits::default())
    }
}

impl fmt::Debug for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offload")
            .field("limits", &self.handle.0.limits)
            .finish_non_exhaustive()
    }
}

/// Ends the pool when the last clone is dropped. Threads and jobs have the pool itself.
struct Handle(Arc<Pool>);

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.0.is_elsewhere() {
            self.0.close();
        }
    }
}

/// Where jobs run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Threads,
    Inline,
    Manual,
}

struct Pool {
    limits: OffloadLimits,
    place: Place,
    /// The process that has the threads, or 0 while there is none.
    process: AtomicU32,
    state: Mutex<State>,
    /// Notified when a thread may have work, or is to end.
    ready: Condvar,
    /// Notified when no job runs any more.
    finished: Condvar,
}

#[derive(Default)]
struct State {
    /// The jobs that have not begun, by their numbers, which are in the order of arrival.
    waiting: BTreeMap<u64, Box<dyn Task>>,
    next: u64,
    running: usize,
    threads: usize,
    is_ended: bool,
}

impl Pool {
    /// Returns whether the threads are another process's, which forked this one.
    fn is_elsewhere(&self) -> bool {
        let process = self.process.load(Ordering::Acquire);
        process != 0 && process != process::id()
    }

    /// Checks that there is room for one more job, and starts a thread for it if all are taken.
    fn admit(self: &Arc<Self>, state: &mut State) -> Result<(), Rejection> {
        if state.is_ended {
            return Err(Rejection::Ended);
        }

        let (running, waiting) = (state.running, state.waiting.len());
        let threads = self.limits.max_threads.max(1);
        if running + waiting >= threads.saturating_add(self.limits.max_waiting) {
            return Err(Rejection::Full { running, waiting });
        }

        if self.place == Place::Threads
            && state.threads < threads
            && running + waiting >= state.threads
        {
            match self.start() {
                Ok(()) => state.threads += 1,
                Err(error) if state.threads == 0 => return Err(Rejection::NoThread(error)),
                // The threads that there are will come to it.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn start(self: &Arc<Self>) -> io::Result<()> {
        let mut builder = thread::Builder::new().name("serveloop-offload".to_owned());
        if let Some(size) = self.limits.stack_size {
            builder = builder.stack_size(size);
        }

        let pool = Arc::clone(self);
        builder.spawn(move || pool.work())?;
        self.process.store(process::id(), Ordering::Release);
        Ok(())
    }

    /// Runs jobs on a thread of the pool, until the pool ends or the thread has been idle for too
    /// long.
    fn work(&self) {
        loop {
            let is_idle = |state: &mut State| state.waiting.is_empty() && !state.is_ended;
            let idle_timeout = self.limits.idle_timeout;
            let mut state = wait_while(&self.state, &self.ready, idle_timeout, is_idle);
            let Some((_, task)) = state.waiting.pop_first() else {
                state.threads -= 1;
                if state.threads == 0 {
                    self.process.store(0, Ordering::Release);
                }
                return;
            };
            self.run(task, state);
        }
    }

    fn run_one(&self) -> bool {
        let mut state = self.state();
        let Some((_, task)) = state.waiting.pop_first() else {
            return false;
        };
        self.run(task, state);
        true
    }

    /// Runs a job that was just taken out. When its result is there, its place is free: whoever gets
    /// the result may submit the next job at once.
    fn run(&self, mut task: Box<dyn Task>, mut state: MutexGuard<'_, State>) {
        state.running += 1;
        drop(state);
        task.run();

        let mut state = self.state();
        state.running -= 1;
        if state.running == 0 {
            self.finished.notify_all();
        }
        drop(state);
        task.deliver();
    }

    /// Refuses new jobs, drops those that wait, and lets idle threads end.
    fn close(&self) {
        let mut state = self.state();
        state.is_ended = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);

        self.ready.notify_all();
        for task in waiting.into_values() {
            task.deliver();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Cancel for Pool {
    fn cancel(&self, number: u64) -> bool {
        if self.is_elsewhere() {
            return false;
        }
        let task = self.state().waiting.remove(&number);
        let is_found = task.is_some();
        drop_quietly(task);
        is_found
    }
}

/// A job that a pool did not take, with its work. See [`Offload::submit`] for an example.
pub struct Rejected<F> {
    work: F,
    reason: Rejection,
}

impl<F> Rejected<F> {
    /// Returns why the pool did not take the job.
    pub fn reason(&self) -> &Rejection {
        &self.reason
    }

    /// Returns the work, to be tried again later or done otherwise.
    pub fn into_work(self) -> F {
        self.work
    }
}

impl<F> fmt::Debug for Rejected<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Display for Rejected<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<F> error::Error for Rejected<F> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        error::Error::source(&self.reason)
    }
}

/// Lets a protocol use `?` with [`Offload::submit`].
impl<F> From<Rejected<F>> for ProtocolError {
    fn from(rejected: Rejected<F>) -> Self {
        Self::Other(rejected.reason.into())
    }
}

/// Why a pool does not take a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum Rejection {
    /// As many jobs as the [limits](OffloadLimits) allow run and wait.
    Full {
        /// How many jobs run.
        running: usize,
        /// How many jobs wait.
        waiting: usize,
    },
    /// The pool was [ended](Offload::end).
    Ended,
    /// This process was forked while the pool had threads, which are not forked.
    Forked,
    /// The system has no thread, and the pool has none that could run the job.
    NoThread(io::Error),
}

impl error::Error for Rejection {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::NoThread(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { running, waiting } => {
                let running = counted(*running, "job runs", "jobs run");
                let waiting = counted(*waiting, "waits", "wait");
                write!(f, "the pool is full: {running} and {waiting}")
            }
            Self::Ended => f.write_str("the pool has ended"),
            Self::Forked => {
                f.write_str("the pool's threads are in the process that forked this one")
            }
            Self::NoThread(error) => write!(f, "the pool cannot start a thread: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests cannot fork. A pool of the first process looks the same.
    #[test]
    fn the_pool_of_another_process_refuses_and_is_left_alone() {
        let pool = Offload::manual();
        let job = pool.submit(|| (), || 1).expect("it has room");
        pool.handle.0.process.store(1, Ordering::Release);

        let rejected = pool.submit(|| (), || 2).expect_err("it is refused");
        assert!(matches!(rejected.reason(), Rejection::Forked));
        drop(job);
        let inside = Arc::clone(&pool.handle.0);
        drop(pool);
        assert_eq!(inside.state().waiting.len(), 1);
    }
}
