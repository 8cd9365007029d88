//! The checks. Each runs thousands of times, once for each order of the threads' steps.

use std::sync::Arc;
use std::time::Duration;

use loom::model::Builder;
use loom::sync::Notify;
use loom::thread;

use crate::service::{
    Group, Job, JobError, Lagging, Offload, OffloadLimits, Outbox, PostError, Rejection,
};
use crate::session::{self, Ticket};
use crate::shutdown::{Shutdown, ShutdownHandle};
use crate::waker::sync::{AtomicUsize, Ordering};
use crate::waker::{Mailbox, Wakers};

/// The checks, with their names.
pub(crate) const ALL: [(&str, fn()); 16] = [
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
    ("each_post_arrives_once", each_post_arrives_once),
    (
        "what_a_lost_connection_was_owed_leaves_the_account",
        what_a_lost_connection_was_owed_leaves_the_account,
    ),
    (
        "each_member_gets_each_message_once",
        each_member_gets_each_message_once,
    ),
    (
        "who_joins_or_leaves_gets_whole_messages",
        who_joins_or_leaves_gets_whole_messages,
    ),
    (
        "a_member_without_room_drops_the_oldest",
        a_member_without_room_drops_the_oldest,
    ),
    (
        "an_attempt_is_cancelled_or_over",
        an_attempt_is_cancelled_or_over,
    ),
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

/// A loop that waits for its mailbox.
struct Loop {
    mailbox: Arc<Mailbox>,
    rung: Arc<Notify>,
}

impl Loop {
    fn new() -> Self {
        let rung = Arc::new(Notify::new());
        let ring = Arc::clone(&rung);
        let mailbox = Mailbox::new(Box::new(move || ring.notify()));
        Self { mailbox, rung }
    }

    fn outbox(&self, id: usize, most: usize) -> Outbox {
        session::outbox(&self.mailbox.waker(id), id as u64, most)
    }

    /// Serves the sessions that are woken until these have got `count` posts together. Returns what each
    /// has got.
    fn serve(&self, outboxes: &[&Outbox], count: usize) -> Vec<Vec<u8>> {
        let mut got = vec![Vec::new(); outboxes.len()];
        while got.iter().map(Vec::len).sum::<usize>() < count {
            self.rung.wait();
            for id in self.mailbox.take() {
                let place = outboxes.iter().position(|it| it.id() == id as u64);
                let place = place.expect("one of them");
                while let Some(post) = session::take(outboxes[place]) {
                    got[place].push(post[0]);
                }
            }
        }
        got
    }
}

/// Posts of two threads, and the loop that takes them when it is woken: none is left behind.
fn each_post_arrives_once() {
    check(|| {
        let one = Loop::new();
        let outbox = one.outbox(7, 100);
        let other = outbox.clone();
        let posts = thread::spawn(move || {
            other.post(*b"a").expect("room");
            other.post(*b"b").expect("room");
        });
        let other = outbox.clone();
        let more = thread::spawn(move || other.post(*b"c").expect("room"));

        let got = &one.serve(&[&outbox], 3)[0];
        let place = |post: u8| got.iter().position(|it| *it == post).expect("it came");
        assert!(place(b'a') < place(b'b') && got.contains(&b'c'), "{got:?}");
        posts.join().expect("it ends");
        more.join().expect("it ends");
        assert_eq!(one.mailbox.posted(), 0);
    });
}

/// The end of a connection against posts that come at this moment.
fn what_a_lost_connection_was_owed_leaves_the_account() {
    check(|| {
        let one = Loop::new();
        let outbox = one.outbox(7, 100);
        let other = outbox.clone();
        let posts = thread::spawn(move || {
            let outcomes = [other.post(*b"abc"), other.post(*b"de")];
            let is_ended = |it: &Result<(), _>| *it == Err(PostError::Closed);
            assert!(!is_ended(&outcomes[0]) || is_ended(&outcomes[1]));
        });
        assert!([0, 3, 5].contains(&session::end(&outbox)));
        posts.join().expect("it ends");
        assert!(session::take(&outbox).is_none());
        assert_eq!((outbox.pending(), one.mailbox.posted()), (0, 0));
    });
}

/// Two threads publish to two members of one loop.
fn each_member_gets_each_message_once() {
    check(|| {
        let one = Loop::new();
        let [first, second] = [7, 8].map(|id| one.outbox(id, 100));
        let group = Group::new(Lagging::Close);
        assert!(group.join("all", &first) && group.join("all", &second));

        let other = group.clone();
        let publishes = thread::spawn(move || other.publish("all", *b"a").sent);
        assert_eq!(group.publish("all", *b"b").sent, 2);

        for mut got in one.serve(&[&first, &second], 4) {
            got.sort_unstable();
            assert_eq!(got, b"ab");
        }
        assert_eq!(publishes.join().expect("it ends"), 2);
        assert_eq!(one.mailbox.posted(), 0);
    });
}

fn who_joins_or_leaves_gets_whole_messages() {
    check(|| {
        let one = Loop::new();
        let [first, second] = [7, 8].map(|id| one.outbox(id, 100));
        let group = Group::new(Lagging::Close);
        assert!(group.join("all", &first));

        let (other, joining) = (group.clone(), second.clone());
        let changes = thread::spawn(move || {
            assert!(other.join("all", &joining));
            assert!(other.leave("all", 7));
        });
        let sent = group.publish("all", *b"a").sent;
        changes.join().expect("it ends");

        let got = one.serve(&[&first, &second], sent);
        assert!(sent <= 2 && got.iter().all(|it| it.len() <= 1), "{got:?}");
        assert_eq!(first.pending() + second.pending(), 0);
        assert_eq!((group.members("all"), one.mailbox.posted()), (1, 0));
    });
}

/// The member's loop takes posts while the oldest are dropped: what comes is in order, and the last comes.
fn a_member_without_room_drops_the_oldest() {
    check(|| {
        let one = Loop::new();
        let outbox = one.outbox(7, 2);
        let group = Group::new(Lagging::DropOldest);
        group.join("all", &outbox);
        let publishes = thread::spawn(move || {
            for message in [b"ax", b"bx"] {
                group.publish("all", *message);
            }
        });

        let mut got = Vec::new();
        while got.last() != Some(&b'b') {
            one.rung.wait();
            if one.mailbox.take().any(|id| id == 7) {
                got.extend(std::iter::from_fn(|| session::take(&outbox)).map(|post| post[0]));
            }
        }
        assert!(got == b"ab" || got == b"b", "{got:?}");
        publishes.join().expect("it ends");
        assert_eq!(one.mailbox.posted(), 0);
    });
}

/// Whoever cancels an attempt to connect, and the loop that has begun it, agree on what becomes of it. The
/// loop hears of a cancellation.
fn an_attempt_is_cancelled_or_over() {
    check(|| {
        let one = Loop::new();
        let ticket = Ticket::default();
        let other = ticket.clone();
        let cancels = thread::spawn(move || other.cancel());

        ticket.set_waker(one.mailbox.waker(7));
        // As the loop does: it looks at once, and then whenever it is woken.
        while !ticket.is_cancelled() {
            one.rung.wait();
        }
        assert!(ticket.is_cancelled());
        assert!(cancels.join().expect("it ends"));
        ticket.end();
        assert!(!ticket.cancel());
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
