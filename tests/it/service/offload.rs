//! The pool of threads for what blocks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use serveloop::service::{Job, JobError, Offload, OffloadLimits, Rejection};
use serveloop::testing::{Exchange, MemorySession, Simulation};
use serveloop::{Actions, CloseReason, Factory, Peer, Protocol, Result, Transport};

use crate::support::model_server::{End, Model, ModelServer, finish, read_to};
use crate::support::{PATIENCE, expect, panic_quietly, timeless};

fn limits(max_threads: usize, max_waiting: usize) -> OffloadLimits {
    OffloadLimits {
        max_threads,
        max_waiting,
        ..OffloadLimits::default()
    }
}

/// A job that says when it has begun, and runs until it is let go.
struct Held {
    begun: Receiver<ThreadId>,
    go: Sender<()>,
    job: Job<()>,
}

impl Held {
    fn new(pool: &Offload) -> Self {
        let (say, begun) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let work = move || {
            let _ = say.send(thread::current().id());
            let _ = wait.recv_timeout(PATIENCE);
        };
        let job = pool.submit(|| (), work).unwrap();
        Self { begun, go, job }
    }

    #[track_caller]
    fn await_begin(&self) -> ThreadId {
        self.begun.recv_timeout(PATIENCE).unwrap()
    }
}

#[track_caller]
fn wait<T>(job: Job<T>) -> std::result::Result<T, JobError> {
    job.wait(Some(PATIENCE)).expect("it is done")
}

#[test]
fn threads_start_when_there_is_work_and_are_bounded() {
    let pool = Offload::new(limits(2, 1));
    assert_eq!(pool.threads(), 0);

    let first = Held::new(&pool);
    first.await_begin();
    assert_eq!((pool.threads(), pool.running(), pool.waiting()), (1, 1, 0));

    let second = Held::new(&pool);
    second.await_begin();
    assert_eq!((pool.threads(), pool.running(), pool.waiting()), (2, 2, 0));

    // An idle thread is used again.
    first.go.send(()).unwrap();
    wait(first.job).unwrap();
    let third = Held::new(&pool);
    third.await_begin();
    assert_eq!((pool.threads(), pool.running(), pool.waiting()), (2, 2, 0));

    let waits = Held::new(&pool);
    assert_eq!((pool.threads(), pool.running(), pool.waiting()), (2, 2, 1));
    let refused = pool.submit(|| (), || "the work").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the pool is full: 2 jobs run and 1 waits"
    );
    assert!(matches!(refused.reason(), Rejection::Full { .. }));
    assert_eq!(refused.into_work()(), "the work");

    second.go.send(()).unwrap();
    waits.await_begin();
    assert_eq!((pool.threads(), pool.waiting()), (2, 0));
}

/// Whoever is woken may submit again at once: the place of the job that is done is free.
#[test]
fn a_job_that_is_done_has_made_room() {
    let pool = Offload::new(limits(1, 0));
    let (say, told) = mpsc::channel();
    let again = pool.clone();
    let wake = move || {
        let next = again
            .submit(|| (), || 2)
            .map_err(|refused| refused.to_string());
        let _ = say.send(next);
    };

    let first = pool.submit(wake, || 1).unwrap();
    let second = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(wait(first), Ok(1));
    assert_eq!(wait(second.unwrap()), Ok(2));
}

#[test]
fn jobs_begin_in_the_order_in_which_they_came() {
    let pool = Offload::new(limits(1, 100));
    let held = Held::new(&pool);
    let order = Arc::<Mutex<Vec<usize>>>::default();
    let jobs = (0..50).map(|number| {
        let order = Arc::clone(&order);
        pool.submit(|| (), move || order.lock().unwrap().push(number))
    });
    let jobs: Vec<_> = jobs.map(|job| job.unwrap()).collect();

    held.go.send(()).unwrap();
    jobs.into_iter().for_each(|job| wait(job).unwrap());
    assert!(order.lock().unwrap().iter().copied().eq(0..50));
}

#[test]
fn a_dropped_job_does_not_begin_and_makes_room() {
    let pool = Offload::new(limits(1, 2));
    let held = Held::new(&pool);
    held.await_begin();

    let ran = Arc::<AtomicUsize>::default();
    let count = |by: usize| {
        let ran = Arc::clone(&ran);
        move || ran.fetch_add(by, Ordering::SeqCst)
    };
    let dropped = pool.submit(|| (), count(1)).unwrap();
    let mut cancelled = pool.submit(|| (), count(10)).unwrap();
    assert!(pool.submit(|| (), count(100)).is_err());

    drop(dropped);
    assert!(cancelled.cancel());
    assert!(!cancelled.cancel());
    assert_eq!(cancelled.take(), Some(Err(JobError::Cancelled)));
    // What the work holds is gone at once.
    assert_eq!(Arc::strong_count(&ran), 1);
    assert_eq!(pool.waiting(), 0);

    let [one, two] = [1_000, 10_000].map(|by| pool.submit(|| (), count(by)).unwrap());
    held.go.send(()).unwrap();
    wait(one).unwrap();
    wait(two).unwrap();
    assert_eq!(ran.load(Ordering::SeqCst), 11_000);
}

