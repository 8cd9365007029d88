//! Standard output for clients' bytes, whose reader may be slow or never read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::mem;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serveloop::protocols::counted;
use serveloop::{ProtocolError, Waker};

use crate::escaped::for_terminal;
use crate::logger::TARGET;
use crate::threads;
use crate::unblocked::{LAST_WAIT, write_in_full};

/// The most bytes that wait, in addition to as many that are being written. A longer piece is taken
/// when nothing else waits.
const WAITING_MOST: usize = 128 * 1024;

/// Writes whole pieces to standard output. The pieces of one connection stay in order, and no piece
/// interrupts another.
#[derive(Clone, Debug)]
pub(crate) enum StdoutQueue {
    /// A thread writes from a queue of limited length, and no other thread waits.
    Queued(Arc<Queue>),
    /// The connection writes each piece itself and waits, in a process that serves only that
    /// connection.
    Direct,
}

impl StdoutQueue {
    /// Makes the queue of a server. `forks` says whether each connection has its own process, where
    /// the thread of a queue would not run.
    ///
    /// # Errors
    /// Fails if the system has no thread left.
    pub(crate) fn new(forks: bool) -> io::Result<Self> {
        if forks {
            return Ok(Self::Direct);
        }
        let queue = Arc::new(Queue::default());
        let work = Arc::clone(&queue);
        threads::spawn("standard output", move || work.write_to(&io::stdout()))?;
        Ok(Self::Queued(queue))
    }

    /// Waits at most [`LAST_WAIT`] until everything is written, and logs how many bytes are not.
    pub(crate) fn finish(&self) {
        let Self::Queued(queue) = self else {
            return;
        };
        let lost = queue.wait_until_empty(LAST_WAIT);
        if lost > 0 {
            let lost = counted(lost, "byte was", "bytes were");
            log::error!(target: TARGET, "standard output: {lost} not written in time");
        }
    }
}

/// One connection's access to the queue.
#[derive(Debug)]
pub(crate) struct Outflow {
    stdout_queue: StdoutQueue,
    /// The connection's key among those that wait for room.
    place: Option<u64>,
    /// Whether standard output is a terminal, which clients must not control.
    is_terminal: bool,
}

impl Outflow {
    pub(crate) fn new(stdout_queue: &StdoutQueue) -> Self {
        Self {
            stdout_queue: stdout_queue.clone(),
            place: None,
            is_terminal: io::stdout().is_terminal(),
        }
    }

    /// Offers `piece` to be written, escaped for a terminal if it goes to one. Returns false if
    /// there is no room: nothing is taken, and `waker`, if it returns one, is woken when there is
    /// room again.
    ///
    /// # Errors
    /// Fails if standard output is closed or broken, which is permanent.
    pub(crate) fn offer(
        &mut self,
        piece: &[u8],
        waker: impl FnOnce() -> Option<Waker>,
    ) -> Result<bool, ProtocolError> {
        let mut piece = Cow::Borrowed(piece);
        if self.is_terminal {
            piece = for_terminal(&piece).into();
        }
        match &self.stdout_queue {
            StdoutQueue::Queued(queue) => queue.offer(&piece, &mut self.place, waker),
            StdoutQueue::Direct => write_in_full(io::stdout(), &piece)
                .map(|()| true)
                .map_err(|(_, error)| refusal(&error.to_string())),
        }
    }
}

impl Drop for Outflow {
    fn drop(&mut self) {
        if let (StdoutQueue::Queued(queue), Some(place)) = (&self.stdout_queue, self.place) {
            queue.lock().wakers.remove(&place);
        }
    }
}

/// Bytes that wait to be written, and connections that wait for room.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The number of bytes that the writer has taken out and not written yet.
    writing: usize,
    wakers: BTreeMap<u64, Waker>,
    next_place: u64,
    failure: Option<String>,
}

impl Queue {
    fn offer(
        &self,
        piece: &[u8],
        place: &mut Option<u64>,
        waker: impl FnOnce() -> Option<Waker>,
    ) -> Result<bool, ProtocolError> {
        let mut state = self.lock();
        if let Some(failure) = &state.failure {
            return Err(refusal(failure));
        }

        if !state.waiting.is_empty() && state.waiting.len() + piece.len() > WAITING_MOST {
            state.wait(place, waker);
            return Ok(false);
        }

        state.waiting.extend_from_slice(piece);
        drop(state);
        self.changed.notify_all();
        Ok(true)
    }

    /// Writes what is offered until a write fails.
    fn write_to(&self, out: &impl AsFd) {
        loop {
            let piece = self.take();
            let written = write_in_full(out, &piece);

            let mut state = self.lock();
            state.writing = 0;
            if let Err((rest, error)) = written {
                let lost = rest + mem::take(&mut state.waiting).len();
                let lost = counted(lost, "byte was", "bytes were");
                state.failure = Some(error.to_string());
                log::error!(target: TARGET, "cannot write to standard output: {error}; {lost} lost");
            }

            let failed = state.failure.is_some();
            drop(state);
            self.changed.notify_all();
            if failed {
                return self.wake();
            }
        }
    }

    /// Waits until there is something to write and takes it all, which makes room.
    fn take(&self) -> Vec<u8> {
        let state = self.lock();
        let waited = self.changed.wait_while(state, |it| it.waiting.is_empty());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.writing = state.waiting.len();
        let piece = mem::take(&mut state.waiting);

        drop(state);
        self.wake();
        piece
    }

    /// Wakes the connections that wait for room, in the order in which they began to wait.
    fn wake(&self) {
        let wakers = mem::take(&mut self.lock().wakers);
        wakers.values().for_each(Waker::wake);
    }

