//! The terminal of `top`: its other screen, keys without Enter, and its former state at the end.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, sync::Arc};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};

/// The size of a terminal that does not tell its own.
const USUAL: (usize, usize) = (80, 24);

/// The least time that a wait for a key takes, so that none is missed by rounding.
const MILLISECOND: Duration = Duration::from_millis(1);

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Order,
    /// Nothing, but the terminal has another size.
    Resized,
    Other,
}

/// The terminal while `top` has it. Dropping it restores what was there.
pub(super) struct Screen {
    before: Termios,
    ends: Arc<AtomicBool>,
    resized: Arc<AtomicBool>,
}

impl Screen {
    /// Returns whether there is a terminal to show something on, and keys to read.
    pub(super) fn is_possible() -> bool {
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        io::stdout().is_terminal() && io::stdin().is_terminal() && !is_dumb
    }

    /// Changes to the terminal's other screen.
    ///
    /// # Errors
    /// Fails if the terminal refuses.
    pub(super) fn open() -> io::Result<Self> {
        let (ends, resized) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&ends))?;
        }
        signal_hook::flag::register(SIGWINCH, Arc::clone(&resized))?;

        let before = tcgetattr(io::stdin())?;
        let mut keys = before.clone();
        keys.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &keys)?;
        let screen = Self {
            before,
            ends,
            resized,
        };
        // The other screen, without a cursor.
        write(b"\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    /// Returns how many columns and rows there are.
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => USUAL,
        }
    }

    /// Draws lines, which fit. The first is in bold type.
    ///
    /// # Errors
    /// Fails if the terminal is gone.
    pub(super) fn draw(&self, lines: &[String]) -> io::Result<()> {
        let mut frame = String::from("\x1b[H");
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                frame.push_str("\r\n");
            }
            match number {
                0 => frame.push_str(&format!("\x1b[1m{line}\x1b[m\x1b[K")),
                _ => frame.push_str(&format!("{line}\x1b[K")),
            }
        }
        frame.push_str("\x1b[J");
        write(frame.as_bytes())
    }

    /// Waits for a key, or until `patience` is over.
    ///
    /// # Errors
    /// Fails if the terminal is gone.
    pub(super) fn key(&self, patience: Duration) -> io::Result<Key> {
        let timeout = Timespec::try_from(patience.max(MILLISECOND)).ok();
        let stdin = io::stdin();
        let mut waits = [PollFd::new(&stdin, PollFlags::IN)];
        let ready = match poll(&mut waits, timeout.as_ref()) {
            Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
            outcome => outcome.unwrap_or_default(),
        };

        if self.ends.load(Ordering::SeqCst) {
            return Ok(Key::Quit);
        }
        if self.resized.swap(false, Ordering::SeqCst) {
            return Ok(Key::Resized);
        }
        if ready == 0 {
            return Ok(Key::Other);
        }
        let mut typed = [0; 16];
        Ok(match stdin.lock().read(&mut typed)? {
            0 => Key::Quit,
            _ => match typed[0] {
                b'q' | b'Q' | 4 => Key::Quit,
                b'o' | b'O' => Key::Order,
                _ => Key::Other,
            },
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = write(b"\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}