#[test]
fn a_job_that_runs_cannot_be_cancelled() {
    let pool = Offload::new(limits(1, 1));
    let mut held = Held::new(&pool);
    held.await_begin();
    assert!(!held.job.cancel());
    assert!(held.job.take().is_none());
    held.go.send(()).unwrap();
    assert_eq!(wait(held.job), Ok(()));
}

/// A wait that is over gives the job up.
#[test]
fn a_job_that_is_not_done_in_time_is_cancelled() {
    let pool = Offload::manual();
    let job = pool.submit(|| (), || 1).unwrap();
    assert_eq!(job.wait(Some(Duration::from_millis(1))), None);
    assert!(!pool.run_one());
}

#[test]
fn a_panic_is_the_error_of_its_job_and_the_thread_goes_on() {
    let pool = Offload::new(limits(1, 10));
    let thread = || thread::current().id();
    let before = wait(pool.submit(|| (), thread).unwrap()).unwrap();

    let panics: Job<()> = pool.submit(|| (), || panic_quietly()).unwrap();
    assert!(matches!(wait(panics), Err(JobError::Panicked(_))));
    let said = pool.submit(
        || (),
        || std::panic::resume_unwind(Box::new("why".to_owned())),
    );
    let said: Job<()> = said.unwrap();
    let error = wait(said).unwrap_err();
    assert_eq!(error.to_string(), "the job panicked: why");

    // So do panics of what is dropped, and of what wakes.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic_quietly()
        }
    }
    let bomb = Bomb;
    wait(pool.submit(|| (), move || drop(bomb)).unwrap()).unwrap_err();
    wait(pool.submit(|| panic_quietly(), || ()).unwrap()).unwrap();
    let (say, begun) = mpsc::channel();
    let (go, wait_for) = mpsc::channel::<()>();
    let bombs = move || {
        say.send(()).unwrap();
        wait_for.recv_timeout(PATIENCE).unwrap();
        Bomb
    };
    let given_up = pool.submit(|| (), bombs).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    drop(given_up);
    go.send(()).unwrap();
    let held = Held::new(&pool);
    let (bomb, kept) = (Bomb, held.job);
    drop(pool.submit(|| (), move || drop(bomb)).unwrap());
    held.go.send(()).unwrap();
    wait(kept).unwrap();

    assert_eq!(wait(pool.submit(|| (), thread).unwrap()), Ok(before));
    assert_eq!(pool.threads(), 1);
}

#[test]
fn idle_threads_end_and_new_ones_start() {
    struct Ends(Sender<()>);
    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    thread_local! {
        static ENDS: std::cell::RefCell<Option<Ends>> = const { std::cell::RefCell::new(None) };
    }

    let pool = Offload::new(OffloadLimits {
        idle_timeout: Some(Duration::from_millis(5)),
        ..limits(1, 1)
    });
    for _ in 0..2 {
        let (say, ended) = mpsc::channel();
        let note = move || ENDS.set(Some(Ends(say)));
        wait(pool.submit(|| (), note).unwrap()).unwrap();
        ended.recv_timeout(PATIENCE).unwrap();
        assert_eq!(pool.threads(), 0);
    }
}

#[test]
fn the_end_waits_for_what_runs_and_drops_what_waits() {
    let pool = Offload::new(limits(1, 1));
    let held = Held::new(&pool);
    held.await_begin();
    let (say, woken) = mpsc::channel();
    let waits = pool
        .submit(move || say.send(()).unwrap_or(()), || ())
        .unwrap();

    assert!(!pool.end(Duration::ZERO), "one runs");
    woken.recv_timeout(PATIENCE).unwrap();
    assert_eq!(wait(waits), Err(JobError::Ended));
    let refused = pool.submit(|| (), || ()).unwrap_err();
    assert_eq!(refused.to_string(), "the pool has ended");

    let Held { go, job, .. } = held;
    let ends = thread::spawn(move || pool.end(PATIENCE));
    go.send(()).unwrap();
    assert!(ends.join().unwrap());
    assert_eq!(wait(job), Ok(()));
}

#[test]
fn the_last_clone_ends_the_pool_and_detaches_what_runs() {
    let pool = Offload::new(limits(1, 1));
    let held = Held::new(&pool);
    held.await_begin();
    let waits = pool.submit(|| (), || ()).unwrap();
    drop(pool.clone());
    assert_eq!(pool.waiting(), 1);

    drop(pool);
    assert_eq!(wait(waits), Err(JobError::Ended));
    let Held { go, mut job, .. } = held;
    assert!(job.take().is_none());
    go.send(()).unwrap();
    assert_eq!(wait(job), Ok(()));
}