    /// Waits at most `patience` until everything is written, and returns the number of bytes that
    /// are not.
    fn wait_until_empty(&self, patience: Duration) -> usize {
        let end = Instant::now() + patience;
        let mut state = self.lock();
        while state.is_busy() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }

        state.waiting.len() + state.writing
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.writing > 0
    }

    /// Registers a waker. A connection that waits already keeps its place.
    fn wait(&mut self, place: &mut Option<u64>, waker: impl FnOnce() -> Option<Waker>) {
        if place.is_some_and(|place| self.wakers.contains_key(&place)) {
            return;
        }
        if let Some(waker) = waker() {
            self.wakers.insert(self.next_place, waker);
            *place = Some(self.next_place);
            self.next_place += 1;
        }
    }
}

fn refusal(problem: &str) -> ProtocolError {
    ProtocolError::other(format!("cannot write to standard output: {problem}"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::thread::JoinHandle;

    use serveloop::driver::{Mailbox, Wake, Wakers};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Bell(Arc<AtomicUsize>);

    impl Wake for Bell {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn start(out: UnixStream) -> (StdoutQueue, Arc<Queue>, JoinHandle<()>) {
        let queue = Arc::new(Queue::default());
        let work = Arc::clone(&queue);
        let thread = thread::spawn(move || work.write_to(&out));
        (StdoutQueue::Queued(Arc::clone(&queue)), queue, thread)
    }

    /// Returns two ends of a stream whose first takes nothing until the returned number of bytes is
    /// read from the second.
    fn clogged() -> (UnixStream, UnixStream, usize) {
        let (mut out, reader) = UnixStream::pair().unwrap();
        out.set_nonblocking(true).unwrap();
        let mut filled = 0;
        while let Ok(count) = out.write(&[0; 4_096]) {
            filled += count;
        }
        reader.set_read_timeout(Some(PATIENCE)).unwrap();
        (out, reader, filled)
    }

    /// Offers pieces to a writer that is stuck until there is no room. Returns how many bytes were
    /// taken.
    fn fill(outflow: &mut Outflow, queue: &Queue, waker: impl Fn() -> Option<Waker>) -> usize {
        assert!(outflow.offer(b".", &waker).unwrap());
        while queue.lock().writing == 0 {
            thread::yield_now();
        }

        let piece = [b'.'; WAITING_MOST / 2];
        let mut taken = 1;
        while outflow.offer(&piece, &waker).unwrap() {
            taken += piece.len();
        }
        taken
    }

    #[test]
    fn who_finds_no_room_is_woken_when_there_is_some() {
        let (out, mut reader, filled) = clogged();
        out.set_nonblocking(false).unwrap();
        let (stdout_queue, queue, thread) = start(out);
        let rung = Arc::new(AtomicUsize::new(0));
        let mailbox = Mailbox::new(Box::new(Bell(Arc::clone(&rung))));

        let mut outflow = Outflow::new(&stdout_queue);
        let taken = fill(&mut outflow, &queue, || Some(mailbox.waker(7)));
        assert_eq!(taken, 1 + WAITING_MOST);
        assert_eq!(rung.load(Ordering::SeqCst), 0);

        let mut found = vec![0; filled + taken];
        reader.read_exact(&mut found).unwrap();
        assert_eq!(queue.wait_until_empty(PATIENCE), 0);
        assert_eq!(rung.load(Ordering::SeqCst), 1);
        assert_eq!(mailbox.take().collect::<Vec<_>>(), [7]);

        assert!(outflow.offer(b"room", || None).unwrap());
        drop(reader);
        let _ = outflow.offer(b"the writer ends", || None);
        thread.join().unwrap();
    }

    #[test]
    fn who_leaves_waits_no_more() {
        let (out, reader, _) = clogged();
        let (stdout_queue, queue, thread) = start(out);
        let mailbox = Mailbox::new(Box::new(Bell(Arc::default())));
        let mut outflow = Outflow::new(&stdout_queue);

        fill(&mut outflow, &queue, || Some(mailbox.waker(0)));
        for _ in 0..100 {
            let mut other = Outflow::new(&stdout_queue);
            assert!(
                !other
                    .offer(&[0; 1 << 17], || Some(mailbox.waker(1)))
                    .unwrap()
            );
            assert!(
                !other
                    .offer(&[0; 1 << 17], || Some(mailbox.waker(1)))
                    .unwrap()
            );
            assert_eq!(queue.lock().wakers.len(), 2);
        }

        assert_eq!(queue.lock().wakers.len(), 1);
        drop(reader);
        thread.join().unwrap();
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_for_whoever_comes() {
        let (out, reader) = UnixStream::pair().unwrap();
        let (stdout_queue, queue, thread) = start(out);
        drop(reader);

        let mut outflow = Outflow::new(&stdout_queue);
        assert!(outflow.offer(b"lost", || None).unwrap());
        thread.join().unwrap();

        let error = outflow.offer(b"refused", || None).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot write to standard output: "),
            "{error}"
        );
        assert_eq!(queue.wait_until_empty(PATIENCE), 0);
    }

    #[test]
    fn an_output_that_does_not_block_is_waited_for() {
        let (out, mut reader, filled) = clogged();
        let (stdout_queue, queue, thread) = start(out);
        assert!(
            Outflow::new(&stdout_queue)
                .offer(b"patience", || None)
                .unwrap()
        );
        assert_eq!(queue.wait_until_empty(Duration::from_millis(20)), 8);

        let mut found = vec![0; filled + 8];
        reader.read_exact(&mut found).unwrap();
        assert_eq!(&found[filled..], b"patience");
        drop(reader);
        let _ = Outflow::new(&stdout_queue).offer(b"the writer ends", || None);
        thread.join().unwrap();
    }
}
