//! The checks. Each runs thousands of times, once for each order of the threads' steps.

use std::sync::Arc;
use std::time::Duration;

use loom::model::Builder;
use loom::sync::Notify;
use loom::thread;

use crate::service::{Job, JobError, Offload, OffloadLimits, Rejection};
use crate::shutdown::{Shutdown, ShutdownHandle};
use crate::waker::sync::{AtomicUsize, Ordering};
use crate::waker::{Mailbox, Wakers};

/// The checks, with their names.
pub(crate) const ALL: [(&str, fn()); 10] = [
    (
        "each_job_runs_once_and_tells_its_result",
        each_job_runs_once_and_tells_its_result,
    ),
    (
        "a_thread_that_ends_leaves_no_job_behind",
        a_thread_that_ends_leaves_no_job_behind,
    ),
    (
        "who_is_woken_finds_the_result_and_room",
        who_is_woken_finds_the_result_and_room,
    ),
    (
        "a_dropped_job_runs_or_does_not",
        a_dropped_job_runs_or_does_not,
    ),
    (
        "a_pool_that_ends_runs_a_job_or_says_that_it_has_ended",
        a_pool_that_ends_runs_a_job_or_says_that_it_has_ended,
    ),
    (
        "the_last_clone_ends_the_threads",
        the_last_clone_ends_the_threads,
    ),
    ("no_wake_is_lost", no_wake_is_lost),
    (
        "an_abort_is_never_only_a_drain",
        an_abort_is_never_only_a_drain,
    ),
    (
        "signals_on_several_threads_are_one_request",
        signals_on_several_threads_are_one_request,
    ),
    (
        "one_loop_tells_what_is_open_in_all",
        one_loop_tells_what_is_open_in_all,
    ),
];

/// How often a thread may be interrupted in the middle. Two or three interruptions find nearly all
/// faults, and the number of runs grows by a power of ten with each.
const PREEMPTIONS: usize = 3;

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.check(model);
}

fn pool(max_threads: usize, idle_timeout: Option<Duration>) -> Offload {
    Offload::new(OffloadLimits {
        max_threads,
        max_waiting: 1,
        idle_timeout,
        ..OffloadLimits::default()
    })
}

/// Submits work that counts itself.
fn count(pool: &Offload, ran: &Arc<AtomicUsize>) -> Result<Job<usize>, String> {
    let ran = Arc::clone(ran);
    let work = move || ran.fetch_add(1, Ordering::SeqCst);
    pool.submit(|| (), work).map_err(|error| error.to_string())
}

fn each_job_runs_once_and_tells_its_result() {
    for max_threads in [1, 2] {
        check(move || {
            let pool = pool(max_threads, None);
            let ran = Arc::new(AtomicUsize::new(0));
            let (other, counted) = (pool.clone(), Arc::clone(&ran));
            let submits = thread::spawn(move || count(&other, &counted).expect("it has room"));

            let first = count(&pool, &ran).expect("it has room");
            let results = [first, submits.join().expect("it ends")]
                .map(|job| job.wait(None).expect("it is done").expect("it has run"));
            assert_eq!(results[0] + results[1], 1, "{results:?}");
            assert_eq!(ran.load(Ordering::SeqCst), 2);
        });
    }
}

/// A thread that gives up waiting for work must not leave behind what comes at this moment.
fn a_thread_that_ends_leaves_no_job_behind() {
    check(|| {
        let pool = pool(1, Some(Duration::ZERO));
        let ran = Arc::new(AtomicUsize::new(0));
        for number in 0..2 {
            let job = count(&pool, &ran).expect("it has room");
            assert_eq!(job.wait(None), Some(Ok(number)));
        }
    });
}

/// Whoever is woken finds the result, and room for the next job.
fn who_is_woken_finds_the_result_and_room() {
    check(|| {
        let pool = Offload::new(OffloadLimits {
            max_threads: 1,
            max_waiting: 0,
            idle_timeout: None,
            ..OffloadLimits::default()
        });
        let woken = Arc::new(Notify::new());
        let wake = Arc::clone(&woken);
        let mut job = pool.submit(move || wake.notify(), || 1).expect("room");
        // The checker's notifications also come without a cause.
        let result = loop {
            woken.wait();
            if let Some(result) = job.take() {
                break result;
            }
        };
        assert_eq!(result, Ok(1));

        let next = pool.submit(|| (), || 2).expect("there is room again");
        assert_eq!(next.wait(None), Some(Ok(2)));
    });
}

