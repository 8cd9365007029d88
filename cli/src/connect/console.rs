//! The console: the user's side of a connection, with standard input and output.

use std::io::{self, BufReader, ErrorKind, IsTerminal};

use serveloop::{Transport, Waker};

use crate::connect::keyboard::{Keyboard, Typed, Unit};
use crate::connect::screen::Screen;
use crate::outbound::Ending;
use crate::patient::Patient;

/// Standard input and output, each with its own thread. The reading thread may still be waiting for
/// a line when the conversation is over. It ends with the process.
#[derive(Debug)]
pub(crate) struct Console {
    keyboard: Keyboard,
    screen: Screen,
    /// Whether a piece of input was requested and has not come yet.
    is_asked: bool,
}

impl Console {
    /// Starts the threads, which wake the session of `waker`.
    ///
    /// # Errors
    /// Fails if the system has no thread or descriptor left.
    pub(crate) fn start(unit: Unit, prompt: Option<String>, waker: Waker) -> io::Result<Self> {
        let prompt = prompt.filter(|_| io::stdin().is_terminal());
        let (input, out) = (Patient::new(io::stdin()), Patient::new(io::stdout()));
        let input = input.map_err(|error| named("standard input", &error))?;
        let out = out.map_err(|error| named("standard output", &error))?;

        let printed = waker.clone();
        let typed = move || waker.wake();
        Ok(Self {
            keyboard: Keyboard::start(BufReader::new(input), unit, prompt, typed)?,
            screen: Screen::start(out, move || printed.wake())?,
            is_asked: false,
        })
    }

    /// Requests the next piece of input, unless a request is pending. [`attend`](Self::attend)
    /// returns it.
    pub(crate) fn ask(&mut self) {
        if !self.is_asked {
            self.is_asked = true;
            self.keyboard.ask();
        }
    }

    /// Handles whatever has happened: pauses the peer while the screen is full, and returns the
    /// input that was typed, if any. Ends the connection if standard input or output has failed,
    /// and reports that to `ending`.
    pub(crate) fn attend(
        &mut self,
        ending: &Ending,
        transport: &mut Transport<'_>,
    ) -> Option<Typed> {
        if let Some(error) = self.screen.failure() {
            tell(error, ending);
            transport.abort();
            return None;
        }

        match (self.screen.is_full(), transport.is_paused()) {
            (true, false) => transport.pause_reading(),
            (false, true) => transport.resume_reading(),
            _ => {}
        }

        let typed = self.keyboard.typed()?;
        self.is_asked = false;
        match typed {
            Ok(typed) => Some(typed),
            Err(error) => {
                ending.fail(error);
                transport.abort();
                None
            }
        }
    }

    /// Returns whether a person types at a terminal.
    pub(crate) fn has_person(&self) -> bool {
        io::stdin().is_terminal()
    }

    pub(crate) fn screen(&self) -> &Screen {
        &self.screen
    }

    /// Waits until everything is printed, after the end of the connection. Reports to `ending` if
    /// that fails.
    pub(crate) fn finish(self, ending: &Ending) {
        if let Some(error) = self.screen.finish() {
            tell(&error, ending);
        }
    }
}

fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn tell(error: &io::Error, ending: &Ending) {
    match error.kind() {
        // The reader closed standard output because it has what it wanted.
        ErrorKind::BrokenPipe => ending.succeed(),
        _ => ending.fail(format_args!("cannot write to standard output: {error}")),
    }
}
