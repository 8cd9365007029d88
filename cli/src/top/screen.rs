//! The terminal of `top`: its other screen, keys without Enter, and its former state at the end.

use std::env;
use std::ffi::c_int;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, retry_on_intr};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::SIGWINCH;
use signal_hook::flag;

use crate::signals::{BY_SIGNAL, asks_to_end};
use crate::top::bell::{Bell, Ear};

/// The size of a terminal that does not tell its own.
const USUAL: (usize, usize) = (80, 24);

/// The least time that a wait takes, so that none is missed by rounding.
const MILLISECOND: Duration = Duration::from_millis(1);

/// The character that begins the sequence of a key such as an arrow.
const ESCAPE: u8 = 0x1b;

/// What Ctrl-D types.
const END: u8 = 4;

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Event {
    /// The end, by a key or by a signal, with this exit status.
    Ended(ExitCode),
    Order,
    /// Nothing, but the terminal has another size.
    Resized,
}

/// The terminal while `top` has it. Dropping it restores what was there.
pub(super) struct Screen {
    before: Termios,
    signal: Arc<AtomicUsize>,
    resized: Arc<AtomicBool>,
    ear: Ear,
}

impl Screen {
    /// Returns whether there is a terminal to show something on, and keys to read.
    pub(super) fn is_possible() -> bool {
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        io::stdout().is_terminal() && io::stdin().is_terminal() && !is_dumb
    }

    /// Changes to the terminal's other screen. Signals ring the bell, which is heard while this waits.
    ///
    /// # Errors
    /// Fails if the terminal refuses.
    pub(super) fn open(bell: &Bell, ear: Ear) -> io::Result<Self> {
        let signal = catch_endings(bell)?;
        let resized = Arc::<AtomicBool>::default();
        flag::register(SIGWINCH, Arc::clone(&resized))?;
        bell.ring_at(SIGWINCH)?;

        let before = tcgetattr(io::stdin())?;
        let mut keys = before.clone();
        keys.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &keys)?;
        let screen = Self {
            before,
            signal,
            resized,
            ear,
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

    /// Waits until something happens or the bell rings, for at most `patience` if there is one.
    ///
    /// # Errors
    /// Fails if the terminal is gone.
    pub(super) fn wait(&self, patience: Option<Duration>) -> io::Result<Vec<Event>> {
        let timeout = patience.and_then(|it| Timespec::try_from(it.max(MILLISECOND)).ok());
        let stdin = io::stdin();
        let mut waits = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(&self.ear, PollFlags::IN),
        ];
        match poll(&mut waits, timeout.as_ref()) {
            Err(error) if error != Errno::INTR => return Err(error.into()),
            _ => {}
        }
        let is_typed = !waits[0].revents().is_empty();
        self.ear.clear();

        if let Some(status) = self.status() {
            return Ok(vec![Event::Ended(status)]);
        }
        let mut events = Vec::new();
        if self.resized.swap(false, Ordering::SeqCst) {
            events.push(Event::Resized);
        }
        if is_typed {
            // Not by a buffer, in which keys would wait for the next ones.
            let mut typed = [0; 64];
            match retry_on_intr(|| read(&stdin, &mut typed))? {
                0 => events.push(Event::Ended(ExitCode::SUCCESS)),
                count => events.extend(keys(&typed[..count])),
            }
        }
        Ok(events)
    }

    /// Returns the exit status after a signal, if one came.
    fn status(&self) -> Option<ExitCode> {
        let signal = c_int::try_from(self.signal.load(Ordering::SeqCst)).ok()?;
        let status = (signal > 0).then_some(BY_SIGNAL + signal)?;
        u8::try_from(status).ok().map(ExitCode::from)
    }
}

/// Makes the signals that would end this process ring the bell, and note their numbers. A second one
/// ends it at once, since the terminal may be stopped. What is ignored, as after `nohup`, stays ignored.
fn catch_endings(bell: &Bell) -> io::Result<Arc<AtomicUsize>> {
    let (signal, is_second) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    for ending in asks_to_end() {
        let number = usize::try_from(ending).unwrap_or(0);
        flag::register_conditional_shutdown(ending, BY_SIGNAL + ending, Arc::clone(&is_second))?;
        flag::register_usize(ending, Arc::clone(&signal), number)?;
        flag::register(ending, Arc::clone(&is_second))?;
        bell.ring_at(ending)?;
    }
    Ok(signal)
}

/// Returns what was typed. Sequences of other keys have letters that mean nothing here.
fn keys(typed: &[u8]) -> Vec<Event> {
    let (mut events, mut rest) = (Vec::new(), typed);
    while let [first, others @ ..] = rest {
        rest = others;
        match first {
            b'q' | b'Q' | &END => events.push(Event::Ended(ExitCode::SUCCESS)),
            b'o' | b'O' => events.push(Event::Order),
            &ESCAPE => rest = after_sequence(others),
            _ => {}
        }
    }
    events
}

/// Returns what follows the sequence of a key, of which the first character is read already.
fn after_sequence(rest: &[u8]) -> &[u8] {
    let length = match rest {
        [b'[', parameters @ ..] => {
            let last = parameters
                .iter()
                .position(|byte| (0x40..0x7f).contains(byte));
            last.map_or(rest.len(), |last| last + 2)
        }
        [b'O', ..] => 2,
        _ => 1,
    };
    rest.get(length..).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_count_and_no_part_of_another_one() {
        let (order, end) = (Event::Order, Event::Ended(ExitCode::SUCCESS));
        for (typed, expected) in [
            (&b"o"[..], &[order][..]),
            (b"oOq", &[order, order, end]),
            (b"xo\x04", &[order, end]),
            // Arrows, in both ways in which a terminal says them, function keys, and Alt.
            (b"\x1b[A\x1bOAq", &[end]),
            (b"\x1b[15~o\x1b[1;5Qo", &[order, order]),
            (b"\x1bOQ\x1bq\x1bo", &[]),
            (b"\x1b", &[]),
            (b"\x1b[", &[]),
            (b"\x1bO", &[]),
        ] {
            assert_eq!(keys(typed), expected, "{}", typed.escape_ascii());
        }
    }
}
