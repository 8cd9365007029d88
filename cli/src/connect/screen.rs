//! Standard output, written by a separate thread. A slow reader slows down the peer's sending, and
//! nothing else.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crate::escaped::for_terminal;
use crate::threads;

/// How many unwritten bytes fill the screen, so that no more should be printed.
const FULL: usize = 64 << 10;

/// A handle to the thread that writes.
#[derive(Debug)]
pub(crate) struct Screen {
    is_terminal: bool,
    sender: Sender<Vec<u8>>,
    thread: JoinHandle<()>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: AtomicUsize,
    failure: OnceLock<io::Error>,
}

impl Screen {
    /// Starts a thread that writes to `out`. It calls `woken` after each piece that it has written,
    /// and when writing fails.
    ///
    /// # Errors
    /// Fails if the system has no thread left.
    pub(crate) fn start(
        out: impl Write + Send + 'static,
        woken: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, pieces) = mpsc::channel();
        let state = Arc::new(State::default());
        let written = Arc::clone(&state);
        let thread = threads::spawn("standard output", move || written.write(out, pieces, woken))?;
        Ok(Self {
            is_terminal: io::stdout().is_terminal(),
            sender,
            thread,
            state,
        })
    }

    /// Queues `piece` to be written after everything printed before. If standard output is a
    /// terminal, the piece is escaped so that it cannot control it.
    pub(crate) fn print(&self, piece: Vec<u8>) {
        if piece.is_empty() {
            return;
        }
        let piece = if self.is_terminal {
            for_terminal(&piece)
        } else {
            piece
        };

        self.state.waiting.fetch_add(piece.len(), Ordering::SeqCst);
        // The thread ends early only after a failure, which `failure` reports.
        let _ = self.sender.send(piece);
    }

    /// Returns whether enough bytes are waiting that the peer should be slowed down.
    pub(crate) fn is_full(&self) -> bool {
        self.state.waiting.load(Ordering::SeqCst) >= FULL
    }

    /// Returns whether everything is written.
    pub(crate) fn is_drained(&self) -> bool {
        self.state.waiting.load(Ordering::SeqCst) == 0
    }

    /// Returns why writing has failed, if it has.
    pub(crate) fn failure(&self) -> Option<&io::Error> {
        self.state.failure.get()
    }

    /// Waits until everything is written or writing has failed. Returns the error, if there is one.
    pub(crate) fn finish(self) -> Option<io::Error> {
        drop(self.sender);
        // The thread has reported its own panic.
        let _ = self.thread.join();
        Arc::into_inner(self.state)?.failure.into_inner()
    }
}

impl State {
    fn write(&self, mut out: impl Write, pieces: Receiver<Vec<u8>>, woken: impl Fn()) {
        for piece in pieces {
            if let Err(error) = out.write_all(&piece) {
                // Writing fails only once, so the value is not set yet.
                let _ = self.failure.set(error);
                return woken();
            }
            self.waiting.fetch_sub(piece.len(), Ordering::SeqCst);
            woken();
        }
    }
}
