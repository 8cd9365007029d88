//! Several event loops, one per thread. Either all of them start or none does, and they end
//! together.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, ScopedJoinHandle};

use crate::shutdown::ShutdownHandle;
use crate::statistics::Statistics;
use crate::waker::sync::lock;

/// Builds a loop from each of `parts` with `make`, on a thread of its own, and serves it with
/// `run`. An error or a panic in one loop ends the others through `handle`. Returns the sum of all
/// counts.
///
/// # Errors
/// Returns the first error of a loop, or the error of a thread that could not be created.
pub(crate) fn run<T: Send, L>(
    parts: Vec<T>,
    handle: &ShutdownHandle,
    make: impl Fn(T) -> io::Result<L> + Sync,
    run: impl Fn(L) -> io::Result<Statistics> + Sync,
) -> io::Result<Statistics> {
    // Locked until every loop is prepared. True if the loops should serve.
    let gate = Mutex::new(false);
    let (ready, prepared) = mpsc::channel();

    let work = |part: T, ready: mpsc::Sender<()>| {
        let made = make(part)?;
        // The receiver is gone if another loop has failed.
        let _ = ready.send(());
        drop(ready);

        let goes = *lock(&gate);
        if goes {
            run(made)
        } else {
            Ok(Statistics::default())
        }
    };

    // Whatever ends one loop ends the others.
    let work = |part, ready| {
        let outcome = catch_unwind(AssertUnwindSafe(|| work(part, ready)));
        if !matches!(outcome, Ok(Ok(_))) {
            handle.shutdown();
        }
        outcome.unwrap_or_else(|payload| resume_unwind(payload))
    };

    thread::scope(|scope| {
        let mut open = lock(&gate);
        let most = parts.len();
        let mut workers = Vec::with_capacity(most);
        let mut failure = None;

        for part in parts {
            let (ready, work) = (ready.clone(), &work);
            let worker = thread::Builder::new().name(format!("worker {}", workers.len()));
            match worker.spawn_scoped(scope, move || work(part, ready)) {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    failure = Some(no_thread(workers.len(), most, &error));
                    break;
                }
            }
        }

        drop(ready);
        *open = failure.is_none() && all_ready(&prepared, most);
        drop(open);

        let total = add_up(workers);
        failure.map_or(total, Err)
    })
}

fn no_thread(made: usize, most: usize, error: &io::Error) -> io::Error {
    let problem = format!("cannot start worker {} of {most}: {error}", made + 1);
    io::Error::new(error.kind(), problem)
}

/// Waits until `most` loops are prepared. Returns false if one of them failed instead.
fn all_ready(prepared: &Receiver<()>, most: usize) -> bool {
    prepared.iter().take(most).count() == most
}

/// Joins all workers and returns the sum of their counts, or the first error.
fn add_up(workers: Vec<ScopedJoinHandle<'_, io::Result<Statistics>>>) -> io::Result<Statistics> {
    let mut total = Ok(Statistics::default());
    for worker in workers {
        let outcome = worker
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));

        total = match (total, outcome) {
            (Ok(mut total), Ok(counted)) => {
                total.add(&counted);
                Ok(total)
            }
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        };
    }
    total
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Serves until the handle is shut down.
    fn serve(handle: &ShutdownHandle) -> io::Result<Statistics> {
        let begin = Instant::now();
        while handle.requests() == 0 && begin.elapsed() < PATIENCE {
            let mut waits = [sys::wait_for(Some(handle.as_fd()), libc::POLLIN)];
            sys::poll(&mut waits, Some(PATIENCE))?;
        }

        assert!(handle.requests() > 0, "never shut down");
        Ok(Statistics {
            accepted: 1,
            ..Statistics::default()
        })
    }

    fn broken(part: usize) -> io::Error {
        io::Error::other(format!("part {part} is broken"))
    }

    #[test]
    fn counts_are_added_up() {
        let handle = ShutdownHandle::new().unwrap();
        handle.shutdown();
        let total = run(vec![0, 1, 2], &handle, Ok, |_| serve(&handle)).unwrap();
        assert_eq!(total.accepted, 3);
    }

    #[test]
    fn no_loop_serves_if_one_cannot_be_prepared() {
        for panics in [false, true] {
            let handle = ShutdownHandle::new().unwrap();
            let served = AtomicUsize::new(0);
            let make = |part| match part {
                1 if panics => std::panic::resume_unwind(Box::new("quietly")),
                1 => Err(broken(part)),
                _ => Ok(part),
            };
            let serve = |_| {
                served.fetch_add(1, Ordering::SeqCst);
                serve(&handle)
            };

            let error = run(vec![0, 1, 2], &handle, make, serve).unwrap_err();
            let expected = if panics {
                "a worker panicked"
            } else {
                "part 1 is broken"
            };

            assert_eq!(error.to_string(), expected);
            assert_eq!(served.into_inner(), 0);
        }
    }

    #[test]
    fn a_loop_that_fails_or_panics_ends_the_others() {
        for panics in [false, true] {
            let handle = ShutdownHandle::new().unwrap();
            let serve = |part| match part {
                1 if panics => std::panic::resume_unwind(Box::new("quietly")),
                1 => Err(broken(part)),
                _ => serve(&handle),
            };

            let error = run(vec![0, 1, 2], &handle, Ok, serve).unwrap_err();
            let expected = if panics {
                "a worker panicked"
            } else {
                "part 1 is broken"
            };

            assert_eq!(error.to_string(), expected);
        }
    }
}