#[cfg(target_pointer_width = "64")]
#[test]
fn without_a_thread_the_first_job_is_refused() {
    let pool = Offload::new(OffloadLimits {
        stack_size: Some(1 << 60),
        ..OffloadLimits::default()
    });
    let refused = pool.submit(|| (), || 7).unwrap_err();
    assert!(matches!(refused.reason(), Rejection::NoThread(_)));
    let text = refused.to_string();
    assert!(
        text.starts_with("the pool cannot start a thread: "),
        "{text}"
    );
    assert_eq!((refused.into_work()(), pool.waiting()), (7, 0));
}

/// Doubles each byte that comes, one at a time, in a pool.
struct Doubling {
    pool: Offload,
    job: Option<Job<u8>>,
}

impl Doubling {
    fn new(pool: &Offload) -> Self {
        Self {
            pool: pool.clone(),
            job: None,
        }
    }
}

impl Protocol for Doubling {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let byte = data[0];
        let work = move || match byte {
            b'!' => panic_quietly(),
            _ => byte.wrapping_mul(2),
        };
        self.job = Some(self.pool.submit(transport.waker(), work)?);
        transport.pause_reading();
        Ok(1)
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        let Some(result) = self.job.as_mut().and_then(Job::take) else {
            return;
        };
        self.job = None;
        match result {
            Ok(byte) => transport.write(&[byte]),
            Err(_) => transport.write(b"panicked"),
        }
        transport.resume_reading();
    }
}

#[test]
fn a_test_decides_when_a_job_is_done() {
    let pool = Offload::manual();
    let mut session = MemorySession::new(Doubling::new(&pool));
    session.receive(&[1, 2, b'!']);
    session.advance(Duration::from_secs(1));
    assert_eq!(session.sent(), b"");
    for expected in [&[2][..], &[4], b"panicked"] {
        assert!(pool.run_one());
        session.run();
        assert_eq!(session.sent(), expected);
    }
    assert!(!pool.run_one());
}

#[test]
fn a_lost_connection_cancels_what_has_not_begun() {
    let pool = Offload::manual();
    let mut session = MemorySession::new(Doubling::new(&pool));
    session.receive(&[1]);
    assert_eq!(pool.waiting(), 1);
    session.fail(CloseReason::Aborted);
    drop(session);
    assert_eq!(pool.waiting(), 0);
}

#[test]
fn a_full_pool_ends_the_connection_that_asks_with_a_clear_error() {
    let pool = Offload::manual_with(limits(1, 0));
    let mut first = MemorySession::new(Doubling::new(&pool));
    let mut second = MemorySession::new(Doubling::new(&pool));
    first.receive(&[1]);
    second.receive(&[1]);
    let reason = second.reason().unwrap().to_string();
    assert_eq!(
        reason,
        "protocol error: the pool is full: 0 jobs run and 1 waits"
    );
    assert!(first.reason().is_none());
}

#[test]
fn one_pool_serves_in_every_model() {
    for model in Model::ALL {
        let pool = Offload::new(limits(2, 100));
        let shared = pool.clone();
        let factory = move |_: &Peer| Some(Doubling::new(&shared));
        let server = ModelServer::new(model, &["tcp://127.0.0.1:0"], timeless(), factory);

        let most = if model == Model::Sequential { 1 } else { 8 };
        let mut clients: Vec<_> = (0..most).map(|_| server.client()).collect();
        for stream in &mut clients {
            std::io::Write::write_all(stream, &[1, 2, 3, b'!', 50]).unwrap();
        }
        for mut stream in clients {
            expect(&mut stream, &[2, 4, 6]);
            expect(&mut stream, b"panickedd");
            finish(&stream);
            assert_eq!(read_to(&mut stream), (Vec::new(), End::Eof));
        }
        let statistics = server.end();
        assert_eq!(statistics.closed_by_peer, most, "{model:?}");
        assert!(pool.end(PATIENCE));
    }
}

/// A server whose jobs take some turns of its loop.
struct Slow {
    pool: Offload,
    turns: usize,
}

impl Factory for Slow {
    type Protocol = Doubling;

    fn build_protocol(&mut self, _: &Peer) -> Option<Doubling> {
        Some(Doubling::new(&self.pool))
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Doubling>) {
        self.turns += 1;
        if self.turns % 3 == 0 {
            self.pool.run_one();
        }
        if self.pool.waiting() > 0 {
            actions.call_again(Duration::from_millis(5));
        }
    }
}

#[test]
fn pools_run_in_virtual_time() {
    let exchange = || Exchange::new([1, 2, 3, 4], [2, 4, 6, 8]);
    let inline = || {
        let pool = Offload::inline();
        move |_: &Peer| Some(Doubling::new(&pool))
    };
    Simulation::new(inline).client(exchange()).run(0..300);

    let slow = || Slow {
        pool: Offload::manual(),
        turns: 0,
    };
    Simulation::new(slow).client(exchange()).run(0..300);
}
