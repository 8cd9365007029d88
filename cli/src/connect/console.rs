//! The user's side of a connection: what is typed, and what is printed.

use std::io::{self, BufReader, ErrorKind, IsTerminal};

use serveloop::{Transport, Waker};

use crate::connect::keyboard::{Keyboard, Typed, Unit};
use crate::connect::screen::Screen;
use crate::outbound::Ending;
use crate::patient::Patient;

/// Standard input and output, each with its thread. The one that reads may be waiting for a line
/// when all is over, and ends with the process.
#[derive(Debug)]
pub(crate) struct Console {
    keyboard: Keyboard,
    screen: Screen,
    /// What was asked for is not there yet.
    is_asked: bool,
}

impl Console {
    /// Begins to work for the session of `waker`.
    ///
    /// # Errors
    /// The system has no thread or descriptor.
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

    /// Asks for the next piece of input, unless that was done. It comes by
    /// [`attend`](Self::attend).
    pub(crate) fn ask(&mut self) {
        if !self.is_asked {
            self.is_asked = true;
            self.keyboard.ask();
        }
    }

    /// Does what there is to do after anything happened: has the peer wait while enough waits to be
    /// printed, and gives what was typed. Ends the connection when either side of the user is gone,
    /// which `ending` then tells.
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

    /// Whether somebody types at a terminal.
    pub(crate) fn has_person(&self) -> bool {
        io::stdin().is_terminal()
    }

    pub(crate) fn screen(&self) -> &Screen {
        &self.screen
    }

    /// The connection is over: waits until everything is printed, and tells `ending` if that fails.
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
        // Nobody reads on: they have what they wanted.
        ErrorKind::BrokenPipe => ending.succeed(),
        _ => ending.fail(format_args!("cannot write to standard output: {error}")),
    }
}