/// A job that is dropped runs or is cancelled, and what it holds is gone either way.
fn a_dropped_job_runs_or_does_not() {
    check(|| {
        let pool = pool(1, None);
        let ran = Arc::new(AtomicUsize::new(0));
        let mut job = count(&pool, &ran).expect("it has room");
        let is_cancelled = job.cancel();
        let expected = usize::from(!is_cancelled);
        match job.wait(None).expect("it has a result") {
            Ok(before) => assert_eq!((before, is_cancelled), (0, false)),
            Err(error) => assert_eq!((error, is_cancelled), (JobError::Cancelled, true)),
        }
        assert_eq!(ran.load(Ordering::SeqCst), expected);
        drop(count(&pool, &ran));
    });
}

/// The end of a pool against a job that comes at this moment.
fn a_pool_that_ends_runs_a_job_or_says_that_it_has_ended() {
    check(|| {
        let pool = pool(1, None);
        let ran = Arc::new(AtomicUsize::new(0));
        let ends = pool.clone();
        let ends = thread::spawn(move || assert!(ends.end(Duration::MAX), "nothing runs"));

        let done = match count(&pool, &ran) {
            Err(text) => {
                assert_eq!(text, Rejection::Ended.to_string());
                0
            }
            Ok(job) => match job.wait(None).expect("it is told") {
                Ok(_) => 1,
                Err(error) => {
                    assert_eq!(error, JobError::Ended);
                    0
                }
            },
        };
        ends.join().expect("it ends");
        assert_eq!(ran.load(Ordering::SeqCst), done);
    });
}

/// The threads end with the last clone; a model whose threads go on waiting fails.
fn the_last_clone_ends_the_threads() {
    check(|| {
        let pool = pool(1, None);
        let ran = Arc::new(AtomicUsize::new(0));
        let job = count(&pool, &ran).expect("it has room");
        let other = pool.clone();
        let drops = thread::spawn(move || drop(other));
        drop(pool);
        let result = job.wait(None).expect("it is told");
        assert!(matches!(result, Ok(0) | Err(JobError::Ended)), "{result:?}");
        drops.join().expect("it ends");
    });
}

/// What a thread did before it woke a session is seen by the call that the wake results in.
fn no_wake_is_lost() {
    check(|| {
        let rung = Arc::new(Notify::new());
        let ring = Arc::clone(&rung);
        let mailbox = Mailbox::new(Box::new(move || ring.notify()));
        let waker = mailbox.waker(7);
        let work = Arc::new(AtomicUsize::new(0));

        let wakes = [1, 10].map(|by| {
            let (waker, work) = (waker.clone(), Arc::clone(&work));
            thread::spawn(move || {
                work.fetch_add(by, Ordering::Relaxed);
                waker.wake();
            })
        });

        let mut seen = 0;
        while seen != 11 {
            rung.wait();
            if mailbox.take().any(|id| id == 7) {
                seen = work.load(Ordering::Relaxed);
            }
        }
        for wake in wakes {
            wake.join().expect("it ends");
        }
    });
}

/// However they meet, an `abort` and a `shutdown` are at least the two requests that end everything.
fn an_abort_is_never_only_a_drain() {
    check(|| {
        let handle = ShutdownHandle::new().expect("a pair of sockets");
        let other = handle.clone();
        let aborts = thread::spawn(move || other.abort());
        handle.shutdown();
        aborts.join().expect("it ends");
        assert!(handle.requests() >= 2, "{}", handle.requests());
    });
}

fn signals_on_several_threads_are_one_request() {
    check(|| {
        let handle = ShutdownHandle::new().expect("a pair of sockets");
        let other = handle.clone();
        let signals = thread::spawn(move || other.shutdown_by_signal());
        handle.shutdown_by_signal();
        signals.join().expect("it ends");
        assert_eq!(handle.requests(), 1);
    });
}

/// Exactly one of two loops logs the sum, also if both begin at once.
fn one_loop_tells_what_is_open_in_all() {
    check(|| {
        let handle = ShutdownHandle::new().expect("a pair of sockets");
        let [mut first, mut second] = [(); 2].map(|()| {
            let mut shutdown = Shutdown::default();
            shutdown.obey(handle.clone());
            shutdown
        });
        handle.shutdown();

        let begins = thread::spawn(move || second.count_open(4));
        let mine = first.count_open(2);
        let other = begins.join().expect("it ends");
        assert_eq!(mine.or(other), Some(6));
        assert!(mine.is_none() || other.is_none(), "{mine:?} {other:?}");
    });
}
