//! Standard output, written by a thread of its own: who reads it slowly slows the peer's sending
//! down, and nothing else.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crate::escaped::for_terminal;
use crate::threads;

/// From this many unwritten bytes on, no more should be printed.
const FULL: usize = 64 << 10;

/// Asks the thread that writes.
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
    /// Writes to `out`. `woken` is called after each piece that was written, and when writing failed.
    ///
    /// # Errors
    /// The system has no thread.
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

    /// Has `piece` written after all that was printed before, without what could command a terminal if
    /// standard output is one.
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
        // The thread ends after a failure only, which everybody can see.
        let _ = self.sender.send(piece);
    }

    /// Whether so much waits to be written that the peer should be slowed down.
    pub(crate) fn is_full(&self) -> bool {
        self.state.waiting.load(Ordering::SeqCst) >= FULL
    }

    /// Whether everything is written.
    pub(crate) fn is_drained(&self) -> bool {
        self.state.waiting.load(Ordering::SeqCst) == 0
    }

    /// Why nothing more is written.
    pub(crate) fn failure(&self) -> Option<&io::Error> {
        self.state.failure.get()
    }

    /// Waits until everything is written, or writing has failed; gives the reason, if it has.
    pub(crate) fn finish(self) -> Option<io::Error> {
        drop(self.sender);
        // Its panic was told by itself.
        let _ = self.thread.join();
        Arc::into_inner(self.state)?.failure.into_inner()
    }
}

impl State {
    fn write(&self, mut out: impl Write, pieces: Receiver<Vec<u8>>, woken: impl Fn()) {
        for piece in pieces {
            if let Err(error) = out.write_all(&piece) {
                // It fails once.
                let _ = self.failure.set(error);
                return woken();
            }
            self.waiting.fetch_sub(piece.len(), Ordering::SeqCst);
            woken();
        }
    }
}
